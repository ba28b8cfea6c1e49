# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""KSM's calls on records: reading, saving plainly or staged, creating, deleting."""

from __future__ import annotations

import json
import math
from typing import Any

from . import crypto
from .crypto import b64, seal, unb64, unseal
from .exchange import Request, Response
from .keeper_envelope import Call, Envelope
from .vault import VaultFile, VaultRecord

# Clients of people pad a record's JSON with blanks, to this length at least and to whole blocks.
PADDED_TO = 384
BLOCK = 16


class Records(Envelope):
    """What a device may ask about records."""

    def _get(self, request: Request, call: Call) -> Response:
        vault, wanted = self.vault, call.payload.get("requestedRecords")
        bound = None
        if call.device.public_key is None:
            call.device.public_key = unb64(call.payload["publicKey"])
            bound = {
                "encryptedAppKey": b64(seal(vault.application_key, call.device.token)),
                "appOwnerPublicKey": b64(crypto.point(vault.owner)),
            }
        shared = [one for one in vault.records.values() if one.shared and (not wanted or one.uid in wanted)]
        flat = [self._record(call, one) for one in shared if one.folder is None or one.inner_folder]
        application = json.dumps({"title": "Sandbox", "type": "Application"}).encode()
        body = {
            "encryptedAppKey": None,
            "folders": self._shared_folders(call, shared, everything=not wanted),
            "records": flat or None,
            "expiresOn": 0,
            "warnings": None,
            "appData": b64(seal(application, vault.application_key)),
            **(bound or {}),
        }
        return self._answer(call, body, detail="bound" if bound else f"{len(shared)} records")

    def _shared_folders(self, call: Call, records: list[VaultRecord], everything: bool) -> list[dict[str, Any]]:
        """The shared folders that hold one of the records, or all, with those of their sub-folders."""
        vault, holding = self.vault, set()
        inside: dict[str, list[Any]] = {uid: [] for uid, one in vault.folders.items() if one.parent is None}
        for record in records:
            if record.folder is not None:
                root = vault.root(record.folder).uid
                holding.add(root)
                if not record.inner_folder:
                    inside[root].append(self._record(call, record))
        return [
            {
                "folderUid": uid,
                "folderKey": b64(seal(vault.folders[uid].key, vault.application_key)),
                "isEditable": True,
                "data": None,
                "records": found,
            }
            for uid, found in inside.items()
            if everything or uid in holding
        ]

    def _record(self, call: Call, record: VaultRecord) -> dict[str, Any]:
        folder = self.vault.root(record.folder) if record.folder else None
        below = folder is not None and (record.inner_folder or folder.uid != record.folder)
        return {
            "recordUid": record.uid,
            "recordKey": b64(seal(record.key, folder.key if folder else self.vault.application_key)),
            "data": b64(seal(_padded(record.data), record.key)),
            "revision": record.revision,
            "isEditable": record.editable,
            "files": [self._file(call, record, one) for one in record.files] or None,
            "innerFolderUid": record.folder if below else None,
            "extra": None,
            "folderUid": None,
            **({"links": []} if call.payload.get("requestLinks") else {}),
        }

    def _file(self, call: Call, record: VaultRecord, file: VaultFile) -> dict[str, Any]:
        unseen = "/unseen" if call.device.unseen else ""
        return {
            "fileUid": file.uid,
            "fileKey": b64(seal(file.key, record.key)),
            "data": b64(seal(json.dumps(file.meta).encode(), file.key)),
            "url": f"{self.url}/files/{file.uid}{unseen}",
            "thumbnailUrl": None,
        }

    def _writable(self, request: Request, uid: str, revision: int | None) -> VaultRecord:
        record = self._own(request, uid)
        if revision != record.revision:
            self._refuse(request, self.vault.out_of_sync_status, "access_denied", f"Record {uid} is out of sync")
        return record

    def _own(self, request: Request, uid: str) -> VaultRecord:
        record = self.vault.records.get(uid)
        if record is None or not record.shared:
            self._refuse(request, 403, "access_denied", f"Record {uid} is not accessible")
        if not record.editable:
            self._refuse(request, 403, "access_denied", f"Record {uid} may not be edited")
        return record

    def _put(self, record: VaultRecord, data: dict[str, Any]) -> Response:
        before = record.revision
        record.put(data)
        return Response(200, changed=True, detail=f"revision {before} -> {record.revision}")

    def _update(self, request: Request, call: Call) -> Response:
        payload = call.payload
        record = self._writable(request, payload["recordUid"], payload.get("revision"))
        data = self._decrypted(request, payload["data"], record.key)
        if payload.get("transactionType"):
            record.stage(data)
            return Response(200, changed=True, detail=f"staged ({payload['transactionType']})")
        removed = payload.get("links2Remove") or []
        record.files = [one for one in record.files if one.uid not in removed]
        return self._put(record, data)

    def _finalize(self, request: Request, call: Call) -> Response:
        record = self._own(request, call.payload["recordUid"])
        if record.staged is None:
            self._refuse(request, 400, "bad_request", f"Record {record.uid} has no staged update")
        before = record.revision
        record.finalize(self.vault.staged_wins)
        return Response(200, changed=True, detail=f"revision {before} -> {record.revision}")

    def _rollback(self, request: Request, call: Call) -> Response:
        record = self._own(request, call.payload["recordUid"])
        changed, record.staged = record.staged is not None, None
        return Response(200, changed=changed)

    def _create(self, request: Request, call: Call) -> Response:
        payload = call.payload
        folder = self.vault.folders.get(payload.get("folderUid") or "")
        below = payload.get("subFolderUid")
        if folder is None or folder.parent or (below and folder.uid not in self.vault.path(below)):
            self._refuse(request, 403, "access_denied", "Folder is not accessible")
        try:
            key = unseal(unb64(payload["folderKey"]), folder.key)
        except crypto.Undecipherable:
            self._refuse(request, 400, "bad_request", "The key of the record is not wrapped by the folder's")
        data = self._decrypted(request, payload["data"], key)
        self.vault.records[payload["recordUid"]] = VaultRecord(
            data,
            self.vault.next_revision(),
            folder=below or folder.uid,
            uid=payload["recordUid"],
            key=key,
            _vault=self.vault,
        )
        return Response(200, changed=True)

    def _delete(self, request: Request, call: Call) -> Response:
        results: list[dict[str, str]] = []
        for uid in call.payload["recordUids"]:
            found = self.vault.records.get(uid)
            if found and found.shared and found.editable:
                del self.vault.records[uid]
                results.append({"recordUid": uid, "responseCode": "ok"})
            else:
                results.append({"recordUid": uid, "responseCode": "access_denied"})
        return self._answer(call, {"records": results}, changed=any(one["responseCode"] == "ok" for one in results))


def _padded(data: dict[str, Any]) -> bytes:
    text = json.dumps(data).encode()
    return text.ljust(math.ceil(max(PADDED_TO, len(text)) / BLOCK) * BLOCK)
