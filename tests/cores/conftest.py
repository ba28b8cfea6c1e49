# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the tests on every supported ansible-core."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "e2e"))

from cores import CORES, Controller, Core


@pytest.fixture(params=CORES, ids=str)
def core(request: pytest.FixtureRequest) -> Core:
    """Return a supported version."""
    wanted: Core = request.param
    return wanted


@pytest.fixture
def controller(core: Core) -> Iterator[Controller]:
    """Return that version, installed."""
    if not os.environ.get("KEEPERPAM_FULL"):
        pytest.skip("installs every supported ansible-core: set KEEPERPAM_FULL=1")
    programs = core.folder()
    if programs is None:
        pytest.skip(f"there is no Python {core.python} on this machine")
    # Not in tmp_path: sockets of Ansible are made below it, and their paths must be short.
    with tempfile.TemporaryDirectory(prefix="core-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        yield Controller(programs, home)
