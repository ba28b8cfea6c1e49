# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applications and their client secrets, and what people do to them without asking Graph."""

from __future__ import annotations

import secrets
import string
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .directory import Directory
    from .identity_assertions import FederatedCredential

# Entra's texts hold characters that URLs, YAML, shells and templates take for their own. Quotes and backslashes are
# left out: a test that looks for a leaked secret in some output must find it as it is.
SECRET_ALPHABET = string.ascii_letters + string.digits + "[]@+~:.-_%&=#!$*?{}|<>"

OUTSIDE = "outside"


def new_guid() -> str:
    """A random GUID as text."""
    return str(uuid.uuid4())


def new_text() -> str:
    """A secret's text as Entra makes it: 16 to 64 characters."""
    return "".join(secrets.choice(SECRET_ALPHABET) for _number in range(secrets.choice(range(32, 45))))


@dataclass(frozen=True)
class Replica:
    """One machine of a service: it learns of a new secret, and forgets a removed one, so many seconds after that."""

    learns_after: float = 0.0
    forgets_after: float = 0.0


@dataclass
class Credential:
    """A client secret. `start` and `end` are aware datetimes; the other moments are in seconds since the host's epoch.

    `fraction_digits` is how many digits of a second the directory writes for it: 7 as a rule, 0 to 7 here; `ticks` are
    the seventh ones of start and end. `skew` is by how many seconds the clock that gave its start was ahead of the
    directory's. Not `lags`: every replica knew it at once. `removed_by` is None while it is there, then who took it
    away: "graph" (a request) or "outside" (people).
    """

    text: str
    key_id: str
    display_name: str | None
    start: datetime
    end: datetime
    fraction_digits: int = 7
    ticks: tuple[int, int] = (1, 1)
    created_at: float = 0.0
    visible_after: float = 0.0
    usable_at: float = 0.0
    gone_at: float = float("inf")
    removed_at: float = float("inf")
    removed_by: str | None = None
    lags: bool = True
    skew: float = 0.0

    @property
    def hint(self) -> str:
        """The first three characters, as Graph shows them for good."""
        return self.text[:3]

    def known(self, replica: Replica) -> bool:
        """Whether this sign-in replica has learned of it and has not forgotten it yet."""
        learned = max(self.usable_at, self._learned_at(replica))
        return learned <= time.time() < max(self.gone_at, self.removed_at + replica.forgets_after)

    def valid(self, now: datetime) -> bool:
        """Whether this time by the directory's clock lies between its start and its end."""
        return self.start - timedelta(seconds=self.skew) <= now < self.end

    def listed(self, replica: Replica) -> bool:
        """Whether this Graph replica has learned of it and has not forgotten it yet."""
        return self._learned_at(replica) <= time.time() < self.removed_at + replica.forgets_after

    def visible(self, number: int, replicas: int) -> bool:
        """Whether its `visible_after` is over, of which each of so many replicas has its share."""
        return time.time() >= self.created_at + self.visible_after * (number + 1) / replicas

    def _learned_at(self, replica: Replica) -> float:
        return self.created_at + replica.learns_after if self.lags else 0.0


@dataclass(frozen=True)
class Key:
    """A certificate as Graph lists it; that it may sign is for `Application.add_certificate`."""

    display_name: str | None
    start: datetime
    end: datetime
    key_id: str = field(default_factory=new_guid)


@dataclass
class Application:
    """An app registration. `owners` are client ids of the applications whose service principals own it, `users` the
    names of people who do, by their ids (None: the caller may not read it). `principal_credentials` are secrets of its
    service principal.

    `credentials` are the secrets that are there, oldest first, `lingering` those that were removed: replicas may know
    them for a while. `written_at` (seconds since the epoch) and `written_by` (number of the Graph replica) tell of the
    last change of its secrets.
    """

    display_name: str
    audience: str
    owners: list[str]
    roles: list[str]
    service_principal: bool
    created: datetime
    object_id: str = field(default_factory=new_guid)
    client_id: str = field(default_factory=new_guid)
    disabled: bool = False
    blocked_by_conditional_access: bool = False
    credentials: list[Credential] = field(default_factory=list)
    lingering: list[Credential] = field(default_factory=list)
    certificates: list[bytes] = field(default_factory=list)
    federated: list[FederatedCredential] = field(default_factory=list)
    users: dict[str, str | None] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)
    principal_id: str = field(default_factory=new_guid)
    principal_credentials: list[Credential] = field(default_factory=list)
    written_at: float = 0.0
    written_by: int = 0
    _directory: Directory | None = field(default=None, repr=False)

    @property
    def directory(self) -> Directory:
        """The directory that it is registered in."""
        assert self._directory is not None
        return self._directory

    def add_secret(
        self,
        display_name: str | None = None,
        days: float = 365,
        start: datetime | None = None,
        text: str | None = None,
        fraction_digits: int = 7,
        lags: bool = False,
    ) -> Credential:
        """Somebody gives the application a secret; negative `days` make an expired one.

        Every replica knows it at once, as if it had been there for long, unless it `lags` as one made by Graph does.
        """
        now = self.directory.now()
        since = start or now - (timedelta(days=1 - days) if days < 0 else timedelta())
        until = (start or now) + timedelta(days=days)
        with self.directory.lock:
            credential = self.directory.create(self, display_name, since, until)
            credential.text, credential.fraction_digits = text or credential.text, fraction_digits
            credential.ticks = (1, 1) if since.microsecond else (0, 0)
            if not lags:
                credential.lags, credential.visible_after, credential.usable_at = False, 0.0, 0.0
            with self.directory.outside("add_secret", f"{self.object_id} key {credential.key_id}"):
                return credential

    def remove_secret(self, key_id: str) -> Credential:
        """Somebody takes a secret away; KeyError where the application has none with this key id."""
        with self.directory.outside("remove_secret", f"{self.object_id} key {key_id}"):
            credential = {one.key_id: one for one in self.credentials}[key_id]
            self.directory.remove(self, credential, OUTSIDE)
        return credential

    def reset(self, display_name: str | None = None, days: float = 365) -> Credential:
        """Somebody resets the application's credentials with another tool: all are gone, and there is one new one.

        What `az ad app credential reset` does without `--append`. Replicas learn of it as of any other change.
        """
        now = self.directory.now()
        with self.directory.outside("reset", self.object_id):
            for credential in list(self.credentials):
                self.directory.remove(self, credential, OUTSIDE)
            return self.directory.create(self, display_name, now, now + timedelta(days=days))

    def add_certificate(self, pem: str | bytes) -> None:
        """Register a certificate (PEM) that may sign client assertions."""
        self.certificates.append(pem.encode() if isinstance(pem, str) else pem)

    def live_secrets(self) -> list[Credential]:
        """The secrets that are present now, whether a read shows them yet or not."""
        with self.directory.lock:
            return list(self.credentials)
