# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which rotation of a fleet begins when."""

from __future__ import annotations

from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.schedule import End, Schedule


def begin(schedule: Schedule) -> list[str]:
    """Let begin what may."""
    found = []
    while True:
        uid = schedule.next()
        if uid is None:
            return found
        found.append(uid)


def test_there_are_no_more_than_there_are_slots():
    schedule = Schedule("abcd", 2)
    assert begin(schedule) == ["a", "b"]
    schedule.free()
    assert begin(schedule) == ["c"]
    assert schedule.left() == ["d"]


def test_a_turn_to_make_a_secret_comes_before_a_new_one():
    schedule = Schedule("abcd", 1)
    assert begin(schedule) == ["a"]
    schedule.wants_turn("a")
    schedule.free()
    assert begin(schedule) == ["a"]


def test_the_others_wait_until_the_first_ones_have_ended():
    schedule = Schedule("abcd", 8, canary=2)
    assert begin(schedule) == ["a", "b"]
    schedule.ended(End.COMPLETE)
    assert begin(schedule) == []
    schedule.ended(End.COMPLETE)
    assert begin(schedule) == ["c", "d"]


def test_where_one_of_the_first_has_failed_no_other_begins():
    schedule = Schedule("abcd", 8, canary=2)
    begin(schedule)
    schedule.ended(End.FAILED)
    schedule.ended(End.COMPLETE)
    assert (begin(schedule), schedule.is_over(), schedule.left()) == ([], True, ["c", "d"])
    assert "canary" in schedule.halted


def test_one_of_the_first_that_is_broken_has_failed():
    assert Schedule("abcd", 8, canary=2, broken={"b"}).is_over()
    assert not Schedule("abcd", 8, canary=2, broken={"c"}).is_over()


def test_a_failure_after_the_first_ones_is_no_failure_of_theirs():
    schedule = Schedule("abc", 1, canary=1)
    begin(schedule)
    schedule.free()
    schedule.ended(End.COMPLETE)
    assert begin(schedule) == ["b"]
    schedule.free()
    schedule.ended(End.FAILED)
    assert begin(schedule) == ["c"]


def test_more_failures_than_are_allowed_end_it():
    schedule = Schedule("abcd", 1, max_failures=1, broken={"d"})
    assert begin(schedule) == ["a"]
    schedule.free()
    schedule.ended(End.FAILED)
    assert (begin(schedule), schedule.is_over()) == ([], True)
    assert schedule.halted == "2 have failed, max_failures is 1"


def test_what_others_sign_in_with_comes_last():
    schedule = Schedule("abc", 8, last={"a"})
    assert begin(schedule) == ["b", "c"]
    schedule.ended(End.COMPLETE)
    assert begin(schedule) == []
    schedule.ended(End.COMPLETE)
    assert begin(schedule) == ["a"]
    assert not schedule.is_over()
    schedule.ended(End.COMPLETE)
    assert schedule.is_over()


def test_it_may_be_halted():
    schedule = Schedule("ab", 1)
    begin(schedule)
    schedule.wants_turn("a")
    schedule.halt("a signal")
    assert not schedule.is_over()
    assert (schedule.give_up_turn(), schedule.give_up_turn()) == ("a", None)
    schedule.ended(End.COMPLETE)
    assert (schedule.is_over(), schedule.left()) == (True, ["b"])


def test_without_members_it_is_over():
    assert Schedule("", 8).is_over()
