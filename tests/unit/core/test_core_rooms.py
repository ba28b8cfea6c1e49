# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The core is a house of rooms, and a room knows only those below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[3] / "plugins" / "module_utils" / "_core"
# From the bottom to the top.
ROOMS = ("base", "services", "records", "rotation", "fleet", "script")


def arrows() -> Iterator[tuple[str, str, str]]:
    """Give each import between modules of the core: the file, its room, and the room that it imports from."""
    for path in sorted(CORE.glob("*/*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                room = path.parent.name
                where = f"{room}/{path.name}"
                assert node.level <= 2, f"{where} reaches out of the core"
                assert node.module, f"{where} imports a module, not names of it"
                yield where, room, room if node.level == 1 else node.module.split(".")[0]


def test_there_are_these_rooms_and_no_module_outside_of_them():
    assert {path.parent.name for path in CORE.glob("*/*.py")} == set(ROOMS)
    assert [path.name for path in CORE.glob("*.py")] == ["__init__.py"]


def test_the_arrows_point_down():
    up = [f"{where} imports from {below}" for where, room, below in arrows() if ROOMS.index(below) > ROOMS.index(room)]
    assert up == []


def test_no_module_needs_one_that_needs_it():
    needs: dict[str, set[str]] = {}
    for path in sorted(CORE.glob("*/*.py")):
        found = needs.setdefault(f"{path.parent.name}.{path.stem}", set())
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                found.add(f"{path.parent.name}.{node.module}" if node.level == 1 else str(node.module))
    done: set[str] = set()
    while len(done) < len(needs):
        free = {name for name, below in needs.items() if name not in done and below <= done}
        assert free, f"a circle: {sorted(set(needs) - done)}"
        done |= free


@pytest.mark.parametrize("room", ROOMS)
def test_it_says_what_it_is_for(room: str):
    assert ast.get_docstring(ast.parse((CORE / room / "__init__.py").read_text("utf-8")))


def test_the_core_never_imports_ansible():
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [name for name in names if name.split(".")[0] in ("ansible", "ansible_collections")], path
