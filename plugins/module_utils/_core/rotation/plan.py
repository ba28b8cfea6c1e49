# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be done to an application, and why. Pure decisions: nothing here reads a clock, a vault or a network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from ..base.errors import BadInput, Refused
from ..base.labels import Labelled
from ..base.timing import SOON
from ..services.application import Application, Credential, after, format_time, guid, parse_time

# So young a secret may be missing from a list, and so much older than ours one was made by no run that is under way.
YOUNG = timedelta(minutes=20)
ROTATE, KEEP = "rotate", "keep"
RETIRE_CHOICES = ("all", "managed", "none")
ROTATE_CHOICES = ("always", "expiring")
_LIMITS = {
    "lifetime_days": (1, 36500),
    "keep_previous": (0, 1000),
    "verify_timeout": (1, 900),
    "min_days_left": (0, 36500),
}
# Whoever may edit a record may not make a secret that outlives what the portal allows:
# https://learn.microsoft.com/entra/identity-platform/how-to-add-credentials
_LONGEST_FROM_A_RECORD = 730
_LONGEST_WAIT = timedelta(days=90)
_DURATION = re.compile(r"([0-9]{1,7})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
# "16-64 characters": https://learn.microsoft.com/graph/api/resources/passwordcredential
_SHORTEST_SECRET = 16
_RECORD_UID = re.compile(r"[A-Za-z0-9_-]{22}")


@dataclass(frozen=True)
class Policy:
    """How to rotate. Days are days of 24 hours, ``verify_timeout`` is in seconds. Raises BadInput when out of range.

    ``adopt`` are the uids of records whose secrets count as old ones of this record, as far as they do not show them.
    """

    rotate: str = "always"
    min_days_left: int = 30
    lifetime_days: int = 365
    keep_previous: int = 0
    retire: str = "all"
    retire_after: timedelta = timedelta(seconds=30)
    adopt: tuple[str, ...] = ()
    verify: bool = True
    verify_timeout: int = 120

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise BadInput(f"{name} is {getattr(self, name)}", f"it must be from {least} to {most}", "correct it")
        for name, choices in (("retire", RETIRE_CHOICES), ("rotate", ROTATE_CHOICES)):
            if getattr(self, name) not in choices:
                raise BadInput(f"{name} is {getattr(self, name)!r}", "it must be " + " or ".join(choices), "correct it")


def duration(text: str) -> timedelta:
    """Return the time that ``retire_after`` names: 0, or a number with s, m, h or d, up to 90d. Raises BadInput."""
    plain = text.strip().lower()
    match = _DURATION.fullmatch(plain)
    if plain == "0":
        return timedelta()
    if match:
        found = timedelta(**{_UNITS[match[2]]: int(match[1])})
        if found <= _LONGEST_WAIT:
            return found
    raise BadInput(
        f"retire_after is {text!r}", "it must be 0, or a number with s, m, h or d, up to 90d", "correct it, as in 12h"
    )


def policy_of(record: Labelled, **given: object) -> Policy:
    """Return the policy of what is ``given``, else of the record's optional Text fields, else the default.

    Raises BadInput for a field that cannot be read; one in whose place something is given is not looked at.
    """
    values: dict[str, object] = dict(given)
    for name in ("lifetime_days", "keep_previous", "verify_timeout"):
        text = record.get(name)
        if text and name not in given:
            # No int(): it also takes underscores and other scripts' digits.
            if not (text.isascii() and text.isdigit() and len(text) <= 9):
                raise _unreadable(record, name, text, "a whole number")
            values[name] = int(text)
            if name == "lifetime_days" and int(text) > _LONGEST_FROM_A_RECORD:
                raise _unreadable(record, name, text, f"a number of {_LONGEST_FROM_A_RECORD} at the most")
    verify = record.get("verify").lower()
    if verify and "verify" not in given:
        if verify not in _TRUE + _FALSE:
            raise _unreadable(record, "verify", verify, "true or false")
        values["verify"] = verify in _TRUE
    if record.get("retire") and "retire" not in given:
        values["retire"] = record.get("retire").lower()
    if record.get("adopt") and "adopt" not in given:
        values["adopt"] = [uid for uid in re.split(r"[\s,;]+", record.get("adopt")) if uid]
    wait = values.get("retire_after", record.get("retire_after"))
    try:
        if wait != "":
            values["retire_after"] = wait if isinstance(wait, timedelta) else duration(str(wait))
        values["adopt"] = _uids(values.get("adopt") or ())
        return Policy(**values)  # type: ignore[arg-type]
    except BadInput as problem:
        where = "the options and the record" if given else "the record"
        raise BadInput(f"{where} {record.uid}: {problem.what}", problem.why, problem.todo) from None


def _uids(wanted: object) -> tuple[str, ...]:
    uids = tuple(str(uid) for uid in wanted) if isinstance(wanted, (list, tuple)) else (str(wanted),)
    for uid in uids:
        if not _RECORD_UID.fullmatch(uid):
            raise BadInput(f"adopt names {uid!r}", "it must be the uids of records", "correct it")
    return uids


def _unreadable(record: Labelled, name: str, text: str, wanted: str) -> BadInput:
    return BadInput(f"the field {name} of the record {record.uid} is {text!r}", f"{wanted} is needed", "correct it")


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


def is_record_uid(text: str) -> bool:
    """Whether the text has the form of a record's uid."""
    return bool(_RECORD_UID.fullmatch(text))


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
    if known.keeps and shown is not None and not _older(item, shown.start, timedelta() if ours else YOUNG):
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
    return item.key_id in known.first or item.key_id == named or _older(item, start, YOUNG)


def is_left_over(item: Credential, known: Situation) -> bool:
    """Whether an interrupted run made this secret for the record and never published it.

    It is newer than the shown one; where the record names none, each of its secrets is one; where Graph does not list
    what the record names, the end that the record shows tells when that was made.
    """
    published, shown = known.published, known.shown
    if not known.is_ours(item) or item.key_id == guid(published.key_id):
        return False
    if shown is not None:
        return not _older(item, shown.start)
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
    young = made > now - YOUNG
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
    if shown is not None and item.key_id != shown.key_id and _older(item, shown.start):
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
    items = sorted(everything.values(), key=lambda item: _rank(item, known))
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


@dataclass(frozen=True)
class Plan:
    """What would be done: ``end`` is that of a new secret, ``outlook`` what becomes of the others."""

    action: str
    reason: str
    end: datetime
    outlook: Sorted


def plan(known: Situation) -> Plan:
    """Say what is to be done, and why. Raises Refused for what would fail, before anything changes."""
    policy, application, published = known.policy, known.application, known.published
    if not published.editable:
        raise Refused(
            f"the record {published.record_uid} is read-only for this KSM application",
            "no secret was made, as it could not be stored",
            "share the record's folder with the application with edit permission",
        )
    if application.two_secrets and (policy.keep_previous > 1 or policy.retire == "none"):
        which = "retire none" if policy.retire == "none" else f"keep_previous {policy.keep_previous}"
        raise Refused(
            f"{application.display_name} can never be rotated with {which}",
            "applications that are open to personal Microsoft accounts hold two secrets at the most",
            "set keep_previous to 0 or 1, and retire to all or managed",
        )
    end = after(known.now, policy.lifetime_days)
    reason = _reason_to_rotate(known)
    return Plan(ROTATE if reason else KEEP, reason or _valid(known), end, sort_out(known, application.credentials))


def _valid(known: Situation) -> str:
    shown = known.shown
    return f"the secret {shown.key_id} is valid until {shown.end_text}" if shown else ""


def _reason_to_rotate(known: Situation) -> str:
    policy, published, current = known.policy, known.published, known.shown
    if policy.rotate == "always":
        return "every run rotates"
    if not published.hint or guid(published.key_id) is None:
        return "the record holds no secret yet"
    if current is None:
        return f"the application has no secret {published.key_id}, which the record names"
    if current.hint and current.hint != published.hint:
        return f"the record's secret is not the one it names, {published.key_id}"
    if current.end is None or current.end - known.now < timedelta(days=policy.min_days_left):
        return f"the secret {published.key_id} expires {current.end_text or 'at an unknown time'}"
    return ""


def room(known: Situation, listed: Sequence[Credential]) -> tuple[Decision, datetime | None]:
    """Return which secret makes room for a new one on an application that holds as many as it may, and the time until
    which to wait for it (None: not at all).

    First a left-over, then what has expired, then what this record's policy removes after the rotation anyhow. Raises
    Refused, naming the secrets and the way out.
    """
    outlook = sort_out(known, listed)
    if outlook.left_overs:
        return outlook.left_overs[0], None
    ended = [item for item in listed if known.expired(item)]
    if ended:
        return Decision(min(ended, key=lambda item: _rank(item, known)), Fate.OLD, "it has expired"), None
    old = [one for one in outlook.old if known.shown is None or one.credential.key_id != known.shown.key_id]
    first = min(old, key=lambda one: one.due or known.now, default=None)
    if first is not None and known.shown is not None and first.due:
        if first.due <= known.now:
            return first, None
        if first.due <= known.now + timedelta(seconds=SOON):
            return first, first.due
    raise no_room(known, listed, first.due if first and known.shown else None)


def no_room(known: Situation, listed: Sequence[Credential], fits: datetime | None) -> Refused:
    """Return the refusal that names the secrets, what each is, from when on a new one fits, and the way out."""
    outlook = sort_out(known, listed)
    reasons = {one.key_id: one for one in outlook.stays(known.now)}
    words = []
    for item in listed:
        shown = known.shown is not None and item.key_id == known.shown.key_id
        made = f"{item.display_name!r}, " if item.display_name else ""
        why = "the record shows it" if shown else reasons[item.key_id].reason if item.key_id in reasons else "it is old"
        words.append(f"{item.key_id} ({made}{why})")
    if fits:
        todo = f"run it again after {format_time(fits)}, or lower retire_after"
    elif known.shown is None:
        todo = (
            "enter the one that is in use into the record (client_secret and client_secret_id), or remove one of them "
            "in Entra"
        )
    else:
        todo = "remove the one that is not in use in Entra"
    why = f"it holds as many as it may: {', '.join(words) or 'Graph does not list them yet'}"
    why += f"; a new one fits from {format_time(fits)} on" if fits else ""
    return Refused(f"{known.application.display_name} has no room for a new secret", why, todo)


def _older(credential: Credential, than: datetime | None, by: timedelta = timedelta(0)) -> bool:
    return credential.start is not None and than is not None and credential.start < than - by


def _rank(item: Credential, known: Situation) -> tuple[bool, float, str]:
    """Oldest first, what the record showed last."""
    shown = known.shown is not None and item.key_id == known.shown.key_id
    return shown, item.start.timestamp() if item.start else 0.0, item.key_id
