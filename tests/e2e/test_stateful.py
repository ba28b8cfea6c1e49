# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The transaction's interleavings: the real core on a model of the two stores, exhaustively and driven by hypothesis.

No record ever shows what a step of the product has removed; each run tells the truth; whatever happened, one more run
ends complete, or, inside the lag of the replicas, the one after it.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.deciding import Sorted, marker
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import Policy
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.publishing import Publishing
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.application import Credential
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra import Answer
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.vault import VaultRecord
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import SECOND, UID, Stores
from model_run import FATES, Run, fates_of, modelled

FULL = os.environ.get("KEEPERPAM_MATRIX") == "full"
AT_ONCE = timedelta(0)
HASTY = Policy(retire_after=AT_ONCE)
IMPATIENT = Policy(retire_after=AT_ONCE, verify_timeout=20)
DEFAULT = Policy()
#: So many seconds a run with the defaults takes at the most.
LONGEST = 480.0
EXPIRING = Policy(rotate="expiring")
#: How the stores may be: name, what is slow.
PROMPT: dict[str, Any] = {}
APART = {"lists": (0.0, 4.0), "sign_ins": (0.0, 9.0)}


def drive(fates: dict[int, str], policy: Policy, **stores: Any) -> Run:
    """Run once, alone; the requests with these numbers have these fates."""
    return Run(Stores(**stores), policy, lambda run, op: fates.get(len(run.ops), "ok")).whole()


def after(stores: Stores, policy: Policy) -> list[str]:
    """Let runs follow, and return what is wrong: the first one completes, or the second where replicas lag."""
    last = replace(policy, rotate="always", retire_after=AT_ONCE, verify_timeout=120)
    for number in range(2 if stores.lag else 1):
        if number or not stores.lag:
            stores.settle()
        run = Run(stores, last, lambda run, op: "ok").whole()
        problems = [f"the next run: {problem}" for problem in run.judge(alone=not stores.late)]
        if problems:
            return problems
    if run.outcome is None or run.outcome.status != "rotated":
        return [f"the next run: {run.outcome.message if run.outcome else run.crash!r}"]
    kept = [one["key_id"] for one in run.outcome.facts["kept"]]
    left = [one for one in stores.held if not stores.record.shows(one) and one.key_id not in kept]
    return [f"after the next run Entra holds {len(left)} more secrets"] if left else []


def problems_of(run: Run, alone: bool = True) -> list[str]:
    """Judge a run, and those after it."""
    found = run.judge(alone) + run.stores.lost
    return [*found, *(after(run.stores, run.policy) if not found else []), *run.stores.lost]


def sweep(policy: Policy, width: int, **stores: Any) -> dict[str, str]:
    """Disturb each request in every way, and with it each of the next ones; return what is wrong, and where."""
    found: dict[str, str] = {}

    def one(fates: dict[int, str]) -> Run:
        run = drive(fates, policy, **stores)
        ops = list(run.ops)
        for problem in problems_of(run):
            found.setdefault(problem.split(" (")[0], f"{fates} {ops}")
        run.ops = ops
        return run

    with modelled():
        whole = one({})
        for number, op in enumerate(whole.ops, 1):
            for fate in fates_of(op):
                run = one({number: fate})
                if run.killed:
                    continue
                for later in range(number + 1, min(len(run.ops), number + width) + 1):
                    for other in fates_of(run.ops[later - 1]):
                        one({number: fate, later: other})
    return found


#: What people may do to the stores.
PEOPLE: dict[str, Callable[[Stores], object]] = {
    "remove the newest": lambda stores: stores.take_away(*stores.held[-1:]),
    "remove what is shown": lambda stores: stores.take_away(*(one for one in stores.held if stores.record.shows(one))),
    "remove the others": lambda stores: stores.take_away(*(one for one in stores.held if not stores.record.shows(one))),
    "remove all": lambda stores: stores.take_away(*stores.held),
    "make one": Stores.make_one,
    "edit a note": lambda stores: stores.edit({"notes": str(stores.now)}),
    "restore": Stores.restore,
    "publish one": Stores.publish_one,
    "empty the record": lambda stores: stores.edit({"client_secret": "", "client_secret_id": "", "expires": ""}),
}


def meddled(policy: Policy, **stores: Any) -> dict[str, str]:
    """Let people do something at each request, and the run go on at once or much later; return what is wrong, and
    where."""
    found: dict[str, str] = {}

    def at(number: int, act: Callable[[Stores], object], pause: float) -> Run:
        def driver(run: Run, op: str) -> str:
            if len(run.ops) == number:
                act(run.stores)
                run.stores.now += pause
            return "ok"

        return Run(Stores(**stores), policy, driver).whole()

    with modelled():
        length = len(drive({}, policy, **stores).ops)
        for name, act in PEOPLE.items():
            for number, pause in itertools.product(range(1, length + 1), (0.0, 12.0, 1500.0)):
                run = at(number, act, pause)
                ops = list(run.ops)
                for problem in problems_of(run, alone=False):
                    found.setdefault(problem.split(" (")[0], f"{name} at {number}, {pause:.0f} s {ops}")
    return found


def doubled(policy: Policy, second: Policy, uid: str = UID, **stores: Any) -> dict[str, str]:
    """Let a whole other run, of the record with this uid, take place at each request; return what is wrong, and where.

    It begins at once or much later, and the first one goes on at once or much later.
    """
    found: dict[str, str] = {}

    def at(number: int, pauses: tuple[float, float]) -> tuple[Run, Run]:
        both = Stores(name=marker(UID, "before"), **stores)
        if uid != UID:
            both.add_record(uid, both.add(marker(uid, "before"), made=both.now - 3000))
        other = Run(both, second, lambda run, op: "ok", uid)

        def driver(run: Run, op: str) -> str:
            if len(run.ops) == number:
                both.now += pauses[0]
                other.whole()
                both.now += pauses[1]
            return "ok"

        return Run(both, policy, driver).whole(), other

    with modelled():
        length = len(drive({}, policy, **stores).ops)
        for number, pauses in itertools.product(range(1, length + 1), ((0.0, 0.0), (1500.0, 0.0), (0.0, 1500.0))):
            run, other = at(number, pauses)
            where = f"at {number}, {pauses} {run.ops} {other.ops}"
            for problem in (*(other.judge(alone=False) if other.ended else []), *problems_of(run, alone=False)):
                found.setdefault(problem.split(" (")[0], where)
    return found


def woven(policy: Policy, second: Policy, uid: str = UID, **stores: Any) -> dict[str, str]:
    """Let a run do some of its requests, then another one, of the record with this uid, some of its own, then the first
    one all others and the second one its last; return what is wrong, and where."""
    found: dict[str, str] = {}

    def steps(run: Run, number: int) -> None:
        while not run.ended and number > 0:
            run.step()
            number -= 1

    def after_some(first: int, then: int) -> tuple[Run, Run]:
        both = Stores(name=marker(UID, "before"), **stores)
        if uid != UID:
            both.add_record(uid, both.add(marker(uid, "before"), made=both.now - 3000))
        one, other = Run(both, policy), Run(both, second, uid=uid)
        one.start()
        steps(one, first)
        other.start()
        steps(other, then)
        one.finish()
        other.finish()
        return one, other

    with modelled():
        length, other_length = (len(drive({}, each, **stores).ops) for each in (policy, second))
        for first, then in itertools.product(range(1, length + 2), range(1, other_length + 4)):
            one, other = after_some(first, then)
            where = f"after {first} and {then} {one.ops} {other.ops}"
            for problem in (*other.judge(alone=False), *problems_of(one, alone=False)):
                found.setdefault(problem.split(" (")[0], where)
    return found


def twice(policy: Policy, **stores: Any) -> dict[str, str]:
    """Rotate, and again at once, killed at any request or not: replicas that lag do not make the second run lie."""
    found: dict[str, str] = {}
    with modelled():
        first = drive({}, policy, **stores)
        for number in range(1, len(first.ops) + 2):
            run = drive({number: "SIGKILL after"}, policy, **stores)
            again = Run(run.stores, policy, lambda run, op: "ok")
            again.whole()
            again.hidden = False
            for problem in (*again.judge(alone=True), *again.stores.lost):
                found.setdefault(problem.split(" (")[0], f"killed at {number} {again.ops}")
    return found


def report(found: dict[str, str]) -> str:
    """Return all of it, to be shown where a test fails."""
    return "\n".join(f"{problem}: {where}" for problem, where in found.items())


#: How a run may be, and the stores.
CASES: dict[str, tuple[Policy, dict[str, Any]]] = {
    "at once": (HASTY, {}),
    "default": (DEFAULT, {}),
    "expiring": (EXPIRING, {}),
    "apart": (DEFAULT, APART),
    "apart, at once": (HASTY, APART),
    "two secrets": (HASTY, {"limit": 2}),
    "two secrets, one kept": (replace(HASTY, keep_previous=1), {"limit": 2}),
    "without sign-ins": (replace(HASTY, verify=False), {}),
    "never taken": (IMPATIENT, {"sign_ins": (60.0,)}),
}
CASE = pytest.mark.parametrize("case", CASES)


@CASE
def test_every_two_requests_disturbed(case: str) -> None:
    policy, stores = CASES[case]
    found = sweep(policy, 3 if FULL or case != "apart" else 1, **stores)
    assert not found, report(found)


@CASE
def test_somebody_at_every_request(case: str) -> None:
    policy, stores = CASES[case]
    found = meddled(policy, **stores)
    assert not found, report(found)


@pytest.mark.parametrize("second", ["at once", "default", "expiring"])
@CASE
def test_another_run_at_every_request(case: str, second: str) -> None:
    policy, stores = CASES[case]
    found = doubled(policy, CASES[second][0], **stores)
    assert not found, report(found)


@pytest.mark.parametrize("case", [case for case, (_policy, stores) in CASES.items() if "limit" not in stores])
def test_a_run_of_another_record_at_every_request(case: str) -> None:
    policy, stores = CASES[case]
    found = doubled(policy, policy, SECOND, **stores)
    assert not found, report(found)


@pytest.mark.parametrize(
    ("case", "second"),
    [
        ("at once", "at once"),
        ("at once", "expiring"),
        ("expiring", "at once"),
        ("default", "expiring"),
        ("two secrets", "two secrets"),
        ("two secrets", "expiring"),
    ],
)
def test_two_runs_woven(case: str, second: str) -> None:
    policy, stores = CASES[case]
    found = woven(policy, CASES[second][0], **stores)
    assert not found, report(found)


def test_runs_of_two_records_woven() -> None:
    found = woven(HASTY, EXPIRING, SECOND)
    assert not found, report(found)


@pytest.mark.parametrize("lists", [(0.0,), (0.0, 10.0), (0.0, 20.0, 20.0), (10.0,)])
def test_rotated_twice_inside_the_lag(lists: tuple[float, ...]) -> None:
    found = twice(HASTY, lists=lists)
    assert not found, report(found)


@pytest.mark.parametrize(
    "stores", [{}, {"limit": 2}, {"sign_ins": (60.0,)}], ids=["many secrets", "two", "never taken"]
)
def test_no_run_outlasts_its_time(stores: dict[str, Any]) -> None:
    """With the defaults: however slow the services are, and whatever people take away meanwhile."""
    longest = 0.0
    with modelled():
        for seed in range(2000 if FULL else 500):
            chance = random.Random(seed)
            taken_at = chance.randrange(5, 25)

            def driver(run: Run, op: str, chance: Any = chance, taken_at: int = taken_at) -> str:
                if len(run.ops) == taken_at:
                    run.stores.take_away(*run.stores.held[-1:])
                left = run.budget.left()
                # A call ends with its phase. Outside of all phases one has its own limit.
                nearly_all = max(0.0, left - chance.uniform(1.0, 15.0)) if left < float("inf") else 60.0
                run.stores.now += min(left, chance.choice((0.0, 1.0, 10.0, nearly_all, nearly_all)))
                return "ok" if op == "pause" else chance.choice(("ok",) * 12 + ("busy", "lost before", "lost after"))

            run = Run(Stores(**stores), DEFAULT, driver).whole()
            assert run.outcome is not None
            longest = max(longest, run.budget.spent())
            assert run.budget.spent() <= LONGEST, f"{seed} {run.outcome.message} {run.ops}"
    assert longest > 0.8 * LONGEST, "not slow enough to tell anything"


class Interleavings(RuleBasedStateMachine):
    """Up to three runs at once, of two records, each request with a fate of its own; people change things meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = modelled()
        self.patch.__enter__()
        self.stores = Stores()
        self.runs: list[Run] = []
        self.alone: dict[int, bool] = {}
        self.judged: set[int] = set()
        self.problems: list[str] = []
        self.note = ""

    @initialize(
        lists=st.sampled_from(((0.0,), (0.0,), (3.0,), (0.0, 9.0), (5.0, 0.0, 2.0))),
        sign_ins=st.sampled_from(((0.0,), (0.0,), (4.0,), (0.0, 12.0), (30.0, 0.0))),
        limit=st.sampled_from((1000, 1000, 2)),
        second=st.booleans(),
    )
    def the_stores(self, lists: tuple[float, ...], sign_ins: tuple[float, ...], limit: int, second: bool) -> None:
        """How slow the stores are, how many secrets fit, and how many records there are."""
        self.stores = Stores(lists, sign_ins, limit, marker(UID, "before"))
        if second and limit > 2:
            self.stores.add_record(SECOND, self.stores.add(marker(SECOND, "before"), made=self.stores.now - 4000))

    def active(self) -> list[Run]:
        """Return the runs that are under way."""
        return [run for run in self.runs if not run.ended]

    @precondition(lambda self: len(self.active()) < 3 and len(self.runs) < 6)
    @rule(
        expiring=st.booleans(),
        retire_after=st.sampled_from((0, 0, 30)),
        keep_previous=st.sampled_from((0, 0, 0, 1)),
        verify=st.sampled_from((True, True, True, False)),
        second=st.booleans(),
    )
    def start(self, expiring: bool, retire_after: int, keep_previous: int, verify: bool, second: bool) -> None:
        """A run begins; one with ``rotate: expiring`` finds nothing to do, or only what another has left."""
        policy = Policy(
            rotate="expiring" if expiring else "always",
            retire_after=timedelta(seconds=retire_after),
            keep_previous=keep_previous,
            verify=verify,
            verify_timeout=60,
        )
        run = Run(self.stores, policy, uid=SECOND if second and SECOND in self.stores.records else UID)
        self.by_somebody_else()
        self.alone[id(run)] = not self.active() and not self.stores.late
        self.runs.append(run)
        run.start()

    @precondition(lambda self: self.active())
    @rule(choice=st.integers(0, 2), fate=st.sampled_from(FATES))
    def disturb(self, choice: int, fate: str) -> None:
        """The pending request of a run has a fate that is not the usual one."""
        active = self.active()
        self.step(active[choice % len(active)], fate)

    @precondition(lambda self: self.active())
    @rule(choice=st.integers(0, 2), steps=st.integers(1, 12))
    def go_on(self, choice: int, steps: int) -> None:
        """A run does some steps."""
        active = self.active()
        for _step in range(steps):
            self.step(active[choice % len(active)], "ok")

    def step(self, run: Run, fate: str) -> None:
        """Do one step, and judge a run that it ends."""
        if not run.ended:
            run.step(fate)
        if run.ended and id(run) not in self.judged:
            self.judged.add(id(run))
            self.problems += run.judge(self.alone[id(run)])

    def by_somebody_else(self) -> None:
        """What the runs under way find changed is not theirs."""
        for run in self.active():
            self.alone[id(run)] = False

    @precondition(lambda self: self.stores.late)
    @rule()
    def arrive(self) -> None:
        """A request that nobody waits for any more takes its effect."""
        self.by_somebody_else()
        self.stores.late.pop(0)()

    @rule()
    def edit(self) -> None:
        """Somebody edits another field of the record."""
        self.by_somebody_else()
        PEOPLE["edit a note"](self.stores)
        self.note = self.stores.record.value("notes")

    @rule(act=st.sampled_from(("remove the newest", "remove what is shown", "remove the others", "make one")))
    def portal(self, act: str) -> None:
        """Somebody makes a secret in the portal, or removes some."""
        self.by_somebody_else()
        PEOPLE[act](self.stores)

    @rule(act=st.sampled_from(("publish one", "restore")))
    def vault(self, act: str) -> None:
        """Somebody changes what the record shows."""
        self.by_somebody_else()
        PEOPLE[act](self.stores)
        self.note = self.stores.record.value("notes")

    @rule(seconds=st.sampled_from((1.0, 8.0, 60.0, 1500.0)))
    def time_passes(self, seconds: float) -> None:
        """Nothing happens; all runs that are under way stand still meanwhile."""
        self.stores.now += seconds

    @rule()
    def another_replica(self) -> None:
        """The replicas answer in another order."""
        self.stores.turn()

    @invariant()
    def nothing_is_lost(self) -> None:
        """No record shows what was removed, each run that is over has told the truth, the field is as edited last."""
        assert not self.stores.lost, self.stores.lost
        assert not self.problems, self.problems
        assert self.stores.record.value("notes") == self.note

    def teardown(self) -> None:
        """Everything comes to its end, and one more run completes, or the one after it."""
        try:
            for run in self.runs:
                while not run.ended:
                    self.step(run, "ok")
            self.nothing_is_lost()
            self.by_somebody_else()
            self.stores.settle()
            self.nothing_is_lost()
            for uid in self.stores.records:
                self.complete(uid)
        finally:
            self.patch.__exit__(None, None, None)

    def complete(self, uid: str) -> None:
        """Let runs follow: the first binds the record to the application again, if it has to, and the second is all
        that is needed then."""
        for _run in range(3):
            last = Run(self.stores, HASTY, lambda run, op: "ok", uid).whole()
            self.stores.settle()
            assert last.outcome is not None, last.crash
            problems = last.judge(alone=False)
            assert not problems, problems
            if "has no room" in last.outcome.message:
                # People have left it so: what is shown has gone, or is not bound. They do as they are told.
                shown = self.stores.shown(uid)
                assert shown is None or shown not in self.stores.held
                self.stores.take_away(self.stores.held[0])
        assert last.outcome is not None
        assert last.outcome.status == "rotated", last.outcome.message
        kept = {one["key_id"] for one in last.outcome.facts["kept"]}
        shown = {record.key_id for record in self.stores.records.values()}
        assert {one.key_id for one in self.stores.held} <= kept | shown
        assert not self.stores.lost, self.stores.lost


def test_interleavings() -> None:
    run_state_machine_as_test(
        Interleavings,
        settings=settings(
            max_examples=int(os.environ.get("EXAMPLES", 200 if FULL else 150)),
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def all_at_once(outlook: Sorted, now: datetime) -> list[Credential]:
    """Return all that is old, due or not."""
    return [one.credential for one in (*outlook.left_overs, *outlook.old)]


def unfenced(vault: Any, record: VaultRecord, *more: Any) -> VaultRecord:
    """Save nothing."""
    return record


def heedless(publishing: Publishing) -> bool:
    """Put the former secret back, whatever the record shows by now."""
    before = {label: publishing._record.secret(label) for label in ("client_secret", "client_secret_id", "expires")}
    publishing._vault.save(publishing._reread().with_values(before, ()))
    return True


def overwritten(policy: Policy, **stores: Any) -> dict[str, str]:
    """Let people take the new secret away once it is published, and publish one of their own at each request after;
    return what is wrong, and where."""
    found: dict[str, str] = {}

    def at(number: int) -> Run:
        def driver(run: Run, op: str) -> str:
            if run.published_at is not None and run.ops.count("save") and len(run.ops) == run.ops.index("save") + 2:
                PEOPLE["remove the newest"](run.stores)
            if len(run.ops) == number:
                PEOPLE["publish one"](run.stores)
            return "ok"

        return Run(Stores(**stores), policy, driver).whole()

    with modelled():
        for number in range(10, 60):
            run = at(number)
            for problem in problems_of(run, alone=False):
                found.setdefault(problem.split(" (")[0], f"at {number} {run.ops}")
    return found


def test_what_people_publish_is_not_overwritten() -> None:
    found = overwritten(HASTY)
    assert not found, report(found)


CORE = "ansible_collections.keeperpam.azure.plugins.module_utils._core"
#: What is taken out of the core: its name, what stands in its place, which disturbances show it, and how.
PRECAUTIONS: dict[str, tuple[dict[str, Any], Callable[[], dict[str, str]], str]] = {
    "undo": ({"making.Making.undo": lambda making: True}, lambda: sweep(HASTY, 1), "rolled_back, but its secret"),
    "look": ({"making.Making.look": lambda making: []}, lambda: sweep(HASTY, 1), "refused, but its secret"),
    "doubt": (
        {"publishing.Publishing.in_doubt": lambda publishing: False},
        lambda: sweep(HASTY, 1),
        "the record shows",
    ),
    "what remains": (
        {"retiring.Retiring.remaining": lambda retiring: []},
        lambda: sweep(HASTY, 1),
        "rotated, but Entra",
    ),
    "the look at list and sign-in": (
        {"retiring.Retiring._look": lambda retiring: (True, Answer.TAKEN)},
        lambda: meddled(HASTY),
        "it removes an old secret although the new one has gone",
    ),
    "the look at the record": (
        {"retiring.Retiring._check_record": lambda retiring: None},
        lambda: meddled(DEFAULT),
        "the record shows",
    ),
    "the age of the evidence": (
        {"evidence.FRESH": 1e9},
        lambda: meddled(HASTY),
        "it removes an old secret although the new one has gone",
    ),
    "not found for some time": (
        {"retiring._UNSEEN": 0.0, "retiring._UNSEEN_LOOKS": 1},
        lambda: twice(HASTY, lists=(0.0, 20.0, 20.0)),
        "rotated, but Entra holds",
    ),
    "the fence": (
        {"transaction.fence": unfenced, "room.fence": unfenced},
        lambda: woven(HASTY, EXPIRING),
        "the record was made to show",
    ),
    "standing back at a fence": (
        {"publishing.Publishing._stand_back": lambda *arguments: None},
        lambda: woven(HASTY, EXPIRING),
        "the record shows",
    ),
    "reading before putting back": (
        {"publishing.Publishing.put_back": heedless},
        lambda: overwritten(HASTY),
        "it has overwritten what somebody else had published",
    ),
    "several sign-ins": ({"proving._IN_A_ROW": 1}, lambda: sweep(HASTY, 0), "it has published what was not taken"),
    "the time to spread": (
        {"proving._SPREAD": 0.0},
        lambda: sweep(HASTY, 0, sign_ins=(3.0,)),
        "it has published",
    ),
    "the wait": (
        {"deciding.Sorted.wait_until": lambda outlook, now: None, "deciding.Sorted.due": all_at_once},
        lambda: sweep(DEFAULT, 0),
        "it removes what the record showed before",
    ),
    "other records' markers": (
        {"deciding.marked_by": lambda credential: None},
        lambda: doubled(HASTY, HASTY, SECOND),
        "the record shows",
    ),
}


@pytest.mark.parametrize("taken_out", PRECAUTIONS)
def test_the_model_bites(monkeypatch: pytest.MonkeyPatch, taken_out: str) -> None:
    """The core with one of its precautions taken out is found out."""
    instead, disturbed, finds = PRECAUTIONS[taken_out]
    for name, value in instead.items():
        monkeypatch.setattr(f"{CORE}.rotation.{name}", value)
    found = disturbed()
    assert any(problem.startswith(finds) for problem in found), report(found)


def the_rest(number: int, fate: str, ops: tuple[str, ...]) -> Callable[[Run, str], str]:
    """Return a driver under which these operations have this fate from the request with that number on."""
    return lambda run, op: fate if len(run.ops) >= number and op in ops else "ok"


@pytest.mark.parametrize("ops", [("add", "remove", "list"), ("save", "read"), ("prove",), ("remove",), ("save",)])
@pytest.mark.parametrize("case", ["at once", "default", "expiring", "two secrets"])
def test_a_service_that_is_gone_from_some_request_on(case: str, ops: tuple[str, ...]) -> None:
    policy, stores = CASES[case]
    found: dict[str, str] = {}
    with modelled():
        length = len(drive({}, policy, **stores).ops)
        for number, fate in itertools.product(
            range(1, length + 1), ("lost before", "lost after", "late", "refused", "busy")
        ):
            run = Run(Stores(**stores), policy, the_rest(number, fate, ops)).whole()
            for problem in problems_of(run):
                found.setdefault(problem.split(" (")[0], f"{fate} from {number} on")
    assert not found, report(found)
