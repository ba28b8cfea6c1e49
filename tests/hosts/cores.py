# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The oldest and the newest supported ansible-core on the controller, each in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from machines import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tests" / "e2e"))

from environments import environment

#: Each with the Pythons that it supports on the controller and that are tried, in this order.
CORES = {"oldest": ("2.16", ("3.10", "3.12", "3.11")), "newest": ("2.21", ("3.13", "3.12"))}


def make_core(name: str) -> str:
    """Return the ansible-playbook of a core, or nothing where no Python for it is found."""
    version, pythons = CORES[name]
    for python in filter(None, map(_interpreter, pythons)):
        package = f"ansible-core=={version}.*"
        return str(Path(environment(f"cores/{version}", python, package, key=package)).with_name("ansible-playbook"))
    return ""


def _interpreter(version: str) -> str | None:
    """Return the path of a Python that runs, looking at PATH and below ~/.pyenv."""
    found = [shutil.which(f"python{version}")]
    found += sorted(str(path) for path in Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for path in filter(None, found):
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None
