# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From uids to outcomes: the one read at the start, what is refused before anything, and the fleet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from ..base.errors import RotationError
from ..base.redact import Log
from ..base.timing import RESOLVE, Budget
from ..rotation.identity import Sources, choose
from ..rotation.outcome import Outcome, ended
from ..rotation.policy import Policy
from ..rotation.subject import Task
from ..services.application import parse_time
from ..services.http import Http, Lines
from ..services.vault import Vault, VaultRecord, not_found, undecipherable
from .company import Fleetmates
from .fleet import Fleet
from .member import Member
from .naming import Naming
from .pacing import Pacer, Turn
from .reading import Reading, SharedVault
from .schedule import Schedule
from .stopping import Stop

# More unpublished secrets at a time are not saved in one burst.
MOST_AT_ONCE = 64


@dataclass(frozen=True)
class Order:
    """What to rotate, and how. ``beside`` are the uids of further records, by the options that name them. ``about``
    returns of a record's reading, and of those, where the admin identity comes from, given what to fetch files with
    and what to read a record once more from, and how to rotate it; it raises BadInput."""

    uids: Sequence[str]
    beside: Mapping[str, str]
    keeper: Mapping[str, str]
    about: Callable[[VaultRecord, Mapping[str, VaultRecord], Http, Vault | None], tuple[Sources, Policy]]
    concurrency: int = 8
    canary: int = 0
    max_failures: int | None = None
    check: bool = False


class Run:
    """One fleet. ``tell`` is told how each rotation ended, as it ends; where nothing ``is_heard`` any more, no other
    begins."""

    def __init__(
        self, order: Order, budget: Budget, log: Log, tell: Callable[[str, Outcome], None], is_heard: Callable[[], bool]
    ) -> None:
        self._order, self._budget, self._log, self._tell, self._is_heard = order, budget, log, tell, is_heard
        self._lines, self._stop, self._reading = Lines(), Stop(), Reading()
        self._pacer = Pacer(log.say)
        self._titles: dict[str, str] = {}
        self._records: dict[str, VaultRecord] = {}
        self._beside: dict[str, VaultRecord] = {}
        self._broken: dict[str, RotationError] = {}
        self._adopted: dict[str, tuple[str, ...]] = {}
        self._idle: set[str] = set()  # the uids of those that need no new secret, as their records say
        self._company: Fleetmates

    @property
    def throttled(self) -> int:
        """How many requests Keeper and Graph have refused as too many."""
        return self._pacer.throttled

    def run(self) -> None:
        """Rotate all of them. Raises BadInput and Refused where nothing can be read at all, Stopped before anything
        has begun."""
        order = self._order
        self._read()
        self._budget.listener = self._stop.ask_for
        last = self._look_ahead()
        for uid, problem in self._broken.items():
            facts = {"record": uid, "title": self._titles[uid]} if uid in self._titles else {}
            self._tell(uid, ended(problem, facts, Log(_nothing)))
        uids, canary = in_order(order.uids, order.canary, last, {*self._idle, *self._broken})
        Fleet(
            Schedule(uids, order.concurrency, canary, order.max_failures, last, self._broken),
            self._join,
            self._titles,
            self._tell,
            self._is_heard,
            concurrency=order.concurrency,
            lines=self._lines,
            pacer=self._pacer,
            stop=self._stop,
        ).run()
        self._lines.close()

    def _read(self) -> None:
        order = self._order
        http = Http(self._budget, self._log, lines=self._lines, pace=Turn(self._pacer))
        vault = Vault(order.keeper, http, self._budget, self._log)
        with self._budget.phase("read the records", RESOLVE):
            found, lost = vault.find(dict.fromkeys([*order.uids, *order.beside.values()]))
        for option, uid in order.beside.items():
            if uid not in found:
                raise undecipherable(uid) if uid in lost else not_found(uid, option)
            self._beside[uid] = found[uid]
        for uid in order.uids:
            if uid in found:
                self._records[uid], self._titles[uid] = found[uid], found[uid].title
            else:
                self._broken[uid] = undecipherable(uid) if uid in lost else not_found(uid, "records")

    def _look_ahead(self) -> set[str]:
        """Refuse what can be refused beforehand; return the uids of the records whose secret others sign in with."""
        http = Http(self._budget, self._log, lines=self._lines)
        admins = set(self._order.beside.values())
        for uid, record in self._records.items():
            try:
                sources, policy = self._order.about(record, self._beside, http, None)
                self._adopted[uid] = policy.adopt
                if policy.rotate == "expiring" and _lasts(record, policy):
                    self._idle.add(uid)
                admins.add(choose(sources)[0].record_uid)
            except RotationError as problem:
                self._broken[uid] = problem
        able = [record for uid, record in self._records.items() if uid not in self._broken]
        self._company = Fleetmates(self._records.values(), self._adopted)
        if len(able) > 1:
            naming = Naming(self._sources, self._company, self._lines, self._pacer, self._stop, self._log)
            self._broken.update(self._company.clashes(naming.applications(able)))
        return admins

    def _sources(self, record: VaultRecord, http: Http) -> Sources:
        return self._order.about(record, self._beside, http, None)[0]

    def _join(self, uid: str) -> Member:
        order = self._order
        return Member(self._records.pop(uid), self._task, self._lines, self._pacer, self._stop, order.check)

    def _task(self, record: VaultRecord, http: Http, budget: Budget, log: Log) -> Task:
        vault = SharedVault(self._reading, self._order.keeper, http, budget, log)
        sources, policy = self._order.about(record, self._beside, http, vault)
        return Task(vault, record, sources, policy, company=self._company)


def in_order(uids: Sequence[str], canary: int, last: Collection[str], idle: Collection[str]) -> tuple[list[str], int]:
    """Return the uids in the order in which they begin, and how many of them are the trial. It proves something only
    with such as are not ``idle``; those in ``last`` are none of it."""
    able = [uid for uid in uids if uid not in last]
    first = sorted(able, key=lambda uid: uid in idle)[:canary]
    return [*first, *(uid for uid in uids if uid not in first)], len(first)


def _lasts(record: VaultRecord, policy: Policy) -> bool:
    end = parse_time(record.value("expires"))
    return end is not None and end - datetime.now(timezone.utc) >= timedelta(days=policy.min_days_left)


def _nothing(line: str) -> None:
    del line
