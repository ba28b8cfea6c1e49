# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stand-in for Commander's servers is one that Commander's own commands take for real."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from commander_process import commander_python

from commander import KeeperServer
from sandbox import Sandbox

# The steps of Keeper's page, by Commander's own command classes.
PAGE = """
import json, sys
from keepercommander import api
from keepercommander.config_storage import loader
from keepercommander.params import KeeperParams
from keepercommander.commands.folder import FolderMakeCommand
from keepercommander.commands.ksm import KSMCommand
from keepercommander.commands.record_edit import RecordAddCommand, RecordUpdateCommand
from keepercommander.commands.discoveryrotation import (
    PAMConfigurationNewCommand, PAMCreateRecordRotationCommand, PAMScriptAddCommand)
from keepercommander.proto import enterprise_pb2

config, script = sys.argv[1:]
params = KeeperParams(config_filename=config)
params.config = json.load(open(config))
loader.load_config_properties(params)
params.batch_mode = True
api.login(params)
api.sync_down(params)
folder = FolderMakeCommand().execute(params, folder="Azure //apps", shared_folder=True)
app = json.loads(KSMCommand.add_new_v5_app(params, "Rotation", format_type="json"))["app_uid"]
api.sync_down(params)
KSMCommand.add_app_share(params, [folder], app, True)
(made,) = KSMCommand.add_client(params, app, 1, True, 60, None, client_name="gw", config_init="json", silent=True,
                                client_type=enterprise_pb2.DISCOVERY_AND_ROTATION_CONTROLLER)
pam = PAMConfigurationNewCommand().execute(
    params, config_type="azure", title="Azure", gateway_uid="gw", shared_folder_uid=folder, rotation="on",
    azure_id="contoso", tenant_id="t", subscription_id="s")
api.sync_down(params)
record = RecordAddCommand().execute(
    params, record_type="pamUser", title="billing-api", folder=folder, fields=["login=x", "password=$GEN"])
api.sync_down(params)
RecordUpdateCommand().execute(params, record=record, fields=["c.text.application_object_id=abc"])
api.sync_down(params)
PAMCreateRecordRotationCommand().execute(
    params, record_name=record, config=pam, rotation_profile="scripts_only", schedule_cron_data=["0 0 4 * * ?"],
    enable=True, force=True)
PAMScriptAddCommand().execute(params, script=script, script_command="python3", record=record)
print(json.dumps({"record": record, "config": pam, "client": json.loads(made["config"])}), file=sys.stderr)
"""


def test_what_commander_has_made_is_what_secrets_manager_hands_out(tmp_path: Path) -> None:
    script = tmp_path / "rotate.py"
    script.write_text("print(1)\n", "utf-8")
    with Sandbox() as sandbox, KeeperServer(sandbox, commander_python()) as keeper:
        config = keeper.write_config(tmp_path / "config.json")
        done = subprocess.run(
            [keeper.python, "-c", PAGE, config, str(script)],
            env=keeper.environ(tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stderr.splitlines()[-1])
        assert [folder.name for folder in keeper.account.folders.values()] == ["Azure /apps"]
        record = sandbox.vault.records[made["record"]]
        assert record.value("application_object_id") == "abc"
        assert [(one.name, one.content, one.uid in keeper.account.scripts) for one in record.files] == [
            ("rotate.py", b"print(1)\n", True)
        ]
        rotation = keeper.account.rotations[record.uid]
        assert (rotation.configuration, rotation.disabled) == (made["config"], False)
        assert "0 0 4 * * ?" in rotation.schedule
        assert keeper.router.linked(made["config"], record.uid)["rotation_settings"]["noop"]
        assert keeper.router.settings(made["config"]) == {"rotation": True}

        # The Gateway's client, with nothing but the configuration that was printed once.
        read = subprocess.run(
            [keeper.python, "-c", READ, json.dumps(made["client"]), record.uid],
            env=keeper.environ(tmp_path),
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(read.stdout) == ["billing-api", "abc", "print(1)\n"]
        # And the sandbox's own Gateway runs the script.
        assert sandbox.gateway.rotate(record.uid).stdout == "1\n"


READ = """
import json, sys
from keeper_secrets_manager_core import SecretsManager
from keeper_secrets_manager_core.storage import InMemoryKeyValueStorage
manager = SecretsManager(config=InMemoryKeyValueStorage(sys.argv[1]))
(record,) = manager.get_secrets([sys.argv[2]])
content = record.files[0].get_file_data().decode()
print(json.dumps([record.title, record.custom_field("application_object_id", single=True), content]))
"""
