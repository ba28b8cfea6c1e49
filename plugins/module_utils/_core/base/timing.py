# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time: every phase of a rotation has an end, and a signal ends it early."""

from __future__ import annotations

import atexit
import inspect
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import OutOfTime, Stopped

# Seconds that each phase may take: with the defaults (verify_timeout 120 s, retire_after 30 s) 480 s for a whole run at
# the most. It ends with RETIRE and REVIEW, or with UNDO, before which RETIRE is cut short where all of the time was
# used. Making room also waits for what becomes due soon.
RESOLVE, ROOM, CREATE, PUBLISH, SETTLE, RETIRE, REVIEW, UNDO = 45.0, 15.0, 35.0, 45.0, 150.0, 35.0, 5.0, 35.0
# An old secret that becomes due within so many seconds is waited for.
SOON = 120.0

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
# Calls and pauses end by themselves at the end of a phase; the alarm is for what does not look at the clock,
# such as a connection that is tried at one address of a host after the other, or an answer that drips in.
_GRACE = 1.0
_AGAIN = 5.0  # the alarm comes again, in case it meets code that swallows what it raises, as callbacks do
_AWAKE = getattr(time, "CLOCK_BOOTTIME", None)  # macOS and Windows have none
_ALARM = getattr(signal, "SIGALRM", None)  # Windows has none: there only calls and pauses end a phase
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Wait:
    """What work that is done step by step waits for: so many seconds, or its turn to write to Graph so many times
    (``writes``), making a secret (``makes``) or not, of an application that is open to ``personal`` accounts or not."""

    seconds: float = 0.0
    writes: int = 0
    makes: bool = False
    personal: bool = False


def room_time(wait: float) -> float:
    """Return the seconds that making room may take, where an old secret becomes due ``wait`` seconds after another."""
    return ROOM + min(wait, SOON)


def rotating_time(verify: float, wait: float) -> float:
    """Return the seconds that a rotation may take once all is resolved: ``verify`` of them to prove the new secret, and
    ``wait`` until an old one is due."""
    return room_time(wait) + CREATE + verify + PUBLISH + SETTLE + RETIRE + REVIEW


class Budget:
    """The time that is left (seconds, monotonic clock). Outside of a phase it is unlimited."""

    def __init__(self) -> None:
        self._begun = self.now()
        self._end = self._seconds = self._good_until = float("inf")
        self._phase = ""
        self.shielded = False  # while undoing and reporting, signals are let pass
        self.listener: Callable[[str], None] | None = None  # told of a signal, where it is not raised

    def left(self) -> float:
        """Seconds to the end of this phase, never negative."""
        return max(0.0, self._end - self.now())

    def sending(self) -> float:
        """Seconds in which a request may still be sent: to the end of this phase, or of what it goes by."""
        return max(0.0, min(self.left(), self._good_until - self.awake()))

    @contextmanager
    def good_until(self, when: float) -> Iterator[None]:
        """Let nothing be sent inside, not even again, after ``when`` (of ``awake``): what it goes by is too old."""
        before, self._good_until = self._good_until, when
        try:
            yield
        finally:
            self._good_until = before

    def spent(self) -> float:
        """Seconds since this was made."""
        return self.now() - self._begun

    def now(self) -> float:
        """Seconds of the clock that phases go by."""
        return time.monotonic()

    @staticmethod
    def awake() -> float:
        """Seconds of a clock that goes on while the host sleeps: what a look has shown grows old by it."""
        return time.clock_gettime(_AWAKE) if _AWAKE is not None else time.monotonic()

    def shield(self) -> None:
        """From now on let signals pass, and forget the phase that one may have cut off."""
        self.shielded = True
        self._end = float("inf")

    @contextmanager
    def phase(self, name: str, seconds: float) -> Iterator[None]:
        """Limit what runs inside to ``seconds``; it raises OutOfTime at the end of them.

        Within a phase that ends earlier, that one's end counts.
        """
        before = self._end, self._phase, self._seconds
        end = self.now() + seconds
        if end < self._end:
            self._end, self._phase, self._seconds = end, name, seconds
        self._arm()
        try:
            yield
        finally:
            self._end, self._phase, self._seconds = before
            self._arm()

    def check(self) -> None:
        """Raise OutOfTime when the phase has no time left."""
        if self.left() <= 0:
            raise self._over()

    def admit(self) -> None:
        """Raise Stopped where nothing further may be begun, such as a request."""
        self.check()

    def fits(self, seconds: float) -> None:
        """Raise OutOfTime when the phase would end before, or has ended."""
        if not 0 <= seconds < self.left():
            raise self._over()

    def pause(self, seconds: float) -> None:
        """Sleep; raise OutOfTime at once when the phase would end before, or has ended."""
        self.fits(seconds)
        time.sleep(seconds)

    @contextmanager
    def others_turn(self) -> Iterator[None]:
        """Let what is waited for inside be somebody else's time, where there is somebody else."""
        yield

    def on_alarm(self, number: int, frame: Any) -> None:
        """Handle SIGALRM: the phase is over."""
        raise self._over()

    def _over(self) -> OutOfTime:
        return OutOfTime(f"no time left to {self._phase} (limit {self._seconds:.3g} s)")

    def _arm(self) -> None:
        # Only where catch_signals() has put a handler in place: the default action of SIGALRM is to kill.
        if _ALARM is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(_ALARM) == self.on_alarm:
            finite = self._end != float("inf")
            signal.setitimer(signal.ITIMER_REAL, self.left() + _GRACE if finite else 0, _AGAIN)


def drive(steps: Generator[Wait, None, _Result], budget: Budget) -> _Result:
    """Do work that is done step by step, waiting between the steps; return what it returns. What ends a wait early is
    raised where the work waits."""
    problem: BaseException | None = None
    while True:
        try:
            while True:
                step = next(steps) if problem is None else steps.throw(problem)
                problem = None
                if step.seconds:
                    budget.pause(step.seconds)
        except StopIteration as end:
            result: _Result = end.value
            return result
        except BaseException as failure:
            if inspect.getgeneratorstate(steps) == inspect.GEN_CLOSED:  # the work itself has failed
                raise
            problem = failure


def catch_signals(budget: Budget) -> None:
    """Turn the first SIGTERM, SIGINT or SIGHUP of this process into Stopped, and the end of a phase into OutOfTime.

    For a process that does nothing else: the handlers stay until it ends. A signal that is ignored, as by ``nohup``,
    stays so.
    """
    seen: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        if not seen and not budget.shielded:
            seen.append(number)
            reason = "interrupted by " + signal.Signals(number).name
            if budget.listener is None:
                raise Stopped(reason)
            budget.listener(reason)

    caught = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, on_signal)
    if hasattr(signal, "pthread_sigmask"):
        # While Python finishes its handlers have gone, and a signal would take the place of the exit status.
        atexit.register(signal.pthread_sigmask, signal.SIG_BLOCK, caught)
    if _ALARM is not None:
        signal.signal(_ALARM, budget.on_alarm)
