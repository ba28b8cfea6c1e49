# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory on every supported ansible-core: hosts, groups and cache, and no title that is taken for a template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import make_world

from cores import ONE_EACH, Controller
from leaks import pieces_in

TITLE = "{{ 6 * 7 }} {% raw %}"
PLAYBOOK = Path(__file__).with_name("inventory.yml")


@pytest.mark.parametrize("core", ONE_EACH, ids=str)
def test_the_inventory(controller: Controller, tmp_path: Path) -> None:
    with make_world() as world:
        vault = world.sandbox.vault
        odd = vault.pam_user(TITLE, folder=vault.add_folder("{{ 1 + 1 }}"), application_object_id=world.app.client_id)
        broken = vault.pam_user("bad", application_object_id=world.app.client_id, retire=world.old.text)
        options = {
            "plugin": "keeperpam.azure.app_records",
            "keeper_config": "{{ lookup('ansible.builtin.env', 'GIVEN_CONFIG') }}",
            "compose": {"shown": "keeper_title ~ '!'", "days": "keeper_days_left"},
            "groups": {"urgent": "keeper_days_left < 25"},
            "keyed_groups": [{"key": "keeper_folder", "prefix": "folder"}],
            "cache": True,
            "cache_plugin": "jsonfile",
            "cache_connection": str(tmp_path / "cache"),
        }
        source = tmp_path / "all.app_records.yml"
        source.write_text(json.dumps(options), "utf-8")
        config = world.sandbox.client_config()
        said = ""
        for _time in range(2):
            done = controller.play(
                world.sandbox,
                str(PLAYBOOK),
                {"result": str(tmp_path / "result.json")},
                "-i",
                str(source),
                "-vvvv",
                GIVEN_CONFIG=json.dumps(config),
            )
            assert done.returncode == 0, done.stdout + done.stderr
            said += done.stdout + done.stderr
            found: dict[str, Any] = json.loads((tmp_path / "result.json").read_text("utf-8"))
            hosts, groups = found["hosts"], found["groups"]
            assert set(hosts) == {world.record.uid, odd.uid, broken.uid}
            assert groups["expiring"] == groups["urgent"] == [world.record.uid]
            assert groups["never_rotated"] == [odd.uid]
            assert groups["broken"] == [broken.uid]
            assert groups["expired"] == groups["healthy"] == []
            assert hosts[odd.uid]["keeper_title"] == TITLE
            assert hosts[odd.uid]["keeper_folder"] == "{{ 1 + 1 }}"
            assert hosts[odd.uid]["shown"] == TITLE + "!"
            assert hosts[world.record.uid]["days"] == 19
        assert [name for name in world.operations() if name.startswith("get_")] == ["get_secret", "get_folders"]
        assert broken.uid in said
        said += "".join(path.read_text("utf-8") for path in (tmp_path / "cache").iterdir())
        said += (tmp_path / "result.json").read_text("utf-8")
        keys = [config[name] for name in ("privateKey", "appKey", "clientId")]
        assert pieces_in(said, [*world.secrets(), *keys]) == []


@pytest.mark.parametrize("core", [ONE_EACH[0], ONE_EACH[-1]], ids=str)
def test_rotate_by_hosts(controller: Controller, tmp_path: Path) -> None:
    source = tmp_path / "all.app_records.yml"
    source.write_text("plugin: keeperpam.azure.app_records\n", "utf-8")
    with make_world() as world:
        other = world.sandbox.directory.add_application(TITLE, owners=[world.admin.client_id])
        world.sandbox.vault.pam_user(
            TITLE, folder=world.sandbox.vault.folder_uid, application_object_id=other.object_id
        )
        config = json.dumps(world.sandbox.client_config())

        def rotate(*arguments: str, **variables: Any) -> str:
            given = {"rotate_pam_config": world.configuration.uid, "rotate_retire_after": 0, **variables}
            done = controller.play(
                world.sandbox, "keeperpam.azure.rotate", given, "-i", str(source), *arguments, KSM_CONFIG=config
            )
            assert done.returncode == ("rotate_records" in variables) * 2, done.stdout + done.stderr
            return done.stdout

        said = rotate(rotate_hosts="expiring,never_rotated", rotate_serial="1,100%", rotate_max_fail_percentage=0)
        assert said.count("TASK [Rotate a wave]") == 2
        assert said.count("changed=1") == 2
        assert TITLE in said
        assert world.agrees()
        assert "Nothing to rotate" in rotate(rotate_hosts="expired")
        assert "--limit leaves out" in rotate("--limit", world.record.uid, rotate_records=world.record.uid)
