# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Applications that are limited to two secrets complete like all others, or are refused with the way out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from harness import FORMS, Result, World, make_world, run_module, run_script
from judge import Judge
from matrix import Place
from people import STEPS, Held, Step

from sandbox import Fault
from sandbox.directory import Credential

PERSONAL = "AzureADandPersonalMicrosoftAccount"
DAY = 24 * 3600.0
TOO_MANY = {
    "error": {
        "code": "TooManyAppPasswords",
        "message": "Not allowed to add 3 passwords. You can only add a maximum of 2 passwords.",
    }
}


@contextmanager
def limited(**fields: Any) -> Iterator[World]:
    """Make a world whose application is open to personal accounts and has one secret."""
    with make_world(**fields) as world:
        world.app.audience = PERSONAL
        yield world


def rotated(world: World, form: str, judge: Judge, **options: Any) -> Result:
    """Rotate; it must end complete, whatever it found."""
    result = FORMS[form](world, **options)
    assert result.status == "rotated", result.said()
    assert world.alive()
    assert not judge.verdict.problems, judge.verdict.problems
    return result


def refused(world: World, form: str, *statuses: str) -> Result:
    """Rotate; it must be refused, with nothing changed and a way out."""
    before = world.live(), world.sandbox.vault.snapshot()
    result = FORMS[form](world)
    assert result.status in (statuses or ("refused",)), result.said()
    assert result.changed is False
    assert " Next: " in result.message
    assert (world.live(), world.sandbox.vault.snapshot()) == before
    return result


def test_again_and_again(form: str) -> None:
    with limited() as world:
        judge = Judge(world, form)
        for _night in range(3):
            rotated(world, form, judge)
            assert world.agrees()


def test_with_another_secret_beside(form: str) -> None:
    with limited() as world:
        second = world.app.add_secret("second", days=100)
        judge = Judge(world, form)
        result = rotated(world, form, judge)
        assert sorted(result.output["removed"]) == sorted([world.old.key_id, second.key_id])
        assert world.agrees()


@pytest.mark.parametrize("verify", [True, False], ids=["", "verify is false"])
def test_after_no_removal_was_possible(form: str, verify: bool) -> None:
    with limited(**({} if verify else {"verify": "false"})) as world:
        world.app.blocked_by_conditional_access = not verify
        judge = Judge(world, form) if verify else None
        world.sandbox.faults.add(Fault("removePassword", kind="status", status=503, times=None))
        assert FORMS[form](world).status == "incomplete"
        world.sandbox.faults.clear()
        result = FORMS[form](world)
        assert result.status == "rotated", result.said()
        assert world.agrees()
        assert judge is None or not judge.verdict.problems


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_killed_and_run_again_at_once(form: str, step: Any) -> None:
    with limited() as world:
        judge = Judge(world, form)
        fault = Fault(step.place.op, nth=step.place.nth, moment=step.moment, kind="kill", signal=9)
        world.sandbox.faults.add(fault)
        killed = FORMS[form](world)
        if step.place.op != "removePassword" or step.place.nth == 1:  # it has but one to remove
            assert killed.returncode == -9, killed.said()
        world.sandbox.faults.clear()
        rotated(world, form, judge)
        assert world.agrees()


def test_with_keep_previous_again_and_again(form: str) -> None:
    with limited(keep_previous="1") as world:
        judge = Judge(world, form)
        for _night in range(3):
            before = world.shows()
            rotated(world, form, judge)
            assert world.live() == {before, world.shows()}


@pytest.mark.parametrize("keep", ["0", "1"])
def test_the_other_one_has_expired(form: str, keep: str) -> None:
    with limited(keep_previous=keep) as world:
        world.app.add_secret("expired", days=-3)
        judge = Judge(world, form)
        rotated(world, form, judge)
        assert world.live() == ({world.shows()} if keep == "0" else {world.old.key_id, world.shows()})


def test_the_published_one_has_expired(form: str) -> None:
    with limited() as world:
        expired = world.app.add_secret("expired", days=-3)
        second = world.app.add_secret("second", days=100)
        world.app.remove_secret(world.old.key_id)
        world.publish(world.record, expired)
        judge = Judge(world, form)
        world.sandbox.faults.add(Fault("removePassword", moment="after", kind="kill", signal=9))
        assert FORMS[form](world).returncode == -9
        assert world.live() == {second.key_id}
        world.sandbox.faults.clear()
        rotated(world, form, judge)
        rotated(world, form, judge)
        assert world.agrees()


def test_a_left_over_makes_room_first(form: str) -> None:
    with limited() as world:
        shown, left = world.add_marked(world.record), world.add_marked(world.record, hours=0)
        world.app.remove_secret(world.old.key_id)
        world.publish(world.record, shown)
        judge = Judge(world, form)
        result = rotated(world, form, judge)
        assert world.agrees()
        assert sorted(result.output["removed"]) == sorted([left.key_id, shown.key_id])
        log = [entry.op for entry in world.sandbox.log]
        assert log.index("update_secret") < log.index("removePassword")  # the record was saved as it is before


def test_what_becomes_due_within_two_minutes_is_waited_for(form: str) -> None:
    with limited(retire_after="20s") as world:
        world.app.remove_secret(world.old.key_id)
        before = world.add_marked(world.record)
        shown = world.add_marked(world.record, hours=8 / 3600)
        world.publish(world.record, shown)
        judge = Judge(world, form)
        result = rotated(world, form, judge)
        assert sorted(result.output["removed"]) == sorted([before.key_id, shown.key_id])
        assert world.agrees()


def names_about(text: str, moment: datetime) -> bool:
    """Whether the text names that time, as seen by whichever moment the record and the list were made at."""
    found = [datetime.fromisoformat(one.replace("Z", "+00:00")) for one in re.findall(r"\d{4}-\d\d-\d\dT[\d:]+Z", text)]
    return any(abs(one - moment) < timedelta(seconds=10) for one in found)


class TestNightly:
    """With seven days between the nights in which there is room."""

    @staticmethod
    def _until(result: Result) -> datetime:
        (item,) = result.output["kept"]
        return datetime.fromisoformat(item["until"][:19] + "+00:00")

    def test_it_is_refused_until_it_fits(self, form: str) -> None:
        with limited(retire_after="7d") as world:
            judge = Judge(world, form)
            first = rotated(world, form, judge)
            until = self._until(first)
            directory = world.sandbox.directory
            assert abs(until - directory.now() - timedelta(days=7)) < timedelta(minutes=2)
            for _night in range(2):
                directory.clock += DAY
                result = refused(world, form)
                assert names_about(result.message, until)
                assert world.old.key_id in result.message
                assert world.shows() in result.message
            directory.clock += 5 * DAY + 60
            before = world.shows()
            result = rotated(world, form, judge)
            assert world.old.key_id in result.output["removed"]
            assert world.live() == {before, world.shows()}

    def test_the_doctor_says_so_beforehand(self, form: str) -> None:
        with limited(retire_after="7d") as world:
            judge = Judge(world, form)
            until = self._until(rotated(world, form, judge))
            world.sandbox.directory.clock += DAY
            result = run_script(world, "--doctor") if form == "script" else run_module(world, check=True)
            checks = {check["name"]: check for check in result.output["checks"]}
            assert checks["room"]["level"] != "ok"
            assert names_about(checks["room"]["text"] + checks["room"]["todo"], until)


class TestRefused:
    """Where no room can be made, both are named, and the way out."""

    @staticmethod
    def _names(result: Result, *secrets: Credential) -> None:
        assert all(one.key_id in result.message for one in secrets), result.message

    @pytest.mark.parametrize("fields", [{"keep_previous": "2"}, {"retire": "none"}], ids=str)
    def test_a_policy_that_never_fits(self, form: str, fields: dict[str, str]) -> None:
        with limited(**fields) as world:
            refused(world, form, "refused", "bad_input")

    def test_an_empty_record(self, form: str) -> None:
        with limited(client_secret=None, client_secret_id=None, expires=None) as world:
            second = world.app.add_secret("second", days=100)
            self._names(refused(world, form), world.old, second)

    def test_one_that_was_not_made_for_this_record(self, form: str) -> None:
        with limited(retire="managed") as world:
            second = world.app.add_secret("second", days=100)
            self._names(refused(world, form), world.old, second)

    def test_one_that_another_record_shows(self, form: str) -> None:
        with limited() as world:
            other = world.add_record("billing-batch", None)
            theirs = world.add_marked(other)
            world.publish(other, theirs)
            self._names(refused(world, form), world.old, theirs)

    def test_the_published_one_is_taken_away_while_graph_asks_for_a_wait(self, form: str) -> None:
        """What was seen before the wait is too old to go by after it."""
        with limited(verify_timeout="10") as world:
            second = world.app.add_secret("second", days=100)
            wait = {"headers": {"Retry-After": "11"}, "kind": "status", "status": 429}
            world.sandbox.faults.add(Fault("removePassword", **wait))  # type: ignore[arg-type]
            removal = Step(Place("removal", "graph", "removePassword", 1), "after")
            held = Held(world, removal, lambda: world.app.remove_secret(world.old.key_id))
            result = FORMS[form](world)
            assert held.happened
            assert result.status == "refused", result.said()
            assert world.live() == {second.key_id}

    def test_the_published_one_does_not_sign_in(self, form: str) -> None:
        """Then it is not known whether the other one is what consumers use."""
        with limited() as world:
            second = world.app.add_secret("second", days=100)
            world.record.edit("client_secret", "not-a-secret-of-this-application")
            self._names(refused(world, form), world.old, second)


class TestALimitThatNoListShows:
    """Graph says that there are too many, of an application that is not known for it."""

    def test_room_is_made(self, form: str) -> None:
        with make_world() as world:
            world.app.add_secret("second", days=100)
            judge = Judge(world, form)
            world.sandbox.faults.add(Fault("addPassword", kind="status", status=400, body=TOO_MANY))
            rotated(world, form, judge)
            assert world.agrees()

    def test_where_that_does_not_help_nothing_is_lost(self, form: str) -> None:
        with make_world() as world:
            second = world.app.add_secret("second", days=100)
            judge = Judge(world, form)
            world.sandbox.faults.add(Fault("addPassword", kind="status", status=400, body=TOO_MANY, times=None))
            result = FORMS[form](world)
            assert result.status == "refused"
            assert " Next: " in result.message
            assert set(result.output.get("removed") or []) <= {second.key_id}
            assert result.changed is bool(result.output.get("removed"))
            assert world.alive()
            assert world.shows() == world.old.key_id
            assert not judge.verdict.problems, judge.verdict.problems

    def test_where_the_policy_keeps_all_it_is_refused(self, form: str) -> None:
        with make_world(retire="none") as world:
            second = world.app.add_secret("second", days=100)
            world.sandbox.faults.add(Fault("addPassword", kind="status", status=400, body=TOO_MANY, times=None))
            result = refused(world, form)
            assert world.old.key_id in result.message
            assert second.key_id in result.message
