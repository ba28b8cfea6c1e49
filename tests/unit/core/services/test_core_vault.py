# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pure parts of the vault: Keeper's configuration, and a record's fields."""

from __future__ import annotations

import base64
import copy
import json
from contextlib import suppress

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import scrub
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services import vault
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.vault import (
    VaultRecord,
    parse_configuration,
)
from core_samples import reply
from hypothesis import given, settings
from hypothesis import strategies as st

CONFIG = {
    "hostname": "keepersecurity.eu",
    "clientId": "Y2xpZW50LWlk+/==",
    "privateKey": "cHJpdmF0ZS1rZXk=",
    "appKey": "YXBwLWtleQ==",
    "serverPublicKeyId": "10",
}
TEXT = json.dumps(CONFIG)
ENCODED = base64.b64encode(TEXT.encode()).decode()
VALUES = {"client_secret": "new", "client_secret_id": "key", "expires": "2027"}


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"\n {TEXT}\n",
        json.dumps(CONFIG, indent=4),
        ENCODED,
        ENCODED + "\n",
        ENCODED.rstrip("="),
        "\n".join(ENCODED[index : index + 64] for index in range(0, len(ENCODED), 64)),
        base64.urlsafe_b64encode(TEXT.encode()).decode(),
        base64.b64encode(("\ufeff" + TEXT).encode()).decode(),
    ],
    ids=["json", "spaced", "indented", "base64", "newline", "unpadded", "wrapped", "urlsafe", "bom"],
)
def test_a_configuration_is_read_in_every_form(text):
    assert parse_configuration(text, "a test") == CONFIG


@settings(max_examples=40)
@given(st.text(max_size=9), st.booleans(), st.booleans())
def test_base64_of_any_length_is_read(filler, urlsafe, padded):
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    text = encode(json.dumps({**CONFIG, "hostname": "h" + filler}, ensure_ascii=False).encode()).decode()
    assert parse_configuration(text if padded else text.rstrip("="), "a test")["hostname"] == "h" + filler


def test_keys_that_the_sdk_does_not_know_and_blank_ones_fall_away():
    odd = {**CONFIG, "comment": "x", "other": {"a": 1}, "clientKey": "", "bat": None}
    assert parse_configuration(json.dumps(odd), "a test") == CONFIG


def test_numbers_become_text():
    assert parse_configuration(json.dumps({**CONFIG, "serverPublicKeyId": 10}), "a test") == CONFIG


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("{", "neither JSON nor base64"),
        ("[]", "neither JSON nor base64"),
        ("US:ONE_TIME_TOKEN", "neither JSON nor base64"),
        ("*" * 40, "neither JSON nor base64"),
        ("é", "neither JSON nor base64"),
        (base64.b64encode(b"[1]").decode(), "neither JSON nor base64"),
        (base64.b64encode(b"\xff").decode(), "neither JSON nor base64"),
        ("{}", "clientId and privateKey and appKey"),
        (json.dumps({**CONFIG, "privateKey": ""}), "lacks privateKey: it is damaged"),
        (json.dumps({"hostname": "h", "clientKey": "t", "clientId": "c"}), "it was never initialised"),
    ],
)
def test_an_unusable_configuration_is_bad_input_that_names_its_source(text, says):
    with pytest.raises(BadInput) as caught:
        parse_configuration(text, "the variable X")
    assert says in caught.value.message
    assert "the variable X" in caught.value.message
    assert "Next: " in caught.value.message


def test_an_unusable_configuration_is_not_quoted():
    with pytest.raises(BadInput) as caught:
        parse_configuration('{"privateKey": "top-secret", ', "a test")
    assert "top-secret" not in caught.value.message


@settings(max_examples=60)
@given(st.text())
def test_any_text_is_a_configuration_or_bad_input(text):
    with suppress(BadInput):
        assert set(parse_configuration(text, "a test")) >= {"clientId", "privateKey", "appKey"}


def test_deeply_nested_json_is_bad_input():
    with pytest.raises(BadInput):
        parse_configuration('{"a":' * 100_000, "a test")


@pytest.mark.parametrize("name", ["privateKey", "appKey", "clientId"])
def test_the_keys_of_the_configuration_are_scrubbed_from_texts(name):
    unique = {**CONFIG, name: f"never-to-be-shown-{name}"}
    parsed = parse_configuration(json.dumps(unique), "a test")
    assert parsed[name] not in scrub(f"something quotes {parsed[name]}")


# -- records


def record(**data) -> VaultRecord:
    return VaultRecord("uid", "title", "pamUser", 7, True, {"title": "title", "type": "pamUser", **data}, None)


def field(label: str | None, *value, kind: str = "text") -> dict:
    return {"type": kind, "label": label, "value": list(value)}


def test_values_are_written_into_the_fields_that_are_there():
    before = record(
        fields=[{"type": "login", "value": ["x"]}],
        custom=[field("client_secret", "old", kind="secret"), field("Client Secret ID", "k"), field("Expires:")],
    )
    after = before.with_values(VALUES, ("client_secret",))
    assert {label: after.value(label) for label in VALUES} == VALUES
    assert [item["label"] for item in after.data["custom"]] == ["client_secret", "Client Secret ID", "Expires:"]
    assert after.data["fields"] == before.data["fields"]
    assert before.value("client_secret") == "old"
    assert (after.uid, after.revision, after.editable) == ("uid", 7, True)


@pytest.mark.parametrize("data", [{}, {"custom": None}, {"custom": []}, {"custom": None, "fields": None}])
def test_missing_fields_are_created_and_only_the_secret_is_hidden(data):
    after = record(**data).with_values(VALUES, ("client_secret",))
    assert after.data["custom"] == [
        {"type": "secret", "label": "client_secret", "value": ["new"]},
        {"type": "text", "label": "client_secret_id", "value": ["key"]},
        {"type": "text", "label": "expires", "value": ["2027"]},
    ]


def test_the_first_of_two_fields_with_one_label_is_read_and_written():
    after = record(custom=[field("expires", "1"), field("expires", "2")]).with_values({"expires": "3"}, ())
    assert [item["value"] for item in after.data["custom"]] == [["3"], ["2"]]
    assert after.value("expires") == "3"


@pytest.mark.parametrize(
    ("data", "tied"),
    [
        ({}, []),
        ({"custom": [field("expires", "1")]}, []),
        ({"custom": [field("expires", "1"), field("Expires", "2")]}, []),
        ({"custom": [field("expires"), field("expires", "2")]}, ["'expires' in custom fields"] * 2),
        (
            {"custom": [field("Expires"), field("EXPIRES:")]},
            ["'Expires' in custom fields", "'EXPIRES:' in custom fields"],
        ),
        (
            {"custom": [field("expires")], "fields": [field("expires"), field("other")]},
            ["'expires' in custom fields", "'expires' in fields"],
        ),
        ({"fields": [field("expires"), field("expires")], "custom": None}, ["'expires' in fields"] * 2),
    ],
)
def test_fields_that_match_equally_well_are_named_with_their_place(data, tied):
    assert record(**data).tied("expires") == tied


def test_a_secret_is_read_with_every_space_in_it():
    assert record(custom=[field("client_secret", " a b \n")]).secret("client_secret") == " a b \n"
    assert record(custom=[{"label": "client_secret", "value": "x"}]).secret("client_secret") == "x"
    assert record(custom=[field("client_secret", 5)]).secret("client_secret") == ""
    assert record().secret("client_secret") == ""


def test_an_exact_label_is_written_before_a_similar_one():
    after = record(custom=[field("Expires", "1"), field("expires", "2")]).with_values({"expires": "3"}, ())
    assert [item["value"] for item in after.data["custom"]] == [["1"], ["3"]]


def test_a_field_outside_of_custom_is_found():
    after = record(fields=[field("client_secret", "old", kind="secret")]).with_values({"client_secret": "new"}, ())
    assert after.data["fields"][0]["value"] == ["new"]
    assert not after.data.get("custom")


@pytest.mark.parametrize(
    "item", [{"label": "expires"}, {"label": "expires", "value": None}, {"label": "expires", "value": "x"}]
)
def test_a_field_without_type_or_list_is_written(item):
    after = record(custom=[item]).with_values({"expires": "3"}, ())
    assert after.data["custom"] == [{**item, "value": ["3"]}]


@pytest.mark.parametrize("kind", ["text", "secret", "multiline", "password", "note"])
def test_types_that_hold_a_text_are_usable(kind):
    assert record(custom=[field("expires", kind=kind)]).unusable("Expires") is None


@pytest.mark.parametrize("kind", ["fileRef", "date", "checkbox", "login", "url"])
def test_types_that_hold_no_text_are_named(kind):
    assert record(custom=[field("expires", kind=kind)]).unusable("expires") == kind


def test_a_missing_field_is_usable_and_empty():
    assert record().unusable("expires") is None
    assert record().value("expires") == ""


def test_the_view_shows_all_fields_by_their_types_where_labels_are_missing():
    view = record(
        fields=[{"type": "login", "value": ["x"]}, field("note", "the same"), {"value": ["?"]}],
        custom=[field("note", "the same"), {"type": "url", "label": "", "value": ["u"]}],
    ).view()
    assert (view.get("note"), view.get("login"), view.get("url")) == ("the same", "x", "u")
    assert (view.uid, view.title) == ("uid", "title")


def test_a_record_prints_no_value():
    assert "old" not in repr(record(custom=[field("client_secret", "old")]))


LABEL = st.sampled_from([*VALUES, "Client Secret", "EXPIRES", "other", "", None]) | st.text(max_size=5)
SCALAR = st.none() | st.booleans() | st.integers() | st.text(max_size=9)
FIELD = st.fixed_dictionaries(
    {},
    optional={
        "label": LABEL,
        "type": st.sampled_from(["text", "secret", "fileRef", None]),
        "value": SCALAR | st.lists(SCALAR, max_size=3) | st.lists(st.dictionaries(st.text(max_size=3), SCALAR)),
        "required": st.booleans(),
    },
)
SECTION = st.none() | st.lists(FIELD | SCALAR, max_size=6)
DATA = st.fixed_dictionaries(
    {"title": st.text(max_size=9)},
    optional={"custom": SECTION, "fields": SECTION, "notes": SCALAR, "unknown": st.dictionaries(st.text(), SCALAR)},
)


@settings(max_examples=150)
@given(DATA, st.dictionaries(st.sampled_from(list(VALUES)), st.text("abc123", min_size=1, max_size=9)))
def test_whatever_the_record_holds_only_the_values_change(data, values):
    original = copy.deepcopy(data)
    after = VaultRecord("uid", "t", "pamUser", 1, True, data, None).with_values(values, ("client_secret",))
    assert data == original
    assert {label: after.value(label) for label in values} == values
    assert list(after.data)[: len(data)] == list(data)
    written = 0
    for key, old in data.items():
        new = after.data[key]
        if key not in ("custom", "fields"):
            assert new == old
            continue
        old_items, new_items = old or [], new or []
        for before, item in zip(old_items, new_items):
            if before != item:
                written += 1
                assert {**before, "value": None} == {**item, "value": None}
        written += len(new_items) - len(old_items)
        assert all(item["label"] in values for item in new_items[len(old_items) :])
    assert written <= len(values)


# -- Keeper's answers


@pytest.mark.parametrize(
    ("answer", "throttled", "wait"),
    [
        (reply(429, {"error": "throttled"}), True, None),
        (reply(403, {"error": "throttled", "retry_after": 4}), True, 4.0),
        (reply(403, {"error": "throttled", "retry_after": "x"}), True, None),
        (reply(429, b"<html>", Retry_After="3"), True, 3.0),
        (reply(403, {"error": "access_denied", "message": "no"}), False, None),
        (reply(403, {"error": "access_denied", "result_code": "throttled"}), True, None),
        (reply(502, b"<html>"), False, None),
    ],
)
def test_throttling_is_told_from_a_refusal(answer, throttled, wait):
    problem = vault._error(answer)
    assert (problem.throttled, problem.wait) == (throttled, wait)


@pytest.mark.parametrize(
    ("attempt", "asked", "least"), [(1, None, 11.0), (2, None, 22.0), (1, 0.0, 11.0), (3, 4.0, 4.0)]
)
def test_a_throttled_call_waits_as_long_as_keeper_counts(attempt, asked, least):
    for _number in range(20):
        assert least <= vault._throttle_pause(attempt, asked) <= least * 1.1 + 1e-9


@pytest.mark.parametrize(
    ("asked", "wait"),
    [(7, 7.0), ("2.5", 2.5), (-3, 0.0), (float("nan"), None), (float("inf"), None), (10**400, None), ([], None)],
)
def test_the_pause_that_keeper_asks_for_is_a_finite_number_or_none(asked, wait):
    answer = vault._error(reply(403, {"error": "throttled", "message": "m", "retry_after": asked}))
    assert answer.throttled
    assert answer.wait == wait
