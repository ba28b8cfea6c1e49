# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One look is not the truth: one sign-in is one replica, one list or one "not found" is another.

More of it, as cases that are judged alike, is in ``lags.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import FORMS, Result, World, make_world
from judge import Judge

from sandbox import Entry, Fault, Sandbox
from sandbox.directory import Replica

NOT_FOUND = {"error": {"code": "Request_ResourceNotFound", "message": "Resource 'x' does not exist."}}
CONFLICT = {"error": {"code": "Request_MultipleObjectsWithSameKeyValue", "message": "Another object is there."}}


def complete(world: World, form: str, **options: Any) -> Result:
    """Rotate; it must end complete, and the judge must be content."""
    judge = Judge(world, form)
    result = judge.disturbed(lambda: FORMS[form](world, **options))
    assert result is not None
    assert result.status == "rotated", result.said()
    assert not judge.verdict.problems, f"{judge.verdict.problems}\n{judge.verdict.said}"
    assert world.agrees()
    return result


def moments(world: World) -> dict[str, list[float]]:
    """Return a list that fills with the seconds at which each operation changes something, counted from the making."""
    seen: dict[str, list[float]] = {}

    def watch(sandbox: Sandbox, entry: Entry) -> None:
        seen.setdefault(entry.op, []).append(time.time())

    world.sandbox.watch(watch)
    return seen


@pytest.mark.parametrize("routing", ["turn", "random", "cookie"])
@pytest.mark.parametrize("seed", [1])
def test_replicas_that_learn_over_half_a_minute(form: str, routing: str, seed: int) -> None:
    with make_world(retire_after=None) as world:
        directory = world.sandbox.directory
        directory.sign_in_replicas = [Replica(0), Replica(15), Replica(30)]
        directory.routing = routing
        directory.seed(seed)
        # The first to be met by the proof has not learned of it; the admin application signs in before.
        at = moments(world)
        judge = Judge(world, form, in_turn=routing != "random")
        result = judge.disturbed(lambda: FORMS[form](world))
        assert result is not None
        assert result.status in ("rotated", "incomplete"), result.said()
        assert not judge.verdict.problems, f"{judge.verdict.problems}\n{judge.verdict.said}"
        made = at["addPassword"][0]
        assert at["removePassword"][0] >= made + 30
        log = world.sandbox.log
        proofs = [entry for entry in log if entry.op == "token" and world.app.client_id in entry.detail]
        if proofs[0].status != 200:  # it was refused at first
            assert at["update_secret"][0] >= made + 20
        assert judge.verdict.gaps == 0


@pytest.mark.parametrize("behind", [10.0, 25.0])
def test_twice_within_the_lag_of_the_lists(form: str, behind: float) -> None:
    with make_world() as world:
        world.sandbox.directory.graph_replicas = [Replica(0), Replica(behind, behind), Replica(behind, behind)]
        judge = Judge(world, form)
        first, second = FORMS[form](world), FORMS[form](world)
        assert first.status == "rotated", first.said()
        assert second.status in (("rotated",) if behind <= 10 else ("rotated", "incomplete")), second.said()
        if second.status == "incomplete":
            third = FORMS[form](world)
            assert third.status == "rotated", third.said()
        assert world.agrees()
        assert not judge.verdict.problems, judge.verdict.problems


def test_killed_right_after_the_save_and_run_again_within_the_lag(form: str) -> None:
    with make_world() as world:
        world.sandbox.directory.graph_replicas = [Replica(0), Replica(10, 10), Replica(10, 10)]
        judge = Judge(world, form)
        world.sandbox.faults.add(Fault("update_secret", moment="after", kind="kill", signal=9))
        assert FORMS[form](world).returncode == -9
        result = FORMS[form](world)
        assert result.status == "rotated", result.said()
        assert world.agrees()
        assert not judge.verdict.problems, judge.verdict.problems


def _listing(world: World, **more: Any) -> dict[str, Any]:
    return {
        "id": world.app.object_id,
        "appId": world.app.client_id,
        "displayName": world.app.display_name,
        "signInAudience": world.app.audience,
        **more,
    }


def test_lists_that_are_stale(world: World, form: str) -> None:
    """The new secret is not in them, and so nothing in them counts."""
    world.app.add_secret("second", days=100)
    body = _listing(world, passwordCredentials=[])
    world.sandbox.faults.add(Fault("get_application", nth=2, times=2, kind="status", status=200, body=body))
    assert len(complete(world, form).output["removed"]) == 2


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("value", [[], [None]], ids=["no list", "null"])
def test_answers_without_a_list(world: World, form: str, nth: int, value: list[None]) -> None:
    world.app.add_secret("second", days=100)
    body = _listing(world, **({"passwordCredentials": None} if value else {}))
    world.sandbox.faults.add(Fault("get_application", nth=nth, kind="status", status=200, body=body))
    assert len(complete(world, form).output["removed"]) == 2


@pytest.mark.parametrize("op", ["removePassword", "get_application"])
def test_an_application_that_is_unknown_for_once(world: World, form: str, op: str) -> None:
    """It has been read before: the one that does not know it is a replica that is behind."""
    nth = 1 if op == "removePassword" else 2
    world.sandbox.faults.add(Fault(op, nth=nth, kind="status", status=404, body=NOT_FOUND))
    complete(world, form)


def test_a_conflict_with_another_code(world: World, form: str) -> None:
    world.sandbox.faults.add(Fault("removePassword", kind="status", status=409, body=CONFLICT))
    complete(world, form)


def test_a_secret_that_is_unknown_for_once(world: World, form: str) -> None:
    """It is listed: where it cannot be found to be removed, it is not gone."""
    body = {"error": {"code": "Request_BadRequest", "message": "No password credential found with keyId 'x'."}}
    world.sandbox.faults.add(Fault("removePassword", kind="status", status=400, body=body))
    complete(world, form)


@pytest.mark.parametrize("status", [404, 409])
def test_an_application_that_is_unknown_for_once_when_it_is_undone(form: str, status: int) -> None:
    with make_world(verify_timeout="10") as world:
        world.sandbox.directory.usable_after = 1000
        body = NOT_FOUND if status == 404 else CONFLICT
        world.sandbox.faults.add(Fault("removePassword", kind="status", status=status, body=body))
        result = FORMS[form](world)
        assert (result.status, result.changed) == ("rolled_back", False), result.said()
        assert world.untouched()


class TestTheWait:
    """What the sign-ins of the wait are answered neither ends nor restarts anything."""

    @staticmethod
    def _waits(form: str, fault: Callable[[], Fault]) -> None:
        with make_world(retire_after=None) as world:
            world.sandbox.faults.add(fault())
            complete(world, form)
            assert world.sign_ins() <= 9

    def test_sign_ins_are_throttled(self, form: str) -> None:
        self._waits(form, lambda: Fault("token", nth=6, status=429, headers={"Retry-After": "60"}))

    def test_there_were_too_many_sign_ins(self, form: str) -> None:
        body = {"error": "invalid_grant", "error_description": "AADSTS50196: a loop.", "error_codes": [50196]}
        self._waits(form, lambda: Fault("token", nth=6, status=400, body=body))

    def test_no_sign_in_is_answered_but_the_last(self, form: str) -> None:
        self._waits(form, lambda: Fault("token", nth=5, kind="drop", times=2))
