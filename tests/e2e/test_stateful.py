# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The transaction's interleavings: the real core on a model of the two stores, driven by hypothesis.

At every change of either store the vault's secret signs in; each run tells the truth; whatever happened, one more run
ends complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.making import Making
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import Policy
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.publishing import Publishing
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.retiring import Retiring
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import FATES, Run, Stores, modelled

FULL = os.environ.get("KEEPERPAM_MATRIX") == "full"


class Interleavings(RuleBasedStateMachine):
    """Up to three runs at once, each request with a fate of its own, and people who change things meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = modelled()
        self.patch.__enter__()
        self.stores = Stores()
        self.runs: list[Run] = []
        self.alone: dict[int, bool] = {}
        self.judged: set[int] = set()
        self.problems: list[str] = []
        self.notes = 0

    @initialize(visible=st.sampled_from((0.0, 0.0, 3.0, 9.0)), usable=st.sampled_from((0.0, 0.0, 4.0, 30.0)))
    def the_stores(self, visible: float, usable: float) -> None:
        """How slow the stores are."""
        self.stores.visible_after, self.stores.usable_after = visible, usable

    def active(self) -> list[Run]:
        """Return the runs that are under way."""
        return [run for run in self.runs if not run.ended]

    @precondition(lambda self: len(self.active()) < 3 and len(self.runs) < 6)
    @rule(expiring=st.booleans())
    def start(self, expiring: bool) -> None:
        """A run begins; one with ``rotate: expiring`` finds nothing to do, or only what another has left."""
        policy = Policy(rotate="expiring" if expiring else "always", verify_timeout=20)
        run = Run(self.stores, policy)
        for other in self.active():
            self.alone[id(other)] = False
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
    @rule(choice=st.integers(0, 2), steps=st.integers(1, 9))
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
        self.notes += 1
        self.stores.edit("notes", str(self.notes))

    @rule()
    def portal(self) -> None:
        """Somebody makes a secret in the portal."""
        self.by_somebody_else()
        self.stores.add("by hand")

    @rule(seconds=st.sampled_from((1.0, 8.0, 400.0)))
    def time_passes(self, seconds: float) -> None:
        """Nothing happens."""
        if not self.active():
            self.stores.now += seconds

    @invariant()
    def nothing_is_lost(self) -> None:
        """The vault's secret signs in, each run that is over has told the truth, and the field is as edited last."""
        assert not self.stores.lost, self.stores.lost
        assert not self.problems, self.problems
        assert self.stores.value("notes") == (str(self.notes) if self.notes else "")

    def teardown(self) -> None:
        """Everything comes to its end, and one more run completes."""
        try:
            for run in self.runs:
                while not run.ended:
                    self.step(run, "ok")
            self.nothing_is_lost()
            self.by_somebody_else()
            self.stores.settle()
            self.nothing_is_lost()
            last = Run(self.stores, Policy())
            last.start()
            last.finish()
            assert last.outcome is not None, last.crash
            assert last.outcome.status == "rotated", last.outcome.message
            assert [one.key_id for one in self.stores.held] == [self.stores.value("client_secret_id")]
            assert not self.stores.lost, self.stores.lost
        finally:
            self.patch.__exit__(None, None, None)


def test_interleavings() -> None:
    run_state_machine_as_test(
        Interleavings,
        settings=settings(
            max_examples=200 if FULL else 150,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def drive(fates: dict[int, str], policy: Policy | None = None, **slow: float) -> tuple[Run, int]:
    """Run once, alone; the requests with these numbers have these fates. Returns the run and how many there were."""
    count = 0

    def driver(run: Run, op: str) -> str:
        nonlocal count
        count += 1
        return fates.get(count, "ok")

    stores = Stores(**slow)
    run = Run(stores, policy or Policy(verify_timeout=20), driver)
    run.whole()
    return run, count


def problems_of(run: Run) -> list[str]:
    """Judge a run that was alone, and the next one."""
    problems = run.judge(alone=True) + run.stores.lost
    run.stores.settle()
    last = Run(run.stores, Policy(), lambda run, op: "ok")
    last.whole()
    if last.outcome is None or last.outcome.status != "rotated":
        problems.append(f"the next run: {last.outcome or last.crash!r}")
    elif [one.key_id for one in run.stores.held] != [run.stores.value("client_secret_id")]:
        problems.append(f"after the next run Entra holds {len(run.stores.held)} secrets")
    return [*problems, *run.stores.lost]


def sweep(width: int, **slow: float) -> dict[str, str]:
    """Disturb each request in every way, and with it each of the next ones; return what is wrong, and where."""
    found: dict[str, str] = {}
    with modelled():
        _run, length = drive({}, **slow)
        for number in range(1, length + 1):
            for fate in FATES:
                run, longer = drive({number: fate}, **slow)
                plans = [{number: fate}]
                if not run.killed:
                    second = range(number + 1, min(longer, number + width) + 1)
                    plans += [{number: fate, later: other} for later in second for other in FATES]
                for fates in plans:
                    run, _length = drive(fates, **slow)
                    for problem in problems_of(run):
                        ops = [op for op, _answered, _at in run.log]
                        found.setdefault(problem.split(" (")[0], f"{fates} {ops}")
    return found


@pytest.mark.parametrize("slow", [{}, {"visible_after": 3.0}, {"usable_after": 30.0}], ids=["prompt", "late", "never"])
def test_every_two_requests_disturbed(slow: dict[str, float]) -> None:
    found = sweep(3, **slow)
    assert not found, "\n".join(f"{problem}: {where}" for problem, where in found.items())


@pytest.mark.parametrize(
    ("broken", "name", "instead", "finds"),
    [
        (Making, "undo", lambda making: True, "rolled_back, but its secret is there"),
        (Making, "look", lambda making: [], "refused, but its secret is there"),
        (Publishing, "in_doubt", lambda publishing: False, "the vault shows"),
        (Retiring, "remaining", lambda retiring: [], "rotated, but Entra holds"),
    ],
    ids=["undo", "look", "in_doubt", "remaining"],
)
def test_the_model_bites(monkeypatch: pytest.MonkeyPatch, broken: type, name: str, instead: object, finds: str) -> None:
    """The core with one of its precautions taken out is found out."""
    monkeypatch.setattr(broken, name, instead)
    found = sweep(1)
    assert any(problem.startswith(finds) for problem in found), found


def the_rest(number: int, fate: str, ops: tuple[str, ...]) -> Callable[[Run, str], str]:
    """Return a driver under which these operations have this fate from the request with that number on."""
    count = 0

    def driver(run: Run, op: str) -> str:
        nonlocal count
        count += 1
        return fate if count >= number and op in ops else "ok"

    return driver


@pytest.mark.parametrize("ops", [("add", "remove", "list"), ("save", "read"), ("prove",), ("remove",), ("save",)])
def test_a_service_that_is_gone_from_some_request_on(ops: tuple[str, ...]) -> None:
    found: dict[str, str] = {}
    with modelled():
        _run, length = drive({})
        for number in range(1, length + 1):
            for fate in ("lost before", "lost after", "late", "refused", "busy"):
                run = Run(Stores(), Policy(verify_timeout=20), the_rest(number, fate, ops))
                run.whole()
                for problem in problems_of(run):
                    found.setdefault(problem.split(" (")[0], f"{fate} from {number} on")
    assert not found, "\n".join(f"{problem}: {where}" for problem, where in found.items())
