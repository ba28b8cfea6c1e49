# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""vault/sync_down: everything on the first call of a session, afterwards what has changed since."""

from __future__ import annotations

import json
from typing import Any

from sandbox.crypto import seal, seal_cbc
from sandbox.vault import VaultRecord

from .account import ROOT, Account
from .protocol import Messages, to_bytes

Key = tuple[str, ...]


class Sync:
    """Remembers what each token stands for: two looks are compared, message by message."""

    def __init__(self, account: Account, messages: Messages) -> None:
        self.account = account
        self.messages = messages
        self._looks: dict[bytes, dict[Key, bytes]] = {}
        self._sealed: dict[Key, tuple[Any, bytes]] = {}

    def answer(self, request: Any) -> Any:
        """The changes since the request's token."""
        m = self.messages.sync
        response = m.SyncDownResponse()
        before = self._looks.get(request.continuationToken)
        look = self._look()
        now = {key: message.SerializeToString(deterministic=True) for key, message in look.items()}
        response.cacheStatus = m.KEEP if before is not None else m.CLEAR
        before = before or {}
        for key, message in look.items():
            if before.get(key) != now[key]:
                getattr(response, key[0]).append(message)
        for key, old in before.items():
            if key not in now:
                self._remove(response, key, old)
        response.continuationToken = b"%d" % len(self._looks)
        self._looks[response.continuationToken] = now
        return response

    def _remove(self, response: Any, key: Key, old: bytes) -> None:
        name = "removed" + key[0][0].upper() + key[0][1:]
        removed = getattr(response, name, None)
        if removed is None:
            return
        if key[0] in ("records", "userFolders", "sharedFolders"):
            removed.append(to_bytes(key[1]))
        else:
            removed.add().ParseFromString(old)

    def _once(self, key: Key, plain: Any, make: Any) -> bytes:
        """Encrypting gives other bytes each time: what has not changed is encrypted once."""
        known = self._sealed.get(key)
        if known is None or known[0] != plain:
            self._sealed[key] = known = (plain, make())
        return known[1]

    def _look(self) -> dict[Key, Any]:
        look: dict[Key, Any] = {}
        account, m = self.account, self.messages.sync
        for uid, folder in account.folders.items():
            look["sharedFolders", uid] = m.SharedFolder(
                sharedFolderUid=to_bytes(uid),
                revision=1,
                sharedFolderKey=self._once(
                    ("folder key", uid), folder.key, lambda f=folder: seal_cbc(f.key, account.data_key)
                ),
                keyType=self.messages.record.ENCRYPTED_BY_DATA_KEY,
                name=self._once(("name", uid), folder.name, lambda f=folder: seal_cbc(f.name.encode(), f.key)),
                data=self._once(
                    ("data", uid),
                    folder.name,
                    lambda f=folder: seal_cbc(json.dumps({"name": f.name}).encode(), f.key),
                ),
                ownerAccountUid=account.uid,
                owner=account.user,
            )
            look["sharedFolderUsers", uid] = m.SharedFolderUser(
                sharedFolderUid=to_bytes(uid),
                username=account.user,
                accountUid=account.uid,
                manageRecords=True,
                manageUsers=True,
            )
            look["userFolderSharedFolders", uid] = m.UserFolderSharedFolder(sharedFolderUid=to_bytes(uid), revision=1)
            for child, (name, parent, key) in folder.children.items():
                look["sharedFolderFolders", child] = m.SharedFolderFolder(
                    sharedFolderUid=to_bytes(uid),
                    folderUid=to_bytes(child),
                    parentUid=to_bytes(parent) if parent != uid else b"",
                    sharedFolderFolderKey=self._once(
                        ("child key", child), key, lambda f=folder, k=key: seal_cbc(k, f.key)
                    ),
                    keyType=self.messages.record.ENCRYPTED_BY_DATA_KEY,
                    data=self._once(
                        ("child data", child),
                        name,
                        lambda n=name, k=key: seal_cbc(json.dumps({"name": n}).encode(), k),
                    ),
                )
        for record in account.vault.records.values():
            self._record(look, record)
        for uid, app in account.apps.items():
            data = json.dumps({"title": app.title, "type": "app"}).encode()
            self._owned(look, uid, 5, 1, app.key, data)
        for uid, file in account.files().items():
            self._owned(look, uid, 4, 1, file.key, json.dumps(file.meta).encode(), size=file.meta.get("size", 0))
        for uid, rotation in account.rotations.items():
            look["recordRotations", uid] = m.RecordRotation(
                recordUid=to_bytes(uid),
                revision=rotation.revision,
                configurationUid=to_bytes(rotation.configuration),
                schedule=rotation.schedule,
                pwdComplexity=rotation.complexity,
                disabled=rotation.disabled,
                resourceUid=to_bytes(rotation.resource) if rotation.resource else b"",
            )
        return look

    def _record(self, look: dict[Key, Any], record: VaultRecord) -> None:
        account, m = self.account, self.messages.sync
        version = 6 if record.data["type"].endswith("Configuration") else 3
        place = account.place(record)
        folder = account.shared_folder_of(place)
        owner = record.uid not in account.strangers
        data = json.dumps(record.data).encode()
        self._owned(look, record.uid, version, record.revision, record.key, data, owner=owner)
        if folder is None:
            look["userFolderRecords", ROOT, record.uid] = m.UserFolderRecord(recordUid=to_bytes(record.uid))
        else:
            look["sharedFolderRecords", folder.uid, record.uid] = m.SharedFolderRecord(
                sharedFolderUid=to_bytes(folder.uid),
                recordUid=to_bytes(record.uid),
                recordKey=self._once(
                    ("in folder", folder.uid, record.uid), record.key, lambda: seal(record.key, folder.key)
                ),
                canShare=owner,
                canEdit=True,
                owner=owner,
                ownerAccountUid=account.uid if owner else b"somebody else!!!",
            )
            look["sharedFolderFolderRecords", place, record.uid] = m.SharedFolderFolderRecord(
                sharedFolderUid=to_bytes(folder.uid),
                folderUid=to_bytes(place) if place != folder.uid else b"",
                recordUid=to_bytes(record.uid),
            )
        for file in record.files:
            look["recordLinks", record.uid, file.uid] = m.RecordLink(
                parentRecordUid=to_bytes(record.uid),
                childRecordUid=to_bytes(file.uid),
                recordKey=self._once(("link", record.uid, file.uid), file.key, lambda f=file: seal(f.key, record.key)),
            )

    def _owned(
        self,
        look: dict[Key, Any],
        uid: str,
        version: int,
        revision: int,
        key: bytes,
        data: bytes,
        size: int = 0,
        owner: bool = True,
    ) -> None:
        account, m = self.account, self.messages.sync
        look["records", uid] = m.Record(
            recordUid=to_bytes(uid),
            revision=revision,
            version=version,
            data=self._once(("record", uid), data, lambda: seal(data, key)),
            fileSize=size,
        )
        if owner:
            look["recordMetaData", uid] = m.RecordMetaData(
                recordUid=to_bytes(uid),
                owner=True,
                recordKey=self._once(("key", uid), key, lambda: seal(key, account.data_key)),
                recordKeyType=self.messages.record.ENCRYPTED_BY_DATA_KEY_GCM,
                canShare=True,
                canEdit=True,
                ownerAccountUid=account.uid,
            )
