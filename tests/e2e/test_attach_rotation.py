# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From an empty vault to a rotated application: the playbook, the real Commander, and the Gateway that it has made."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from commander_process import commander_python
from harness import SCRIPT

from commander import KeeperServer
from sandbox import Sandbox
from sandbox.crypto import point, url_b64


def play(keeper: KeeperServer, home: Path, *arguments: str, secret: str, **variables: Any) -> tuple[int, str, int]:
    """Run the playbook with the secret in the environment; return its status, its output, and how many tasks have
    changed something."""
    (home / "attach.json").write_text(json.dumps(variables), "utf-8")
    names = ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "ANSIBLE_NOCOLOR")
    path = f"{Path(keeper.python).parent}{os.pathsep}{os.environ['PATH']}"
    environ = keeper.environ(home, PATH=path, ROTATOR_SECRET=secret, **{name: os.environ[name] for name in names})
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "keeperpam.azure.attach_pam_script", "-e", f"@{home}/attach.json", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    changed = re.search(r"changed=(\d+)", output)
    return done.returncode, output, int(changed[1]) if changed else -1


def test_from_an_empty_vault_to_a_rotated_application(tmp_path: Path) -> None:
    keys = tmp_path / "gateway.b64"
    with Sandbox() as sandbox, KeeperServer(sandbox, commander_python()) as keeper:
        admin = sandbox.directory.add_application("keeper-rotator", roles=["Application.ReadWrite.OwnedBy"])
        admin_secret = admin.add_secret("rotator", days=180)
        app = sandbox.directory.add_application("billing-api", owners=[admin.client_id])
        app.add_secret("by hand", days=20)
        variables: dict[str, Any] = {
            "secret": admin_secret.text,
            "attach_records": [{"title": "billing-api", "application_object_id": app.object_id, "retire_after": "0"}],
            "attach_folder": "Azure applications",
            "attach_application": "Azure rotation",
            "attach_gateway": "gateway-1",
            "attach_gateway_config_file": str(keys),
            "attach_pam_config": {
                "title": "Azure production",
                "environment": "azure",
                "tenant_id": sandbox.tenant_id,
                "subscription_id": "0b7f6f0a-54f7-4a6f-9d8e-7f1f0a2f5c33",
                "client_id": admin.client_id,
                # As the guides give it: an extra variable would be read as a template, and a secret may look like one.
                "client_secret": "{{ lookup('ansible.builtin.env', 'ROTATOR_SECRET') }}",
            },
            "attach_script_command": sys.executable,
            "attach_schedule": "monthly",
            "attach_commander_config": keeper.write_config(tmp_path / "config.json"),
        }
        status, output, changed = play(keeper, tmp_path, "--check", "--diff", **variables)
        assert (status, changed) == (0, 1), output
        assert not keeper.account.folders
        assert not keys.exists()
        for line in ("+shared folder Azure applications", "+Gateway gateway-1", "+PAM User billing-api"):
            assert line in output, output

        status, output, changed = play(keeper, tmp_path, "-vvv", **variables)
        assert (status, changed) == (0, 1), output
        record, configuration = keeper.account.record("billing-api"), keeper.account.record("Azure production")
        assert sandbox.vault.snapshot().keys() == {record.uid, configuration.uid}
        assert [(one.name, one.content) for one in record.files] == [(SCRIPT.name, SCRIPT.read_bytes())]
        assert keeper.router.linked(configuration.uid, record.uid)["rotation_settings"]["noop"]
        client = json.loads(base64.b64decode(keys.read_text("utf-8")))
        assert stat.S_IMODE(keys.stat().st_mode) == 0o600
        for secret in (admin_secret.text, client["privateKey"], client["appKey"], keeper.account.config["private_key"]):
            assert secret not in output

        # The Gateway runs the script that Commander has attached, with the configuration that was kept. Sovereign
        # clouds, and the sandbox, are named in the PAM configuration.
        for label, value in (("Azure Authority FQDN", sandbox.authority), ("Azure Graph Endpoint", sandbox.graph_url)):
            configuration.edit(label, value)
        client["serverPublicKey"] = url_b64(point(keeper.key))
        environ = {"GATEWAY_CONFIG": json.dumps(client), "REQUESTS_CA_BUNDLE": keeper.ca_file}
        run = sandbox.gateway.rotate(record.uid, configuration.uid, extra_environ=environ)
        assert run.returncode == 0, run.stderr
        assert sandbox.directory.signs_in(app.client_id, record.value("client_secret"))
        assert [one.key_id for one in app.live_secrets()] == [record.value("client_secret_id")]

        # What the rotation has written stays, and nothing differs.
        before = json.dumps(sandbox.vault.snapshot())
        sandbox.log.clear()
        status, output, changed = play(keeper, tmp_path, **variables)
        assert (status, changed) == (0, 0), output
        assert json.dumps(sandbox.vault.snapshot()) == before
        asked = Counter(entry.op for entry in sandbox.log)
        assert (asked["start_login"], asked["sync_down"]) == (1, 1)

        status, output, changed = play(keeper, tmp_path, **variables, attach_state="absent")
        assert (status, changed) == (0, 1), output
        assert record.files == []
        assert play(keeper, tmp_path, **variables, attach_state="absent")[::2] == (0, 0)
