# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does the steps of a plan, by Commander's own code. What it raises, or says, is no proof: the next look is.

Where a command of Commander prints what went wrong and returns, the part of its API below it is called.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from .._core.base.errors import Refused
from .._core.base.redact import remember
from . import keys
from .graph import Graph
from .model import Step, Wanted, WantedConfig
from .records import Records
from .session import Session, cause, commander

#: Minutes that the one-time token of a new Gateway is good for: it is used at once, or by the next run.
_TOKEN_MINUTES = 24 * 60
_NO_RECORD = "AAAAAAAAAAAAAAAAAAAAAA"


class Effects:
    """Does steps of one kind at a time; returns why, for each that was refused."""

    def __init__(self, session: Session, wanted: Wanted) -> None:
        self._session = session
        self._wanted = wanted
        self._records = Records(session, wanted)
        one: dict[str, Callable[[Any], None]] = {
            "folder": self._folder,
            "application": self._application,
            "grant": self._grant,
            "gateway": self._gateway,
            "config": self._config,
            "config place": self._config_place,
            "config gateway": self._config_gateway,
            "config controller": self._config_controller,
            "config rotation": self._config_rotation,
        }
        self._kinds: dict[str, Callable[[Sequence[Step]], dict[tuple[str, str], str]]] = {
            **{kind: self._each(do) for kind, do in one.items()},
            "record": self._records.make,
            "fields": self._records.update,
            "rotation": self._records.rotate,
            "script": self._records.attach,
        }

    def run(self, steps: Sequence[Step]) -> dict[tuple[str, str], str]:
        """Do steps of one kind; return the causes of refusals by the steps' keys. Raises LoggedOut."""
        return self._kinds[steps[0].kind](steps)

    def _each(self, do: Callable[[Any], None]) -> Callable[[Sequence[Step]], dict[tuple[str, str], str]]:
        def run(steps: Sequence[Step]) -> dict[tuple[str, str], str]:
            refused = {}
            for step in steps:
                self._session.forget()
                try:
                    do(step.value)
                except Exception as problem:
                    self._session.check(problem)
                    refused[step.key] = cause(problem)
                else:
                    refused[step.key] = self._session.said()
            return refused

        return run

    def _folder(self, name: str) -> None:
        """As Commander's mkdir -sf, which takes a name for a path."""
        api, crypto, utils = commander("api"), commander("crypto"), commander("utils")
        key, params = utils.generate_aes_key(), self._session.params

        def sealed(data: bytes, by: bytes) -> str:
            return str(utils.base64_url_encode(crypto.encrypt_aes_v1(data, by)))

        command = {
            "command": "folder_add",
            "folder_type": "shared_folder",
            "folder_uid": api.generate_record_uid(),
            "key": sealed(key, params.data_key),
            "name": sealed(name.encode(), key),
            "data": sealed(json.dumps({"name": name}).encode(), key),
        }
        api.communicate(params, command)

    def _application(self, name: str) -> None:
        ksm = commander("commands.ksm").KSMCommand
        ksm.add_new_v5_app(self._session.params, name, force_to_add=True, format_type="json")

    def _grant(self, value: tuple[str, str, bool]) -> None:
        application, folder, there = value
        params, ksm = self._session.params, commander("commands.ksm").KSMCommand
        if there:
            ksm.update_app_share(params, [folder], application, True)
        else:
            key = ksm.get_app_record(params, application)["record_key_unencrypted"]
            ksm.share_secret(params, application, key, [folder], True)

    # -- the Gateway -----------------------------------------------------------------------------------------------

    def _gateway(self, value: tuple[str, bool]) -> None:
        """Make a client of the application that is a Gateway, keep its configuration, and bind it."""
        application, announced = value
        path, params = self._wanted.keys_file, self._session.params
        content = keys.read(path) if keys.look(path).exists else {}
        if not content:
            content = self._unbound()
            keys.write_new(path, content)
        self._remember(content)
        app_key = commander("commands.ksm").KSMCommand.get_app_record(params, application)["record_key_unencrypted"]
        if not announced:
            self._announce(application, app_key, content["clientKey"])
        bound = self._bound(content, app_key)
        self._remember(bound)
        keys.replace(path, bound)

    def _unbound(self) -> dict[str, str]:
        """Return a Secrets Manager configuration with a one-time token, by Keeper's own SDK."""
        sdk, storage = _ksm("SecretsManager"), _ksm("storage").InMemoryKeyValueStorage()
        token = commander("utils").base64_url_encode(os.urandom(32))
        remember(token)
        sdk(hostname=self._host(), token=token, config=storage)
        return {key.value: value for key, value in storage.config.items() if value}

    def _announce(self, application: str, app_key: bytes, token: str) -> None:
        utils, messages = commander("utils"), commander("proto.APIRequest_pb2")
        secret = utils.base64_url_decode(token)
        request = messages.AddAppClientRequest(
            appRecordUid=utils.base64_url_decode(application),
            encryptedAppKey=commander("crypto").encrypt_aes_v2(app_key, secret),
            clientId=hmac.new(secret, b"KEEPER_SECRETS_MANAGER_CLIENT_ID", hashlib.sha512).digest(),
            lockIp=False,
            firstAccessExpireOn=utils.current_milli_time() + _TOKEN_MINUTES * 60_000,
            id=self._wanted.gateway,
            appClientType=commander("proto.enterprise_pb2").DISCOVERY_AND_ROTATION_CONTROLLER,
        )
        commander("api").communicate_rest(self._session.params, request, "vault/app_client_add")

    def _bound(self, content: dict[str, str], app_key: bytes) -> dict[str, str]:
        """Use the token up, or find that an earlier run has done so; return the configuration for good."""
        params, names = self._session.params, _ksm("configkeys").ConfigKeys
        storage = _ksm("storage").InMemoryKeyValueStorage(json.dumps(content))
        manager = _ksm("SecretsManager")(
            config=storage, verify_ssl_certs=params.ssl_verify, proxy_url=params.proxy or None
        )
        # With an id in its configuration the SDK forgets the token, which it needs once.
        storage.set(names.KEY_CLIENT_KEY, content["clientKey"])
        try:
            manager.get_secrets([_NO_RECORD])
        except Exception:
            storage.delete(names.KEY_CLIENT_KEY)
            storage.set(names.KEY_APP_KEY, base64.b64encode(app_key).decode())
            owner = commander("crypto").unload_ec_public_key(params.ecc_key.public_key())
            storage.set(names.KEY_OWNER_PUBLIC_KEY, base64.b64encode(owner).decode())
            try:
                manager.get_secrets([_NO_RECORD])
            except Exception as problem:
                todo = f"remove {self._wanted.keys_file}, and run it again"
                raise Refused("the new Gateway's one-time token was not taken", cause(problem), todo) from None
        if storage.get(names.KEY_APP_KEY) != base64.b64encode(app_key).decode():
            raise Refused("Keeper did not bind the Gateway", "the key that it gave is not the application's")
        return {key.value: value for key, value in storage.config.items() if value}

    def _host(self) -> str:
        server = self._session.params.server
        return str(server.split("://", 1)[-1].split("/", 1)[0])

    @staticmethod
    def _remember(content: dict[str, str]) -> None:
        for name in ("clientKey", "privateKey", "appKey"):
            if content.get(name):
                remember(content[name])

    # -- the PAM configuration -------------------------------------------------------------------------------------

    def _config(self, value: tuple[WantedConfig, str, str, str]) -> None:
        """As Commander's pam config new: the record in its folder, its graph, its Gateway."""
        config, kind, gateway, folder = value
        params = self._session.params
        edit, vault = commander("commands.record_edit").RecordEditMixin, commander("vault")
        record = vault.TypedRecord(version=6)
        record.type_name, record.title = kind, config.title
        edit.adjust_typed_record_fields(record, edit.get_record_type_fields(params, kind) or [])
        for field in record.fields:
            if config.values.get(field.label):
                field.value = [config.values[field.label]]
            elif field.type == "pamResources":
                field.value = [{"controllerUid": gateway, "folderUid": folder, "resourceRef": []}]
            elif field.type == "schedule":
                field.value = [{"type": "ON_DEMAND"}]
        target = commander("commands.pam.vault_target")
        target.create_pam_configuration_in_folder(params, record, folder)
        self._config_controller((record.record_uid, gateway))
        self._config_rotation(record.record_uid)

    def _config_place(self, value: tuple[str, str]) -> None:
        commander("commands.pam.vault_target").place_record_in_folder(self._session.params, *value)

    def _config_gateway(self, value: tuple[str, str, str]) -> None:
        """Write the Gateway into the record of the configuration."""
        uid, gateway, folder = value
        data = json.loads(self._session.params.record_cache[uid]["data_unencrypted"])
        resources = [one for one in data.get("fields") or [] if one.get("type") == "pamResources"]
        if not resources:
            resources = [{"type": "pamResources", "value": []}]
            data.setdefault("fields", []).extend(resources)
        old = (resources[0].get("value") or [{}])[0]
        resources[0]["value"] = [{"resourceRef": [], **old, "controllerUid": gateway, "folderUid": folder}]
        self._records.save(uid, data)

    def _config_controller(self, value: tuple[str, str]) -> None:
        decode, messages = commander("utils").base64_url_decode, commander("proto.pam_pb2")
        request = messages.PAMConfigurationController(configurationUid=decode(value[0]), controllerUid=decode(value[1]))
        commander("api").communicate_rest(self._session.params, request, "pam/set_configuration_controller")

    def _config_rotation(self, uid: str) -> None:
        Graph(self._session, uid).allow_rotation()


def _ksm(name: str) -> Any:
    """Return a part of Keeper's Secrets Manager SDK, on which Commander depends."""
    package = importlib.import_module("keeper_secrets_manager_core")
    return getattr(package, name) if hasattr(package, name) else importlib.import_module(f"{package.__name__}.{name}")
