# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a fleet ends early: what is under way is told so, and requests that are overdue are cut off."""

from __future__ import annotations

import threading
import time

from ..base.errors import Stopped
from ..base.timing import Budget
from ..services.connection import Line
from ..services.http import Lines

# So many seconds a rotation may wait for others without using up its own time.
_OTHERS_TURN = 120.0


class Stop:
    """Whether the fleet is to end; ``reason`` is empty as long as it is not. Only ``announce`` tells the others."""

    def __init__(self) -> None:
        self.reason = ""
        self._announced = threading.Event()

    def ask_for(self, reason: str) -> None:
        """Note that it is to end. A signal handler may do so at any moment: no lock is taken."""
        self.reason = self.reason or reason

    def announce(self) -> None:
        """End the waits of all rotations."""
        self._announced.set()

    def is_announced(self) -> bool:
        """Whether the waits have been ended."""
        return self._announced.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait so many seconds, or until the fleet is to end; return whether it is."""
        return self._announced.wait(seconds)


class MemberBudget(Budget):
    """The time of one rotation of the fleet, which no alarm ends and no signal reaches: it looks for itself."""

    def __init__(self, stop: Stop) -> None:
        self._waited = 0.0
        super().__init__()
        self._stop = stop

    def now(self) -> float:
        """Return the seconds of a clock that stands still while others have their turn, up to ``_OTHERS_TURN``."""
        return super().now() - min(self._waited, _OTHERS_TURN)

    def wait_for_others(self, seconds: float) -> None:
        """Sleep without using up the phase, as long as that is not too long altogether."""
        free = _OTHERS_TURN - self._waited
        if free <= 0:
            self.pause(seconds)
            return
        self.check()
        began = super().now()
        try:
            self._sleep(min(seconds, free))
        finally:
            self._waited += super().now() - began

    def admit(self) -> None:
        """Raise Stopped where nothing further may be begun."""
        if not self.shielded and self._stop.is_announced():
            raise Stopped(self._stop.reason)
        super().admit()

    def pause(self, seconds: float) -> None:
        """Sleep; raise OutOfTime as a budget does, and Stopped when the fleet is to end."""
        self.fits(seconds)
        self._sleep(seconds)

    def _sleep(self, seconds: float) -> None:
        if self.shielded:
            time.sleep(seconds)
        elif self._stop.wait(seconds):
            raise Stopped(self._stop.reason)


class Watch:
    """Cuts off requests whose phase is over: an answer that drips in would keep a thread for ever."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._overdue: list[tuple[Line, Budget]] = []

    def look(self) -> None:
        """Cut off what was overdue at the last look, and still is."""
        overdue = []
        for line, budget in list(self._lines.busy.items()):
            if budget.left() > 0:
                continue
            if (line, budget) in self._overdue:
                line.cut()
            overdue.append((line, budget))
        self._overdue = overdue
