# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeper's API as Commander uses it: every message is parsed, every key that it sends must open what it is for."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Callable

from cryptography.hazmat.primitives.asymmetric import ec

from sandbox import crypto
from sandbox.crypto import Undecipherable, b64, seal, unseal
from sandbox.exchange import Refusal, Response
from sandbox.vault import Device, VaultFile, VaultRecord

from . import record_types
from .account import ROOT, Account, App, Client, SharedFolder
from .protocol import Messages, parsed, raw_private, rsa_private_der, to_bytes, to_uid, unseal_cbc, url_unb64
from .syncing import Sync


def refusal(status: int, code: str, message: str) -> Response:
    """An error of the API: JSON, in clear."""
    return Response.of(
        status,
        json.dumps({"error": code, "message": message, "additional_info": ""}),
        {"Content-Type": "application/json"},
        detail=code,
    )


def refuse(status: int, code: str, message: str) -> None:
    """End the exchange with an error."""
    raise Refusal(refusal(status, code, message))


class Api:
    """The endpoints by name. Each takes the payload of its request and returns a message, bytes, or None."""

    def __init__(self, account: Account, messages: Messages) -> None:
        self.account = account
        self.m = messages
        self.sync = Sync(account, messages)
        self.url = ""
        self.sessions: dict[bytes, int] = {}
        self.endpoints: dict[str, Callable[[bytes], Any]] = {
            "start_login": self._login,
            "account_summary": self._summary,
            "get_enterprise_public_key": self._enterprise_key,
            "sync_down": lambda data: self.sync.answer(parsed(self.m.sync.SyncDownRequest, data)),
            "get_record_types": self._record_types,
            "application_add": self._application_add,
            "get_app_info": self._app_info,
            "app_share_add": self._share,
            "app_share_remove": self._unshare,
            "app_client_add": self._client,
            "records_add": self._records_add,
            "records_update": self._records_update,
            "files_add": self._files_add,
            "files_download": self._files_download,
            "get_controllers": self._controllers,
            "add_configuration_record": self._configuration_add,
            "set_configuration_controller": self._set_controller,
            "get_configuration_controller": self._get_controller,
            # What a client reports for the security audit is nobody's business here.
            "update_security_data": lambda data: None,
            "set_reused_passwords": lambda data: None,
        }
        self.commands: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "folder_add": self._folder_add,
            "move": self._move,
        }

    # -- sessions --------------------------------------------------------------------------------------------------

    def check_session(self, token: bytes) -> None:
        """Refuse a request whose session is over, or was never begun."""
        left = self.sessions.get(token)
        if not left:
            self.sessions.pop(token, None)
            refuse(403, "session_token_expired", "Session token expired")
        assert left is not None
        self.sessions[token] = left - 1

    def _login(self, data: bytes) -> Any:
        account, m = self.account, self.m.api
        request = parsed(m.StartLoginRequest, data)
        if request.encryptedDeviceToken != account.device_token:
            refuse(400, "device_not_registered", "Device not registered")
        response = m.LoginResponse(
            loginState=m.LoginState.Value(account.login_state), encryptedLoginToken=os.urandom(32)
        )
        if account.login_state == "REQUIRES_AUTH_HASH":
            response.salt.add(iterations=1000, salt=os.urandom(16), name="default")
        if account.login_state != "LOGGED_IN":
            return response
        token = os.urandom(32)
        self.sessions[token] = account.session_requests or 1_000_000
        response.accountUid = account.uid
        response.primaryUsername = account.user
        response.encryptedDataKey = _seal_for(account.data_key, account.device)
        response.encryptedDataKeyType = m.BY_DEVICE_PUBLIC_KEY
        response.encryptedSessionToken = token
        response.cloneCode = os.urandom(8)
        return response

    def _summary(self, data: bytes) -> Any:
        account, m = self.account, self.m.summary
        response = m.AccountSummaryElements()
        response.settings.persistentLogin = True
        response.license.accountType = 2
        response.license.enterpriseId = 42
        response.keysInfo.encryptedPrivateKey = crypto.seal_cbc(rsa_private_der(account.rsa), account.data_key)
        response.keysInfo.encryptedEccPrivateKey = seal(raw_private(account.ecc), account.data_key)
        response.keysInfo.eccPublicKey = crypto.point(account.ecc)
        response.clientKey = crypto.seal_cbc(os.urandom(32), account.data_key)
        for kind, values in account.enforcements.items():
            for key, value in values.items():
                getattr(response.Enforcements, kind).add(key=key, value=value)
        return response

    def _enterprise_key(self, data: bytes) -> Any:
        return self.m.breachwatch.EnterprisePublicKeyResponse(
            enterpriseECCPublicKey=crypto.point(self.account.enterprise)
        )

    def _record_types(self, data: bytes) -> Any:
        response = self.m.record.RecordTypesResponse()
        number = 0
        for scope, types in record_types.TYPES.items():
            for one in types:
                number += 1
                response.recordTypes.add(
                    recordTypeId=number, content=json.dumps(one), scope=self.m.record.RecordTypeScope.Value(scope)
                )
        return response

    # -- folders ---------------------------------------------------------------------------------------------------

    def _folder_add(self, command: dict[str, Any]) -> dict[str, Any]:
        account = self.account
        if command["folder_type"] != "shared_folder":
            refuse(400, "bad_inputs", "only shared folders here")
        key = self._opened(unseal_cbc, url_unb64(command["key"]), account.data_key)
        name = self._opened(unseal_cbc, url_unb64(command["name"]), key).decode()
        data = json.loads(self._opened(unseal_cbc, url_unb64(command["data"]), key))
        if data["name"] != name:
            refuse(400, "bad_inputs", "name and data differ")
        account.folders[command["folder_uid"]] = SharedFolder(name, command["folder_uid"], key)
        return {"revision": account.vault.next_revision()}

    def _move(self, command: dict[str, Any]) -> dict[str, Any]:
        account = self.account
        keys = {one["uid"]: url_unb64(one["key"]) for one in command.get("transition_keys", [])}
        target = command.get("to_uid") or ROOT
        folder = account.shared_folder_of(target)
        for one in command["move"]:
            record = account.vault.records.get(one["uid"])
            if record is None or one["type"] != "record":
                refuse(403, "access_denied", "no such record")
                continue
            if folder is not None and self._opened(unseal, keys[record.uid], folder.key) != record.key:
                refuse(400, "bad_inputs", "that is not the key of the record")
            account.places[record.uid] = target
        account.project()
        return {}

    # -- Secrets Manager applications ------------------------------------------------------------------------------

    def _application_add(self, data: bytes) -> None:
        request = parsed(self.m.record.ApplicationAddRequest, data)
        key = self._opened(unseal, request.record_key, self.account.data_key)
        content = json.loads(self._opened(unseal, request.data, key))
        if content["type"] != "app":
            refuse(400, "bad_inputs", "not an application")
        self.account.register(App(content["title"], to_uid(request.app_uid), key))

    def _app(self, uid: bytes) -> App:
        app = self.account.apps.get(to_uid(uid))
        if app is None:
            refuse(403, "access_denied", "no such application")
        assert app is not None
        return app

    def _app_info(self, data: bytes) -> Any:
        m = self.m.api
        response = m.GetAppInfoResponse()
        for uid in parsed(m.GetAppInfoRequest, data).appRecordUid:
            app = self._app(uid)
            info = response.appInfo.add(appRecordUid=uid)
            for secret, (kind, editable) in app.shares.items():
                share = m.SHARE_TYPE_FOLDER if kind == "folder" else m.SHARE_TYPE_RECORD
                info.shares.add(secretUid=to_bytes(secret), shareType=share, editable=editable)
            for client_id, client in app.clients.items():
                device = self.account.vault.devices[client_id]
                info.clients.add(
                    id=client.name,
                    clientId=crypto.unb64(client_id),
                    appClientType=client.kind,
                    publicKey=device.public_key or b"",
                    firstAccess=self.account.now() if device.public_key else 0,
                )
        return response

    def _share(self, data: bytes) -> None:
        request = parsed(self.m.api.AddAppSharesRequest, data)
        app = self._app(request.appRecordUid)
        for share in request.shares:
            uid = to_uid(share.secretUid)
            if uid in app.shares:
                refuse(400, "duplicate", "Duplicate share, already added")
            folder, record = self.account.folders.get(uid), self.account.vault.records.get(uid)
            wanted = folder.key if folder else record.key if record else None
            if wanted is None or self._opened(unseal, share.encryptedSecretKey, app.key) != wanted:
                refuse(400, "bad_inputs", "that is not the key of what is shared")
            app.shares[uid] = ("folder" if folder else "record", share.editable)
        self.account.project()

    def _unshare(self, data: bytes) -> None:
        request = parsed(self.m.api.RemoveAppSharesRequest, data)
        app = self._app(request.appRecordUid)
        for uid in request.shares:
            app.shares.pop(to_uid(uid), None)
        self.account.project()

    def _client(self, data: bytes) -> Any:
        m = self.m
        request = parsed(m.api.AddAppClientRequest, data)
        app = self._app(request.appRecordUid)
        client_id = b64(request.clientId)
        if len(request.clientId) != 64 or client_id in self.account.vault.devices:
            refuse(400, "bad_inputs", "that is no new client id")
        kind = request.appClientType
        app.clients[client_id] = Client(request.id, kind, request.encryptedAppKey, request.firstAccessExpireOn)
        self.account.vault.devices[client_id] = Device(client_id, os.urandom(32))
        return m.api.Device(encryptedDeviceToken=os.urandom(32))

    # -- records and files -----------------------------------------------------------------------------------------

    def _records_add(self, data: bytes) -> Any:
        m, account = self.m.record, self.account
        response = m.RecordsModifyResponse()
        for add in parsed(m.RecordsAddRequest, data).records:
            uid = to_uid(add.record_uid)
            status = response.records.add(record_uid=add.record_uid, status=m.RS_SUCCESS)
            if uid in account.vault.records:
                status.status = m.RS_RECORD_EXISTS
                continue
            key = self._opened(unseal, add.record_key, account.data_key)
            content = json.loads(self._opened(unseal, add.data, key))
            place = to_uid(add.folder_uid) if add.folder_uid else ROOT
            folder = account.shared_folder_of(place)
            if folder is not None and self._opened(unseal, add.folder_key, folder.key) != key:
                refuse(400, "bad_inputs", "the folder's key of the record is another")
            self._new_record(uid, key, content, place)
        response.revision = account.vault.next_revision()
        account.project()
        return response

    def _new_record(self, uid: str, key: bytes, content: dict[str, Any], place: str) -> None:
        vault = self.account.vault
        vault.records[uid] = VaultRecord(content, vault.next_revision(), uid=uid, key=key, _vault=vault)
        self.account.places[uid] = place

    def _records_update(self, data: bytes) -> Any:
        m, account = self.m.record, self.account
        response = m.RecordsModifyResponse()
        for update in parsed(m.RecordsUpdateRequest, data).records:
            record = account.vault.records.get(to_uid(update.record_uid))
            status = response.records.add(record_uid=update.record_uid, status=m.RS_SUCCESS)
            if record is None:
                status.status = m.RS_ACCESS_DENIED
            elif update.revision != record.revision:
                status.status = m.RS_OUT_OF_SYNC
            elif update.record_links_add and record.uid in account.strangers:
                status.status = m.RS_ONLY_OWNER_CAN_MODIFY_SCRIPTS
            else:
                self._update(record, update)
        response.revision = account.vault.next_revision()
        return response

    def _update(self, record: VaultRecord, update: Any) -> None:
        account = self.account
        content = json.loads(self._opened(unseal, update.data, record.key))
        known = account.files()
        for link in update.record_links_add:
            file = known[to_uid(link.record_uid)]
            if self._opened(unseal, link.record_key, record.key) != file.key:
                refuse(400, "bad_inputs", "that is not the key of the file")
            account.loose_files.pop(file.uid, None)
            record.files.append(file)
        gone = {to_uid(uid) for uid in update.record_links_remove}
        account.loose_files.update({one.uid: one for one in record.files if one.uid in gone})
        record.files = [one for one in record.files if one.uid not in gone]
        record.data = content
        # The answer's revision is the record's.
        record.revision = account.vault._revision + 1

    def _files_add(self, data: bytes) -> Any:
        m, account = self.m.record, self.account
        response = m.FilesAddResponse()
        for file in parsed(m.FilesAddRequest, data).files:
            uid = to_uid(file.record_uid)
            status = response.files.add(record_uid=file.record_uid, status=m.FA_SUCCESS)
            if file.is_script and not account.may_attach:
                status.status = m.FA_ERROR
                continue
            key = self._opened(unseal, file.record_key, account.data_key)
            meta = json.loads(self._opened(unseal, file.data, key))
            account.loose_files[uid] = VaultFile(meta["name"], key, meta, uid=uid)
            if file.is_script:
                account.scripts.add(uid)
            status.url = f"{self.url}/store/{uid}"
            status.parameters = json.dumps({"key": uid})
            status.success_status_code = 201
        response.revision = account.vault.next_revision()
        return response

    def _files_download(self, data: bytes) -> Any:
        m, known = self.m.record, self.account.files()
        response = m.FilesGetResponse()
        for uid in parsed(m.FilesGetRequest, data).record_uids:
            there = to_uid(uid) in known
            response.files.add(
                record_uid=uid,
                status=m.FG_SUCCESS if there else m.FG_ACCESS_DENIED,
                url=f"{self.url}/store/{to_uid(uid)}" if there else "",
                success_status_code=200,
                fileKeyType=m.ENCRYPTED_BY_DATA_KEY_GCM,
            )
        return response

    # -- Gateways and PAM configurations ---------------------------------------------------------------------------

    def _controllers(self, data: bytes) -> Any:
        m = self.m.pam
        response = m.PAMControllersResponse()
        for app, client in self.account.gateways().values():
            response.controllers.add(
                controllerUid=to_bytes(client.uid),
                controllerName=client.name,
                applicationUid=to_bytes(app.uid),
                isInitialized=True,
            )
        return response

    def _configuration_add(self, data: bytes) -> None:
        request = parsed(self.m.pam.ConfigurationAddRequest, data)
        key = self._opened(unseal, request.recordKey, self.account.data_key)
        content = json.loads(self._opened(unseal, request.data, key))
        if not content["type"].endswith("Configuration"):
            refuse(400, "bad_inputs", "not a PAM configuration")
        self._new_record(to_uid(request.configurationUid), key, content, ROOT)

    def _set_controller(self, data: bytes) -> None:
        request = parsed(self.m.pam.PAMConfigurationController, data)
        self.account.controllers[to_uid(request.configurationUid)] = to_uid(request.controllerUid)

    def _get_controller(self, data: bytes) -> Any:
        uid = to_uid(parsed(self.m.pam.PAMGenericUidRequest, data).uid)
        controller = self.account.controllers.get(uid)
        found = [client for _app, client in self.account.gateways().values() if client.uid == controller]
        response = self.m.pam.PAMController()
        if found:
            response.controllerUid = to_bytes(found[0].uid)
            response.controllerName = found[0].name
        return response

    @staticmethod
    def _opened(how: Callable[[bytes, bytes], bytes], data: bytes, key: bytes) -> bytes:
        """The real service cannot look inside; here, what nobody could read is a client's defect."""
        try:
            return how(data, key)
        except (Undecipherable, ValueError):
            refuse(400, "bad_inputs", "that cannot be decrypted with the key it is for")
        raise AssertionError


def _seal_for(data: bytes, receiver: crypto.PrivateKey) -> bytes:
    """ECIES on P-256, as Keeper writes it: an ephemeral public point, then AES-GCM."""
    pair = crypto.new_pair()
    shared = pair.exchange(ec.ECDH(), receiver.public_key())
    return crypto.point(pair) + seal(data, hashlib.sha256(shared).digest())
