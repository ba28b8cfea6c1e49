# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet: many rotations in one process. Waiting takes no thread, and what is not published takes a slot."""

from __future__ import annotations

import heapq
import itertools
import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Union

from ..base.errors import OutOfTime, Stopped
from ..base.timing import Wait
from ..rotation.outcome import Outcome
from ..services.http import Lines
from .member import Member, failed_by, not_begun, said_of
from .pacing import Pacer
from .schedule import End, Schedule
from .stopping import Stop, Watch
from .threads import Threads

# The longest time (seconds) that a signal is not seen, and between two looks at what is overdue.
_LOOK = 0.25
_OVERDUE = 1.0
_OTHERS = 32
# Nothing is begun while Graph asks for silence; of a longer one (seconds) each rotation tells by itself.
_PATIENCE = 300.0
# So many seconds what is under way has to end after a bug of this thread, which may show each time.
_DRAIN = 300.0
_Event = tuple[str, Union[Wait, Outcome]]


@dataclass
class Waiting:
    """Who goes on, and when (monotonic clock). What it waits for is done then, but for a turn to make a secret."""

    uid: str
    wait: Wait


class Fleet:
    """The rotations of ``members``, made by ``join`` as each begins. ``ended`` is told of each as it ends; what
    ``is_heard`` says no longer is ended early."""

    def __init__(
        self,
        schedule: Schedule,
        join: Callable[[str], Member],
        titles: Mapping[str, str],
        ended: Callable[[str, Outcome], None],
        is_heard: Callable[[], bool],
        *,
        concurrency: int,
        lines: Lines,
        pacer: Pacer,
        stop: Stop,
    ) -> None:
        self._schedule, self._join, self._titles, self._ended = schedule, join, titles, ended
        self._is_heard = is_heard
        self._pacer, self._stop, self._watch = pacer, stop, Watch(lines)
        self._makers, self._others = Threads(concurrency), Threads(min(_OTHERS, max(4, concurrency)))
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._members: dict[str, Member] = {}
        self._due: list[tuple[float, int, Waiting]] = []
        self._number = itertools.count()
        self._look_at, self._ends = 0.0, False

    def run(self) -> None:
        """Do all of it. Whatever happens, ``ended`` is told of every member; where something unexpected does, what is
        under way is ended, and nothing else begun."""
        first: Exception | None = None
        until = float("inf")
        while not self._schedule.is_over():
            try:
                self._turn()
            except Exception as bug:
                if first is None:
                    first, until = bug, time.monotonic() + _DRAIN
                self._stop.ask_for(said_of(bug))
            if first is not None and time.monotonic() >= until:
                self._give_up(first)
                break
        for threads in (self._makers, self._others):
            threads.end()
        for uid in self._schedule.left():
            self._ended(uid, not_begun(uid, self._titles.get(uid, ""), self._schedule.halted))

    def _give_up(self, bug: Exception) -> None:
        self._schedule.halt(said_of(bug))
        while self._members:
            uid = next(iter(self._members))
            del self._members[uid]
            self._ended(uid, failed_by(bug, uid, self._titles.get(uid, ""), True))

    def _turn(self) -> None:
        if self._stop.reason and not self._ends:
            self._ends = True
            self._end_early()
        # Who has begun comes before who has not.
        self._wake()
        if self._schedule.halted:
            self._give_up_turns()
        self._begin()
        self._take(self._pause())
        if time.monotonic() >= self._look_at:
            self._watch.look()
            if not self._is_heard():
                self._stop.ask_for("nobody waits for the result any more")
            self._look_at = time.monotonic() + _OVERDUE

    def _pause(self) -> float:
        until = self._due[0][0] - time.monotonic() if self._due else _LOOK
        return min(_LOOK, max(0.0, until))

    def _end_early(self) -> None:
        self._schedule.halt(self._stop.reason)
        self._stop.announce()
        waiting, self._due = self._due, []
        for _when, _number, one in waiting:
            self._go_on(one.uid, Stopped(self._stop.reason))

    def _give_up_turns(self) -> None:
        while True:
            uid = self._schedule.give_up_turn()
            if uid is None:
                return
            self._go_on(uid, Stopped(self._schedule.halted))

    def _begin(self) -> None:
        while not 0 < self._pacer.silent() <= _PATIENCE:
            uid = self._schedule.next()
            if uid is None:
                return
            if uid not in self._members and not self._joined(uid):
                continue
            self._members[uid].has_slot = True
            self._go_on(uid)

    def _joined(self, uid: str) -> bool:
        try:
            self._members[uid] = self._join(uid)
        except Exception as bug:
            self._schedule.free()
            self._schedule.ended(End.FAILED)
            self._ended(uid, failed_by(bug, uid, self._titles.get(uid, ""), False))
            return False
        return True

    def _wake(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            waiting = heapq.heappop(self._due)[2]
            seconds = self._pacer.ask_turn(waiting.wait.writes, waiting.wait.personal) if waiting.wait.writes else 0.0
            if seconds and self._pacer.silent() <= _PATIENCE:
                self._wait(waiting, seconds)
            elif waiting.wait.makes:
                self._schedule.wants_turn(waiting.uid)
            else:
                self._go_on(waiting.uid)

    def _wait(self, waiting: Waiting, seconds: float) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._number), waiting))

    def _go_on(self, uid: str, problem: BaseException | None = None) -> None:
        member = self._members[uid]
        threads = self._makers if member.has_slot else self._others
        threads.do(lambda: self._events.put((uid, member.go_on(problem))))

    def _take(self, seconds: float) -> None:
        """Take what the threads have done: wait for the first of it, then take all that is there."""
        try:
            uid, what = self._events.get(timeout=seconds) if seconds else self._events.get_nowait()
            while True:
                self._done(uid, what)
                uid, what = self._events.get_nowait()
        except queue.Empty:
            return

    def _done(self, uid: str, what: Wait | Outcome) -> None:
        member = self._members[uid]
        if member.has_slot:
            member.has_slot = False
            self._schedule.free()
        if isinstance(what, Outcome):
            self._schedule.ended(End.FAILED if what.exit_status else End.COMPLETE)
            del self._members[uid]
            self._ended(uid, what)
            return
        problem: BaseException | None = Stopped(self._stop.reason) if self._stop.is_announced() else None
        try:
            member.budget.fits(what.seconds)
        except OutOfTime as end:
            problem = problem or end
        if problem is not None:
            self._go_on(uid, problem)
        else:
            self._wait(Waiting(uid, what), what.seconds)
