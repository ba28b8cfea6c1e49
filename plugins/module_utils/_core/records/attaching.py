# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings a PAM Script to its wanted state on a record: attached, replaced, or detached."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..base.errors import BadInput, Refused
from ..base.redact import Log
from ..base.timing import Budget
from .attachments import LARGEST, SCRIPT_TYPES, FileVault, Plan, Script, Seen, cleaning, digest, plan
from .editing import READ, Step, must_be_editable, read_one, settle
from .entries import same

# Seconds between looks at a file that was uploaded, and is not shown or not whole yet.
_PAUSES = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Attached:
    """How the record was found, and how it is, or (in check mode) would be."""

    changed: bool
    found: Seen
    first: Plan
    last: Plan


def check_content(script: Script, configuration: dict[str, str]) -> None:
    """Raise BadInput for what cannot be attached, before anything is asked of Keeper."""
    if script.content is None:
        return
    if not script.content.strip():
        raise BadInput(f"the script {script.name} is empty", todo="name the file of the script")
    if len(script.content) > LARGEST:
        why = f"it has {len(script.content)} bytes, and the limit is {LARGEST}"
        raise BadInput(f"the script {script.name} is too large", why, "name the file of the script")
    if "appOwnerPublicKey" not in configuration:
        raise BadInput(
            "the Keeper configuration lacks appOwnerPublicKey",
            "without the owner's key no file can be attached; old versions of the SDK and of Commander left it out",
            "make a new device for the KSM application",
        )


def attach(vault: FileVault, uid: str, script: Script, budget: Budget, log: Log, check: bool) -> Attached:
    """Bring the script to the wanted state. Raises BadInput, Refused, HalfDone."""
    with budget.phase("read the record", READ):
        found = _look(vault, uid, script)
        first = plan(found, script)
        if first.changed:
            must_be_editable(found.record)
        _check_credentials(vault, script)
    if check or not first.changed:
        return Attached(first.changed, found, first, first)
    waiting = [found]  # the first step needs no second look
    uploaded: list[str] = []
    pauses = list(_PAUSES)

    def upload(seen: Seen) -> None:
        uploaded.append(vault.add(seen.record, script))

    def look() -> tuple[Seen, Step]:
        seen = waiting.pop() if waiting else _look(vault, uid, script)
        if uploaded and seen.contents.get(uploaded[0]) != script.content:
            if not pauses:
                raise _unseen(uploaded[0] in seen.files, script)
            pause = pauses.pop(0)
            return seen, partial(budget.pause, pause)
        todo = plan(seen, script)
        if not todo.changed:
            return seen, None
        must_be_editable(seen.record)
        if todo.upload:
            log.say(f"uploading {script.name}")
            return seen, partial(upload, seen)
        return seen, lambda: _save(vault, seen, todo, log)

    def undo() -> bool:
        seen = _look(vault, uid, replace(script, content=None))
        left = cleaning(seen, script)
        if left.changed:
            _save(vault, seen, left, log)
        return same(left.data, found.record.data)

    last, changed = settle(look, budget, log, undo)
    log.say("read back: the record is as wanted")
    return Attached(changed, found, first, plan(last, script))


def _unseen(listed: bool, script: Script) -> Refused:
    """What was uploaded once is not uploaded again and again."""
    shown = "does not come back as it was" if listed else "the record does not show it"
    return Refused(
        f"the file {script.name} was uploaded, and {shown}",
        "Keeper does not deliver it to this application, or it cannot be decrypted",
        "look at the record's attachments in the vault, remove what is damaged, then run it again",
    )


def _look(vault: FileVault, uid: str, script: Script) -> Seen:
    return vault.look(read_one(vault, uid, SCRIPT_TYPES), script)


def _save(vault: FileVault, seen: Seen, todo: Plan, log: Log) -> None:
    log.say("saving the record" + (f", detaching {', '.join(todo.unlink)}" if todo.unlink else ""))
    vault.save(replace(seen.record, data=todo.data), todo.unlink)


def _check_credentials(vault: FileVault, script: Script) -> None:
    wanted = list(dict.fromkeys(script.credentials or ()))
    found = vault.read(wanted) if wanted else {}
    missing = [uid for uid in wanted if uid not in found]
    if missing:
        raise BadInput(
            f"the credential record {missing[0]} was not found",
            "the Gateway passes only records that its application sees",
            "share its folder with the KSM application",
        )


def facts(done: Attached, script: Script) -> dict[str, Any]:
    """Return what is known of the script, for the result."""
    entry = done.last.entry or {}
    return {
        "record": done.found.record.uid,
        "name": script.name,
        "sha256": digest(script.content) if script.content is not None else "",
        "file_uid": entry.get("fileRef", ""),
        "command": entry.get("command", ""),
        "credentials": entry.get("recordRef") or [],
        "detached": list(done.first.unlink),
    }


def differences(done: Attached, script: Script) -> list[dict[str, str]]:
    """Return the diff of the script's text, and that of its entry."""
    before = done.found.contents.get((done.first.before or {}).get("fileRef", ""))
    found = []
    if before != script.content or (script.content is None and done.first.before):
        where = f"{done.found.record.title}: {script.name}"
        found.append({"prepared": _unified(where, _text(before), _text(script.content))})
    old, new = _settings(done.first.before), _settings(done.first.entry)
    if old != new:
        found.append({"before_header": "PAM Script", "after_header": "PAM Script", "before": old, "after": new})
    return found


def _unified(name: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), name, name)
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


def _text(content: bytes | None) -> str:
    if content is None:
        return ""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return f"({len(content)} bytes, SHA-256 {digest(content)})\n"


def _settings(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    credentials = ", ".join(sorted(entry.get("recordRef") or [])) or "none"
    return f"command: {entry.get('command') or '(none)'}\ncredentials: {credentials}\n"
