# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every credential of the applications joined with the records that hold it: what each is.

Pure: nothing here reads a clock, a vault or a network. What a rotation would make of a secret is asked of what decides
that, so that a survey never says anything else than the next run does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from ..rotation.deciding import (
    Decision,
    Fate,
    Holding,
    Published,
    Situation,
    contradicts,
    marked_by,
    sort_out,
    unlisted,
)
from ..rotation.policy import Policy
from ..services.application import Application, Credential, guid, parse_time
from .listing import Listed


class State(str, Enum):
    """What a credential is, in the words of the result."""

    ADMIN = "admin"  # what the rotations sign in with
    CURRENT = "current"  # a record shows it
    PREVIOUS = "previous"  # made for a record that shows another one by now
    ORPHAN = "orphan"  # left by a run that never published it
    OTHER_RECORD = "other_record"  # made for a record that does not publish this application, and not shown by it
    FOREIGN = "foreign"  # somebody else made it for an application that a record publishes
    UNKNOWN = "unknown"  # no record publishes the application
    CERTIFICATE = "certificate"
    MISSING = "missing"  # a record shows it, and Entra does not have it
    EMPTY = "empty"  # a record names the application and shows no secret
    UNVERIFIED = "unverified"  # one of the two sides could not be looked at


@dataclass(frozen=True)
class Held:
    """A record that names an application, as far as it could be read. ``identifier`` is a GUID."""

    uid: str
    title: str
    identifier: str
    published: Published
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True)
class Row:
    """One credential, and what it is.

    ``until`` is the time from which on a run removes it, where one would. ``records`` show it, as uid and title.
    ``successor``: another one that outlives it takes its place. ``shared``: several records name the application, and
    none of them adopts the others. ``refused``: it was seen not to sign in.
    ``mismatch``: a record that names it holds a value that is not its own; ``stray``: nor that of any other secret.
    """

    state: State
    application: Application | None
    identifier: str
    credential: Credential
    kind: str = "secret"
    of: str = "application"
    records: tuple[tuple[str, str], ...] = ()
    marker: str = ""
    until: datetime | None = None
    reason: str = ""
    successor: bool = False
    shared: bool = False
    refused: bool = False
    mismatch: bool = False
    stray: bool = False
    owners: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Known:
    """What was read. ``complete``: what is not listed is not there. ``keeper``: the vault was read.

    ``gone`` are the identifiers of applications that Graph said it does not know.
    """

    listed: Sequence[Listed]
    held: Sequence[Held]
    now: datetime
    complete: bool = True
    keeper: bool = True
    gone: frozenset[str] = frozenset()
    holdings: tuple[Holding, ...] = ()
    elsewhere: Mapping[str, Published] = field(default_factory=dict)  # all records by uid, whatever they name


def join(known: Known) -> list[Row]:
    """Return a row for each credential of the applications, and for each record that shows one that is not there."""
    by_id: dict[str, Listed] = {}
    for each in known.listed:
        by_id[each.application.object_id] = by_id[each.application.client_id] = each
    of: dict[str, list[Held]] = defaultdict(list)
    rows: list[Row] = []
    for record in known.held:
        found = by_id.get(record.identifier)
        if found is not None:
            of[found.application.object_id].append(record)
        else:
            rows.append(_unfound(record, known))
    shown = _shown_by_key(known)
    for each in known.listed:
        rows += _Joining(each, of[each.application.object_id], shown, known).rows()
    return rows


def _shown_by_key(known: Known) -> dict[str, list[tuple[str, str]]]:
    """Return by key id which records show it: a record may name another application than its secret is of."""
    shown: dict[str, list[tuple[str, str]]] = defaultdict(list)
    titles = {record.uid: record.title for record in known.held}
    for uid, published in known.elsewhere.items():
        key_id = guid(published.key_id)
        if key_id:
            shown[key_id].append((uid, titles.get(uid, "")))
    return shown


def _unfound(record: Held, known: Known) -> Row:
    certain = known.complete or record.identifier in known.gone
    reason = "Entra has no such application" if certain else "the application could not be read"
    state = State.MISSING if certain else State.UNVERIFIED
    return Row(
        state,
        None,
        record.identifier,
        _named(record),
        records=((record.uid, record.title),),
        reason=reason,
    )


def _named(record: Held) -> Credential:
    """Return the credential as the record alone describes it."""
    end = parse_time(record.published.expires)
    return Credential(guid(record.published.key_id) or "", end=end, end_text=record.published.expires if end else "")


class _Joining:
    """One application and the records that name it."""

    def __init__(
        self, listed: Listed, held: Sequence[Held], shown: Mapping[str, list[tuple[str, str]]], known: Known
    ) -> None:
        self._listed, self._held, self._known = listed, held, known
        self._application = listed.application
        self._shown = shown
        adopted = {uid for record in held for uid in record.policy.adopt}
        self._shared = len([record for record in held if record.uid not in adopted]) > 1
        self._verdicts = {record.uid: self._verdict(record) for record in held}

    def rows(self) -> list[Row]:
        """Return the application's rows."""
        rows = [self._secret(item) for item in self._application.credentials]
        # No rotation touches what a service principal holds.
        rows += [
            replace(self._secret(item), of="service_principal", until=None, reason="")
            for item in self._listed.of_principal
        ]
        rows += [self._row(State.CERTIFICATE, item, kind="certificate") for item in self._listed.certificates]
        rows += [row for record in self._held if (row := self._absent(record))]
        return [replace(row, successor=self._has_successor(row, rows)) for row in rows]

    def _row(self, state: State, item: Credential, **more: object) -> Row:
        app = self._application
        row = Row(state, app, app.object_id, item, marker=marked_by(item) or "", owners=self._listed.owners)
        return replace(row, shared=self._shared, **more)  # type: ignore[arg-type]

    def _shows(self, record: Held, item: Credential) -> bool:
        """Whether the record shows it; a hint that Graph does not tell is no proof."""
        return (bool(item.hint) or guid(record.published.key_id) is not None) and record.published.shows(item)

    def _secret(self, item: Credential) -> Row:
        holders = {record.uid: (record.uid, record.title) for record in self._held if self._shows(record, item)}
        holders.update({one[0]: one for one in self._shown.get(item.key_id, ()) if one[0] not in holders})
        if holders:
            return self._row(State.CURRENT, item, records=tuple(sorted(holders.values())), **self._compared(item))
        holding = next((one for one in self._known.holdings if one.holds(item, self._application)), None)
        if holding is not None:
            return self._row(State.ADMIN, item, reason=f"{holding.owner} holds it")
        if not self._known.keeper:
            return self._row(State.UNVERIFIED, item, reason="the vault could not be read")
        marker = marked_by(item)
        if marker in self._verdicts:
            return self._of_record(marker, item)
        if marker is not None:
            seen = "does not show it" if marker in self._known.elsewhere else "is not seen"
            return self._row(State.OTHER_RECORD, item, reason=f"made for the record {marker}, which {seen}")
        if not self._held:
            return self._row(State.UNKNOWN, item)
        old = [one for verdict in self._verdicts.values() if (one := verdict.get(item.key_id)) and one.due]
        first = min(old, key=lambda one: one.due or self._known.now, default=None)
        doomed = any(record.policy.retire == "all" for record in self._held)
        reason = "a rotation of the record removes it" if doomed else ""
        return self._row(State.FOREIGN, item, until=first.due if first else None, reason=reason)

    def _compared(self, item: Credential) -> dict[str, object]:
        """Return what is wrong where a record names this secret and holds a value that is not its own."""
        values = {
            record.published.hint
            for record in self._held
            if item.hint and self._shows(record, item) and record.published.hint != item.hint
        }
        if not values:
            return {}
        others = {other.hint for other in self._application.credentials}
        # What has no hint may be the one.
        stray = not values <= others and "" not in others
        reason = "the record holds another value" if any(values) else "the record holds no value"
        return {"mismatch": True, "stray": stray, "reason": reason}

    def _of_record(self, uid: str, item: Credential) -> Row:
        decision = self._verdicts[uid].get(item.key_id)
        record = next(each for each in self._held if each.uid == uid)
        made_for = ((uid, record.title),)
        if decision is None:
            return self._row(State.PREVIOUS, item, records=made_for)
        if decision.fate is Fate.LEFT_OVER:
            return self._row(State.ORPHAN, item, records=made_for, reason=decision.reason)
        return self._row(State.PREVIOUS, item, records=made_for, until=decision.due, reason=decision.reason)

    def _verdict(self, record: Held) -> dict[str, Decision]:
        """Return what the next run of the record would make of each secret, by key id."""
        app, now, published = self._application, self._known.now, record.published
        shown = next((item for item in app.credentials if self._shows(record, item)), None)
        known = Situation(
            policy=record.policy,
            application=app,
            published=published,
            now=now,
            shown=shown,
            new=shown,
            first=frozenset(item.key_id for item in app.credentials),
            held=self._known.holdings,
            others=dict(self._known.elsewhere),
            bound=not contradicts(record.policy, published, app, now),
        )
        outlook = sort_out(known, app.credentials)
        found = {one.credential.key_id: one for one in (*outlook.left_overs, *outlook.old)}
        items = {item.key_id: item for item in app.credentials}
        found.update({one.key_id: Decision(items[one.key_id], Fate.KEPT, one.reason) for one in outlook.kept})
        return found

    def _absent(self, record: Held) -> Row | None:
        """Return a row for a record whose secret is none of those that are listed."""
        published, held = record.published, ((record.uid, record.title),)
        if any(self._shows(record, item) for item in (*self._application.credentials, *self._listed.of_principal)):
            return None
        if not published.hint and guid(published.key_id) is None:
            return self._row(State.EMPTY, Credential(""), records=held)
        # What has no hint may be the one that the record holds without naming it.
        unsure = guid(published.key_id) is None and any(not item.hint for item in self._application.credentials)
        young = unlisted(record.policy, published, self._application, self._known.now)
        if unsure or young:
            reason = "made minutes ago, and not listed yet" if young else "the record does not name its secret"
            return self._row(State.UNVERIFIED, _named(record), records=held, reason=reason)
        return self._row(State.MISSING, _named(record), records=held, reason="the application does not have it")

    def _has_successor(self, row: Row, rows: Iterable[Row]) -> bool:
        """Whether something takes the place of a credential when it ends. What a record shows has nothing: it is what
        whoever reads the record gets."""
        if row.state in (State.CURRENT, State.MISSING, State.EMPTY, State.UNVERIFIED, State.ADMIN):
            return False
        others = [other for other in rows if other.kind == row.kind and other.credential != row.credential]
        if self._held:
            others = [other for other in others if row.kind == "certificate" or other.state is State.CURRENT]
        return any(_outlives(other.credential, row.credential, self._known.now) for other in others)


def _outlives(other: Credential, item: Credential, now: datetime) -> bool:
    """Whether the other one is valid by now and goes on when this one has ended."""
    begun = other.start is None or other.start <= now
    return begun and other.end is not None and item.end is not None and other.end > max(item.end, now)
