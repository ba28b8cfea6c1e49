# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""KSM's calls on folders.

The key of a shared folder is wrapped by the application's (GCM), those of the folders below it by the shared folder's
(CBC), and the name of each by its own key (CBC).
"""

from __future__ import annotations

import json
from typing import Any

from . import crypto
from .crypto import b64, seal, unb64
from .exchange import Request, Response
from .keeper_envelope import Call, Envelope
from .vault import Folder


class Folders(Envelope):
    """What a device may ask about folders."""

    def _get_folders(self, request: Request, call: Call) -> Response:
        def shown(folder: Folder) -> dict[str, Any]:
            root, vault = self.vault.root(folder.uid), self.vault
            key = seal(folder.key, vault.application_key) if root is folder else crypto.seal_cbc(folder.key, root.key)
            return {
                "folderUid": folder.uid,
                "folderKey": b64(key),
                "parent": folder.parent,
                "data": b64(crypto.seal_cbc(json.dumps({"name": folder.name}).encode(), folder.key)),
            }

        return self._answer(call, {"folders": [shown(one) for one in self.vault.folders.values()]})

    def _create_folder(self, request: Request, call: Call) -> Response:
        payload = call.payload
        shared = self._folder(request, payload["sharedFolderUid"])
        parent = self._folder(request, payload.get("parentUid") or shared.uid)
        if shared.parent or self.vault.root(parent.uid) is not shared:
            self._refuse(request, 403, "access_denied", "The parent does not lie in the shared folder")
        key = self._unwrapped(request, payload["sharedFolderKey"], shared.key)
        folder = Folder(self._name(request, payload, key), parent.uid, payload["folderUid"], key)
        self.vault.folders[folder.uid] = folder
        return Response(200, changed=True)

    def _update_folder(self, request: Request, call: Call) -> Response:
        folder = self._folder(request, call.payload["folderUid"])
        folder.name = self._name(request, call.payload, folder.key)
        return Response(200, changed=True)

    def _delete_folder(self, request: Request, call: Call) -> Response:
        """One that is not there is no error; one that is not empty has to be forced."""
        vault, results = self.vault, []
        for uid in call.payload["folderUids"]:
            found = [one for one in vault.folders if uid in vault.path(one)]
            inside = [one.uid for one in vault.records.values() if one.folder in found]
            empty = len(found) < 2 and not inside
            if found and not empty and not call.payload.get("forceDeletion"):
                results.append({"folderUid": uid, "responseCode": "access_denied"})
                continue
            for one in inside:
                del vault.records[one]
            for one in found:
                del vault.folders[one]
            results.append({"folderUid": uid, "responseCode": "ok"})
        return self._answer(call, {"folders": results}, changed=True)

    def _folder(self, request: Request, uid: str) -> Folder:
        folder = self.vault.folders.get(uid)
        if folder is None:
            self._refuse(request, 403, "access_denied", "Folder is not accessible")
        return folder

    def _unwrapped(self, request: Request, text: str, key: bytes) -> bytes:
        try:
            return crypto.unseal_cbc(unb64(text), key)
        except crypto.Undecipherable:
            self._refuse(request, 400, "bad_request", "The data cannot be decrypted with the key of the folder")

    def _name(self, request: Request, payload: dict[str, Any], key: bytes) -> str:
        name: str = json.loads(self._unwrapped(request, payload["data"], key))["name"]
        return name
