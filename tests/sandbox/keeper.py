# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeper Secrets Manager's wire protocol on one vault, for SDK 17.3.0: the API and the file store beside it."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any, Callable, NoReturn

from . import crypto
from .crypto import b64, seal, unb64, unseal
from .exchange import Operation, Refusal, Request, Response
from .vault import Device, Folder, Vault, VaultFile, VaultRecord

API = "/api/rest/sm/v1/"
FILE = re.compile(r"/(files|upload)/([\w-]+)(/unseen)?")


@dataclass(frozen=True)
class _Call:
    """A request that was decrypted and whose signature verified."""

    device: Device
    key: bytes
    payload: dict[str, Any]


class Keeper:
    """KSM for the devices of one application. `url` is its own root."""

    name = "keeper"

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.url = ""
        self._calls: dict[str, Callable[[Request, _Call], Response]] = {
            "get_secret": self._get,
            "get_folders": self._folders,
            "update_secret": self._update,
            "finalize_secret_update": self._finalize,
            "rollback_secret_update": self._rollback,
            "add_file": self._add_file,
            "create_secret": self._create,
            "delete_secret": self._delete,
        }

    def operation(self, request: Request) -> Operation:
        """An API call, whose subject is the uids it is about, or a file's upload or download."""
        file = FILE.fullmatch(request.path)
        if file and (file[1], request.method) in (("files", "GET"), ("upload", "POST")):
            name, take = ("download", self._download) if file[1] == "files" else ("upload", self._upload)
            return Operation(name, file[2], request, lambda: take(request, file[2]), silent=bool(file[3]))
        name = request.path[len(API) :] if request.path.startswith(API) else ""
        if name not in self._calls or request.method != "POST":
            return Operation("unknown", request.path, request, lambda: self.error(request, 404, "not_found"))
        try:
            call = self._open(request)
        except Refusal as refusal:
            response = refusal.response
            return Operation(name, "", request, lambda: response)
        return Operation(
            name, _subject(call.payload), request, lambda: self._calls[name](request, call), silent=call.device.unseen
        )

    def error(self, request: Request, status: int, /, code: str = "", message: str = "", **extra: Any) -> Response:
        """An error in Keeper's shape."""
        body = {
            "path": f"{self.url}{request.path}",
            "additional_info": "",
            "location": "",
            "error": code or "internal_error",
            "message": message,
            **extra,
        }
        return Response.of(status, body, detail=f"{code} {message}".strip())

    def _refuse(self, request: Request, status: int, code: str, message: str, **extra: Any) -> NoReturn:
        raise Refusal(self.error(request, status, code, message, **extra))

    def _open(self, request: Request) -> _Call:
        headers = request.headers
        if headers.get("PublicKeyId") != self.vault.server_key_id:
            key_id = self.vault.server_key_id
            self._refuse(request, 401, "key", "", key_id=int(key_id) if key_id.isdigit() else key_id)
        try:
            wrapped = unb64(headers.get("TransmissionKey") or "")
            key = crypto.unseal_for(wrapped, self.vault.server)
            payload = json.loads(unseal(request.body, key))
            scheme, _space, signature = (headers.get("Authorization") or "").partition(" ")
            signed = unb64(signature)
        except (crypto.Undecipherable, ValueError):
            self._refuse(request, 400, "bad_request", "Unable to decrypt the request")
        device = self.vault.devices.get(payload.get("clientId") or "")
        if device is None:
            self._refuse(request, 403, "access_denied", "Unable to validate Keeper application access")
        # A device that is not bound yet signs with the key that it is about to bind.
        known = device.public_key or unb64(payload.get("publicKey") or "")
        if scheme != "Signature" or not crypto.signed_by(known, signed, wrapped + request.body):
            self._refuse(request, 403, "access_denied", "Signature is invalid")
        return _Call(device, key, payload)

    def _answer(self, call: _Call, body: dict[str, Any], **rest: Any) -> Response:
        return Response.of(200, seal(json.dumps(body).encode(), call.key), **rest)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _get(self, request: Request, call: _Call) -> Response:
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
        folders = []
        for folder in vault.folders.values():
            inside = [self._record(call, one) for one in shared if one.folder == folder.uid and not one.inner_folder]
            if inside or any(one.folder == folder.uid for one in shared) or not wanted:
                folders.append(
                    {
                        "folderUid": folder.uid,
                        "folderKey": b64(seal(folder.key, vault.application_key)),
                        "parent": folder.parent,
                        "parentUid": folder.parent,
                        "name": folder.name,
                        "records": inside,
                    }
                )
        application = json.dumps({"title": "Sandbox", "type": "Application"}).encode()
        body = {
            "encryptedAppKey": None,
            "appData": b64(seal(application, vault.application_key)),
            "expiresOn": 0,
            "warnings": None,
            "records": flat,
            "folders": folders,
            **(bound or {}),
        }
        return self._answer(call, body, detail="bound" if bound else f"{len(shared)} records")

    def _record(self, call: _Call, record: VaultRecord) -> dict[str, Any]:
        wrapping = self.vault.folders[record.folder].key if record.folder else self.vault.application_key
        return {
            "recordUid": record.uid,
            "recordKey": b64(seal(record.key, wrapping)),
            "data": b64(seal(json.dumps(record.data).encode(), record.key)),
            "revision": record.revision,
            "isEditable": record.editable,
            "files": [self._file(call, record, one) for one in record.files] or None,
            "innerFolderUid": record.folder if record.inner_folder else None,
            "links": [],
        }

    def _file(self, call: _Call, record: VaultRecord, file: VaultFile) -> dict[str, Any]:
        unseen = "/unseen" if call.device.unseen else ""
        return {
            "fileUid": file.uid,
            "fileKey": b64(seal(file.key, record.key)),
            "data": b64(seal(json.dumps(file.meta).encode(), file.key)),
            "url": f"{self.url}/files/{file.uid}{unseen}",
            "thumbnailUrl": None,
        }

    def _folders(self, request: Request, call: _Call) -> Response:
        """Keys of folders without a parent are wrapped by the application's, of the others by their root's (CBC)."""

        def shown(folder: Folder) -> dict[str, Any]:
            root = folder
            while root.parent:
                root = self.vault.folders[root.parent]
            key = (
                crypto.seal_cbc(folder.key, root.key)
                if root is not folder
                else seal(folder.key, self.vault.application_key)
            )
            return {
                "folderUid": folder.uid,
                "folderKey": b64(key),
                "parent": folder.parent,
                "data": b64(crypto.seal_cbc(json.dumps({"name": folder.name}).encode(), folder.key)),
            }

        return self._answer(call, {"folders": [shown(one) for one in self.vault.folders.values()]})

    # -- writing ---------------------------------------------------------------------------------------------------

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

    def _decrypted(self, request: Request, text: str, key: bytes) -> dict[str, Any]:
        """The server of the real service cannot look inside; here, data that nobody could read is a client's defect."""
        try:
            data = json.loads(unseal(unb64(text), key))
        except (crypto.Undecipherable, ValueError):
            self._refuse(request, 400, "bad_request", "The data cannot be decrypted with the key of the record")
        assert isinstance(data, dict)
        return data

    def _put(self, record: VaultRecord, data: dict[str, Any]) -> Response:
        before, record.data, record.revision = record.revision, data, self.vault.next_revision()
        return Response(200, changed=True, detail=f"revision {before} -> {record.revision}")

    def _update(self, request: Request, call: _Call) -> Response:
        payload = call.payload
        record = self._writable(request, payload["recordUid"], payload.get("revision"))
        data = self._decrypted(request, payload["data"], record.key)
        if payload.get("transactionType"):
            record.staged = data
            return Response(200, changed=True, detail=f"staged ({payload['transactionType']})")
        removed = payload.get("links2Remove") or []
        record.files = [one for one in record.files if one.uid not in removed]
        return self._put(record, data)

    def _finalize(self, request: Request, call: _Call) -> Response:
        record = self._own(request, call.payload["recordUid"])
        if record.staged is None:
            self._refuse(request, 400, "bad_request", f"Record {record.uid} has no staged update")
        data, record.staged = record.staged, None
        return self._put(record, data)

    def _rollback(self, request: Request, call: _Call) -> Response:
        record = self._own(request, call.payload["recordUid"])
        changed, record.staged = record.staged is not None, None
        return Response(200, changed=changed)

    def _create(self, request: Request, call: _Call) -> Response:
        payload = call.payload
        folder = self.vault.folders.get(payload.get("folderUid") or "")
        if folder is None:
            self._refuse(request, 403, "access_denied", "Folder is not accessible")
        try:
            key = unseal(unb64(payload["folderKey"]), folder.key)
        except crypto.Undecipherable:
            self._refuse(request, 400, "bad_request", "The key of the record is not wrapped by the folder's")
        data = self._decrypted(request, payload["data"], key)
        self.vault.records[payload["recordUid"]] = VaultRecord(
            data,
            self.vault.next_revision(),
            folder=payload.get("subFolderUid") or folder.uid,
            uid=payload["recordUid"],
            key=key,
            _vault=self.vault,
        )
        return Response(200, changed=True)

    def _delete(self, request: Request, call: _Call) -> Response:
        results: list[dict[str, str]] = []
        for uid in call.payload["recordUids"]:
            found = self.vault.records.get(uid)
            if found and found.shared and found.editable:
                del self.vault.records[uid]
                results.append({"recordUid": uid, "responseCode": "ok"})
            else:
                results.append({"recordUid": uid, "responseCode": "access_denied"})
        return self._answer(call, {"records": results}, changed=any(one["responseCode"] == "ok" for one in results))

    # -- files -----------------------------------------------------------------------------------------------------

    def _add_file(self, request: Request, call: _Call) -> Response:
        payload = call.payload
        record = self._writable(request, payload["ownerRecordUid"], payload.get("ownerRecordRevision"))
        data = self._decrypted(request, payload["ownerRecordData"], record.key)
        try:
            key = unseal(unb64(payload["linkKey"]), record.key)
            owned = crypto.unseal_for(unb64(payload["fileRecordKey"]), self.vault.owner)
        except crypto.Undecipherable:
            key, owned = b"", b"?"
        if key != owned:
            self._refuse(request, 400, "bad_request", "The file's keys for the owner and for the record differ")
        meta = self._decrypted(request, payload["fileRecordData"], key)
        record.files.append(VaultFile(meta["name"], key, meta, uid=payload["fileRecordUid"]))
        put = self._put(record, data)
        policy = base64.b64encode(
            json.dumps({"conditions": [["content-length-range", payload["fileSize"], payload["fileSize"]]]}).encode()
        ).decode()
        upload = {
            "url": f"{self.url}/upload/{payload['fileRecordUid']}",
            "successStatusCode": 201,
            "parameters": json.dumps({"key": payload["fileRecordUid"], "policy": policy}),
        }
        return self._answer(call, upload, changed=True, detail=put.detail)

    def _stored(self, uid: str) -> VaultFile | None:
        return next((one for record in self.vault.records.values() for one in record.files if one.uid == uid), None)

    def _upload(self, request: Request, uid: str) -> Response:
        """A form as the object store wants it: the given parameters, and the encrypted bytes as the part `file`."""
        parts = _form(request)
        file = self._stored(uid)
        if file is None or parts.get("key") != uid.encode() or "file" not in parts:
            return Response.of(403, "<Error><Code>AccessDenied</Code></Error>", {"Content-Type": "application/xml"})
        try:
            file.content = unseal(parts["file"], file.key)
        except crypto.Undecipherable:
            return Response.of(400, "<Error><Code>BadDigest</Code></Error>", {"Content-Type": "application/xml"})
        return Response.of(201, "", changed=True, detail=f"{len(file.content)} bytes")

    def _download(self, request: Request, uid: str) -> Response:
        file = self._stored(uid)
        if file is None or file.content is None:
            return Response.of(404, "<Error><Code>NoSuchKey</Code></Error>", {"Content-Type": "application/xml"})
        return Response.of(200, seal(file.content, file.key))


def _form(request: Request) -> dict[str, bytes]:
    """The parts of a multipart form by name, byte for byte."""
    boundary = (request.headers.get("Content-Type") or "").partition("boundary=")[2].strip('"').encode()
    parts: dict[str, bytes] = {}
    for part in request.body.split(b"--" + boundary)[1:-1] if boundary else []:
        head, _blank, content = part.partition(b"\r\n\r\n")
        name = re.search(rb' name="([^"]*)"', head)
        if name:
            parts[name[1].decode()] = content[:-2]  # the line end before the next boundary is not content
    return parts


def _subject(payload: dict[str, Any]) -> str:
    uids = payload.get("requestedRecords") or payload.get("recordUids") or []
    return payload.get("recordUid") or payload.get("ownerRecordUid") or " ".join(uids)
