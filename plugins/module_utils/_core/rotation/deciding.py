# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of each secret of an application, and one decision about each, with its reason.

Pure: nothing here reads a clock, a vault or a network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from ..base.timing import SOON
from ..services.application import Application, Credential, format_time, guid, parse_time
from .policy import Policy, is_record_uid

# So young a secret may be missing from a list, and so much older than ours one was made by no run that is under way.
YOUNG = timedelta(minutes=20)
# "16-64 characters": https://learn.microsoft.com/graph/api/resources/passwordcredential
_SHORTEST_SECRET = 16


def marker(record_uid: str, run_id: str) -> str:
    """Return the display name of a secret: by it a later run knows what an interrupted one has left."""
    return f"keeper/{record_uid}/{run_id}"


def marked_by(credential: Credential) -> str | None:
    """Return the uid of the record that the secret was made for, as its name says; None where it says none.

    What stands in the place of the uid is returned as it is, whether it looks like one or not.
    """
    first, slash, rest = credential.display_name.partition("/")
    uid, second, _run = rest.partition("/")
    return uid if first == "keeper" and slash and second else None


def other_records(credentials: Sequence[Credential], own: str) -> list[str]:
    """Return the uids of the other records that secrets were made for, as far as they look like uids."""
    found = {marked_by(item) for item in credentials} - {own, None}
    return sorted(uid for uid in found if uid and is_record_uid(uid))


@dataclass(frozen=True)
class Published:
    """What a record shows. ``hint`` is the first three characters of its secret, empty where it holds none."""

    record_uid: str
    key_id: str
    hint: str
    editable: bool = True
    expires: str = ""

    def shows(self, item: Credential) -> bool:
        """Whether the record shows this secret: by the key id; where it names none, by the hint, as far as known."""
        if guid(self.key_id) is not None:
            return item.key_id == guid(self.key_id)
        return bool(self.hint) and item.hint in ("", self.hint)


def hint_of(secret: str) -> str:
    """Return the hint of a secret; empty for what is too short to be one, as words are that hold its place."""
    return secret[:3] if len(secret) >= _SHORTEST_SECRET else ""


@dataclass(frozen=True)
class Holding:
    """A secret that something else than the record holds: ``owner`` says what, in words.

    ``about`` are the client id and the object id of the application that it is for, as far as they are known there.
    """

    owner: str
    shown: Published
    about: frozenset[str]

    def holds(self, item: Credential, application: Application) -> bool:
        """Whether it holds this secret of the application; where no key id and no hint is known it may, so it does."""
        if guid(self.shown.key_id) is not None:
            return self.shown.shows(item)
        return bool(self.about & {application.client_id, application.object_id}) and self.shown.shows(item)


@dataclass(frozen=True)
class Kept:
    """A secret that stays, and why; ``until`` is the time from which on a run removes it, where there is one."""

    key_id: str
    reason: str
    until: datetime | None = None

    def as_dict(self) -> dict[str, str]:
        """Return it as JSON data."""
        found = {"key_id": self.key_id, "reason": self.reason}
        return {**found, "until": format_time(self.until)} if self.until else found

    def __str__(self) -> str:
        return f"{self.key_id} ({self.reason}{', until ' + format_time(self.until) if self.until else ''})"


class Fate(Enum):
    """What becomes of a secret beside the one that stays."""

    KEPT = 1
    OLD = 2
    LEFT_OVER = 3  # made by a run of this record that never published it


@dataclass(frozen=True)
class Decision:
    """What becomes of one secret, why, and from when on it may be removed (a left-over: at once)."""

    credential: Credential
    fate: Fate
    reason: str
    due: datetime | None = None


@dataclass(frozen=True)
class Situation:
    """What is known when it is decided about the secrets of an application. Times are by Graph's clock.

    ``published`` is what the record showed when the run began, ``shown`` the same as Graph lists it. ``new`` is the
    secret that stays: this run's, or the shown one where no new one is needed; None while it is not made yet.
    ``first`` are the key ids of the run's first list. ``others`` are the records that secrets were made for, None for
    one that cannot be seen. ``bound`` is whether record and application belong together as far as can be seen.
    """

    policy: Policy
    application: Application
    published: Published
    now: datetime
    shown: Credential | None = None
    new: Credential | None = None
    first: frozenset[str] = frozenset()
    published_at: datetime | None = None
    run_name: str = ""
    held: tuple[Holding, ...] = ()
    others: Mapping[str, Published | None] = field(default_factory=dict)
    bound: bool = True

    @property
    def keeps(self) -> bool:
        """Whether the shown secret stays, and no new one is made."""
        return self.new is not None and self.shown is not None and self.new.key_id == self.shown.key_id

    def is_ours(self, item: Credential) -> bool:
        """Whether the secret was made for this record."""
        return item.display_name.startswith(marker(self.published.record_uid, ""))

    def expired(self, item: Credential) -> bool:
        """Whether the secret has ended."""
        return item.end is not None and item.end <= self.now


def decide(item: Credential, known: Situation, listed: Sequence[Credential]) -> Decision:
    """Say what becomes of one secret other than the one that stays. The first reason that applies is the one.

    A secret that another run may be about to publish, or that something else shows, is never an old one.
    """

    def kept(reason: str) -> Decision:
        return Decision(item, Fate.KEPT, reason)

    policy, shown = known.policy, known.shown
    ours, other = known.is_ours(item), marked_by(item)
    if known.run_name and item.display_name == known.run_name:
        return Decision(item, Fate.LEFT_OVER, "the answer to its making was lost")
    left_over = is_left_over(item, known)
    for holding in known.held:
        # What a run never published is held by nobody, unless its first characters say so.
        if holding.holds(item, known.application) and not (left_over and not item.hint):
            return kept(f"{holding.owner} holds it")
    if not _seen_before(item, known):
        return kept("it was made after this run began: somebody may be about to use it")
    if left_over:
        return Decision(item, Fate.LEFT_OVER, "a run of this record has made it and never published it")
    if known.keeps and shown is not None and not older(item, shown.start, timedelta() if ours else YOUNG):
        return kept("it was made after the one that the record shows")
    if other is not None and not ours:
        theirs = known.others.get(other)
        if theirs is not None and theirs.shows(item):
            return kept(f"the record {other} shows it")
        if other not in policy.adopt:
            seen = "does not show it" if theirs is not None else "cannot be seen"
            return kept(f"it was made for the record {other}, which {seen}: adopt that record to have it removed")
    named = shown is not None and item.key_id == shown.key_id
    adopted = other is not None and other in policy.adopt
    if policy.retire == "none":
        return kept("retire is none")
    if policy.retire == "managed" and not (ours or named or adopted):
        return kept("it was not made for this record")
    if not known.bound and not ours:
        return kept("the record names a secret that this application does not have: it may be of another application")
    return Decision(item, Fate.OLD, "it is old", superseded(item, known, listed) + policy.retire_after)


def _seen_before(item: Credential, known: Situation) -> bool:
    """Whether the secret was there before this run's own, so that no run is about to publish it."""
    named = guid(known.published.key_id)
    start = known.new.start if known.new else None
    return item.key_id in known.first or item.key_id == named or older(item, start, YOUNG)


def is_left_over(item: Credential, known: Situation) -> bool:
    """Whether an interrupted run made this secret for the record and never published it.

    It is newer than the shown one; where the record names none, each of its secrets is one; where Graph does not list
    what the record names, the end that the record shows tells when that was made.
    """
    published, shown = known.published, known.shown
    if not known.is_ours(item) or item.key_id == guid(published.key_id):
        return False
    if shown is not None:
        return not older(item, shown.start)
    if guid(published.key_id) is None:
        return not published.shows(item)
    made = made_at(known.policy, published)
    return made is not None and item.start is not None and item.start > made


def made_at(policy: Policy, published: Published) -> datetime | None:
    """Return when the secret that the record shows was made, as its end tells; None where it tells nothing."""
    end = parse_time(published.expires)
    try:
        return end - timedelta(days=policy.lifetime_days) if end else None
    except OverflowError:
        return None


def unlisted(policy: Policy, published: Published, application: Application, now: datetime) -> tuple[Credential, ...]:
    """Return the secret that the record names where Graph does not list it because it was made minutes ago and has not
    reached all replicas. That it is so young shows in its end."""
    key_id, made = guid(published.key_id), made_at(policy, published)
    if key_id is None or made is None or application.credential(key_id):
        return ()
    # An end that this lifetime does not give tells nothing: the lifetime was another one then.
    young = abs(now - made) < YOUNG
    return (Credential(key_id, start=made, end=parse_time(published.expires)),) if young else ()


def contradicts(policy: Policy, published: Published, application: Application, now: datetime) -> bool:
    """Whether the record may belong to another application: it names a key id that is not listed, nor so young that it
    may not be yet, or holds a secret without naming one. A record that names and holds nothing does not."""
    if guid(published.key_id) is None:
        return bool(published.hint)
    return application.credential(published.key_id) is None and not unlisted(policy, published, application, now)


def superseded(item: Credential, known: Situation, listed: Sequence[Credential]) -> datetime:
    """Return when something took the secret's place: for one older than the shown one, the start of the next secret of
    this record, or of the shown one; for any other the time of this run's publishing. An expired one had its time."""
    shown = known.shown
    if known.expired(item):
        return (item.end or known.now) - known.policy.retire_after
    if shown is not None and item.key_id != shown.key_id and older(item, shown.start):
        line = [*(other for other in listed if known.is_ours(other)), shown]
        later = [other.start for other in line if other.start and item.start and other.start > item.start]
        return min(later)
    return known.published_at or known.now


@dataclass(frozen=True)
class Sorted:
    """What becomes of all secrets. ``left_overs`` and ``old`` are to be removed, oldest first and what the record
    showed last; ``kept`` stay in any case."""

    left_overs: tuple[Decision, ...]
    old: tuple[Decision, ...]
    kept: tuple[Kept, ...]

    def due(self, now: datetime) -> list[Credential]:
        """Return what may be removed by then."""
        return [one.credential for one in (*self.left_overs, *self.old) if one.due is None or one.due <= now]

    def waits(self, now: datetime) -> list[Kept]:
        """Return what is old and not due yet."""
        return [Kept(one.credential.key_id, "retire_after", one.due) for one in self.old if one.due and one.due > now]

    def stays(self, now: datetime) -> list[Kept]:
        """Return what a run that ends then has not removed."""
        return [*self.kept, *self.waits(now)]

    def wait_until(self, now: datetime) -> datetime | None:
        """Return the time at which the last of those is due that are worth waiting for."""
        soon = [one.due for one in self.old if one.due and now < one.due <= now + timedelta(seconds=SOON)]
        return max(soon) if soon else None


def sort_out(known: Situation, listed: Sequence[Credential]) -> Sorted:
    """Decide about every secret that is listed, and keep the ``keep_previous`` newest of the old ones.

    The one that the record showed is the newest, whatever its start: it is the one that is in use.
    """
    everything = {item.key_id: item for item in listed}
    if known.new is not None:
        everything.pop(known.new.key_id, None)
    items = sorted(everything.values(), key=lambda item: rank(item, known))
    decisions = [decide(item, known, items) for item in items]
    old = [one for one in decisions if one.fate is Fate.OLD]
    lasting = [one for one in old if not known.expired(one.credential)]
    number = known.policy.keep_previous
    previous = lasting[-number:] if number else []
    kept = [Kept(one.credential.key_id, one.reason) for one in decisions if one.fate is Fate.KEPT]
    kept += [Kept(one.credential.key_id, "keep_previous") for one in previous]
    return Sorted(
        tuple(one for one in decisions if one.fate is Fate.LEFT_OVER),
        tuple(one for one in old if one not in previous),
        tuple(kept),
    )


def older(credential: Credential, than: datetime | None, by: timedelta = timedelta(0)) -> bool:
    """Whether the secret surely starts before that time, by so much at least."""
    return credential.start is not None and than is not None and credential.start < than - by


def rank(item: Credential, known: Situation) -> tuple[bool, float, str]:
    """Return what to sort secrets by: the oldest comes first, what the record showed last."""
    shown = known.shown is not None and item.key_id == known.shown.key_id
    return shown, item.start.timestamp() if item.start else 0.0, item.key_id
