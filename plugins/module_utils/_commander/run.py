# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Look, plan, do, look again: until nothing is left to do, or what was tried is still not there.

Nothing is remembered between the looks but what was tried, so that an interrupted run is completed by the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from .._core.base.errors import Refused, RotationError, Stopped
from .._core.base.redact import Log
from .._core.base.timing import Budget
from .._core.records.editing import HalfDone
from .effects import Effects
from .look import look
from .model import Plan, Seen, Step, Wanted
from .plan import plan
from .schedule import shown
from .session import LOGIN, LoggedOut, Session

#: Seconds for the steps of one kind: some, and more for each.
STAGE_TIME, STEP_TIME = 120.0, 30.0
#: What is worth another try: somebody else was faster.
_AGAIN = ("OUT_OF_SYNC", "out of sync", "mismatched_revision")
_TRIES = 3
Key = tuple[str, str]


@dataclass(frozen=True)
class Outcome:
    """What was to be done, what of it is left, and why. ``seen`` is the last look."""

    first: Plan
    last: Plan
    seen: Seen
    causes: Mapping[Key, str] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether something was done, or (in check mode, where all is left) would be."""
        return bool(self.first.steps)

    def left(self, index: int) -> list[Step]:
        """Return what is left to do for a record."""
        return [step for step in self.last.steps if step.record == index]


def run(config: str, wanted: Wanted, budget: Budget, log: Log, check: bool) -> Outcome:
    """Bring the vault to what is wanted. Raises BadInput, Refused, and HalfDone where something was done before."""
    session = Session(config, budget)
    with session.quiet():
        return _Run(session, wanted, budget, log).go(check)


class _Run:
    def __init__(self, session: Session, wanted: Wanted, budget: Budget, log: Log) -> None:
        self._session = session
        self._wanted = wanted
        self._budget = budget
        self._log = log
        self._effects = Effects(session, wanted)
        self._tried: dict[Key, int] = {}
        self._causes: dict[Key, str] = {}

    def go(self, check: bool) -> Outcome:
        try:
            self._log.say(f"logging in to Keeper as {self._session.params.user}")
            self._session.login()
            seen, first = self._look()
            last = first
            while not check and (batch := self._next(last.steps)):
                self._do(batch)
                seen, last = self._look()
        except LoggedOut as end:
            raise self._half(
                Refused("the session with Keeper has ended", str(end), f"run it again, or {LOGIN}")
            ) from None
        except Stopped as stop:
            raise self._half(Refused("it was not completed", str(stop), "run it again")) from None
        except RotationError as problem:
            raise self._half(problem) from None
        outcome = Outcome(first, last, seen, self._causes)
        if last.steps and not check:
            raise self._failure(outcome)
        return outcome

    def _half(self, problem: RotationError) -> RotationError:
        if not self._tried:
            return problem
        done = "what was done before stays, and the next run completes it"
        return HalfDone(problem.what, problem.why, f"{problem.todo or 'see to that'}; {done}")

    def _look(self) -> tuple[Seen, Plan]:
        self._session.sync()
        seen = look(self._session, self._wanted)
        return seen, plan(self._wanted, seen)

    def _next(self, steps: Sequence[Step]) -> list[Step]:
        """Return the steps of the first stage that has any worth doing, and are possible."""
        lost = {step.record for step in steps if not self._worth(step)}
        if -1 in lost:
            return []
        open_ = [step for step in steps if step.record not in lost]
        first = min((step.stage for step in open_), default=0)
        return [step for step in open_ if step.stage == first]

    def _worth(self, step: Step) -> bool:
        """Whether a step is yet to be tried, or failed because somebody else was faster."""
        tries, why = self._tried.get(step.key, 0), self._causes.get(step.key, "")
        return not tries or (tries < _TRIES and any(text in why for text in _AGAIN))

    def _do(self, batch: Sequence[Step]) -> None:
        for _kind, group in groupby(batch, key=lambda step: step.kind):
            steps = list(group)
            for step in steps:
                self._log.say(step.after.split("\n")[0] or "without " + step.before.split("\n")[0])
                self._tried[step.key] = self._tried.get(step.key, 0) + 1
            with self._budget.phase(f"do what is left: {steps[0].kind}", STAGE_TIME + STEP_TIME * len(steps)):
                self._causes.update(self._effects.run(steps))

    def _failure(self, outcome: Outcome) -> RotationError:
        tried = [step for step in outcome.last.steps if step.key in self._tried]
        step = (tried or outcome.last.steps)[0]
        more = len({one.key for one in outcome.last.steps}) - 1
        what = (
            f"the vault does not show it: {step.after.splitlines()[0] if step.after else 'the script is still there'}"
        )
        what += f" (nor {more} more)" if more else ""
        why = self._causes.get(step.key) or "Keeper Commander reported no error"
        todo = "see to what it says, then run it again"
        if "OWNER" in why or "owner" in why:
            todo = "run it as the owner of the record"
        done = len(outcome.last.steps) < len(outcome.first.steps)
        facts = {"records": records(outcome, self._wanted)}
        return HalfDone(what, why, todo, **facts) if done else Refused(what, why, todo, **facts)


def records(outcome: Outcome, wanted: Wanted) -> list[dict[str, Any]]:
    """Return what is known of each wanted record, in their order."""
    found = []
    uids = outcome.last.uids.records
    for index, one in enumerate(wanted.records):
        uid = uids[index]
        rotation, record = outcome.seen.rotations.get(uid), outcome.seen.records.get(uid)
        problems = [outcome.causes.get(step.key, "") for step in outcome.left(index)]
        found.append(
            {
                "uid": uid,
                "title": record.title if record else one.title,
                "changed": any(step.record == index for step in outcome.first.steps),
                "schedule": shown(rotation.schedule) if rotation else "",
                "problem": next(filter(None, problems), ""),
            }
        )
    return found
