# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shipped playbook over the hosts of the inventory: waves, limits, and a recap that is each host's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from leaks import pieces_in
from sandbox import Sandbox
from sandbox.seed import Seeded, seed


def start(
    sandbox: Sandbox, home: Path, *arguments: str, config: dict[str, str] | None = None, **variables: Any
) -> subprocess.Popen[str]:
    """Start the playbook with an inventory of the vault, with a device of its own."""
    home.mkdir(exist_ok=True)
    (home / "all.app_records.yml").write_text("plugin: keeperpam.azure.app_records\n", "utf-8")
    environ = sandbox.environ(
        GATEWAY_CONFIG=None,
        KSM_CONFIG=json.dumps(config or sandbox.client_config()),
        HOME=str(home),
        LC_ALL="C.UTF-8",
        **{name: os.environ[name] for name in ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "ANSIBLE_NOCOLOR")},
    )
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "keeperpam.azure.rotate", "-i", str(home / "all.app_records.yml"), *arguments]
    command += ["-e", json.dumps({"rotate_retire_after": 0, **variables})]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def play(sandbox: Sandbox, home: Path, *arguments: str, **variables: Any) -> tuple[int, str]:
    """Run it; return its exit status and what it has said."""
    process = start(sandbox, home, *arguments, **variables)
    said, _nothing = process.communicate()
    return process.returncode, said


def recap(said: str) -> dict[str, dict[str, int]]:
    """Return the counts of each host."""
    lines = re.findall(r"(?m)^(\S+)\s+: (ok=.*)$", said[said.index("PLAY RECAP") :])
    return {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", rest)} for name, rest in lines}


def rotated(tenant: Seeded) -> set[str]:
    """Return the names of the applications whose record shows a secret of a rotation."""
    return {
        name
        for name, app in tenant.applications.items()
        for one in app.live_secrets()
        if one.text == tenant.records[name].value("client_secret") and one.display_name.startswith("keeper/")
    }


def test_the_recap_is_each_hosts_own_and_no_secret_is_said(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        old = [one.text for app in tenant.applications.values() for one in app.live_secrets()]
        tenant.records["crm-sync"].editable = False
        tenant.records["billing-api"].data["title"] = "{{ 6 * 7 }}"
        code, said = play(
            sandbox, tmp_path, "-vvvv", "--diff", rotate_hosts="all", rotate_pam_config=tenant.configuration.uid
        )
        assert code == 2, said
        assert rotated(tenant) == {"billing-api", "orders-worker"}
        found = recap(said)
        uids = {name: record.uid for name, record in tenant.records.items()}
        assert {name: (found[uid]["changed"], found[uid]["failed"]) for name, uid in uids.items()} == {
            "billing-api": (1, 0),
            "orders-worker": (1, 0),
            "crm-sync": (0, 1),
        }
        assert "is read-only" in said
        assert "{{ 6 * 7 }}" in said
        new = [one.text for app in (*tenant.applications.values(), tenant.admin) for one in app.live_secrets()]
        assert pieces_in(said, [*old, *new, *sandbox.issued_tokens()]) == []


def test_a_wave_in_which_too_many_fail_is_the_last(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        for record in tenant.records.values():
            record.editable = False
        variables = {"rotate_pam_config": tenant.configuration.uid, "rotate_hosts": ["expiring", "healthy"]}
        code, said = play(sandbox, tmp_path, rotate_serial="1,2", rotate_max_fail_percentage=0, **variables)
        assert code == 2, said
        assert said.count("TASK [Rotate a wave]") == 1
        assert sum(counts["failed"] for counts in recap(said).values()) == 1


def test_waves(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        variables = {"rotate_pam_config": tenant.configuration.uid, "rotate_hosts": "all"}
        code, said = play(sandbox, tmp_path, rotate_serial=[1, "100%"], rotate_concurrency="1", **variables)
        assert code == 0, said
        assert said.count("TASK [Rotate a wave]") == 2
        assert rotated(tenant) == set(tenant.applications)


def test_no_host_is_no_failure_and_says_so(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        seed(sandbox)
        code, said = play(sandbox, tmp_path, rotate_hosts="expired")
        assert code == 0, said
        assert "Nothing to rotate: no host is in expired." in said


def test_a_limit_leaves_hosts_out(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        variables = {"rotate_pam_config": tenant.configuration.uid, "rotate_hosts": "expiring:healthy"}
        code, said = play(sandbox, tmp_path, "--limit", tenant.records["crm-sync"].uid, **variables)
        assert code == 0, said
        assert rotated(tenant) == {"crm-sync"}


def test_records_that_a_limit_leaves_out_are_a_failure(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        uid = tenant.records["crm-sync"].uid
        code, said = play(
            sandbox, tmp_path, "--limit", uid, rotate_records=uid, rotate_pam_config=tenant.configuration.uid
        )
        assert code == 2, said
        assert "which --limit leaves out" in said
        assert rotated(tenant) == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "name the same application"), (("-i", "web1,"), "are no records")],
)
def test_hosts_that_cannot_be_rotated_are_refused_before_anything_changes(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        if not arguments:
            same = tenant.applications["billing-api"].object_id
            sandbox.vault.pam_user("copy", folder=sandbox.vault.folder_uid, application_object_id=same)
        code, said = play(sandbox, tmp_path, *arguments, rotate_hosts="all", rotate_pam_config=tenant.configuration.uid)
        assert code == 2, said
        assert words in said
        assert rotated(tenant) == set()


def test_check_mode_says_what_would_change(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        code, said = play(sandbox, tmp_path, "--check", rotate_hosts="all", rotate_pam_config=tenant.configuration.uid)
        assert code == 0, said
        assert rotated(tenant) == set()
        assert "would be rotated" in said


def test_two_slices_with_two_devices_rotate_one_tenant(tmp_path: Path) -> None:
    """As two jobs of AWX: each its part of the hosts, a device of its own, at the same time."""
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        sandbox.vault.throttle = True
        uids = sorted(record.uid for record in tenant.records.values())
        variables = {"rotate_hosts": "all", "rotate_pam_config": tenant.configuration.uid}
        jobs = [
            start(sandbox, tmp_path / str(number), "--limit", ",".join(uids[number::2]), **variables)
            for number in range(2)
        ]
        said = [job.communicate()[0] for job in jobs]
        assert [job.returncode for job in jobs] == [0, 0], said
        assert rotated(tenant) == set(tenant.applications)
        assert [entry.op for entry in sandbox.log].count("addPassword") == 3
        found = [recap(text) for text in said]
        assert [{uid for uid in one if one[uid]["changed"]} for one in found] == [set(uids[0::2]), set(uids[1::2])]
