# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is planned and what is refused, of looks at a vault that are made up."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._commander import look
from ansible_collections.keeperpam.azure.plugins.module_utils._commander.model import (
    Attachment,
    Gateway,
    Keys,
    Record,
    Rotation,
    Seen,
    Wanted,
    WantedConfig,
    WantedRecord,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._commander.plan import plan
from ansible_collections.keeperpam.azure.plugins.module_utils._commander.schedule import as_json
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput, Refused
from ansible_collections.keeperpam.azure.plugins.module_utils._core.records.app_fields import with_fields
from ansible_collections.keeperpam.azure.plugins.module_utils._core.records.attachments import Script, digest

GUID = "ec64d6ec-23f2-4391-ac66-58e4b52472f2"
FOLDER, OTHER, APP, GATEWAY, CONFIG, USER, FILE, NESTED = (letter * 22 for letter in "ABCDEFGH")
CONTENT = b"print(1)\n"
VALUES = {"tenantId": "contoso.com", "subscriptionId": GUID}
WANTED = Wanted(
    True,
    Script("rotate.py", CONTENT, "python3"),
    (WantedRecord("", "billing-api", "", {"application_object_id": GUID}),),
    "Azure applications",
    "Azure rotation",
    "gateway-1",
    "/root/gateway.b64",
    WantedConfig("Azure production", "azure", VALUES),
)


def text(label: str, value: str) -> dict[str, Any]:
    return {"type": "text", "label": label, "value": [value]}


RESOURCE = {"type": "pamResources", "value": [{"controllerUid": GATEWAY, "folderUid": FOLDER, "resourceRef": []}]}
ENTRY = {"fileRef": FILE, "command": "python3", "recordRef": []}
DATA = with_fields(
    {
        "title": "billing-api",
        "type": "pamUser",
        "fields": [{"type": "fileRef", "value": []}, {"type": "script", "value": [ENTRY]}],
    },
    USER,
    {"application_object_id": GUID},
)
RECORD = Record(USER, "billing-api", "pamUser", DATA, folders=frozenset({FOLDER}))
CONFIGURATION = Record(
    CONFIG,
    "Azure production",
    "pamAzureConfiguration",
    {"title": "Azure production", "fields": [RESOURCE, *(text(*one) for one in VALUES.items())], "custom": []},
    folders=frozenset({FOLDER}),
)
#: Everything as wanted.
SEEN = Seen(
    "admin@example.com",
    {FOLDER: "Azure applications", OTHER: "Elsewhere"},
    {APP: "Azure rotation"},
    {FOLDER: True},
    frozenset(),
    (Gateway(GATEWAY, "gateway-1", APP),),
    {USER: RECORD, CONFIG: CONFIGURATION},
    GATEWAY,
    True,
    None,
    frozenset({USER}),
    {USER: Rotation(CONFIG, as_json("on-demand"))},
    {FILE: Attachment(FILE, "rotate.py", "rotate.py", digest(CONTENT))},
    frozenset({(USER, FILE)}),
)


def kinds(wanted: Wanted, seen: Seen) -> list[str]:
    """The steps, in their order."""
    steps = plan(wanted, seen).steps
    assert [one.stage for one in steps] == sorted(one.stage for one in steps)
    return [one.kind for one in steps]


def moved(seen: Seen, *folders: str, **grants: bool) -> Seen:
    """That look, with the record in other folders, and with other grants."""
    record = replace(RECORD, folders=frozenset(folders))
    return replace(seen, records={**seen.records, USER: record}, grants={**seen.grants, **grants})


def test_where_all_is_as_wanted_there_is_nothing_to_do() -> None:
    done = plan(WANTED, SEEN)
    assert done.steps == ()
    uids = done.uids
    assert (uids.folder, uids.application, uids.gateway, uids.config) == (FOLDER, APP, GATEWAY, CONFIG)
    assert uids.records == (USER,)


def test_of_nothing_everything_is_made() -> None:
    made = ["folder", "application", "grant", "gateway", "config", "record", "rotation", "script"]
    assert kinds(WANTED, Seen()) == made


def test_names_and_uids_mean_the_same() -> None:
    named = replace(WANTED, folder=FOLDER, application=APP, gateway=GATEWAY, config=WantedConfig(CONFIG))
    assert kinds(named, SEEN) == []


DRIFT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "read-only": ({"grants": {FOLDER: False}}, ["grant"]),
    "no controller": ({"controller": ""}, ["config controller"]),
    "no graph": ({"graph": False}, ["config rotation"]),
    "not by scripts alone": ({"linked": frozenset()}, ["rotation"]),
    "disabled": ({"rotations": {USER: Rotation(CONFIG, as_json("daily"), True)}}, ["rotation"]),
    "no rotation": ({"rotations": {}}, ["rotation"]),
    "another script": ({"files": {FILE: Attachment(FILE, "rotate.py", "rotate.py", digest(b"old"))}}, ["script"]),
    "not downloaded": ({"files": {FILE: Attachment(FILE, "rotate.py", "rotate.py")}}, ["script"]),
    "not linked": ({"links": frozenset()}, ["script"]),
    "a configuration elsewhere": (
        {"records": {USER: RECORD, CONFIG: replace(CONFIGURATION, folders=frozenset())}},
        ["config place"],
    ),
}


@pytest.mark.parametrize("case", DRIFT)
def test_what_has_drifted_is_mended_and_nothing_else(case: str) -> None:
    changes, steps = DRIFT[case]
    assert kinds(WANTED, replace(SEEN, **changes)) == steps


def test_a_script_that_came_through_secrets_manager_is_attached_anew() -> None:
    script = WANTED.script
    files = {FILE: Attachment(FILE, "rotate.py", script.title, digest(CONTENT))}
    (step,) = plan(WANTED, replace(SEEN, files=files)).steps
    assert (step.value.upload, step.value.gone) == (True, (FILE,))


def test_a_record_is_visible_by_whatever_is_shared() -> None:
    assert kinds(WANTED, moved(SEEN, OTHER, **{OTHER: True})) == []
    assert kinds(WANTED, moved(SEEN, **{USER: True})) == []
    assert kinds(WANTED, moved(SEEN, OTHER, NESTED, **{OTHER: False, NESTED: True})) == []


def test_the_wanted_folder_counts_before_it_is_shared() -> None:
    assert kinds(WANTED, replace(SEEN, grants={})) == ["grant"]
    assert kinds(WANTED, replace(SEEN, grants={FOLDER: False})) == ["grant"]


INVISIBLE: dict[str, tuple[Seen, str]] = {
    "in no folder": (moved(SEEN), "is not visible to the application Azure rotation"),
    "in a folder that is not shared": (moved(SEEN, OTHER), "is not visible to the application Azure rotation"),
    "read-only": (moved(SEEN, OTHER, **{OTHER: False}), "Elsewhere is shared to it read-only"),
    "itself, read-only": (moved(SEEN, **{USER: False}), "billing-api is shared to it read-only"),
}


@pytest.mark.parametrize("case", INVISIBLE)
def test_what_the_gateway_would_not_see_is_refused(case: str) -> None:
    seen, said = INVISIBLE[case]
    with pytest.raises(BadInput, match=said):
        plan(WANTED, seen)


def test_a_credential_needs_no_edit_permission() -> None:
    admin = replace(RECORD, uid=OTHER, title="admin", folders=frozenset({OTHER}))
    seen = replace(SEEN, records={**SEEN.records, OTHER: admin}, grants={FOLDER: True, OTHER: False})
    wanted = replace(WANTED, script=Script("rotate.py", CONTENT, "python3", (OTHER,)))
    assert kinds(wanted, seen) == ["script"]
    with pytest.raises(BadInput, match=r"the record admin .* is not visible"):
        plan(wanted, replace(seen, grants={FOLDER: True}))


OTHER_APP = (Gateway(GATEWAY, "gateway-1", OTHER),)
REFUSED: dict[str, tuple[Wanted, Seen, type[Exception], str]] = {
    "a Gateway of another application": (WANTED, replace(SEEN, gateways=OTHER_APP), BadInput, "belongs to another"),
    "two Gateways": (
        WANTED,
        replace(SEEN, gateways=(*SEEN.gateways, Gateway(OTHER, "gateway-1", APP))),
        BadInput,
        "several Gateways have the name gateway-1",
    ),
    "no Gateway allowed": (WANTED, Seen(forbidden=frozenset({"gateways"})), Refused, "allow_pam_gateway"),
    "no place for keys": (WANTED, Seen(keys=Keys(problem="it is a directory")), BadInput, "it is a directory"),
    "no record type allowed": (WANTED, Seen(forbidden=frozenset({"record type"})), Refused, "may not make PAM User"),
    "the service knows another Gateway": (WANTED, replace(SEEN, controller=OTHER), BadInput, "another Gateway"),
    "another tenant": (
        replace(WANTED, config=WantedConfig("Azure production", "azure", {**VALUES, "tenantId": "fabrikam.com"})),
        SEEN,
        BadInput,
        "its tenantId is another",
    ),
    "another environment": (
        replace(WANTED, config=WantedConfig("Azure production", "local", {}), script=Script("x", b"x", "", (USER,))),
        SEEN,
        BadInput,
        "it is of type pamAzureConfiguration",
    ),
    "another rotation": (
        WANTED,
        replace(SEEN, rotations={USER: Rotation(OTHER, "")}),
        BadInput,
        "belongs to another PAM configuration",
    ),
    "no PAM User": (
        replace(WANTED, records=(WantedRecord(CONFIG, "", ""),)),
        SEEN,
        BadInput,
        "is of type pamAzureConfiguration",
    ),
    "one by its uid and its title": (
        replace(WANTED, records=(WantedRecord(USER, "", ""), WantedRecord("", "billing-api", ""))),
        SEEN,
        BadInput,
        "is named twice",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case: str) -> None:
    wanted, seen, kind, said = REFUSED[case]
    with pytest.raises(kind, match=said):
        plan(wanted, seen)


def test_a_role_that_asks_at_each_edit_is_refused_only_where_fields_change() -> None:
    seen = replace(SEEN, forbidden=frozenset({"edits"}))
    assert kinds(WANTED, seen) == []
    values = {"application_object_id": GUID, "lifetime_days": "90"}
    with pytest.raises(Refused, match="asks for the master password at each edit"):
        plan(replace(WANTED, records=(WantedRecord("", "billing-api", "", values),)), seen)


def test_absent_detaches_the_script_and_asks_for_nothing_else() -> None:
    seen = Seen(records={USER: RECORD}, files=SEEN.files)
    wanted = Wanted(False, Script("rotate.py", None), WANTED.records)
    (step,) = plan(wanted, seen).steps
    data = step.value.apply(RECORD.data, "", None, None)
    assert [one["value"] for one in data["fields"] if one["type"] in ("script", "fileRef")] == [[], []]
    assert plan(wanted, Seen(records={USER: replace(RECORD, data={})})).steps == ()


def test_a_nested_share_folder_needs_a_share_of_its_own() -> None:
    # As Commander's cache has it: https://github.com/Keeper-Security/Commander, subfolder.py and sync_down.py.
    params = SimpleNamespace(
        subfolder_cache={
            FOLDER: {"type": "shared_folder"},
            OTHER: {"type": "shared_folder_folder", "shared_folder_uid": FOLDER},
            NESTED: {"type": "user_folder", "source": "nested_share_folder", "parent_uid": FOLDER},
            CONFIG: {"type": "user_folder"},
        }
    )
    assert dict(look._grantable(params)) == {FOLDER: FOLDER, OTHER: FOLDER, NESTED: NESTED}
