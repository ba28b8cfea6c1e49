# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every phase has an end, and nothing sleeps past it."""

from __future__ import annotations

import re
import signal
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base import timing
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import OutOfTime, Stopped
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import Policy


@pytest.fixture
def handlers():
    """Put back the signal handlers that a test replaces. None is ignored before, as nohup lets some be."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_outside_of_a_phase_time_is_unlimited(clock):
    budget = Budget()
    assert budget.left() == float("inf")
    budget.check()
    budget.pause(5)
    assert clock.slept == [5]


def test_a_phase_ends(clock):
    budget = Budget()
    with budget.phase("prove the secret", 10):
        assert budget.left() == 10
        clock.now += 9.5
        budget.check()
        clock.now += 1
        assert budget.left() == 0
        with pytest.raises(OutOfTime, match=r"no time left to prove the secret \(limit 10 s\)"):
            budget.check()
    assert budget.left() == float("inf")


@pytest.mark.parametrize(("outer", "inner", "left"), [(10, 5, 5), (5, 10, 5)])
def test_an_inner_phase_cannot_outlast_the_outer_one(clock, outer, inner, left):
    budget = Budget()
    with budget.phase("outer", outer):
        with budget.phase("inner", inner):
            assert budget.left() == left
        assert budget.left() == outer
        clock.now += outer
        with pytest.raises(OutOfTime, match="outer"):
            budget.check()


@pytest.mark.parametrize(("outer", "inner", "says"), [(10, 5, "inner (limit 5 s)"), (5, 10, "outer (limit 5 s)")])
def test_the_limit_that_is_named_is_the_one_that_was_met(clock, outer, inner, says):
    budget = Budget()
    with budget.phase("outer", outer), budget.phase("inner", inner):
        clock.now += 7
        with pytest.raises(OutOfTime, match=re.escape(says)):
            budget.check()


@pytest.mark.parametrize("seconds", [float("nan"), -1.0, float("inf")])
def test_what_is_no_time_is_not_slept(clock, seconds):
    with pytest.raises(OutOfTime), Budget().phase("wait", 5):
        Budget().pause(seconds)
    assert clock.slept == []


@pytest.mark.parametrize("problem", [ValueError, OutOfTime, Stopped, KeyboardInterrupt])
def test_a_phase_that_fails_leaves_no_limit_behind(clock, problem):
    budget = Budget()
    with pytest.raises(problem), budget.phase("doomed", 1):
        raise problem
    clock.now += 100
    assert budget.left() == float("inf")


@pytest.mark.parametrize(("seconds", "sleeps"), [(1.9, True), (2.0, False), (3.0, False)])
def test_a_pause_that_outlasts_the_phase_is_not_begun(clock, seconds, sleeps):
    budget = Budget()
    with budget.phase("wait", 2.0):
        if sleeps:
            budget.pause(seconds)
        else:
            with pytest.raises(OutOfTime):
                budget.pause(seconds)
    assert clock.slept == ([seconds] if sleeps else [])


def test_the_phases_add_up_to_what_is_documented():
    """Every phase of a run with the default options, each as long as it may be."""
    words = " ".join(Path(timing.__file__).read_text("utf-8").replace("\n#", "\n").split())
    (verify, wait, documented) = re.findall(
        r"defaults \(verify_timeout (\d+) s, retire_after (\d+) s\) (\d+) s for a whole run at the most", words
    )[0]
    policy = Policy()
    assert (policy.verify_timeout, policy.retire_after.total_seconds()) == (int(verify), int(wait))
    wait = policy.retire_after.total_seconds()
    assert timing.room_time(wait) == timing.ROOM + min(wait, timing.SOON)
    until_published = timing.RESOLVE + timing.room_time(wait) + timing.CREATE + policy.verify_timeout + timing.PUBLISH
    settled = timing.SETTLE + timing.RETIRE + timing.REVIEW
    assert until_published + settled == int(documented) == 480
    assert timing.RESOLVE + timing.rotating_time(policy.verify_timeout, wait) == 480
    # RETIRE gives way to what a new secret that is gone needs to be undone, but for as long as a look takes.
    assert until_published + timing.SETTLE + timing.REVIEW + timing.UNDO <= 480


def test_what_was_seen_grows_old_while_the_host_sleeps(clock, monkeypatch):
    monkeypatch.setattr(clock, "clock_gettime", lambda number: 5.0 + number)
    assert Budget.awake() == 5.0 + time.CLOCK_BOOTTIME
    monkeypatch.setattr(timing, "_AWAKE", None)
    assert Budget.awake() == clock.now


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_stops_and_later_ones_do_not(handlers, number):
    timing.catch_signals(Budget())
    with pytest.raises(Stopped, match=number.name):
        signal.raise_signal(number)
    signal.raise_signal(number)
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_ignored(handlers, number):
    signal.signal(number, signal.SIG_IGN)
    timing.catch_signals(Budget())
    signal.raise_signal(number)
    others = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} - {number}
    assert signal.getsignal(number) is signal.SIG_IGN
    assert all(callable(signal.getsignal(other)) for other in others)


def test_a_shielded_run_is_not_stopped(handlers):
    budget = Budget()
    timing.catch_signals(budget)
    budget.shielded = True
    signal.raise_signal(signal.SIGTERM)
    budget.shielded = False
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)


def test_the_alarm_ends_what_does_not_look_at_the_clock(handlers, monkeypatch):
    monkeypatch.setattr(timing, "_GRACE", 0.01)
    budget = Budget()
    timing.catch_signals(budget)
    started = time.monotonic()
    with pytest.raises(OutOfTime, match=r"no time left to hang \(limit 0\.01 s\)"), budget.phase("hang", 0.01):
        threading.Event().wait(5)
    assert time.monotonic() - started < 2
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_the_alarm_is_for_the_outer_phase_again_when_the_inner_one_has_ended(handlers):
    budget = Budget()
    timing.catch_signals(budget)
    with budget.phase("outer", 500):
        with budget.phase("inner", 5):
            assert 5 < signal.getitimer(signal.ITIMER_REAL)[0] <= 6
        assert 490 < signal.getitimer(signal.ITIMER_REAL)[0] <= 501
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_without_our_handler_no_alarm_is_set(handlers):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with Budget().phase("quiet", 5):
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_phases_work_in_other_threads(handlers):
    budget = Budget()
    timing.catch_signals(budget)
    left: list[float] = []

    def work() -> None:
        with budget.phase("elsewhere", 5):
            left.append(budget.left())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert 0 < left[0] <= 5
