# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records read for many rotations in one request: Keeper counts requests, not records."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ..base.errors import Refused
from ..base.redact import Log
from ..base.timing import Budget
from ..services.http import Http
from ..services.vault import READ, Vault, VaultRecord, undecipherable

# So long (seconds) others may join a request before it is sent.
_WINDOW = 0.25
_LOOK = 0.5
# With less (seconds) than that left of its phase, a rotation gives Keeper no fair time to answer, or to be asked again.
_ENOUGH = 12.0
# What is found, what cannot be deciphered, and when (of a budget's ``awake``) that was asked for.
_Find = Callable[[list[str]], tuple[dict[str, VaultRecord], list[str], float]]


@dataclass
class _Batch:
    """One request for the records of several rotations. Nothing is found where whoever was to send it has ended."""

    uids: dict[str, None] = field(default_factory=dict)
    asked: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    found: dict[str, VaultRecord] | None = None
    lost: list[str] = field(default_factory=list)
    problem: Refused | None = None
    asked_at: float = 0.0


class Reading:
    """The reads of all rotations: each is answered by a request that was sent after it was asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: _Batch | None = None

    def read(
        self, uids: list[str], find: _Find, turn: Callable[[], None], budget: Budget
    ) -> tuple[dict[str, VaultRecord], float]:
        """Return the records with these uids, and when (of the budget's ``awake``) they were asked for; ``find`` asks
        Keeper, ``turn`` waits until it may be asked.

        Raises Refused and BadInput as a vault does, Stopped.
        """
        while True:
            with self._lock:
                leads = self._open is None
                batch = self._open = self._open or _Batch()
                batch.uids.update(dict.fromkeys(uids))
            if leads:
                self._send(batch, find, turn, budget)
            else:
                with budget.others_turn():
                    while not batch.asked.wait(_LOOK):
                        budget.admit()
                while not batch.done.wait(_LOOK):
                    budget.admit()
            if batch.problem is not None:
                raise Refused(batch.problem.what, batch.problem.why, batch.problem.todo)
            if batch.found is None:
                continue
            for uid in uids:
                if uid in batch.lost:
                    raise undecipherable(uid)
            return {uid: batch.found[uid] for uid in uids if uid in batch.found}, batch.asked_at

    def _send(self, batch: _Batch, find: _Find, turn: Callable[[], None], budget: Budget) -> None:
        try:
            budget.pause(min(_WINDOW, budget.left() / 2))
            turn()
            self._close(batch)
            batch.found, batch.lost, batch.asked_at = find(list(batch.uids))
        except Refused as problem:
            if budget.left() < _ENOUGH:
                raise  # one that has more time asks again for the others
            batch.problem = problem
        finally:
            self._close(batch)
            batch.done.set()

    def _close(self, batch: _Batch) -> None:
        with self._lock:
            if self._open is batch:
                self._open = None
        batch.asked.set()


class SharedVault(Vault):
    """The vault of one rotation of the fleet."""

    def __init__(
        self, reading: Reading, configuration: Mapping[str, str], http: Http, budget: Budget, log: Log
    ) -> None:
        super().__init__(configuration, http, budget, log)
        self._reading, self._asked_at = reading, float("-inf")

    @property
    def asked_at(self) -> float:
        """When (of the budget's ``awake``) what was read last was asked for."""
        return self._asked_at

    def read(self, uids: Iterable[str]) -> dict[str, VaultRecord]:
        """Return the records with these uids, read together with those of others."""
        found, self._asked_at = self._reading.read(list(uids), self._find, self._turn, self._budget)
        return found

    def _find(self, uids: list[str]) -> tuple[dict[str, VaultRecord], list[str], float]:
        return (*self.find(uids), self._http.asked_at)

    def _turn(self) -> None:
        self._http.pace.book(READ, self._budget)
