# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An admin with Commander, a vault, and the module pam_rotation to set it up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commander_process import Ended, commander_python, run_pam_rotation

from commander import KeeperServer
from commander.account import SharedFolder
from sandbox import Sandbox
from sandbox.vault import VaultRecord

GUID = "ec64d6ec-23f2-4391-ac66-58e4b52472f2"
OTHER = "5f2d6c0b-3b1a-4f6e-9c55-0d4a9a3b7e44"
SECRET = "pam~config~secret~of~4711"
FIRST = "the~first~value~of~the~secret~0815"
CONTENT = b"print(1)\n"
NAME = "rotate_azure_app.py"


@dataclass
class Office:
    """An admin with Commander and a vault; `options` are those of the module."""

    keeper: KeeperServer
    home: Path
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def sandbox(self) -> Sandbox:
        return self.keeper.sandbox

    def run(self, check: bool = False, **changes: Any) -> Ended:
        """Run the module; None takes an option away."""
        self.sandbox.log.clear()
        ended = run_pam_rotation(self.keeper, self.home, check, **{**self.options, **changes})
        for secret in (SECRET, FIRST, self.keeper.account.config["private_key"]):
            assert secret not in ended.stdout + ended.stderr
        return ended

    def asked(self) -> Counter[str]:
        """How often each request was made since the last run began."""
        return Counter(entry.op for entry in self.sandbox.log)

    def state(self) -> str:
        """Everything that the services hold."""
        account = self.keeper.account
        shown = {
            "records": self.sandbox.vault.snapshot(),
            "files": {uid: [one.uid for one in record.files] for uid, record in self.sandbox.vault.records.items()},
            "folders": {uid: one.name for uid, one in account.folders.items()},
            "apps": {uid: [one.title, one.shares, list(one.clients)] for uid, one in account.apps.items()},
            "rotations": {uid: vars(one) for uid, one in account.rotations.items()},
            "controllers": account.controllers,
            "edges": self.keeper.router.edges,
        }
        return json.dumps(shown, default=str)

    def set_up(self, **changes: Any) -> Ended:
        """Run the module, and see it succeed."""
        ended = self.run(**changes)
        assert not ended.failed, ended.message
        return ended

    def record(self, title: str = "billing-api") -> VaultRecord:
        """The record with this title."""
        return self.keeper.account.record(title)

    def folder(self) -> SharedFolder:
        """The shared folder."""
        return next(iter(self.keeper.account.folders.values()))

    def entries(self, title: str = "billing-api") -> list[dict[str, Any]]:
        """The PAM Scripts of a record."""
        return [entry for one in self.record(title).data["fields"] if one["type"] == "script" for entry in one["value"]]

    def complete(self, title: str = "billing-api") -> bool:
        """Whether a rotation of this record can work: every effect of it, as the services hold it."""
        account, record = self.keeper.account, self.record(title)
        config = self.record("Azure production")
        rotation = account.rotations.get(record.uid)
        files = {one.uid: one.content for one in record.files}
        (app,) = list(account.apps.values())
        (gateway,) = [client.uid for _app, client in account.gateways().values()]
        return (
            rotation is not None
            and (rotation.configuration, rotation.disabled, rotation.resource) == (config.uid, False, "")
            and bool(self.keeper.router.linked(config.uid, record.uid).get("rotation_settings", {}).get("noop"))
            and self.keeper.router.settings(config.uid).get("rotation") is True
            and account.controllers.get(config.uid) == gateway
            and record.shared
            and record.editable
            and config.shared
            and [files.get(entry["fileRef"]) for entry in self.entries(title)] == [CONTENT]
            and self.entries(title)[0]["command"] == "python3"
            and GUID in (record.value("application_object_id"), record.value("Application_Object_Id"))
            and app.shares[self.folder().uid] == ("folder", True)
        )


@contextmanager
def make_office(home: Path) -> Iterator[Office]:
    """Give an office with an empty vault; its files are in the directory `home`."""
    script = home / NAME
    script.write_bytes(CONTENT)
    with Sandbox() as sandbox, KeeperServer(sandbox, commander_python()) as keeper:
        options = {
            "commander_config": keeper.write_config(home / "config.json"),
            "folder": "Azure applications",
            "application": "Azure rotation",
            "gateway": "gateway-1",
            "gateway_config_file": str(home / "gateway.b64"),
            "pam_config": {
                "title": "Azure production",
                "environment": "azure",
                "tenant_id": "contoso.onmicrosoft.com",
                "subscription_id": OTHER,
                "client_id": GUID,
                "client_secret": SECRET,
            },
            "records": [{"title": "billing-api", "application_object_id": GUID}],
            "script": str(script),
            "script_command": "python3",
        }
        yield Office(keeper, home, options)
