# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files and tokens of a host that an identity may consist of: read when needed, and never quoted."""

from __future__ import annotations

import base64
import json
import os
from datetime import datetime, timezone

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Secret, scrub
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.credentials import (
    Identity,
    certificate_at,
    claims,
    end_of,
    token_at,
    token_of,
)
from core_samples import CLIENT_ID
from hypothesis import given
from hypothesis import strategies as st

TENANT = "99dcc009-52ac-471c-9be3-d5e9585e3ce2"


def jwt(**said: object) -> str:
    """A token that says this of itself, by its looks."""
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, said)]
    encoded = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


def test_a_token_file_is_read_anew_each_time(tmp_path):
    file = tmp_path / "token"
    token = token_at(str(file))
    for number in range(2):
        file.write_text(jwt(sub=str(number)) + "\n")
        assert claims(token.fetch())["sub"] == str(number)


def test_a_token_of_the_options_is_taken_as_it_is():
    token = token_of(f" {jwt(sub='x')}\n", "the task's options")
    assert token.fetch().reveal() == jwt(sub="x")
    assert jwt(sub="x") not in repr(token)
    assert "the task's options" in token.name


SECRETS = ["", "  ", "top secret: 4711", "root:x:0:0:root:/root:/bin/bash", "a.b.c", "eyJhbGciOi.only-two", "\x00\xff"]


@pytest.mark.parametrize("content", SECRETS)
def test_what_is_no_token_is_neither_sent_nor_quoted(tmp_path, content):
    (tmp_path / "token").write_text(content)
    with pytest.raises(BadInput, match=r"token in the file .* is (no token|empty)") as caught:
        token_at(str(tmp_path / "token")).fetch()
    assert not content.strip() or content.strip() not in caught.value.message


@pytest.mark.parametrize("make", [token_at, certificate_at])
@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("absent", "No such file"),
        ("folder", "no regular file"),
        ("pipe", "no regular file"),
        ("huge", "too large"),
        ("nul\x00byte", "its name is none"),
        ("/dev/zero", "no regular file"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_reason(tmp_path, make, place, why):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(b"x" * 65537)
    made = make(str(tmp_path / place))
    with pytest.raises(BadInput, match=why) as caught:
        made.read()
    assert "may read it" in caught.value.todo


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_this_user_may_not_read(tmp_path):
    (tmp_path / "token").write_text(jwt())
    (tmp_path / "token").chmod(0)
    with pytest.raises(BadInput, match="Permission denied"):
        token_at(str(tmp_path / "token")).fetch()


def test_when_a_token_ends_by_its_own_word():
    assert end_of(Secret(jwt(exp=0))) == datetime(1970, 1, 1, tzinfo=timezone.utc)
    for said in ({}, {"exp": "soon"}, {"exp": 1e300}, {"exp": None}):
        assert end_of(Secret(jwt(**said))) is None


@given(st.text(max_size=40))
def test_any_text_as_a_token(text):
    assert isinstance(claims(Secret(text)), dict)
    assert end_of(Secret(f"eyJ.{text}.x")) is None


def test_who_signs_in_and_with_what_is_said_in_words():
    common = (CLIENT_ID, TENANT, "x")
    assert Identity("", TENANT, "x", managed=True).name == "this host's managed identity"
    assert CLIENT_ID in Identity(*common, managed=True).name
    assert "user-assigned" in Identity(*common, managed=True).name
    assert Identity(*common, secret=Secret("s")).name == f"{CLIENT_ID} (with a client secret)"
    assert "/x.pem" in Identity(*common, certificate=certificate_at("/x.pem", "open sesame")).name
    assert "/t" in Identity(*common, token=token_at("/t")).name


@pytest.mark.parametrize(("uses", "more"), [(True, {"managed": True}), (True, {"token": token_at("/t")}), (False, {})])
def test_which_identities_hand_over_something_of_the_host(uses, more):
    assert Identity(CLIENT_ID, TENANT, "x", **more).uses_host is uses


def test_what_was_entered_in_place_of_a_client_id_is_not_shown():
    Identity("it-is-a-secret-in-the-wrong-field", TENANT, "x")
    assert "wrong-field" not in scrub("signed in as it-is-a-secret-in-the-wrong-field")
