# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be done to an application, and why. Pure decisions: nothing here reads a clock, a vault or a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..base.errors import Refused
from ..base.timing import SOON
from ..services.application import Credential, after, format_time, guid
from .deciding import Decision, Fate, Situation, Sorted, older, rank, sort_out

ROTATE, KEEP = "rotate", "keep"


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
        raise read_only(published.record_uid)
    if application.two_secrets and (policy.keep_previous > 1 or policy.retire == "none"):
        which = "retire none" if policy.retire == "none" else f"keep_previous {policy.keep_previous}"
        raise Refused(
            f"{application.display_name} can never be rotated with {which}",
            "applications that are open to personal Microsoft accounts hold two secrets at the most",
            "set keep_previous to 0 or 1, and retire to all or managed",
        )
    end = after(known.now, policy.lifetime_days)
    reason = _reason_to_rotate(known)
    if reason:
        return Plan(ROTATE, reason, end, sort_out(known, application.credentials))
    return Plan(KEEP, _valid(known), end, sort_out(replace(known, new=known.shown), application.credentials))


def read_only(uid: str) -> Refused:
    """Return the refusal of a record that this KSM application may not edit."""
    return Refused(
        f"the record {uid} is read-only for this KSM application",
        "no secret was made, as it could not be stored",
        "share the record's folder with the application with edit permission",
    )


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
        return Decision(min(ended, key=lambda item: rank(item, known)), Fate.OLD, "it has expired"), None
    old = [one for one in outlook.old if known.shown is None or one.credential.key_id != known.shown.key_id]
    first = min(old, key=lambda one: one.due or known.now, default=None)
    if first is not None and known.shown is not None and first.due:
        if first.due <= known.now:
            return first, None
        if first.due <= known.now + timedelta(seconds=SOON):
            return first, first.due
    # What only this run's publishing would supersede has no time that comes nearer from run to run.
    lasting = first is not None and known.shown is not None and older(first.credential, known.shown.start)
    raise no_room(known, listed, first.due if first and lasting else None)


def no_room(known: Situation, listed: Sequence[Credential], fits: datetime | None) -> Refused:
    """Return the refusal that names the secrets, what each is, from when on a new one fits, and the way out."""
    outlook = sort_out(known, listed)
    reasons = {one.key_id: one.reason for one in outlook.stays(known.now)}
    if known.shown is not None:
        # What only this run's publishing would supersede.
        newer = [one.credential for one in outlook.old if not older(one.credential, known.shown.start)]
        reasons.update({item.key_id: "it is newer than what the record shows" for item in newer})
        reasons[known.shown.key_id] = "the record shows it"
    words = []
    for item in listed:
        made = f"{item.display_name!r}, " if item.display_name else ""
        words.append(f"{item.key_id} ({made}{reasons.get(item.key_id, 'it is old')})")
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
    return Refused(f"{known.application.display_name} has no room for a new secret", why, todo, full=True)
