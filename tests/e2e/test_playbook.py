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
    """Run the playbook by its name."""
    environ = sandbox.environ(
        GATEWAY_CONFIG=None,
        KSM_CONFIG=json.dumps(sandbox.client_config()),
        HOME=str(home),
        LC_ALL="C.UTF-8",
        **{name: os.environ[name] for name in ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "ANSIBLE_NOCOLOR")},
    )
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "keeperpam.azure.rotate", "-e", json.dumps(variables), *arguments]
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
        assert "1 of 3 rotations did not complete" in output
        assert agree(tenant, "billing-api")
        assert agree(tenant, "orders-worker")
        assert "is read-only" in output
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


@pytest.mark.parametrize("records", [[], "a-uid", {"a": 1}])
def test_variables_that_cannot_be_used(tmp_path: Path, records: Any) -> None:
    with Sandbox() as sandbox:
        done = play(sandbox, tmp_path, rotate_records=records)
    assert done.returncode == 2
    assert "rotate_records must be a list" in done.stdout


def test_the_demonstration_ends_in_agreement() -> None:
    environ = {name: os.environ[name] for name in ("PATH", "ANSIBLE_COLLECTIONS_PATH")}
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "tests" / "demo.py")], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The vault and Entra agree" in done.stdout
