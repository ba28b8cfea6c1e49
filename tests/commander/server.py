# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One TLS port for the API, the router, the file store and Secrets Manager, as one host serves them all."""

from __future__ import annotations

import json
import ssl
import sysconfig
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import trustme

from sandbox import Sandbox, crypto
from sandbox.crypto import Undecipherable, seal, unb64, unseal, unseal_for, url_b64
from sandbox.exchange import Operation, Refusal, Request, Response
from sandbox.keeper import Keeper
from sandbox.keeper_envelope import Call
from sandbox.keeper_files import _form
from sandbox.server import Listener

from . import api, router
from .account import Account
from .protocol import Messages, parsed

SERVER_KEY_ID = 7
REST, OLD, USER = "/api/rest/", "/api/rest/vault/execute_v2_command", "/api/user/"

#: What the start-up file of Commander's environment does: the only thing of Keeper's programs that is replaced.
START = """\
# Replaces the tables of server public keys of Keeper Commander and of the Secrets Manager SDK, once they are imported.
import importlib.abc
import importlib.util
import os
import sys

POINT = os.environ.get("SANDBOX_KEEPER_KEY", "")


def replace(module):
    if module.__name__ == "keepercommander.rest_api":
        key = module.crypto.load_ec_public_key(module.utils.base64_url_decode(POINT))
        module.SERVER_PUBLIC_KEYS.clear()
        module.SERVER_PUBLIC_KEYS.update({number: key for number in range(7, 19)})
    else:
        for number in list(module.keeper_public_keys):
            module.keeper_public_keys[number] = POINT


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in ("keepercommander.rest_api", "keeper_secrets_manager_core.keeper_globals"):
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            replace(module)

        spec.loader.exec_module = exec_module
        return spec


if POINT:
    sys.meta_path.insert(0, Finder())
"""


class SecretsManager(Keeper):
    """Secrets Manager on the same vault, for the devices that Commander has made as well.

    Their one-time tokens were never shown to the service: what it hands out at the first call is the application's key
    as the user's client has wrapped it.
    """

    def __init__(self, account: Account) -> None:
        super().__init__(account.vault)
        self.account = account

    def _answer(self, call: Call, body: dict[str, Any], **rest: Any) -> Response:
        made = {id_: one for app in self.account.apps.values() for id_, one in app.clients.items()}
        client = made.get(call.device.client_id)
        if client is not None and "appOwnerPublicKey" in body:
            if client.expires < self.account.now():
                raise Refusal(Response.of(403, {"error": "access_denied", "message": "The token has expired"}))
            body = {**body, "encryptedAppKey": url_b64(client.wrapped_key)}
        return super()._answer(call, body, **rest)


class KeeperServer:
    """The servers, and the user whose vault they hold; a context manager around what is run against them."""

    name = "keeper"

    def __init__(self, sandbox: Sandbox, python: str) -> None:
        self.sandbox = sandbox
        self.python = python
        site = sysconfig.get_path("purelib", vars={"base": str(Path(python).parents[1])})
        self.messages = Messages(Path(site))
        self.account = Account(sandbox.vault)
        self.api = api.Api(self.account, self.messages)
        self.router = router.Router(self.account, self.messages)
        self.secrets_manager = SecretsManager(self.account)
        self.key = crypto.new_pair()
        self.url = ""
        self._listener: Listener | None = None
        self._files: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> KeeperServer:
        self._files = tempfile.TemporaryDirectory(prefix="keeper-server-")
        authority = trustme.CA()
        bundle = Path(self._files.name) / "ca.pem"
        bundle.write_bytes(authority.cert_pem.bytes() + Path(self.sandbox.ca_file).read_bytes())
        self.ca_file = str(bundle)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(tls)
        sandbox = self.sandbox
        self._listener = Listener(self, sandbox.state, sandbox.faults, sandbox._kill, tls)
        self.url = f"https://localhost:{self._listener.server_address[1]}"
        self.api.url = self.secrets_manager.url = self.url
        # Devices that are told of the same key by both ways reach the same vault.
        sandbox.vault.server = self.key
        sandbox.vault.server_key_id = str(SERVER_KEY_ID)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self._listener.stop()
        if self._files is not None:
            self._files.cleanup()

    @property
    def host(self) -> str:
        """The server as Commander's configuration names it."""
        return self.url[len("https://") :]

    def write_config(self, path: Path) -> str:
        """Write Commander's configuration file for the user's device; returns its path."""
        path.write_text(json.dumps(self.account.make_config(self.host)), "utf-8")
        path.chmod(0o600)
        return str(path)

    def variables(self) -> dict[str, str]:
        """The environment variables that lead Commander here."""
        return {
            "REQUESTS_CA_BUNDLE": self.ca_file,
            "SSL_CERT_FILE": self.ca_file,
            "KEEPER_SSL_CERT_FILE": self.ca_file,
            "KROUTER_URL": self.url,
            "SANDBOX_KEEPER_KEY": url_b64(crypto.point(self.key)),
        }

    def environ(self, home: Path, **extra: str | None) -> dict[str, str]:
        """The environment of a process that runs Commander."""
        variables: dict[str, str | None] = {"HOME": str(home), "LC_ALL": "C.UTF-8", "GATEWAY_CONFIG": None}
        return self.sandbox.environ(**{**variables, **self.variables(), **extra})

    # -- the service, as the listener sees it ----------------------------------------------------------------------

    def operation(self, request: Request) -> Operation:
        """Name the request, and say what it does."""
        path = request.path
        if path.startswith(("/api/rest/sm/", "/files/", "/upload/")):
            return self.secrets_manager.operation(request)
        if path.startswith("/store/"):
            uid = path.rsplit("/", 1)[-1]
            stored = "store_get" if request.method == "GET" else "store_put"
            return Operation(stored, uid, request, lambda: self._store(request, uid))
        if path.startswith(USER):
            return self._router(request, path[len(USER) :])
        if path.startswith(REST):
            return self._rest(request, path)
        return Operation("unknown", path, request, lambda: self.error(request, 404, "not_found"))

    def error(self, request: Request, status: int, /, code: str = "", message: str = "", **extra: Any) -> Response:
        """An error in the shape of the part that was asked."""
        if request.path.startswith(USER):
            return router.refusal(status, message or "Refused by the router")
        if request.path.startswith("/store/"):
            return Response.of(status, "<Error/>", {"Content-Type": "application/xml"})
        if request.path.startswith("/api/rest/sm/"):
            return self.secrets_manager.error(request, status, code, message, **extra)
        return api.refusal(status, code or "access_denied", message or "Refused by the service")

    def _rest(self, request: Request, path: str) -> Operation:
        name = path.rsplit("/", 1)[-1]
        try:
            call = parsed(self.messages.api.ApiRequest, request.body)
            key = unseal_for(call.encryptedTransmissionKey, self.key)
            payload = parsed(self.messages.api.ApiRequestPayload, unseal(call.encryptedPayload, key))
        except Exception as problem:
            text = f"the request cannot be read: {problem!r}"
            return Operation(name, "", request, lambda: api.refusal(400, "bad_request", text))
        if path == OLD:
            command = json.loads(payload.payload)
            name = command["command"]
            return Operation(name, "", request, lambda: self._old(command, key))
        if name not in self.api.endpoints:
            return Operation(name, "unknown", request, lambda: api.refusal(404, "not_found", name))

        def perform() -> Response:
            if name != "start_login":
                self.api.check_session(payload.encryptedSessionToken)
            answer = self.api.endpoints[name](payload.payload)
            body = answer.SerializeToString() if answer is not None else b""
            return Response.of(200, seal(body, key) if body else b"", changed=True)

        return Operation(name, "", request, perform)

    def _old(self, command: dict[str, Any], key: bytes) -> Response:
        try:
            self.api.check_session(unb64(command["session_token"]))
            answer = {"result": "success", **self.api.commands[command["command"]](command)}
        except Refusal as problem:
            body = json.loads(problem.response.body)
            answer = {"result": "fail", "result_code": body["error"], "message": body["message"]}
        return Response.of(200, seal(json.dumps(answer).encode(), key), changed=True)

    def _router(self, request: Request, path: str) -> Operation:
        name = path.rsplit("/", 1)[-1]
        of = path.split("/")[-2] if path.count("/") else ""
        op = f"router/{name}"
        try:
            key = unseal_for(unb64(request.headers.get("TransmissionKey") or ""), self.key)
            token = unseal(unb64((request.headers.get("Authorization") or "").partition(" ")[2]), key)
        except Undecipherable:
            return Operation(op, "", request, lambda: router.refusal(401, "Unauthorized"))
        handler = self.router.messages.get(f"{name} of {of}" if of else name)

        def perform() -> Response:
            try:
                self.api.check_session(token)
            except Refusal:
                return router.refusal(401, "Session token expired")
            if handler is None:
                if of or name not in self.router.plain:
                    return router.refusal(404, f"no endpoint {path}")
                answer = self.router.plain[name](json.loads(request.body))
                return Response.of(200, json.dumps(answer), {"Content-Type": "application/json"}, changed=True)
            m = self.messages.router
            found = handler(unseal(request.body, key))
            if isinstance(found, m.RouterResponse):
                return Response.of(200, found.SerializeToString(), detail=found.errorMessage)
            response = m.RouterResponse(responseCode=m.RRC_OK)
            if found is not None:
                response.encryptedPayload = seal(found.SerializeToString(), key)
            return Response.of(200, response.SerializeToString(), changed=True)

        return Operation(op, "", request, perform)

    def _store(self, request: Request, uid: str) -> Response:
        file = self.account.files().get(uid)
        if request.method == "GET":
            if file is None or file.content is None:
                return self.error(request, 404)
            return Response.of(200, seal(file.content, file.key))
        parts = _form(request)
        if file is None or parts.get("key") != uid.encode() or "file" not in parts:
            return self.error(request, 403)
        file.content = unseal(parts["file"], file.key)
        return Response.of(201, "", changed=True)
