# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tenant with many applications, each with its record, and the module that rotates all of them in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from harness import Result, World, make_world, run_module
from judge import Verdict
from looks import Looks

from leaks import pieces_in
from sandbox import Entry
from sandbox.directory import Credential


@dataclass
class FleetWorld:
    """One world for each application of the tenant; all of them share the sandbox."""

    worlds: list[World]

    @property
    def first(self) -> World:
        """The world of the first application."""
        return self.worlds[0]

    def uids(self) -> list[str]:
        """Return the uids of the records, in order."""
        return [world.record.uid for world in self.worlds]

    def secrets(self) -> list[str]:
        """Return every value that may appear nowhere outside."""
        return [secret for world in self.worlds for secret in world.secrets()]

    def run(self, **options: Any) -> Result:
        """Run the module over all of them, or as the options say."""
        return run_module(self.first, **{"record": None, "records": self.uids(), **options})


@contextmanager
def make_fleet(number: int, **fields: Any) -> Iterator[FleetWorld]:
    """Start a sandbox with so many applications; `fields` are those of every record."""
    with make_world(**fields) as first:
        directory = first.sandbox.directory
        worlds = [first]
        _age(first.old)
        for index in range(1, number):
            app = directory.add_application(f"app-{index:04}", owners=[first.admin.client_id])
            old = app.add_secret("first", days=20)
            _age(old)
            world = first.seen_from(first.record, app)
            record = world.add_record(f"app-{index:04}", old, **fields)
            world = world.seen_from(record)
            world.old = old
            worlds.append(world)
        yield FleetWorld(worlds)


def _age(secret: Credential) -> None:
    """Let it be as old as one that a former rotation has made: no run takes it for one that is made beside it."""
    secret.start -= timedelta(days=1)


class FleetJudge:
    """Watches all records of a fleet from now on, and holds what is said of each against both stores."""

    def __init__(self, fleet: FleetWorld) -> None:
        self._fleet = fleet
        self.verdict = Verdict("fleet")
        self._looks = Looks(fleet.first, self.verdict, in_turn=False)
        self._secrets: set[str] = set(fleet.secrets())
        self._worlds = {name: world for world in fleet.worlds for name in (world.app.object_id, world.record.uid)}
        self._looks.look("at first", None)
        fleet.first.sandbox.watch(lambda sandbox, entry: self._look(entry))

    def _look(self, entry: Entry) -> None:
        for world in {id(found): found for name, found in self._worlds.items() if name in entry.detail}.values():
            self._secrets.update(one.text for one in world.app.live_secrets())
            self._looks.look("the fleet", entry, [world.record])

    def judge(self, result: Result) -> None:
        """Say what is wrong with a run that has ended by itself."""
        self.leaks(result)
        entries = result.output.get("results") or []
        if [entry["record"] for entry in entries] != self._fleet.uids():
            self.verdict.blame("wrong", "the results are not those of the records, in their order")
        for world, entry in zip(self._fleet.worlds, entries):
            for problem in untrue(world, entry):
                self.verdict.blame("wrong", f"{entry['title']} is {entry['status']}, {problem}: {entry['msg']}")
        if result.failed != any(entry["failed"] for entry in entries) or result.failed != (result.returncode != 0):
            self.verdict.blame("wrong", "failed is not what the entries say")

    def leaks(self, result: Result) -> None:
        """Say which secrets are in what a run has written."""
        for secret in pieces_in(result.said(), self._secrets):
            self.verdict.blame("leak", f"{secret} is in the output")
        if "Traceback" in result.said():
            self.verdict.blame("wrong", "a traceback was shown")

    def complete(self) -> None:
        """Say which application is not as a complete rotation leaves it."""
        self._looks.look("at the end", None)
        for world in self._fleet.worlds:
            if not world.agrees() or not world.published():
                self.verdict.blame("unmended", f"{world.app.display_name} has {len(world.live())} secrets")


def untrue(world: World, entry: dict[str, Any]) -> list[str]:
    """Return what is not so of what the run says of one record."""
    status, live, found = entry["status"], world.live(), []
    if entry["failed"] == (status in ("rotated", "unchanged", "planned")):
        found.append("and failed does not fit")
    if status in ("rotated", "incomplete") and entry.get("key_id") != world.shows():
        found.append("but the record shows another secret")
    if status == "rotated" and not (entry["changed"] and world.agrees()):
        found.append(f"but Entra holds {len(live)}")
    if status == "incomplete" and (len(live) < 2 or not entry["changed"]):
        found.append("but nothing remains")
    if status in ("bad_input", "refused", "rolled_back", "planned") and not world.untouched():
        found.append("but the stores are not as before")
    if status == "orphan" and not any(one.display_name == entry.get("marker") for one in world.app.live_secrets()):
        found.append("but there is none")
    if status in ("error", "unchanged"):
        found.append("which was not to be")
    return found
