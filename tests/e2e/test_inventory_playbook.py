# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shipped playbook over the hosts of the inventory: waves, limits, and a recap that is each host's own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fleets import FleetJudge, make_fleet

from leaks import pieces_in
from sandbox import Fault, Sandbox
from sandbox.seed import Seeded, seed

#: What is said to finish whatever a run has left, night after night.
NIGHTLY = {"rotate_hosts": "all:!broken", "rotate_mode": "expiring"}


def start(
    sandbox: Sandbox,
    home: Path,
    *arguments: str,
    config: dict[str, str] | None = None,
    options: str = "",
    settings: dict[str, str] | None = None,
    **variables: Any,
) -> subprocess.Popen[str]:
    """Start the playbook with an inventory of the vault, with a device of its own, in a session of its own.

    `options` are lines of the inventory, `settings` are for the environment.
    """
    home.mkdir(exist_ok=True)
    (home / "all.app_records.yml").write_text(f"plugin: keeperpam.azure.app_records\n{options}", "utf-8")
    environ = sandbox.environ(
        GATEWAY_CONFIG=None,
        KSM_CONFIG=json.dumps(config or sandbox.client_config()),
        HOME=str(home),
        LC_ALL="C.UTF-8",
        **{name: os.environ[name] for name in ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "ANSIBLE_NOCOLOR")},
        **(settings or {}),
    )
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "keeperpam.azure.rotate", "-i", str(home / "all.app_records.yml"), *arguments]
    command += ["-e", json.dumps({"rotate_retire_after": 0, **variables})]
    return subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


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


@pytest.mark.parametrize(("limit", "waves"), [(0, 1), (None, 2)])
def test_a_wave_in_which_too_many_fail_is_the_last(tmp_path: Path, limit: int | None, waves: int) -> None:
    """Of its two hosts one fails: that alone is no reason to stop."""
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        tenant.records["billing-api"].editable = False
        variables = {"rotate_pam_config": tenant.configuration.uid, "rotate_hosts": ["expiring", "healthy"]}
        code, said = play(sandbox, tmp_path, rotate_serial="2,100%", rotate_max_fail_percentage=limit, **variables)
        assert code == 2, said
        assert said.count("TASK [Rotate a wave]") == waves
        found = recap(said)
        assert sum(counts["failed"] for counts in found.values()) == 1
        assert len(rotated(tenant)) == waves
        assert len({record.uid for record in tenant.records.values()} & set(found)) == waves + 1
        left_out = {"rotate_hosts": f"all:!broken:!{tenant.records['billing-api'].uid}"}
        code, said = play(sandbox, tmp_path, **{**variables, **left_out})
        assert code == 0, said
        assert rotated(tenant) == {"crm-sync", "orders-worker"}


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
        options = "groups: {urgent: keeper_days_left < -9}"
        for group in ("expired", "urgent", "all:&expired"):
            code, said = play(sandbox, tmp_path, options=options, rotate_hosts=group)
            assert code == 0, said
            assert f"Nothing to rotate: no host is in {group}." in said


def test_an_inventory_that_was_not_read_is_a_failure(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        seed(sandbox)
        for arguments in ((), ("-i", "web1,")):
            code, said = play(sandbox, tmp_path, *arguments, options="folders: [elsewhere]", rotate_hosts="all")
            assert code == 2, said
            assert "no inventory of keeperpam.azure.app_records was read" in said
            assert "ANSIBLE_INVENTORY_UNPARSED_FAILED=1" in said
        settings = {"ANSIBLE_INVENTORY_UNPARSED_FAILED": "1"}
        code, said = play(sandbox, tmp_path, options="folders: [elsewhere]", settings=settings, rotate_hosts="all")
        assert code != 0
        assert "PLAY [" not in said


@pytest.mark.parametrize("pattern", ["expird,healthy", ["healthy", "all:&expird"], "expird"])
def test_a_name_that_is_neither_host_nor_group_is_a_failure(tmp_path: Path, pattern: str | list[str]) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        code, said = play(sandbox, tmp_path, rotate_hosts=pattern, rotate_pam_config=tenant.configuration.uid)
        assert code == 2, said
        assert "there is no host or group expird" in said
        assert rotated(tenant) == set()


def test_hosts_are_what_each_item_of_a_list_says(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        pattern = ["all:!never_rotated", tenant.records["crm-sync"].uid]
        code, said = play(sandbox, tmp_path, rotate_hosts=pattern, rotate_pam_config=tenant.configuration.uid)
        assert code == 0, said
        assert rotated(tenant) == set(tenant.applications)


def test_a_wave_is_one_call_whatever_strategy_is_set(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        code, said = play(
            sandbox,
            tmp_path,
            settings={"ANSIBLE_STRATEGY": "free"},
            rotate_hosts="all",
            rotate_pam_config=tenant.configuration.uid,
        )
        assert code == 0, said
        assert [entry.op for entry in sandbox.log].count("addPassword") == 3


@pytest.mark.parametrize("serial", ["one", "50 %", "1.5", 0, "1,,2", ["1", "x"], True])
def test_a_size_of_waves_that_cannot_be_read_is_refused(tmp_path: Path, serial: Any) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        variables = {"rotate_hosts": "all", "rotate_pam_config": tenant.configuration.uid}
        code, said = play(sandbox, tmp_path, rotate_serial=serial, **variables)
        assert code == 2, said
        assert "rotate_serial must be" in said
        assert rotated(tenant) == set()


@pytest.mark.parametrize("limit", ["rotate_canary", "rotate_max_failures"])
def test_limits_that_do_not_act_on_hosts_are_refused(tmp_path: Path, limit: str) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        variables = {"rotate_hosts": "all", "rotate_pam_config": tenant.configuration.uid}
        code, said = play(sandbox, tmp_path, **{limit: 0}, **variables)
        assert code == 2, said
        assert "use rotate_serial and rotate_max_fail_percentage" in said
        assert rotated(tenant) == set()


def test_records_and_hosts_together_are_refused(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        uid = tenant.records["crm-sync"].uid
        variables = {"rotate_hosts": "expiring", "rotate_pam_config": tenant.configuration.uid}
        code, said = play(sandbox, tmp_path, rotate_records=uid, **variables)
        assert code == 2, said
        assert "rotate_records and rotate_hosts are both given" in said
        assert rotated(tenant) == set()


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


def test_hosts_that_are_no_records_are_refused_before_anything_changes(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        variables = {"rotate_hosts": "all", "rotate_pam_config": tenant.configuration.uid}
        code, said = play(sandbox, tmp_path, "-i", "web1,", **variables)
        assert code == 2, said
        assert "are no records" in said
        assert rotated(tenant) == set()


@pytest.mark.parametrize("waves", [1, 2])
def test_hosts_that_share_an_application_fail_alone(tmp_path: Path, waves: int) -> None:
    """Also where they lie in different waves."""
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        record = tenant.records["billing-api"]
        same = tenant.applications["billing-api"].object_id
        copy = sandbox.vault.pam_user("copy", folder=sandbox.vault.folder_uid, application_object_id=same)
        hosts = [tenant.records["crm-sync"].uid, record.uid, copy.uid, tenant.records["orders-worker"].uid]
        variables = {"rotate_hosts": hosts, "rotate_pam_config": tenant.configuration.uid}
        code, said = play(sandbox, tmp_path, rotate_serial=4 // waves, **variables)
        assert code == 2, said
        assert said.count("TASK [Rotate a wave]") == waves
        assert {uid for uid, counts in recap(said).items() if counts["failed"]} == {record.uid, copy.uid}
        assert f"several of the hosts name its application: {record.uid} and {copy.uid}" in said
        assert rotated(tenant) == {"orders-worker", "crm-sync"}


@pytest.mark.parametrize("by", ["field", "option"])
def test_hosts_that_share_an_application_are_rotated_where_one_adopts_the_other(tmp_path: Path, by: str) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        record = tenant.records["billing-api"]
        fields = {"adopt": record.uid} if by == "field" else {}
        same = tenant.applications["billing-api"].object_id
        copy = sandbox.vault.pam_user("copy", folder=sandbox.vault.folder_uid, application_object_id=same, **fields)
        variables = {"rotate_hosts": "all", "rotate_pam_config": tenant.configuration.uid}
        given = {"rotate_adopt": record.uid} if by == "option" else {}
        code, said = play(sandbox, tmp_path, **variables, **given)
        assert code == 0, said
        assert rotated(tenant) == set(tenant.applications)
        assert copy.value("client_secret") in {one.text for one in tenant.applications["billing-api"].live_secrets()}


def test_check_mode_says_what_would_change(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        code, said = play(sandbox, tmp_path, "--check", rotate_hosts="all", rotate_pam_config=tenant.configuration.uid)
        assert code == 0, said
        assert rotated(tenant) == set()
        assert "would be rotated" in said


def test_two_slices_with_two_devices_rotate_one_tenant(tmp_path: Path) -> None:
    """As two nodes of a workflow in AWX: each its slice of the hosts, a device of its own, at the same time."""
    slices = (
        "keyed_groups:\n  - key: ((keeper_record | hash('sha256'))[:8] | int(0, 16) % 2) | string\n    prefix: slice\n"
    )
    with make_fleet(8) as fleet:
        sandbox = fleet.first.sandbox
        sandbox.vault.throttle = True
        devices = [sandbox.client_config() for _slice in range(2)]
        jobs = [
            start(
                sandbox,
                tmp_path / str(number),
                config=device,
                options=slices,
                rotate_hosts=f"slice_{number}:!broken",
                rotate_mode="expiring",
                rotate_pam_config=fleet.first.configuration.uid,
            )
            for number, device in enumerate(devices)
        ]
        said = [job.communicate()[0] for job in jobs]
        assert [job.returncode for job in jobs] == [0, 0], said
        assert all(world.agrees() and not world.untouched() for world in fleet.worlds)
        assert [entry.op for entry in sandbox.log].count("addPassword") == 8
        done = [{uid for uid, counts in recap(text).items() if counts["changed"]} for text in said]
        assert done[0] | done[1] == set(fleet.uids())
        assert done[0] & done[1] == set()
        assert all(done)
        seen = {one.client_id for one in sandbox.vault.devices.values() if one.was_here and not one.unseen}
        assert seen == {device["clientId"] for device in devices}
        assert len(seen) == 2


def test_what_a_run_has_left_is_finished_by_the_nightly_form(tmp_path: Path) -> None:
    with make_fleet(3) as fleet:
        sandbox, left = fleet.first.sandbox, fleet.worlds[1]
        judge = FleetJudge(fleet)
        given = {"rotate_pam_config": fleet.first.configuration.uid}
        sandbox.faults.add(Fault("removePassword", times=None, status=403, about=left.app.object_id))
        code, said = play(sandbox, tmp_path, **NIGHTLY, **given)
        assert code == 2, said
        assert [uid for uid, counts in recap(said).items() if counts["failed"]] == [left.record.uid]
        assert "INCOMPLETE" in said
        sandbox.faults.clear()
        code, said = play(sandbox, tmp_path, rotate_hosts="expired,expiring", **given)
        assert code == 0, said
        assert "Nothing to rotate" in said
        assert len(left.live()) == 2
        code, said = play(sandbox, tmp_path, **NIGHTLY, **given)
        assert code == 0, said
        judge.complete()
        assert judge.verdict.problems == []
        assert [entry.op for entry in sandbox.log].count("addPassword") == 3
        before = len(sandbox.log)
        code, said = play(sandbox, tmp_path, **NIGHTLY, **given)
        assert code == 0, said
        operations = Counter(entry.op for entry in sandbox.log[before:])
        assert operations["get_application"] == 2 * 3
        assert operations["token"] == 3 * 3 + 1  # the other one is the admin application's
        assert {"addPassword", "update_secret", "removePassword"}.isdisjoint(operations)


def remains_of(home: Path) -> list[int]:
    """Return the processes that were started with this home."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environ = (place / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended, or is somebody else's
        if f"HOME={home}".encode() in environ:
            found.append(int(place.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("op", ["addPassword", "update_secret"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_it_with_each_application_old_or_new(tmp_path: Path, number: signal.Signals, op: str) -> None:
    """Ctrl-C goes to all processes of a terminal, SIGTERM to the one that is named."""
    with make_fleet(12) as fleet:
        sandbox = fleet.first.sandbox
        judge = FleetJudge(fleet)
        sandbox.faults.latency = lambda op: 0.03
        given = {"rotate_pam_config": fleet.first.configuration.uid, "rotate_concurrency": 4}
        sent, due = threading.Event(), Counter[str]()
        running: list[subprocess.Popen[str]] = []

        def watch(_sandbox: object, entry: Any) -> None:
            due[entry.op] += 1
            if due[op] == 5 and not sent.is_set():
                sent.set()
                (os.killpg if number == signal.SIGINT else os.kill)(running[0].pid, number)

        sandbox.watch(watch)
        running.append(start(sandbox, tmp_path, **NIGHTLY, **given))
        said, _nothing = running[0].communicate()
        assert sent.is_set(), said
        deadline = time.monotonic() + 60
        while remains_of(tmp_path):
            assert time.monotonic() < deadline, "something goes on running"
            time.sleep(0.1)
        assert running[0].returncode != 0
        assert "PLAY RECAP" not in said
        # At times ansible-core ends its worker before that has told the module of SIGINT: it goes on to its end then.
        to_the_end = number == signal.SIGINT and all(world.agrees() and not world.untouched() for world in fleet.worlds)
        assert due["addPassword"] < 12 or to_the_end
        assert judge.verdict.problems == []
        for world in fleet.worlds:
            assert world.untouched() or (world.published() and world.shows() != world.old.key_id)
            assert world.live() <= {world.shows(), world.old.key_id}
        code, said = play(sandbox, tmp_path, **NIGHTLY, **given)
        assert code == 0, said
        judge.complete()
        assert judge.verdict.problems == []
