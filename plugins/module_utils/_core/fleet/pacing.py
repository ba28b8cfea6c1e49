# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pace of a fleet: all its rotations together stay within what Keeper and Graph bear, and what one of them is told,
all follow."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

from ..base.timing import Budget
from ..services.graph import WRITES
from ..services.http import Pace, Reply, retry_after, seconds_in
from .counters import Quota, Series

# Keeper counts 100 calls by endpoint and device, each anew for 10 s: some are left to whoever shares the device, and to
# a clock that differs.
_BURST, _SILENCE = 90, 11.0
# https://learn.microsoft.com/graph/throttling-limits#identity-and-access-service-limits, each with some room.
_CALLS, _CALLS_IN = 3000, 10.0
_WRITES, _WRITES_IN = 2800, 150.0
_PERSONAL_WRITES, _PERSONAL_IN = 54, 60.0
# Graph says how much of a limit is used from 0.8 on.
_USED, _EASE = "x-ms-throttle-limit-percentage", 2.0
_KEEPER = re.compile(r"/sm/v\d+/(\w+)$")
_GRAPH = re.compile(r"^https://[^/]+/v1\.0/")
_THROTTLED, _GRAPH_SILENCE = 429, 10.0
_LONGEST_PAUSE = 1.0
# What is booked and not sent within so many seconds is asked for again: the next burst may have begun by then.
BOOKED = 8.0


class Pacer:
    """What all rotations of a fleet share of their pace. ``say`` tells of what throttles them."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._lock = threading.Lock()
        self._keeper: dict[str, Series] = {}
        self._graph = Quota(_CALLS, _CALLS_IN)
        self._writes = Quota(_WRITES, _WRITES_IN)
        self._personal = Quota(_PERSONAL_WRITES, _PERSONAL_IN)
        self.throttled = 0  # answers that were refusals of this kind

    def ask(self, method: str, url: str) -> float:
        """Return 0 and count the request, where it may be sent now; else the seconds after which to ask again."""
        endpoint = _KEEPER.search(url)
        if not endpoint and not _GRAPH.match(url):
            return 0.0
        with self._lock:
            now = self._clock()
            if endpoint:
                series = self._series(endpoint[1])
                return series.book(now) or series.send(now)
            return self._ask_graph(now, method == "POST")

    def _ask_graph(self, now: float, writes: bool) -> float:
        quotas = (self._graph, self._writes) if writes else (self._graph,)
        seconds = max(quota.full(now) for quota in quotas)
        if not seconds:
            for quota in quotas:
                quota.count(now)
        return seconds

    def book(self, name: str) -> float:
        """Return the same for a call of Keeper's endpoint, or a write of Graph, that is sent within ``BOOKED``
        seconds."""
        with self._lock:
            now = self._clock()
            return self._ask_graph(now, True) if name in WRITES else self._series(name).book(now)

    def send(self, name: str) -> bool:
        """Return whether what was booked may still be sent, and note that it is."""
        with self._lock:
            now = self._clock()
            return not (self._graph.closed(now) if name in WRITES else self._series(name).send(now))

    def now(self) -> float:
        """Return the time of the counters (seconds)."""
        return self._clock()

    def silent(self) -> float:
        """Return for how many seconds more Graph has asked for silence."""
        with self._lock:
            return self._graph.closed(self._clock())

    def ask_turn(self, writes: int, personal: bool) -> float:
        """Return 0 where there is room for so many writes of one rotation; else the seconds after which to ask again.

        Those of an application that is open to ``personal`` accounts are counted by this.
        """
        with self._lock:
            now = self._clock()
            seconds = max(self._graph.closed(now), self._writes.full(now, min(writes, _WRITES)))
            if personal:
                some = min(writes, _PERSONAL_WRITES)
                seconds = max(seconds, self._personal.full(now, some))
                if not seconds:
                    self._personal.count(now, some)
            return seconds

    def answered(self, method: str, url: str, reply: Reply | None) -> None:
        """Note the answer to a request, None where there was none."""
        endpoint, graph = _KEEPER.search(url), _GRAPH.match(url)
        if endpoint:
            self._keeper_answered(endpoint[1], reply)
        elif graph and reply is not None:
            self._graph_answered(reply)

    def _keeper_answered(self, endpoint: str, reply: Reply | None) -> None:
        body, throttled, wait = {}, False, None
        if reply is not None and reply.status != 200:
            body = reply.json()
            throttled = reply.status == _THROTTLED or "throttled" in (body.get("error"), body.get("result_code"))
            wait = retry_after(reply)
        news = False
        with self._lock:
            series, now = self._series(endpoint), self._clock()
            series.answered(now)
            if throttled:
                self.throttled += 1
                news = series.throttled(now, seconds_in(body.get("retry_after")) if wait is None else wait)
        if news:
            self._say(f"Keeper throttles {endpoint}: no rotation calls it for a while")

    def _graph_answered(self, reply: Reply) -> None:
        used = seconds_in(reply.headers.get(_USED))
        if reply.status != _THROTTLED and used is None:
            return
        refused, asked = reply.status == _THROTTLED, retry_after(reply)
        wait = _EASE if not refused else _GRAPH_SILENCE if asked is None else asked
        with self._lock:
            self.throttled += refused
            news = self._graph.silence(self._clock(), wait)
        if news:
            self._say(f"Graph {'throttles' if refused else 'is near a limit'}: no rotation calls it for {wait:.0f} s")

    def _series(self, endpoint: str) -> Series:
        return self._keeper.setdefault(endpoint, Series(_BURST, _SILENCE))


class Turn(Pace):
    """The pace of one rotation of the fleet."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._booked: dict[str, float] = {}  # until when

    def book(self, name: str, budget: Budget) -> None:
        """Count a call of Keeper's endpoint, or a write of Graph, already now. Raises Stopped."""
        if self._pacer.now() >= self._booked.get(name, 0.0):
            self._until_allowed(lambda: self._pacer.book(name), budget)
            self._booked[name] = self._pacer.now() + BOOKED

    def wait(self, method: str, url: str, budget: Budget) -> None:
        """Wait until such a request may be sent. Raises Stopped."""
        name = url.rsplit("/", 1)[-1]
        if self._pacer.now() >= self._booked.pop(name, 0.0) or not self._pacer.send(name):
            self._until_allowed(lambda: self._pacer.ask(method, url), budget)

    def answered(self, method: str, url: str, reply: Reply | None) -> None:
        """Note the answer to a request."""
        self._pacer.answered(method, url, reply)

    @staticmethod
    def _until_allowed(ask: Callable[[], float], budget: Budget) -> None:
        with budget.others_turn():
            while True:
                seconds = ask()
                if not seconds:
                    return
                # Not all at once: the place that is free may be taken by then, and a silence may have become longer.
                budget.pause(min(seconds, _LONGEST_PAUSE))
