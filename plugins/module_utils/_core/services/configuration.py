# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text of a Keeper configuration: the file that it is in, and what people give in its place."""

from __future__ import annotations

import errno
import os
import re

from ..base.encoded import CUT_OFF, IS_JSON, is_utf_16, mistake
from ..base.errors import BadInput
from ..base.redact import remember

INITIALISED = "use the configuration of a device or Gateway that has been initialised"
_LARGEST = 64 * 1024 * 1024
# REGION:token or host:token, https://docs.keeper.io/secrets-manager
_ONE_TIME = re.compile(r"[\w.-]+:[\w-]{40,}={0,2}(?::.*)?")
# https://docs.keeper.io/en/keeperpam/secrets-manager/secrets-manager-command-line-interface/profile-command
_INI = re.compile(r"(?m)^\s*\[[\w.-]+\]\s*$")
_MANIFEST = re.compile(r"(?m)^apiVersion:\s")
_FILE_NAME = re.compile(r"(?:~?/|[A-Za-z]:\\|\.{1,2}/)\S*|\S+\.(?:json|ini|ya?ml)")


def read_configuration(path: str) -> str:
    """Return the text of the file; it is read once and never opened for writing. Raises BadInput."""
    if mistake(path.encode("utf-8", "replace")) in (IS_JSON, CUT_OFF):
        remember(path)
        what = "the path of the Keeper configuration is none"
        raise BadInput(what, "it is the configuration itself", "use the variable or option for its text")
    try:
        with open(os.path.expanduser(path), "rb") as file:
            data = file.read(_LARGEST)
        if not is_utf_16(data):
            return data.decode("utf-8-sig")
        why, todo = mistake(data)
    except UnicodeDecodeError:
        why, todo = "it is no text", "export the configuration again, as JSON or base64"
    except (OSError, ValueError) as problem:
        code = getattr(problem, "errno", None)
        why = getattr(problem, "strerror", None) or str(problem)
        todo = "run it as the Gateway's user, or let that user read the file"
        if path.startswith(("'", '"')):
            why, todo = "there are quotes around the path", "name it without the quotes"
        elif code == errno.EISDIR:
            why, todo = "it is a folder", "name a file in it"
        elif code not in (errno.EACCES, errno.EPERM):
            todo = "correct the path"
    raise BadInput(f"the Keeper configuration {path} cannot be read", why, todo)


def instead(text: str, decoded: str) -> tuple[str, str]:
    """Return what was given in place of a configuration, and the next step; empty texts for no idea.

    ``decoded`` is what the text holds where it is base64, else the text itself.
    """
    for each in (text, decoded):
        if _ONE_TIME.fullmatch(each.strip()):
            return (
                "it is a one-time token, which a device redeems once, and keeps the configuration that it gets for it",
                INITIALISED,
            )
        if _INI.search(each):
            return "it is a keeper.ini of the ksm command", "use what ksm profile export gives"
        if _MANIFEST.search(each):
            return "it is a manifest of Kubernetes", "use the value that stands under data, alone"
    found = mistake(text.encode("utf-8", "replace"))
    if not any(found) and _FILE_NAME.fullmatch(text):
        return "it is the path of a file", "use the variable or option for a path, or give the file's content"
    return found
