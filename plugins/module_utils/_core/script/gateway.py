# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Keeper Gateway's side of a PAM Script: what it passes on stdin, and where its own configuration is."""

from __future__ import annotations

import binascii
import codecs
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from ..base.encoded import decode, mistake
from ..base.errors import BadInput
from ..base.labels import Labelled, text_of
from ..base.redact import bounded
from ..services.configuration import read_configuration
from ..services.secrecy import learn

RUN_BY_GATEWAY = "let the Gateway run the script, or pass it the line that the Gateway does"
_LONGEST = 64 * 1024 * 1024
# Where programs wrap base64. A line of the Gateway's is longer.
_WIDTHS = range(57, 101)
# Text in the variable itself, or the path of a file; first that is there.
_VARIABLES = (
    ("GATEWAY_CONFIG", False),
    ("GATEWAY_CONFIG_PATH", True),
    ("KSM_CONFIG", False),
    ("KSM_CONFIG_FILE", True),
)
_FILES = ("/etc/keeper-gateway/gateway-config.json", "~/.keeper/gateway-config.json")


@dataclass(frozen=True)
class Request:
    """What the Gateway asks for. The passwords that it also passes are of no use here and are not kept."""

    user_uid: str
    provider_uid: str
    records: tuple[Labelled, ...]

    def configuration(self) -> Labelled | None:
        """Return the PAM configuration, where it was passed."""
        return next((record for record in self.records if record.uid and record.uid == self.provider_uid), None)

    def attached(self) -> tuple[Labelled, ...]:
        """Return the records attached to the script: neither the application's own nor the PAM configuration."""
        return tuple(record for record in self.records if record.uid not in ("", self.user_uid, self.provider_uid))


def read_request(stream: IO[bytes]) -> Request:
    """Read the Gateway's line: base64 of a JSON object whose ``records`` is base64 of a JSON array.

    https://docs.keeper.io/keeperpam/privileged-access-manager/password-rotation/post-rotation-scripts/parameters.
    A record's keys are the labels of its fields, else their types. Raises BadInput.
    """
    line = b""
    while not line.strip():
        line = stream.readline(_LONGEST)
        if not line:
            raise BadInput("stdin is empty", todo=RUN_BY_GATEWAY)
    message = _decode(line, "stdin")
    if not isinstance(message, dict):
        raise BadInput("stdin holds no JSON object", todo=RUN_BY_GATEWAY)
    missing = [key for key in ("userRecordUid", "records") if key not in message]
    if missing:
        raise BadInput("stdin lacks " + " and ".join(missing), todo=RUN_BY_GATEWAY)
    records = message["records"]
    if not isinstance(records, str):
        raise BadInput("records on stdin is no text", todo=RUN_BY_GATEWAY)
    items = _decode(records.encode("ascii", "replace"), "records on stdin") if records.strip() else []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadInput("records on stdin is no JSON array of objects", todo=RUN_BY_GATEWAY)
    learn((key, key, value) for item in (message, *items) for key, value in item.items())
    return Request(
        _uid(message, "userRecordUid", required=True),
        _uid(message, "providerRecordUid", required=False),
        tuple(_labelled(item) for item in items),
    )


def _decode(data: bytes, what: str) -> Any:
    text = data.strip()
    if text.startswith(codecs.BOM_UTF8):  # PowerShell may put a byte order mark in front
        text = text[len(codecs.BOM_UTF8) :]
    why, todo = mistake(data)
    try:
        decoded = decode(text)
    except (ValueError, binascii.Error):
        raise BadInput(f"{what} is no base64", why, todo or RUN_BY_GATEWAY) from None
    try:
        return json.loads(decoded.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        if decoded.startswith(b"{") and len(text) in _WIDTHS:
            why, todo = "it is wrapped over lines, the first was read", "pass one line, as base64 -w0 writes it"
        raise BadInput(f"{what} is base64, but not of JSON", why, todo or RUN_BY_GATEWAY) from None


def _uid(message: Mapping[str, Any], key: str, required: bool) -> str:
    value = message.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value.strip()):
        raise BadInput(f"{key} on stdin is no record uid", todo=RUN_BY_GATEWAY)
    return value.strip()


def _labelled(item: Mapping[str, Any]) -> Labelled:
    pairs = [(str(key), value) for key, value in item.items() if key not in ("uid", "title")]
    return Labelled(text_of(item.get("uid")), bounded(text_of(item.get("title"))), pairs)


def find_configuration(environ: Mapping[str, str], read: Callable[[str], str] | None = None) -> tuple[str, str]:
    """Return the text of the Gateway's configuration, and where it was found.

    It is read once and never opened for writing. The first source that is there counts: one that is there but cannot
    be read is an error, no reason to go on to the next. Raises BadInput.
    """
    read = read or read_configuration
    for name, is_path in _VARIABLES:
        value = environ.get(name, "").strip()
        if value:
            return (read(value), f"{value} ({name})") if is_path else (value, name)
    looked: list[str] = []
    for path in _FILES:
        full = os.path.expanduser(path)
        if not full.startswith("~") and _is_there(full):
            return read(full), full
        looked.append(path)
    raise BadInput(
        "no Keeper configuration was found",
        "looked at " + ", ".join([name for name, is_path in _VARIABLES] + looked),
        "set GATEWAY_CONFIG_PATH to the Gateway's configuration file",
    )


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        return True  # in a folder that this user may not enter: worth an error, not silence
    except OSError:
        return False
    return True
