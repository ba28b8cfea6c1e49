# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every call of Keeper Secrets Manager is wrapped in: keys, signatures, errors, and the request counter."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from . import crypto
from .crypto import seal, unb64, unseal
from .exchange import Refusal, Request, Response
from .faults import THROTTLED
from .vault import Device, Vault


@dataclass(frozen=True)
class Call:
    """A request that was decrypted and whose signature verified."""

    device: Device
    key: bytes
    payload: dict[str, Any]


class Envelope:
    """Opens requests and seals answers for the devices of one vault. `url` is the service's own root."""

    name = "keeper"

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.url = ""
        self._counted: dict[tuple[str, str], tuple[int, float]] = {}

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

    def _open(self, request: Request) -> Call:
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
        device.was_here = True
        return Call(device, key, payload)

    def _count(self, request: Request, call: Call, name: str) -> None:
        """Keeper's counter, by device and endpoint: every call counts and prolongs it, refused ones too."""
        key = call.device.client_id, name
        number, last = self._counted.get(key, (0, 0.0))
        now = time.monotonic()
        number = 1 if now - last >= self.vault.throttle_silence else number + 1
        self._counted[key] = number, now
        if number >= self.vault.throttle_requests:
            self._refuse(request, self.vault.throttle_status, "throttled", THROTTLED)

    def _answer(self, call: Call, body: dict[str, Any], **rest: Any) -> Response:
        return Response.of(200, seal(json.dumps(body).encode(), call.key), **rest)

    def _decrypted(self, request: Request, text: str, key: bytes) -> dict[str, Any]:
        """The server of the real service cannot look inside; here, data that nobody could read is a client's defect."""
        try:
            data = json.loads(unseal(unb64(text), key))
        except (crypto.Undecipherable, ValueError):
            self._refuse(request, 400, "bad_request", "The data cannot be decrypted with the key of the record")
        assert isinstance(data, dict)
        return data
