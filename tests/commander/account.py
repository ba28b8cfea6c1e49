# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Keeper user: keys, device, and what the vault holds that Keeper Secrets Manager does not see.

Records, their keys and files are the sandbox vault's own; here is where they lie, whose they are, and to which
application they are shared. `project` brings the vault's view, which the clients of the application get, in line.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from sandbox import crypto
from sandbox.vault import Folder, Vault, VaultFile, VaultRecord

from .protocol import raw_private

ROOT = ""


@dataclass
class SharedFolder:
    """A shared folder of the user; `children` are the folders inside it, by uid, with the uid of their parent."""

    name: str
    uid: str = field(default_factory=crypto.new_uid)
    key: bytes = field(default_factory=crypto.new_key)
    children: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)


@dataclass
class Client:
    """A device of an application. `wrapped_key` is the application's key under the one-time token, as the user's
    client has sent it: the service cannot read it, and hands it to whoever proves to have the token."""

    name: str
    kind: int
    wrapped_key: bytes
    expires: float
    uid: str = field(default_factory=crypto.new_uid)


@dataclass
class App:
    """A Secrets Manager application: `shares` are uids of folders and records with whether they may be edited."""

    title: str
    uid: str
    key: bytes
    shares: dict[str, tuple[str, bool]] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)


@dataclass
class Rotation:
    """What the router keeps of a record's rotation."""

    configuration: str
    schedule: str
    disabled: bool
    resource: str = ""
    complexity: bytes = b""
    revision: int = 1


class Account:
    """The user whose vault it is, with a device that is approved and logs in by itself.

    `login_state` names another state of APIRequest_pb2.LoginState for the next logins; `enforcements` are those of
    the user's roles, `session_requests` how many requests a session lasts.
    """

    def __init__(self, vault: Vault, user: str = "admin@example.com") -> None:
        self.vault = vault
        self.user = user
        self.uid = os.urandom(16)
        self.data_key = crypto.new_key()
        self.ecc = vault.owner
        self.rsa = rsa.generate_private_key(public_exponent=0x10001, key_size=2048)
        self.device = crypto.new_pair()
        self.device_token = os.urandom(32)
        self.enterprise = crypto.new_pair()
        self.login_state = "LOGGED_IN"
        self.enforcements: dict[str, Any] = {}
        self.session_requests: int | None = None
        self.folders: dict[str, SharedFolder] = {}
        self.apps: dict[str, App] = {}
        self.loose_files: dict[str, VaultFile] = {}
        self.scripts: set[str] = set()  # the uids of files that were announced as scripts
        self.rotations: dict[str, Rotation] = {}
        self.controllers: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self.strangers: set[str] = set()  # the uids of records that somebody else owns
        self.config: dict[str, Any] = {}
        self.may_attach = True  # whether the service takes files that are announced as scripts
        vault.folders.clear()

    def add_folder(self, name: str) -> SharedFolder:
        """A shared folder that is there already."""
        folder = SharedFolder(name)
        self.folders[folder.uid] = folder
        return folder

    def add_app(self, title: str, *folders: SharedFolder, editable: bool = True) -> App:
        """An application that is there already, with the folders shared to it."""
        app = App(title, crypto.new_uid(), crypto.new_key())
        app.shares = {one.uid: ("folder", editable) for one in folders}
        self.register(app)
        return app

    def register(self, app: App) -> None:
        """Take an application into the vault. The first one is the one that the sandbox's clients belong to."""
        if not self.apps:
            self.vault.application_key = app.key
        self.apps[app.uid] = app
        self.project()

    def record(self, title: str) -> VaultRecord:
        """The record with this title."""
        (found,) = [one for one in self.vault.records.values() if one.data["title"] == title]
        return found

    def put(self, record: VaultRecord, folder: SharedFolder | str | None) -> VaultRecord:
        """Somebody moves the record into a folder, or (None) out of all."""
        self.places[record.uid] = folder.uid if isinstance(folder, SharedFolder) else folder or ROOT
        self.project()
        return record

    def place(self, record: VaultRecord) -> str:
        """The uid of the folder in which the record lies; empty for the user's own root."""
        return self.places.setdefault(record.uid, record.folder or ROOT)

    def shared_folder_of(self, folder: str) -> SharedFolder | None:
        """The shared folder that this one is, or is inside of."""
        if folder in self.folders:
            return self.folders[folder]
        return next((one for one in self.folders.values() if folder in one.children), None)

    def gateways(self) -> dict[str, tuple[App, Client]]:
        """By client id, the Gateways that have bound themselves: those that were not are in no list."""
        found = {}
        for app in self.apps.values():
            for client_id, client in app.clients.items():
                device = self.vault.devices.get(client_id)
                if client.kind == 2 and device is not None and device.public_key is not None:
                    found[client_id] = (app, client)
        return found

    def files(self) -> dict[str, VaultFile]:
        """Every file, attached or not."""
        attached = {file.uid: file for record in self.vault.records.values() for file in record.files}
        return {**self.loose_files, **attached}

    def project(self) -> None:
        """Let the clients of the application see what is shared to it, and nothing else."""
        app = next(iter(self.apps.values()), None)
        shares = app.shares if app else {}
        self.vault.folders.clear()
        for uid, folder in self.folders.items():
            if uid in shares:
                self.vault.folders[uid] = Folder(folder.name, None, uid, folder.key)
        for record in self.vault.records.values():
            folder = self.shared_folder_of(self.place(record))
            through = folder.uid if folder and folder.uid in shares else record.uid
            record.shared = through in shares
            record.folder = through if through != record.uid else None
            record.editable = shares.get(through, ("", False))[1]

    def make_config(self, server: str) -> dict[str, Any]:
        """Commander's configuration file, as it is after `this-device register` and `persistent-login on`."""
        self.config = {
            "server": server,
            "user": self.user,
            "device_token": crypto.url_b64(self.device_token),
            "private_key": crypto.url_b64(raw_private(self.device)),
            "clone_code": crypto.url_b64(os.urandom(8)),
            "config_storage": "file",
        }
        return self.config

    @staticmethod
    def now() -> int:
        """Milliseconds since the epoch."""
        return int(time.time() * 1000)
