# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The time of one rotation of a fleet: what it waits for others is not its own, up to a limit."""

from __future__ import annotations

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import OutOfTime, Stopped
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.stopping import MemberBudget, Stop
from core_samples import Clock


class Waiting(Stop):
    """Nobody asks it to end; a wait lets the time of the test pass."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, seconds: float) -> bool:
        self._clock.sleep(seconds)
        return self.is_announced()


@pytest.fixture
def budget(clock: Clock) -> MemberBudget:
    return MemberBudget(Waiting(clock))


def test_a_wait_for_others_takes_nothing_of_a_phase(budget: MemberBudget) -> None:
    with budget.phase("outer", 45.0), budget.phase("inner", 35.0):
        for _number in range(12):
            with budget.others_turn():
                budget.pause(10.0)
        assert budget.left() == pytest.approx(35.0)
        assert budget.spent() == pytest.approx(0.0)
        budget.pause(10.0)
        assert budget.left() == pytest.approx(25.0)


def test_that_has_a_limit(budget: MemberBudget) -> None:
    with budget.phase("inner", 35.0):
        with budget.others_turn():
            for _number in range(5):
                budget.pause(30.0)
        assert budget.left() == pytest.approx(5.0)
        with budget.others_turn(), pytest.raises(OutOfTime):
            budget.pause(6.0)


def test_it_is_not_begun_when_the_phase_is_over(budget: MemberBudget) -> None:
    with budget.phase("inner", 0.0), pytest.raises(OutOfTime), budget.others_turn():
        budget.pause(1.0)


def test_a_signal_ends_it(clock: Clock) -> None:
    stop = Waiting(clock)
    budget = MemberBudget(stop)
    stop.reason = "interrupted by SIGTERM"
    stop.announce()
    with budget.phase("inner", 35.0), pytest.raises(Stopped, match="SIGTERM"), budget.others_turn():
        budget.pause(1.0)
