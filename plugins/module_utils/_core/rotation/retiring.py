# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The old secrets at Graph: removed once their successor is published, as far as they may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from ..base.errors import RotationError, Stopped
from ..base.redact import Log
from ..base.timing import RETIRE, REVIEW, Budget
from ..services.application import Application, Credential
from ..services.graph import Graph, NotDone
from .making import Making
from .plan import Kept

# Given the secrets that are listed and the time, those to remove and those to keep.
Choice = Callable[[Sequence[Credential], datetime], "tuple[list[Credential], list[Kept]]"]


class Retiring:
    """The removal of one application's old secrets, of which Graph may not list some (``unlisted``) yet.

    ``kept`` are those that stay, known once ``retire`` has run.
    """

    def __init__(
        self,
        graph: Graph,
        application: Application,
        unlisted: Sequence[Credential],
        making: Making,
        choose: Choice,
        budget: Budget,
        log: Log,
    ) -> None:
        self._graph, self._application, self._unlisted, self._making = graph, application, unlisted, making
        self._choose, self._budget, self._log = choose, budget, log
        self.kept: list[Kept] = []

    def retire(self) -> None:
        """Remove the old secrets, going by a fresh list. One that fails keeps no other from being removed.

        Raises NotDone for the first that was not removed, RotationError where the admin application cannot sign in any
        more, Stopped.
        """
        refusals: list[NotDone] = []
        with self._budget.phase("remove the old secrets", RETIRE):
            fresh = self._graph.read(self._application)
            late = self._making.look() if self._making.unanswered() else []
            # Reads lag behind writes: what either of the two lists shows is there, or was a moment ago.
            listed = (*self._unlisted, *self._application.credentials, *fresh.credentials, *late)
            old, self.kept = self._choose(listed, fresh.read_at)
            for stays in self.kept:
                self._log.say(f"keeping the secret {stays.key_id}: {stays.reason}")
            for item in old:
                try:
                    self._remove(item)
                except NotDone as refusal:
                    self._log.say(f"the secret {item.key_id} was not removed: {refusal.why}")
                    refusals.append(refusal)
        if refusals:
            raise refusals[0]

    def _remove(self, item: Credential) -> None:
        if item.key_id in self._making.removed:
            return
        young = item.display_name == self._making.display_name or item in self._unlisted
        remove = self._making.remove_surely if young else self._remove_old
        if not remove(item.key_id):
            self._log.say(f"the secret {item.key_id} was gone already")
            return
        self._log.say(f"removed the secret {item.key_id}")
        self._making.removed.append(item.key_id)

    def _remove_old(self, key_id: str) -> bool:
        return self._graph.remove_password(self._application, key_id)

    def remaining(self) -> list[str] | None:
        """Return the key ids that are left after ``retire`` has failed; None where that is not to be had.

        A removal whose answer was lost has taken effect more often than not.
        """
        if self._making.unanswered():
            return None
        try:
            with self._budget.phase("see what remains", REVIEW):
                fresh = self._graph.read(self._application)
        except (NotDone, RotationError, Stopped) as problem:
            self._log.detail(f"what remains is not known: {problem}")
            return None
        listed = {item.key_id for item in fresh.credentials}
        removed = self._making.removed
        gone = [item.key_id for item in self._application.credentials if item.key_id not in listed]
        removed += [key_id for key_id in gone if key_id not in removed]
        old, self.kept = self._choose(fresh.credentials, fresh.read_at)
        return [item.key_id for item in old]
