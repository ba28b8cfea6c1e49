# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file with a new Gateway's configuration: nobody can be asked for it a second time.

It is written before Keeper hears of the Gateway: base64 of a Secrets Manager configuration with a one-time token in it
(``clientKey``). Once the token is used up, the file is replaced in one step by the configuration for good. Whoever is
interrupted in between finds it, and goes on.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from typing import Any

from .._core.base.errors import Refused
from .model import Keys


def look(path: str) -> Keys:
    """Return what is at the path, and why a new file cannot be written there."""
    if not path:
        return Keys()
    try:
        content = read(path)
    except FileNotFoundError:
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            return Keys(problem=f"there is no directory {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            return Keys(problem=f"the directory {folder} is not writable for this user")
        return Keys()
    except OSError as problem:
        return Keys(exists=True, problem=problem.strerror or "it cannot be read")
    unbound = bool(content.get("clientKey") and content.get("clientId") and content.get("privateKey"))
    why = "" if unbound else "the file exists: it may be another Gateway's configuration"
    return Keys(True, unbound, str(content.get("clientId", "")), why)


def read(path: str) -> dict[str, Any]:
    """Return the configuration in the file, empty for anything else. Raises OSError."""
    with open(path, "rb") as file:
        text = file.read(65536)
    try:
        found = json.loads(base64.b64decode(text.strip(), validate=True))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def write_new(path: str, content: dict[str, Any]) -> None:
    """Write the file, which must not be there; only its owner can read it. Raises Refused."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            _put(file, content)
    except OSError as problem:
        why = problem.strerror or type(problem).__name__
        raise Refused(f"the configuration of the new Gateway cannot be kept in {path}", why, "see to that") from None


def replace(path: str, content: dict[str, Any]) -> None:
    """Replace the file, in one step. Raises Refused."""
    aside = ""
    try:
        handle, aside = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path) or ".")
        with os.fdopen(handle, "wb") as file:  # mkstemp makes it with mode 0600
            _put(file, content)
        os.replace(aside, path)
    except OSError as problem:
        if aside and os.path.exists(aside):
            os.unlink(aside)
        why = problem.strerror or type(problem).__name__
        raise Refused(f"the configuration of the Gateway in {path} cannot be completed", why, "run it again") from None


def _put(file: Any, content: dict[str, Any]) -> None:
    file.write(base64.b64encode(json.dumps(content).encode()) + b"\n")
    file.flush()
    os.fsync(file.fileno())
