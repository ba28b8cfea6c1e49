# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One rotation of a fleet, done step by step by whichever thread is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..base.redact import Log, foreign
from ..base.timing import Wait
from ..rotation.outcome import Outcome, verdict
from ..rotation.subject import Task
from ..rotation.transaction import Steps, rotate
from ..services.http import Http, Lines
from ..services.vault import VaultRecord
from .pacing import Pacer, Turn
from .stopping import MemberBudget, Stop


class Member:
    """The rotation of one record, which was read as ``record``; ``prepare`` returns what it is about."""

    def __init__(
        self,
        record: VaultRecord,
        prepare: Callable[[VaultRecord, Http, MemberBudget, Log], Task],
        lines: Lines,
        pacer: Pacer,
        stop: Stop,
        check: bool,
    ) -> None:
        self.uid, self.title = record.uid, record.title
        self.has_slot = self._has_written = False
        self.log = Log(_nothing)
        self.budget = MemberBudget(stop)
        self.http = Http(self.budget, self.log, lines=lines, pace=Turn(pacer))
        self._steps: Steps[Outcome] = rotate(
            lambda: prepare(record, self.http, self.budget, self.log), self.http, self.budget, self.log, check
        )

    def go_on(self, problem: BaseException | None = None) -> Wait | Outcome:
        """Do what is next; raise ``problem`` where the rotation waits. Return what it waits for, or how it ended."""
        try:
            wait = next(self._steps) if problem is None else self._steps.throw(problem)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        except BaseException as bug:
            return failed_by(bug, self.uid, self.title, self._has_written)
        self._has_written = self._has_written or wait.writes > 0
        return wait


def failed_by(bug: BaseException, uid: str, title: str, may_have_written: bool) -> Outcome:
    """Return how a rotation ended that has met a bug."""
    facts: dict[str, Any] = {"record": uid, "title": title}
    why = "what it has changed is not known" if may_have_written else "nothing was changed"
    text = verdict("error", facts, said_of(bug), why, "report it, and run it again")
    return Outcome("error", 1, text, may_have_written, facts)


def said_of(bug: BaseException) -> str:
    """Return how a bug is told of."""
    return f"a bug has ended it: {type(bug).__name__}: {foreign(bug)}"


def not_begun(uid: str, title: str, why: str) -> Outcome:
    """Return how a rotation ended that has not begun."""
    facts: dict[str, Any] = {"record": uid, "title": title}
    text = verdict("refused", facts, "it was not begun", why, "see to that, then run it again")
    return Outcome("refused", 3, text, False, facts)


def _nothing(line: str) -> None:
    del line
