# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main thread of a fleet: whatever happens in it, each member is brought to its end."""

from __future__ import annotations

from typing import Any, cast

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Wait
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet import fleet
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.fleet import Fleet
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.member import Member
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.pacing import Pacer
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.schedule import Schedule
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.stopping import MemberBudget, Stop
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.outcome import Outcome
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.http import Lines

DONE = Outcome("rotated", 0, "ROTATED", True, {})
FAILED = Outcome("rolled_back", 4, "ROLLED BACK", False, {})


class Rotation:
    """In place of a member: it waits once, for so many seconds, or for its turn, and is done then."""

    def __init__(self, uid: str, stop: Stop, wait: Wait, done: Outcome) -> None:
        self.uid, self.has_slot, self.budget = uid, False, MemberBudget(stop)
        self._waits, self._done = [wait], done

    def go_on(self, problem: BaseException | None = None) -> Wait | Outcome:
        if problem is not None:
            return Outcome("incomplete", 5, str(problem), True, {})
        return self._waits.pop() if self._waits else self._done


class Told:
    """A fleet of three, and what it was told of each; what is to go wrong goes wrong with ``bad``."""

    def __init__(self, seconds: float = 0.0, concurrency: int = 1) -> None:
        self.ends: dict[str, Outcome] = {}
        self.stop, self.lines, self.seconds = Stop(), Lines(), seconds
        self.bad_join = self.bad_end = ""
        self.is_heard, self.fails = True, False
        self.fleet: Fleet
        self._concurrency = concurrency

    def run(self) -> dict[str, str]:
        """Let it run; return the status of each."""
        self.fleet = Fleet(
            Schedule(["one", "two", "three"], self._concurrency, max_failures=0 if self.fails else None),
            self.join,
            {},
            self.ended,
            lambda: self.is_heard,
            concurrency=self._concurrency,
            lines=self.lines,
            pacer=Pacer(print),
            stop=self.stop,
        )
        self.fleet.run()
        return {uid: outcome.status for uid, outcome in self.ends.items()}

    def join(self, uid: str) -> Member:
        if uid == self.bad_join:
            raise ValueError("it cannot begin")
        wait = Wait(writes=1, makes=True) if self.fails else Wait(0.0 if uid == self.bad_end else self.seconds)
        return cast(Member, Rotation(uid, self.stop, wait, FAILED if self.fails else DONE))

    def ended(self, uid: str, outcome: Outcome) -> None:
        self.ends[uid] = outcome
        if uid == self.bad_end:
            raise ValueError("it cannot be told")


def test_all_are_brought_to_their_end() -> None:
    assert Told().run() == dict.fromkeys(("one", "two", "three"), "rotated")


def test_one_that_cannot_begin_keeps_no_other_from_it() -> None:
    told = Told()
    told.bad_join = "one"
    assert told.run() == {"one": "error", "two": "rotated", "three": "rotated"}
    assert "ValueError" in told.ends["one"].message


def test_after_a_bug_nothing_else_is_begun_and_what_is_under_way_ends() -> None:
    told = Told(seconds=60.0)
    told.bad_end = "one"
    ends = told.run()
    assert ends.pop("one") == "rotated"
    assert set(ends) == {"two", "three"}
    assert set(ends.values()) <= {"refused", "incomplete"}
    for uid in ends:
        assert "a bug has ended it: ValueError: it cannot be told" in told.ends[uid].message


def test_a_bug_that_shows_each_time_ends_it_as_well() -> None:
    class Broken(dict[Any, Any]):
        def items(self) -> Any:
            raise RuntimeError("it is broken")

    told = Told(seconds=60.0, concurrency=3)
    told.lines.busy = Broken()
    assert told.run() == dict.fromkeys(("one", "two", "three"), "incomplete")
    assert "RuntimeError" in told.ends["one"].message


@pytest.mark.parametrize("concurrency", [1, 2])
def test_no_more_secrets_are_made_than_there_are_slots_where_the_first_fails(concurrency: int) -> None:
    told = Told(concurrency=concurrency)
    told.fails = True
    assert list(told.run().values()).count("rolled_back") == concurrency


def test_one_that_is_lost_on_the_way_keeps_it_no_longer_than_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_DRAIN", 0.2)

    def lose(self: Fleet, waiting: object, seconds: float) -> None:
        raise MemoryError

    monkeypatch.setattr(Fleet, "_wait", lose)
    assert set(Told(seconds=60.0).run().values()) <= {"error", "refused"}


def test_where_nobody_waits_for_the_result_nothing_else_is_begun() -> None:
    told = Told(seconds=60.0, concurrency=3)
    told.is_heard = False
    assert told.run() == dict.fromkeys(("one", "two", "three"), "incomplete")
    assert "nobody waits" in told.ends["one"].message


def test_a_signal_ends_the_waits() -> None:
    told = Told(seconds=60.0, concurrency=2)
    told.stop.ask_for("interrupted by SIGTERM")
    assert set(told.run().values()) <= {"refused", "incomplete"}
