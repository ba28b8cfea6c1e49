# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the matrix has beyond single disturbances: lasting ones, two in one run, stores that are slow to agree."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

from harness import FORMS, World
from lags import lag_cases
from matrix import HOLD, PLACES, Case, Faults, Shape
from people import STEPS, encounters

from sandbox import Fault

LASTING = "lasting"
SLOW = "slow stores"
TWO = "two disturbances"

#: A new secret that does not sign in soon enough.
IMPATIENT = {"verify_timeout": 3}


def _for_ever(op: str, moment: str = "before", kind: str = "drop", nth: int = 1, **more: Any) -> Fault:
    return Fault(op, nth=nth, moment=moment, kind=kind, times=None, **more)


def _once(op: str, moment: str = "before", kind: str = "drop", nth: int = 1, **more: Any) -> Fault:
    return Fault(op, nth=nth, moment=moment, kind=kind, **more)


def _slow(
    visible: float = 0.0, usable: float = 0.0, replicas: int = 1, lingers: float = 0.0, seen: bool = False
) -> Shape:
    """Stores that are slow to agree. ``seen``: the run finds more old secrets than two."""

    def shape(world: World) -> None:
        directory = world.sandbox.directory
        directory.visible_after, directory.usable_after = visible, usable
        directory.replicas, directory.lingers_for = replicas, lingers
        if seen:
            world.app.add_secret("expired", days=-3)

    return shape


def _keeper_gone(moment: str, kind: str, **more: Any) -> Faults:
    """Keeper's trouble begins with the save and stays."""
    return lambda: [
        _for_ever("update_secret", moment, kind, **more),
        _for_ever("get_secret", "before", kind, nth=2, **more),
    ]


def _graph_gone(moment: str, kind: str, first: str = "addPassword", **more: Any) -> Faults:
    """Graph's trouble begins with addPassword, or right after it, and stays."""
    later = [
        _for_ever("get_application", "before", kind, nth=2, **more),
        _for_ever("removePassword", moment, kind, **more),
    ]
    return lambda: [_for_ever("addPassword", moment, kind, **more), *later] if first == "addPassword" else later


_NEVER = _slow(usable=1000)
#: name: faults, further arguments of the case. Those with "quick" run by default.
_LASTING: dict[str, tuple[Faults, dict[str, Any]]] = {
    "Keeper is gone": (lambda: [_for_ever("get_secret")], {}),
    "Keeper throttles": (lambda: [_for_ever("get_secret", kind="throttled403")], {}),
    "Keeper throttles for 2 minutes": (lambda: [_for_ever("get_secret", kind="throttled403", retry_after=120)], {}),
    "Keeper is gone from the save on": (_keeper_gone("before", "drop"), {"quick": True}),
    "Keeper is gone once it has saved": (_keeper_gone("after", "drop"), {"quick": True}),
    "Keeper answers 500 from the save on": (_keeper_gone("before", "status", status=500), {}),
    "Keeper answers 500 once it has saved": (_keeper_gone("after", "status", status=500), {}),
    "Keeper answers HTML from the save on": (_keeper_gone("before", "html502"), {}),
    "Keeper throttles from the save on": (_keeper_gone("before", "throttled403", retry_after=2), {}),
    "Keeper throttles, no wait named, from the save on": (_keeper_gone("before", "throttled429"), {}),
    "Keeper throttles once it has saved": (_keeper_gone("after", "throttled403", retry_after=2), {}),
    "every save is out of sync": (lambda: [_for_ever("update_secret", kind="out_of_sync")], {}),
    "every save is done and called out of sync": (lambda: [_for_ever("update_secret", "after", "out_of_sync")], {}),
    "every save is refused": (lambda: [_for_ever("update_secret", status=403, kind="status")], {"quick": True}),
    "every save is done and called refused": (
        lambda: [_for_ever("update_secret", "after", status=403, kind="status")],
        {},
    ),
    "every save names another key": (lambda: [_for_ever("update_secret", kind="key")], {}),
    "no save is answered": (lambda: [_for_ever("update_secret")], {}),
    "no save is answered, each is done": (lambda: [_for_ever("update_secret", "after")], {}),
    "every answer to a save is cut": (lambda: [_for_ever("update_secret", "after", "truncate")], {}),
    "no read-back": (lambda: [_for_ever("get_secret", nth=2)], {"quick": True}),
    "every read-back is cut": (lambda: [_for_ever("get_secret", "after", "truncate", nth=2)], {}),
    "Entra is gone": (lambda: [_for_ever("discovery"), _for_ever("token")], {"some": True}),
    "no token": (lambda: [_for_ever("token", kind="status", status=500)], {}),
    "no answer to the proof": (lambda: [_for_ever("token", nth=2)], {"policy": IMPATIENT, "quick": True}),
    "the proof is throttled": (
        lambda: [_for_ever("token", kind="status", status=429, headers={"Retry-After": "60"}, nth=2)],
        {"policy": IMPATIENT},
    ),
    "the proof answers HTML": (lambda: [_for_ever("token", kind="html502", nth=2)], {"policy": IMPATIENT}),
    "Graph is gone": (lambda: [_for_ever("get_application")], {}),
    "Graph is gone from addPassword on": (_graph_gone("before", "drop"), {"some": True}),
    "Graph is gone once it has made the secret": (_graph_gone("after", "drop"), {"some": True}),
    "Graph answers 500 from addPassword on": (_graph_gone("before", "status", status=500), {"some": True}),
    "Graph answers 504 once it has made the secret": (
        _graph_gone("after", "status", status=504),
        {"some": True},
    ),
    "Graph throttles from addPassword on": (_graph_gone("before", "graph429", retry_after=1), {"some": True}),
    "Graph throttles for 2 minutes from addPassword on": (
        _graph_gone("before", "graph429", retry_after=120),
        {"some": True},
    ),
    "every addPassword is a concurrency violation": (lambda: [_for_ever("addPassword", kind="concurrency409")], {}),
    "every addPassword is done and called a concurrency violation": (
        lambda: [_for_ever("addPassword", "after", "concurrency503")],
        {},
    ),
    "no addPassword is answered, each is done": (lambda: [_for_ever("addPassword", "after")], {}),
    "every addPassword is forbidden": (lambda: [_for_ever("addPassword", kind="status", status=403)], {}),
    "Graph is gone when the secret is published": (_graph_gone("before", "drop", first="later"), {"some": True}),
    "Graph answers 503 when the secret is published": (
        _graph_gone("before", "concurrency503", first="later"),
        {"some": True},
    ),
    "no removal": (lambda: [_for_ever("removePassword", kind="status", status=500)], {"quick": True}),
    "no removal but the first": (lambda: [_for_ever("removePassword", nth=2)], {}),
    "every removal is forbidden": (lambda: [_for_ever("removePassword", kind="status", status=403)], {}),
    "no removal is answered, each is done": (lambda: [_for_ever("removePassword", "after")], {"quick": True}),
    "the last removal is never answered, it is done": (lambda: [_for_ever("removePassword", "after", nth=2)], {}),
    "every removal is done and called a concurrency violation": (
        lambda: [_for_ever("removePassword", "after", "concurrency409")],
        {},
    ),
    "the secret never signs in": (list, {"policy": IMPATIENT, "shape": _NEVER, "quick": True}),
    "the secret never signs in, and cannot be removed": (
        lambda: [_for_ever("removePassword")],
        {"policy": IMPATIENT, "shape": _NEVER},
    ),
    "the secret never signs in, its removal is never answered": (
        lambda: [_for_ever("removePassword", "after")],
        {"policy": IMPATIENT, "shape": _NEVER},
    ),
    "the secret never signs in, and Graph is gone": (
        _graph_gone("before", "drop", first="later"),
        {"policy": IMPATIENT, "shape": _NEVER, "some": True},
    ),
}
_SLOW: dict[str, tuple[Faults, dict[str, Any]]] = {
    "usable late": (list, {"shape": _slow(usable=3)}),
    "visible late": (list, {"shape": _slow(visible=6, seen=True)}),
    "replicas apart": (list, {"shape": _slow(visible=4, usable=2, replicas=3, seen=True)}),
    "old ones linger": (list, {"shape": _slow(lingers=8)}),
    "visible late, never signs in": (list, {"shape": _slow(visible=6, usable=1000), "policy": IMPATIENT}),
    "replicas apart, never signs in": (
        list,
        {"shape": _slow(visible=9, usable=1000, replicas=3), "policy": IMPATIENT, "quick": True},
    ),
    "replicas apart, answer of addPassword lost": (
        lambda: [_once("addPassword", "after")],
        {"shape": _slow(visible=4, replicas=3), "quick": True},
    ),
    "visible late, answer of addPassword lost": (
        lambda: [_once("addPassword", "after")],
        {"shape": _slow(visible=4)},
    ),
    "replicas apart, SIGTERM at the proof": (
        lambda: [_once("token", "after", "kill", nth=2)],
        {"shape": _slow(visible=4, replicas=2)},
    ),
    "replicas apart, SIGTERM once the secret is made": (
        lambda: [_once("addPassword", "after", "kill")],
        {"shape": _slow(visible=4, replicas=2)},
    ),
    "visible late, SIGKILL once the secret is made": (
        lambda: [_once("addPassword", "after", "kill", signal=9)],
        {"shape": _slow(visible=2), "clean_runs": 2},  # the first may begin before Graph lists what was left
    ),
    "the secret is made long after nobody waits for it": (
        lambda: [_once("addPassword", "before", "delay", seconds=45.0)],
        {},
    ),
    "saved after nobody waits for it, SIGTERM meanwhile": (
        lambda: [
            _once("update_secret", "before", "delay", seconds=24.0),
            _once("get_secret", "before", "kill", nth=2, seconds=HOLD),
        ],
        {},
    ),
    "saved after nobody waits for it, and after the run": (
        lambda: [
            _once("update_secret", "before", "delay", seconds=60.0),
            _for_ever("get_secret", nth=2),
        ],
        {},
    ),
}


def _described(column: str, plan: dict[str, tuple[Faults, dict[str, Any]]]) -> Iterator[Case]:
    count = itertools.count()
    for row, (faults, more) in plan.items():
        turn = next(count) % len(FORMS)
        for index, form in enumerate(FORMS):
            quick = bool(more.get("quick")) and index == turn
            yield Case(form, row, column, faults, **{**more, "quick": quick})


#: First disturbances after which a run goes another way, by the place in PLACES.
_TURNS = (
    ("addPassword", "after", {"kind": "drop"}),
    ("addPassword", "after", {"kind": "kill"}),
    ("token (proof)", "before", {"kind": "kill"}),
    ("update_secret", "before", {"kind": "drop"}),
    ("update_secret", "after", {"kind": "drop"}),
    ("update_secret", "before", {"kind": "kill"}),
    ("update_secret", "after", {"kind": "kill"}),
    ("get_secret (read-back)", "after", {"kind": "kill"}),
    ("removePassword (first)", "after", {"kind": "drop"}),
)
_THEN: dict[str, dict[str, Any]] = {
    "drop before": {"kind": "drop"},
    "drop after": {"kind": "drop", "moment": "after"},
    "SIGTERM": {"kind": "kill", "seconds": HOLD},
    "SIGKILL": {"kind": "kill", "signal": 9, "moment": "after"},
    "500 from then on": {"status": 500, "times": None},
}


def two_disturbances() -> Iterator[Case]:
    """One disturbance, and another at the first, second or third request after it."""
    forms = itertools.cycle(FORMS)
    number = {(step.place.op, step.place.nth): index for index, step in enumerate(STEPS[:-1], 1)}
    place_of = {place.name: place for place in PLACES}
    for name, moment, first in _TURNS:
        for step in (1, 2, 3):
            for word, then in _THEN.items():
                if step == 3 and word != "drop after":
                    continue
                place = place_of[name]
                nth = number[place.op, place.nth] + step
                faults = functools.partial(_two, place, moment, first, nth, then)
                signal = "SIGTERM" if first["kind"] == "kill" else "drop"
                row = f"{name} {moment} {signal}, request {step} after it: {word}"
                yield Case(next(forms), row, TWO, faults, some=True)


def _two(place: Any, moment: str, first: dict[str, Any], nth: int, then: dict[str, Any]) -> list[Fault]:
    return [
        Fault(place.op, nth=place.nth, moment=moment, **{**first, "seconds": HOLD}),
        Fault("*", nth=nth, **then),
    ]


def scenarios() -> Iterator[Case]:
    """All of them."""
    yield from _described(LASTING, _LASTING)
    yield from _described(SLOW, _SLOW)
    yield from two_disturbances()
    yield from encounters()
    yield from lag_cases()
