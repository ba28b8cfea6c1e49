# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module pam_rotation, under the real Commander: what it refuses, mends, asks for and says."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commander_office import FIRST, GUID, NAME, OTHER, SECRET, Office, make_office

from commander.account import Rotation
from sandbox import Fault, Sandbox
from sandbox.crypto import new_uid


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with make_office(tmp_path) as made:
        yield made


def test_everything_is_made_once_and_told_beforehand(office: Office) -> None:
    records = [
        {"title": "billing-api", "application_object_id": GUID, "verify": False, "lifetime_days": 90},
        {"title": "orders = worker's \N{EURO SIGN}/x", "application_object_id": GUID, "client_secret": FIRST},
    ]
    before = office.state()
    planned = office.run(check=True, records=records)
    assert (planned.result["changed"], planned.status) == (True, "planned")
    assert office.state() == before
    assert not (office.home / "gateway.b64").exists()

    made = office.set_up(records=records)
    assert made.result["diff"] == planned.result["diff"]
    assert office.complete("billing-api")
    assert office.complete("orders = worker's \N{EURO SIGN}/x")
    account = office.keeper.account
    uids = {one["uid"]: one["title"] for one in made.result["records"]}
    assert uids == {office.record(one["title"]).uid: one["title"] for one in records}
    assert made.result["folder"] in account.folders
    assert made.result["application"] in account.apps
    assert made.result["gateway"] in [client.uid for _app, client in account.gateways().values()]
    assert made.result["pam_config"] == office.record("Azure production").uid
    fields = {one["label"]: (one["type"], one["value"]) for one in office.record("billing-api").data["custom"]}
    assert fields["verify"] == ("text", ["false"])
    assert fields["lifetime_days"] == ("text", ["90"])
    assert fields["client_secret"] == ("secret", [])
    assert office.record(records[1]["title"]).value("client_secret") == FIRST
    assert office.record("Azure production").value("clientSecret") == SECRET
    assert all(one.uid in account.scripts for one in office.record("billing-api").files)

    state = office.state()
    again = office.set_up(records=records)
    assert (again.result["changed"], again.status) == (False, "unchanged")
    assert office.state() == state


def test_a_record_is_found_by_its_uid_and_what_others_wrote_stays(office: Office) -> None:
    office.set_up(records=[{"title": "another", "application_object_id": OTHER}])
    vault = office.sandbox.vault
    record = office.keeper.account.put(
        vault.pam_user("billing-api", Application_Object_Id=GUID, mine="stays"), office.folder()
    )
    record.data["fields"][0].update(privacyScreen=True, enforceGeneration=False)
    vault.add_record("login", "notes", [{"type": "note", "value": [f"see {record.uid}"]}])
    office.set_up(records=[{"uid": record.uid, "application_object_id": GUID}])
    assert office.complete()
    assert record.data["fields"][0]["privacyScreen"] is True
    labels = [one["label"] for one in record.data["custom"]]
    assert labels == ["Application_Object_Id", "mine", "client_secret_id", "client_secret", "expires"]
    assert not office.set_up(records=[{"uid": record.uid}]).result["changed"]


def test_drift_is_mended_and_foreign_scripts_stay(office: Office) -> None:
    office.set_up()
    vault, record, config = office.sandbox.vault, office.record(), office.record("Azure production")
    (good,) = office.entries()
    for name, content in ((NAME, b"old"), ("other.sh", b"other"), (NAME, b"old")):
        vault.attach_script(record, content, name, "sh")
    script = next(one for one in record.data["fields"] if one["type"] == "script")
    script["value"] = [*script["value"][1:3], {**good, "command": "python", "recordRef": ["gone"]}, script["value"][3]]
    record.edit("application_object_id", OTHER)
    rotation = office.keeper.account.rotations[record.uid]
    rotation.disabled, rotation.resource = True, new_uid()
    (app,) = office.keeper.account.apps.values()
    app.shares[office.folder().uid] = ("folder", False)
    office.keeper.account.controllers.clear()
    config.edit("resourceGroups", "theirs")
    admin = office.keeper.account.put(vault.pam_user("keeper-rotator"), office.folder())
    mended = office.set_up(credentials=[admin.uid])
    assert mended.result["changed"]
    assert office.complete() is False  # by another script beside it
    scripts = [(entry["fileRef"], entry["command"], entry["recordRef"]) for entry in office.entries()]
    assert scripts[1:] == [(good["fileRef"], "python3", [admin.uid])]
    assert scripts[0][1] == "sh"
    assert len(record.files) == 2
    assert config.value("resourceGroups") == "theirs"
    assert not office.set_up(credentials=[admin.uid]).result["changed"]
    # Without the option, the credentials of the script are as they are.
    assert not office.set_up().result["changed"]


def test_a_script_that_secrets_manager_has_attached_is_replaced_not_doubled(office: Office) -> None:
    office.set_up()
    record = office.record()
    before = office.entries()[0]["fileRef"]
    record.files[0].meta["title"] = f"{NAME} (keeperpam.azure sha256:{'0' * 64})"
    office.set_up()
    assert office.complete()
    assert office.entries()[0]["fileRef"] != before
    assert len(record.files) == 1


@pytest.mark.parametrize("content", [b"", None, b"print(2)\n"], ids=["empty", "never uploaded", "another"])
def test_what_is_downloaded_decides(office: Office, content: bytes | None) -> None:
    office.set_up()
    office.record().files[0].content = content
    assert office.set_up().result["changed"]
    assert office.complete()


def _login_record(office: Office) -> None:
    office.keeper.account.record("billing-api").data["type"] = "login"


def _two(office: Office, title: str = "billing-api") -> None:
    office.keeper.account.put(office.sandbox.vault.pam_user(title), None)
    office.keeper.account.put(office.sandbox.vault.pam_user(title), None)


def _outside(office: Office) -> None:
    office.keeper.account.put(office.sandbox.vault.pam_user("billing-api", application_object_id=GUID), None)


def _elsewhere(office: Office) -> None:
    """A set-up of which the record belongs to another PAM configuration."""
    office.set_up()
    other = office.sandbox.vault.add_record("pamAzureConfiguration", "Other")
    office.keeper.account.rotations[office.record().uid] = Rotation(other.uid, "", False)


def _foreign(office: Office) -> None:
    office.set_up()
    office.keeper.account.strangers.add(office.record().uid)
    office.record().files[0].content = b"old"


def _off(office: Office) -> None:
    office.set_up()
    office.keeper.router.set_settings(office.record("Azure production").uid, rotation=False)


def _other_gateway(office: Office) -> None:
    office.set_up()
    office.record("Azure production").field_named("pamResources")["value"][0]["controllerUid"] = new_uid()  # type: ignore[index]


def _deleted_file(office: Office) -> None:
    office.set_up()
    office.record().files.clear()


def _write(office: Office) -> None:
    (office.home / "gateway.b64").write_text("somebody else's", "utf-8")


def _two_folders(office: Office) -> None:
    for _number in range(2):
        office.keeper.account.add_folder("Azure applications")


def _two_apps(office: Office) -> None:
    for _number in range(2):
        office.keeper.account.add_app("Azure rotation")


CONFIG = {"title": "Azure production", "environment": "azure", "tenant_id": "contoso.com", "subscription_id": OTHER}
RECORD = {"title": "billing-api", "application_object_id": GUID}
#: What is prepared, what is asked for, what is said.
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no records": (None, {"records": []}, "no record is named"),
    "a record without a name": (None, {"records": [{"login": "x"}]}, "neither uid nor title"),
    "a record twice": (None, {"records": [RECORD, RECORD]}, "named twice"),
    "no object id": (None, {"records": [{"title": "a"}]}, "cannot be made without application_object_id"),
    "an id that is none": (None, {"records": [{**RECORD, "application_object_id": "x"}]}, "it must be a GUID"),
    "a policy that is none": (None, {"records": [{**RECORD, "retire_after": "soon"}]}, "retire_after"),
    "five fields of cron": (None, {"schedule": "0 4 * * *"}, "it has 5 fields"),
    "no question mark": (None, {"schedule": "0 0 4 * * *"}, "must be a question mark"),
    "a time that is none": (None, {"schedule": "0 60 4 * * ?"}, "cannot be the minutes"),
    "no such script": (None, {"script": "/nowhere/x.py"}, "cannot be read"),
    "no folder": (None, {"folder": None}, "folder must be given"),
    "no gateway file": (None, {"gateway_config_file": None}, "there is no Gateway gateway-1"),
    "its folder missing": (None, {"gateway_config_file": "/nowhere/gw"}, "there is no directory /nowhere"),
    "its file there": (_write, {}, "the file exists"),
    "no subscription": (None, {"pam_config": {**CONFIG, "subscription_id": None}}, "without subscription_id"),
    "no tenant": (None, {"pam_config": {**CONFIG, "tenant_id": None}}, "without tenant_id"),
    "half a credential": (
        None,
        {"pam_config": {**CONFIG, "client_id": GUID}},
        "has one of client_id and client_secret",
    ),
    "no environment": (None, {"pam_config": {"title": "x"}}, "there is no PAM configuration x"),
    "local and nobody": (None, {"pam_config": {"title": "x", "environment": "local"}}, "has no admin identity"),
    "an unknown uid": (None, {"records": [{"uid": "B" * 22}]}, "there is no record " + "B" * 22),
    "an unknown credential": (None, {"credentials": ["B" * 22]}, "it was named as a credential"),
    "two of one title": (_two, {}, "several PAM User records have the title billing-api"),
    "two folders": (_two_folders, {}, "several shared folders have the name Azure applications"),
    "two applications": (_two_apps, {}, "several Secrets Manager applications have the name"),
    "outside every folder": (_outside, {}, "is not visible to the application Azure rotation"),
    "another PAM configuration": (_elsewhere, {}, "belongs to another PAM configuration: Other"),
    "not the owner": (_foreign, {}, "you are not the owner of the record billing-api"),
    "rotation is off": (_off, {}, "rotation is switched off in the PAM configuration"),
    "another Gateway": (_other_gateway, {}, "it belongs to another Gateway"),
    "a file that is gone": (_deleted_file, {}, "has a file that your vault does not show"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_made(office: Office, case: str) -> None:
    prepare, changes, message = REFUSED[case]
    if prepare:
        prepare(office)
    before, file = office.state(), office.home / "gateway.b64"
    content = file.read_bytes() if file.exists() else None
    ended = office.run(**changes)
    assert ended.failed
    assert ended.status in ("bad_input", "refused")
    assert message in ended.message, ended.message
    assert office.state() == before
    assert (file.read_bytes() if file.exists() else None) == content


def test_a_vault_with_pam_users_and_no_shared_folder(office: Office) -> None:
    for title in ("one", "two"):
        office.keeper.account.put(office.sandbox.vault.pam_user(title), None)
    office.set_up()
    assert office.complete()


@pytest.mark.parametrize("label", ["Tenant Id", "pamazuretenantid", "tenantId"])
def test_a_configuration_that_somebody_else_has_made_is_taken(office: Office, label: str) -> None:
    office.set_up()
    office.record("Azure production").field_named("tenantId")["label"] = label  # type: ignore[index]
    assert not office.set_up().result["changed"]
    ended = office.run(pam_config={**CONFIG, "tenant_id": "fabrikam.com"})
    assert "its tenantId is another" in ended.message


def test_azure_without_a_credential_and_local_with_one(office: Office) -> None:
    office.set_up(pam_config=CONFIG)
    assert office.complete()
    admin = office.keeper.account.put(office.sandbox.vault.pam_user("keeper-rotator"), office.folder())
    made = office.set_up(
        pam_config={"title": "Network", "environment": "local"},
        credentials=[admin.uid],
        records=[{"title": "orders", "application_object_id": GUID}],
    )
    assert made.result["pam_config"] == office.record("Network").uid
    assert office.entries("orders")[0]["recordRef"] == [admin.uid]


LOGINS = {
    "DEVICE_APPROVAL_REQUIRED": "Keeper asks for the approval of this device",
    "REQUIRES_2FA": "Keeper asks for a second factor",
    "REQUIRES_AUTH_HASH": "Keeper asks for the master password",
    "REDIRECT_CLOUD_SSO": "Keeper asks for a login with the identity provider",
    "REQUIRES_DEVICE_ENCRYPTED_DATA_KEY": "Keeper asks for the approval of this device by an admin",
    "ACCOUNT_LOCKED": "LOCKED",
    "LICENSE_EXPIRED": "license has expired",
}


@pytest.mark.parametrize("state", LOGINS)
def test_a_login_that_needs_a_person_is_refused_by_name(office: Office, state: str) -> None:
    office.keeper.account.login_state = state
    ended = office.run()
    assert (ended.failed, ended.status) == (True, "refused")
    assert LOGINS[state] in ended.message, ended.message
    assert "Next: " in ended.message
    assert office.asked()["start_login"] == 1


def test_a_configuration_of_commander_that_cannot_be_used(office: Office) -> None:
    assert "cannot be read" in office.run(commander_config="/nowhere/config.json").message
    path = Path(office.options["commander_config"])
    config = json.loads(path.read_text("utf-8"))
    for text, message in (
        ("{", "cannot be used"),
        ("{}", "nobody is logged in"),
        ('{"user": "a"}', "nobody is logged"),
    ):
        path.write_text(text, "utf-8")
        assert message in office.run().message
    assert not office.sandbox.log
    office.keeper.account.device_token = b"?" * 32
    path.write_text(json.dumps(config), "utf-8")
    ended = office.run()
    assert "Keeper does not know this device" in ended.message
    assert set(office.asked()) == {"start_login"}


def test_the_rules_of_the_users_roles(office: Office) -> None:
    account = office.keeper.account
    account.enforcements = {"booleans": {"allow_secrets_manager": True}}
    assert "do not let you manage Gateways" in office.run().message
    complexity = {"length": 30, "lower-use": True, "lower-min": 9, "digit-use": True, "digit-min": 9}
    policy = json.dumps([{**complexity, "upper-use": True, "upper-min": 3, "special-use": False}])
    account.enforcements = {
        "booleans": {"allow_pam_gateway": True},
        "jsons": {"generated_password_complexity": policy},
    }
    office.set_up()
    record = office.record()
    password = record.value("password")
    assert len(password) >= 30
    assert sum(one.isdigit() for one in password) >= 9
    # What is not touched is not held to the rules again.
    record.edit("password", "short")
    changed = [{"title": "billing-api", "application_object_id": GUID, "lifetime_days": 30}]
    office.set_up(records=changed)
    assert (record.value("password"), record.value("lifetime_days")) == ("short", "30")
    account.enforcements["jsons"]["master_password_reentry"] = json.dumps(
        {"operations": ["record_level"], "timeout": 5}
    )
    changed[0]["lifetime_days"] = 60
    ended = office.run(records=changed)
    assert "your role asks for the master password at each edit" in ended.message
    assert record.value("lifetime_days") == "30"


def test_only_the_owner_may_attach(office: Office) -> None:
    office.keeper.account.may_attach = False
    ended = office.run()
    assert (ended.failed, ended.status) == (True, "incomplete")
    assert "only the record owner can attach post-rotation scripts" in ended.message
    assert "run it as the owner" in ended.message
    assert "only the record owner" in ended.result["records"][0]["problem"]
    office.keeper.account.may_attach = True
    office.set_up()
    assert office.complete()


def test_one_record_that_is_refused_does_not_keep_the_others(office: Office) -> None:
    records = [{"title": f"app-{number}", "application_object_id": GUID} for number in range(4)]
    office.sandbox.faults.add(Fault("router/set_record_rotation", nth=2, status=403))
    ended = office.run(records=records)
    assert ended.status == "incomplete"
    assert "rotation of app-1" in ended.message
    problems = [bool(one["problem"]) for one in ended.result["records"]]
    assert problems == [False, True, False, False]
    assert [office.complete(one["title"]) for one in records] == [True, False, True, True]
    office.set_up(records=records)
    assert all(office.complete(one["title"]) for one in records)


def test_a_rotation_that_the_router_refuses_is_not_said_to_be_done(office: Office) -> None:
    office.set_up()
    rotation = office.keeper.account.rotations[office.record().uid]
    rotation.resource = new_uid()
    office.sandbox.faults.add(Fault("router/set_record_rotation", status=403, times=None))
    ended = office.run()
    assert (ended.failed, ended.status) == (True, "refused")
    assert "rotation of billing-api" in ended.message
    assert rotation.resource


def test_somebody_who_saves_in_between_is_not_overwritten(office: Office) -> None:
    office.set_up(schedule="daily")
    record = office.record()
    record.files[0].content = b"old"

    def save(sandbox: Sandbox, entry: Any) -> None:
        if entry.op == "files_add" and record.value("mine") is None:
            record.edit("mine", "stays")

    office.sandbox.watch(save)
    office.set_up()
    assert office.complete()
    assert record.value("mine") == "stays"


def test_schedules_are_spread_and_stay(office: Office) -> None:
    records = [{"title": f"app-{number}", "application_object_id": GUID} for number in range(6)]
    made = office.set_up(records=records, schedule="weekly")
    times = {one["uid"]: one["schedule"] for one in made.result["records"]}
    assert len(set(times.values())) == 6
    assert all(" ? * " in one for one in times.values())
    for schedule in ("weekly", None):
        again = office.set_up(records=records, schedule=schedule)
        assert not again.result["changed"]
        assert {one["uid"]: one["schedule"] for one in again.result["records"]} == times
    changed = office.set_up(records=records, schedule="0 0 4 * * ?")
    assert {one["schedule"] for one in changed.result["records"]} == {"0 0 4 * * ?"}
    assert {one["schedule"] for one in office.set_up(records=records, schedule="on-demand").result["records"]} == {
        "on-demand"
    }


def test_a_session_that_ends_in_between(office: Office) -> None:
    office.keeper.account.session_requests = 9
    ended = office.run()
    assert (ended.failed, ended.status) == (True, "incomplete")
    assert "the session with Keeper has ended" in ended.message
    assert office.asked()["start_login"] == 1
    office.keeper.account.session_requests = None
    office.set_up()
    assert office.complete()


def test_fifty_records_cost_one_login_and_one_sync_a_stage(office: Office) -> None:
    records = [{"title": f"app-{number:02}", "application_object_id": GUID} for number in range(50)]
    office.set_up(records=records, schedule="monthly")
    asked = office.asked()
    # One for each of five stages, one at the beginning, and Commander's own where it makes a PAM configuration.
    assert (asked["start_login"], asked["sync_down"]) == (1, 7)
    assert (asked["records_add"], asked["records_update"]) == (1, 1)
    assert all(office.complete(one["title"]) for one in records)
    again = office.set_up(records=records, schedule="monthly")
    assert not again.result["changed"]
    asked = office.asked()
    assert (asked["start_login"], asked["sync_down"]) == (1, 1)
    assert again.cpu < 15


def test_absent_takes_the_script_and_leaves_all_else(office: Office) -> None:
    office.set_up()
    office.sandbox.vault.attach_script(office.record(), b"other", "other.sh", "sh")
    gone = dict.fromkeys(("folder", "application", "gateway", "gateway_config_file", "pam_config"))
    assert office.run(check=True, state="absent", **gone).result["changed"]
    assert len(office.entries()) == 2
    assert office.set_up(state="absent", **gone).result["changed"]
    assert [entry["command"] for entry in office.entries()] == ["sh"]
    assert office.record().uid in office.keeper.account.rotations
    assert not office.set_up(state="absent", script="/nowhere/rotate_azure_app.py", **gone).result["changed"]
    assert not office.set_up(state="absent", records=[{"title": "nobody's"}]).result["changed"]


def test_the_gateways_configuration_is_one_for_good(office: Office) -> None:
    office.set_up()
    content = json.loads(base64.b64decode((office.home / "gateway.b64").read_text("utf-8")))
    assert set(content) == {
        "appKey",
        "appOwnerPublicKey",
        "clientId",
        "hostname",
        "privateKey",
        "serverPublicKeyId",
    }
    assert content["hostname"] == office.keeper.host
    # It is there now, and its keys with somebody else: they are not asked for again.
    (office.home / "gateway.b64").unlink()
    assert not office.set_up().result["changed"]
    assert not (office.home / "gateway.b64").exists()
