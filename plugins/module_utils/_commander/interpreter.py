# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds the Python that Keeper Commander is installed in. Runs as a script too: it prints that Python's path.

Usage: interpreter.py [KEEPER], the path or the name of the command ``keeper``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

INSTALL = "install it, as with: pipx install keepercommander"
_SECONDS = 30
# pip writes a second form where the path is too long for the kernel or holds a space.
_SHEBANG = re.compile(
    rb"\A#!\s*(?P<plain>/\S*python\S*)[^\n]*\n"
    rb"|\A#!/bin/sh\n'''exec' (?:\"(?P<quoted>/[^\"\n]+)\"|(?P<bare>/[^\s\"]+)) "
)


class NotFound(Exception):
    """There is no Commander, or none whose Python can be used: the text says which, and what to do."""


def find(keeper: str = "") -> str:
    """Return the path of a Python that has the package keepercommander. Raises NotFound.

    ``keeper`` is the command's name or path; without it, this Python is tried first.
    """
    if not keeper and _has_commander(sys.executable):
        return sys.executable
    command = shutil.which(os.path.expanduser(keeper or "keeper"))
    if command is None:
        where = f"{keeper} is no command" if keeper else "there is no command keeper on the PATH"
        raise NotFound(f"Keeper Commander was not found: {where}. Next: {INSTALL}.")
    python = _python_of(command)
    if python is None:
        raise NotFound(
            f"{command} is no Python program: a packaged build of Keeper Commander cannot be used. Next: {INSTALL}."
        )
    if not _has_commander(python):
        raise NotFound(f"{command} belongs to {python}, which has no package keepercommander. Next: {INSTALL}.")
    return python


def _python_of(command: str) -> str | None:
    """Return the Python that a console script names; through the shims of pyenv. None for anything else."""
    with open(command, "rb") as file:
        head = file.read(4096)
    found = _SHEBANG.match(head)
    if found:
        return os.fsdecode(found["plain"] or found["quoted"] or found["bare"])
    if head.startswith(b"#!") and b"pyenv" in head:
        real = _output([shutil.which("pyenv") or "pyenv", "which", os.path.basename(command)])
        return _python_of(real) if real and real != command else None
    return None


def _has_commander(python: str) -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('keepercommander') is None)"
    return _output([python, "-c", code]) is not None


def _output(command: list[str]) -> str | None:
    """Return what a command prints, None where it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(done.stdout).strip() if done.returncode == 0 else None


if __name__ == "__main__":
    try:
        sys.stdout.write(find(*sys.argv[1:2]) + "\n")
    except NotFound as problem:
        raise SystemExit(str(problem)) from None
