# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wanted, what is seen, and the steps from one to the other. Plain values, without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._core.records.attachments import Script


@dataclass(frozen=True)
class WantedConfig:
    """A PAM configuration. ``values`` are its fields under the labels that Commander gives them."""

    title: str
    environment: str = ""
    values: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class WantedRecord:
    """A PAM User record: found by its uid, else by its title. ``values`` are custom fields by label."""

    uid: str
    title: str
    login: str
    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """What to call it."""
        return self.title or self.uid


@dataclass(frozen=True)
class Wanted:
    """All of it. ``schedule`` is empty (stay), ``on-demand``, a word that is spread, or six fields of cron."""

    present: bool
    script: Script
    records: tuple[WantedRecord, ...]
    folder: str = ""
    application: str = ""
    gateway: str = ""
    keys_file: str = ""
    config: WantedConfig = WantedConfig("")
    schedule: str = ""


@dataclass(frozen=True)
class Gateway:
    """A Gateway that has been started, or bound, at least once."""

    uid: str
    name: str
    application: str


@dataclass(frozen=True)
class Record:
    """A record of the vault, in clear. ``folders`` are the uids of those that can be shared to an application."""

    uid: str
    title: str
    type: str
    data: Mapping[str, Any] = field(repr=False)
    owner: bool = True
    editable: bool = True
    folders: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Rotation:
    """What the router keeps of a record. ``schedule`` is its JSON."""

    config: str
    schedule: str
    disabled: bool = False
    resource: str = ""


@dataclass(frozen=True)
class Attachment:
    """A file. ``sha256`` is empty where it was not, or could not be, downloaded."""

    uid: str
    name: str
    title: str
    sha256: str = ""


@dataclass(frozen=True)
class Keys:
    """The file for a new Gateway's configuration. ``unbound``: it is ours, and its one-time token is not used up."""

    exists: bool = False
    unbound: bool = False
    client: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Seen:
    """A look at the vault and the services behind it.

    ``grants`` are the uids of what is shared to the wanted application, with whether it may edit; ``clients`` the ids
    of its devices. ``controller`` is the Gateway of the wanted PAM configuration as the service knows it, ``graph``
    whether it has a graph, ``allowed`` whether that switches rotation on (None: as by default), ``linked`` the records
    that it links to the configuration for scripts alone. ``links`` are pairs of a record and a file attached to it.
    ``forbidden`` is what the user's roles forbid: gateways, edits, record type.
    """

    user: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)
    applications: Mapping[str, str] = field(default_factory=dict)
    grants: Mapping[str, bool] = field(default_factory=dict)
    clients: frozenset[str] = frozenset()
    gateways: tuple[Gateway, ...] = ()
    records: Mapping[str, Record] = field(default_factory=dict)
    controller: str = ""
    graph: bool = False
    allowed: bool | None = None
    linked: frozenset[str] = frozenset()
    rotations: Mapping[str, Rotation] = field(default_factory=dict)
    files: Mapping[str, Attachment] = field(default_factory=dict)
    links: frozenset[tuple[str, str]] = frozenset()
    keys: Keys = Keys()
    forbidden: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Uids:
    """The uids of what is there; empty for what is not. ``records`` are in the order of the wanted ones."""

    folder: str = ""
    application: str = ""
    gateway: str = ""
    config: str = ""
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """Something to do. ``kind`` and ``subject`` tell it from others; those of a ``stage`` need no other of it.

    ``before`` and ``after`` say it in words. ``record`` is the index of the wanted record, -1 for what they share.
    """

    kind: str
    subject: str
    stage: int
    after: str
    before: str = ""
    record: int = -1
    value: Any = field(default=None, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from other steps."""
        return self.kind, self.subject


@dataclass(frozen=True)
class Plan:
    """What is there already, and the steps to the rest, in order."""

    uids: Uids
    steps: tuple[Step, ...]
