# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a fleet ends early: what is under way is told so, and requests that are overdue are cut off."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
        self._waited, self._waits_since = 0.0, float("inf")
        super().__init__()
        self._stop = stop

    def now(self) -> float:
        """Return the seconds of a clock that stands still while others have their turn, up to ``_OTHERS_TURN``."""
        now = super().now()
        return now - min(self._waited + max(0.0, now - self._waits_since), _OTHERS_TURN)

    @contextmanager
    def others_turn(self) -> Iterator[None]:
        """Let what is waited for inside take nothing of the phase, as long as it is not too long altogether."""
        self._waits_since = super().now()
        try:
            yield
        finally:
            self._waited += super().now() - self._waits_since
            self._waits_since = float("inf")

    def admit(self) -> None:
        """Raise Stopped where nothing further may be begun."""
        if not self.shielded and self._stop.is_announced():
            raise Stopped(self._stop.reason)
        super().admit()

    def pause(self, seconds: float) -> None:
        """Sleep; raise OutOfTime as a budget does, and Stopped when the fleet is to end."""
        self.fits(seconds)
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
