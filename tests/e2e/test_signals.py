# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A signal may come between any two lines of the core, not just while it waits: each of them is tried.

The core is the real one, on the model of the two stores; the signal is raised by a trace function, as a signal handler
would.
"""

from __future__ import annotations

import itertools
import os
import sys
from argparse import Namespace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import Stopped
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation import transaction as rotation
from ansible_collections.keeperpam.azure.plugins.module_utils._core.script import pam_script
from model import Stores
from model_run import Run, modelled
from test_stateful import CASES, DEFAULT, PEOPLE, problems_of, the_rest

CORE = str(Path(rotation.__file__).resolve().parent) + os.sep
#: Every so many lines; each in the full set.
STRIDE = 1 if os.environ.get("KEEPERPAM_MATRIX") == "full" else 5


@cache
def is_core(filename: str) -> bool:
    """Whether this is a file of the core."""
    return os.path.realpath(filename).startswith(CORE)


class Interrupt:
    """Raises Stopped at the line of the core with this number, once, unless signals are let pass by then."""

    def __init__(self, run: Run, number: int) -> None:
        self.run, self.number, self.lines, self.where, self.inside = run, number, 0, "", False

    def __enter__(self) -> Interrupt:
        self._before = sys.gettrace()  # that of a measurement of coverage
        sys.settrace(self._trace)
        return self

    def __exit__(self, *failure: Any) -> None:
        sys.settrace(self._before)

    def begin(self) -> None:
        """Count from now on."""
        self.inside = True

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not is_core(frame.f_code.co_filename) or self.run.signalled:
            return None
        self.inside = self.inside or frame.f_code is rotation.perform.__code__
        if event == "line" and self.inside:
            self.lines += 1
            if self.lines == self.number and not self.run.budget.shielded:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
                self.run.signalled = True
                raise Stopped("interrupted by SIGTERM")
        return self._trace


def interrupted(number: int, case: str, fate: str = "ok", ops: tuple[str, ...] = ()) -> tuple[Run, Interrupt]:
    """Run once, interrupted at the line with this number, while these operations have this fate."""
    policy, stores = CASES[case]
    run = Run(Stores(**stores), policy, the_rest(1, fate, ops))
    with Interrupt(run, number) as interrupt:
        run.whole()
    return run, interrupt


def test_at_every_line_of_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before the rotation has begun, and between its end and the report."""
    runs: list[Run] = []
    interrupts: list[Interrupt] = []
    options = Namespace(doctor=False, check=False, debug=False, record="uid", provider="")
    monkeypatch.setattr(pam_script, "missing_libraries", dict)
    monkeypatch.setattr(pam_script, "catch_signals", lambda budget: interrupts[-1].begin())
    monkeypatch.setattr(pam_script, "Budget", lambda: runs[-1].budget)
    monkeypatch.setattr(pam_script, "Http", lambda budget, log: None)
    monkeypatch.setattr(pam_script, "prepare", lambda request, http, budget, log, environ: runs[-1]._task())

    def once(number: int) -> Interrupt:
        runs.append(Run(Stores(), DEFAULT, lambda run, op: "ok"))
        runs[-1].begin()
        interrupts.append(Interrupt(runs[-1], number))
        with interrupts[-1] as interrupt:
            try:
                runs[-1].outcome = pam_script._run(Log(lambda line: None), options, {})
            except BaseException as problem:
                runs[-1].crash = problem
        return interrupt

    found: dict[str, str] = {}
    with modelled():
        whole = once(0)
        assert whole.lines > 200
        numbers = {*range(1, whole.lines + 1, STRIDE), *range(1, 30), *range(whole.lines - 60, whole.lines + 1)}
        for number in sorted(numbers):
            interrupt = once(number)
            for problem in problems_of(runs[-1]):
                found.setdefault(f"{problem.split(' (')[0]} [{interrupt.where}]", str(number))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("case", "fate", "ops"),
    [
        ("at once", "ok", ()),
        ("default", "ok", ()),
        ("expiring", "ok", ()),
        ("two secrets", "ok", ()),
        ("at once", "lost after", ("add",)),
        ("at once", "lost after", ("save",)),
        ("at once", "lost before", ("save",)),
        ("at once", "lost after", ("remove",)),
        ("two secrets", "lost after", ("remove",)),
    ],
)
def test_at_every_line(case: str, fate: str, ops: tuple[str, ...]) -> None:
    found: dict[str, str] = {}
    with modelled():
        _run, whole = interrupted(0, case, fate, ops)
        assert whole.lines > 200
        for number in range(1, whole.lines + 1, STRIDE):
            run, interrupt = interrupted(number, case, fate, ops)
            if isinstance(run.crash, Stopped) and run.before == run.stores.snapshot(run.uid):
                continue  # before anything has begun, or where it is caught further out
            for problem in problems_of(run):
                found.setdefault(f"{problem.split(' (')[0]} [{interrupt.where}]", str(number))
    assert not found, "\n".join(found)


def test_while_what_was_taken_away_is_put_back() -> None:
    """People have removed the new secret; no signal is let through any more once that is known."""
    found: dict[str, str] = {}

    def driver(run: Run, op: str) -> str:
        if run.ops.count("save") == 1 and op != "save" and len(run.ops) == run.ops.index("save") + 2:
            PEOPLE["remove the newest"](run.stores)
        return "ok"

    with modelled():
        whole = 0
        for number in itertools.chain((0,), itertools.count(1, STRIDE)):
            run = Run(Stores(), CASES["at once"][0], driver)
            with Interrupt(run, number) as interrupt:
                run.whole()
            whole = whole or interrupt.lines
            if number > whole:
                break
            if isinstance(run.crash, Stopped) and run.before == run.stores.snapshot(run.uid):
                continue
            for problem in problems_of(run, alone=False):
                found.setdefault(f"{problem.split(' (')[0]} [{interrupt.where}]", str(number))
    assert not found, "\n".join(found)
