# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Somebody takes the new secret away, or another run overtakes this one, where it hurts most.

Whatever else people do, at every other moment, is in ``people.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import FORMS, Result, World, make_world, run_module
from judge import Judge
from matrix import Place
from people import PEOPLE_AT_WORK, POLICY, SEEN, SHOWN, STEPS, Encounter, Held, Step, Stop

from sandbox import Fault

#: Between the proof and the first removal.
MOMENTS = (SHOWN - 1, SHOWN, SEEN)
_NAMES = [STEPS[number].name for number in MOMENTS]


def newest(world: World) -> str:
    """Return the key id of the secret that was made last."""
    return max(world.app.live_secrets(), key=lambda one: one.created_at).key_id


def rotate(world: World, form: str, act: Callable[[], object], at: int | Step) -> tuple[Judge, Result]:
    """Rotate while somebody acts at a step, or at that with a number."""
    step = at if isinstance(at, Step) else STEPS[at]
    judge = Judge(world, f"{form}, {step.name}")

    def people() -> None:
        with judge.people():
            act()

    held = Held(world, step, people)
    result = judge.disturbed(lambda: FORMS[form](world, **(POLICY if form == "module" else {})))
    world.sandbox.faults.latency = None
    assert held.happened
    assert held.failure is None
    assert result is not None
    assert not judge.verdict.problems, f"{judge.verdict.problems}\n{judge.verdict.said}"
    return judge, result


@pytest.mark.parametrize("number", MOMENTS, ids=_NAMES)
def test_what_was_shown_before_is_put_back(form: str, number: int) -> None:
    with make_world(verify_timeout="10") as world:
        second = world.app.add_secret("second", days=100)
        before = world.sandbox.vault.snapshot()
        _judge, result = rotate(world, form, lambda: world.app.remove_secret(newest(world)), number)
        assert (result.status, result.changed) == ("rolled_back", False)
        assert world.sandbox.vault.snapshot() == before
        assert world.live() == {world.old.key_id, second.key_id}


@pytest.mark.parametrize("number", MOMENTS, ids=_NAMES)
def test_where_there_is_nothing_to_put_back_it_says_so(form: str, number: int) -> None:
    empty = {"client_secret": None, "client_secret_id": None, "expires": None}
    with make_world(verify_timeout="10", **empty) as world:
        judge, result = rotate(world, form, lambda: world.app.remove_secret(newest(world)), number)
        assert result.status == "incomplete"
        assert "taken away" in result.message
        assert world.live() == {world.old.key_id}
        judge.recovery(lambda: FORMS[form](world), at_most=2)
        assert not judge.verdict.problems, judge.verdict.problems


@pytest.mark.parametrize("number", MOMENTS, ids=_NAMES)
def test_what_is_no_longer_there_is_not_put_back(form: str, number: int) -> None:
    with make_world(verify_timeout="10") as world:

        def remove_both() -> None:
            world.app.remove_secret(newest(world))
            world.app.remove_secret(world.old.key_id)

        second = world.app.add_secret("second", days=100)
        _judge, result = rotate(world, form, remove_both, number)
        assert result.status == "incomplete"
        assert world.live() == {second.key_id}


@pytest.mark.parametrize("answer", [{"kind": "graph429"}, {"kind": "status", "status": 503}], ids=["429", "503"])
def test_what_a_removal_goes_by_is_looked_at_again_after_a_wait(form: str, answer: dict[str, Any]) -> None:
    """Graph asks for a wait when the first old secret is to be removed, and the new one is taken away in it."""
    with make_world(verify_timeout="10") as world:
        second = world.app.add_secret("second", days=100)
        removal = Step(Place("removal", "graph", "removePassword", 1), "after")
        wait = {"headers": {"Retry-After": "12"}, "retry_after": 12}
        world.sandbox.faults.add(Fault("removePassword", **answer, **wait))
        judge, result = rotate(world, form, lambda: world.app.remove_secret(newest(world)), removal)
        assert result.status in ("rolled_back", "incomplete")
        assert world.live() == {world.old.key_id, second.key_id}
        judge.recovery(lambda: FORMS[form](world), at_most=2)
        assert not judge.verdict.problems, judge.verdict.problems


@pytest.mark.parametrize("name", ["rotates, 5 s before", "rotates, at once", "rotates, 5 s after"])
@pytest.mark.parametrize("number", MOMENTS, ids=_NAMES)
def test_another_run_takes_over(number: int, name: str) -> None:
    """In the module; the script meets it at every step, in the matrix."""
    person = next(person for person in PEOPLE_AT_WORK if person.name == name)
    verdict = Encounter("module", name, "people", list, person=person, number=number).run()
    assert not verdict.problems, f"{verdict.problems}\n{verdict.said}"


@pytest.mark.parametrize(
    ("step", "ends", "seconds"),
    [
        (Step(Place("after the first sign-in", "entra", "token", 2), "after"), "rolled_back", 0),
        (Step(Place("before the save", "entra", "token", 4), "after"), "rolled_back", 0),
        (Step(Place("between save and list", "keeper", "get_secret", 2), "after"), "rotated", 11),
        (Step(Place("between list and removal", "graph", "get_application", 2), "after"), "rotated", 11),
    ],
    ids=["after the first sign-in", "before the save", "between save and list", "between list and removal"],
)
def test_it_is_stopped_while_another_cleans_up(form: str, step: Step, ends: str, seconds: float) -> None:
    """For so many seconds more than that takes: what was seen before is then too old to go by."""
    with make_world(verify_timeout="30") as world:
        world.app.add_secret("second", days=100)
        judge = Judge(world, form)
        cleaned: list[Result] = []

        def clean_up() -> None:
            with judge.people(another_run=True):
                world.sandbox.directory.clock += 25 * 60
                cleaned.append(run_module(world, rotate="expiring", min_days_left=1))
            time.sleep(seconds)

        stop = Stop(world, step, clean_up)
        result = judge.disturbed(lambda: FORMS[form](world, watch=stop.see))
        world.sandbox.faults.latency = None
        assert stop.happened
        assert stop.failure is None
        assert result is not None
        assert cleaned[0].status in ("rotated", "unchanged"), cleaned[0].said()
        assert world.alive(), result.said()
        assert result.status == ends, result.said()
        assert not judge.verdict.problems, f"{judge.verdict.problems}\n{judge.verdict.said}"
        judge.recovery(lambda: FORMS[form](world))
        assert not judge.verdict.problems, judge.verdict.problems


def test_it_is_stopped_while_another_rotates(form: str) -> None:
    with make_world(verify_timeout="10") as world:
        judge = Judge(world, form)
        other: list[Result] = []

        def rotate_as_well() -> None:
            with judge.people(another_run=True):
                world.sandbox.directory.clock += 25 * 60
                other.append(FORMS[form](world))

        stop = Stop(world, Step(Place("list", "graph", "get_application", 2), "after"), rotate_as_well)
        options = POLICY if form == "module" else {}
        result = judge.disturbed(lambda: FORMS[form](world, watch=stop.see, **options))
        world.sandbox.faults.latency = None
        assert result is not None
        assert other[0].status == "rotated"
        assert world.shows() == other[0].output["key_id"]
        assert world.alive(), result.said()
        assert not judge.verdict.problems, f"{judge.verdict.problems}\n{judge.verdict.said}"
        judge.recovery(lambda: FORMS[form](world))
        assert not judge.verdict.problems, judge.verdict.problems
