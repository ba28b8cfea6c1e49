# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Schedules of rotations: what Keeper takes, and how those of many records are spread over the hours. Pure.

A Gateway may run its scripts one after the other, half a minute each: what it can do in an hour is bounded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from .._core.base.errors import BadInput

ON_DEMAND = "on-demand"
#: The words that are spread, with the days that each has to choose from: all hours of a day are taken.
SPREAD = {"daily": 1, "weekly": 7, "monthly": 28}
#: Rotations that one Gateway gets in an hour.
PER_HOUR = 60

# What Commander accepts of Quartz' language; what it does not, it drops without an error (18.1.8,
# discoveryrotation.py validate_cron_field).
_FIELD = re.compile(r"\*|\*/\d+|\d+L?|LW?|\d+-\d+(?:/\d+)?|\d+(?:,\d+)+")
_RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (1, 7))
_NAMES = ("seconds", "minutes", "hours", "day of month", "month", "day of week")


def check(schedule: str) -> None:
    """Raise BadInput unless it is empty, ``on-demand``, a word of SPREAD, or six fields of cron that Keeper takes."""
    if schedule in ("", ON_DEMAND, *SPREAD):
        return
    parts = schedule.split()
    wrong = ""
    if len(parts) != 6:
        wrong = f"it has {len(parts)} fields"
    elif (parts[3] == "?") == (parts[5] == "?"):
        wrong = "one of the two days, and only one, must be a question mark"
    else:
        for part, (least, most), name in zip(parts, _RANGES, _NAMES):
            days = name.startswith("day")
            if part == "?" and days:
                continue
            numbers = [int(number) for number in re.findall(r"\d+", part)]
            if (
                not _FIELD.fullmatch(part)
                or ("L" in part and not days)
                or any(not least <= number <= most for number in numbers)
            ):
                wrong = f"{part!r} cannot be the {name}"
    if wrong:
        raise BadInput(
            f"the schedule is {schedule!r}",
            wrong,
            f"use {ON_DEMAND}, {', '.join(SPREAD)}, or six fields of cron in UTC (seconds, minutes, hours, day of "
            'month, month, day of week), as in "0 0 4 * * ?"',
        )


def as_json(cron: str) -> str:
    """Return what the router keeps for six fields of cron; empty for ``on-demand``."""
    return "" if cron in ("", ON_DEMAND) else json.dumps([{"type": "CRON", "cron": cron, "tz": "Etc/UTC"}])


def shown(stored: str) -> str:
    """Return what the router keeps, in words: six fields of cron, ``on-demand``, or its JSON."""
    plans = _plans(stored)
    crons = [str(plan.get("cron")) for plan in plans if plan.get("type") == "CRON" and plan.get("tz") == "Etc/UTC"]
    if not [plan for plan in plans if plan.get("type") != "ON_DEMAND"]:
        return ON_DEMAND
    return crons[0] if len(plans) == 1 and crons else stored


def fits(stored: str, wanted: str) -> bool:
    """Whether what the router keeps is what is wanted: for a word of SPREAD, any time of that kind."""
    present = shown(stored)
    if wanted == "":
        return True
    if wanted in SPREAD:
        return _kind(present) == wanted
    return present == " ".join(wanted.split())


class Load:
    """How many rotations of one Gateway may fall into an hour: per hour of the day, of a weekday, of a day of month.

    Two of different kinds can fall on the same day, hence the worst of each other kind counts.
    """

    def __init__(self, stored: Iterable[str]) -> None:
        self._taken: dict[tuple[str, int, int], int] = {}
        for one in stored:
            for slot in _slots(shown(one)):
                self._take(slot)

    def place(self, kind: str, uid: str) -> str:
        """Return six fields of cron for a record, and count it. Raises BadInput where no hour is free.

        The same record gets the same time while there is room: it comes of a hash of its uid.
        """
        days = SPREAD[kind]
        number = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big")
        minute, slots = number % 60, days * 24
        for step in range(slots):
            slot = (number // 60 + step) % slots
            day, hour = slot // 24 + 1, slot % 24
            if self._at(kind, day, hour) < PER_HOUR:
                self._take((kind, day if kind != "daily" else 0, hour))
                return {
                    "daily": f"0 {minute} {hour} * * ?",
                    "weekly": f"0 {minute} {hour} ? * {day}",
                    "monthly": f"0 {minute} {hour} {day} * ?",
                }[kind]
        raise BadInput(
            f"no hour is free for a {kind} rotation",
            f"the Gateway has {PER_HOUR} in each already, as many as it can do one after the other",
            "rotate less often, or give the records to another Gateway",
        )

    def _take(self, slot: tuple[str, int, int]) -> None:
        self._taken[slot] = self._taken.get(slot, 0) + 1

    def _at(self, kind: str, day: int, hour: int) -> int:
        found = 0
        for other, days in SPREAD.items():
            taken = [self._taken.get((other, one if other != "daily" else 0, hour), 0) for one in range(1, days + 1)]
            found += taken[day - 1] if other == kind else max(taken)
        return found


def _plans(stored: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(stored) if stored else []
    except ValueError:
        return [{"type": stored}]
    return [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict)]


def _kind(cron: str) -> str:
    """Return the word of SPREAD that six fields of cron are a case of, empty for none."""
    parts = cron.split()
    if len(parts) != 6 or not all(part.isdigit() for part in parts[:3]) or parts[4] != "*":
        return ""
    if parts[3] == "?" and parts[5].isdigit():
        return "weekly"
    if parts[5] == "?":
        return "daily" if parts[3] == "*" else "monthly" if parts[3].isdigit() else ""
    return ""


def _slots(cron: str) -> Iterator[tuple[str, int, int]]:
    """Give the hours that a schedule takes; for what is no case of SPREAD, each hour that it names, on every day."""
    parts = cron.split()
    if len(parts) != 6:
        return
    kind = _kind(cron)
    if kind == "weekly":
        yield kind, int(parts[5]), int(parts[2])
    elif kind == "monthly" and int(parts[3]) <= SPREAD[kind]:
        yield kind, int(parts[3]), int(parts[2])
    else:
        hours = [int(number) for number in re.findall(r"\d+", parts[2])] if "*" not in parts[2] else range(24)
        for hour in hours:
            yield "daily", 0, hour
