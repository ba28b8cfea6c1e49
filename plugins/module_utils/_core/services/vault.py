# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeper records over Keeper Secrets Manager (KSM): read, and saved only where nobody was faster."""

from __future__ import annotations

import base64
import binascii
import copy
import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..base.encoded import decode
from ..base.errors import BadInput, Refused
from ..base.labels import Labelled, find, find_all, text_of
from ..base.redact import Log, bounded, foreign, remember
from ..base.timing import Budget
from .configuration import INITIALISED, instead
from .copies import without_read_only_copies
from .http import Http, Reply, Unanswered, pause_before, retry_after, seconds_in
from .secrecy import learn

try:
    from keeper_secrets_manager_core import SecretsManager
    from keeper_secrets_manager_core.configkeys import ConfigKeys
    from keeper_secrets_manager_core.crypto import CryptoUtils
    from keeper_secrets_manager_core.dto.dtos import Folder as SdkFolder
    from keeper_secrets_manager_core.dto.dtos import KeeperFile as SdkFile
    from keeper_secrets_manager_core.dto.dtos import Record as SdkRecord
    from keeper_secrets_manager_core.dto.payload import KSMHttpResponse
    from keeper_secrets_manager_core.storage import InMemoryKeyValueStorage
except ImportError as _problem:
    KSM_PROBLEM = str(_problem)
else:
    KSM_PROBLEM = ""

_T = TypeVar("_T")
# The SDK's own first pause after a throttled call: the limit counts the calls of 10 s.
_THROTTLE_PAUSE = 11.0
_KEY_CHANGES = 3
_TEXT_TYPES = {"text", "secret", "multiline", "password", "note"}
_TOO_LARGE = re.compile(r"(?i)\btoo (?:large|big|long)\b|\bexceeds\b|\bsize limit\b")
_CHECK_DEVICE = "check that the KSM application and its device are not expired, removed or locked to another address"
# Keeper's names of the two calls.
READ, SAVE = "get_secret", "update_secret"
_NEEDED = ("clientId", "privateKey", "appKey")


def parse_configuration(text: str, source: str) -> dict[str, str]:
    """Return a KSM client configuration from JSON or base64 of JSON; ``source`` names it in errors.

    Only a bound configuration is accepted: binding would spend its one-time token and keep the new keys in memory
    alone. Raises BadInput.
    """
    plain = text.strip()
    if not plain:
        raise BadInput(f"the Keeper configuration in {source} is empty", todo=INITIALISED)
    try:
        if not plain.startswith("{"):
            # The SDK fails on a trailing newline and on missing padding.
            plain = decode("".join(plain.split()).encode()).decode("utf-8-sig")
        values = json.loads(plain)
    except (ValueError, binascii.Error, RecursionError):
        values = None
    if not isinstance(values, dict):
        why, todo = ("", "") if values is not None else instead(text.strip(), plain)
        what = f"the Keeper configuration in {source} is neither JSON nor base64 of JSON"
        raise BadInput(what, why, todo or INITIALISED)
    # Keys that the SDK does not know all collapse into one.
    config = {key.value: str(values[key.value]) for key in ConfigKeys if values.get(key.value)}
    for name in ("privateKey", "appKey", "clientKey", "clientId"):
        if name in config:
            remember(config[name])
    missing = [name for name in _NEEDED if name not in config]
    if missing:
        why = "it was never initialised" if "clientKey" in config else "it is damaged"
        raise BadInput(f"the Keeper configuration in {source} lacks " + " and ".join(missing), why, INITIALISED)
    return config


@dataclass
class VaultRecord:
    """A record as one read has shown it."""

    uid: str
    title: str
    type: str
    revision: int
    editable: bool
    data: dict[str, Any] = field(repr=False)
    sdk: Any = field(repr=False)

    @property
    def folder_uid(self) -> str:
        """The uid of the folder that the record lies in; empty where the record itself is shared."""
        return str(self.sdk.inner_folder_uid or self.sdk.folder_uid or "")

    def view(self) -> Labelled:
        """Return all values, those of custom fields first."""
        pairs = [(str(item.get("label") or item.get("type") or ""), item.get("value")) for item in _fields(self.data)]
        return Labelled(self.uid, self.title, pairs)

    def value(self, label: str) -> str:
        """Return the value of the field that ``set`` would write; empty where there is none."""
        item = _field(self.data, label)
        return text_of(item.get("value")) if item else ""

    def secret(self, label: str) -> str:
        """Return the value that the field holds, with every space in it."""
        item = _field(self.data, label)
        values = item.get("value") if item else None
        value = values[0] if isinstance(values, list) and values else values
        return value if isinstance(value, str) else ""

    def has(self, label: str) -> bool:
        """Whether there is such a field."""
        return _field(self.data, label) is not None

    def tied(self, label: str) -> list[str]:
        """Return, where several fields match the label equally well, what each is called and where it is; else none."""
        items = _fields(self.data)
        found = find_all([item.get("label") for item in items], label)
        custom = self.data.get("custom")
        own = custom if isinstance(custom, list) else []
        where = ["custom fields" if any(items[index] is item for item in own) else "fields" for index in found]
        names = [f"{items[index].get('label')!r} in {place}" for index, place in zip(found, where)]
        return names if len(names) > 1 else []

    def shows(self, label: str) -> bool:
        """Whether everybody who opens the record sees the field's value."""
        item = _field(self.data, label)
        return item is not None and item.get("type") not in ("secret", "password")

    def unusable(self, label: str) -> str | None:
        """Return the type of the field when it cannot hold a text, else None."""
        item = _field(self.data, label)
        kind = str(item.get("type")) if item else "text"
        return None if kind in _TEXT_TYPES else kind

    def with_values(self, values: Mapping[str, str], secret_labels: Iterable[str]) -> VaultRecord:
        """Return a copy in which the fields hold the values; a missing field becomes a custom field.

        A new field is of type ``secret`` ("Hidden Field") where its label is in ``secret_labels``, else ``text``.
        """
        data = copy.deepcopy(self.data)
        for label, value in values.items():
            item = _field(data, label)
            if item is None:
                if not isinstance(data.get("custom"), list):
                    data["custom"] = []
                item = {"type": "secret" if label in secret_labels else "text", "label": label}
                data["custom"].append(item)
            item["value"] = [value] if value else []
        return VaultRecord(self.uid, self.title, self.type, self.revision, self.editable, data, self.sdk)


@dataclass(frozen=True)
class Folder:
    """A folder that the application may see. ``parent`` is the uid of the one above it; empty for a shared folder."""

    uid: str
    name: str
    parent: str


class NotSaved(Exception):
    """A save that was not confirmed.

    ``certain`` tells that Keeper has answered no (the record is to be read again all the same: an answer may be
    lost on its way and another one given instead); otherwise the request may still take effect, now or later,
    unless ``sent`` is False. ``wait`` is the pause in seconds that Keeper asked for. ``todo`` is the next step.
    """

    def __init__(
        self,
        why: str,
        *,
        certain: bool,
        sent: bool = True,
        conflict: bool = False,
        wait: float | None = None,
        todo: str = "run it again",
    ) -> None:
        super().__init__(why)
        self.why = why
        self.todo = todo
        self.certain = certain
        self.sent = sent
        self.conflict = conflict
        self.wait = wait


class _Answered(Exception):
    """Keeper answered with an error."""

    def __init__(self, status: int, code: str, message: str, wait: float | None, between: str, todo: str) -> None:
        super().__init__(between or f"{message or 'no readable reason'} ({code or 'HTTP'} {status})")
        self.status = status
        self.code = code
        self.message = message
        self.wait = wait
        self.between = between  # who else has answered
        self.todo = todo if between else ""

    @property
    def throttled(self) -> bool:
        return self.code == "throttled" or self.status == 429

    def next_step(self, refused: str) -> str:
        """What to do about it: ``refused`` where Keeper does not allow it."""
        if self.todo:
            return self.todo
        if self.throttled:
            return "run it again later; what runs at one Gateway, or with one device, shares Keeper's limit"
        if self.status >= 500 or self.status == 408:
            return "run it again later"
        if self.status == 413 or _TOO_LARGE.search(self.message):
            return "make the record smaller: its notes and fields, or the files that are attached to it"
        return refused


class Vault:
    """A KSM application's view of the vault, through the SDK, with our HTTP policy in place of the SDK's.

    The SDK has no timeouts, sleeps for minutes when throttled and follows ``error: key`` for ever (17.3.0,
    core.py ``_post_query``); all its requests go through the instance's ``post_function``.
    """

    def __init__(self, configuration: Mapping[str, str], http: Http, budget: Budget, log: Log) -> None:
        self._http = http
        self._budget = budget
        self._log = log
        self._key_changes = 0
        try:
            self._app_key = base64.b64decode(configuration["appKey"])
            # In memory: the SDK's file storage rewrites, and may empty, the Gateway's file.
            storage = InMemoryKeyValueStorage(json.dumps(dict(configuration)))
            self._sdk = SecretsManager(config=storage)
            # Keys that are damaged would show with the first call, as troubles with an answer.
            CryptoUtils.der_base64_private_key_to_private_key(configuration["privateKey"])
            CryptoUtils.encrypt_aes(b"", self._app_key)
            SecretsManager.generate_transmission_key(
                storage.get(ConfigKeys.KEY_SERVER_PUBLIC_KEY_ID), storage.get(ConfigKeys.KEY_SERVER_PUBLIC_KEY)
            )
        except MemoryError:
            raise
        except Exception as problem:
            raise BadInput(
                "the Keeper configuration cannot be used",
                f"{type(problem).__name__}: {foreign(problem)}",
                "use a configuration that has been initialised",
            ) from None
        self._sdk.post_function = self._post
        self._query = self._sdk._post_query
        self._sdk._post_query = self._ask

    def _ask(self, path: str, payload: Any) -> Any:
        answer = self._query(path, payload)
        return without_read_only_copies(answer) if path == READ and isinstance(answer, bytes) else answer

    @property
    def asked_at(self) -> float:
        """When (of the budget's ``awake``) what was read last was asked for."""
        return self._http.asked_at

    def read(self, uids: Iterable[str]) -> dict[str, VaultRecord]:
        """Return the records with these uids that the application may see. Raises Refused and BadInput.

        A record that is there but cannot be decrypted is an error, not a record that is missing.
        """
        found, lost = self.find(uids)
        for uid in lost:
            raise undecipherable(uid)
        return found

    def find(self, uids: Iterable[str]) -> tuple[dict[str, VaultRecord], list[str]]:
        """Return the records with these uids (none: all) that the application may see, and the uids of those that are
        there but cannot be decrypted. Raises Refused."""
        wanted = list(uids)
        learn(("record uid", "", uid) for uid in wanted)
        try:
            answer = self._patiently(READ, lambda: self._sdk.get_secrets(wanted, full_response=True))
        except (_Answered, Unanswered) as problem:
            raise _not_read("the record" if wanted else "the records", problem) from None
        found: dict[str, VaultRecord] = {}
        mended, lost = self._mend(answer)
        for sdk in list(answer.records or []) + mended:
            record = _record(sdk)
            # A shortcut shows the same record twice; one of the two may lie in a folder that is not editable.
            if record is not None and (record.uid not in found or record.editable > found[record.uid].editable):
                found[record.uid] = record
        return found, [str(uid) for uid in wanted or sorted(map(str, lost)) if uid not in found and uid in lost]

    def folders(self) -> dict[str, Folder]:
        """Return the folders that the application may see, by uid. One request. Raises Refused."""
        try:
            answer = self._patiently("get_folders", self._sdk.get_folders)
        except (_Answered, Unanswered) as problem:
            raise _not_read("the folders", problem) from None
        return {one.folder_uid: Folder(one.folder_uid, foreign(one.name), one.parent_uid or "") for one in answer}

    def await_turn(self) -> None:
        """Wait until a save may be sent: what is to be fresh then is looked at afterwards. Raises Stopped."""
        self._http.pace.book(SAVE, self._budget)

    def save(self, record: VaultRecord, unlink: Sequence[str] = ()) -> None:
        """Save the record; Keeper takes it only at the revision it was read at. Raises NotSaved, Stopped.

        The files whose uids are in ``unlink`` are detached in the same step.
        A plain save: one with a transaction type would stay staged until somebody completes it, and the Gateway may
        hold a transaction of its own on the record.
        """
        record.sdk.dict = record.data
        record.sdk.raw_json = json.dumps(record.data)
        self._confirmed(lambda: self._sdk.save(record.sdk, links_to_remove=list(unlink) or None))

    def _confirmed(self, call: Callable[[], _T]) -> _T:
        try:
            return self._once(call)
        except _Answered as problem:
            raise NotSaved(
                str(problem),
                # What comes without Keeper's own error code is from something in between, and proves nothing.
                certain=problem.status < 500 and problem.status != 408 and bool(problem.code),
                conflict="out of sync" in problem.message.lower(),
                wait=_throttle_pause(1, problem.wait) if problem.throttled else None,
                todo=problem.next_step("check that the record's folder is shared with edit permission"),
            ) from None
        except Unanswered as problem:
            raise NotSaved(str(problem), certain=False, sent=problem.sent, todo=problem.todo) from None

    def _mend(self, answer: Any) -> tuple[list[Any], set[Any]]:
        """Decrypt what SDK 17.3.0 gives up on; return the records, and the uids of those that remain unreadable.

        It drops a record in ``records`` whose key is wrapped with its folder's key, a record with an attached file
        that it cannot decrypt, and a whole folder for one record of it.
        """
        raws = [bad.get("r") or {} for bad in answer.bad_records or []]
        keys = [folder.key for folder in answer.folders or []] + [self._app_key]
        for bad in answer.bad_folders or []:
            folder = bad.get("f") or {}
            raws += [raw for raw in folder.get("records") or [] if isinstance(raw, dict)]
            try:
                keys.append(SdkFolder({**folder, "records": []}, self._app_key).key)
            except Exception as problem:
                self._log.detail(f"folder {folder.get('folderUid')}: {type(problem).__name__}")
        mended, lost = [], set()
        for raw in raws:
            for key, variant in [(key, variant) for variant in (raw, {**raw, "files": None}) for key in keys]:
                try:
                    found = SdkRecord(variant, key, raw.get("innerFolderUid") or "")
                    if variant is not raw:
                        found.files = self._readable(raw.get("files"), found)
                    mended.append(found)
                    break
                except Exception as problem:
                    self._log.detail(f"record {raw.get('recordUid')}: {type(problem).__name__}")
            else:
                lost.add(raw.get("recordUid"))
        return mended, lost

    def _readable(self, files: Any, record: Any) -> list[Any]:
        """Return the record's files that can be decrypted; one that cannot is in nobody's way."""
        found = []
        for raw in files if isinstance(files, list) else []:
            try:
                found.append(SdkFile(raw, record.record_key_bytes))
            except Exception as problem:
                self._log.detail(f"a file of the record {record.uid} is unreadable: {type(problem).__name__}")
        return found

    def _patiently(self, name: str, call: Callable[[], _T]) -> _T:
        attempt = 1
        while True:
            problem: Exception
            try:
                return self._once(call)
            except Unanswered as unanswered:
                if not unanswered.sent:
                    raise
                problem, pause = unanswered, pause_before(attempt + 1)
            except _Answered as answered:
                problem = answered
                if answered.throttled:
                    pause = _throttle_pause(attempt, answered.wait)
                    self._log.say(f"Keeper throttles; trying again in {pause:.0f} s")
                elif answered.status >= 500 or answered.status == 408:
                    pause = pause_before(attempt + 1)
                else:
                    raise
            if attempt >= 4 or pause >= self._budget.left():
                raise problem
            self._log.detail(f"{name}: {problem}; trying again in {pause:.1f} s")
            self._budget.pause(pause)
            attempt += 1

    def _once(self, call: Callable[[], _T]) -> _T:
        self._key_changes = 0
        try:
            return call()
        except (Unanswered, _Answered):
            raise
        except Exception as problem:
            # What is left are the SDK's troubles with an answer that it cannot decrypt or parse.
            raise Unanswered(f"Keeper's answer could not be read ({type(problem).__name__})", sent=True) from None

    def _post(self, url: str, key: Any, payload: Any, verify: Any = True, proxy: Any = None) -> Any:
        headers = {
            "Content-Type": "application/octet-stream",
            "PublicKeyId": str(key.publicKeyId),
            "TransmissionKey": base64.b64encode(key.encryptedKey).decode(),
            "Authorization": "Signature " + base64.b64encode(payload.signature).decode(),
        }
        name = "Keeper " + url.rsplit("/", 1)[-1]
        reply = self._http.call("POST", url, name=name, headers=headers, body=payload.encrypted_payload)
        if reply.status == 200:
            if not reply.body and url.endswith("/get_secret"):
                raise Unanswered("Keeper's answer is empty", sent=True)
            if reply.page():
                raise Unanswered(reply.between(), sent=True, todo=reply.remedy())
            return KSMHttpResponse(200, reply.body, reply)
        raise_for = _error(reply)
        if raise_for.code == "key" and self._key_changes < _KEY_CHANGES:
            self._key_changes += 1
            return KSMHttpResponse(reply.status, reply.body, _SdkReply(reply))
        raise raise_for


class _SdkReply:
    """An answer under the names that the SDK's error handler reads."""

    def __init__(self, reply: Reply) -> None:
        self.status_code = reply.status
        self.text = reply.text
        self.reason = ""


def not_found(uid: str, option: str) -> BadInput:
    """Return what is wrong where the application does not see the record that an option names."""
    return BadInput(
        f"the record {uid} ({option}) was not found",
        "it is not shared with the KSM application, or does not exist",
        "share the record's folder with the application, with edit permission for the application's own record",
    )


def undecipherable(uid: str) -> BadInput:
    """Return what is wrong with a record that cannot be decrypted."""
    return BadInput(
        f"the record {uid} is there but could not be decrypted",
        todo="share its folder with the KSM application again",
    )


def _not_read(what: str, problem: _Answered | Unanswered) -> Refused:
    if isinstance(problem, Unanswered):
        return Refused("Keeper was not reached", str(problem), problem.todo)
    if problem.between:
        return Refused("Keeper was not reached", problem.between, problem.todo)
    return Refused(f"Keeper refused to read {what}", str(problem), problem.next_step(_CHECK_DEVICE))


def _error(reply: Reply) -> _Answered:
    body = reply.json()
    code = foreign(body.get("result_code") or body.get("error") or "")
    message = foreign(body.get("message") or body.get("additional_info") or "")
    wait = retry_after(reply)
    if wait is None:
        wait = seconds_in(body.get("retry_after"))
    return _Answered(reply.status, code, message, wait, "" if code else reply.between(), reply.remedy())


def _throttle_pause(attempt: int, asked: float | None) -> float:
    pause = asked if asked else _THROTTLE_PAUSE * 2.0 ** (attempt - 1)
    return pause * random.uniform(1.0, 1.1)


def _record(sdk: Any) -> VaultRecord | None:
    if not isinstance(sdk.dict, dict) or not sdk.uid:
        return None
    # is_editable is None where the server leaves it out.
    editable = sdk.is_editable is not False
    learn((str(item.get("label") or ""), str(item.get("type") or ""), item.get("value")) for item in _fields(sdk.dict))
    title = bounded(sdk.title or "")
    return VaultRecord(sdk.uid, title, str(sdk.type or ""), sdk.revision or 0, editable, sdk.dict, sdk)


def _fields(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for section in ("custom", "fields"):
        items = data.get(section)
        found += [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return found


def _field(data: Mapping[str, Any], label: str) -> dict[str, Any] | None:
    items = _fields(data)
    index = find([item.get("label") for item in items], label)
    return None if index is None else items[index]
