# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual environments beside the one that the tests run in, made once and kept in .cache."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from harness import CHECKOUT


def environment(name: str, interpreter: str, *arguments: str, key: str = "") -> str:
    """Return the Python of an environment into which ``uv pip install`` has put what the arguments say.

    It is made anew when ``key`` is another than when it was made.
    """
    folder = CHECKOUT / ".cache" / name
    stamp = folder / "installed.txt"
    python = str(folder / "bin" / "python")
    uv = str(Path(sys.executable).with_name("uv"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Tests in several processes ask for the same one.
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text("utf-8") != key:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([uv, "venv", "--quiet", "--python", interpreter, str(folder)], check=True)
            subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *arguments], check=True)
            stamp.write_text(key, "utf-8")
    return python
