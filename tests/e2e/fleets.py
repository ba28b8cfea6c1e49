# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tenant with many applications, each with its record, and the module that rotates all of them in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness import Result, World, make_world, run_module


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
        for index in range(1, number):
            app = directory.add_application(f"app-{index:04}", owners=[first.admin.client_id])
            old = app.add_secret("first", days=20)
            world = first.seen_from(first.record, app)
            record = world.add_record(f"app-{index:04}", old, **fields)
            world = world.seen_from(record)
            world.old = old
            worlds.append(world)
        yield FleetWorld(worlds)
