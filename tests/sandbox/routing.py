# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of several sign-in replicas answers a token request."""

from __future__ import annotations

import random
import time

ROUTINGS = ("turn", "random", "cookie", "connection")


class Router:
    """The load balancer before the sign-in replicas, by the directory's `routing`."""

    def __init__(self) -> None:
        self.random = random.Random(0)
        self._turn = 0
        self._bound: dict[str, int] = {}
        self._pooled, self._pooled_until = 0, 0.0

    def route(self, routing: str, replicas: int, cookie: str, pool_for: float) -> int:
        """The number of the replica that answers this request, of so many; `cookie` is what the client sent back.

        "turn": one after the other. "random": any. "cookie": the one that `bind` has noted for the cookie, else in
        turn. "connection": the one to which a proxy's pooled connection leads, until `pool_for` seconds are over.
        """
        if routing not in ROUTINGS:
            raise ValueError(f"routing is one of {ROUTINGS}")
        if routing == "random":
            return self.random.randrange(replicas)
        if routing == "cookie" and cookie in self._bound:
            return self._bound[cookie] % replicas
        if routing == "connection":
            moment = time.monotonic()
            if moment >= self._pooled_until:
                self._pooled, self._pooled_until = self._next(), moment + pool_for
            return self._pooled % replicas
        return self._next() % replicas

    def bind(self, cookie: str, replica: int) -> None:
        """From now on a request with this cookie belongs to this replica."""
        self._bound[cookie] = replica

    def _next(self) -> int:
        self._turn += 1
        return self._turn - 1
