# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lets the tests of the core run where ansible-core is not installed, such as on Python 3.9."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]


def lay_namespace() -> None:
    """Make ``ansible_collections.keeperpam.azure`` this checkout, by namespace packages as Python itself makes them."""
    for name, path in (
        ("ansible_collections", []),
        ("ansible_collections.keeperpam", []),
        ("ansible_collections.keeperpam.azure", [str(CHECKOUT)]),
    ):
        package = ModuleType(name)
        package.__path__ = path
        sys.modules[name] = package
        parent, _dot, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, package)


def is_loadable() -> bool:
    """Whether somebody else (tests/conftest.py with Ansible's loader, ansible-test) has seen to it already."""
    try:
        return importlib.util.find_spec("ansible_collections.keeperpam.azure") is not None
    except ImportError:
        return False


if not is_loadable():
    lay_namespace()
# The samples that several rooms share.
sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the clock that the budgets of this test go by."""
    clock = importlib.import_module("core_samples").Clock()
    monkeypatch.setattr("ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing.time", clock)
    return clock


@pytest.fixture(autouse=True)
def known_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test find in its texts what another has made a secret of."""
    redact = "ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact"
    monkeypatch.setattr(f"{redact}._blocks", {})
    monkeypatch.setattr(f"{redact}._known", set())
