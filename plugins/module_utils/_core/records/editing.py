# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Editing a record until it is as wanted: look, take one step, look again. Nothing is remembered between the looks.

What an interrupted run has left is thus found by the next run's first look, and what others write meanwhile stays:
each step is taken only at the revision that was looked at.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Optional, TypeVar

from ..base.errors import BadInput, Refused, RotationError, Stopped
from ..base.redact import Log
from ..base.timing import Budget
from ..services.vault import NotSaved, Vault, VaultRecord

_T = TypeVar("_T")
Step = Optional[Callable[[], None]]
# Steps that failed before it is given up, and looks in all.
FAILURES = 4
LOOKS = 10
READ, EDIT = 45.0, 120.0


class HalfDone(RotationError):
    """The record was changed, but is not as wanted yet; the next run completes it."""

    status = "incomplete"
    exit_status = 5


def read_one(vault: Vault, uid: str, types: tuple[str, ...]) -> VaultRecord:
    """Return the record. Raises BadInput where it is not there or of another type, and Refused."""
    found = vault.read([uid])
    if uid not in found:
        raise BadInput(
            f"the record {uid} was not found",
            "it is not shared with the KSM application, or does not exist",
            "share the record's folder with the application, with edit permission",
        )
    if found[uid].type not in types:
        raise BadInput(
            f"the record {uid} is of type {found[uid].type or '(none)'}",
            "it must be " + " or ".join(types),
            "convert it in the vault, or name another record",
        )
    return found[uid]


def must_be_editable(record: VaultRecord) -> None:
    """Raise Refused where the KSM application may not edit the record."""
    if not record.editable:
        raise Refused(
            f"the record {record.uid} is read-only for the KSM application",
            todo="share its folder with the application with edit permission",
        )


def settle(look: Callable[[], tuple[_T, Step]], budget: Budget, log: Log, undo: Callable[[], Any]) -> tuple[_T, bool]:
    """Look and take the step that the look gives, until it gives none; return what was seen last, and if it changed.

    A step raises NotSaved. ``undo`` is run when it is given up after a step: it may take back what was done, and is
    true when nothing is left of it. Raises BadInput, Refused and, where something is left, HalfDone.
    """
    acted = False
    failures = 0
    try:
        with budget.phase("edit the record", EDIT):
            for _look in range(LOOKS):
                seen, step = look()
                if step is None:
                    return seen, acted
                before, acted = acted, True
                try:
                    step()
                except NotSaved as problem:
                    acted = before or not problem.certain
                    failures += 1
                    _wait_or_give_up(problem, failures, budget, log)
            raise Refused("the record was changed by others again and again", todo="run it again")
    except (Exception, Stopped) as failure:
        if not acted:
            raise _as_error(failure) from None
        budget.shield()
        try:
            with budget.phase("clean up", READ):
                clean = undo()
        except (Exception, Stopped) as problem:
            log.say(f"cleaning up did not succeed: {problem}")
            clean = False
        error = _as_error(failure)
        if clean or not isinstance(error, RotationError):
            raise error from None
        raise HalfDone(error.what, error.why, error.todo or "run it again: it completes what was begun") from None


def _wait_or_give_up(problem: NotSaved, failures: int, budget: Budget, log: Log) -> None:
    transient = problem.conflict or problem.wait is not None or not problem.certain
    pause = problem.wait if problem.wait is not None else random.uniform(0.1, 0.4) * 2.0**failures
    if not transient or failures >= FAILURES or pause >= budget.left():
        raise Refused("Keeper did not take the change", problem.why, "check the application's edit permission")
    log.say("the record was changed meanwhile: looking again" if problem.conflict else f"{problem.why}: looking again")
    budget.pause(pause)


def _as_error(failure: BaseException) -> BaseException:
    if isinstance(failure, Stopped):
        return Refused("the record was not brought to the wanted state", str(failure), "run it again")
    return failure
