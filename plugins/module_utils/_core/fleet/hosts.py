# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The records of applications that a vault holds: what may be said of each, and how its secret stands at some time.

Pure: nothing here reads a clock or a vault. An entry is JSON data without secrets, which a cache may keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Union

from ..base.errors import BadInput
from ..base.redact import foreign
from ..rotation.deciding import hint_of
from ..rotation.policy import Policy, policy_of
from ..rotation.publishing import FIELD_APPLICATION, FIELD_EXPIRES, FIELD_KEY_ID, FIELD_SECRET, LABELS
from ..services.application import format_time, guid, parse_time
from ..services.vault import Folder, VaultRecord

#: How a record's secret may stand. ``broken``: its rotation would be refused, or its end cannot be read.
STATES = ("expired", "expiring", "healthy", "never_rotated", "broken")
#: The version of the form of entries: what was kept in another one is read anew.
FORM = 1
_TUNING = ("lifetime_days", "keep_previous", "retire", "adopt", "verify", "verify_timeout")
Value = Union[str, int, bool, list[str]]


def entries_of(records: Iterable[VaultRecord], folders: Mapping[str, Folder]) -> list[dict[str, Any]]:
    """Return an entry for each PAM User record that names an application, by title and uid.

    An entry has ``uid``, ``title``, ``folder_uid``, ``folder`` (the path of names, empty where they are not known),
    ``above`` (the uids of its folder and of all above), ``fields`` (what may be said of the record's own), ``holds``
    (whether it shows a whole secret) and ``problem`` (why its rotation would be refused, else empty).
    """
    wanted = [one for one in records if one.type == "pamUser" and one.value(FIELD_APPLICATION)]
    return [_entry(one, folders) for one in sorted(wanted, key=lambda one: (one.title.casefold(), one.uid))]


def _entry(record: VaultRecord, folders: Mapping[str, Folder]) -> dict[str, Any]:
    fields: dict[str, Value] = {}
    problem = ""
    try:
        _refuse_ties(record)
        fields = _fields(record)
    except BadInput as refusal:
        problem = foreign(refusal.message)
    return {
        "uid": record.uid,
        "title": foreign(record.title),
        "folder_uid": record.folder_uid,
        "folder": _path(record.folder_uid, folders),
        "above": _above(record.folder_uid, folders),
        "fields": fields,
        "holds": bool(hint_of(record.secret(FIELD_SECRET))) and {FIELD_KEY_ID, FIELD_EXPIRES} <= set(fields),
        "problem": problem,
    }


def _above(uid: str, folders: Mapping[str, Folder]) -> list[str]:
    found: list[str] = []
    while uid and uid not in found:
        found.append(uid)
        uid = folders[uid].parent if uid in folders else ""
    return found


def paths_of(folders: Mapping[str, Folder]) -> dict[str, str]:
    """Return the path of each folder, the names from the shared folder down, by its uid."""
    return {uid: _path(uid, folders) for uid in folders}


def _path(uid: str, folders: Mapping[str, Folder]) -> str:
    return "/".join(folders[one].name or one for one in reversed(_above(uid, folders)) if one in folders)


def _refuse_ties(record: VaultRecord) -> None:
    for label in LABELS:
        tied = record.tied(label)
        if tied:
            what = f"several fields of the record match {label} equally well: {' and '.join(tied)}"
            raise BadInput(what, todo="remove or rename all but one of them")


def _fields(record: VaultRecord) -> dict[str, Value]:
    """Return what the fields hold, each only where it is what such a field holds. Raises BadInput."""
    found: dict[str, Value] = {}
    for label in (FIELD_APPLICATION, "application_client_id", FIELD_KEY_ID):
        known = guid(record.value(label))
        if known:
            found[label] = known
    if FIELD_APPLICATION not in found:
        raise BadInput(f"{FIELD_APPLICATION} is no GUID", todo="copy the object id from the Entra admin center")
    text = record.value(FIELD_EXPIRES)
    end = parse_time(text)
    if end is not None:
        found[FIELD_EXPIRES] = format_time(end)
    elif text:
        raise BadInput(f"{FIELD_EXPIRES} is no date that can be read", todo="rotate it, or empty the field")
    policy = policy_of(record.view())
    values: dict[str, Value] = {name: _plain(policy, name) for name in _TUNING if record.value(name)}
    if record.value("retire_after"):
        values["retire_after"] = record.value("retire_after")
    return {**found, **values}


def _plain(policy: Policy, name: str) -> Value:
    value: Value | tuple[str, ...] = getattr(policy, name)
    return list(value) if isinstance(value, tuple) else value


def within(entries: Sequence[dict[str, Any]], paths: Mapping[str, str], folders: Sequence[str]) -> list[dict[str, Any]]:
    """Return the entries that lie in one of the folders, or below it; all where none is named.

    A folder is named by its uid, its path, or a part of that; ``paths`` are those of all folders by uid. Raises
    BadInput for a name of no folder: it would leave out records without a word.
    """
    wanted = [name.strip().strip("/") for name in folders]
    if not wanted:
        return list(entries)
    found = {name: {uid for uid, path in paths.items() if name == uid or _is_part(name, path)} for name in wanted}
    unknown = [name for name in wanted if not found[name]]
    if unknown:
        known = ", ".join(map(repr, sorted(paths.values()))) or "none"
        what = f"there is no folder {' nor '.join(map(repr, unknown))}"
        raise BadInput(what, f"the KSM application sees {known}", "correct the option folders")
    uids = set().union(*found.values())
    return [one for one in entries if not uids.isdisjoint(one["above"])]


def _is_part(name: str, path: str) -> bool:
    return bool(name) and f"/{name}/" in f"/{path}/"


def state_of(entry: Mapping[str, Any], now: datetime, min_days_left: int) -> tuple[str, int | None]:
    """Return which of STATES a record is in, and the whole days that its secret is still valid (negative: since when it
    is not); None where no end is known.

    Expiring is what a run with ``rotate: expiring`` and the same ``min_days_left`` would rotate.
    """
    end = parse_time(entry["fields"].get(FIELD_EXPIRES))
    left = None if end is None else (end - now) // timedelta(days=1)
    if entry["problem"]:
        return "broken", left
    if end is None or not entry["holds"]:
        return "never_rotated", left
    if end <= now:
        return "expired", left
    return "expiring" if end - now < timedelta(days=min_days_left) else "healthy", left


def variables_of(entry: Mapping[str, Any], now: datetime, min_days_left: int) -> dict[str, Any]:
    """Return what a host of an inventory knows of its record."""
    state, left = state_of(entry, now, min_days_left)
    found = {name: entry[name] for name in ("title", "folder", "folder_uid")}
    found.update(entry["fields"], record=entry["uid"], state=state)
    if left is not None:
        found["days_left"] = left
    if entry["problem"]:
        found["problem"] = entry["problem"]
    return {f"keeper_{name}": value for name, value in found.items()}
