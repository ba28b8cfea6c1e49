# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What some tests need and not every machine has: without it they are skipped, but not in CI, which installs it.

There, only what KEEPERPAM_LEFT_OUT names may be missing: .ci/run puts in it what could not be installed.
"""

from __future__ import annotations

import importlib
import os
import shutil
from types import ModuleType

import pytest


def program(name: str, package: str) -> str:
    """Return the path of a program, which Debian has in that package."""
    found = shutil.which(name)
    if found is None:
        _missing(name, f"{name} is not installed (Debian: {package})")
    return str(found)


def module(name: str) -> ModuleType:
    """Return a module of requirements-dev.txt."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        _missing(package, f"{package} is not installed")
        raise


def _missing(name: str, reason: str) -> None:
    left_out = os.environ.get("KEEPERPAM_LEFT_OUT", "").split()
    if os.environ.get("KEEPERPAM_FULL") and name not in left_out:
        pytest.fail(f"{reason}, and KEEPERPAM_LEFT_OUT does not name it")
    pytest.skip(reason, allow_module_level=True)
