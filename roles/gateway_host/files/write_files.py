# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write files whole or not at all, each in one step; nothing secret passes through another file or a command line.

The role hands this file to the Python that runs Ansible's modules on stdin, with a call of `main` at its end. That one
may be as old as 3.6 (RHEL 8).
"""

# ruff: noqa: FA100, UP006, UP035

import json
import os
import stat
from typing import List, Optional


def differs(path: str, content: Optional[str], mode: int) -> bool:
    """Whether a file is another than it should be; without content it should not be there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return content is None or file.read() != content or stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode
    except OSError:
        return content is not None or os.path.lexists(path)


def write(path: str, content: str, mode: int) -> None:
    """Put a file of root's in its place."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    aside = f"{path}.{os.getpid()}"
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise


def main(text: str) -> None:
    """Write `files` (`path`, `content` as lines, `mode` in octal), or with `check` only say which would be.

    One without content is removed.
    """
    settings = json.loads(text)
    os.umask(0o022)
    changed: List[str] = []
    for wanted in settings["files"]:
        path, mode = wanted["path"], int(wanted["mode"], 8)
        lines = wanted["content"].strip("\n")
        content = lines + "\n" if lines else None
        if differs(path, content, mode):
            changed.append(path)
            if settings["check"]:
                continue
            if content is None:
                os.unlink(path)
            else:
                write(path, content, mode)
    print(json.dumps({"changed": bool(changed), "files": changed}))
