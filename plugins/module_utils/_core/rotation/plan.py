# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be done to an application, and why. Pure decisions: nothing here reads a clock, a vault or a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..base.errors import BadInput, Refused
from ..base.labels import Labelled
from ..services.application import Application, Credential, after, guid, parse_time

# Longer than a rotation may take (1075 s with the highest verify_timeout): an unpublished secret of ours that is older
# belongs to no run any more.
IN_FLIGHT = timedelta(minutes=20)
ROTATE, FINISH, NOTHING = "rotate", "finish", "nothing"
RETIRE_CHOICES = ("all", "managed", "none")
ROTATE_CHOICES = ("always", "expiring")
_LIMITS = {
    "lifetime_days": (1, 36500),
    "keep_previous": (0, 1000),
    "verify_timeout": (1, 900),
    "min_days_left": (0, 36500),
}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Policy:
    """How to rotate. Days are days of 24 hours, ``verify_timeout`` is in seconds. Raises BadInput when out of range."""

    rotate: str = "always"
    min_days_left: int = 30
    lifetime_days: int = 365
    keep_previous: int = 0
    retire: str = "all"
    verify: bool = True
    verify_timeout: int = 120

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise BadInput(f"{name} is {getattr(self, name)}", f"it must be from {least} to {most}", "correct it")
        for name, choices in (("retire", RETIRE_CHOICES), ("rotate", ROTATE_CHOICES)):
            if getattr(self, name) not in choices:
                raise BadInput(f"{name} is {getattr(self, name)!r}", "it must be " + " or ".join(choices), "correct it")


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
    verify = record.get("verify").lower()
    if verify and "verify" not in given:
        if verify not in _TRUE + _FALSE:
            raise _unreadable(record, "verify", verify, "true or false")
        values["verify"] = verify in _TRUE
    if record.get("retire") and "retire" not in given:
        values["retire"] = record.get("retire").lower()
    try:
        return Policy(**values)  # type: ignore[arg-type]
    except BadInput as problem:
        where = "the options and the record" if given else "the record"
        raise BadInput(f"{where} {record.uid}: {problem.what}", problem.why, "correct it") from None


def _unreadable(record: Labelled, name: str, text: str, wanted: str) -> BadInput:
    return BadInput(f"the field {name} of the record {record.uid} is {text!r}", f"{wanted} is needed", "correct it")


def marker(record_uid: str, run_id: str) -> str:
    """Return the display name of a secret: by it a later run knows what an interrupted one has left."""
    return f"keeper/{record_uid}/{run_id}"


@dataclass(frozen=True)
class Published:
    """What the record shows before the rotation. ``hint`` is the first three characters of its secret."""

    record_uid: str
    key_id: str
    hint: str
    editable: bool = True
    expires: str = ""


@dataclass(frozen=True)
class Kept:
    """A secret that stays, and why."""

    key_id: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What would be done. ``make_room`` is removed before, ``retire`` after the new secret is published."""

    action: str
    reason: str
    end: datetime
    retire: tuple[Credential, ...] = ()
    keep: tuple[Kept, ...] = ()
    make_room: tuple[Credential, ...] = ()


def plan(policy: Policy, published: Published, application: Application, admin_hints: Sequence[str] = ()) -> Plan:
    """Say what is to be done, and why. Raises Refused for what would fail, before anything changes.

    ``admin_hints`` are the hints of the application's secrets that an admin application signs in with from another
    record, where the application is an admin application.
    """
    if not published.editable:
        raise Refused(
            f"the record {published.record_uid} is read-only for this KSM application",
            "no secret was made, as it could not be stored",
            "share the record's folder with the application with edit permission",
        )
    end = after(application.read_at, policy.lifetime_days)
    due = _due(policy, published, application)
    if due is None:
        current = application.credential(published.key_id)
        retire, keep = sort_out(
            policy, published, application.credentials, current, (), admin_hints, application.read_at
        )
        reason = f"the secret {published.key_id} is valid until {current.end_text if current else '?'}"
        if retire:
            return Plan(FINISH, reason + ", but an earlier run left secrets behind", end, tuple(retire), tuple(keep))
        return Plan(NOTHING, reason, end, (), tuple(keep))
    room = _room(published, application)
    before = [credential.key_id for credential in application.credentials]
    retire, keep = sort_out(policy, published, application.credentials, None, before, admin_hints, application.read_at)
    return Plan(ROTATE, due, end, tuple(retire), tuple(keep), room)


def _due(policy: Policy, published: Published, application: Application) -> str | None:
    if policy.rotate == "always":
        return "every run rotates"
    if not published.hint or not published.key_id:
        return "the record holds no secret yet"
    current = application.credential(published.key_id)
    if current is None:
        return f"the application has no secret {published.key_id}, which the record names"
    if current.hint and current.hint != published.hint:
        return f"the record's secret is not the one it names, {published.key_id}"
    if current.end is None or current.end - application.read_at < timedelta(days=policy.min_days_left):
        return f"the secret {published.key_id} expires {current.end_text or 'at an unknown time'}"
    return None


def _room(published: Published, application: Application) -> tuple[Credential, ...]:
    if not application.two_secrets or len(application.credentials) < 2:
        return ()
    current = application.credential(published.key_id)
    orphans = [item for item in application.credentials if is_orphan(item, published, current)]
    stale = [item for item in orphans if _older(item, application.read_at - IN_FLIGHT)]
    if len(application.credentials) - len(stale) < 2:
        return tuple(stale)
    raise Refused(
        f"{application.display_name} has no room for a second secret",
        "applications that are open to personal Microsoft accounts hold two secrets at the most, and it has two",
        "remove the one that is not in use"
        + (" (one is of a run that was interrupted minutes ago; a later run removes it by itself)" if orphans else ""),
    )


def is_orphan(credential: Credential, published: Published, current: Credential | None) -> bool:
    """Whether an interrupted run made this secret for the record and never published it.

    It is newer than the published one, ``current``; or nothing of ours was ever published: then the record names no key
    id, and what secret it may hold is not this one.
    """
    if not credential.display_name.startswith(marker(published.record_uid, "")):
        return False
    if current is None and guid(published.key_id) is None:
        return not published.hint or bool(credential.hint and credential.hint != published.hint)
    return current is not None and credential.key_id != current.key_id and not _older(credential, current.start)


def unlisted(policy: Policy, published: Published, application: Application) -> tuple[Credential, ...]:
    """Return the secret that the record names where Graph does not list it because it was made minutes ago and has not
    reached all replicas. That it is so young shows in its end. Where old secrets are to be kept it is left alone."""
    key_id, end = guid(published.key_id), parse_time(published.expires)
    if key_id is None or end is None or application.credential(key_id):
        return ()
    if policy.retire == "none" or policy.keep_previous:
        return ()
    made = end - timedelta(days=policy.lifetime_days)
    return (Credential(key_id),) if made > application.read_at - IN_FLIGHT else ()


def sort_out(
    policy: Policy,
    published: Published,
    listed: Iterable[Credential],
    new: Credential | None,
    before: Iterable[str],
    admin_hints: Sequence[str],
    now: datetime,
) -> tuple[list[Credential], list[Kept]]:
    """Return the secrets to remove (oldest first) and those to keep, out of ``listed``.

    ``new`` is the secret that stays (None while it is not made yet), ``before`` are the key ids that were seen before
    it was made. A secret that may have been made after it is never removed: somebody else made it, and may be about
    to publish it. Only a strictly earlier start, or having been seen before, proves that it was not.
    """
    known = {key_id.lower() for key_id in before}
    everything = {credential.key_id: credential for credential in listed}
    current = everything.get(published.key_id.strip().lower())
    finishing = new is not None and current is not None and new.key_id == current.key_id
    if new is not None:
        everything.pop(new.key_id, None)
    retire: list[Credential] = []
    keep: list[Kept] = []
    candidates: list[Credential] = []
    for item in everything.values():
        ours = item.display_name.startswith(marker(published.record_uid, ""))
        orphan = is_orphan(item, published, current)
        if new is not None and ours and item.display_name == new.display_name:
            retire.append(item)  # the answer to an earlier attempt of the same run was lost
        elif admin_hints and (item.hint in admin_hints if item.hint else not orphan):
            keep.append(Kept(item.key_id, "the admin application signs in with it"))
        elif finishing and orphan:
            # Nothing is published in this run, so another run may still be about to publish it.
            if _older(item, now - IN_FLIGHT):
                retire.append(item)
            else:
                keep.append(Kept(item.key_id, "another run may be about to publish it"))
        elif new is not None and not (
            item.key_id in known or _older(item, new.start, timedelta(0) if ours else IN_FLIGHT)
        ):
            keep.append(Kept(item.key_id, "it was made after the secret that is published"))
        elif orphan:
            retire.append(item)
        elif policy.retire == "none":
            keep.append(Kept(item.key_id, "retire is none"))
        elif policy.retire == "managed" and not ours and item is not current:
            keep.append(Kept(item.key_id, "it was not made for this record"))
        else:
            candidates.append(item)
    candidates.sort(key=_age, reverse=True)
    keep += [Kept(item.key_id, "keep_previous") for item in candidates[: policy.keep_previous]]
    retire += candidates[policy.keep_previous :]
    return sorted(retire, key=_age), keep


def _older(credential: Credential, than: datetime | None, by: timedelta = timedelta(0)) -> bool:
    return credential.start is not None and than is not None and credential.start < than - by


def _age(credential: Credential) -> tuple[float, str]:
    return (credential.start.timestamp() if credential.start else 0.0, credential.key_id)
