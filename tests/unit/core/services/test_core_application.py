# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Times, GUIDs, and what is read out of an application."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services import application as core_application
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.application import (
    Credential,
    after,
    credentials_in,
    guid,
    parse_time,
)
from core_samples import NOW, application, credential
from hypothesis import given, settings
from hypothesis import strategies as st

KEY = "f0b0b335-1d71-4883-8f98-567911bfdca6"
WHOLE = "2026-09-09T19:50:29"
MOMENT = datetime(2026, 9, 9, 19, 50, 29, tzinfo=timezone.utc)


@pytest.mark.parametrize("digits", range(10))
def test_a_time_has_up_to_nine_fractional_digits(digits):
    fraction = "308638123"[:digits]
    text = WHOLE + ("." + fraction if fraction else "") + "Z"
    assert parse_time(text) == MOMENT.replace(microsecond=int((fraction + "000000")[:6]))


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        WHOLE + "Z",
        WHOLE + "z",
        WHOLE.lower() + "z",
        f" {WHOLE}Z\n",
        WHOLE + "+00:00",
        WHOLE + "-00:00",
        "2026-09-09T21:50:29+02:00",
        "2026-09-09T14:20:29.000-05:30",
    ],
)
def test_a_time_is_utc_whatever_its_offset(text):
    time = parse_time(text)
    assert time == MOMENT
    assert time is not None
    assert time.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "text",
    [
        None,
        5,
        MOMENT,
        [],
        "",
        "never",
        "2026-09-09",
        "2026-09-09 19:50:29Z",
        WHOLE + ".Z",
        WHOLE + "Z Z",
        WHOLE + "+99:99",
        WHOLE + "+0200",
        "2026-02-30T00:00:00Z",
        "2026-09-09T24:01:00Z",
        "0001-01-01T00:00:00+23:00",
        "9999-12-31T23:59:59-23:00",
        "12026-09-09T19:50:29Z",
        "0000-00-00T00:00:00Z",
    ],
)
def test_anything_else_is_no_time(text):
    assert parse_time(text) is None


@settings(max_examples=100)
@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)),
    st.integers(0, 9),
    st.integers(-14 * 60, 14 * 60),
)
def test_a_time_is_what_datetime_says(moment, digits, minutes):
    zone = timezone(timedelta(minutes=minutes))
    fraction = f"{moment.microsecond:06d}789"[:digits]
    sign, rest = ("-" if minutes < 0 else "+"), abs(minutes)
    stamp = moment.isoformat().split(".")[0]
    text = stamp + ("." + fraction if fraction else "") + f"{sign}{rest // 60:02d}:{rest % 60:02d}"
    exact = moment.replace(microsecond=int((fraction + "000000")[:6]), tzinfo=zone)
    assert parse_time(text) == exact


@settings(max_examples=100)
@given(st.text() | st.text("0123456789-:.TZ+", max_size=35) | st.from_regex(core_application._TIME, fullmatch=True))
def test_any_text_is_a_utc_time_or_none(text):
    time = parse_time(text)
    assert time is None or time.utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", [KEY, KEY.upper(), f" {KEY}\n", "{" + KEY + "}"])
def test_a_guid_is_lower_case_and_bare(text):
    assert guid(text) == KEY


@pytest.mark.parametrize(
    "text", ["", "billing-api", KEY[:-1], KEY + "0", KEY.replace("-", ""), f"{KEY}/owners", f"{KEY}')", "g" + KEY[1:]]
)
def test_what_is_no_guid_never_gets_into_a_url(text):
    assert guid(text) is None


@settings(max_examples=60)
@given(st.text() | st.text("0123456789abcdefABCDEF-{} '/()", min_size=30, max_size=40))
def test_any_text_is_a_guid_or_none(text):
    found = guid(text)
    assert found is None or (len(found) == 36 and set(found) <= set("0123456789abcdef-"))


def test_a_credential_as_graph_shows_it():
    (found,) = credentials_in(
        [
            {
                "customKeyIdentifier": None,
                "displayName": "keeper/x/y",
                "endDateTime": "2027-09-09T19:50:29.3086381Z",
                "hint": "[6g",
                "keyId": KEY.upper(),
                "secretText": None,
                "startDateTime": WHOLE + "Z",
            }
        ]
    )
    end = datetime(2027, 9, 9, 19, 50, 29, 308638, tzinfo=timezone.utc)
    assert found == Credential(KEY, "keeper/x/y", MOMENT, end, "2027-09-09T19:50:29.3086381Z", "[6g")


def test_nulls_are_empty():
    names = ("displayName", "endDateTime", "startDateTime", "hint")
    assert credentials_in([{"keyId": KEY, **dict.fromkeys(names)}]) == [Credential(KEY)]
    assert credentials_in([{"keyId": KEY}]) == [Credential(KEY)]


@pytest.mark.parametrize("item", [None, 5, "x", [], {}, {"keyId": None}, {"keyId": "no guid"}, {"keyId": 7}])
def test_what_has_no_key_id_is_passed_over(item):
    assert credentials_in([item, {"keyId": KEY}]) == [Credential(KEY)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2027-01-01T01:00:00+01:00", "2027-01-01T00:00:00Z"),
        ("2027-01-01T00:00:00", "2027-01-01T00:00:00Z"),
        ("2027-01-01T00:00:00.1234567Z", "2027-01-01T00:00:00.1234567Z"),
        ("2027-01-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"),
        ("some day", "some day"),
    ],
)
def test_the_end_is_shown_in_utc(text, shown):
    assert credentials_in([{"keyId": KEY, "endDateTime": text}])[0].end_text == shown


def test_an_application_finds_its_credential_without_case():
    one = credential(KEY)
    assert application(one).credential(f" {KEY.upper()} ") is one
    assert application(one).credential("") is None


def test_a_lifetime_ends_days_later_or_is_bad_input():
    assert after(NOW, 365) - NOW == timedelta(days=365)
    with pytest.raises(BadInput, match="lifetime_days"):
        after(NOW, 4_000_000)
