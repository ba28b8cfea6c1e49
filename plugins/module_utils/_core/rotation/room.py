# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Room for a new secret, on an application that holds as many as it may."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ..base.errors import OutOfTime, Refused
from ..base.redact import Log
from ..base.timing import Budget
from ..services.application import Application, Credential
from ..services.entra import Answer
from ..services.graph import REMOVE, Graph, NotDone
from ..services.vault import Vault, VaultRecord
from .deciding import Decision, Fate, Situation
from .evidence import Evidence
from .making import Making
from .plan import no_room, room
from .proving import Proving
from .publishing import FIELD_KEY_ID, FIELD_SECRET, fence

_ROOM_LOOKS = 3
_ROOM_PAUSE = 2.0


class Room:
    """Makes room, one secret at a time, each on fresh evidence.

    ``known`` gives the situation of a list; ``shown`` are the sign-ins with what the record shows, None where it
    shows none. ``record`` is the record as it was read last: it is to be saved from this one.
    """

    def __init__(
        self,
        *,
        vault: Vault,
        record: VaultRecord,
        evidence: Evidence,
        graph: Graph,
        making: Making,
        shown: Proving | None,
        known: Callable[[Application], Situation],
        budget: Budget,
        log: Log,
    ) -> None:
        self._vault, self.record, self._evidence, self._graph = vault, record, evidence, graph
        self._making, self._shown, self._known, self._budget, self._log = making, shown, known, budget, log
        self._fenced: set[str] = set()  # key ids that no interrupted run can publish any more

    def make(self, seconds: float) -> None:
        """Remove one secret that has to go, within so many seconds, and wait for it to be due where that suffices.

        Raises Refused where none may go, or where it is not removed; Stopped.
        """
        self._log.say("the application holds as many secrets as it may; making room")
        problem: Refused | None = None
        try:
            with self._budget.phase("make room for a new secret", seconds):
                for attempt in range(1, 1000):
                    self._graph.await_turn(REMOVE)
                    self._evidence.forget()
                    self._must_be_the_same()
                    try:
                        if self._remove_one():
                            return
                    except NotDone as failure:
                        problem = Refused("no room could be made for a new secret", failure.why, failure.todo)
                        if failure.certain and failure.status:
                            raise problem from None
                        self._budget.pause(failure.wait or 0.0)
                    except Refused as refusal:
                        problem = refusal
                        # A list may lag behind what Graph counts.
                        if attempt == _ROOM_LOOKS or len(self._evidence.last_listed().credentials) > 1:
                            raise
                    self._budget.pause(_ROOM_PAUSE)
        except OutOfTime as end:
            raise problem or Refused("no room could be made for a new secret", str(end), "run it again") from None

    def _must_be_the_same(self) -> None:
        now = self._evidence.record()
        before = self.record
        if any(now.secret(label) != before.secret(label) for label in (FIELD_SECRET, FIELD_KEY_ID)):
            raise Refused(
                f"the record {before.uid} has changed meanwhile", "another rotation may be under way", "run it again"
            )

    def _remove_one(self) -> bool:
        listed = self._evidence.listed()
        if self._making.see(listed):
            return True
        self._evidence.record()
        known = self._known(listed)
        decision, until = room(known, listed.credentials)
        if until is not None:
            self._wait(decision, until, known.now)
            return False
        item, by_sign_in = decision.credential, float("inf")
        if decision.fate is Fate.LEFT_OVER:
            self._fence(listed)
        elif not known.expired(item):
            if not self._shown_is_taken(known, listed.credentials):
                return False
            by_sign_in = self._shown.fresh_until() if self._shown else by_sign_in
        self._log.say(f"removing the secret {item.key_id} to make room: {decision.reason}")
        with self._budget.good_until(self._evidence.fresh_until(by_sign_in)):
            self._making.remove_old(item)
        return True

    def _fence(self, listed: Application) -> None:
        found = {item.key_id for item in listed.credentials}
        if not found <= self._fenced:
            self.record = fence(self._vault, self.record, self._budget, self._log)
            self._fenced = found

    def _wait(self, decision: Decision, until: datetime, now: datetime) -> None:
        seconds = (until - now).total_seconds()
        self._log.say(f"waiting {seconds:.0f} s until the secret {decision.credential.key_id} may go")
        self._budget.pause(seconds)

    def _shown_is_taken(self, known: Situation, listed: tuple[Credential, ...]) -> bool:
        """Whether the record's secret signs in. Raises Refused where it does not; False where that is not to be had."""
        answer = self._evidence.taken(self._shown) if self._shown else Answer.REFUSED
        if answer is Answer.LATER and self._shown:
            self._budget.pause(self._shown.last.wait or _ROOM_PAUSE)
            return False
        if answer is not Answer.TAKEN:
            raise no_room(known, listed, None)
        return True
