# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Keeper vault: records, files and folders, the application they are shared to, and its devices."""

from __future__ import annotations

import copy
import hashlib
import hmac
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import crypto
from .state import State

JsonDict = dict[str, Any]

# The label and type of client id, client secret and tenant id in an Azure PAM configuration, by what created it.
AZURE_LABELS: dict[str, tuple[str, str, str, str, str]] = {
    "commander": ("secret", "clientId", "clientSecret", "tenantId", "azureId"),
    "saas": ("secret", "pamazureclientid", "pamazureclientsecret", "pamazuretenantid", "azureId"),
    "helper": ("secret", "Client Id", "Client Secret", "Tenant Id", "Azure Id"),
    "old": ("text", "Client ID", "Client Secret", "Tenant Id", "Azure Id"),
}


@dataclass
class VaultFile:
    """An attachment. `content` is None between the announcement of a file and its upload."""

    name: str
    key: bytes
    meta: JsonDict
    content: bytes | None = None
    uid: str = field(default_factory=crypto.new_uid)


@dataclass
class Folder:
    """A folder that is shared to the application, or (with a `parent`) lies in one that is."""

    name: str
    parent: str | None = None
    uid: str = field(default_factory=crypto.new_uid)
    key: bytes = field(default_factory=crypto.new_key)


@dataclass
class VaultRecord:
    """A record in clear.

    `data` is the live JSON of the record; `staged` holds a save that awaits its completion, made when the record had
    the revision `staged_at`.
    """

    data: JsonDict
    revision: int
    editable: bool = True
    shared: bool = True
    folder: str | None = None
    inner_folder: bool = False
    uid: str = field(default_factory=crypto.new_uid)
    key: bytes = field(default_factory=crypto.new_key)
    files: list[VaultFile] = field(default_factory=list)
    staged: JsonDict | None = None
    staged_at: int = 0
    _vault: Vault | None = field(default=None, repr=False)

    def field_named(self, label: str) -> JsonDict | None:
        """The first field with this label, else the first of this type."""
        fields = self.data.get("fields", []) + (self.data.get("custom") or [])
        return next((one for key in ("label", "type") for one in fields if one.get(key) == label), None)

    def value(self, label: str) -> Any:
        """The first value of the field with this label (else type), or None."""
        found = self.field_named(label)
        return found["value"][0] if found and found.get("value") else None

    @property
    def vault(self) -> Vault:
        """The vault that it lies in."""
        assert self._vault is not None
        return self._vault

    def put(self, data: JsonDict) -> None:
        """Save this in place of what is there: a new revision."""
        self.data, self.revision = data, self.vault.next_revision()

    def stage(self, data: JsonDict) -> None:
        """Keep this until the transaction is completed; readers see what is there."""
        self.staged, self.staged_at = data, self.revision

    def finalize(self, staged_wins: bool) -> None:
        """Complete the transaction. What was saved plainly meanwhile gives way to the staged data, or drops them."""
        data, self.staged = self.staged, None
        if data is not None and (staged_wins or self.revision == self.staged_at):
            self.put(data)

    def edit(self, label: str, value: Any) -> None:
        """Somebody changes a field in the vault; a field that is not there becomes a custom text field."""
        with self.vault.outside("edit", f"{self.uid} {label}"):
            found = self.field_named(label)
            if found is None:
                found = {"type": "text", "label": label}
                self.data.setdefault("custom", []).append(found)
            found["value"] = [value]
            self.revision = self.vault.next_revision()

    def restore(self, data: JsonDict) -> None:
        """Somebody brings back an earlier version (its `data`) from the record's history."""
        with self.vault.outside("restore", self.uid):
            self.put(copy.deepcopy(data))


@dataclass
class Device:
    """A client of the application. `public_key` is its public point, known once it is bound.

    An `unseen` device is the sandbox's own: what it asks is neither logged nor subject to faults. `was_here`: it has
    asked for something.
    """

    client_id: str
    token: bytes
    public_key: bytes | None = None
    unseen: bool = False
    was_here: bool = False


class Vault:
    """The vault and its one KSM application.

    `staged_wins`: a staged save that a client completes replaces what was saved plainly meanwhile (which no source
    states). `throttle`: Keeper counts the calls of a device at an endpoint, each call anew for `throttle_silence`
    seconds, and refuses from the one on that is number `throttle_requests`, until nothing was asked for so long.
    """

    def __init__(self, state: State) -> None:
        self.application_key = crypto.new_key()
        self.owner = crypto.new_pair()
        self.server = crypto.new_pair()
        self.server_key_id = "999"
        self.out_of_sync_status = 403
        self.staged_wins = True
        self.throttle = False
        self.throttle_requests = 100
        self.throttle_silence = 10.0
        self.throttle_status = 429
        self.records: dict[str, VaultRecord] = {}
        self.folders: dict[str, Folder] = {}
        self.devices: dict[str, Device] = {}
        self.host = self.authority = self.graph_url = ""
        self.outside = state.outside
        self._revision = 1000
        self.folder_uid = self.add_folder("PAM Users")

    def next_revision(self) -> int:
        """Revisions count over the whole vault, so those of one record have gaps."""
        self._revision += 1
        return self._revision

    def add_folder(self, name: str, parent: str | None = None) -> str:
        """Share a folder to the application, or make one below a shared one; returns its uid."""
        folder = Folder(name, parent)
        self.folders[folder.uid] = folder
        return folder.uid

    def path(self, uid: str) -> list[str]:
        """The uids of a folder and of all above it, upwards."""
        folder = self.folders.get(uid)
        return [] if folder is None else [uid, *(self.path(folder.parent) if folder.parent else [])]

    def root(self, uid: str) -> Folder:
        """The shared folder that this one is, or lies in."""
        return self.folders[self.path(uid)[-1]]

    def add_record(
        self,
        type: str,
        title: str,
        fields: list[JsonDict] | None = None,
        custom: list[JsonDict] | None = None,
        editable: bool = True,
        folder: str | None = None,
        shared: bool = True,
        inner_folder: bool = False,
        uid: str | None = None,
    ) -> VaultRecord:
        """Put a record into the vault, and share it to the application unless `shared` is false.

        `folder` None: the record itself is shared. `inner_folder`: it comes in the flat list of records although its
        key is wrapped by the folder's, which SDK 17.3.0 cannot decrypt by itself.
        """
        data = {"type": type, "title": title, "notes": "", "fields": fields or [], "custom": custom or []}
        if inner_folder:
            folder = folder or self.folder_uid
        record = VaultRecord(
            data, self.next_revision(), editable, shared, folder, inner_folder, uid or crypto.new_uid(), _vault=self
        )
        with self.outside("add_record", record.uid):
            self.records[record.uid] = record
        return record

    def pam_user(
        self,
        title: str,
        *,
        folder: str | None = None,
        inner_folder: bool = False,
        editable: bool = True,
        **custom: str | None,
    ) -> VaultRecord:
        """A PAM User record as Commander makes it; `custom` become text fields, client_secret a hidden one.

        None makes the field without a value.
        """
        fields: list[JsonDict] = [
            {"type": "login", "value": [title], "required": True},
            {"type": "password", "value": ["dummy"]},
            {"type": "script", "label": "rotationScripts", "value": []},
            {"type": "secret", "label": "privatePEMKey", "value": []},
            {"type": "text", "label": "distinguishedName", "value": []},
            {"type": "text", "label": "connectDatabase", "value": []},
            {"type": "checkbox", "label": "managed", "value": []},
            {"type": "fileRef", "value": []},
            {"type": "oneTimeCode", "value": []},
        ]
        more: list[JsonDict] = [
            {
                "type": "secret" if label == "client_secret" else "text",
                "label": label,
                "value": [] if value is None else [value],
            }
            for label, value in custom.items()
        ]
        return self.add_record("pamUser", title, fields, more, editable, folder, inner_folder=inner_folder)

    def azure_configuration(
        self,
        client_id: str | None,
        client_secret: str | None,
        tenant_id: str | None,
        labels: str = "commander",
        endpoints: bool = True,
        title: str = "Azure",
    ) -> VaultRecord:
        """An Azure PAM configuration with the labels of one of its creators, and this sandbox's endpoints."""
        kind, *names, azure_id = AZURE_LABELS[labels]
        given = zip(names, (client_id, client_secret, tenant_id))
        fields: list[JsonDict] = [{"type": "text", "label": azure_id, "value": ["contoso"]}]
        fields += [{"type": kind, "label": name, "value": [value] if value else []} for name, value in given]
        fields += [
            {
                "type": "pamResources",
                "value": [{"controllerUid": crypto.new_uid(), "resourceRef": [], "folderUid": self.folder_uid}],
            },
            {"type": "script", "label": "rotationScripts", "value": []},
            {"type": "fileRef", "value": []},
        ]
        custom: list[JsonDict] = []
        if endpoints:
            if not self.graph_url:
                raise RuntimeError("the endpoints are known once the sandbox has started")
            custom = [
                {"type": "text", "label": "Azure Authority FQDN", "value": [self.authority]},
                {"type": "text", "label": "Azure Graph Endpoint", "value": [self.graph_url]},
            ]
        return self.add_record("pamAzureConfiguration", title, fields, custom)

    def copy(self, uid: str) -> VaultRecord:
        """Somebody makes a copy of the record, in the same place: another uid and key, the same data and files."""
        original = self.records[uid]
        twin = replace(
            original,
            data=copy.deepcopy(original.data),
            revision=self.next_revision(),
            uid=crypto.new_uid(),
            key=crypto.new_key(),
            files=list(original.files),
            staged=None,
        )
        with self.outside("copy", f"{uid} to {twin.uid}"):
            self.records[twin.uid] = twin
        return twin

    def remove(self, uid: str) -> None:
        """Somebody deletes the record."""
        with self.outside("remove", uid):
            del self.records[uid]

    def move(self, uid: str, folder: str | None) -> None:
        """Somebody moves the record into another folder, or (None) shares it by itself."""
        with self.outside("move", uid):
            record = self.records[uid]
            record.folder, record.inner_folder = folder, record.inner_folder and folder is not None

    def attach_script(
        self,
        record: VaultRecord | str,
        script: str | Path | bytes,
        name: str | None = None,
        command: str = "python3",
        credentials: Sequence[str] = (),
    ) -> VaultFile:
        """Attach a PAM Script (a path or its bytes) as Commander does: a file that only the script field refers to."""
        target = self.records[record] if isinstance(record, str) else record
        content = script if isinstance(script, bytes) else Path(script).read_bytes()
        name = name or (Path(script).name if not isinstance(script, bytes) else "script.py")
        meta = {
            "name": name,
            "title": name,
            "size": len(content),
            "type": "text/x-python",
            "lastModified": int(time.time() * 1000),
        }
        file = VaultFile(name, crypto.new_key(), meta, content)
        entry = {"fileRef": file.uid, "recordRef": list(credentials), "command": command}
        with self.outside("attach_script", target.uid):
            target.files.append(file)
            fields = target.data["fields"]
            found = next((one for one in fields if one["type"] == "script"), None)
            if found is None:
                found = {"type": "script", "label": "rotationScripts", "value": []}
                fields.append(found)
            found["value"].append(entry)
            target.revision = self.next_revision()
        return file

    def client_config(self, bound: bool = True, unseen: bool = False) -> dict[str, str]:
        """The KSM configuration of a new device; not bound, it holds a one-time token for the SDK to bind with."""
        token, pair = os.urandom(32), crypto.new_pair()
        digest = hmac.new(token, b"KEEPER_SECRETS_MANAGER_CLIENT_ID", hashlib.sha512).digest()
        device = Device(crypto.b64(digest), token, crypto.point(pair) if bound else None, unseen)
        self.devices[device.client_id] = device
        config = {
            "hostname": self.host,
            "serverPublicKey": crypto.url_b64(crypto.point(self.server)),
            "serverPublicKeyId": self.server_key_id,
        }
        if not bound:
            return {**config, "clientKey": crypto.url_b64(token)}
        return {
            **config,
            "clientId": device.client_id,
            "privateKey": crypto.b64(crypto.private_der(pair)),
            "appKey": crypto.b64(self.application_key),
            "appOwnerPublicKey": crypto.b64(crypto.point(self.owner)),
        }

    def snapshot(self) -> dict[str, JsonDict]:
        """A copy of every record's data by uid, to compare with later."""
        return {uid: copy.deepcopy(record.data) for uid, record in self.records.items()}
