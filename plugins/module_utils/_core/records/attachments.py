# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of Keeper records over KSM, and the PAM Scripts of a record: which of its files the Gateway runs, and how.

KSM has no flag that tells a script from any other attachment (Commander sends one, ``is_script``); what makes a file a
script is the entry in the record's field of type ``script``. The way there is: add the file, upload its content, read
it back, and then, in one save, point the entry to it and detach the file that it replaces. An interrupted run leaves an
attachment that no entry refers to; its title proves that it is ours, and the next run uses or detaches it.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..base.errors import BadInput, Refused
from ..services.http import Unanswered, busy
from ..services.vault import Vault, VaultRecord
from .editing import must_be_editable
from .entries import append, entries, fields_of, fill, remove, same

try:
    from keeper_secrets_manager_core.crypto import CryptoUtils
    from keeper_secrets_manager_core.dto.dtos import KeeperFileUpload
except ImportError:
    pass  # vault.KSM_PROBLEM tells

# The records on which the Gateway runs scripts, without PAM configurations: nothing says that KSM may edit those.
SCRIPT_TYPES = ("pamUser", "pamMachine", "pamDatabase", "pamDirectory")
LARGEST = 1024 * 1024
_MARK = " (keeperpam.azure sha256:{})"
_MARKED = re.compile(re.escape(_MARK).replace(r"\{\}", "[0-9a-f]{64}"))


def digest(content: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


class Named(Protocol):
    """A file's name and title, however it is read."""

    @property
    def name(self) -> str:
        """The file name."""

    @property
    def title(self) -> str:
        """The title, which people see."""


@dataclass(frozen=True)
class Script:
    """The wanted script. Without ``content`` it is to be absent; None as command or credentials leaves them be."""

    name: str
    content: bytes | None = field(repr=False)
    command: str | None = None
    credentials: tuple[str, ...] | None = None

    @property
    def title(self) -> str:
        """The title under which we upload it: the proof that a file of this name is ours."""
        return self.name + _MARK.format(digest(self.content or b""))

    def is_ours(self, file: Named) -> bool:
        """Whether we have uploaded this file, in this or in an earlier version."""
        marked = file.title.startswith(self.name) and _MARKED.fullmatch(file.title[len(self.name) :])
        return file.name == self.name and bool(marked)


@dataclass(frozen=True)
class File:
    """An attachment as the record lists it."""

    uid: str
    name: str
    title: str
    size: int
    sdk: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class Seen:
    """A look at a record: its files, and what those that matter contain (None: cannot be downloaded)."""

    record: VaultRecord
    files: Mapping[str, File]
    contents: Mapping[str, bytes | None] = field(repr=False)


@dataclass(frozen=True)
class Plan:
    """What is to be done: upload the file first, or save ``data`` and detach ``unlink``, or nothing."""

    upload: bool
    data: dict[str, Any] = field(repr=False)
    unlink: tuple[str, ...]
    entry: dict[str, Any] | None
    before: dict[str, Any] | None
    changed: bool


def plan(seen: Seen, script: Script) -> Plan:
    """Decide how the record becomes as wanted. Pure. Raises BadInput.

    Ours is every entry whose file has the script's name: the first keeps its place, further ones (Commander adds one
    with every ``script add``) would run the script again and go.
    """
    data = copy.deepcopy(seen.record.data)
    there = entries(data)
    lost = [item.get("fileRef") for item in there if item.get("fileRef") not in seen.files]
    if lost:
        raise BadInput(
            f"a PAM Script of the record {seen.record.uid} has a file that KSM does not show ({lost[0]})",
            "it was deleted, or is not delivered to the application: its name cannot be compared",
            "remove that script in the vault, or attach with Commander instead",
        )
    ours = [item for item in there if seen.files[item["fileRef"]].name == script.name]
    before = copy.deepcopy(ours[0]) if ours else None
    left = [uid for uid, file in seen.files.items() if script.is_ours(file)] + _strays(seen, script)
    entry = None
    upload = False
    if script.content is not None:
        usable = [uid for uid in [item["fileRef"] for item in ours] + left if seen.contents.get(uid) == script.content]
        upload = not usable
        entry = ours[0] if ours else append(data)
        fill(entry, usable[0] if usable else "", script.command, script.credentials)
    remove(data, [item for item in ours if item is not entry], ())
    referenced = {item.get("fileRef") for item in entries(data)}
    candidates = [item["fileRef"] for item in ([before] if before else []) + ours] + left
    unlink = tuple(uid for uid in dict.fromkeys(candidates) if uid not in referenced)
    remove(data, (), [*unlink, entry["fileRef"]] if entry else unlink)
    changed = upload or bool(unlink) or not same(data, seen.record.data)
    return Plan(upload, data, unlink, entry, before, changed)


def cleaning(seen: Seen, script: Script) -> Plan:
    """Decide how to detach what an unfinished run has left, and nothing else."""
    data = copy.deepcopy(seen.record.data)
    referenced = {item.get("fileRef") for item in entries(data)}
    left = [uid for uid, file in seen.files.items() if script.is_ours(file)] + _strays(seen, script)
    unlink = tuple(uid for uid in left if uid not in referenced)
    remove(data, (), unlink)
    return Plan(False, data, unlink, None, None, bool(unlink))


def _strays(seen: Seen, script: Script) -> list[str]:
    """Return what the record's list of attachments has of us, and no file is shown for: its upload never came."""
    listed = [uid for one in fields_of(copy.deepcopy(seen.record.data), "fileRef") for uid in one["value"]]
    return [uid for uid in dict.fromkeys(listed) if uid not in seen.files and is_our_uid(uid, seen.record.uid, script)]


def our_uid(record_uid: str, script: Script) -> str:
    """Return a new uid for the script's file, by which it can be known as ours where nothing else of it is seen."""
    chance = secrets.token_bytes(8)
    # Keeper's own tools make no uid that begins with a dash, which would be an option on a command line.
    chance = bytes([chance[0] & 0x7F]) + chance[1:]
    return base64.urlsafe_b64encode(chance + _proof(chance, record_uid, script)).decode().rstrip("=")


def is_our_uid(uid: Any, record_uid: str, script: Script) -> bool:
    """Whether ``our_uid`` has made it, for a script of this name of this record."""
    try:
        raw = base64.b64decode(str(uid) + "==", b"-_", validate=True)
    except ValueError:
        return False
    return len(raw) == 16 and raw[8:] == _proof(raw[:8], record_uid, script)


def _proof(chance: bytes, record_uid: str, script: Script) -> bytes:
    return hashlib.sha256(b"keeperpam.azure\0" + chance + f"\0{record_uid}\0{script.name}".encode()).digest()[:8]


class FileVault(Vault):
    """A vault that also adds, uploads and downloads files, with our HTTP policy: the SDK's calls have no timeouts."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._contents: dict[str, bytes | None] = {}

    def look(self, record: VaultRecord, script: Script) -> Seen:
        """Return the record's files, and download those that may be the script. Raises Refused."""
        files = {}
        for one in record.sdk.files or []:
            file = File(str(one.f.get("fileUid")), str(one.name), str(one.title or ""), int(one.size or 0), one)
            files[file.uid] = file
        contents = {}
        if script.content is not None:
            used = {item.get("fileRef") for item in entries(record.data)}
            for file in files.values():
                if file.name == script.name and (file.uid in used or file.title == script.title):
                    contents[file.uid] = self._content(file)
        return Seen(record, files, contents)

    def add(self, record: VaultRecord, script: Script) -> str:
        """Attach the script's content as a file that no entry refers to; return its uid. Raises NotSaved, Refused."""
        must_be_editable(record)
        content = script.content or b""
        kind = "text/x-python" if script.name.endswith(".py") else "application/octet-stream"
        upload = KeeperFileUpload(name=script.name, title=script.title, mime_type=kind, data=content)
        # The SDK adds the file to the record's data itself, but fails on fields it does not expect: give it none.
        bare = copy.copy(record.sdk)
        bare.dict = {"fields": []}
        prepared = self._sdk.prepare_file_upload_payload(self._sdk.config, bare, upload)
        payload = prepared["payload"]
        payload.fileRecordUid = our_uid(record.uid, script)
        data = with_file(record.data, payload.fileRecordUid)
        sealed = CryptoUtils.encrypt_aes(json.dumps(data).encode(), record.sdk.record_key_bytes)
        payload.ownerRecordData = CryptoUtils.bytes_to_url_safe_str(sealed)
        answer = self._confirmed(lambda: json.loads(self._sdk._post_query("add_file", payload)))
        self._upload(answer, prepared["encryptedFileData"])
        return str(payload.fileRecordUid)

    def _upload(self, answer: dict[str, Any], sealed: bytes) -> None:
        url, form = str(answer.get("url")), json.loads(answer.get("parameters") or "{}")
        what, todo = "the upload of the file failed", "run it again"
        try:
            # Safe to repeat: it puts the same bytes at the same place.
            reply = self._http.call("POST", url, name="upload", body=form, files={"file": sealed}, retry=busy)
        except Unanswered as problem:
            raise Refused(what, str(problem), todo) from None
        if not 200 <= reply.status < 300:
            raise Refused(what, f"HTTP {reply.status}", todo)

    def _content(self, file: File) -> bytes | None:
        if self._contents.get(file.uid) is None:  # what could not be downloaded may be uploaded by now
            self._contents[file.uid] = self._download(file) if file.size <= LARGEST else None
        return self._contents[file.uid]

    def _download(self, file: File) -> bytes | None:
        """Return the content, None where the file was announced but never uploaded. Raises Refused."""
        what, todo = f"the file {file.name} ({file.uid}) cannot be downloaded", "run it again"
        try:
            reply = self._http.call("GET", str(file.sdk.f.get("url")), name="download", retry=busy)
        except Unanswered as problem:
            raise Refused(what, str(problem), todo) from None
        if busy(reply):
            raise Refused(what, f"HTTP {reply.status}", todo)
        try:
            wrapped = base64.b64decode(file.sdk.f["fileKey"].translate(str.maketrans("-_", "+/")) + "==")
            key = CryptoUtils.decrypt_aes(wrapped, file.sdk.record_key_bytes)
            content: bytes = CryptoUtils.decrypt_aes(reply.body, key)
        except Exception as problem:  # an error page, or half a file
            self._log.detail(f"file {file.uid}: HTTP {reply.status}, {type(problem).__name__}")
            return None
        return content


def with_file(data: Mapping[str, Any], uid: str) -> dict[str, Any]:
    """Return the record's data with the file in its list of attachments, as the SDK does it."""
    changed = copy.deepcopy(dict(data))
    for one in fields_of(changed, "fileRef"):
        one["value"].append(uid)
        return changed
    changed.setdefault("fields", []).append({"type": "fileRef", "value": [uid]})
    return changed
