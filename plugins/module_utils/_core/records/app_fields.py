# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The custom fields of an application's record: their labels, types, and the values that they may hold."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..base.errors import BadInput
from ..base.labels import find_all, text_of
from ..base.redact import Log
from ..base.timing import Budget
from ..services.vault import Vault, VaultRecord
from .editing import READ, Step, must_be_editable, read_one, settle

# Made where they are missing, even without a value: the rotation writes them.
PUBLISHED = ("client_secret_id", "client_secret", "expires")
TYPES = {
    "application_object_id": "text",
    "client_secret_id": "text",
    "client_secret": "secret",
    "expires": "text",
    "tenant_id": "text",
    "application_client_id": "text",
    "lifetime_days": "text",
    "keep_previous": "text",
    "retire": "text",
    "retire_after": "text",
    "adopt": "text",
    "verify": "text",
    "verify_timeout": "text",
}
# Field types between which a value can be carried over as it is.
_TEXTUAL = ("text", "secret", "multiline", "password", "note")
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TENANT = re.compile(_GUID.pattern + r"|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_PATTERNS = {
    "application_object_id": (_GUID, "a GUID"),
    "application_client_id": (_GUID, "a GUID"),
    "client_secret_id": (_GUID, "a GUID"),
    "tenant_id": (_TENANT, "a GUID or a domain"),
}


@dataclass(frozen=True)
class Result:
    """The fields that were, or (in check mode) would be changed, with what was said of them before and after."""

    changed: bool
    title: str
    before: dict[str, str]
    after: dict[str, str]


def check_values(values: Mapping[str, str]) -> None:
    """Raise BadInput for a value that the rotation could not use."""
    for label, (pattern, what) in _PATTERNS.items():
        if values.get(label) and not pattern.fullmatch(values[label]):
            raise BadInput(f"{label} is {values[label]!r}", f"it must be {what}", "copy it from the Entra admin center")


def ensure(vault: Vault, uid: str, values: Mapping[str, str], budget: Budget, log: Log, check: bool = False) -> Result:
    """Bring the fields to their values and types; others stay as they are. Raises BadInput, Refused, HalfDone.

    Values for the published fields are only the first ones: what a rotation has published since is never undone.
    """

    def read() -> VaultRecord:
        return read_one(vault, uid, ("pamUser",))

    def look() -> tuple[VaultRecord, Step]:
        record = waiting.pop() if waiting else read()
        data = with_fields(record.data, record.uid, values)
        if data == record.data:
            return record, None
        must_be_editable(record)
        log.say("saving the record")
        return record, lambda: vault.save(replace(record, data=data))

    with budget.phase("read the record", READ):
        first = read()
    wanted = with_fields(first.data, uid, values)
    result = Result(wanted != first.data, first.title, shown(first.data), shown(wanted))
    if result.changed:
        must_be_editable(first)
    if check or not result.changed:
        return result
    waiting = [first]
    settle(look, budget, log, lambda: read().data == first.data)
    log.say("read back: the record is as wanted")
    return result


def with_fields(record_data: Mapping[str, Any], uid: str, values: Mapping[str, str]) -> dict[str, Any]:
    """Return the record's data with the fields; an equal copy where nothing differs. Pure. Raises BadInput."""
    data = copy.deepcopy(dict(record_data))
    if not isinstance(data.get("custom"), list):
        data["custom"] = []
    for label, kind in TYPES.items():
        value = values.get(label, "")
        if not value and label not in PUBLISHED:
            continue
        one = _found(data, label)
        if len(_all_found(data, label)) > 1:
            raise BadInput(
                f"several fields of the record {uid} match {label} equally well",
                todo="remove or rename all but one of them",
            )
        if one is None:
            one = {"type": kind, "label": label, "value": []}
            data["custom"].append(one)
        if one.get("type") != kind:
            if one.get("type") not in _TEXTUAL or one not in data["custom"]:
                raise BadInput(
                    f"the field {label} of the record {uid} is of type {one.get('type')}",
                    f"it must be of type {kind}",
                    "remove it in the vault: it is then made anew",
                )
            one["type"] = kind
        present = text_of(one.get("value"))
        if value and present != value and not (present and label in PUBLISHED):
            one["value"] = [value]
    return data if _changes(record_data, data) else dict(record_data)


def value_of(data: Mapping[str, Any], label: str) -> str:
    """Return the value of the field of that label as text; empty where there is none."""
    one = _found(data, label)
    return text_of(one.get("value")) if one is not None else ""


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return dict(before, custom=before.get("custom") or []) != dict(after)


def _found(data: Mapping[str, Any], label: str) -> dict[str, Any] | None:
    """Return the field of that label, the custom ones first, as the rotation finds it."""
    return next(iter(_all_found(data, label)), None)


def _all_found(data: Mapping[str, Any], label: str) -> list[dict[str, Any]]:
    """Return the fields that match the label best; more than one is a tie."""
    items = [one for part in ("custom", "fields") for one in data.get(part) or [] if isinstance(one, dict)]
    return [items[index] for index in find_all([one.get("label") for one in items], label)]


def shown(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields as a diff may show them: never a secret's value."""
    found = {}
    for label in TYPES:
        one = _found(data, label)
        if one is not None:
            value = text_of(one.get("value"))
            hidden = label == "client_secret" or one.get("type") in ("secret", "password")
            found[label] = f"{one.get('type')}: {'(set)' if value and hidden else value or '(empty)'}"
    return found
