# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules' own files can be read by every Python that a supported ansible-core may hand them to, from 2.7 on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import (
    RETIRE_CHOICES,
    ROTATE_CHOICES,
)
from ansible_collections.keeperpam.azure.plugins.modules import app_record, app_secret

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
FILES = [*sorted((PLUGINS / "modules").glob("[!_]*.py")), PLUGINS / "module_utils" / "_python.py"]
#: What Python 2.7 cannot read.
NEW = (ast.AnnAssign, ast.AsyncFunctionDef, ast.Await, ast.JoinedStr, ast.NamedExpr, ast.Nonlocal, ast.Starred)


def too_new(tree: ast.Module) -> list[str]:
    """Return what is in there that an old Python cannot read."""
    found = [f"line {node.lineno}: {type(node).__name__}" for node in ast.walk(tree) if isinstance(node, NEW)]
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            names = node.args
            annotated = isinstance(node, ast.FunctionDef) and node.returns is not None
            annotated = annotated or any(one.annotation for one in (*names.args, *names.kwonlyargs))
            if annotated or names.kwonlyargs or names.posonlyargs:
                found.append(f"line {node.lineno}: a signature of Python 3")
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            found += [f"line {node.lineno}: {one.name}" for one in node.names if one.name == "annotations"]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_old_python_can_read_it(path: Path) -> None:
    assert path.read_bytes().isascii(), "Python 2.7 wants a declaration for more than ASCII"
    assert too_new(ast.parse(path.read_text("utf-8"))) == []


@pytest.mark.parametrize("path", FILES[:-1], ids=lambda path: path.stem)
def test_it_checks_the_python_before_it_imports_anything_that_needs_a_newer_one(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    imported = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [getattr(node, "module", "") for node in imported] == ["module_utils._python"]
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert ast.unparse(main.body[0]) == "require_python()"


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations",
        "x: int = 1",
        "def f(a: int): pass",
        "def f() -> int: pass",
        "def f(*, a): pass",
        "f'{x}'",
        "(*a, b)",
    ],
)
def test_the_check_bites(source: str) -> None:
    assert too_new(ast.parse(source))


def test_the_choices_are_those_of_the_core() -> None:
    assert app_secret.OPTIONS["rotate"]["choices"] == list(ROTATE_CHOICES)
    assert app_secret.OPTIONS["retire"]["choices"] == list(RETIRE_CHOICES)
    assert app_record.OPTIONS["retire"]["choices"] == list(RETIRE_CHOICES)
