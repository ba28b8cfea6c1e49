# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The survey for people: what stands in each cell of the page, in which nothing is escaped yet."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UID = re.compile(r"[A-Za-z0-9_-]{22}")
_SECRETS_BLADE = "#view/Microsoft_AAD_RegisteredApps/ApplicationMenuBlade/~/Credentials/appId/"
_RECORD = "/vault/#detail/"
# What a rotation calls its secrets says nothing that the state and the record do not say.
_OURS = "keeper/"
# What each bucket means, worst first.
BUCKETS = {
    "critical": "fails by now: what a record shows has expired, or is not in Entra",
    "expiring": "ends soon, with nothing in its place",
    "attention": "somebody should look at it",
    "healthy": "nothing to do",
}
# The states in words, as far as their names are not words already.
_STATES = {"other_record": "another record's", "unknown": "unknown to Keeper", "missing": "missing in Entra"}


def page(survey: Mapping[str, Any], script: str) -> dict[str, Any]:
    """Return what the template of the page shows of a survey. ``script`` is the one that it allows, by its hash."""
    portal, vault = str(survey.get("portal", "")), str(survey.get("vault", ""))
    digest = hashlib.sha256(script.encode()).digest()
    return {
        "read_at": str(survey.get("read_at", "")),
        "buckets": [(name, survey["buckets"].get(name, 0), meaning) for name, meaning in BUCKETS.items()],
        "applications": survey["applications"],
        "records": survey["records"],
        "left_out": survey["left_out"],
        "down": [f"{one['name'].replace('_', ' ')}: {one['problem']}" for one in survey["sources"] if not one["up"]],
        "problems": [_problem(one, vault) for one in survey["problems"]],
        "rows": [_row(one, portal, vault) for one in survey["credentials"]],
        "script": script,
        "script_hash": base64.b64encode(digest).decode(),
    }


def _row(one: Mapping[str, Any], portal: str, vault: str) -> dict[str, Any]:
    client_id, name = str(one["client_id"]), str(one["name"])
    records = [_record(record["uid"], record["title"], vault) for record in one["records"]]
    return {
        "bucket": one["bucket"],
        "application": one["application"] or one["object_id"],
        "client_id": client_id,
        "link": portal + "/" + _SECRETS_BLADE + client_id if portal and _GUID.fullmatch(client_id) else "",
        "state": _state(one),
        "key_id": one["key_id"],
        "name": "" if name.startswith(_OURS) else name,
        "days": "" if one["days_left"] is None else str(one["days_left"]),
        "end": str(one["end"])[:10],
        "records": records,
        "notes": _notes(one),
    }


def _state(one: Mapping[str, Any]) -> str:
    state = _STATES.get(one["state"], str(one["state"]))
    if one["kind"] != "secret" and one["kind"] != one["state"]:
        state += ", " + str(one["kind"]).replace("_", " ")
    return state + (", of its service principal" if one["of"] == "service_principal" else "")


def _notes(one: Mapping[str, Any]) -> list[str]:
    """Return what is to be done, and what else is remarkable."""
    flags: Sequence[str] = one["flags"]
    notes = [one["todo"]] if one["todo"] else []
    notes += ["another one takes its place"] if "successor" in flags and one["bucket"] != "healthy" else []
    notes += ["too old"] if "over_age" in flags else []
    notes += ["several records name the application"] if "several_records" in flags else []
    notes += [f"removed by a run from {str(one['until'])[:16].replace('T', ' ')} on"] if one["until"] else []
    notes += [one["reason"]] if one["reason"] and one["state"] != "previous" else []
    if "owners" in one:
        notes.append("owners: " + ", ".join(one["owners"]) if one["owners"] else "no owner")
    return notes


def _record(uid: str, title: str, vault: str) -> dict[str, str]:
    link = vault + _RECORD + uid if vault and _UID.fullmatch(uid) else ""
    return {"title": title or uid, "link": link}


def _problem(one: Mapping[str, Any], vault: str) -> dict[str, str]:
    return {**_record(str(one["record"]), str(one["title"]), vault), "text": str(one["problem"])}
