# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The policy of the options and of a record."""

from __future__ import annotations

from datetime import timedelta

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import (
    Policy,
    parse_duration,
    policy_of,
)
from core_samples import RECORD, labelled
from hypothesis import given, settings
from hypothesis import strategies as st
from rotation_samples import AT_ONCE, OTHER


def test_the_defaults_are_those_of_the_design():
    assert Policy() == Policy("always", 30, 365, 0, "all", timedelta(seconds=30), (), True, 120)


@pytest.mark.parametrize(
    "option",
    [
        {"lifetime_days": 0},
        {"lifetime_days": 36501},
        {"keep_previous": -1},
        {"keep_previous": 1001},
        {"verify_timeout": 0},
        {"verify_timeout": 901},
        {"min_days_left": -1},
        {"retire": "some"},
        {"retire": ""},
        {"rotate": "never"},
    ],
)
def test_a_policy_out_of_range_is_bad_input_that_names_the_option(option):
    with pytest.raises(BadInput, match=next(iter(option))):
        Policy(**option)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("0", AT_ONCE),
        ("0s", AT_ONCE),
        ("30s", timedelta(seconds=30)),
        (" 30S ", timedelta(seconds=30)),
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("007d", timedelta(days=7)),
        ("90d", timedelta(days=90)),
        ("2160h", timedelta(days=90)),
        ("7776000s", timedelta(days=90)),
    ],
)
def test_a_duration(text, time):
    assert parse_duration(text) == time


@pytest.mark.parametrize(
    "text",
    [
        "",
        "30",
        "1",
        "-1s",
        "1.5h",
        "12 h",
        "1w",
        "1h30m",
        "91d",
        "7776001s",
        "99999999s",
        "٣s",
        "1_0s",
        "s",
        "0x1s",
    ],
)
def test_what_is_no_duration_is_bad_input(text):
    with pytest.raises(BadInput, match="up to 90d"):
        parse_duration(text)


@settings(max_examples=100)
@given(st.text("0123456789smhd. -", max_size=9))
def test_any_text_is_a_duration_of_ninety_days_at_the_most_or_bad_input(text):
    try:
        time = parse_duration(text)
    except BadInput:
        return
    assert AT_ONCE <= time <= timedelta(days=90)


@pytest.mark.parametrize(
    ("values", "policy"),
    [
        ({}, Policy()),
        ({"lifetime_days": "90"}, Policy(lifetime_days=90)),
        ({"Lifetime Days": " 90 "}, Policy(lifetime_days=90)),
        ({"lifetime_days": 90}, Policy(lifetime_days=90)),
        ({"lifetime_days": ["730"]}, Policy(lifetime_days=730)),
        ({"keep_previous": "1", "verify_timeout": "300"}, Policy(keep_previous=1, verify_timeout=300)),
        ({"retire": "Managed"}, Policy(retire="managed")),
        ({"retire_after": "7d"}, Policy(retire_after=timedelta(days=7))),
        ({"Retire after": "0"}, Policy(retire_after=AT_ONCE)),
        ({"retire_after": 0}, Policy(retire_after=AT_ONCE)),
        ({"adopt": OTHER}, Policy(adopt=(OTHER,))),
        ({"adopt": f" {OTHER}, {RECORD};{OTHER}\n"}, Policy(adopt=(OTHER, RECORD, OTHER))),
        ({"verify": "No"}, Policy(verify=False)),
        ({"verify": "0"}, Policy(verify=False)),
        ({"verify": False}, Policy(verify=False)),
        ({"verify": "TRUE"}, Policy()),
        ({"lifetime_days": "", "keep_previous": " ", "retire": [], "verify": None, "verify_timeout": [""]}, Policy()),
        ({"retire_after": " ", "adopt": ""}, Policy()),
        ({"rotate": "expiring", "min_days_left": "1"}, Policy()),
    ],
)
def test_the_policy_of_a_record(values, policy):
    assert policy_of(labelled(**values)) == policy


@pytest.mark.parametrize("name", ["lifetime_days", "keep_previous", "verify_timeout"])
@pytest.mark.parametrize("text", ["ten", "1.5", "-1", "+5", "1_0", "٣", "²", "1e2", "0x10", "365 days", "9" * 10, True])
def test_a_number_that_cannot_be_read_is_no_default(name, text):
    with pytest.raises(BadInput) as caught:
        policy_of(labelled(**{name: text}))
    assert name in caught.value.message
    assert RECORD in caught.value.message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("verify", "maybe"),
        ("verify", "2"),
        ("retire", "some"),
        ("lifetime_days", "0"),
        ("lifetime_days", "731"),
        ("verify_timeout", "9999"),
        ("retire_after", "soon"),
        ("retire_after", "30"),
        ("adopt", "a record"),
        ("adopt", OTHER + "x"),
    ],
)
def test_a_value_that_cannot_be_read_is_no_default(name, text):
    with pytest.raises(BadInput) as caught:
        policy_of(labelled(**{name: text}))
    assert name in caught.value.message
    assert RECORD in caught.value.message


def test_what_is_given_counts_and_the_records_field_is_not_looked_at():
    record = labelled(lifetime_days="never", retire_after="?", adopt="?", verify="?", retire="?", keep_previous="x")
    given_ = {
        "lifetime_days": 3650,
        "retire_after": timedelta(hours=1),
        "adopt": [OTHER],
        "verify": False,
        "retire": "none",
        "keep_previous": 2,
    }
    assert policy_of(record, **given_) == Policy(
        lifetime_days=3650,
        retire_after=timedelta(hours=1),
        adopt=(OTHER,),
        verify=False,
        retire="none",
        keep_previous=2,
    )


def test_only_a_record_is_held_to_the_lifetime_that_the_portal_allows():
    assert policy_of(labelled(), lifetime_days=731).lifetime_days == 731
    with pytest.raises(BadInput, match="730"):
        policy_of(labelled(lifetime_days="731"))


@settings(max_examples=80)
@given(
    st.dictionaries(
        st.sampled_from(["lifetime_days", "keep_previous", "verify", "retire", "retire_after", "adopt"]),
        st.text(max_size=6) | st.sampled_from([OTHER, "0", "1", "9d", "all", "none"]),
    )
)
def test_any_record_has_a_policy_or_is_bad_input(values):
    try:
        policy = policy_of(labelled(**values))
    except BadInput:
        return
    for name, text in values.items():
        plain = text.strip()
        if name == "retire_after" and plain:
            assert policy.retire_after == parse_duration(plain)
        elif name == "adopt":
            assert set(policy.adopt) == ({plain} if plain.strip(",; ") else set())
        elif plain and name != "verify":
            assert str(getattr(policy, name)).lower() == plain.lower() or getattr(policy, name) == int(plain)
