# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proof that a secret signs in: several sign-ins in a row, as each of them asks one replica only."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ..base.errors import OutOfTime
from ..base.redact import Log, Secret
from ..base.timing import Budget
from ..services.application import Application
from ..services.entra import Answer, Entra, SignIn

# A look that is older (seconds) is taken again before a step that cannot be taken back.
FRESH = 10.0
_IN_A_ROW = 3
# The pauses (seconds) between the first sign-ins of a row, and after those that were not taken.
_STEPS = (0.6, 1.2)
_LONGEST_STEP = 4.0
# Secrets were seen to take 4 to 18 s to spread (https://github.com/microsoftgraph/microsoft-graph-docs/issues/17966):
# one that was refused at first is not published earlier, and not before the row has lasted as long as the refusals had.
_SPREAD = 20.0
_LONGEST_ROW = 30.0
SHORTEST_LIMIT = 10
# Below this limit there is no time to wait for a secret that is refused at first.
_LIMIT_TO_WAIT = 30


@dataclass
class Row:
    """The sign-ins that were taken one after the other. All times are in seconds, of one clock."""

    made_at: float
    length: int = 0
    began: float = 0.0
    refused_at: float | None = None

    def add(self, answer: Answer, now: float) -> None:
        """Count one more sign-in; a refusal begins the row anew, what is neither yes nor no changes nothing."""
        if answer is Answer.TAKEN:
            self.began = self.began if self.length else now
            self.length += 1
        elif answer is Answer.REFUSED:
            self.length, self.refused_at = 0, now

    def enough_at(self) -> float:
        """The time before which no row is enough: that of a secret that was refused at first lasts as long again."""
        if self.refused_at is None:
            return self.made_at
        return max(self.made_at + _SPREAD, self.began + min(_LONGEST_ROW, self.refused_at - self.made_at))

    def is_enough(self, now: float) -> bool:
        """Whether the secret is proven."""
        return self.length >= _IN_A_ROW and now >= self.enough_at()

    def pause(self, now: float) -> float:
        """The seconds to the next sign-in, in a row that is not enough yet."""
        if self.length <= len(_STEPS):
            return _STEPS[self.length - 1]
        return min(_LONGEST_STEP, max(_STEPS[0], self.enough_at() - now))


class Proving:
    """The sign-ins with one secret of an application. With ``verify`` false there are none, and nothing is known."""

    def __init__(
        self, entra: Entra, application: Application, secret: Secret, verify: bool, budget: Budget, log: Log
    ) -> None:
        self._entra, self._application, self._secret = entra, application, secret
        self.verify, self._budget, self._log = verify, budget, log
        self.made_at = budget.awake()
        self.last = SignIn(Answer.LATER, "it was not tried")
        self._last_at = float("-inf")

    def sign_in(self) -> SignIn:
        """Sign in once, over a connection of its own, and remember how it went. Raises Stopped."""
        self.last = self._entra.sign_in(self._application.client_id, self._secret)
        self._last_at = self._entra.asked_at
        return self.last

    def taken_within(self, seconds: float) -> bool:
        """Whether the last sign-in was taken and is no older; true where there are no sign-ins."""
        taken = self.last.answer is Answer.TAKEN and self._budget.awake() - self._last_at <= seconds
        return taken or not self.verify

    def fresh_until(self, seconds: float = FRESH) -> float:
        """Return when (of the budget's ``awake``) the last sign-in will be so many seconds old, too old to go by."""
        return self._last_at + seconds if self.verify else float("inf")

    def forget(self) -> None:
        """Let the next look be a new one."""
        self._last_at = float("-inf")

    def prove(self, limit: int, patient: bool = True) -> None:
        """Sign in until the secret was taken several times in a row, and for as long as its spreading may last.

        Raises NotProven, with the last reason, where that is not so within ``limit`` seconds, or where it is refused
        and there is no time to wait, or no reason to (``patient``); Stopped.
        """
        row = Row(self.made_at)
        why = "no answer"
        try:
            with self._budget.phase("prove the secret", limit):
                for attempt in itertools.count(1):
                    look, now = self.sign_in(), self._budget.awake()
                    row.add(look.answer, now)
                    why = look.why or why
                    if row.is_enough(now):
                        self._log.say(f"the secret signs in ({row.length} times in a row)")
                        return
                    waits = patient and limit >= _LIMIT_TO_WAIT
                    if look.answer is Answer.NEVER or (look.answer is Answer.REFUSED and not waits):
                        raise NotProven(why, look.answer, limit)
                    if attempt == 1 and look.answer is not Answer.TAKEN:
                        self._log.say(f"the secret is not taken yet, waiting up to {limit} s: {why}")
                    pause = row.pause(now) if look.answer is Answer.TAKEN else min(_LONGEST_STEP, float(attempt))
                    # What Entra asks for is waited for; else the last attempt is made shortly before the end.
                    self._budget.pause(look.wait or min(pause, self._budget.left() - 0.5))
        except OutOfTime:
            raise NotProven(why, self.last.answer, limit) from None


class NotProven(Exception):
    """A secret was not proven within ``limit`` seconds: ``why`` in words, ``answer`` that of the last sign-in."""

    def __init__(self, why: str, answer: Answer, limit: int) -> None:
        super().__init__(why)
        self.why, self.answer, self.limit = why, answer, limit
