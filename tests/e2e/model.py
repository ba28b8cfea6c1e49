# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A model of the two stores: an application at Entra, and the records of a vault.

Lists and sign-ins are answered by replicas in turn, each of which learns of everything at a time of its own; people may
change either store at any moment. Time is a number; nothing sleeps.
"""

from __future__ import annotations

import copy
import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.keeperpam.azure.plugins.module_utils._core.base import redact
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.deciding import marker
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.application import (
    Credential,
    format_time,
)

START = datetime(2026, 5, 4, 12, 0, tzinfo=timezone.utc)
CLIENT, OBJECT, ADMIN = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
UID, SECOND = "RecordOfTheModel000001", "RecordOfTheModel000002"
#: What was seen of the record, the list and the sign-in may be so old (seconds) when something is removed.
FRESH = 10.0
#: So many seconds a request takes.
SECONDS_EACH = 0.2


@dataclass
class Held:
    """A secret of the application; ``removed`` is when and ``by`` is who removed it."""

    key_id: str
    text: str
    name: str
    made: float
    end: datetime
    removed: float = float("inf")
    by: str = ""

    def known(self, now: float, lag: float) -> bool:
        """Whether a replica that lags so many seconds knows of it."""
        return self.made + lag <= now < self.removed + lag

    def shown(self, trimmed: bool = True) -> Credential:
        """Return it as Graph lists it, or (not ``trimmed``) as it is answered when it is made."""
        start = START + timedelta(seconds=int(self.made) if trimmed else self.made)
        return Credential(self.key_id, self.name, start, self.end, format_time(self.end), self.text[:3])


@dataclass
class Record:
    """A record of the vault. ``history`` are the key ids that it has shown, ``touched`` is when people changed it."""

    uid: str
    data: dict[str, Any]
    revision: int = 100
    history: list[str] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    touched: float = float("-inf")

    def value(self, label: str) -> str:
        """Return a value."""
        values = next((item["value"] for item in self.data["custom"] if item["label"] == label), [])
        return values[0] if values else ""

    @property
    def key_id(self) -> str:
        """The key id that it shows."""
        return self.value("client_secret_id")

    def shows(self, one: Held) -> bool:
        """Whether it shows this secret."""
        return self.value("client_secret") == one.text


@dataclass
class Stores:
    """Entra and the vault. ``lost`` is what went wrong with what a record shows.

    ``lists`` and ``sign_ins`` are the seconds by which each replica lags behind; ``limit`` is how many secrets the
    application holds at the most; ``name`` is that of the secret that the record shows at first.
    """

    lists: tuple[float, ...] = (0.0,)
    sign_ins: tuple[float, ...] = (0.0,)
    limit: int = 1000
    name: str = "by hand"
    now: float = 10000.0
    everything: list[Held] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    disabled: bool = False
    late: list[Callable[[], None]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1000))
    _turns: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        # Each run of the product begins in a process of its own, which knows no secrets yet: to look for those of
        # thousands of runs in each line takes more time than all the rest.
        redact._blocks.clear()
        redact._known.clear()
        self.add(marker(UID, "an-earlier-run"), made=self.now - 9000)
        self.add_record(UID, self.add(self.name, made=self.now - 5000))

    @property
    def held(self) -> list[Held]:
        """The secrets that are there."""
        return [one for one in self.everything if one.removed == float("inf")]

    @property
    def record(self) -> Record:
        """The record."""
        return self.records[UID]

    @property
    def lag(self) -> float:
        """The seconds after which everything is known everywhere."""
        return max(*self.lists, *self.sign_ins)

    def turn(self) -> int:
        """Return the number of the replica that answers next, to be taken modulo."""
        return next(self._turns)

    # -- what the product does

    def add(self, name: str, made: float | None = None, end: datetime | None = None) -> Held:
        """Make a secret."""
        key, moment = str(uuid.UUID(int=next(self._numbers))), self.now if made is None else made
        end = end or START + timedelta(seconds=int(moment), days=365)
        one = Held(key, "text-of-" + key, name, moment, end)
        self.everything.append(one)
        return one

    def listed(self) -> list[Held]:
        """Return what the next replica lists."""
        lag = self.lists[self.turn() % len(self.lists)]
        return [one for one in self.everything if one.known(self.now, lag)]

    def takes(self, text: str) -> bool:
        """Whether the next replica takes a secret at the sign-in."""
        lag = self.sign_ins[self.turn() % len(self.sign_ins)]
        return any(one.text == text and one.known(self.now, lag) for one in self.everything)

    def remove(self, uid: str, key_id: str, sent: float) -> bool:
        """Remove a secret that the next replica knows, as a run of this record has asked at that time; return whether
        there was one."""
        lag = self.lists[self.turn() % len(self.lists)]
        found = [one for one in self.held if one.key_id == key_id and one.known(self.now, lag)]
        for one in found:
            one.removed, one.by = self.now, "the product"
            for record in self.records.values():
                # What another record shows is known by its marker, what people change within ten seconds by nothing.
                known = record.uid == uid or one.name.startswith(marker(record.uid, ""))
                if known and record.shows(one) and record.touched < sent - FRESH - 2 * SECONDS_EACH:
                    self.lost.append(f"the record shows {key_id}, which was removed")
        return bool(found)

    def save(self, uid: str, data: dict[str, Any], revision: int, proven: bool) -> bool:
        """Save a record unless its revision is another by now; return whether it was saved."""
        record = self.records[uid]
        if revision != record.revision:
            return False
        before = record.key_id
        self._write(record, data)
        if record.key_id != before:
            self._check(record, proven)
        return True

    def _write(self, record: Record, data: dict[str, Any]) -> None:
        record.versions.append(record.data)
        record.data, record.revision = data, record.revision + 1
        if record.history[-1:] != [record.key_id]:
            record.history.append(record.key_id)

    def _check(self, record: Record, proven: bool) -> None:
        one = next((one for one in self.everything if record.shows(one)), None)
        if one is None or one.key_id != record.key_id:
            self.lost.append("the record shows what is no secret")
        elif one.by == "the product":
            self.lost.append(f"the record was made to show {one.key_id}, which was removed")
        elif proven and one.removed > self.now and not any(one.known(self.now, lag) for lag in self.sign_ins):
            self.lost.append(f"the record was made to show {one.key_id}, which does not sign in yet")

    # -- what people do

    def add_record(self, uid: str, shown: Held) -> None:
        """Make a record of the application that shows this secret."""
        values = {
            "application_object_id": OBJECT,
            "client_secret": shown.text,
            "client_secret_id": shown.key_id,
            "expires": format_time(shown.end),
        }
        fields = [{"type": "text", "label": label, "value": [value]} for label, value in values.items()]
        data = {"title": "model", "type": "pamUser", "fields": [], "custom": fields}
        self.records[uid] = Record(uid, data, history=[shown.key_id])

    def edit(self, values: dict[str, str], uid: str = UID) -> None:
        """Write fields of a record."""
        record = self.records[uid]
        data = copy.deepcopy(record.data)
        data["custom"] = [item for item in data["custom"] if item["label"] not in values]
        data["custom"] += [{"type": "text", "label": label, "value": [text]} for label, text in values.items()]
        record.touched = self.now
        self._write(record, data)

    def restore(self, uid: str = UID) -> None:
        """Restore the version of a record before the last one."""
        record = self.records[uid]
        if record.versions:
            record.touched = self.now
            self._write(record, copy.deepcopy(record.versions[-1]))

    def take_away(self, *gone: Held) -> None:
        """Remove secrets."""
        for one in gone:
            if one.removed > self.now:
                one.removed, one.by = self.now, "people"

    def make_one(self) -> Held | None:
        """Make a secret, where there is room."""
        return self.add("by hand") if len(self.held) < self.limit else None

    def publish_one(self, uid: str = UID) -> None:
        """Make a secret, where there is room, and type it into a record."""
        one = self.make_one()
        if one:
            self.edit({"client_secret": one.text, "client_secret_id": one.key_id, "expires": ""}, uid)

    def settle(self) -> None:
        """Let everything that is under way arrive, and the time pass until all is known everywhere."""
        while self.late:
            self.late.pop(0)()
        self.now += self.lag + 1

    def shown(self, uid: str = UID) -> Held | None:
        """Return the secret that a record shows, whether it is there or not."""
        return next((one for one in self.everything if self.records[uid].shows(one)), None)

    def snapshot(self, uid: str) -> tuple[set[str], dict[str, str]]:
        """Return what a rotation changes, to compare: the secrets, and the values of the record."""
        record = self.records[uid]
        values = {item["label"]: record.value(item["label"]) for item in record.data["custom"]}
        return {one.key_id for one in self.held}, {label: value for label, value in values.items() if value}
