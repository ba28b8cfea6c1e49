# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How an application is to be rotated: the options, and the fields of its record that stand for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from ..base.errors import BadInput
from ..base.labels import Labelled
from ..base.timing import SOON

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
_RECORD_UID = re.compile(r"[A-Za-z0-9_-]{22}")


def is_record_uid(text: str) -> bool:
    """Whether the text has the form of a record's uid."""
    return bool(_RECORD_UID.fullmatch(text))


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


def foresight(policy: Policy) -> list[str]:
    """Return what the policy means for an application that is open to personal Microsoft accounts, which holds two
    secrets at the most, and for what still uses an old secret: whatever somebody should know beforehand."""
    found = []
    if policy.keep_previous > 1 or policy.retire == "none":
        found.append("an application that holds two secrets at the most can never be rotated like this")
    elif policy.retire_after.total_seconds() > SOON:
        found.append(
            "an application that holds two secrets at the most, and has two, is not rotated before its old one is due "
            "(retire_after)"
        )
    if not policy.retire_after:
        found.append("with retire_after 0 what still uses the old secret fails at once")
    return found


def parse_duration(text: str) -> timedelta:
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
    verify = None if "verify" in given else truth_of(record, "verify")
    if verify is not None:
        values["verify"] = verify
    if record.get("retire") and "retire" not in given:
        values["retire"] = record.get("retire").lower()
    if record.get("adopt") and "adopt" not in given:
        values["adopt"] = [uid for uid in re.split(r"[\s,;]+", record.get("adopt")) if uid]
    wait = values.get("retire_after", record.get("retire_after"))
    try:
        if wait != "":
            values["retire_after"] = wait if isinstance(wait, timedelta) else parse_duration(str(wait))
        values["adopt"] = _uids(values.get("adopt") or ())
        return Policy(**values)  # type: ignore[arg-type]
    except BadInput as problem:
        where = "the options and the record" if given else "the record"
        raise BadInput(f"{where} {record.uid}: {problem.what}", problem.why, problem.todo) from None


def truth_of(record: Labelled, name: str) -> bool | None:
    """Return what an optional field for true or false says; None where it says nothing. Raises BadInput."""
    text = record.get(name).lower()
    if text and text not in _TRUE + _FALSE:
        raise _unreadable(record, name, text, "true or false")
    return text in _TRUE if text else None


def _uids(wanted: object) -> tuple[str, ...]:
    uids = tuple(str(uid) for uid in wanted) if isinstance(wanted, (list, tuple)) else (str(wanted),)
    for uid in uids:
        if not is_record_uid(uid):
            raise BadInput(f"adopt names {uid!r}", "it must be the uids of records", "correct it")
    return uids


def _unreadable(record: Labelled, name: str, text: str, wanted: str) -> BadInput:
    return BadInput(f"the field {name} of the record {record.uid} is {text!r}", f"{wanted} is needed", "correct it")
