# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shipped playbook with the real ansible-playbook, and the demonstration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import CHECKOUT

from sandbox import Sandbox
from sandbox.seed import Seeded, seed


def play(sandbox: Sandbox, home: Path, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the playbook by its name; it does not let old secrets live on, unless told to."""
    environ = sandbox.environ(
        GATEWAY_CONFIG=None,
        KSM_CONFIG=json.dumps(sandbox.client_config()),
        HOME=str(home),
        LC_ALL="C.UTF-8",
        **{name: os.environ[name] for name in ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "ANSIBLE_NOCOLOR")},
    )
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "keeperpam.azure.rotate", "-e", json.dumps({"rotate_retire_after": 0, **variables}), *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def agree(tenant: Seeded, name: str) -> bool:
    """Return whether the vault shows the one secret of the application."""
    record = tenant.records[name]
    live = [(one.key_id, one.text) for one in tenant.applications[name].live_secrets()]
    return live == [(record.value("client_secret_id"), record.value("client_secret"))]


def test_it_rotates_all_although_one_fails_and_prints_no_secret(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        old = [one.text for app in tenant.applications.values() for one in app.live_secrets()]
        tenant.records["crm-sync"].editable = False
        uids = [tenant.records[name].uid for name in ("crm-sync", "billing-api", "orders-worker")]
        done = play(
            sandbox,
            tmp_path,
            "-vvvv",
            "--diff",
            rotate_records=uids,
            rotate_pam_config=tenant.configuration.uid,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 2, output
        assert last(done)[0] == "3 records: 2 rotated, 1 refused"
        assert agree(tenant, "billing-api")
        assert agree(tenant, "orders-worker")
        assert "is read-only" in output
        for name in ("billing-api", "orders-worker"):
            record = tenant.records[name]
            assert f"--- before: '{name}' ({record.uid})\n+++ after: '{name}' ({record.uid})\n" in output
            assert f'+        "client_secret_id": "{record.value("client_secret_id")}",\n' in output
        config = sandbox.client_config()
        new = [one.text for app in (*tenant.applications.values(), tenant.admin) for one in app.live_secrets()]
        for secret in (*old, *new, config["privateKey"], config["appKey"]):
            assert secret not in output


def test_check_mode_changes_nothing(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        before = json.dumps([record.data for record in tenant.records.values()])
        uids = [record.uid for record in tenant.records.values()]
        variables = {"rotate_records": uids, "rotate_pam_config": tenant.configuration.uid}
        done = play(sandbox, tmp_path, "--check", **variables)
        assert done.returncode == 0, done.stdout
        assert "would be rotated" in done.stdout
        assert json.dumps([record.data for record in tenant.records.values()]) == before
        assert not {entry.op for entry in sandbox.log} & {"addPassword", "removePassword", "update_secret"}


def last(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what the last task has said, line by line."""
    text = done.stdout[done.stdout.rindex("TASK [") :]
    start = text.index('"msg": [') + len('"msg": ')
    said: list[str] = json.loads(text[start : text.index("]\n", start) + 1])
    return said


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"rotate_records": []},
        {"rotate_records": ""},
        {"rotate_records": None},
        {"rotate_records": {"a": 1}},
        {"rotate_records": "billing api"},
        {"rotate_records": ["ZmpJl4qCXJEi0ohFKzzQaA", "short"]},
    ],
)
def test_records_that_cannot_be_used(tmp_path: Path, variables: dict[str, Any]) -> None:
    with Sandbox() as sandbox:
        done = play(sandbox, tmp_path, **variables)
        assert sandbox.log == []
    assert done.returncode == 2
    assert "rotate_records must be" in done.stdout


@pytest.mark.parametrize("form", ["lines", "commas"])
def test_records_as_a_survey_gives_them_and_answers_that_were_left_empty(tmp_path: Path, form: str) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        uids = [tenant.records[name].uid for name in ("billing-api", "crm-sync")]
        empty = dict.fromkeys(
            ("admin_record", "keeper_config", "mode", "min_days_left", "lifetime_days", "keep_previous", "retire"), ""
        )
        nothing = dict.fromkeys(("keeper_config_file", "verify", "verify_timeout"))
        done = play(
            sandbox,
            tmp_path,
            rotate_records="\n".join(uids) + "\n" if form == "lines" else ", ".join(uids),
            rotate_pam_config=tenant.configuration.uid,
            rotate_logs_days=7,
            **{f"rotate_{name}": value for name, value in {**empty, **nothing}.items()},
        )
        assert done.returncode == 0, done.stdout
        assert agree(tenant, "billing-api")
        assert agree(tenant, "crm-sync")
        assert last(done)[0] == "2 records: 2 rotated"


def test_zero_and_false_are_answers(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        done = play(
            sandbox,
            tmp_path,
            "-v",
            rotate_records=tenant.records["billing-api"].uid,
            rotate_pam_config=tenant.configuration.uid,
            rotate_verify=False,
            rotate_lifetime_days=0,
        )
        assert done.returncode == 2
        assert "lifetime_days is 0" in done.stdout


@pytest.mark.parametrize(
    ("name", "meant"), [("rotate_record", "rotate_records"), ("rotate_lifetime", "rotate_lifetime_days")]
)
def test_a_variable_that_is_nearly_one_of_ours_is_refused(tmp_path: Path, name: str, meant: str) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        variables = {"rotate_records": tenant.records["billing-api"].uid, name: 1}
        done = play(sandbox, tmp_path, **variables)
        assert sandbox.log == []
    assert done.returncode == 2
    assert f"{name} (did you mean {meant}?)" in done.stdout


def test_the_last_message_has_a_line_for_each_record(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        tenant.records["crm-sync"].editable = False
        uids = [tenant.records[name].uid for name in ("crm-sync", "billing-api", "orders-worker")]
        done = play(sandbox, tmp_path, rotate_records=[*uids, "A" * 22], rotate_pam_config=tenant.configuration.uid)
        assert done.returncode == 2
        said = last(done)
        assert said[0] == "4 records: 2 rotated, 1 refused, 1 bad_input"
        assert [next(uid for uid in (*uids, "A" * 22) if uid in line) for line in said[1:]] == [
            uids[1],
            uids[2],
            uids[0],
            "A" * 22,
        ]
        assert "Next: " in said[-1]
        assert "Next: " in said[-2]


def test_others_begin_when_the_first_ones_are_complete(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        tenant.records["crm-sync"].editable = False
        uids = [tenant.records[name].uid for name in ("crm-sync", "billing-api", "orders-worker")]
        variables = {"rotate_records": uids, "rotate_pam_config": tenant.configuration.uid}
        for limits in ({"rotate_canary": 1}, {"rotate_max_failures": 0, "rotate_concurrency": 1}):
            done = play(sandbox, tmp_path, **variables, **limits)
            assert done.returncode == 2
            assert last(done)[0] == "3 records: 3 refused"
        assert "addPassword" not in {entry.op for entry in sandbox.log}


def test_a_title_with_a_template_in_it_is_shown_as_it_is(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        application, record = tenant.applications["billing-api"], tenant.records["billing-api"]
        application.display_name = record.data["title"] = "{{ 6 * 7 }}"
        done = play(sandbox, tmp_path, rotate_records=record.uid, rotate_pam_config=tenant.configuration.uid)
        assert done.returncode == 0, done.stdout
        assert "{{ 6 * 7 }}" in last(done)[1]


@pytest.mark.parametrize("check", [False, True])
def test_records_that_name_one_application_are_refused_and_others_are_not(tmp_path: Path, check: bool) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        application, record = tenant.applications["billing-api"], tenant.records["billing-api"]
        # By its client id where the other has its object id.
        copy = sandbox.vault.pam_user(
            "billing-api (copy)", folder=sandbox.vault.folder_uid, application_object_id=application.client_id
        )
        variables: dict[str, Any] = {
            "rotate_records": [record.uid, tenant.records["crm-sync"].uid, copy.uid],
            "rotate_pam_config": tenant.configuration.uid,
        }
        arguments = ("--check",) if check else ()
        done = play(sandbox, tmp_path, *arguments, **variables)
        assert done.returncode == 2
        said = last(done)
        assert said[0] == f"3 records: 1 {'planned' if check else 'rotated'}, 2 refused"
        assert f"several of the records name this application: {record.uid} and {copy.uid}" in said[2]
        assert f"several of the records name this application: {copy.uid} and {record.uid}" in said[3]
        written = [entry.detail for entry in sandbox.log if entry.op in ("addPassword", "removePassword")]
        assert not [detail for detail in written if application.object_id in detail]
        assert bool(written) is not check


def test_records_that_name_one_application_are_rotated_where_all_but_one_are_given_up(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        application, record = tenant.applications["billing-api"], tenant.records["billing-api"]
        copy = sandbox.vault.pam_user(
            "billing-api (copy)", folder=sandbox.vault.folder_uid, application_object_id=application.client_id
        )
        done = play(
            sandbox,
            tmp_path,
            "--check",
            rotate_records=[record.uid, copy.uid],
            rotate_pam_config=tenant.configuration.uid,
            rotate_adopt=[copy.uid],
        )
        assert done.returncode == 0, done.stdout
        assert last(done)[0] == "2 records: 2 planned"


def test_a_record_is_rotated_once_however_many_hosts_there_are(tmp_path: Path) -> None:
    (tmp_path / "inventory").write_text("[web]\na\nb\nc\nlocalhost\n")
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        done = play(
            sandbox,
            tmp_path,
            "-i",
            str(tmp_path / "inventory"),
            rotate_records=tenant.records["billing-api"].uid,
            rotate_pam_config=tenant.configuration.uid,
        )
        assert done.returncode == 0, done.stdout
        assert [entry.op for entry in sandbox.log].count("addPassword") == 1


def test_the_demonstration_ends_in_agreement_in_an_odd_place(tmp_path: Path) -> None:
    """A checkout without git, a path with a space, a terminal without UTF-8, a proxy that knows no loopback."""
    checkout = tmp_path / "with a space"
    subprocess.run([str(CHECKOUT / "tests" / "tools" / "clean_copy.sh"), str(checkout)], check=True)
    (checkout / ".venv").symlink_to(sys.prefix)
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environ = {"PATH": os.environ["PATH"], "LANG": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", **proxies}
    done = subprocess.run(["make", "demo"], cwd=checkout, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The vault and Entra agree" in done.stdout
