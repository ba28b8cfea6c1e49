# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook attach_pam_script without Commander: the methods ksm and manual, against the sandbox."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import SCRIPT, World


def play(world: World, home: Path, **variables: Any) -> tuple[int, str, int]:
    """Run the playbook for the world's record; return its status, its output and how many tasks changed something."""
    names = ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "ANSIBLE_NOCOLOR")
    environ = world.sandbox.environ(
        GATEWAY_CONFIG=None,
        KSM_CONFIG=json.dumps(world.sandbox.client_config()),
        HOME=str(home),
        LC_ALL="C.UTF-8",
        **{name: os.environ[name] for name in names},
    )
    script = home / SCRIPT.name
    if not script.exists():
        script.write_bytes(SCRIPT.read_bytes())
    record = {"uid": world.record.uid, "title": "billing-api", "application_object_id": world.app.object_id}
    given = {"attach_records": [record], "attach_script": str(script), **variables}
    given["attach_script_command"] = sys.executable
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "keeperpam.azure.attach_pam_script", "-e", json.dumps(given)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    for secret in world.secrets():
        assert secret not in done.stdout + done.stderr
    changed = re.search(r"changed=(\d+)", done.stdout)
    return done.returncode, " ".join((done.stdout + done.stderr).split()), int(changed[1]) if changed else -1


def test_ksm_attaches_and_the_gateway_rotates(world: World, tmp_path: Path) -> None:
    custom = world.record.data["custom"]
    custom.remove(next(one for one in custom if one["label"] == "expires"))
    status, output, changed = play(world, tmp_path, attach_method="ksm")
    assert (status, changed) == (0, 2), output
    assert 'Rotation: \\"Run PAM scripts only\\", schedule on-demand, which Keeper Secrets Manager cannot set' in output
    assert world.sandbox.gateway.rotate(world.record.uid).returncode == 0
    assert world.agrees()
    assert play(world, tmp_path, attach_method="ksm")[::2] == (0, 0)
    status, output, changed = play(world, tmp_path, attach_method="ksm", attach_state="absent")
    assert (status, changed) == (0, 1), output
    assert world.record.files == []


def test_without_src_it_is_the_collection_s_own_script(world: World, tmp_path: Path) -> None:
    environ = world.sandbox.environ(
        GATEWAY_CONFIG=None,
        KSM_CONFIG=json.dumps(world.sandbox.client_config()),
        HOME=str(tmp_path),
        LC_ALL="C.UTF-8",
        **{name: value for name, value in os.environ.items() if name.startswith("ANSIBLE_")},
    )
    program = str(Path(sys.executable).with_name("ansible"))
    for given, changed in (("", True), (" command=python3", True), ("", False)):
        command = [program, "localhost", "-m", "keeperpam.azure.pam_script", "-a", f"record={world.record.uid}{given}"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert f'"changed": {str(changed).lower()}' in done.stdout, done.stdout + done.stderr
        assert [one.content for one in world.record.files] == [SCRIPT.read_bytes()]
    assert world.record.files[0].name == SCRIPT.name
    assert not list(tmp_path.rglob(SCRIPT.name))  # nothing is left of it


def test_manual_says_what_to_do_and_changes_nothing(world: World, tmp_path: Path) -> None:
    before = json.dumps(world.sandbox.vault.snapshot())
    status, output, _changed = play(world, tmp_path, attach_method="manual", attach_schedule="0 0 4 * * ?")
    assert status == 0, output
    for text in (
        hashlib.sha256((tmp_path / SCRIPT.name).read_bytes()).hexdigest(),
        f"script command {sys.executable}",
        "schedule 0 0 4 * * ?",
        f"application_object_id = {world.app.object_id}",
        "billing-api: fields done, script still to be done",
    ):
        assert text in output
    assert json.dumps(world.sandbox.vault.snapshot()) == before
    world.sandbox.vault.attach_script(world.record, tmp_path / SCRIPT.name, command=sys.executable)
    assert "billing-api: fields done, script done" in play(world, tmp_path, attach_method="manual")[1]
    world.record.shared = False
    status, output, _changed = play(world, tmp_path, attach_method="manual")
    assert "script could not be compared: the record" in output
