# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The versions of ansible-core that the collection supports, the Pythons that each supports, and how to run them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import environment, find
from harness import CHECKOUT

from sandbox import Sandbox

#: What the collection itself supports on hosts.
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
#: Of them, those that come with a booted system and are not looked for on this machine.
BOOTED = ("3.14",)
#: What each ansible-core supports on hosts, oldest and newest, and what the table says of the versions below 3.9,
#: https://docs.ansible.com/ansible/latest/reference_appendices/release_and_maintenance.html
TARGETS = {
    "2.16": ("2.7", "3.12"),
    "2.17": ("3.7", "3.12"),
    "2.18": ("3.8", "3.13"),
    "2.19": ("3.8", "3.13"),
    "2.20": ("3.9", "3.14"),
    "2.21": ("3.9", "3.14"),
}
#: Pythons that are too old for the collection, and not for every ansible-core.
TOO_OLD = ("2.7", "3.6", "3.7", "3.8")


@dataclass(frozen=True)
class Core:
    """A version of ansible-core, and of the Python that runs it."""

    version: str
    python: str

    def __str__(self) -> str:
        return f"{self.version}-on-{self.python}"

    def supports(self, python: str) -> bool:
        """Whether it supports hosts with this Python."""
        oldest, newest = TARGETS[self.version]
        return _number(oldest) <= _number(python) <= _number(newest)

    def folder(self) -> Path | None:
        """Return the folder of its programs, made once and kept in .cache; None where its Python is not there."""
        base = find(self.python)
        if base is None:
            return None
        requirements = CHECKOUT / "requirements.txt"
        packages = (f"ansible-core~={self.version}.0", "ansible-runner>=2.4", "-r", str(requirements))
        key = " ".join(packages) + requirements.read_text("utf-8")
        return Path(environment(f"cores/{self}", base, *packages, key=key)).parent


CORES = (
    Core("2.16", "3.10"),
    Core("2.16", "3.12"),
    Core("2.17", "3.10"),
    Core("2.18", "3.11"),
    Core("2.18", "3.13"),
    Core("2.19", "3.11"),
    Core("2.20", "3.12"),
    Core("2.21", "3.12"),
    Core("2.21", "3.13"),
)
#: One for each version. The others run the modules and the rotation alone: all of it on each would cost minutes.
ONE_EACH = tuple(next(core for core in CORES if core.version == version) for version in TARGETS)


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def table() -> str:
    """Return the table of the README: each ansible-core against the Pythons of hosts."""
    lines = [
        "| ansible-core | on Python | " + " | ".join(f"host's {python}" for python in PYTHONS) + " |",
        "|---|---|" + "---|" * len(PYTHONS),
    ]
    for version in TARGETS:
        mine = [core for core in CORES if core.version == version]
        cells = [("hosts" if python in BOOTED else "yes") if mine[0].supports(python) else "-" for python in PYTHONS]
        lines.append(f"| {version} | {', '.join(core.python for core in mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@dataclass
class Controller:
    """An installed ansible-core, with a home of its own, in front of a sandbox."""

    programs: Path
    home: Path

    def environ(self, sandbox: Sandbox, **extra: str | None) -> dict[str, str]:
        """Return the environment of its processes."""
        settings: dict[str, str | None] = {
            "GATEWAY_CONFIG": None,
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "ANSIBLE_REMOTE_TEMP": str(self.home / "remote"),  # by default below the home of the user database
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CONFIG": str(CHECKOUT / "tests" / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": os.environ["ANSIBLE_COLLECTIONS_PATH"],
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
        }
        return sandbox.environ(**{**settings, **extra})

    def play(
        self,
        sandbox: Sandbox,
        playbook: str,
        variables: Mapping[str, Any],
        *arguments: str,
        **environ: str | None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a playbook. The variables are given by a file: what stands in an argument, -vvvv prints."""
        with self.file(variables) as path:
            command = [str(self.programs / "ansible-playbook"), playbook, "-e", f"@{path}", *arguments]
            return subprocess.run(
                command,
                env=self.environ(sandbox, **environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )

    @contextmanager
    def file(self, variables: Mapping[str, Any]) -> Iterator[Path]:
        """Lend a file with the variables, beside the home."""
        path = self.home.with_name("variables.json")
        path.write_text(json.dumps(variables), "utf-8")
        try:
            yield path
        finally:
            path.unlink()
