# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the module's options to what is wanted: everything that can be refused without a look is refused here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .._core.base.errors import BadInput
from .._core.base.labels import Labelled
from .._core.base.redact import remember
from .._core.records.app_fields import TYPES, check_values
from .._core.records.attachments import LARGEST, Script
from .._core.rotation.policy import foresight, policy_of
from . import schedule
from .model import Wanted, WantedConfig, WantedRecord

_UID = re.compile(r"[A-Za-z0-9_-]{22}")
#: The labels that Commander gives to the fields of a PAM configuration, by the options' names.
CONFIG_LABELS = {
    "azure": {
        "azure_id": "azureId",
        "tenant_id": "tenantId",
        "client_id": "clientId",
        "client_secret": "clientSecret",
        "subscription_id": "subscriptionId",
        "resource_groups": "resourceGroups",
    },
    "local": {"network_id": "networkId", "network_cidr": "networkCIDR"},
}
SHARED = ("folder", "application", "gateway", "pam_config")


def wanted(params: Mapping[str, Any]) -> Wanted:
    """Return what the options describe. Raises BadInput."""
    present = params["state"] == "present"
    records = tuple(_record(one) for one in params["records"])
    if not records:
        raise BadInput("no record is named", todo="name at least one in records")
    names = [one.uid or one.title for one in records]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BadInput(f"the record {twice[0]} is named twice", todo="name it once")
    script = _script(params, present)
    schedule.check(params["schedule"] or "")
    if not present:
        return Wanted(False, script, records)
    missing = [name for name in SHARED if not params[name]]
    if missing:
        raise BadInput(f"{' and '.join(missing)} must be given with state present")
    for name in SHARED[:3]:
        _plain(name, params[name])
    return Wanted(
        True,
        script,
        records,
        params["folder"],
        params["application"],
        params["gateway"],
        os.path.expanduser(params["gateway_config_file"] or ""),
        _config(params["pam_config"]),
        params["schedule"] or "",
    )


def foreseen(want: Wanted) -> list[str]:
    """Return what should be known beforehand of the records' policies."""
    found = []
    for one in want.records:
        policy = policy_of(Labelled(one.uid, one.title, one.values.items()))
        found += [f"{one.name}: {text}" for text in foresight(policy)]
    return found


def _plain(what: str, text: str) -> None:
    if not text.strip() or text != text.strip() or not text.isprintable():
        raise BadInput(
            f"{what} is {text!r}", "it begins or ends with a blank, or holds what cannot be printed", "correct it"
        )


def _uids(what: str, uids: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(uids))
    for uid in found:
        if not _UID.fullmatch(uid):
            raise BadInput(f"{uid!r} in {what} is no uid", todo="copy the uid of the record from the vault")
    return found


def _record(one: Mapping[str, Any]) -> WantedRecord:
    uid, title = one["uid"] or "", one["title"] or ""
    if not uid and not title:
        raise BadInput("a record has neither uid nor title", todo="give one of the two")
    if uid:
        _uids("records", [uid])
    else:
        _plain("a title in records", title)
    values = {label: _text(one[label]) for label in TYPES if one.get(label) not in (None, "", [])}
    if values.get("client_secret"):
        remember(values["client_secret"])
    try:
        check_values(values)
        policy_of(Labelled(uid, title, values.items()))
    except BadInput as problem:
        raise BadInput(f"the record {title or uid}: {problem.what}", problem.why, problem.todo) from None
    return WantedRecord(uid, title, one["login"] or "", values)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _config(given: Mapping[str, Any]) -> WantedConfig:
    title, environment = given["title"] or "", given["environment"] or ""
    _plain("the title of pam_config", title)
    values = {}
    for kind, labels in CONFIG_LABELS.items():
        for name, label in labels.items():
            value = given.get(name)
            if value in (None, "", []):
                continue
            if environment and kind != environment:
                raise BadInput(
                    f"pam_config has {name}", f"that is not for the environment {environment}", "leave it out"
                )
            values[label] = "\n".join(value) if isinstance(value, list) else str(value)
    if values.get("clientSecret"):
        remember(values["clientSecret"])
    if bool(values.get("clientId")) != bool(values.get("clientSecret")) and environment == "azure":
        raise BadInput(
            "pam_config has one of client_id and client_secret",
            "without both, the Gateway signs in with its managed identity",
            "give both, or none",
        )
    if environment:
        values.setdefault({"azure": "azureId", "local": "networkId"}[environment], title)
    return WantedConfig(title, environment, values)


def _script(params: Mapping[str, Any], present: bool) -> Script:
    path = params["script"]
    name = os.path.basename(path)
    credentials = None if params["credentials"] is None else _uids("credentials", params["credentials"])
    if not present:
        return Script(name, None)
    try:
        with open(os.path.expanduser(path), "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as problem:
        raise BadInput(f"the script {path} cannot be read", problem.strerror or "", "check the path") from None
    if not content.strip() or len(content) > LARGEST:
        raise BadInput(
            f"the script {path} is empty or has more than {LARGEST} bytes", todo="name the file of the script"
        )
    return Script(name, content, params["script_command"], credentials)
