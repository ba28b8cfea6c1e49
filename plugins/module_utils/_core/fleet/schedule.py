# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which rotation begins when, as pure logic: slots, the first ones as a trial, and when to begin no more."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from enum import Enum

_CANARY = "one of the first (canary) was not completed"


class End(Enum):
    """How a rotation has ended."""

    COMPLETE = 1
    FAILED = 2


class Schedule:
    """The order of a fleet. A member has a slot from its beginning on, and gives it back once it has published.

    The first ``canary`` members are to be complete before others begin; those in ``last`` begin when all others have
    ended. Where more than ``max_failures`` have failed (None: no limit), no other begins. The ``broken`` never begin,
    and have failed already.
    """

    def __init__(
        self,
        order: Sequence[str],
        concurrency: int,
        canary: int = 0,
        max_failures: int | None = None,
        last: Collection[str] = (),
        broken: Collection[str] = (),
    ) -> None:
        first, rest = order[:canary], order[canary:]
        waves = first, [uid for uid in rest if uid not in last], [uid for uid in rest if uid in last]
        able = [[uid for uid in wave if uid not in broken] for wave in waves]
        self._trial = bool(able[0])
        self._waves = [wave for wave in able if wave]
        self._waiting = deque(self._waves.pop(0) if self._waves else ())
        self._free, self._max_failures = concurrency, max_failures
        self._under_way = self._failures = 0
        self._turns: deque[str] = deque()
        self.halted = ""  # why no other begins
        if set(order[:canary]) & set(broken):
            self.halt(_CANARY)
        self._failures = len(set(broken))
        self._count()

    def halt(self, why: str) -> None:
        """Begin no other."""
        self.halted = self.halted or why

    def next(self) -> str | None:
        """Return the member that begins now, or goes on to make a secret, with a slot; None where none does."""
        if not self._free:
            return None
        if self._turns:
            self._free -= 1
            return self._turns.popleft()
        if not self._waiting and not self._under_way and self._waves:
            self._waiting.extend(self._waves.pop(0))
        if self.halted or not self._waiting:
            return None
        self._free -= 1
        self._under_way += 1
        return self._waiting.popleft()

    def free(self) -> None:
        """A slot is given back."""
        self._free += 1

    def wants_turn(self, uid: str) -> None:
        """A member without a slot needs one to make a secret."""
        self._turns.append(uid)

    def give_up_turn(self) -> str | None:
        """Return a member that waits for its turn, and waits no more; None where there is none."""
        return self._turns.popleft() if self._turns else None

    def ended(self, end: End) -> None:
        """A member that had begun has ended."""
        self._under_way -= 1
        self._failures += end is End.FAILED
        if end is End.FAILED and self._trial:
            self.halt(_CANARY)
        self._count()
        if not self._waiting and not self._under_way:
            self._trial = False

    def _count(self) -> None:
        if self._max_failures is not None and self._failures > self._max_failures:
            self.halt(f"{self._failures} have failed, max_failures is {self._max_failures}")

    def left(self) -> list[str]:
        """Return the members that have not begun."""
        return [*self._waiting, *(uid for wave in self._waves for uid in wave)]

    def is_over(self) -> bool:
        """Whether nothing is under way, and nothing begins any more."""
        return not self._under_way and (bool(self.halted) or not self.left())
