# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How urgent each credential of a survey is, and what to do about it. Pure, as what it judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..base.redact import foreign
from ..services.application import format_time
from .joining import Row, State

# Worst first. Of the buckets, critical is what fails by now, expiring what will fail soon unless somebody acts.
BUCKETS = CRITICAL, EXPIRING, ATTENTION, HEALTHY = ("critical", "expiring", "attention", "healthy")
# As much of a name as tells one from another.
_LONGEST = 120
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Limits:
    """From how many days before its end a credential is expiring, and from how many days of age on it is too old."""

    min_days_left: int = 30
    max_age_days: int = 365


@dataclass(frozen=True)
class Judged:
    """A row with its bucket, its remarkable properties, and the next step (empty: none)."""

    row: Row
    bucket: str
    days_left: int | None
    flags: tuple[str, ...]
    todo: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON data, without any part of a secret."""
        row, item = self.row, self.row.credential
        app = row.application
        found: dict[str, Any] = {
            "application": _short(app.display_name) if app else "",
            "client_id": app.client_id if app else "",
            "object_id": app.object_id if app else "",
            "bucket": self.bucket,
            "state": row.state.value,
            "flags": list(self.flags),
            "kind": row.kind,
            "of": row.of,
            "key_id": item.key_id,
            "name": _short(item.display_name),
            "start": format_time(item.start) if item.start else "",
            "end": item.end_text,
            "days_left": self.days_left,
            "records": [{"uid": uid, "title": _short(title)} for uid, title in row.records],
            "until": format_time(row.until) if row.until else "",
            "reason": row.reason,
            "todo": self.todo,
        }
        if app is None:
            found["client_id" if row.state is State.ADMIN else "object_id"] = row.identifier
        if row.owners is not None:
            found["owners"] = [_short(owner) for owner in row.owners]
        return found


def judge(rows: Iterable[Row], now: datetime, limits: Limits) -> list[Judged]:
    """Return the rows judged: the admin's own first, then the worst first, and within a bucket what ends first."""

    def order(one: Judged) -> tuple[bool, int, float, str, str]:
        item, app = one.row.credential, one.row.application
        end = item.end.timestamp() if item.end else float("inf")
        name = app.display_name.casefold() if app else ""
        return one.row.state is not State.ADMIN, BUCKETS.index(one.bucket), end, name, item.key_id

    return sorted((_judged(row, now, limits) for row in rows), key=order)


def worst(judged: Iterable[Judged]) -> str:
    """Return the worst bucket of all; healthy where there is nothing."""
    return min((one.bucket for one in judged), key=BUCKETS.index, default=HEALTHY)


def reaches(bucket: str, threshold: str) -> bool:
    """Whether a bucket is at least as bad as a threshold; ``never`` is not reached."""
    return threshold in BUCKETS and BUCKETS.index(bucket) <= BUCKETS.index(threshold)


def counts(judged: Sequence[Judged]) -> dict[str, dict[str, int]]:
    """Return how many there are, by bucket and by state; those that are none are counted as such."""
    buckets = Counter(one.bucket for one in judged)
    states = Counter(one.row.state.value for one in judged)
    return {
        "buckets": {name: buckets[name] for name in BUCKETS},
        "states": {state.value: states[state.value] for state in State},
    }


def _judged(row: Row, now: datetime, limits: Limits) -> Judged:
    item = row.credential
    left = None if item.end is None else (item.end - now) // _DAY
    flags = []
    if item.end is not None and item.end <= now:
        flags.append("expired")
    elif item.end is not None and item.end - now < limits.min_days_left * _DAY:
        flags.append("expiring")
    if row.successor:
        flags.append("successor")
    live = "expired" not in flags and bool(item.key_id)
    if live and item.start is not None and now - item.start > limits.max_age_days * _DAY:
        flags.append("over_age")
    if row.shared:
        flags.append("several_records")
    if row.refused:
        flags.append("no_sign_in")
    if row.mismatch:
        flags.append("other_value")
    if row.until is not None and row.until <= now:
        flags.append("due")
    bucket = _bucket(row, flags)
    return Judged(row, bucket, left, tuple(flags), _todo(row, flags, bucket))


def _bucket(row: Row, flags: Sequence[str]) -> str:
    used = row.state in (State.CURRENT, State.ADMIN)
    if row.state is State.MISSING or row.refused or row.stray or (used and "expired" in flags):
        return CRITICAL
    ends = "expiring" in flags and "successor" not in flags
    # What is old anyhow ends with nobody waiting for it.
    if ends and row.state not in (State.PREVIOUS, State.ORPHAN, State.OTHER_RECORD):
        return EXPIRING
    if row.state is State.UNVERIFIED and "expired" in flags:
        return EXPIRING
    if row.state in (State.ORPHAN, State.OTHER_RECORD, State.FOREIGN, State.EMPTY, State.UNVERIFIED):
        return ATTENTION
    if {"expired", "expiring", "over_age", "due"}.intersection(flags):
        return ATTENTION
    return ATTENTION if used and {"several_records", "other_value"}.intersection(flags) else HEALTHY


def _todo(row: Row, flags: Sequence[str], bucket: str) -> str:
    state = row.state
    if state is State.ADMIN:
        if row.refused:
            return "let it sign in: nothing is rotated before"
        if row.records and bucket != HEALTHY:
            return "rotate the record"
        return "renew it" if bucket in (CRITICAL, EXPIRING) else "plan its renewal" if bucket != HEALTHY else ""
    if state is State.MISSING:
        where = "check application_object_id" if row.application is None else "rotate the record"
        return where + ": whoever reads it cannot sign in"
    if state is State.CURRENT:
        if bucket in (CRITICAL, EXPIRING) or {"over_age", "other_value"}.intersection(flags):
            return "rotate the record"
        return "leave one record for the application, or set adopt" if "several_records" in flags else ""
    if state is State.PREVIOUS:
        return "run the rotation, which removes it" if "due" in flags else ""
    if state is State.ORPHAN:
        return "run the rotation, which removes it"
    if state is State.OTHER_RECORD:
        return "set adopt for that record, or remove it in Entra"
    if state is State.FOREIGN:
        return "find who uses it"
    if state is State.EMPTY:
        return "rotate the record"
    if state is State.UNVERIFIED:
        return "look again"
    if "expired" in flags:
        return "remove it in Entra"
    if bucket == EXPIRING:
        return "renew it" if state is State.CERTIFICATE else "renew it, or give the application a record"
    return ""


def _short(text: str) -> str:
    plain = foreign(text)
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 3] + "..."
