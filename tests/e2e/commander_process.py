# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The real Keeper Commander in an environment of its own, led to the stand-in for its servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ansible as ansible_package
from environments import environment

from commander import KeeperServer
from commander.server import START

MODULE = "ansible_collections.keeperpam.azure.plugins.modules.pam_rotation"

#: Commander's version in the tests; KEEPERPAM_COMMANDER=newest takes what the package index has.
VERSION = "18.1.8"
NEWEST = os.environ.get("KEEPERPAM_COMMANDER") == "newest"


@cache
def commander_python() -> str:
    """Return the Python of an environment with Commander and the start-up file, made once and kept in .cache."""
    if NEWEST:
        python = environment("commander-newest", sys.executable, "--upgrade", "keepercommander")
    else:
        python = environment("commander", sys.executable, f"keepercommander=={VERSION}", key=VERSION)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    site = Path(done.stdout.strip())
    _put(site / "keeper_sandbox_start.py", START)
    _put(site / "keeper_sandbox_start.pth", "import keeper_sandbox_start\n")
    return python


def commander_version() -> str:
    """Return the version of Commander that is installed there."""
    code = "import importlib.metadata; print(importlib.metadata.version('keepercommander'))"
    done = subprocess.run([commander_python(), "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _put(path: Path, text: str) -> None:
    """Write a file that other processes may be reading or writing."""
    if not path.is_file() or path.read_text("utf-8") != text:
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        aside.write_text(text, "utf-8")
        aside.replace(path)


@dataclass
class Ended:
    """How a run of the module ended."""

    result: dict[str, Any]
    stdout: str
    stderr: str
    cpu: float

    @property
    def failed(self) -> bool:
        """Whether it says that it has failed."""
        return bool(self.result.get("failed"))

    @property
    def status(self) -> str:
        """How it failed, empty where it did not."""
        return str(self.result.get("status", ""))

    @property
    def message(self) -> str:
        """What it says."""
        return str(self.result.get("msg", ""))


def run_pam_rotation(
    keeper: KeeperServer,
    home: Path,
    check: bool = False,
    environ: dict[str, str | None] | None = None,
    timeout: float = 120,
    **options: Any,
) -> Ended:
    """Run the module under Commander's Python as Ansible does, in a process of its own; None takes an option away."""
    root, ansible = os.environ["ANSIBLE_COLLECTIONS_PATH"], home / "ansible-core"
    if not ansible.exists():
        # Of this environment Commander's may see Ansible alone.
        ansible.mkdir()
        (ansible / "ansible").symlink_to(Path(ansible_package.__file__).parent)
    arguments = {key: value for key, value in options.items() if value is not None}
    arguments.update(_ansible_check_mode=check, _ansible_diff=True, _ansible_verbosity=4)
    line = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
    variables = {"PYTHONPATH": f"{root}{os.pathsep}{ansible}", "PYTHONDONTWRITEBYTECODE": "1", **(environ or {})}
    with subprocess.Popen(
        [keeper.python, "-m", MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=keeper.environ(home, **variables),
        cwd="/",
        text=True,
    ) as process:
        keeper.sandbox.client_pid = process.pid
        before = os.times()
        try:
            stdout, stderr = process.communicate(line, timeout=timeout)
        except BaseException:
            process.kill()
            raise
        finally:
            keeper.sandbox.client_pid = None
        after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    try:
        result = json.loads(stdout)
    except ValueError:
        result = {}
    return Ended(result, stdout, stderr, cpu)
