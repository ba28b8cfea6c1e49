# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one run is about: record, admin identity and application, as they were found when it began."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..base.errors import BadInput, Refused
from ..base.redact import Log, Secret
from ..base.timing import Budget
from ..base.version import VERSION
from ..services.application import Application, Credential, guid, parse_time
from ..services.entra import Answer
from ..services.http import Http
from ..services.vault import Vault, VaultRecord
from .admin import Admin, Company
from .deciding import Situation, contradicts, marker, unlisted
from .evidence import Evidence, published_in
from .identity import Sources, holder, holdings
from .policy import Policy
from .proving import Proving
from .publishing import FIELD_APPLICATION, FIELD_SECRET, check_fields


@dataclass(frozen=True)
class Task:
    """What to rotate. ``application`` overrides the record's own field; empty means the record's."""

    vault: Vault
    record: VaultRecord
    sources: Sources
    policy: Policy
    application: str = ""
    company: Company = field(default_factory=Company)


class Subject:
    """One record and its application. Making the object reads what there is, and changes nothing.

    ``record`` is to be saved from as it was read last; ``shown`` are the sign-ins with what it shows, None where it
    shows nothing. Raises BadInput, Refused, Stopped.
    """

    def __init__(self, task: Task, http: Http, budget: Budget, log: Log, facts: dict[str, Any]) -> None:
        self.vault, self.record, self.policy = task.vault, task.record, task.policy
        self._budget, self._log = budget, log
        facts.update(record=self.record.uid, title=self.record.title)
        identifier = task.application or self.record.value(FIELD_APPLICATION)
        named = guid(identifier) or "of no GUID"
        log.say(f"keeperpam.azure {VERSION}: record {self.record.title!r} ({self.record.uid}), application {named}")
        self._admin = Admin(task.sources, task.company, http, budget, log)
        identity = self._admin.identity
        log.say(f"admin identity {identity.name} from {identity.source}: {identity.why}")
        check_fields(self.record, bool(task.application))
        self.names_application = not task.application
        self.graph = self._admin.graph
        admin = identity.client_id.strip().lower()
        self.application = app = self.graph.find(identifier, client_id_first=identifier.strip().lower() == admin)
        self._began = budget.awake()
        facts["application"] = {
            "display_name": app.display_name,
            "object_id": app.object_id,
            "client_id": app.client_id,
        }
        self.published = published_in(self.record)
        key_id, expires = self.published.key_id, self.published.expires
        facts["previous_key_id"] = key_id if guid(key_id) else ""
        facts["previous_expires"] = expires if parse_time(expires) else ""
        facts["secrets_before"] = {item.key_id: item.end_text for item in app.credentials}
        secret = self.record.secret(FIELD_SECRET)
        self.shown = self.proving(Secret(secret)) if secret else None
        self._must_be_its_own(task.sources, admin)
        self._held = (*holdings(task.sources), *task.company.meet(self.record, app))
        self.run_name = marker(self.record.uid, uuid.uuid4().hex)
        self.unlisted = unlisted(self.policy, self.published, app, app.read_at)
        # What is so young that no list may show it yet has been seen to sign in: where it does not, the record may have
        # been given to another application since.
        doubtful = contradicts(self.policy, self.published, app, app.read_at) or (self.unlisted and self.policy.verify)
        self.bound = not doubtful or self._shown_is_taken()
        self.unlisted = self.unlisted if self.bound else ()
        self.evidence = Evidence(self.vault, self.record, self.graph, app, budget)
        if self.record.shows(FIELD_SECRET):
            log.say(f"the field {FIELD_SECRET} is no Hidden field: everybody who opens the record sees the secret")

    def now(self) -> datetime:
        """Graph's time, counted on from its first answer: a host's clock that is ahead would end secrets too early."""
        return self.application.read_at + timedelta(seconds=self._budget.awake() - self._began)

    def known(
        self,
        application: Application | None = None,
        new: Credential | None = None,
        published_at: datetime | None = None,
    ) -> Situation:
        """Return what is known: of the secrets that ``application`` lists, by default those of the first list, with
        ``new`` as the one that stays, published at that time."""
        first, key_id = self.application, self.published.key_id
        shown = (application or first).credential(key_id) or first.credential(key_id)
        return Situation(
            policy=self.policy,
            application=first,
            published=self.published,
            now=self.now(),
            shown=shown or next(iter(self.unlisted), None),
            new=new,
            first=frozenset(item.key_id for item in first.credentials),
            published_at=published_at,
            run_name=self.run_name,
            held=self._held,
            others=self.evidence.others,
            bound=self.bound,
        )

    def proving(self, secret: Secret) -> Proving:
        """Return the sign-ins with a secret of the application."""
        return Proving(self._admin.entra, self.application, secret, self.policy.verify, self._budget, self._log)

    def follow(self, secret: Secret) -> None:
        """Where the record is the admin application's own, sign in with its new secret from now on: a token may have to
        be fetched again after the secret that it came from is removed."""
        if self._admin.identity.record_uid == self.record.uid:
            self._admin.follow(secret)

    def admin_ends(self) -> str:
        """Say that the admin application's own secret ends soon; empty where it does not, or this run renews it."""
        is_own = self._admin.identity.record_uid == self.record.uid
        return "" if is_own else self._admin.ends_soon(self.now())

    def _shown_is_taken(self) -> bool:
        """Whether what the record holds was seen to sign in; where there are no sign-ins, whether the list shows it."""
        if self.shown is not None and self.policy.verify:
            return self.shown.sign_in().answer is Answer.TAKEN
        listed = [item for item in self.application.credentials if item.end is None or item.end > self.now()]
        return any(item.hint and self.published.hint and self.published.shows(item) for item in listed)

    def _must_be_its_own(self, sources: Sources, admin: str) -> None:
        """Raise where the target is an application whose credential this run was given, and the record is not that
        application's own: its editor would get a secret of what may rotate everything."""
        app, record, identity = self.application, self.record, self._admin.identity
        if identity.record_uid == record.uid and app.client_id != admin:
            raise BadInput(
                f"the record {record.uid} holds an admin application's credential, but names another application",
                "its client_secret would be overwritten",
                "remove application_client_id from it, and attach the admin application's own record",
            )
        if identity.record_uid == record.uid:
            return  # its credential has just signed in
        source = holder(sources, app.client_id)
        if not source and app.client_id != admin:
            return
        own = guid(record.view().get("application_client_id")) == app.client_id
        if not own or not self._shown_is_taken():
            raise Refused(
                f"the record {record.title!r} ({record.uid}) is not the own record of {app.display_name}",
                f"{source or identity.source} signs in as that application, and whoever may edit this record "
                "would get a secret of it",
                "enter the application that this record is for; the own record of an admin application has its "
                "application_client_id and a client_secret that signs in",
            )
