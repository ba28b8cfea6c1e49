# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""KSM's attachments: announced to the API, then sent to and fetched from the file store beside it."""

from __future__ import annotations

import base64
import json
import re

from . import crypto
from .crypto import seal, unb64, unseal
from .exchange import Request, Response
from .keeper_envelope import Call
from .keeper_records import Records
from .vault import VaultFile


class Files(Records):
    """What a device may ask about attachments."""

    def _add_file(self, request: Request, call: Call) -> Response:
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
