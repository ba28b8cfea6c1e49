# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks at everything that a rotation needs: the synced vault, and what only the services know. Changes nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._core.records.entries import entries
from . import keys
from .graph import Graph
from .model import Attachment, Gateway, Record, Rotation, Seen, Wanted
from .plan import shared_uids
from .session import Session, commander

_FILE, _APPLICATION, _CONFIG, _TYPED = 4, 5, 6, 3
_DOWNLOAD = (15, 120)


def look(session: Session, wanted: Wanted) -> Seen:
    """Return what there is. Raises BadInput where a name stands for several things, Refused, and LoggedOut."""
    params = session.params
    folders = dict(_grantable(params))
    vault = {
        "user": params.user,
        "records": dict(_records(params, folders)),
        "rotations": {uid: _rotation(one) for uid, one in params.record_rotation_cache.items()},
        "links": frozenset((parent, child) for child, ways in params.record_link_cache.items() for parent in ways),
        "files": dict(_files(params)),
        "forbidden": frozenset(_forbidden(params)),
    }
    seen = Seen(**vault)
    vault["files"].update(_contents(session, wanted, seen))
    if not wanted.present:
        return Seen(**vault)
    vault["folders"] = {uid: one.get("name_unencrypted") or uid for uid, one in params.shared_folder_cache.items()}
    vault["applications"] = dict(_applications(params))
    vault["gateways"] = tuple(_gateways(session))
    vault["keys"] = keys.look(wanted.keys_file)
    uids = shared_uids(wanted, Seen(**vault))
    if uids.application:
        vault.update(_application(session, uids.application))
    if uids.config:
        vault["controller"] = _controller(session, uids.config)
        vault.update(Graph(session, uids.config).facts(vault["records"]))
    return Seen(**vault)


def _grantable(params: Any) -> Iterator[tuple[str, str]]:
    """Give each folder, with the one whose share to an application covers what is in it.

    A folder inside a shared folder is covered by that; a nested share folder is covered by its own share alone.
    """
    for uid, one in params.subfolder_cache.items():
        if one.get("type") == "shared_folder_folder":
            yield uid, one["shared_folder_uid"]
        elif one.get("type") == "shared_folder" or one.get("source") == "nested_share_folder":
            yield uid, uid


def _records(params: Any, folders: Mapping[str, str]) -> Iterator[tuple[str, Record]]:
    places: dict[str, set[str]] = {}
    for folder, uids in params.subfolder_record_cache.items():
        for uid in uids if folder in folders else ():
            places.setdefault(uid, set()).add(folders[folder])
    editable = {
        one["record_uid"]: bool(one.get("can_edit"))
        for folder in params.shared_folder_cache.values()
        for one in folder.get("records") or []
    }
    for uid, cached in params.record_cache.items():
        if cached.get("version") not in (_TYPED, _CONFIG):
            continue
        try:
            data = json.loads(cached["data_unencrypted"])
        except (KeyError, ValueError):
            continue
        if not isinstance(data, dict):
            continue
        owner = params.record_owner_cache.get(uid)
        meta = params.meta_data_cache.get(uid) or {}
        own = bool(owner and owner.owner) or bool(meta.get("owner"))
        edit = own or bool(meta.get("can_edit")) or editable.get(uid, False)
        title, kind = str(data.get("title") or ""), str(data.get("type") or "")
        yield uid, Record(uid, title, kind, data, own, edit, frozenset(places.get(uid, ())))


def _rotation(cached: Mapping[str, Any]) -> Rotation:
    resource = cached.get("resource_uid") or ""
    config = cached.get("configuration_uid") or ""
    return Rotation(config, cached.get("schedule") or "", bool(cached.get("disabled")), resource)


def _files(params: Any) -> Iterator[tuple[str, Attachment]]:
    for uid, cached in params.record_cache.items():
        if cached.get("version") == _FILE:
            try:
                data = json.loads(cached["data_unencrypted"])
                yield uid, Attachment(uid, str(data.get("name") or ""), str(data.get("title") or ""))
            except (AttributeError, KeyError, ValueError):
                continue


def _contents(session: Session, wanted: Wanted, seen: Seen) -> Iterator[tuple[str, Attachment]]:
    """Give the scripts of the wanted records with the hash of what is stored: one question, a download for each."""
    if wanted.script.content is None:
        return
    mine = {one.uid for one in wanted.records if one.uid} | {
        uid
        for uid, one in seen.records.items()
        if one.type == "pamUser" and one.title in {record.title for record in wanted.records if not record.uid}
    }
    refs = [str(item.get("fileRef")) for uid in mine if uid in seen.records for item in _entries(seen.records[uid])]
    uids = [uid for uid in dict.fromkeys(refs) if uid in seen.files and seen.files[uid].name == wanted.script.name]
    for uid, content in _download(session, uids):
        one = seen.files[uid]
        yield uid, Attachment(uid, one.name, one.title, hashlib.sha256(content).hexdigest() if content else "")


def _entries(record: Record) -> list[dict[str, Any]]:
    return entries(json.loads(json.dumps(record.data)))


def _download(session: Session, uids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Give the content of each file that can be downloaded and decrypted: Commander takes an error page for a file."""
    messages, utils = commander("proto.record_pb2"), commander("utils")
    request = messages.FilesGetRequest(record_uids=[utils.base64_url_decode(uid) for uid in uids])
    if not request.record_uids:
        return
    answer = session.ask("the attached scripts", "vault/files_download", request, messages.FilesGetResponse)
    with commander("api").requests.Session() as http:
        for status in answer.files:
            content = _fetched(session, http, status) if status.status == messages.FG_SUCCESS else None
            if content is not None:
                yield utils.base64_url_encode(status.record_uid), content


def _fetched(session: Session, http: Any, status: Any) -> bytes | None:
    """Return a file's content; None for what cannot be fetched or decrypted, which is not the script."""
    params = session.params
    key = params.record_cache[commander("utils").base64_url_encode(status.record_uid)]["record_key_unencrypted"]
    try:
        reply = http.get(status.url, proxies=params.rest_context.proxies, verify=params.ssl_verify, timeout=_DOWNLOAD)
        if reply.status_code != (status.success_status_code or 200):
            return None
        content: bytes = commander("crypto").decrypt_aes_v2(reply.content, key)
    except Exception:
        return None
    return content


def _applications(params: Any) -> Iterator[tuple[str, str]]:
    for uid, cached in params.record_cache.items():
        if cached.get("version") == _APPLICATION:
            try:
                data = json.loads(cached["data_unencrypted"])
            except (KeyError, ValueError):
                continue
            if isinstance(data, dict) and data.get("type") == "app":
                yield uid, str(data.get("title") or "")


def _application(session: Session, uid: str) -> dict[str, Any]:
    messages, utils = commander("proto.APIRequest_pb2"), commander("utils")
    request = messages.GetAppInfoRequest(appRecordUid=[utils.base64_url_decode(uid)])
    what = "what is shared to the Secrets Manager application"
    answer = session.ask(what, "vault/get_app_info", request, messages.GetAppInfoResponse)
    infos = list(answer.appInfo)
    return {
        "grants": {utils.base64_url_encode(one.secretUid): one.editable for info in infos for one in info.shares},
        "clients": frozenset(base64.b64encode(one.clientId).decode() for info in infos for one in info.clients),
    }


def _gateways(session: Session) -> Iterator[Gateway]:
    messages, utils = commander("proto.pam_pb2"), commander("utils")
    answer = session.ask("the list of Gateways", "pam/get_controllers", None, messages.PAMControllersResponse)
    for one in answer.controllers:
        application = utils.base64_url_encode(one.applicationUid)
        yield Gateway(utils.base64_url_encode(one.controllerUid), one.controllerName, application)


def _controller(session: Session, config: str) -> str:
    """Return the Gateway of a PAM configuration as the service knows it; empty for none."""
    messages, utils = commander("proto.pam_pb2"), commander("utils")
    request = messages.PAMGenericUidRequest(uid=utils.base64_url_decode(config))
    what = "the Gateway of the PAM configuration"
    answer = session.ask(what, "pam/get_configuration_controller", request, messages.PAMController)
    return str(utils.base64_url_encode(answer.controllerUid)) if answer.controllerUid else ""


def _forbidden(params: Any) -> Iterator[str]:
    """Give what the user's roles forbid that Commander itself would only find out, or ask for, on the way."""
    if not commander("commands.workflow.helpers").is_pam_action_allowed_by_enforcement(params, "allow_pam_gateway"):
        yield "gateways"
    enforcement = commander("enforcement")
    if enforcement.MasterPasswordReentryEnforcer.requires_master_password_reentry(params, "record_level"):
        yield "edits"
    try:
        enforcement.RecordTypeEnforcer.enforce(params, "pamUser", "record-add")
    except Exception:
        yield "record type"
