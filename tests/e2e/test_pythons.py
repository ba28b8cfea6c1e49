# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every supported Python, with nothing but the runtime packages: the script, the module's core, its unit tests."""

from __future__ import annotations

import os
import subprocess

import pytest
from environments import with_requirements
from harness import CHECKOUT, make_world, run_script

SUPPORTED = ("3.9", "3.10", "3.11", "3.12", "3.13")


@pytest.fixture(scope="module", params=SUPPORTED)
def python(request: pytest.FixtureRequest) -> str:
    """Return the interpreter of an environment with the runtime packages, made once and kept in .cache."""
    if not os.environ.get("KEEPERPAM_FULL"):
        pytest.skip("needs minutes of installing the first time: set KEEPERPAM_FULL=1")
    found = with_requirements(request.param)
    if found is None:
        pytest.skip(f"there is no Python {request.param} on this machine")
    return found


def test_the_script_rotates(python: str) -> None:
    with make_world() as world:
        result = run_script(world, python=python)
        assert result.returncode == 0, result.stderr
        assert world.agrees()
        assert len(result.stderr.splitlines()) == len(set(result.stderr.splitlines()))


def test_the_unit_tests_of_the_core_pass(python: str) -> None:
    command = [python, "-m", "pytest", "-q", str(CHECKOUT / "tests" / "unit" / "core")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
