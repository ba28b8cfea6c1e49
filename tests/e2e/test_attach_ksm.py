# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules pam_script and app_record as processes against the sandbox, whose Gateway runs what is attached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import SCRIPT, World, make_world

from sandbox import Fault
from sandbox.keeper_records import Records
from sandbox.vault import VaultFile, VaultRecord

MODULES = "ansible_collections.keeperpam.azure.plugins.modules."


def run(
    world: World, module: str, check: bool = False, config: Any = None, path: str = "", **options: Any
) -> dict[str, Any]:
    """Run a module as Ansible does, with ``path`` before all others that Python looks at; {} where it was killed."""
    arguments = {
        "record": world.record.uid,
        "keeper_config": json.dumps(world.sandbox.client_config() if config is None else config),
        **options,
        "_ansible_check_mode": check,
        "_ansible_diff": True,
    }
    paths = os.pathsep.join(filter(None, [path, os.environ["ANSIBLE_COLLECTIONS_PATH"]]))
    environ = world.sandbox.environ(PYTHONPATH=paths, GATEWAY_CONFIG=None)
    command = [sys.executable, "-m", MODULES + module]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ, cwd="/", text=True
    ) as process:
        world.sandbox.client_pid = process.pid
        stdout, stderr = process.communicate(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}), timeout=200)
    assert "Traceback" not in stderr, stderr
    result: dict[str, Any] = json.loads(stdout) if stdout else {}
    for secret in world.secrets():
        assert secret not in json.dumps({**result, "invocation": None}) + stderr
    return result


def entries(record: VaultRecord) -> list[dict[str, Any]]:
    return record.field_named("rotationScripts")["value"] if record.field_named("rotationScripts") else []


def attachments(record: VaultRecord) -> list[str]:
    return next(one["value"] for one in record.data["fields"] if one["type"] == "fileRef")


def dangling(record: VaultRecord) -> list[str]:
    """The script entries whose file is not there, or has no content."""
    there = {one.uid for one in record.files if one.content is not None}
    return [one["fileRef"] for one in entries(record) if one["fileRef"] not in there]


def loose(record: VaultRecord) -> list[VaultFile]:
    """The files that no script entry refers to."""
    used = {one["fileRef"] for one in entries(record)}
    return [one for one in record.files if one.uid not in used]


@pytest.fixture
def watched() -> Iterator[World]:
    """A world in which no script entry ever refers to a file that is not there, whoever looks, whenever."""
    with make_world() as world:
        world.sandbox.watch(lambda sandbox, entry: check(world))

        def check(world: World) -> None:
            assert not dangling(world.record)

        yield world


@pytest.fixture
def scripts(tmp_path: Path) -> tuple[str, str]:
    """Two versions of a script of one name."""
    paths = []
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        path = tmp_path / version / "rotate.py"
        path.write_text(f"print({version})\n", "utf-8")
        paths.append(str(path))
    return paths[0], paths[1]


def test_the_gateway_runs_what_was_attached(watched: World, tmp_path: Path) -> None:
    script = tmp_path / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())
    result = run(watched, "pam_script", src=str(script), command=sys.executable)
    assert result["changed"], result
    (file,) = watched.record.files
    assert file.content == script.read_bytes()
    assert entries(watched.record) == [{"fileRef": file.uid, "recordRef": [], "command": sys.executable}]
    assert attachments(watched.record) == []
    done = watched.sandbox.gateway.rotate(watched.record.uid)
    assert done.returncode == 0, done.stderr
    assert watched.agrees()


def test_it_takes_seven_requests_and_a_second_run_changes_nothing(watched: World, scripts: tuple[str, str]) -> None:
    assert run(watched, "pam_script", src=scripts[0])["changed"]
    first = ["get_secret", "add_file", "upload", "get_secret", "download", "update_secret", "get_secret"]
    assert watched.operations() == first
    revision = watched.record.revision
    assert not run(watched, "pam_script", src=scripts[0])["changed"]
    assert watched.operations() == [*first, "get_secret", "download"]
    assert watched.record.revision == revision


def test_drift_is_repaired_in_place(watched: World, scripts: tuple[str, str]) -> None:
    admin = watched.sandbox.vault.pam_user("rotator").uid
    for name in ("before.sh", "after.sh"):
        watched.sandbox.vault.attach_script(watched.record, b"#!/bin/sh\n", name, command="sh")
        run(watched, "pam_script", src=scripts[0], command="python3", credentials=[admin])
    first, ours, last = entries(watched.record)
    watched.record.files[1].content = b"import os; os.abort()\n"
    result = run(watched, "pam_script", src=scripts[0], command="python3")
    assert result["detached"] == [ours["fileRef"]]
    assert "-import os; os.abort()\n+print(1)\n" in result["diff"][0]["prepared"]
    now = entries(watched.record)
    assert (now[0], now[2]) == (first, last)
    assert {**now[1], "fileRef": ours["fileRef"]} == ours  # the command and the credentials stay
    assert not loose(watched.record)
    result = run(watched, "pam_script", src=scripts[0], command="/venv/python3", credentials=[])
    assert result["diff"][0]["before"].startswith("command: python3\n")
    assert entries(watched.record)[1] == {**now[1], "command": "/venv/python3", "recordRef": []}
    assert run(watched, "pam_script", name="rotate.py", state="absent")["changed"]
    assert entries(watched.record) == [first, last]
    assert not loose(watched.record)
    assert not run(watched, "pam_script", name="rotate.py", state="absent")["changed"]


def test_copies_that_commander_stacked_are_detached(watched: World, scripts: tuple[str, str]) -> None:
    for content in (b"print(0)\n", b"print(1)\n", b"print(1)\n"):
        watched.sandbox.vault.attach_script(watched.record, content, "rotate.py")
    second = entries(watched.record)[1]["fileRef"]
    assert len(run(watched, "pam_script", src=scripts[0])["detached"]) == 2
    assert [one["fileRef"] for one in entries(watched.record)] == [second]  # nothing was uploaded
    assert not loose(watched.record)


def test_attachments_of_others_stay(watched: World, scripts: tuple[str, str]) -> None:
    note = VaultFile("rotate.py", b"k" * 32, {"name": "rotate.py", "title": "rotate.py", "size": 3}, b"abc")
    watched.record.files.append(note)
    attachments(watched.record).append(note.uid)
    assert run(watched, "pam_script", src=scripts[0])["changed"]
    assert run(watched, "pam_script", src=scripts[1])["changed"]
    assert run(watched, "pam_script", src=scripts[1], state="absent")["changed"]
    assert watched.record.files == [note]
    assert attachments(watched.record) == [note.uid]


def test_check_mode_changes_nothing_and_shows_all(watched: World, scripts: tuple[str, str]) -> None:
    before = json.dumps(watched.sandbox.vault.snapshot())
    result = run(watched, "pam_script", check=True, src=scripts[0], command="python3")
    assert result["changed"]
    assert result["msg"] == "rotate.py would be attached to billing-api."
    text, settings = result["diff"]
    assert text["prepared"].endswith("+print(1)\n")
    assert (settings["before"], settings["after"]) == ("", "command: python3\ncredentials: none\n")
    assert run(watched, "app_record", check=True, application_object_id=watched.app.object_id, retire="none")["changed"]
    assert json.dumps(watched.sandbox.vault.snapshot()) == before
    assert set(watched.operations()) == {"get_secret"}


FAULTS = [
    (number, kind, moment)
    for number in range(1, 9)
    for kind, moment in (("kill", "before"), ("kill", "after"), ("drop", "before"), ("drop", "after"))
]


@pytest.mark.parametrize(("number", "kind", "moment"), FAULTS)
def test_whatever_is_interrupted_the_next_run_completes(
    watched: World, scripts: tuple[str, str], number: int, kind: str, moment: str
) -> None:
    other = watched.sandbox.vault.attach_script(watched.record, b"#!/bin/sh\n", "other.sh")
    watched.sandbox.vault.attach_script(watched.record, Path(scripts[0]).read_bytes(), "rotate.py", "python3")
    watched.sandbox.faults.add(Fault("*", nth=number, moment=moment, kind=kind, signal=9))
    result = run(watched, "pam_script", src=scripts[1])
    assert watched.sandbox.faults.fired
    if kind == "drop":
        assert result["changed"], result
    assert not dangling(watched.record)
    result = run(watched, "pam_script", src=scripts[1])
    assert not result.get("failed"), result
    saved = kind == "drop" or (number, moment) in {(7, "after"), (8, "before"), (8, "after")}
    assert result["changed"] != saved
    assert [one.content for one in watched.record.files] == [other.content, b"print(2)\n"]
    assert [one["command"] for one in entries(watched.record)] == ["python3", "python3"]
    assert not loose(watched.record)
    assert attachments(watched.record) == []


@pytest.mark.parametrize("number", [2, 3, 7])
def test_sigterm_leaves_nothing_behind(watched: World, scripts: tuple[str, str], number: int) -> None:
    watched.sandbox.vault.attach_script(watched.record, b"print(0)\n", "rotate.py")
    before = json.dumps(watched.record.data)
    watched.sandbox.faults.add(Fault("*", nth=number, moment="after", kind="kill", signal=15, seconds=1))
    result = run(watched, "pam_script", src=scripts[0])
    assert result["failed"]
    assert "run it again" in result["msg"]
    assert not dangling(watched.record)
    assert not loose(watched.record)
    assert (result["status"] == "refused") == (json.dumps(watched.record.data) == before), result


@pytest.mark.parametrize("op", ["add_file", "update_secret"])
def test_what_others_write_meanwhile_stays(watched: World, scripts: tuple[str, str], op: str) -> None:
    done: list[str] = []

    def meddle(sandbox: Any, entry: Any) -> None:
        if entry.op == "add_file" and not done:
            done.append("once")
            watched.record.edit("notes for operators", "written meanwhile")
            watched.sandbox.vault.attach_script(watched.record, b"#!/bin/sh\n", "other.sh")

    watched.sandbox.faults.add(Fault(op, kind="out_of_sync"))
    watched.sandbox.watch(meddle)
    assert run(watched, "pam_script", src=scripts[0])["changed"]
    assert watched.record.value("notes for operators") == "written meanwhile"
    assert [one.name for one in watched.record.files] == ["rotate.py", "other.sh"]
    assert len(entries(watched.record)) == 2
    assert not loose(watched.record)


@pytest.mark.parametrize("kind", ["status", "drop"])
def test_an_upload_that_never_succeeds_leaves_nothing(watched: World, scripts: tuple[str, str], kind: str) -> None:
    before = json.dumps(watched.record.data)
    watched.sandbox.faults.add(Fault("upload", kind=kind, status=403, times=None))
    result = run(watched, "pam_script", src=scripts[0])
    assert (result["failed"], result["status"]) == (True, "refused"), result
    assert "the upload of the file" in result["msg"]
    assert json.dumps(watched.record.data) == before
    assert watched.record.files == []


def spoilt(name: str = "photo.jpg") -> VaultFile:
    """An attachment whose key is of something else, as they are common beside good ones."""
    return VaultFile(name, b"k" * 32, {"name": name, "title": name, "size": 3}, b"abc")


@pytest.mark.parametrize("first", [True, False])
def test_an_attachment_that_cannot_be_decrypted_is_in_nobody_s_way(
    watched: World, scripts: tuple[str, str], monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    bad = spoilt()
    watched.record.files.append(bad)
    attachments(watched.record).append(bad.uid)
    damage(watched, monkeypatch, bad)
    assert run(watched, "pam_script", src=scripts[0])["changed"]
    if first:
        watched.record.files.reverse()
    assert run(watched, "pam_script", src=scripts[1])["changed"]
    assert not run(watched, "pam_script", src=scripts[1])["changed"]
    assert watched.operations().count("add_file") == 2
    assert {one.uid for one in loose(watched.record)} == {bad.uid}
    assert attachments(watched.record) == [bad.uid]


def damage(world: World, monkeypatch: pytest.MonkeyPatch, bad: VaultFile | None) -> None:
    """Deliver this file damaged, or none that was uploaded from now on."""
    known = {one.uid for record in world.sandbox.vault.records.values() for one in record.files}
    deliver = Records._file

    def file(self: Any, call: Any, record: VaultRecord, one: VaultFile) -> dict[str, Any]:
        answer = deliver(self, call, record, one)
        return {**answer, "fileKey": "AAAA"} if one is bad else answer

    def deliver_all(self: Any, *arguments: Any, original: Any = Records._record) -> dict[str, Any]:
        answer = original(self, *arguments)
        answer["files"] = [one for one in answer.get("files") or [] if bad or one["fileUid"] in known] or None
        return answer

    monkeypatch.setattr(Records, "_file", file)
    monkeypatch.setattr(Records, "_record", deliver_all)


def test_a_file_that_is_never_listed_is_uploaded_once_and_said(
    watched: World, scripts: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.dumps(watched.record.data)
    damage(watched, monkeypatch, None)
    result = run(watched, "pam_script", src=scripts[0])
    assert (result["failed"], result["status"]) == (True, "refused"), result
    assert "was uploaded, and the record does not show it" in result["msg"]
    assert " Next: " in result["msg"]
    assert watched.operations().count("add_file") == 1
    assert json.dumps(watched.record.data) == before
    assert watched.record.files == []


def test_what_an_interrupted_run_has_left_unlisted_is_gone_after_the_next(
    watched: World, scripts: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The uid of a file whose upload never came, in the list of attachments; one of somebody else's stays."""
    attachments(watched.record).append("D" * 22)
    with monkeypatch.context() as patch:
        damage(watched, patch, None)
        watched.sandbox.faults.add(Fault("add_file", moment="after", kind="kill", signal=9))
        assert run(watched, "pam_script", src=scripts[0]) == {}
    watched.record.files.clear()
    assert len(attachments(watched.record)) == 2
    assert run(watched, "pam_script", src=scripts[0])["changed"]
    assert attachments(watched.record) == ["D" * 22]
    assert len(watched.record.files) == 1
    assert run(watched, "pam_script", src=scripts[0], state="absent")["changed"]
    assert attachments(watched.record) == ["D" * 22]


@pytest.mark.parametrize("keeps_first", [True, False])
def test_of_two_copies_of_the_record_the_one_that_may_be_edited_counts(
    watched: World, scripts: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps_first: bool
) -> None:
    """Also where the read-only one comes first, and an SDK that keeps the first of them."""
    deliver = Records._shared_folders

    def twice(self: Any, *arguments: Any, **more: Any) -> list[dict[str, Any]]:
        folders = deliver(self, *arguments, **more)
        copies = [
            {**folder, "records": [{**one, "isEditable": False} for one in folder["records"]]} for folder in folders
        ]
        return [*copies, *folders]

    monkeypatch.setattr(Records, "_shared_folders", twice)
    if keeps_first:
        (tmp_path / "sitecustomize.py").write_text(KEEPS_FIRST)
    assert run(watched, "pam_script", path=str(tmp_path), src=scripts[0])["changed"]
    assert not run(watched, "pam_script", path=str(tmp_path), src=scripts[0])["changed"]


#: The SDK, keeping the first of two copies of a record.
KEEPS_FIRST = """
from keeper_secrets_manager_core import SecretsManager

def first(self, options, original=SecretsManager.fetch_and_decrypt_secrets):
    answer = original(self, options)
    answer.records = list({one.uid: one for one in reversed(answer.records)}.values())
    return answer

SecretsManager.fetch_and_decrypt_secrets = first
"""


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown uid": ({"record": "A" * 22}, "was not found: it is not shared"),
    "another type": ({"record": "(configuration)"}, "is of type pamAzureConfiguration: it must be pamUser"),
    "no script": ({"src": "/nowhere/rotate.py"}, "cannot be read: No such file"),
    "a name with a path": ({"name": "a/b.py"}, "is no file name"),
    "unknown credential": ({"credentials": ["B" * 22]}, "the credential record BBBB"),
    "a file that is too large": ({"src": "(large)"}, "the limit is 1048576"),
    "an empty file": ({"src": "(empty)"}, "is empty"),
    "no owner key": ({"keeper_config": "(no owner)"}, "lacks appOwnerPublicKey"),
    "read-only": ({}, "is read-only"),
    "a file that KSM does not show": ({}, "has a file that KSM does not show"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_changes_nothing(watched: World, scripts: tuple[str, str], tmp_path: Path, case: str) -> None:
    options, message = BAD[case]
    config = watched.sandbox.client_config()
    for name, size in (("(large)", 1024 * 1024 + 1), ("(empty)", 0)):
        (tmp_path / name).write_bytes(b"#" * size)
    places = {"(configuration)": watched.configuration.uid, "(large)": str(tmp_path / "(large)")}
    places.update({"(empty)": str(tmp_path / "(empty)"), "(no owner)": ""})
    given = {"src": scripts[0], **options}
    given = {key: places.get(value, value) if isinstance(value, str) else value for key, value in given.items()}
    if case == "no owner key":
        del given["keeper_config"], config["appOwnerPublicKey"]
    if case == "read-only":
        watched.record.editable = False
    if case.endswith("does not show"):
        entries(watched.record).append({"fileRef": "C" * 22, "recordRef": [], "command": ""})
    before = json.dumps(watched.sandbox.vault.snapshot())
    result = run(watched, "pam_script", config=config, **given)
    assert result["failed"], result
    assert message in result["msg"]
    assert " Next: " in result["msg"]
    assert json.dumps(watched.sandbox.vault.snapshot()) == before


def test_app_record_makes_the_fields_and_leaves_the_others(watched: World) -> None:
    record = watched.sandbox.vault.pam_user("new", application_object_id="?", client_secret_id=None, other="kept")
    record.data["custom"] += [{"type": "text", "label": "Client Secret", "value": ["plain"]}]
    given = {"record": record.uid, "application_object_id": watched.app.client_id, "client_secret": "first-secret-1"}
    result = run(watched, "app_record", verify=False, tenant_id="contoso.onmicrosoft.com", **given)
    assert result["changed"], result
    assert "plain" not in json.dumps(result["diff"])
    custom = {one["label"]: (one["type"], one["value"]) for one in record.data["custom"]}
    assert custom == {
        "application_object_id": ("text", [watched.app.client_id]),
        "client_secret_id": ("text", []),
        "other": ("text", ["kept"]),
        "Client Secret": ("secret", ["plain"]),  # what is there is never overwritten
        "expires": ("text", []),
        "tenant_id": ("text", ["contoso.onmicrosoft.com"]),
        "verify": ("text", ["false"]),
    }
    assert not run(watched, "app_record", verify=False, **given)["changed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"application_object_id": "billing-api"}, "it must be a GUID"),
        ({"tenant_id": "no tenant"}, "it must be a GUID or a domain"),
        ({"lifetime_days": 0}, "lifetime_days"),
        ({"record": "A" * 22}, "was not found"),
        ({"record": "(configuration)"}, "it must be pamUser"),
        ({"expires": "2027-01-01"}, "the field expires"),
    ],
)
def test_app_record_refuses(watched: World, options: dict[str, str], message: str) -> None:
    if "expires" in options:
        watched.record.field_named("expires")["type"] = "date"
    if options.get("record") == "(configuration)":
        options = {"record": watched.configuration.uid}
    before = json.dumps(watched.sandbox.vault.snapshot())
    result = run(watched, "app_record", **{"application_object_id": watched.app.object_id, **options})
    assert result["failed"]
    assert message in result["msg"]
    assert json.dumps(watched.sandbox.vault.snapshot()) == before
