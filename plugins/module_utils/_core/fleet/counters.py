# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What services count, as pure logic: the clock (seconds) is given, and nothing here waits."""

from __future__ import annotations

from collections import deque

# The silence begins anew with each answer that is still to come.
_SHORTEST = 0.5


class Series:
    """A counter that each call prolongs: so many calls, then a silence, as Keeper counts them by endpoint and device.

    The service counts when a call arrives, we when it is sent and when it is answered: the silence begins with the last
    answer.
    """

    def __init__(self, calls: int, silence: float) -> None:
        self._calls, self._silence = calls, silence
        self._number = self._under_way = 0
        self._last = self._closed_until = float("-inf")

    def book(self, now: float) -> float:
        """Return 0 and count a call that is sent within less than a silence; else the seconds after which to ask
        again."""
        if now < self._closed_until:
            return self._closed_until - now
        if not self._under_way and now - self._last >= self._silence:
            self._number = 0
        if self._number < self._calls:
            self._number += 1
            self._last = max(self._last, now)
            return 0.0
        return max(_SHORTEST, self._last + self._silence - now)

    def send(self, now: float) -> float:
        """Return 0 and note that a booked call is sent, and its answer to come; else the seconds of a silence that the
        service has asked for meanwhile."""
        if now < self._closed_until:
            return self._closed_until - now
        self._under_way += 1
        self._last = max(self._last, now)
        return 0.0

    def answered(self, now: float) -> None:
        """A call has ended."""
        self._under_way -= 1
        self._last = max(self._last, now)

    def throttled(self, now: float, asked: float | None) -> bool:
        """The service has refused a call: all are silent, for as long as is ``asked``, and for a silence at least, as
        it begins to count anew only then.

        Returns whether that is news.
        """
        news = now >= self._closed_until
        self._number = 0
        self._closed_until = max(self._closed_until, now + max(asked or 0.0, self._silence))
        return news


class Quota:
    """So many calls within so many seconds."""

    def __init__(self, calls: int, seconds: float) -> None:
        self._calls, self._seconds = calls, seconds
        self._taken: deque[float] = deque()
        self._closed_until = float("-inf")

    def closed(self, now: float) -> float:
        """Return for how many seconds more the service has asked for silence."""
        return max(0.0, self._closed_until - now)

    def full(self, now: float, calls: int = 1) -> float:
        """Return 0 where the calls may be sent now; else the seconds after which to ask again."""
        if self.closed(now):
            return self.closed(now)
        while self._taken and now - self._taken[0] >= self._seconds:
            self._taken.popleft()
        room = self._calls - len(self._taken)
        return 0.0 if calls <= room else self._taken[calls - room - 1] + self._seconds - now

    def count(self, now: float, calls: int = 1) -> None:
        """Count calls."""
        self._taken.extend([now] * calls)

    def silence(self, now: float, seconds: float) -> bool:
        """Nothing is sent for so many seconds. Returns whether that is news."""
        news = now >= self._closed_until
        self._closed_until = max(self._closed_until, now + seconds)
        return news
