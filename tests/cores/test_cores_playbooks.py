# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shipped playbooks on every supported ansible-core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commander_office import FIRST, SECRET, make_office
from harness import CHECKOUT, SCRIPT, make_world

from cores import ONE_EACH, Controller, Core
from leaks import pieces_in
from sandbox import Sandbox
from sandbox.seed import seed

one_each = pytest.mark.parametrize("core", ONE_EACH, ids=str)


def last(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what the last task of rotate.yml has said."""
    text = done.stdout[done.stdout.rindex("TASK [") :]
    start = text.index('"msg": [') + len('"msg": ')
    said: list[str] = json.loads(text[start : text.index("]\n", start) + 1])
    return said


def test_rotate(controller: Controller) -> None:
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        config = {**sandbox.client_config(), "a number": "7"}
        tenant.records["crm-sync"].editable = False
        tenant.records["billing-api"].data["title"] = "{{ 6 * 7 }}"
        tenant.applications["billing-api"].display_name = "{{ 6 * 7 }}"
        uids = [tenant.records[name].uid for name in ("crm-sync", "billing-api", "orders-worker")]
        variables: dict[str, Any] = {
            "rotate_records": "\n".join(uids),
            "rotate_pam_config": tenant.configuration.uid,
            "rotate_keeper_config": config,
            "rotate_mode": "",
            "rotate_verify": None,
            "rotate_retire_after": 0,
            "rotate_logs_days": 7,
        }
        done = controller.play(sandbox, "keeperpam.azure.rotate", variables, "-vvvv", "--diff")
        assert done.returncode == 2, done.stdout
        said = last(done)
        assert said[0] == "3 records: 2 rotated, 1 refused"
        assert [uid in line for uid, line in zip((*uids[1:], uids[0]), said[1:])] == [True] * 3
        assert "{{ 6 * 7 }}" in said[1]
        assert "Next: " in said[3]
        held = [one.text for app in (*tenant.applications.values(), tenant.admin) for one in app.live_secrets()]
        secrets = [*held, *sandbox.issued_tokens(), *(config[name] for name in ("privateKey", "appKey", "clientId"))]
        assert pieces_in(done.stdout + done.stderr, secrets) == []


# The oldest, the newest, and the first that tells data from templates.
@pytest.mark.parametrize("core", [core for core in ONE_EACH if core.version in ("2.16", "2.19", "2.21")], ids=str)
def test_report(controller: Controller, tmp_path: Path) -> None:
    with make_world() as world:
        world.app.display_name = "{{ 6 * 7 }} <b>"
        variables = {
            "report_pam_config": world.configuration.uid,
            "report_keeper_config": world.sandbox.client_config(),
            "report_fail_on": "expiring",
            **{f"report_{name}": str(tmp_path / f"a.{name}") for name in ("html", "json", "csv")},
            "report_textfile": str(tmp_path / "a.prom"),
        }
        done = controller.play(world.sandbox, "keeperpam.azure.report", variables)
        assert done.returncode == 2, done.stdout
        assert "expiring {{ 6 * 7 }} <b>: current" in done.stdout
        files = {path.suffix: path.read_text("utf-8") for path in tmp_path.glob("a.*")}
        assert set(files) == {".html", ".json", ".csv", ".prom"}
        assert ">{{ 6 * 7 }} &lt;b&gt;</a>" in files[".html"]
        assert json.loads(files[".json"])["worst"] == "expiring"
        assert "\r" not in files[".prom"]
        assert pieces_in("".join(files.values()) + done.stdout + done.stderr, world.secrets()) == []


@one_each
@pytest.mark.parametrize("slip", ["rotate_record", "shared"])
def test_rotate_refuses_before_anything_changes(controller: Controller, slip: str) -> None:
    with make_world() as world:
        copy = world.sandbox.vault.pam_user(
            "a copy", folder=world.sandbox.vault.folder_uid, application_object_id=world.app.client_id
        )
        variables = {
            "rotate_records": [world.record.uid, copy.uid],
            "rotate_pam_config": world.configuration.uid,
            "rotate_keeper_config": json.dumps(world.sandbox.client_config()),
            **({} if slip == "shared" else {slip: "x"}),
        }
        done = controller.play(world.sandbox, "keeperpam.azure.rotate", variables)
        assert done.returncode == 2, done.stdout
        wanted = "did you mean rotate_records?" if slip == "rotate_record" else f"{world.record.uid} and {copy.uid}"
        assert wanted in done.stdout
        assert world.untouched()


@one_each
@pytest.mark.parametrize("method", ["ksm", "manual"])
def test_attach_pam_script(controller: Controller, method: str) -> None:
    with make_world() as world:
        variables = {
            "attach_records": [
                {"uid": world.record.uid, "application_object_id": world.app.object_id, "client_secret": FIRST}
            ],
            "attach_script": str(SCRIPT),
            "attach_ksm_config": {**world.sandbox.client_config(), "a number": "7"},
            "attach_method": method,
        }
        done = controller.play(world.sandbox, "keeperpam.azure.attach_pam_script", variables, "-vvvv")
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert len(world.record.files) == (1 if method == "ksm" else 0)
        assert pieces_in(said, [*world.secrets(), FIRST]) == []


@one_each
def test_attach_pam_script_with_commander(core: Core, controller: Controller, tmp_path: Path) -> None:
    if not core.supports(f"{sys.version_info.major}.{sys.version_info.minor}"):
        pytest.skip("this ansible-core does not support the Python in which Commander is installed here")
    with make_office(tmp_path) as office:
        office.options["records"][0]["client_secret"] = FIRST
        variables = {f"attach_{name}": value for name, value in office.options.items()}
        environ = {
            **office.keeper.variables(),
            "PATH": f"{Path(office.keeper.python).parent}{os.pathsep}{os.environ['PATH']}",
        }

        def play(*arguments: str) -> str:
            done = controller.play(
                office.sandbox, "keeperpam.azure.attach_pam_script", variables, *arguments, **environ
            )
            said = done.stdout + done.stderr
            assert done.returncode == 0, said
            assert pieces_in(said, [SECRET, FIRST, office.keeper.account.config["private_key"]]) == []
            return said

        said = play("--check", "--diff")
        assert "changed=1" in said
        assert "+PAM User billing-api" in said
        assert not office.keeper.account.folders
        assert "changed=1" in play("-vvvv", "--diff")
        assert office.complete()
        assert "changed=0" in play()


@one_each
def test_the_others_can_be_read(controller: Controller) -> None:
    with Sandbox() as sandbox:
        for path in sorted((CHECKOUT / "playbooks").glob("*.yml")):
            name = f"keeperpam.azure.{path.stem}"
            done = controller.play(sandbox, name, {}, "--syntax-check", "-i", "localhost,")
            assert done.returncode == 0, done.stdout + done.stderr
