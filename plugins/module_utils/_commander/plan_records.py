# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part of the plan that each record has for itself: its fields, its rotation, its script. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._core.base.errors import BadInput, Refused
from .._core.records.app_fields import shown as shown_fields
from .._core.records.app_fields import value_of, with_fields
from .._core.records.attachments import digest
from .._core.records.entries import append, entries, fill, remove, same
from .model import Record, Seen, Step, Uids, Wanted, WantedRecord
from .schedule import ON_DEMAND, SPREAD, Load, as_json, fits, shown

RECORDS, SETTINGS = 4, 5
TYPE = "pamUser"
_NO_ENTRY: Mapping[str, Any] = {}


@dataclass(frozen=True)
class ScriptChange:
    """How the script of a record becomes as wanted. ``keep`` is the file that stays; empty: it is uploaded."""

    uid: str
    keep: str
    upload: bool
    gone: tuple[str, ...] = ()

    def apply(self, data: Mapping[str, Any], file: str, command: str | None, credentials: Any) -> dict[str, Any]:
        """Return the record's data with the entry for ``file`` in the place of the old ones."""
        changed = copy.deepcopy(dict(data))
        old = [one for one in entries(changed) if one.get("fileRef") in (*self.gone, self.keep) and one.get("fileRef")]
        entry = next((one for one in old if one["fileRef"] == self.keep), old[0] if old else None)
        if file:
            entry = entry or append(changed)
            fill(entry, file, command, credentials)
        else:
            entry = None
        remove(changed, [one for one in old if one is not entry], [*self.gone, file])
        return changed


@dataclass
class RecordPlanner:
    """Plans for all wanted records; ``shared`` are the uids of what they share, empty where it is not there yet."""

    wanted: Wanted
    seen: Seen
    shared: Uids
    uids: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.uids = tuple(self._uid(one) for one in self.wanted.records)
        twice = [uid for uid in self.uids if uid and self.uids.count(uid) > 1]
        if twice:
            raise BadInput(f"the record {twice[0]} is named twice", todo="name it once")

    def _uid(self, one: WantedRecord) -> str:
        if one.uid:
            record = self.seen.records.get(one.uid)
            if record is None:
                raise BadInput(
                    f"there is no record {one.uid} in the vault of {self.seen.user}",
                    todo="correct the uid, or let the record be shared with you",
                )
            if record.type != TYPE:
                raise BadInput(
                    f"the record {record.title} ({one.uid}) is of type {record.type}",
                    "it must be a PAM User",
                    "convert it in the vault, or name another record",
                )
            return one.uid
        found = [uid for uid, record in self.seen.records.items() if record.type == TYPE and record.title == one.title]
        if len(found) > 1:
            raise BadInput(
                f"several PAM User records have the title {one.title}", ", ".join(found), "give the uid of the one"
            )
        return found[0] if found else ""

    # -- what cannot be --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise BadInput or Refused for what no step could bring about, or what would be of no use."""
        for uid in self.wanted.script.credentials or ():
            if uid not in self.seen.records:
                raise BadInput(
                    f"there is no record {uid} in the vault of {self.seen.user}",
                    "it was named as a credential",
                    "correct the uid, or let the record be shared with you",
                )
            self._visible(self.seen.records[uid], edit=False)
        for one, uid in zip(self.wanted.records, self.uids):
            if uid:
                record = self.seen.records[uid]
                self._visible(record, edit=True)
                rotation = self.seen.rotations.get(uid)
                if rotation is not None and rotation.config != self.shared.config:
                    config = self.seen.records.get(rotation.config)
                    raise BadInput(
                        f"the rotation of {record.title} belongs to another PAM configuration",
                        config.title if config else rotation.config,
                        "name that one, or take the rotation away in the vault: it would go on in both",
                    )
            self._identity(one, uid)

    def _visible(self, record: Record, edit: bool) -> None:
        """The Gateway gets what its application sees: by a folder that is shared to it, or the record itself."""
        ways = {way: self.seen.grants[way] for way in (*record.folders, record.uid) if way in self.seen.grants}
        if self.shared.folder in record.folders and self.shared.folder:
            ways[self.shared.folder] = True  # it will be
        if not ways:
            raise BadInput(
                f"the record {record.title} ({record.uid}) is not visible to the application {self.wanted.application}",
                "it is in no folder that is shared to it; a folder inside a nested share folder needs its own share",
                f"move it to the folder {self.wanted.folder}",
            )
        if edit and not any(ways.values()):
            folder = self.seen.folders.get(next(iter(ways)), record.title)
            raise BadInput(
                f"the application {self.wanted.application} may not edit the record {record.title} ({record.uid})",
                f"{folder} is shared to it read-only",
                "share it with edit permission",
            )

    def _identity(self, one: WantedRecord, uid: str) -> None:
        """Without a credential, the script signs in with that of the PAM configuration; a local one holds none."""
        config = self.seen.records.get(self.shared.config)
        local = config.type == "pamNetworkConfiguration" if config else self.wanted.config.environment == "local"
        if not local or self.wanted.script.credentials or one.values.get("application_client_id"):
            return
        if self.wanted.script.credentials is None and uid and self._entry(self.seen.records[uid]).get("recordRef"):
            return
        if not uid or not value_of(self.seen.records[uid].data, "application_client_id"):
            raise BadInput(
                f"{one.name} has no admin identity",
                "a local PAM configuration holds none",
                "name the admin application's record in credentials",
            )

    # -- what is to be done ----------------------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """Return the steps of all records, stage by stage."""
        load = self._load()
        found = [step for index in range(len(self.uids)) for step in self._fields(index)]
        found += [step for index in range(len(self.uids)) for step in self._rotation(index, load)]
        return found + [step for index in range(len(self.uids)) for step in self._script(index)]

    def detach(self) -> Iterator[Step]:
        """Give the steps that detach the script."""
        for index in range(len(self.uids)):
            yield from self._script(index)

    def _fields(self, index: int) -> Iterator[Step]:
        one, uid = self.wanted.records[index], self.uids[index]
        if not uid:
            if not one.values.get("application_object_id"):
                raise BadInput(f"the record {one.title} cannot be made without application_object_id")
            if "record type" in self.seen.forbidden:
                raise Refused(f"the record {one.title} cannot be made", "your role may not make PAM User records")
            shown_ = shown_fields(with_fields({}, "", one.values))
            what = _lines(f"PAM User {one.title}", shown_)
            yield Step("record", one.name, RECORDS, what, record=index, value=(one, self.shared.folder))
            return
        record = self.seen.records[uid]
        data = with_fields(record.data, uid, one.values)
        if not value_of(data, "application_object_id"):
            raise BadInput(f"the record {record.title} ({uid}) has no application_object_id", todo="give it")
        if data == dict(record.data):
            return
        if not record.editable:
            raise Refused(f"you may not edit the record {record.title} ({uid})", todo="let its owner do it")
        if "edits" in self.seen.forbidden:
            raise Refused(
                f"the fields of {record.title} cannot be changed without a person",
                "your role asks for the master password at each edit",
                "set the fields in the vault, or run it as a user whose role does not ask",
            )
        before, after = shown_fields(record.data), shown_fields(data)
        title = f"fields of {record.title}"
        yield Step("fields", one.name, RECORDS, _lines(title, after), _lines(title, before), index, (uid, data))

    def _load(self) -> Load:
        """What the Gateway has to do already, by all PAM configurations that it runs."""
        configs = {uid: one for uid, one in self.seen.records.items() if one.type.endswith("Configuration")}
        gateway = self.shared.gateway
        mine = [uid for uid, one in configs.items() if gateway and pam_resource(one).get("controllerUid") == gateway]
        own = set(self.uids)
        others = [
            one.schedule
            for uid, one in self.seen.rotations.items()
            if one.config in mine and not (uid in own and not fits(one.schedule, self.wanted.schedule))
        ]
        return Load(others)

    def _rotation(self, index: int, load: Load) -> Iterator[Step]:
        one, uid, wanted = self.wanted.records[index], self.uids[index], self.wanted.schedule
        rotation = self.seen.rotations.get(uid)
        stays = rotation is not None and fits(rotation.schedule, wanted)
        stored = rotation.schedule if rotation else ""
        if not stays:
            cron = load.place(wanted, uid or one.title) if wanted in SPREAD else wanted or ON_DEMAND
            stored = as_json(" ".join(cron.split()))
        graph = uid not in self.seen.linked
        as_wanted = stays and rotation is not None and not rotation.disabled and not rotation.resource
        if as_wanted and not graph:
            return
        before = ""
        if rotation is not None:
            before = f"rotation of {one.name}: {shown(rotation.schedule)}"
            before += ", disabled" if rotation.disabled else ""
            before += ", not by scripts alone" if rotation.resource or graph else ""
        when = shown(stored)
        if not uid and wanted in SPREAD:
            when = f"{wanted}, at a time that comes of its uid"
        after = f"rotation of {one.name}: {when}, by scripts alone"
        value = (uid, self.shared.config, stored, graph, not as_wanted)
        yield Step("rotation", one.name, SETTINGS, after, before, index, value)

    def _script(self, index: int) -> Iterator[Step]:
        one, uid, script = self.wanted.records[index], self.uids[index], self.wanted.script
        sha = digest(script.content) if script.content is not None else ""
        after = f"script of {one.name}: {script.name}, SHA-256 {sha}" if sha else ""
        if not uid:
            if sha:
                value = ScriptChange("", "", True)
                yield Step("script", one.name, SETTINGS, after + self._settings(_NO_ENTRY), "", index, value)
            return
        record = self.seen.records[uid]
        there = entries(copy.deepcopy(dict(record.data)))
        lost = [item.get("fileRef") for item in there if item.get("fileRef") not in self.seen.files]
        if lost:
            raise BadInput(
                f"a PAM Script of {record.title} ({uid}) has a file that your vault does not show ({lost[0]})",
                "it was deleted, or is not shared with you: its name cannot be compared",
                "remove that script in the vault",
            )
        ours = [item for item in there if self.seen.files[item["fileRef"]].name == script.name]
        good = [item for item in ours if sha and self._usable(uid, item["fileRef"], sha)]
        keep = good[0]["fileRef"] if good else ""
        gone = tuple(item["fileRef"] for item in ours if item["fileRef"] != keep)
        change = ScriptChange(uid, keep, bool(sha) and not keep, gone)
        if not change.upload and same(change.apply(record.data, keep, script.command, script.credentials), record.data):
            return
        if not record.owner:
            raise Refused(
                f"you are not the owner of the record {record.title} ({uid})",
                "Keeper lets the owner alone attach scripts",
                "run it as the owner, or let the ownership be handed over",
            )
        before = [f"script of {one.name}: {script.name}{self._before(item)}" for item in ours]
        entry = ours[0] if ours else _NO_ENTRY
        yield Step(
            "script", one.name, SETTINGS, after + self._settings(entry) if sha else "", "\n".join(before), index, change
        )

    def _usable(self, record: str, file: str, sha: str) -> bool:
        """Whether a file is the script as it should be: its content, linked to the record, and attached as a script:
        what came through Secrets Manager is an ordinary attachment to Keeper, and is known by its title."""
        found = self.seen.files[file]
        return found.sha256 == sha and (record, file) in self.seen.links and not self.wanted.script.is_ours(found)

    def _entry(self, record: Record) -> Mapping[str, Any]:
        for one in entries(copy.deepcopy(dict(record.data))):
            file = self.seen.files.get(one.get("fileRef", ""))
            if file is not None and file.name == self.wanted.script.name:
                return one
        return _NO_ENTRY

    def _settings(self, entry: Mapping[str, Any]) -> str:
        script = self.wanted.script
        command = entry.get("command") if script.command is None else script.command
        credentials = entry.get("recordRef") if script.credentials is None else script.credentials
        return f", command {command or '(none)'}, credentials {', '.join(sorted(credentials or [])) or 'none'}"

    def _before(self, entry: Mapping[str, Any]) -> str:
        sha = self.seen.files[entry["fileRef"]].sha256
        credentials = ", ".join(sorted(entry.get("recordRef") or [])) or "none"
        return f", SHA-256 {sha or 'unknown'}, command {entry.get('command') or '(none)'}, credentials {credentials}"


def pam_resource(config: Record) -> Mapping[str, Any]:
    """Return what a PAM configuration names: its Gateway (``controllerUid``) and its folder (``folderUid``)."""
    for one in config.data.get("fields") or []:
        value = one.get("value") if one.get("type") == "pamResources" else None
        if isinstance(value, list) and value and isinstance(value[0], dict):
            found: Mapping[str, Any] = value[0]
            return found
    return {}


def _lines(title: str, values: Mapping[str, str]) -> str:
    return "\n".join([title, *(f"  {label} {value}" for label, value in values.items())])
