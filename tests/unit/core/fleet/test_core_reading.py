# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The reads that rotations of a fleet share: one that has no time left fails alone."""

from __future__ import annotations

import threading
import time

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import Refused
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.reading import Reading
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.stopping import MemberBudget, Stop


def shared(seconds: float) -> tuple[list[str], list[list[str]]]:
    """Read as one that leads with so many seconds left and finds nothing, while another joins; return how each ended,
    and what Keeper was asked."""
    reading, asked, ended = Reading(), [], []
    joined = threading.Event()

    def follow() -> None:
        with Budget().phase("follow", 60):
            found, asked_at = reading.read(["b"], find, lambda: None, Budget())
            ended.append(f"{list(found)}, asked at {asked_at}")

    thread = threading.Thread(target=follow)

    def turn() -> None:
        thread.start()
        while "b" not in reading._open.uids:
            joined.wait(0.01)

    def find(uids):
        asked.append(uids)
        if "a" in uids:
            raise Refused("Keeper was not reached", "no answer", "run it again")
        return {"b": None}, [], 7.0

    budget = Budget()
    with budget.phase("lead", seconds), pytest.raises(Refused):
        reading.read(["a"], find, turn, budget)
    thread.join()
    return ended, asked


def test_one_that_has_no_time_left_fails_alone():
    assert shared(2.0) == (["['b'], asked at 7.0"], [["a", "b"], ["b"]])


def test_one_that_joins_does_not_pay_for_the_turn_of_the_one_that_asks():
    stop, reading, left = Stop(), Reading(), []
    joined = threading.Event()

    def follow() -> None:
        budget = MemberBudget(stop)
        with budget.phase("follow", 1.0):
            joined.set()
            reading.read(["b"], find, lambda: None, budget)
            left.append(budget.left())

    thread = threading.Thread(target=follow)

    def turn() -> None:
        thread.start()
        joined.wait()
        time.sleep(1.5)

    def find(uids):
        return dict.fromkeys(uids), [], 7.0

    leader = MemberBudget(stop)
    with leader.phase("lead", 60):
        reading.read(["a"], find, turn, leader)
    thread.join()
    assert len(left) == 1
