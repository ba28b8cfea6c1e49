# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Schedules: what is taken, what fits, and how many fall into an hour."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._commander.schedule import (
    PER_HOUR,
    SPREAD,
    Load,
    as_json,
    check,
    fits,
    shown,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput

TAKEN = [
    "",
    "on-demand",
    "daily",
    "0 0 4 * * ?",
    "0 */5 1-3 L * ?",
    "0 0 4 ? * 2",
    "0 0,30 4 1 1-6/2 ?",
    "0 0 4 ? * 6L",
]
REFUSED = [
    "hourly",
    "0 4 * * *",
    "0 0 4 * * *",
    "0 0 4 ? * ?",
    "60 0 4 * * ?",
    "0 0 24 * * ?",
    "0 0 4 32 * ?",
    "0 0 4 ? * 8",
    "0 0 4 ? * SUN",
    "0 0 L * * ?",
    "0 0 4 * * ? 2027",
    "0 0 4 1W * ?",
]


@pytest.mark.parametrize("schedule", TAKEN)
def test_what_keeper_takes(schedule: str) -> None:
    check(schedule)


@pytest.mark.parametrize("schedule", REFUSED)
def test_what_keeper_drops_without_an_error_is_refused(schedule: str) -> None:
    with pytest.raises(BadInput, match="schedule"):
        check(schedule)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ("", "on-demand"),
        ("[]", "on-demand"),
        ('[{"type": "ON_DEMAND"}]', "on-demand"),
        (as_json("0 0 4 * * ?"), "0 0 4 * * ?"),
        ('[{"type": "CRON", "cron": "0 0 4 * * ?", "tz": "Europe/Paris"}]', None),
        ('[{"type": "DAILY", "time": "03:00", "tz": "Etc/UTC"}]', None),
        ("not JSON", None),
    ],
)
def test_what_the_router_keeps_in_words(stored: str, words: str | None) -> None:
    assert shown(stored) == (stored if words is None else words)


@pytest.mark.parametrize(
    ("stored", "wanted", "does"),
    [
        (as_json("0 7 4 * * ?"), "", True),
        ('[{"type": "DAILY"}]', "", True),
        (as_json("0 7 4 * * ?"), "daily", True),
        (as_json("0 7 4 12 * ?"), "daily", False),
        (as_json("0 7 4 12 * ?"), "monthly", True),
        (as_json("0 7 4 ? * 3"), "weekly", True),
        (as_json("0 7 4 ? * 3"), "monthly", False),
        (as_json("0 */5 4 * * ?"), "daily", False),
        (as_json("0 7 4 * * ?"), "0  7 4 * * ?", True),
        ("", "on-demand", True),
        (as_json("0 7 4 * * ?"), "on-demand", False),
        ("", "daily", False),
    ],
)
def test_an_existing_one_stays_where_it_fits(stored: str, wanted: str, does: bool) -> None:
    assert fits(stored, wanted) is does


@pytest.mark.parametrize("kind", SPREAD)
def test_a_time_comes_of_the_uid_and_is_one_that_keeper_takes(kind: str) -> None:
    crons = [Load([]).place(kind, f"uid-{number}") for number in range(200)]
    assert crons == [Load([]).place(kind, f"uid-{number}") for number in range(200)]
    assert len(set(crons)) > 150
    for cron in crons:
        check(cron)
        assert fits(as_json(cron), kind)


@pytest.mark.parametrize(("kind", "days"), SPREAD.items())
def test_no_hour_gets_more_than_a_gateway_can_do(kind: str, days: int) -> None:
    load = Load([])
    room = days * 24 * PER_HOUR
    number = min(room, 3000)
    crons = [load.place(kind, f"uid-{number}") for number in range(number)]
    hours = Counter((cron.split()[2], cron.split()[3], cron.split()[5]) for cron in crons)
    assert max(hours.values()) <= PER_HOUR
    if number == room:
        with pytest.raises(BadInput, match="no hour is free"):
            load.place(kind, "one more")


def test_what_a_gateway_has_already_counts_of_every_kind() -> None:
    daily = [as_json(f"0 {minute} {hour} * * ?") for hour in range(24) if hour != 5 for minute in range(30)]
    weekly = [as_json(f"0 {minute} {hour} ? * 3") for hour in range(24) if hour != 5 for minute in range(30)]
    load = Load([*daily, *weekly])
    # A day of the month may be a Tuesday.
    assert {load.place("monthly", f"uid-{number}").split()[2] for number in range(40)} == {"5"}
    # An hour that is named in a list, and one by a star, is taken too.
    full = Load([as_json("0 0 1,2 * * ?")] * PER_HOUR)
    assert not {full.place("daily", f"uid-{number}").split()[2] for number in range(200)} & {"1", "2"}
    with pytest.raises(BadInput):
        Load([as_json("0 0 * * * ?")] * PER_HOUR).place("daily", "uid")


def test_what_cannot_be_understood_takes_no_room() -> None:
    stored = [json.dumps([{"type": "DAILY", "time": "03:00"}]), "rubbish", ""]
    assert Load(stored * 100).place("daily", "uid")
