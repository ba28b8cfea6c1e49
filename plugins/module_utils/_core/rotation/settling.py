# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The wait between publishing and the first removal: who still uses the old secret has time to fetch the new one, and
replicas that have not heard of it yet have time to."""

from __future__ import annotations

from collections.abc import Callable, Generator

from ..base.errors import OutOfTime
from ..base.redact import Log
from ..base.timing import SETTLE, Budget, Wait
from ..services.entra import Answer
from .proving import Proving

_SIGN_INS = 3
_SIGN_IN_AGAIN = 5.0
_SHORTEST_STEP = 1.0


class Settling:
    """The wait of one run. ``listed`` tells whether Graph lists the new secret; None where it does not tell."""

    def __init__(self, proving: Proving, listed: Callable[[], bool | None], budget: Budget, log: Log) -> None:
        self._proving, self._listed, self._budget, self._log = proving, listed, budget, log

    def steps(self, seconds: float, early: Callable[[], None]) -> Generator[Wait, None, None]:
        """Do what goes ``early``, then wait so many seconds, and sign in meanwhile, the last time at the end.

        A refusal makes the wait last twice as long as the secret was old then, or, where the secret is not listed, ends
        it: what follows looks into that. Raises NotDone and RotationError of ``early``, Stopped.
        """
        budget, proving = self._budget, self._proving
        try:
            with budget.phase("let the new secret spread", SETTLE):
                until = budget.awake() + seconds
                early()
                if not seconds:
                    return
                self._log.say(f"waiting {seconds:.0f} s before old secrets are removed")
                # Whatever went early: three sign-ins, and none of them at once.
                now = budget.awake()
                step = max(_SHORTEST_STEP, (until - now) / _SIGN_INS)
                following, until = now + step, max(until, now + _SIGN_INS * step)
                while True:
                    yield Wait(max(0.0, following - budget.awake()))
                    if not proving.verify:
                        if budget.awake() >= until:
                            return
                        following = until
                        continue
                    look, now = proving.sign_in(), budget.awake()
                    if look.answer is Answer.TAKEN and now >= until:
                        return
                    if look.answer is Answer.REFUSED:
                        self._log.say(f"the new secret was refused, looking at the list: {look.why}")
                        if self._listed() is False:
                            return
                        until = max(until, proving.made_at + 2 * (now - proving.made_at))
                    again = now + (look.wait or _SIGN_IN_AGAIN)
                    following = min(until, now + step) if look.answer is Answer.TAKEN else again
        except OutOfTime:
            self._log.say("the new secret has not settled in time")
