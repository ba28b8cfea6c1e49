# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The fault matrix: every request of a run, disturbed in every way; what lasts or comes twice is in ``scenarios.py``.

``python tests/e2e/matrix.py PATTERN`` runs the cases whose names match, and shows what those in trouble have written.
"""

from __future__ import annotations

import fnmatch
import importlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]
    importlib.import_module("conftest")  # it finds the collection, as under pytest

from harness import FORMS, World, make_world
from judge import Judge, Verdict

from sandbox import Fault

#: The core gives up reading after 20 s.
BEYOND_READ_TIMEOUT = 24.0
#: How long a request is held for a client that has been told to end and does not.
HOLD = 2.0
#: Cases at once in one test: most of a case is waiting.
THREADS = int(os.environ.get("KEEPERPAM_MATRIX_THREADS", "6"))

Shape = Callable[[World], None]
Faults = Callable[[], list[Fault]]


@dataclass(frozen=True)
class Place:
    """A request of an undisturbed run: the operation, and the how manieth of its name it is."""

    name: str
    service: str
    op: str
    nth: int = 1

    @property
    def changes(self) -> bool:
        """Whether it changes a store."""
        return self.op in ("addPassword", "update_secret", "removePassword")


#: In their order.
PLACES = (
    Place("get_secret (record)", "keeper", "get_secret", 1),
    Place("discovery", "entra", "discovery"),
    Place("token (admin)", "entra", "token", 1),
    Place("get_application (resolve)", "graph", "get_application", 1),
    Place("addPassword", "graph", "addPassword"),
    Place("token (proof)", "entra", "token", 2),
    Place("token (last proof)", "entra", "token", 4),
    Place("update_secret", "keeper", "update_secret"),
    Place("get_secret (read-back)", "keeper", "get_secret", 2),
    Place("get_application (retire)", "graph", "get_application", 2),
    Place("removePassword (first)", "graph", "removePassword", 1),
    Place("removePassword (last)", "graph", "removePassword", 2),
)
MOMENTS = ("before", "after")


def _status(status: int, **headers: str) -> Callable[[], dict[str, Any]]:
    return lambda: {"kind": "status", "status": status, "headers": {k.replace("_", "-"): v for k, v in headers.items()}}


def _kind(kind: str, **more: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"kind": kind, **more}


def _soon() -> str:
    return formatdate(time.time() + 3, usegmt=True)


_MANNERS: dict[str, Callable[[], dict[str, Any]]] = {
    "500": _status(500),
    "502 html": _kind("html502"),
    "drop": _kind("drop"),
    "truncate": _kind("truncate"),
    "delay": _kind("delay", seconds=BEYOND_READ_TIMEOUT),
    "SIGKILL": _kind("kill", signal=9),
    "SIGTERM": _kind("kill", signal=15),
}
_MICROSOFT: dict[str, Callable[[], dict[str, Any]]] = {
    "409 concurrency": _kind("concurrency409"),
    "503 concurrency": _kind("concurrency503"),
    "504": _status(504),
    **_MANNERS,
}
#: What disturbs a request, by service. Microsoft's own example of a Retry-After is a decimal.
DISTURBANCES: dict[str, dict[str, Callable[[], dict[str, Any]]]] = {
    "graph": {
        "429 decimal": _kind("graph429", retry_after="1.128"),
        "429 date": lambda: {"kind": "graph429", "retry_after": _soon()},
        **_MICROSOFT,
    },
    "entra": {
        "429 decimal": _status(429, Retry_After="1.128"),
        "429 date": lambda: {"kind": "status", "status": 429, "headers": {"Retry-After": _soon()}},
        **_MICROSOFT,
    },
    "keeper": {
        "403 throttled": _kind("throttled403", retry_after=1),
        "429 throttled": _kind("throttled429", retry_after=1.5),
        "403 throttled, no wait": _kind("throttled403"),
        "out of sync": _kind("out_of_sync"),
        "key": _kind("key"),
        **_MANNERS,
    },
}


@dataclass(frozen=True)
class Case:
    """One disturbed run. ``faults`` makes them at the time of the run; ``shape`` sets the world up before."""

    form: str
    row: str
    column: str
    faults: Faults
    moment: str = ""
    quick: bool = False
    shape: Shape | None = None
    #: The record's tuning fields for the script, options for the module.
    policy: dict[str, Any] = field(default_factory=dict)
    #: How long the old secrets stay once they are superseded; None for the default. The clean run does not wait.
    retire_after: str | None = "0"
    #: Not all of the faults need to be met: how far the run comes depends on earlier ones.
    some: bool = False
    #: The replicas answer in turn, so that the sign-ins of a proof meet them all.
    in_turn: bool = False
    #: Within so many clean runs, one right after the other, one ends complete: two where a lag is still on.
    clean_runs: int = 1

    @property
    def group(self) -> str:
        """The class in which it is counted."""
        return "every request" if self.moment else self.column

    @property
    def name(self) -> str:
        """The name by which the case is chosen and reported."""
        return "/".join(filter(None, (self.form, self.row, self.moment, self.column)))

    def run(self, script: Path | None = None) -> Verdict:
        """Run the case and judge it; ``script`` takes the place of the script form's file."""
        arguments: list[str] = []
        options: dict[str, Any] = dict(self.policy)
        fields: dict[str, str | None] = {}
        if self.form == "script":
            arguments, options = ["--debug"], {} if script is None else {"script": script}
            fields = {key: str(value) for key, value in self.policy.items()}
        fields["retire_after"] = self.retire_after
        with make_world(**fields) as world:
            world.app.add_secret("second", days=100)
            if self.shape:
                self.shape(world)
            judge = Judge(world, self.name, in_turn=self.in_turn, group=self.group)
            plan = world.sandbox.faults
            faults = [plan.add(fault) for fault in self.faults()]
            judge.disturbed(lambda: FORMS[self.form](world, *arguments, **options))
            judge.reached((any if self.some else all)(fault in plan.fired for fault in faults) or not faults)
            judge.settle([fault for fault in plan.fired if fault.kind == "delay"])
            world.record.edit("retire_after", "0")
            judge.accept()
            judge.recovery(lambda: FORMS[self.form](world, *arguments, **options), self.clean_runs)
            return judge.verdict


def every_request() -> Iterator[Case]:
    """Every request of a run, disturbed once, at either moment, in every way."""
    count = itertools.count()
    for place in PLACES:
        for moment in MOMENTS:
            for column, make in DISTURBANCES[place.service].items():
                # An answer is the same to what changes nothing, before or after. What ends a process is not.
                if moment == "before" and not place.changes and column not in ("drop", "SIGKILL", "SIGTERM"):
                    continue
                # The quick ones: each place in some ways, by the two forms in turn.
                often = column in ("500", "drop", "SIGKILL", "SIGTERM", "out of sync")
                turn = next(count) % len(FORMS)

                def faults(place: Place = place, moment: str = moment, make: Any = make) -> list[Fault]:
                    return [Fault(place.op, nth=place.nth, moment=moment, **make())]

                for index, form in enumerate(FORMS):
                    quick = often and index == turn and (place.changes or moment == "after")
                    yield Case(form, place.name, column, faults, moment, quick)


def all_cases() -> list[Case]:
    """The whole matrix."""
    from scenarios import scenarios

    return [*every_request(), *scenarios()]


def chosen() -> list[Case]:
    """The cases that ``KEEPERPAM_MATRIX`` asks for: by default the quick ones, ``full``, or a pattern of names."""
    wanted = os.environ.get("KEEPERPAM_MATRIX", "")
    if wanted in ("", "quick", "full"):
        return [case for case in all_cases() if case.quick or wanted == "full"]
    return [case for case in all_cases() if fnmatch.fnmatchcase(case.name, wanted)]


def run_all(cases: list[Case], threads: int = THREADS) -> list[Verdict]:
    """Run the cases, several at a time."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda case: case.run(), cases))


def main() -> int:
    """Run what the command line asks for."""
    os.environ["KEEPERPAM_MATRIX"] = sys.argv[1] if len(sys.argv) > 1 else "quick"
    from matrix import chosen, run_all  # not those of __main__: scenarios.py has the classes of this one

    found = chosen()
    verdicts = run_all(found, 2 * THREADS)
    for verdict in verdicts:
        print(("RED  " if verdict.red else "green"), f"{verdict.status:12} {verdict.seconds:5.1f} s  {verdict.name}")
        for problem in verdict.problems:
            print("      " + problem)
        if verdict.red or len(found) == 1:
            print("      | " + verdict.said.strip().replace("\n", "\n      | "))
    from report import summary, to_plain

    print("\n".join(summary(map(to_plain, verdicts))))
    return sum(verdict.red for verdict in verdicts)


if __name__ == "__main__":
    raise SystemExit(main())
