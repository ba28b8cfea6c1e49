# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cases of the matrix with services that are many: sign-in and Graph replicas that lag, and the default wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness import FORMS, World
from matrix import HOLD, Case, Faults, Place, Shape
from people import PEOPLE_AT_WORK, SHOWN, Encounter, Step

from sandbox import Fault
from sandbox.directory import Replica

SIGN_IN = "sign-in replicas"
LISTS = "Graph replicas"
RECORDS = "several records"
WAIT = "the default wait"


def _sign_in(*learn: float, forget: float = 0.0, routing: str = "turn", seed: int = 0, pool_for: float = 60.0) -> Shape:
    """As many sign-in replicas, each of which learns of a new secret after so many seconds."""

    def shape(world: World) -> None:
        directory = world.sandbox.directory
        directory.sign_in_replicas = [Replica(after, forget) for after in learn]
        directory.routing, directory.pool_for = routing, pool_for
        directory.seed(seed)

    return shape


def _graph(*learn: float, forget: bool = True, application: float = 0.0, clocks: tuple[float, ...] = (0.0,)) -> Shape:
    """As many Graph replicas that learn of everything, and forget it, after so many seconds."""

    def shape(world: World) -> None:
        directory = world.sandbox.directory
        directory.graph_replicas = [Replica(after, after if forget else 0.0) for after in learn]
        directory.application_lags, directory.clock_offsets = application, list(clocks)
        world.app.written_at = 0.0  # what is there has been there for long

    return shape


def in_turn(*learn: float) -> Shape:
    """As many replicas of either service, which are met in turn; Graph's are no slower."""

    def shape(world: World) -> None:
        _sign_in(*learn)(world)
        _graph(*(0.0 for _replica in learn))(world)

    return shape


def another_record(by: str = "object_id", shape: Shape | None = None) -> Shape:
    """Another record that names the application by this, and shows a secret that a rotation has made for it."""

    def put(world: World) -> None:
        other = world.add_record("billing-batch", None, by)
        world.publish(other, world.add_marked(other, hours=48))
        if shape:
            shape(world)

    return put


def _token(nth: int, **more: Any) -> Faults:
    return lambda: [Fault("token", nth=nth, **more)]


#: name: shape, further arguments of the case. What is not said to be in turn meets some replicas by chance.
_SIGN_INS: dict[str, tuple[Shape, dict[str, Any]]] = {
    "three that learn over 6 s, in turn": (_sign_in(0, 3, 6), {"in_turn": True, "quick": True}),
    "three that learn over 6 s, by cookies": (_sign_in(0, 3, 6, routing="cookie"), {"in_turn": True}),
    "three that learn over 6 s, at random": (_sign_in(0, 3, 6, routing="random", seed=1), {"quick": True}),
    "three that learn over 6 s, by a pool": (_sign_in(0, 3, 6, routing="connection", pool_for=4.0), {}),
    "three that learn over 30 s, in turn": (_sign_in(0, 15, 30), {"in_turn": True}),
    "three that learn over 30 s, at random": (_sign_in(0, 15, 30, routing="random", seed=2), {}),
    "half of them a minute behind, in turn": (_sign_in(0, 60), {"in_turn": True}),
    "half of them a minute behind, at random": (_sign_in(0, 60, routing="random", seed=3), {}),
    "three that forget over 20 s": (_sign_in(0, 0, 0, forget=20), {"in_turn": True}),
}
_LISTS: dict[str, tuple[Shape, Faults, dict[str, Any]]] = {
    "three behind": (_graph(0, 4, 8), list, {"quick": True}),
    "all behind": (_graph(6, 6), list, {}),
    "all 10 s behind": (_graph(10, 10, 10), list, {}),
    "three 10 s behind": (_graph(0, 10, 10), list, {}),
    "three 40 s behind": (_graph(0, 40, 40), list, {}),
    "they know no application": (_graph(0, 3, 3, application=6.0), list, {"quick": True}),
    "their clocks differ": (_graph(0, 2, clocks=(-4.0, 0.0, 3.0)), list, {"quick": True}),
    "three behind, answer of addPassword lost": (
        _graph(0, 4, 8),
        lambda: [Fault("addPassword", moment="after", kind="drop")],
        {},
    ),
    "three behind, SIGKILL once it is made": (
        _graph(0, 4, 8),
        lambda: [Fault("addPassword", moment="after", kind="kill", signal=9)],
        {},
    ),
    "three behind, SIGKILL at the proof": (_graph(0, 4, 8), _token(2, kind="kill", signal=9), {}),
    "three behind, SIGKILL once it is saved": (
        _graph(0, 10, 10),
        lambda: [Fault("update_secret", moment="after", kind="kill", signal=9)],
        {"quick": True},
    ),
    "three behind, SIGTERM once it is saved": (
        _graph(0, 10, 10),
        lambda: [Fault("update_secret", moment="after", kind="kill", seconds=HOLD)],
        {},
    ),
    "three behind, SIGKILL after the first removal": (
        _graph(0, 4, 8),
        lambda: [Fault("removePassword", moment="after", kind="kill", signal=9)],
        {},
    ),
}
_RECORDS: dict[str, tuple[Shape, Faults]] = {
    "another names it by its object id": (another_record(), list),
    "another names it by its client id": (another_record("client_id"), list),
    "another, and replicas in turn": (another_record(shape=in_turn(0, 2, 4)), list),
    "another, SIGKILL once it is made": (
        another_record(),
        lambda: [Fault("addPassword", moment="after", kind="kill", signal=9)],
    ),
    "another, SIGKILL once it is saved": (
        another_record(),
        lambda: [Fault("update_secret", moment="after", kind="kill", signal=9)],
    ),
    "another, SIGTERM at the removal": (another_record(), lambda: [Fault("removePassword", kind="kill", seconds=HOLD)]),
}
#: The sign-ins of the wait are the ones after the proof.
_IN_THE_WAIT = Step(Place("token (wait 2)", "entra", "token", 6))
_WAITS: dict[str, tuple[Shape | None, Faults, dict[str, Any]]] = {
    "three that learn over 30 s, in turn": (_sign_in(0, 15, 30), list, {"in_turn": True}),
    "three that learn over 30 s, at random": (_sign_in(0, 15, 30, routing="random", seed=4), list, {}),
    "three 10 s behind": (_graph(0, 10, 10), list, {}),
    "SIGTERM in it": (None, _token(5, kind="kill", seconds=HOLD), {}),
    "SIGKILL in it": (None, _token(5, kind="kill", signal=9), {}),
    "no answer in it": (None, _token(5, kind="drop"), {}),
    "sign-ins are throttled in it": (
        None,
        _token(5, kind="status", status=429, headers={"Retry-After": "60"}),
        {},
    ),
    "sign-ins are throttled for longer than it lasts": (
        None,
        _token(5, kind="status", status=429, headers={"Retry-After": "200"}),
        {},
    ),
    "too many sign-ins in it": (
        None,
        _token(5, kind="status", status=400, body={"error": "invalid_grant", "error_codes": [50196]}),
        {},
    ),
}
_PEOPLE_IN_THE_WAIT = (
    "removes the new one",
    "removes the old one",
    "removes all",
    "types in another secret",
    "restores the record",
    "rotates, at once",
)


def lag_cases() -> Iterator[Case]:
    """All of them, in both forms; the default wait in the script alone, but for what is different there."""
    for turn, (row, (shape, more)) in enumerate(_SIGN_INS.items()):
        yield from _in_forms(turn, row, SIGN_IN, list, shape=shape, **more)
    for turn, (row, (shape, faults, more)) in enumerate(_LISTS.items()):
        yield from _in_forms(turn, row, LISTS, faults, shape=shape, clean_runs=2, **more)
    for turn, (row, (shape, faults)) in enumerate(_RECORDS.items()):
        yield from _in_forms(turn, row, RECORDS, faults, shape=shape)
    for turn, (row, (maybe, faults, more)) in enumerate(_WAITS.items()):
        form = sorted(FORMS)[turn % len(FORMS)]
        yield Case(form, row, WAIT, faults, shape=maybe, retire_after=None, clean_runs=2, **more)
    people = {person.name: person for person in PEOPLE_AT_WORK}
    for turn, name in enumerate(_PEOPLE_IN_THE_WAIT):
        form = sorted(FORMS)[turn % len(FORMS)]
        more = {"person": people[name], "number": SHOWN, "step": _IN_THE_WAIT, "retire_after": None}
        yield Encounter(form, name + " in it", WAIT, list, **more)


def _in_forms(turn: int, row: str, column: str, faults: Faults, quick: bool = False, **more: Any) -> Iterator[Case]:
    for index, form in enumerate(FORMS):
        yield Case(form, row, column, faults, quick=quick and index == turn % len(FORMS), **more)
