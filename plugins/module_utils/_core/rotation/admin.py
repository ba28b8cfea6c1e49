# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The admin identity in one run: its sign-ins, and Graph as it may use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from ..base.errors import RotationError
from ..base.redact import Log, Secret
from ..base.timing import Budget
from ..services.application import Application, format_time, parse_time
from ..services.credentials import Identity
from ..services.entra import Cloud, Entra
from ..services.graph import Graph
from ..services.http import Http
from ..services.vault import VaultRecord
from .deciding import Holding
from .identity import Sources, choose, renewed

# So many days before the admin application's own secret or certificate ends it is time to renew it.
RENEW_DAYS = 30


class Company:
    """Whoever else is at work in this process: nobody. A fleet has another one."""

    def token(self, identity: Identity, cloud: Cloud, refused: Secret | None, fetch: Callable[[], Secret]) -> Secret:
        """Return an access token of the identity, as ``fetch`` does, but not the ``refused`` one."""
        return fetch()

    def meet(self, record: VaultRecord, application: Application) -> tuple[Holding, ...]:
        """Return what other records than this one hold, as far as it may be of its application. Raises Refused where
        one of them rotates the same application."""
        return ()


class Admin:
    """Who makes and removes secrets. Making the object chooses; it asks nobody. Raises BadInput."""

    def __init__(self, sources: Sources, company: Company, http: Http, budget: Budget, log: Log) -> None:
        self.identity, self.cloud = choose(sources)
        self._sources, self._company, self._log = sources, company, log
        self._token: Secret | None = None
        self._was_read_again = False
        self.entra = Entra(http, self.cloud, self.identity.tenant_id, budget, log)
        self.graph = Graph(http, self.cloud.graph, self.identity.client_id, self._sign_in, log)

    def follow(self, secret: Secret) -> None:
        """Sign in with this secret from now on: the run has rotated the admin application itself."""
        if self.identity.secret:
            self.identity = replace(self.identity, secret=secret)

    def secret_ends(self) -> datetime | None:
        """Return when the secret that it signs in with ends, as its record says it; None where that says nothing."""
        return parse_time(self.identity.expires) if self.identity.secret else None

    def ends_soon(self, now: datetime) -> str:
        """Say that the secret ends within ``RENEW_DAYS``, and what to do; empty where it does not, as far as known."""
        end = self.secret_ends()
        if end is None or end - now >= timedelta(days=RENEW_DAYS):
            return ""
        when = f"ends in {(end - now).days} days" if end > now else "has ended"
        return (
            f"the admin application's own secret {when}, at {format_time(end)} as its record says: make a new one, and "
            f"put it into {self.identity.source}"
        )

    def _sign_in(self) -> Secret:
        # Asked for again, it is asked for another one.
        self._token = self._company.token(
            self.identity, self.cloud, self._token, lambda: self.entra.token(self.identity, self._read_again)
        )
        return self._token

    def _read_again(self) -> Identity | None:
        """Return the identity as its record holds it by now, once in a run; None where it is as it was."""
        uid = self.identity.record_uid
        if self._was_read_again or not uid:
            return None
        self._was_read_again = True
        try:
            record = self._sources.afresh(uid)
            newer = renewed(record, self.identity) if record else None
        except RotationError as problem:
            self._log.detail(f"the record of the admin identity cannot be read again: {problem.message}")
            return None
        if newer:
            self._log.say(f"{newer.source} holds another secret by now, which is tried instead")
            self.identity = newer
        return newer
