# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tenant: its applications, and the truth about which secret signs in at this moment, and where."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from threading import RLock

from .application import Application, Credential, Replica, new_guid, new_text
from .routing import Router
from .state import State

__all__ = ["Application", "Credential", "Directory", "Replica", "new_guid"]

PERSONAL_AUDIENCES = ("AzureADandPersonalMicrosoftAccount", "PersonalMicrosoftAccount")
PERSONAL_SECRETS_MAX = 2
DEFAULT_LIFETIME = timedelta(days=730)  # application-addpassword: startDateTime + 2 years


class Directory:
    """A tenant's applications, and how the service behaves.

    Sign-in is answered by one of `sign_in_replicas`, chosen by `routing`: "turn" (counted per request), "random"
    (from `seed`), "cookie" (the cookies of an answer bind a client that sends them back to the replica that gave it;
    others in turn), "connection" (a proxy pools connections: everything goes to one replica for `pool_for` seconds,
    then to the next). Graph's reads and removals are answered by one of `graph_replicas` in turn; for
    `application_lags` seconds after a change of an application's secrets, replicas other than the one that made it
    answer every second request for that application with 404. Each replica learns and forgets at its own time.

    Seconds beside them, for secrets created from now on: `visible_after` until every replica shows it in a GET (with
    more than one of `replicas` each in its turn, within that time), `usable_after` until it signs in. `lingers_for`:
    seconds that a removed secret keeps signing in. A secret signs in where both `usable_after` and the replica's own
    time are over.

    `clock` is by how many seconds the directory's clock is ahead of the host's: all that compares dates follows it,
    the lags do not, as replication takes real time. `clock_offsets`: front ends of Graph whose clocks are ahead of
    that by so many seconds, in turn over the requests; they give the `Date` header and the start of new secrets.

    `throttle`: Graph counts the writes of each caller, and refuses what is over its limits.
    """

    def __init__(self, state: State) -> None:
        self.tenant_id = new_guid()
        self.tenant_domain = "contoso.example"
        self.sign_in_replicas = [Replica()]
        self.graph_replicas = [Replica()]
        self.routing = "turn"
        self.pool_for = 60.0
        self.application_lags = 0.0
        self.clock = 0.0
        self.clock_offsets = [0.0]
        self.visible_after = 0.0
        self.usable_after = 0.0
        self.lingers_for = 0.0
        self.throttle = False
        self.replicas = 1
        self.policy_id = new_guid()
        self.policy_max_days: int | None = None
        self.policy_blocks_passwords = False
        # Older tenants let Application.ReadWrite.OwnedBy read what is owned, and list nothing.
        self.owned_by_reads_all = True
        # So many requests within batches are throttled from now on, each by itself.
        self.throttled_in_batch = 0
        self.token_lifetime = 3599
        # The HTTP status of an AADSTS error by its number, where the sources do not agree (7000112: 400 or 401).
        self.sign_in_status: dict[int, int] = {}
        self.applications: list[Application] = []
        self._state = state
        self._router = Router()
        self._unheard = 0

    @property
    def lock(self) -> RLock:
        """Held for looks that must be consistent."""
        return self._state.lock

    def outside(self, op: str, detail: str) -> AbstractContextManager[None]:
        """Change something the way an admin does: watchers are told, the log is not."""
        return self._state.outside(op, detail)

    def time(self) -> float:
        """The directory's clock, in seconds since the epoch."""
        return time.time() + self.clock

    def now(self) -> datetime:
        """The directory's clock, UTC."""
        return datetime.fromtimestamp(self.time(), timezone.utc)

    def seed(self, number: int) -> None:
        """Begin the random routing anew from this number."""
        self._router.random = random.Random(number)

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
            display_name, audience, list(owners), list(roles), service_principal, self.now(), _directory=self
        )
        with self.lock:
            self.applications.append(application)
        return application

    def by_client_id(self, client_id: str) -> Application | None:
        """The application with this Application (client) ID."""
        return next((one for one in self.applications if one.client_id == client_id.lower()), None)

    def by_object_id(self, object_id: str) -> Application | None:
        """The application with this Object ID."""
        return next((one for one in self.applications if one.object_id == object_id.lower()), None)

    # -- signing in

    def takes(self, client_id: str, text: str) -> list[bool]:
        """The truth now, without counting as a request: for each sign-in replica, whether this text gets a token."""
        with self.lock:
            application = self.by_client_id(client_id)
            return [
                application is not None and self.sign_in_error(application, text, replica) is None
                for replica in self.sign_in_replicas
            ]

    def signs_in(self, client_id: str, text: str) -> bool:
        """The truth now: every sign-in replica takes this text for this application."""
        return all(self.takes(client_id, text))

    def route(self, cookie: str) -> int:
        """The number of the sign-in replica that answers the next token request, and whose is this cookie."""
        replica = self._router.route(self.routing, len(self.sign_in_replicas), cookie, self.pool_for)
        self._router.bind(cookie, replica)
        return replica

    def sign_in_error(self, application: Application, text: str | None, replica: Replica) -> int | None:
        """The AADSTS number by which this replica refuses, or None. `text` None: proven by a certificate instead."""
        if not application.service_principal:
            return 700016
        if application.disabled:
            return 7000112
        now = self.now()
        known = [one for one in [*application.credentials, *application.lingering] if one.known(replica)]
        if text is not None and not any(one.text == text and one.valid(now) for one in known):
            # A secret that has not arrived yet is answered like a wrong one, or, where all that the sign-in service
            # knows has expired, like an expired one.
            return 7000222 if known and all(now >= one.end for one in known) else 7000215
        return 53003 if application.blocked_by_conditional_access else None

    # -- Graph

    def ahead(self, turn: int) -> float:
        """By how many seconds the clock of the front end whose turn it is is ahead of the directory's."""
        return self.clock_offsets[turn % len(self.clock_offsets)]

    def create(
        self,
        application: Application,
        display_name: str | None,
        start: datetime,
        end: datetime,
        skew: float = 0.0,
        turn: int = 0,
    ) -> Credential:
        """Make a secret the way addPassword does: with the delays of this directory."""
        moment = time.time()
        credential = Credential(
            new_text(),
            new_guid(),
            display_name,
            start,
            end,
            created_at=moment,
            visible_after=self.visible_after,
            usable_at=moment + self.usable_after,
            skew=skew,
        )
        application.credentials.append(credential)
        self._written(application, turn)
        return credential

    def remove(self, application: Application, credential: Credential, by: str = "graph", turn: int = 0) -> None:
        """Take a secret away; replicas may know it for a while."""
        credential.removed_at, credential.removed_by = time.time(), by
        credential.gone_at = credential.removed_at + self.lingers_for
        application.credentials.remove(credential)
        application.lingering.append(credential)
        self._written(application, turn)

    def shown(self, application: Application, turn: int) -> list[Credential]:
        """The secrets as the replica shows them whose turn it is: newest first, removed ones until it forgets them."""
        replica, number = self.graph_replicas[turn % len(self.graph_replicas)], turn % self.replicas
        known = [*application.lingering, *application.credentials]
        found = [one for one in known if one.listed(replica) and one.visible(number, self.replicas)]
        return sorted(found, key=lambda one: one.created_at, reverse=True)

    def unheard(self, application: Application, turn: int) -> bool:
        """Whether the replica whose turn it is answers as if there were no such application."""
        recent = time.time() < application.written_at + self.application_lags
        if not recent or turn % len(self.graph_replicas) == application.written_by:
            return False
        self._unheard += 1
        return self._unheard % 2 == 1

    def _written(self, application: Application, turn: int) -> None:
        application.written_at, application.written_by = time.time(), turn % len(self.graph_replicas)
