# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is done to the records: made and saved in bulk, rotated and given their script one by one.

A record is saved as its own data with the change in it. Commander's own commands rebuild it from the parts that they
know, check its password against today's rules again, and save record by record.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._core.base.errors import Refused
from .._core.records.app_fields import with_fields
from .graph import Graph
from .model import Step, Wanted, WantedRecord
from .plan_records import ScriptChange
from .session import Session, cause, commander

Key = tuple[str, str]
Causes = dict[Key, str]
#: Records in one request: the service takes 999.
BATCH = 100


@dataclass(frozen=True)
class Change:
    """A record's data as it is to be, the keys of files to link to it by their uids, and files to unlink."""

    uid: str
    data: dict[str, Any] = field(repr=False)
    added: dict[str, bytes] = field(default_factory=dict, repr=False)
    gone: Sequence[str] = ()


class Records:
    """Does the steps of records; each function returns why, by the steps' keys. Raises LoggedOut."""

    def __init__(self, session: Session, wanted: Wanted) -> None:
        self._session = session
        self._wanted = wanted

    def make(self, steps: Sequence[Step]) -> Causes:
        """Make PAM User records, with a password by the rules of the user's role: nothing uses it."""
        params, utils = self._session.params, commander("utils")
        management = commander("record_management")
        causes: Causes = {}
        made: dict[bytes, Key] = {}
        requests = []
        for step in steps:
            try:
                record = self._new(step.value[0])
                add = management.add_record_to_folder(params, record, step.value[1], pb_only=True)
            except Exception as problem:
                causes[step.key] = cause(problem)
                continue
            made[utils.base64_url_decode(record.record_uid)] = step.key
            requests.append(add)
        for start in range(0, len(requests), BATCH):
            request = commander("api").get_records_add_request(params)
            request.records.extend(requests[start : start + BATCH])
            keys = {one.record_uid: made[one.record_uid] for one in request.records}
            causes.update(self._modify("vault/records_add", request, keys))
        return causes

    def _new(self, one: WantedRecord) -> Any:
        params, vault, enforcement = self._session.params, commander("vault"), commander("enforcement")
        edit = commander("commands.record_edit").RecordEditMixin
        types = edit.get_record_type_fields(params, "pamUser")
        if not types:
            raise Refused("Keeper does not offer the record type PAM User", "the account has no KeeperPAM")
        policy = enforcement.PasswordComplexityEnforcer.get_policy(params)
        password, problem = edit.generate_password(policy=policy)
        if problem:
            raise Refused(str(problem))
        fields = []
        for kind in types:
            given = {"login": one.login or one.title, "password": password}.get(kind["$ref"])
            item = {"type": kind["$ref"], "value": [given] if given else []}
            fields.append({**item, **{key: kind[key] for key in ("label", "required") if kind.get(key)}})
        data = {"type": "pamUser", "title": one.title, "notes": "", "fields": fields, "custom": []}
        record = vault.TypedRecord()
        record.load_record_data(with_fields(data, "", one.values))
        broken = enforcement.PasswordComplexityEnforcer.validate_record(params, record)
        if broken:
            raise Refused("the password that was made for it does not follow your role's rules", "; ".join(broken))
        return record

    def update(self, steps: Sequence[Step]) -> Causes:
        """Save records with changed fields."""
        return self._save({step.key: Change(*step.value) for step in steps})

    def save(self, uid: str, data: dict[str, Any]) -> None:
        """Save one record. Raises Refused."""
        causes = self._save({("save", uid): Change(uid, data)})
        if causes:
            raise Refused("the record was not saved", next(iter(causes.values())))

    def rotate(self, steps: Sequence[Step]) -> Causes:
        """Link the records in the graph, and give the router their settings."""
        session, causes = self._session, {}
        graph = None
        for step in steps:
            uid, config, schedule, link, settings = step.value
            session.forget()
            try:
                if link:
                    graph = graph or Graph(session, config)
                    graph.link(uid)
                if settings:
                    self._set_rotation(uid, config, schedule)
            except Exception as problem:
                session.check(problem)
                causes[step.key] = cause(problem)
                graph = None  # what is in memory may be more than was saved
            else:
                causes[step.key] = session.said()
        return causes

    def _set_rotation(self, uid: str, config: str, schedule: str) -> None:
        params, decode = self._session.params, commander("utils").base64_url_decode
        before = params.record_rotation_cache.get(uid) or {}
        request = commander("proto.router_pb2").RouterRecordRotationRequest(
            recordUid=decode(uid),
            revision=before.get("revision") or 0,
            configurationUid=decode(config),
            resourceUid=b"",
            noop=True,
            schedule=schedule,
            pwdComplexity=decode(before.get("pwd_complexity") or ""),
            disabled=False,
        )
        commander("commands.pam.router_helper").router_set_record_rotation_information(params, request)

    def attach(self, steps: Sequence[Step]) -> Causes:
        """Upload the script where it is needed, and save the records with their entry for it."""
        session, script = self._session, self._wanted.script
        causes: Causes = {}
        changes: dict[Key, Change] = {}
        for step in steps:
            change: ScriptChange = step.value
            session.forget()
            try:
                data = json.loads(session.params.record_cache[change.uid]["data_unencrypted"])
                file = change.keep
                added: dict[str, bytes] = {}
                if change.upload:
                    file, added = self._upload()
                data = change.apply(data, file, script.command, script.credentials)
                changes[step.key] = Change(change.uid, data, added, change.gone)
            except Exception as problem:
                session.check(problem)
                causes[step.key] = cause(problem)
        causes.update(self._save(changes))
        return causes

    def _upload(self) -> tuple[str, dict[str, bytes]]:
        """Upload the script, announced as one, and linked to no record yet; return its uid, and its key by that."""
        attachment, record = commander("attachment"), commander("vault").TypedRecord()
        task = attachment.BytesUploadTask(self._wanted.script.content)
        task.name, task.is_script = self._wanted.script.name, True
        task.mime_type = mimetypes.guess_type(task.name)[0] or ""
        attachment.upload_attachments(self._session.params, record, [task])
        keys: dict[str, bytes] = record.linked_keys or {}
        if len(keys) != 1:
            raise Refused("the script was not uploaded")
        return next(iter(keys)), keys

    def _save(self, changes: Mapping[Key, Change]) -> Causes:
        """Save records, at the revision that was synced."""
        decode, causes = commander("utils").base64_url_decode, {}
        items = list(changes.items())
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            request = commander("api").get_records_update_request(self._session.params)
            request.records.extend(self._update(change) for _key, change in batch)
            keys = {decode(change.uid): key for key, change in batch}
            causes.update(self._modify("vault/records_update", request, keys))
        return causes

    def _update(self, change: Change) -> Any:
        api, crypto, utils = commander("api"), commander("crypto"), commander("utils")
        cached = self._session.params.record_cache[change.uid]
        key = cached["record_key_unencrypted"]
        update = commander("proto.record_pb2").RecordUpdate(
            record_uid=utils.base64_url_decode(change.uid),
            client_modified_time=utils.current_milli_time(),
            revision=cached["revision"],
            data=crypto.encrypt_aes_v2(api.get_record_data_json_bytes(change.data), key),
            record_links_remove=[utils.base64_url_decode(file) for file in change.gone],
        )
        for file, file_key in change.added.items():
            link = crypto.encrypt_aes_v2(file_key, key)
            update.record_links_add.add(record_uid=utils.base64_url_decode(file), record_key=link)
        return update

    def _modify(self, path: str, request: Any, keys: Mapping[bytes, Key]) -> Causes:
        """Send records, and return the causes for those that were not taken."""
        messages = commander("proto.record_pb2")
        try:
            answer = commander("api").communicate_rest(
                self._session.params, request, path, rs_type=messages.RecordsModifyResponse
            )
        except Exception as problem:
            self._session.check(problem)
            return dict.fromkeys(keys.values(), cause(problem))
        results = messages.RecordModifyResult
        return {
            keys[one.record_uid]: one.message or results.Name(one.status)
            for one in answer.records
            if one.status != messages.RS_SUCCESS and one.record_uid in keys
        }
