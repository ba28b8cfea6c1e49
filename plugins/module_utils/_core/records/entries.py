# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The PAM Scripts in a record's data: entries of its fields of type ``script``. Pure, whoever saves the record."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any


def fields_of(data: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return the fields of a type; a value that is no list becomes one."""
    found = []
    for section in ("fields", "custom"):
        for one in data.get(section) or []:
            if isinstance(one, dict) and one.get("type") == kind:
                value = one.get("value")
                if not isinstance(value, list):
                    one["value"] = [value] if value else []
                found.append(one)
    return found


def entries(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of all script fields, in order. They are known by type: the label varies by creator."""
    return [item for one in fields_of(data, "script") for item in one["value"] if isinstance(item, dict)]


def append(data: dict[str, Any]) -> dict[str, Any]:
    """Add an entry after the others, and return it; the field is made where it is missing."""
    found = fields_of(data, "script")
    if not found:
        found = [{"type": "script", "label": "rotationScripts", "value": []}]
        data.setdefault("fields", []).extend(found)
    entry: dict[str, Any] = {"fileRef": "", "recordRef": [], "command": ""}
    found[0]["value"].append(entry)
    return entry


def fill(entry: dict[str, Any], uid: str, command: str | None, credentials: Sequence[str] | None) -> None:
    """Point an entry to a file; None as command or credentials leaves them be."""
    entry["fileRef"] = uid
    if command is not None:
        entry["command"] = command
    # Their order means nothing: Commander itself stores them as a set.
    present: Sequence[str] = entry.get("recordRef") or []
    if credentials is not None and set(present) != set(credentials):
        entry["recordRef"] = list(credentials)


def remove(data: Mapping[str, Any], gone: Sequence[dict[str, Any]], files: Sequence[str]) -> None:
    """Take these very entries out, and these files off the list of attachments."""
    dropped = {id(item) for item in gone}
    for one in fields_of(data, "script"):
        one["value"] = [item for item in one["value"] if id(item) not in dropped]
    for one in fields_of(data, "fileRef"):
        one["value"] = [uid for uid in one["value"] if uid not in files]


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records' data say the same."""
    return _normal(one) == _normal(other)


def _normal(data: Mapping[str, Any]) -> str:
    """Return the data as text, in which a missing value and an empty one are the same."""
    plain = copy.deepcopy(dict(data))
    for kind in ("script", "fileRef"):
        fields_of(plain, kind)
    return json.dumps(plain, sort_keys=True)
