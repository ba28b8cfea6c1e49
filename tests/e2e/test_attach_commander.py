# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook attach_pam_script with the real ansible-playbook, and a stand-in for Commander that lies as it does."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from environments import environment
from harness import CHECKOUT

HERE = Path(__file__).resolve().parent
GUID = "ec64d6ec-23f2-4391-ac66-58e4b52472f2"
SECRET = "pam~config~secret~4711"
FIRST = "the~first~value~0815"
ADMIN = "-AdminRecordUid0000001"  # a uid may begin with a hyphen
CONTENT = b"print(1)\n"
OWN = "-TargetRecordUid000001"


@dataclass
class Commander:
    """A vault behind the stand-in, and a directory for what belongs to it."""

    home: Path

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "state.json").read_text("utf-8"))
        return found

    def change(self, **parts: Any) -> None:
        (self.home / "state.json").write_text(json.dumps({**self.state, **parts}), "utf-8")

    def calls(self) -> list[dict[str, Any]]:
        log = self.home / "log"
        return [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []

    def play(self, *arguments: str, **variables: Any) -> tuple[int, str, int]:
        """Run the playbook; return its status, its output and the number of tasks that changed something."""
        given = {
            "attach_records": [{"title": "billing-api", "application_object_id": GUID}],
            "attach_folder": "Azure applications",
            "attach_application": "AzureRotation",
            "attach_gateway": "gateway 1",
            "attach_gateway_config_file": str(self.home / "gateway.b64"),
            "attach_pam_config": {
                "title": "Azure production",
                "environment": "azure",
                "tenant_id": "contoso.onmicrosoft.com",
                "client_id": GUID,
                "client_secret": SECRET,
            },
            "attach_script": str(self.home / "rotate_azure_app.py"),
            "attach_keeper_command": [sys.executable, str(HERE / "commander_standin.py")],
            "attach_keeper_config": str(self.home / "commander.json"),
            **variables,
        }
        given = {name: value for name, value in given.items() if value is not None}
        kept = ("PATH", "ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "ANSIBLE_NOCOLOR")
        environ = {name: os.environ[name] for name in kept}
        environ.update(HOME=str(self.home), LC_ALL="C.UTF-8", COMMANDER_STATE=str(self.home / "state.json"))
        environ.update(COMMANDER_LOG=str(self.home / "log"))
        (self.home / "variables.json").write_text(json.dumps(given), "utf-8")
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        command = [program, "keeperpam.azure.attach_pam_script", "-e", f"@{self.home}/variables.json", *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
        assert "template error" not in output, output
        for secret in (SECRET, FIRST):
            assert secret not in output
            assert not any(secret in word for call in self.calls() for word in call["argv"])
        changed = re.search(r"changed=(\d+)", done.stdout)
        return done.returncode, output, int(changed[1]) if changed else -1

    def add_record(self, uid: str, title: str, kind: str = "pamUser", **custom: str) -> None:
        fields = [{"type": "text", "label": label, "value": [value]} for label, value in custom.items()]
        record = {"type": kind, "title": title, "fields": [], "custom": fields}
        self.change(records={**self.state["records"], uid: record})

    def prepare(self) -> None:
        """Let there be what the records share, as the playbook would make it."""
        folder, application, gateway, config = (letter * 22 for letter in "FAGC")
        fields = {"tenantId": ["contoso.onmicrosoft.com"], "clientId": [GUID], "clientSecret": [SECRET]}
        self.change(
            folders={folder: "Azure applications"},
            apps={application: {"app_name": "AzureRotation", "shares": [{"uid": folder, "editable": True}]}},
            gateways=[{"gateway_name": "gateway 1", "gateway_uid": gateway, "ksm_app_uid": application}],
            configs={
                config: {
                    "uid": config,
                    "name": "Azure production",
                    "config_type": "pamAzureConfiguration",
                    "gateway_uid": gateway,
                    "shared_folder": {"uid": folder},
                    "fields": fields,
                }
            },
        )

    def entries(self, title: str = "billing-api") -> list[dict[str, Any]]:
        (record,) = [one for one in self.state["records"].values() if one["title"] == title]
        return [item for one in record["fields"] if one["type"] == "script" for item in one["value"]]


@pytest.fixture
def commander(tmp_path: Path) -> Commander:
    empty = {"folders": {}, "apps": {}, "gateways": [], "configs": {}, "records": {}, "rotations": {}, "files": {}}
    (tmp_path / "state.json").write_text(json.dumps({**empty, "lies": []}), "utf-8")
    (tmp_path / "rotate_azure_app.py").write_bytes(CONTENT)
    return Commander(tmp_path)


def test_from_nothing_to_a_rotation_and_back(commander: Commander) -> None:
    commander.add_record(ADMIN, "keeper-rotator")
    records = [
        {"title": "billing-api", "application_object_id": GUID, "verify": False, "lifetime_days": 90},
        {"title": "orders = worker's", "application_object_id": GUID, "client_secret": FIRST},
    ]
    given = {"attach_records": records, "attach_schedule": "0 0 4 * * ?", "attach_credentials": [ADMIN]}

    before = json.dumps(commander.state)
    status, output, changed = commander.play("--check", "--diff", **given)
    assert (status, changed) == (0, 6), output  # folder, application, Gateway, configuration, and both records
    assert json.dumps(commander.state) == before

    status, output, changed = commander.play("-vvv", **given)
    assert status == 0, output
    state = commander.state
    (folder,), (application,), (gateway,), (config,) = (
        state["folders"],
        state["apps"].values(),
        state["gateways"],
        state["configs"].values(),
    )
    assert application["shares"] == [{"uid": folder, "editable": True}]
    assert config["gateway_uid"] == gateway["gateway_uid"]
    assert config["fields"]["clientSecret"] == [SECRET]
    keys = commander.home / "gateway.b64"
    assert base64.b64decode(keys.read_text("utf-8")) == b'{"gateway-config":1}'
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert keys.read_text("utf-8").strip() not in output
    for title in ("billing-api", "orders = worker's"):
        (entry,) = commander.entries(title)
        assert entry["recordRef"] == [ADMIN]
        assert entry["command"] == "/opt/keeper-azure-rotation/venv/bin/python3"
        assert base64.b64decode(state["files"][entry["fileRef"]]["content"]) == CONTENT
    by_title = {one["title"]: one for one in state["records"].values()}
    shown = {one["label"]: (one["type"], one["value"][0]) for one in by_title["billing-api"]["custom"]}
    text = {"application_object_id": GUID, "verify": "false", "lifetime_days": "90"}
    assert shown == {label: ("text", value) for label, value in text.items()}
    assert by_title["orders = worker's"]["custom"][-1] == {
        "type": "secret",
        "label": "client_secret",
        "value": [FIRST],
    }
    assert [one["profile"] for one in state["rotations"].values()] == ["scripts_only"] * 2

    status, output, changed = commander.play(**given)
    assert (status, changed) == (0, 0), output
    assert commander.state == state

    status, output, changed = commander.play(attach_state="absent", **given)
    assert (status, changed) == (0, 2), output
    assert commander.entries() == []
    assert commander.play(attach_state="absent", **given)[::2] == (0, 0)


def test_drift_is_repaired_and_foreign_scripts_stay(commander: Commander, tmp_path: Path) -> None:
    commander.add_record(OWN, "billing-api", application_object_id="00000000-0000-0000-0000-000000000000")
    commander.add_record(ADMIN, "keeper-rotator")
    commander.prepare()
    assert commander.play(attach_records=[{"uid": OWN, "application_object_id": GUID}])[0] == 0
    state = commander.state
    (entry,) = state["records"][OWN]["fields"][0]["value"]
    old = {"name": "rotate_azure_app.py", "content": base64.b64encode(b"old").decode()}
    state["files"].update(old1=old, foreign={"name": "other.sh", "content": ""}, old2=old)
    there = [{"fileRef": one, "recordRef": [], "command": "sh"} for one in ("old1", "foreign", "old2")]
    state["records"][OWN]["fields"][0]["value"] = [*there, {**entry, "command": "python", "recordRef": ["gone"]}]
    state["rotations"][OWN].update(profile="general", disabled=True)
    next(iter(state["apps"].values()))["shares"][0]["editable"] = False
    commander.change(**state)
    given = {"attach_records": [{"uid": OWN, "application_object_id": GUID}], "attach_credentials": [ADMIN]}
    status, output, _changed = commander.play(**given)
    assert status == 0, output
    assert commander.entries() == [
        there[1],
        {**entry, "recordRef": [ADMIN], "command": "/opt/keeper-azure-rotation/venv/bin/python3"},
    ]
    assert commander.state["rotations"][OWN]["profile"] == "scripts_only"
    assert not commander.state["rotations"][OWN]["disabled"]
    assert commander.state["records"][OWN]["custom"][0]["value"] == [GUID]
    assert next(iter(commander.state["apps"].values()))["shares"][0]["editable"]

    (tmp_path / "rotate_azure_app.py").write_bytes(b"print(2)\n")
    status, output, changed = commander.play(**given)
    assert (status, changed) == (0, 1), output
    assert [one["command"] for one in commander.entries()] == ["sh", "/opt/keeper-azure-rotation/venv/bin/python3"]
    words = [call["argv"][-1:] and call["argv"][6] for call in commander.calls() if "script" in call["argv"]][-2:]
    assert words == ["add", "delete"]  # at no moment is there none


LIES = {
    "login": "Persistent login is not working",
    "mkdir": "Shared folder Azure applications: Keeper Commander reported success, but the vault",
    "app create": "Secrets Manager application AzureRotation: Keeper Commander reported success, but",
    "share": "Edit permission of AzureRotation on Azure applications: Keeper Commander reported success, but",
    "router": "Looks like router is down",
    "gateway": "Gateway gateway 1: Keeper Commander reported success, but",
    "config": "PAM configuration Azure production: Keeper Commander reported success, but",
    "record-add": "Record billing-api: Keeper Commander reported success, but",
    "rotation": "invalid revision",
    "cron": "Schedule of billing-api: Keeper Commander reported success, but",
    "owner": "only the record owner can attach",
}


@pytest.mark.parametrize("lie", LIES)
def test_false_success_is_reported_as_failure(commander: Commander, lie: str) -> None:
    if lie in ("record-add", "rotation", "cron", "owner"):
        commander.prepare()
    commander.change(lies=[lie])
    status, output, _changed = commander.play(attach_schedule="0 0 4 * * ?")
    assert status == 2, output
    assert LIES[lie] in " ".join(output.split()), output
    assert "Next: " in output


def test_a_credential_that_is_dropped_in_silence_is_a_failure(commander: Commander) -> None:
    commander.prepare()
    status, output, _changed = commander.play(attach_credentials=["A" * 22])
    assert status == 2
    assert "with credential records that exist" in output


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "five fields of cron": ({"attach_schedule": "0 4 * * *"}, "six fields of cron"),
    "no question mark": ({"attach_schedule": "0 0 4 * * *"}, "six fields of cron"),
    "no records": ({"attach_records": []}, "attach_records must be a list"),
    "no folder": ({"attach_folder": None}, "attach_folder, attach_application"),
    "another method": ({"keeper_method": "magic"}, "keeper_method is commander"),
    "no such script": ({"attach_script": "/nowhere.py"}, "it must be a file"),
    "no such command": ({"attach_keeper_command": ["/nowhere/keeper"]}, "install keepercommander"),
    "two of one title": ({}, "several PAM User records have this title"),
    "another type": (
        {"attach_records": [{"uid": OWN, "application_object_id": GUID}]},
        "convert a record of",
    ),
    "an unknown uid": (
        {"attach_records": [{"uid": "B" * 22, "application_object_id": GUID}]},
        "no PAM User record with this uid",
    ),
    "an unknown field": ({"attach_records": [{"title": "a", "application_object_id": GUID, "x": 1}]}, "and may have"),
    "no Gateway": ({"attach_gateway_config_file": None}, "it does not exist. Next: install it"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(commander: Commander, case: str) -> None:
    variables, message = BAD[case]
    if case == "two of one title":
        commander.add_record(OWN, "billing-api")
        commander.add_record(ADMIN, "billing-api")
    if case == "another type":
        commander.add_record(OWN, "billing-api", "login")
    before = commander.state
    status, output, _changed = commander.play(**variables)
    assert status == 2, output
    assert message in " ".join(output.split()), output
    assert commander.state == before
    if "uid" not in case and "type" not in case and "title" not in case and "Gateway" not in case:
        assert not commander.calls()


def commander_python() -> str:
    """The interpreter of an environment with the newest Commander, made once and kept in .cache."""
    if not os.environ.get("KEEPERPAM_FULL"):
        pytest.skip("installs keepercommander, a minute the first time: set KEEPERPAM_FULL=1")
    return environment("commander", sys.executable, "keepercommander")


def test_the_real_parsers_take_every_command_line(commander: Commander) -> None:
    python = commander_python()
    commander.add_record(ADMIN, "keeper-rotator")
    commander.add_record(OWN, "billing-api")
    records = [
        {"uid": OWN, "application_object_id": GUID, "client_secret": FIRST},
        {"title": "orders = worker's", "application_object_id": GUID, "verify": False},
    ]
    given = {"attach_records": records, "attach_credentials": [ADMIN], "attach_schedule": "0 0 4 * * ?"}
    assert commander.play(**given)[0] == 0
    state = commander.state
    state["files"]["-OldScriptUid000000001"] = {"name": "rotate_azure_app.py", "content": "b2xk"}
    entries = state["records"][OWN]["fields"][0]["value"]
    entries[0].update(command="python", recordRef=["-GoneRecordUid00000001"])
    entries.append({"fileRef": "-OldScriptUid000000001", "recordRef": [], "command": ""})
    next(iter(state["apps"].values()))["shares"][0]["editable"] = False
    commander.change(**state)
    given["attach_records"] = records[:1]
    assert commander.play(**given)[0] == 0
    pam = {"title": "Local", "environment": "local", "network_cidr": "10.0.0.0/8"}
    assert commander.play(attach_pam_config=pam, **given)[0] == 0
    calls = commander.calls()
    program = [python, str(HERE / "commander_parsers.py")]
    done = subprocess.run(program, input=json.dumps(calls), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    understood = json.loads(done.stdout)
    verbs = {one["command"] for one in understood}
    assert verbs == {
        "list-sf", "mkdir", "secrets-manager", "list", "get", "record-add", "record-update", "download-attachment",
        "pam gateway list", "pam gateway new", "pam config list", "pam config new", "pam rotation edit",
        "pam rotation list", "pam rotation info", "pam rotation script add", "pam rotation script edit",
        "pam rotation script delete",
    }  # fmt: skip
    assert {one["config_filename"] for one in understood} == {str(commander.home / "commander.json")}
    by_verb = {one["command"]: one["options"] for one in understood}
    assert by_verb["pam rotation edit"]["schedule_cron_data"] == ["0 0 4 * * ?"]
    assert by_verb["pam rotation script delete"] == {"script": "-OldScriptUid000000001", "record": OWN}
    assert by_verb["pam rotation script add"]["add_credential"] == [ADMIN]
    secrets = [one["options"].get("client_secret") for one in understood if one["command"] == "pam config new"]
    assert SECRET in secrets
    assert any(f"c.secret.client_secret={FIRST}" in str(one["options"]) for one in understood)


SCHEDULES = {
    "0 0 4 * * ?": True,
    "0 */15 4-6 ? * 1": True,
    "0 0 4 L * ?": True,
    "0 0,30 4 1,15 1-6 ?": True,
    "0 0 4 ? * 5L": True,
    "0 4 * * *": False,
    "0 0 4 * * *": False,
    "0 60 4 * * ?": False,
    "0 0 24 * * ?": False,
    "0 0 4 32 * ?": False,
    "0 0 4 * 13 ?": False,
    "0 0 4 ? * ?": False,
    "0 0 4 ? * MON": False,
    "0 0 4 * * ? 2027": False,
}


def test_the_schedule_is_checked_no_laxer_than_commander_does(commander: Commander) -> None:
    python = commander_python()
    code = (
        "import json, sys; from keepercommander.commands.discoveryrotation import validate_cron_expression as valid\n"
        "print(json.dumps([valid(one, for_rotation=True)[0] for one in json.load(sys.stdin)]))"
    )
    good = [one for one, fine in SCHEDULES.items() if fine]
    done = subprocess.run([python, "-c", code], input=json.dumps(good), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True] * len(good)


def test_the_templates_are_read_by_the_real_importer(commander: Commander) -> None:
    python = commander_python()
    code = (
        "import json, sys; from keepercommander.importer.csv.csv import KeeperCsvImporter\n"
        "read = lambda path: [[r.title, r.folders[0].domain, r.folders[0].can_edit, [f.label for f in r.fields]]"
        " for r in KeeperCsvImporter().do_import(path)]\n"
        "print(json.dumps([read(path) for path in sys.argv[1:]]))"
    )
    files = [str(CHECKOUT / "playbooks" / "files" / f"{name}_application.csv") for name in ("target", "admin")]
    done = subprocess.run([python, "-c", code, *files], capture_output=True, text=True, check=True)
    target, admin = json.loads(done.stdout)
    labels = ["application_object_id", "client_secret_id", "client_secret", "expires"]
    assert target == [["billing-api", "Azure applications", True, labels]]
    more = ["application_object_id", "tenant_id", "application_client_id", *labels[1:]]
    assert admin == [["keeper-rotator", "Azure applications", True, more]]
