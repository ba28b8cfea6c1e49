# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A look at a whole tenant: every credential of the applications, and the records that hold it. It changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from ..base.errors import BadInput, OutOfTime, Refused, RotationError
from ..base.redact import Log
from ..base.timing import Budget
from ..rotation.admin import Admin, Company
from ..rotation.evidence import published_in
from ..rotation.identity import Sources, holdings
from ..rotation.policy import Policy, policy_of
from ..rotation.publishing import FIELD_APPLICATION, FIELD_KEY_ID, FIELD_SECRET
from ..services.application import Credential, format_time, guid
from ..services.certificate import open_certificate
from ..services.credentials import Identity
from ..services.graph import Graph
from ..services.http import Http
from ..services.vault import VaultRecord, undecipherable
from .joining import Held, Known, Row, State, join
from .judging import Judged, Limits, counts, judge, worst
from .listing import FEW, Listing

# Seconds that reading the vault, and each of the others, may take.
_VAULT, _SOURCE = 120.0, 300.0
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
    except OutOfTime as end:
        return Seen(problem=str(end))
    return Seen(found, lost)


class Survey:
    """One look. Making the object reads nothing yet."""

    def __init__(self, seen: Seen, sources: Sources, wanted: Wanted, http: Http, budget: Budget, log: Log) -> None:
        self._seen, self._sources, self._wanted = seen, sources, wanted
        self._http, self._budget, self._log = http, budget, log
        self._problems: list[dict[str, str]] = []
        self._no_sign_in = ""

    def look(self) -> dict[str, Any]:
        """Return what was found, as JSON data. Raises BadInput, Refused where neither side can be read, Stopped."""
        admin = Admin(self._sources, Company(), self._http, self._budget, self._log)
        identity, graph = admin.identity, admin.graph
        self._log.say(f"admin identity {identity.name} from {identity.source}: {identity.why}")
        held = self._held()
        listing = Listing(graph, self._budget, self._log)
        complete, gone = self._read(graph, listing, held, identity)
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
        rows = with_admin(join(known), identity, self._no_sign_in)
        if self._wanted.records:
            # The admin application was read as well, for what it signs in with.
            named = {record.identifier for record in held}
            rows = [row for row in rows if row.state is State.ADMIN or not named.isdisjoint(_ids(row))]
        judged = judge(rows, now, self._wanted.limits)
        portal = _PORTALS.get(admin.cloud.authority, "https://portal.azure.com")
        return {**self._result(judged, listing, held, now), "portal": portal}

    def _read(self, graph: Graph, listing: Listing, held: Sequence[Held], identity: Identity) -> tuple[bool, set[str]]:
        """Read the applications; return whether what is not found is not there, and what surely is not.

        Where the admin does not sign in, nothing is found, and the reason is noted. Raises Stopped.
        """
        identifiers = {record.identifier for record in held}
        own = {found for found in (guid(identity.client_id),) if found}
        gone: set[str] = set()
        complete = False
        try:
            with self._within("applications", listing):
                graph.connect()
                if self._wanted.records and len(identifiers) < FEW:
                    gone = listing.these(sorted(identifiers | own))
                else:
                    complete = listing.everything()
                    if not listing.found and not complete:
                        # Older tenants let Application.ReadWrite.OwnedBy read what it owns, and list nothing.
                        gone = listing.these(sorted(identifiers))
                    if self._wanted.records:
                        listing.keep(identifiers | own)
            if self._wanted.owners:
                with self._within("owners", listing):
                    listing.owners()
            if self._wanted.service_principals:
                with self._within("service_principals", listing):
                    listing.principals()
        except RotationError as problem:
            self._no_sign_in = problem.message
            listing.problems.setdefault("applications", problem.message)
        return complete, gone

    @contextmanager
    def _within(self, source: str, listing: Listing) -> Iterator[None]:
        """Bound the time that a source takes: what has been read until then counts. Raises Stopped for a signal."""
        try:
            with self._budget.phase(f"read the {source.replace('_', ' ')}", _SOURCE):
                yield
        except OutOfTime as end:
            listing.problems.setdefault(source, str(end))

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


def with_admin(rows: Sequence[Row], identity: Identity, refusal: str) -> list[Row]:
    """Return the rows with one for what the admin signs in with, whether Graph lists that or not.

    ``refusal`` says why it does not sign in; empty where it does.
    """
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
    own_row = replace(chosen, state=State.ADMIN, reason=reason, until=None, successor=False, shared=False)
    return [replace(own_row, refused=bool(refusal)), *rest]


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
