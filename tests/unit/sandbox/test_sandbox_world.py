# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox as a whole: watching, logging, the Gateway, starting and stopping."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import pytest
import requests
from keeper_secrets_manager_core.exceptions import KeeperError

from sandbox import Entry, Fault, Sandbox, SandboxError
from sandbox.seed import Seeded

TESTS = Path(__file__).resolve().parents[2]
ECHO = b"""
import base64, json, os, sys
line = sys.stdin.readline()
print(json.dumps({"stdin": json.loads(base64.b64decode(line)), "cwd": os.getcwd(), "environ": dict(os.environ),
                  "mode": os.stat(os.path.dirname(__file__)).st_mode & 0o777, "file": __file__}))
print("to stderr", file=sys.stderr)
sys.exit(3)
"""


def rotate(sb: Sandbox, uid: str, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run the echoing script; returns what it saw, and the records on its stdin."""
    saw = json.loads(sb.gateway.rotate(uid, command=sys.executable, **options).stdout)
    return saw, json.loads(base64.b64decode(saw["stdin"]["records"]))


def test_the_gateway_runs_the_attached_script_and_keeps_its_streams(sb: Sandbox, seeded: Seeded) -> None:
    record = seeded.records["billing-api"]
    sb.vault.attach_script(record, ECHO, "echo.py", command=f"'{sys.executable}' -I")
    run = sb.gateway.rotate(record.uid, extra_environ={"EXTRA": "1", "SSL_CERT_FILE": None})
    saw = json.loads(run.stdout)
    assert (run.returncode, run.stderr, run.name) == (3, "to stderr\n", "echo.py")
    assert (saw["cwd"], saw["mode"]) == ("/", 0o700)
    given = {"PATH", "REQUESTS_CA_BUNDLE", "GATEWAY_CONFIG", "AZURE_POD_IDENTITY_AUTHORITY_HOST", "EXTRA"}
    assert set(saw["environ"]) - {"LC_CTYPE"} == given
    assert not os.path.exists(saw["file"])
    assert sb.log == [], "what the Gateway reads is not the script's doing"
    stdin = saw["stdin"]
    assert (stdin["providerRecordUid"], stdin["userRecordUid"]) == (seeded.configuration.uid, record.uid)
    assert (stdin["user"], stdin["oldPassword"], stdin["resourceRecordUid"]) == ("billing-api", "dummy", "")


def test_records_on_stdin_have_labels_else_types_and_numbers_for_repeats(sb: Sandbox, seeded: Seeded) -> None:
    record = seeded.records["billing-api"]
    extra = sb.vault.add_record(
        "login",
        "extra",
        [
            {"type": "login", "value": ["a"]},
            {"type": "login", "value": ["b"]},
            {"type": "text", "label": "many", "value": ["x", "y"]},
            {"type": "text", "label": "none", "value": []},
        ],
    )
    sb.vault.attach_script(record, ECHO, credentials=[extra.uid])
    _run, records = rotate(sb, record.uid)
    assert [one["title"] for one in records] == ["Azure (contoso)", "extra", "billing-api"]
    assert records[0]["clientId"] == seeded.admin.client_id
    assert records[1] == {
        "uid": extra.uid,
        "title": "extra",
        "login": "a",
        "login2": "b",
        "many": ["x", "y"],
        "none": "",
    }
    assert records[2]["client_secret"] == record.value("client_secret")
    assert not {"rotationScripts", "fileRef"} & set(records[2])


def test_order_choice_and_replacement_of_the_records(sb: Sandbox, seeded: Seeded) -> None:
    record = seeded.records["crm-sync"]
    sb.vault.attach_script(record, ECHO)
    _run, records = rotate(sb, record.uid, order="user-first")
    assert [one["title"] for one in records] == ["crm-sync", "Azure (contoso)"]
    assert [one["title"] for one in rotate(sb, record.uid, include=("user",))[1]] == ["crm-sync"]
    assert len(rotate(sb, record.uid, order="shuffled")[1]) == 2
    line = sb.gateway.stdin_for(record.uid, provider_uid="")
    assert rotate(sb, record.uid, stdin_override=line)[0]["stdin"]["providerRecordUid"] == ""
    with pytest.raises(ValueError, match="order"):
        sb.gateway.stdin_for(record.uid, order="nonsense")


def test_the_gateway_reads_inner_folders_and_ends_scripts_that_hang(sb: Sandbox) -> None:
    record = sb.vault.pam_user("inner", inner_folder=True)
    sb.vault.attach_script(record, b"import time; time.sleep(60)")
    assert sb.gateway.rotate(record.uid, command=sys.executable, timeout=0.5).returncode == -signal.SIGKILL
    with pytest.raises(LookupError):
        sb.gateway.rotate(sb.vault.pam_user("bare").uid)


def test_the_gateway_may_write_its_own_password_meanwhile(sb: Sandbox, seeded: Seeded) -> None:
    record = seeded.records["crm-sync"]
    sb.vault.attach_script(record, ECHO)
    before = record.revision
    rotate(sb, record.uid, rotates_password=True)
    assert record.value("password") != "dummy"
    assert record.revision > before


SAVE = b"""
import base64, json, os, sys
from keeper_secrets_manager_core import SecretsManager
from keeper_secrets_manager_core.storage import InMemoryKeyValueStorage
told = json.loads(base64.b64decode(sys.stdin.readline()))
config = InMemoryKeyValueStorage(base64.b64decode(os.environ["GATEWAY_CONFIG"]).decode())
manager = SecretsManager(config=config)
(record,) = manager.get_secrets([told["userRecordUid"]])
record.custom_field("client_secret", value="new")
manager.save(record)
print(told["newPassword"])
"""


@pytest.mark.parametrize(("staged", "shown"), [(None, "new"), ("ours wins", "new"), ("staged wins", "old")])
def test_the_gateway_may_stage_its_own_password_around_the_script(
    sb: Sandbox, tmp_path: Path, staged: str | None, shown: str
) -> None:
    record = sb.vault.pam_user("app", client_secret="old")
    script = tmp_path / "save.py"
    script.write_bytes(SAVE)
    seen: list[tuple[str, str, object]] = []
    sb.watch(lambda sb, entry: seen.append((entry.service, entry.op, record.value("client_secret"))))
    run = sb.gateway.run([sys.executable, str(script)], record.uid, provider_uid="", staged=staged)
    assert (run.returncode, run.stderr, run.name) == (0, "", "save.py")
    assert (record.value("client_secret"), record.staged) == (shown, None)
    rotated = record.value("password") == run.stdout.strip()
    assert rotated is (staged == "staged wins")
    around = [("outside", "stage", "old")], [("outside", "finalize", shown)]
    assert seen == [*(around[0] if staged else []), ("keeper", "update_secret", "new"), *(around[1] if staged else [])]


@pytest.mark.parametrize("staged", ["ours wins", "staged wins"])
def test_a_staged_password_is_finalised_where_nobody_saved_in_between(sb: Sandbox, seeded: Seeded, staged: str) -> None:
    record = seeded.records["crm-sync"]
    secret = record.value("client_secret")
    sb.vault.attach_script(record, ECHO)
    run = sb.gateway.rotate(record.uid, command=sys.executable, staged=staged)
    assert record.value("password") == json.loads(run.stdout)["stdin"]["newPassword"]
    assert record.value("client_secret") == secret
    with pytest.raises(ValueError, match="staged"), sb.gateway.staging(record.uid, "nobody wins"):
        pass


def test_faults_do_not_meet_the_gateways_own_reading(sb: Sandbox, seeded: Seeded) -> None:
    record = seeded.records["crm-sync"]
    sb.vault.attach_script(record, ECHO)
    sb.faults.add(Fault("*", times=None))
    rotate(sb, record.uid)
    assert sb.faults.fired == []


def test_watchers_see_every_change_of_either_store(
    sb: Sandbox, seeded: Seeded, graph: Any, ksm: Callable[..., Any]
) -> None:
    app, record = seeded.applications["billing-api"], seeded.records["billing-api"]
    seen: list[tuple[str, str, int, object]] = []

    def look(sandbox: Sandbox, entry: Entry) -> None:
        seen.append((entry.service, entry.op, len(app.live_secrets()), record.value("client_secret_id")))

    sb.watch(look)
    made = graph.add(f"/{app.object_id}").json()
    graph.get(f"/{app.object_id}")
    manager = ksm()
    (copy,) = manager.get_secrets([record.uid])
    copy.custom_field("client_secret_id", value=made["keyId"])
    manager.save(copy)
    old = app.live_secrets()[0].key_id
    graph.remove(f"/{app.object_id}", old)
    graph.remove(f"/{app.object_id}", old)
    record.edit("note", "x")
    assert seen == [
        ("graph", "addPassword", 2, old),
        ("keeper", "update_secret", 2, made["keyId"]),
        ("graph", "removePassword", 1, made["keyId"]),
        ("outside", "edit", 1, made["keyId"]),
    ]


def test_what_a_watcher_raises_fails_the_test() -> None:
    def refuse(sandbox: Sandbox, entry: Entry) -> None:
        raise AssertionError("not allowed")

    sb = Sandbox().start()
    sb.watch(refuse)
    sb.vault.pam_user("app")
    with pytest.raises(SandboxError):
        sb.stop()


def test_the_log_holds_no_secret(
    sb: Sandbox, seeded: Seeded, graph: Any, ksm: Callable[..., Any], sign_in: Callable[..., Any]
) -> None:
    app = seeded.applications["billing-api"]
    made = graph.add(f"/{app.object_id}").json()["secretText"]
    sign_in(app.client_id, made)
    sign_in(app.client_id, "a wrong one")
    manager = ksm()
    (copy,) = manager.get_secrets([seeded.records["billing-api"].uid])
    manager.save(copy)
    text = repr(sb.log)
    secrets = [
        made,
        "a wrong one",
        seeded.admin_secret.text,
        graph.session.headers["Authorization"][7:],
        seeded.records["billing-api"].value("client_secret"),
    ]
    assert [secret for secret in secrets if secret in text] == []


def test_many_clients_at_once(sb: Sandbox, seeded: Seeded, graph: Any, ksm: Callable[..., Any]) -> None:
    app, record = seeded.applications["billing-api"], seeded.records["billing-api"]
    headers = dict(graph.session.headers)

    def add(_number: int) -> bool:
        return requests.post(
            f"{graph.root}/applications/{app.object_id}/addPassword", json={}, headers=headers, timeout=60
        ).ok

    def save(_number: int) -> str:
        manager = ksm()
        (copy,) = manager.get_secrets([record.uid])
        try:
            manager.save(copy)
        except KeeperError as error:
            return str(error)
        return "saved"

    with ThreadPoolExecutor(16) as pool:
        added, saved = list(pool.map(add, range(40))), list(pool.map(save, range(40)))
    assert all(added)
    assert len(app.live_secrets()) == 41
    done = saved.count("saved")
    assert done > 0
    assert all("out of sync" in one for one in saved if one != "saved")
    assert len([entry for entry in sb.log if entry.op == "update_secret" and entry.status == 200]) == done


def test_it_leaves_nothing_behind() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begun = time.monotonic()
        with Sandbox() as sb:
            session = requests.Session()
            url = f"https://{sb.authority}/{sb.tenant_id}/v2.0/.well-known/openid-configuration"
            assert session.get(url, verify=sb.ca_file, timeout=20).ok
            folder, keeper = Path(sb.ca_file).parent, f"https://{sb.keeper_host}/"
        assert time.monotonic() - begun < 5
        assert not folder.exists()
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(keeper, timeout=5)
        session.close()


def test_endpoints_are_known_once_it_runs() -> None:
    with pytest.raises(RuntimeError):
        Sandbox().vault.azure_configuration("a", "b", "c")


def test_the_seeded_tenant_is_as_described(sb: Sandbox, seeded: Seeded) -> None:
    for name, record in seeded.records.items():
        app = seeded.applications[name]
        assert sb.directory.signs_in(app.client_id, record.value("client_secret"))
        assert record.value("client_secret_id") in [one.key_id for one in app.live_secrets()]
    assert seeded.records["crm-sync"].value("application_object_id") == seeded.applications["crm-sync"].client_id
    assert len(seeded.applications["orders-worker"].live_secrets()) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_as_a_program_until_told_to_stop(number: int) -> None:
    argv = [sys.executable, "-W", "error", "-m", "sandbox"]
    with subprocess.Popen(argv, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert set(told["records"]) == {"billing-api", "orders-worker", "crm-sync"}
        url = f"https://{told['authority']}/{told['tenant_id']}/v2.0/.well-known/openid-configuration"
        assert requests.get(url, verify=told["environment"]["REQUESTS_CA_BUNDLE"], timeout=20).ok
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_help_says_what_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", "--help"], cwd=TESTS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "usage: python -m sandbox" in done.stdout
