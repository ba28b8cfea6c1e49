# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tenant: applications, their client secrets, and the truth about which secret signs in at this moment."""

from __future__ import annotations

import secrets
import string
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from .state import State

# Entra's texts hold characters that URLs, YAML, shells and templates take for their own. Quotes and backslashes are
# left out: a test that looks for a leaked secret in some output must find it as it is.
SECRET_ALPHABET = string.ascii_letters + string.digits + "[]@+~:.-_%&=#!$*?{}|<>"
PERSONAL_AUDIENCES = ("AzureADandPersonalMicrosoftAccount", "PersonalMicrosoftAccount")
PERSONAL_SECRETS_MAX = 2
DEFAULT_LIFETIME = timedelta(days=730)  # application-addpassword: startDateTime + 2 years


def new_guid() -> str:
    """A random GUID as text."""
    return str(uuid.uuid4())


def now() -> datetime:
    """The directory's clock, UTC."""
    return datetime.now(timezone.utc)


@dataclass
class Credential:
    """A client secret. `start` and `end` are aware datetimes; the other moments are in seconds since the epoch.

    `fraction_digits` is how many digits of a second the directory writes for it: 7 as a rule, 0 to 7 here.
    """

    text: str
    key_id: str
    display_name: str | None
    start: datetime
    end: datetime
    fraction_digits: int = 7
    created_at: float = 0.0
    visible_after: float = 0.0
    usable_at: float = 0.0
    gone_at: float = float("inf")

    @property
    def hint(self) -> str:
        """The first three characters, as Graph shows them for good."""
        return self.text[:3]

    @property
    def expired(self) -> bool:
        """Whether its end has passed."""
        return now() >= self.end

    def works(self) -> bool:
        """Whether it is known to the sign-in service and valid now."""
        return self.usable_at <= time.time() < self.gone_at and self.start <= now() < self.end

    def visible(self, replica: int, replicas: int) -> bool:
        """Whether this replica shows it; the replicas learn of it one after another until `visible_after` is over."""
        return time.time() >= self.created_at + self.visible_after * (replica + 1) / replicas


@dataclass
class Application:
    """An app registration. `owners` are client ids of the applications whose service principals own it."""

    display_name: str
    audience: str
    owners: list[str]
    roles: list[str]
    service_principal: bool
    object_id: str = field(default_factory=new_guid)
    client_id: str = field(default_factory=new_guid)
    disabled: bool = False
    blocked_by_conditional_access: bool = False
    created: datetime = field(default_factory=now)
    credentials: list[Credential] = field(default_factory=list)
    lingering: list[Credential] = field(default_factory=list)
    certificates: list[bytes] = field(default_factory=list)
    _state: State = field(default_factory=State, repr=False)

    def add_secret(
        self,
        display_name: str | None = None,
        days: float = 365,
        start: datetime | None = None,
        text: str | None = None,
        fraction_digits: int = 7,
    ) -> Credential:
        """Give the application a secret that is visible and usable at once; negative `days` make an expired one."""
        since = start or now() - (timedelta(days=1 - days) if days < 0 else timedelta())
        credential = Credential(
            text or new_text(),
            new_guid(),
            display_name,
            since,
            (start or now()) + timedelta(days=days),
            fraction_digits,
            time.time(),
        )
        with self._state.outside("add_secret", f"{self.object_id} key {credential.key_id}"):
            self.credentials.append(credential)
        return credential

    def add_certificate(self, pem: str | bytes) -> None:
        """Register a certificate (PEM) that may sign client assertions."""
        self.certificates.append(pem.encode() if isinstance(pem, str) else pem)

    def live_secrets(self) -> list[Credential]:
        """The secrets that are present now, whether a read shows them yet or not."""
        with self._state.lock:
            return list(self.credentials)


def new_text() -> str:
    """A secret's text as Entra makes it: 16 to 64 characters."""
    return "".join(secrets.choice(SECRET_ALPHABET) for _number in range(secrets.choice(range(32, 45))))


class Directory:
    """A tenant's applications, and how the service behaves.

    Seconds, for secrets created from now on: `visible_after` until every replica shows it in a GET, `usable_after`
    until it signs in. `lingers_for`: seconds that a removed secret keeps signing in. With more than one of `replicas`,
    reads take turns over them, and each learns of a new secret at its own time within `visible_after`.
    """

    def __init__(self, state: State) -> None:
        self.tenant_id = new_guid()
        self.tenant_domain = "contoso.example"
        self.visible_after = 0.0
        self.usable_after = 0.0
        self.lingers_for = 0.0
        self.replicas = 1
        self.policy_id = new_guid()
        self.policy_max_days: int | None = None
        self.policy_blocks_passwords = False
        self.token_lifetime = 3599
        # The HTTP status of an AADSTS error by its number, where the sources do not agree (7000112: 400 or 401).
        self.sign_in_status: dict[int, int] = {}
        self.applications: list[Application] = []
        self._state = state
        self._turn = 0

    def add_application(
        self,
        display_name: str,
        audience: str = "AzureADMyOrg",
        owners: Sequence[str] = (),
        roles: Sequence[str] = (),
        service_principal: bool = True,
    ) -> Application:
        """Register an application; `roles` are the Graph application permissions it has as a caller."""
        application = Application(
            display_name, audience, list(owners), list(roles), service_principal, _state=self._state
        )
        with self._state.lock:
            self.applications.append(application)
        return application

    def by_client_id(self, client_id: str) -> Application | None:
        """The application with this Application (client) ID."""
        return next((one for one in self.applications if one.client_id == client_id.lower()), None)

    def by_object_id(self, object_id: str) -> Application | None:
        """The application with this Object ID."""
        return next((one for one in self.applications if one.object_id == object_id.lower()), None)

    def signs_in(self, client_id: str, text: str) -> bool:
        """The truth now: this text gets a token for this application."""
        with self._state.lock:
            application = self.by_client_id(client_id)
            return application is not None and self.sign_in_error(application, text) is None

    def sign_in_error(self, application: Application, text: str | None) -> int | None:
        """The AADSTS number that refuses this sign-in, or None. `text` None: proven by a certificate instead."""
        if not application.service_principal:
            return 700016
        if application.disabled:
            return 7000112
        if text is not None and not any(one.text == text and one.works() for one in self._known(application)):
            # A secret that has not arrived yet is answered like a wrong one, or, where all that the sign-in service
            # knows has expired, like an expired one.
            known = [one for one in self._known(application) if one.usable_at <= time.time()]
            return 7000222 if known and all(one.expired for one in known) else 7000215
        return 53003 if application.blocked_by_conditional_access else None

    def create(self, application: Application, display_name: str | None, start: datetime, end: datetime) -> Credential:
        """Make a secret the way addPassword does: with the delays of this directory."""
        moment = time.time()
        credential = Credential(
            new_text(), new_guid(), display_name, start, end, 7, moment, self.visible_after, moment + self.usable_after
        )
        application.credentials.append(credential)
        return credential

    def remove(self, application: Application, credential: Credential) -> None:
        """Take a secret away; it may still sign in for a while."""
        credential.gone_at = time.time() + self.lingers_for
        application.credentials.remove(credential)
        application.lingering.append(credential)

    def shown(self, application: Application) -> list[Credential]:
        """The secrets as the replica shows them whose turn it is."""
        self._turn += 1
        replica = self._turn % self.replicas
        return [one for one in application.credentials if one.visible(replica, self.replicas)]

    @staticmethod
    def _known(application: Application) -> list[Credential]:
        return application.credentials + [one for one in application.lingering if time.time() < one.gone_at]
