# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A look at a whole tenant: every credential of the applications, and the records that hold it. It changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from ..base.errors import BadInput, Refused, RotationError
from ..base.redact import Log
from ..base.timing import Budget
from ..rotation.evidence import published_in
from ..rotation.identity import Sources, choose, holdings
from ..rotation.policy import Policy, policy_of
from ..rotation.publishing import FIELD_APPLICATION, FIELD_KEY_ID, FIELD_SECRET
from ..services.application import Credential, format_time, guid
from ..services.certificate import open_certificate
from ..services.credentials import Identity
from ..services.entra import Entra
from ..services.graph import Graph
from ..services.http import Http
from ..services.vault import VaultRecord, undecipherable
from .joining import Held, Known, Row, State, join
from .judging import Judged, Limits, counts, judge, worst
from .listing import FEW, Listing

# Seconds that reading the vault, and reading the applications, may take.
_VAULT, _TENANT = 120.0, 600.0
_OPTIONS = ("owners", "service_principals")
# By authority; https://learn.microsoft.com/graph/deployments
_PORTALS = {
    "https://login.microsoftonline.us": "https://portal.azure.us",
    "https://login.partner.microsoftonline.cn": "https://portal.azure.cn",
}


@dataclass(frozen=True)
class Seen:
    """What the vault has shown, or why it has not (``problem``); ``lost`` are uids of what cannot be decrypted."""

    records: Mapping[str, VaultRecord] = field(default_factory=dict)
    lost: Sequence[str] = ()
    problem: str = ""


@dataclass(frozen=True)
class Wanted:
    """What to look at. ``records`` are uids; none: all records, and every application that the admin may read."""

    records: Sequence[str] = ()
    owners: bool = False
    service_principals: bool = False
    limits: Limits = field(default_factory=Limits)
    limit: int = 1000


def vault_seen(read: Callable[[], tuple[dict[str, VaultRecord], list[str]]], budget: Budget) -> Seen:
    """Return what the vault shows, or why it shows nothing. Raises Stopped."""
    try:
        with budget.phase("read the vault", _VAULT):
            found, lost = read()
    except Refused as problem:
        return Seen(problem=problem.message)
    return Seen(found, lost)


class Survey:
    """One look. Making the object reads nothing yet."""

    def __init__(self, seen: Seen, sources: Sources, wanted: Wanted, http: Http, budget: Budget, log: Log) -> None:
        self._seen, self._sources, self._wanted = seen, sources, wanted
        self._http, self._budget, self._log = http, budget, log
        self._problems: list[dict[str, str]] = []

    def look(self) -> dict[str, Any]:
        """Return what was found, as JSON data. Raises BadInput, Refused where neither side can be read, Stopped."""
        identity, cloud = choose(self._sources)
        self._log.say(f"admin identity {identity.name} from {identity.source}: {identity.why}")
        entra = Entra(self._http, cloud, identity.tenant_id, self._budget, self._log)
        graph = Graph(self._http, cloud.graph, identity.client_id, lambda: entra.token(identity), self._log)
        held = self._held()
        with self._budget.phase("look at the applications", _TENANT):
            listing, complete, gone = self._applications(graph, held, identity)
        if self._seen.problem and not listing.found:
            raise Refused("neither Keeper nor Entra could be read", self._seen.problem)
        now = listing.read_at or datetime.now(timezone.utc)
        known = Known(
            listed=list(listing.found.values()),
            held=held,
            now=now,
            complete=complete,
            keeper=not self._seen.problem,
            gone=frozenset(gone),
            holdings=holdings(self._sources),
            elsewhere={uid: published_in(record) for uid, record in self._seen.records.items()},
        )
        rows = with_admin(join(known), identity)
        if self._wanted.records:
            # The admin application was read as well, for what it signs in with.
            named = {record.identifier for record in held}
            rows = [row for row in rows if row.state is State.ADMIN or not named.isdisjoint(_ids(row))]
        judged = judge(rows, now, self._wanted.limits)
        portal = _PORTALS.get(cloud.authority, "https://portal.azure.com")
        return {**self._result(judged, listing, held, now), "portal": portal}

    def _applications(self, graph: Graph, held: Sequence[Held], identity: Identity) -> tuple[Listing, bool, set[str]]:
        """Read the applications; return them, whether all that is not found is not there, and what surely is not."""
        listing = Listing(graph, self._budget, self._log)
        identifiers = sorted({record.identifier for record in held})
        gone: set[str] = set()
        complete = False
        try:
            if self._wanted.records and len(identifiers) < FEW:
                own = [identity.client_id] if guid(identity.client_id) else []
                gone = listing.these([*identifiers, *own])
            else:
                complete = listing.everything()
                if not listing.found and "applications" in listing.problems and len(identifiers) < FEW:
                    # Older tenants let Application.ReadWrite.OwnedBy read what it owns, and list nothing.
                    gone = listing.these(identifiers)
                wanted = {*identifiers, identity.client_id.strip().lower()} if self._wanted.records else None
                listing.found = {
                    key: one
                    for key, one in listing.found.items()
                    if wanted is None or wanted & {key, one.application.client_id}
                }
            if self._wanted.owners:
                listing.owners()
            if self._wanted.service_principals:
                listing.principals()
        except RotationError as problem:  # no token
            listing.problems.setdefault("applications", problem.message)
        return listing, complete, gone

    def _held(self) -> list[Held]:
        """Return the records that name applications; what is wrong with one is a problem, and no end."""
        for uid in self._seen.lost:
            if not self._wanted.records or uid in self._wanted.records:
                self._note(uid, "", undecipherable(uid))
        found = []
        for uid in self._wanted.records or self._seen.records:
            record = self._seen.records.get(uid)
            if record is None:
                if not self._seen.problem and uid not in self._seen.lost:
                    what = BadInput(f"the record {uid} was not found", "it is not shared with the KSM application")
                    self._note(uid, "", what)
                continue
            one = self._one(record, asked_for=bool(self._wanted.records))
            if one is not None:
                found.append(one)
        return found

    def _one(self, record: VaultRecord, asked_for: bool) -> Held | None:
        named = record.value(FIELD_APPLICATION)
        if not named and not asked_for:
            return None
        identifier = guid(named)
        if identifier is None:
            what = f"application_object_id of the record {record.uid} is {'no GUID' if named else 'empty'}"
            self._note(record.uid, record.title, BadInput(what, todo="enter the Object ID of the app registration"))
            return None
        for label in (FIELD_APPLICATION, FIELD_SECRET, FIELD_KEY_ID):
            tied = record.tied(label)
            if tied:
                what = f"several fields of the record {record.uid} match {label} equally well: {', '.join(tied)}"
                self._note(record.uid, record.title, BadInput(what, todo="remove or rename all but one of them"))
        policy = Policy()
        try:
            policy = policy_of(record.view(), rotate="expiring", min_days_left=self._wanted.limits.min_days_left)
        except BadInput as problem:
            self._note(record.uid, record.title, problem)
        return Held(record.uid, record.title, identifier, published_in(record), policy)

    def _note(self, uid: str, title: str, problem: RotationError) -> None:
        self._problems.append({"record": uid, "title": title, "problem": problem.message})

    def _result(self, judged: list[Judged], listing: Listing, held: Sequence[Held], now: datetime) -> dict[str, Any]:
        """Return the result. What exceeds the limit is left out from the end, where nothing is urgent, and counted."""
        shown = judged[: self._wanted.limit]
        sources = [_source("keeper", self._seen.problem), _source("applications", listing.problems.get("applications"))]
        for name in _OPTIONS:
            if getattr(self._wanted, name):
                down = listing.problems.get(name) or ("" if listing.found else "no application was read")
                sources.append(_source(name, down))
        return {
            "credentials": [one.as_dict() for one in shown],
            "left_out": len(judged) - len(shown),
            "worst": worst(judged),
            **counts(judged),
            "applications": len({row.row.identifier for row in judged if row.row.state is not State.ADMIN}),
            "records": len(held),
            "problems": self._problems[: self._wanted.limit],
            "sources": sources,
            "read_at": format_time(now),
            "msg": _verdict(judged, sources, self._problems),
        }


def with_admin(rows: Sequence[Row], identity: Identity) -> list[Row]:
    """Return the rows with one for what the admin signs in with, whether Graph lists that or not."""
    client_id = guid(identity.client_id)
    own = [row for row in rows if row.application is not None and row.application.client_id == client_id]
    chosen: Row | None = None
    if identity.secret is not None:
        hint = identity.secret.reveal()[:3]
        alike = [row for row in own if row.kind == "secret" and row.credential.hint == hint]
        chosen = max(alike, key=_end, default=None)
    end = _end_of_certificate(identity)
    if end is not None:
        alike = [row for row in own if row.kind == "certificate" and row.credential.end == end]
        chosen = next(iter(alike), None)
    rest = [row for row in rows if row is not chosen]
    if chosen is None:
        application = own[0].application if own else None
        kind = "secret" if identity.secret else "certificate" if identity.certificate else "managed_identity"
        kind = "token" if identity.token else kind
        item = Credential("", end=end, end_text=format_time(end) if end else "")
        chosen = Row(State.ADMIN, application, client_id or "", item, kind=kind)
    reason = f"{identity.name}, from {identity.source}"
    return [replace(chosen, state=State.ADMIN, reason=reason, until=None, successor=False, shared=False), *rest]


def _end_of_certificate(identity: Identity) -> datetime | None:
    """Return when the certificate that the admin signs in with ends; that it cannot be read, its use has told."""
    try:
        return open_certificate(identity.certificate).end if identity.certificate else None
    except RotationError:
        return None


def _ids(row: Row) -> set[str]:
    app = row.application
    return {row.identifier, app.client_id} if app else {row.identifier}


def _end(row: Row) -> float:
    return row.credential.end.timestamp() if row.credential.end else float("inf")


def _source(name: str, problem: str | None) -> dict[str, Any]:
    return {"name": name, "up": not problem, "problem": problem or ""}


def _verdict(judged: Sequence[Judged], sources: Sequence[Mapping[str, Any]], problems: Sequence[object]) -> str:
    numbers = counts(judged)["buckets"]
    text = f"{len(judged)} credentials: " + ", ".join(f"{number} {bucket}" for bucket, number in numbers.items())
    text += "".join(f"; {one['name']} not read in full: {one['problem']}" for one in sources if not one["up"])
    return text + (f"; {len(problems)} problems with records" if problems else "")
