# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from commander_process import NEWEST, commander_version
from harness import FORMS, World, make_world

#: The files whose tests take long, most of them by waiting.
LONG = (
    "test_fleet_faults",
    "test_time",
    "test_fleet",
    "test_stateful",
    "test_attach_commander",
    "test_leaks",
    "test_matrix",
    "test_pythons",
    "test_one_look",
    "test_taken_away",
    "test_two_secrets",
    "test_mutations",
    "test_attach_faults",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests, a bit of each file in turn: those that wait beside those that work, and short ones
    to fill the processes up at the end."""
    number, seen, turn = Counter(item.path for item in items), Counter[Path](), {}
    for item in items:
        turn[item] = item.path.stem not in LONG, seen[item.path] / number[item.path]
        seen[item.path] += 1
    items.sort(key=turn.__getitem__)


@pytest.fixture
def world() -> Iterator[World]:
    """Return a fresh world: a tenant, a vault, one application to rotate."""
    with make_world() as made:
        yield made


@pytest.fixture(params=sorted(FORMS))
def form(request: pytest.FixtureRequest) -> str:
    """Return the name of a form of the rotation."""
    name: str = request.param
    return name


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how the fault matrix went, and write its tables: the tests hand their results over as properties. Say which
    Commander it was where nobody has chosen."""
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.stats.get(kind, [])]
    results = [value for one in reports for name, value in getattr(one, "user_properties", []) if name == "matrix"]
    if results:
        from report import write

        terminalreporter.section("fault matrix")
        for line in write(results):
            terminalreporter.write_line(line)
    if NEWEST:
        terminalreporter.section(f"Keeper Commander {commander_version()}")
