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


def find(version: str) -> str | None:
    """Return the path of a Python of that version that runs, looking at PATH and below ~/.pyenv; None without one."""
    found = [shutil.which(f"python{version}")]
    found += sorted(str(path) for path in Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for path in filter(None, found):
        if subprocess.run([path, "-c", "import sys"], capture_output=True, check=False).returncode == 0:
            return path
    return None


def environment(name: str, base: str, *arguments: str, key: str = "") -> str:
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
            subprocess.run([uv, "venv", "--quiet", "--python", base, str(folder)], check=True)
            subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *arguments], check=True)
            stamp.write_text(key, "utf-8")
    return python


def with_requirements(version: str) -> str | None:
    """Return the Python of an environment of that version with the runtime packages, and what their unit tests need;
    None where there is no such Python on this machine."""
    base = find(version)
    requirements = CHECKOUT / "requirements.txt"
    packages = ("-r", str(requirements), "pytest", "hypothesis")
    return environment(f"pythons/{version}", base, *packages, key=requirements.read_text("utf-8")) if base else None
