# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The real Keeper Commander in an environment of its own, led to the stand-in for its servers."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from environments import environment

from commander.server import START

#: Commander's version in the tests; KEEPERPAM_COMMANDER=newest takes what the package index has.
VERSION = "18.1.8"


@cache
def commander_python() -> str:
    """Return the Python of an environment with Commander and the start-up file, made once and kept in .cache."""
    if os.environ.get("KEEPERPAM_COMMANDER") == "newest":
        python = environment("commander-newest", sys.executable, "--upgrade", "keepercommander")
    else:
        python = environment("commander", sys.executable, f"keepercommander=={VERSION}", key=VERSION)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    site = Path(done.stdout.strip())
    _put(site / "keeper_sandbox_start.py", START)
    _put(site / "keeper_sandbox_start.pth", "import keeper_sandbox_start\n")
    return python


def _put(path: Path, text: str) -> None:
    """Write a file that other processes may be reading or writing."""
    if not path.is_file() or path.read_text("utf-8") != text:
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        aside.write_text(text, "utf-8")
        aside.replace(path)
