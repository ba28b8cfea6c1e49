# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which refused sign-ins may pass with waiting, the clouds, and the shape of an identity."""

from __future__ import annotations

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Secret, scrub
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services import entra
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra import (
    CLOUDS,
    Cloud,
    Identity,
    Proof,
    classify,
    custom_cloud,
)
from core_samples import CLIENT_ID, reply
from hypothesis import given, settings
from hypothesis import strategies as st

TENANT = "99dcc009-52ac-471c-9be3-d5e9585e3ce2"


def aadsts(number: int, error: str, text: str = "Some words.", with_codes: bool = True) -> dict:
    """A body as the token endpoint writes it (facts/graph.md, section 6)."""
    body = {
        "error": error,
        "error_description": f"AADSTS{number}: {text}\r\nTrace ID: 1\r\nCorrelation ID: 2\r\nTimestamp: 3",
        "timestamp": "2026-06-15 12:00:00Z",
        "trace_id": "1",
        "correlation_id": "2",
    }
    return {**body, "error_codes": [number]} if with_codes else body


@pytest.mark.parametrize("with_codes", [True, False])
@pytest.mark.parametrize(
    ("number", "status", "error"),
    [
        (7000215, 401, "invalid_client"),
        (7000222, 401, "invalid_client"),
        (90055, 429, "temporarily_unavailable"),
        (90006, 503, "temporarily_unavailable"),
        (90024, 503, "temporarily_unavailable"),
        (90033, 400, "temporarily_unavailable"),
        (90012, 503, "temporarily_unavailable"),
        (90090, 503, "temporarily_unavailable"),
    ],
)
def test_what_waiting_may_change(number, status, error, with_codes):
    assert classify(reply(status, aadsts(number, error, with_codes=with_codes))) is Proof.NOT_YET


@pytest.mark.parametrize("with_codes", [True, False])
@pytest.mark.parametrize(
    ("number", "status", "error"),
    [
        (700016, 400, "unauthorized_client"),
        (90002, 400, "invalid_request"),
        (90002, 400, "invalid_tenant"),
        (7000112, 400, "unauthorized_client"),
        (7000112, 401, "unauthorized_client"),
        (7000112, 401, "invalid_client"),
        (7000229, 400, "unauthorized_client"),
        (53003, 400, "access_denied"),
        (53003, 401, "invalid_client"),
        (500011, 400, "invalid_resource"),
        (70011, 400, "invalid_scope"),
        (90038, 400, "invalid_request"),
        (900382, 400, "invalid_request"),
    ],
)
def test_what_waiting_cannot_change(number, status, error, with_codes):
    assert classify(reply(status, aadsts(number, error, with_codes=with_codes))) is Proof.NEVER


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [b"", b"<html>", {"error": "server_error"}, {"error": "temporarily_unavailable"}])
def test_an_endpoint_that_is_busy_says_nothing_about_the_secret(status, body):
    assert classify(reply(status, body)) is Proof.NOT_YET


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", {}, {"error": ""}, {"error": None}])
def test_an_answer_without_a_reason_is_no_proof_of_anything(body):
    assert classify(reply(400, body)) is Proof.NOT_YET


@settings(max_examples=100)
@given(
    st.integers(200, 599),
    st.dictionaries(
        st.sampled_from(["error", "error_codes", "error_description", "other"]),
        st.none()
        | st.text(max_size=9)
        | st.integers()
        | st.lists(st.integers() | st.text(max_size=3) | st.none(), max_size=3)
        | st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    ),
)
def test_any_answer_is_classified_and_none_proves_the_secret(status, body):
    answer = reply(status, body)
    assert classify(answer) in (Proof.NOT_YET, Proof.NEVER)
    assert isinstance(entra._reason({"http_status": status, **answer.json()}), str)


@pytest.mark.parametrize("number", [7000215, 7000222, 700016, 7000112, 53003, 90002])
def test_the_reason_is_in_words_with_the_number(number):
    reason = entra._reason(aadsts(number, "invalid_client"))
    assert reason.endswith(f"(AADSTS{number})")
    assert "Trace ID" not in reason


def test_an_unknown_reason_is_entras_first_line():
    assert entra._reason(aadsts(4711, "invalid_client")) == "invalid_client: AADSTS4711: Some words."


def test_a_long_reason_is_cut():
    assert len(entra._reason(aadsts(4711, "invalid_client", "x" * 5000))) < 400


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (7000215, "current secret's value into the record"),
        (7000222, "by hand"),
        (700016, "client id and the tenant id"),
        (90002, "tenant id"),
        (4711, "check the record"),
    ],
)
def test_the_advice_names_the_source(number, advice):
    identity = Identity(CLIENT_ID, TENANT, "the record 'rotator' (UID)")
    text = entra._advice(aadsts(number, "invalid_client"), identity)
    assert advice in text
    assert "UID" in text


# -- clouds


def test_the_clouds_of_the_facts():
    assert {name: (cloud.authority, cloud.graph) for name, cloud in CLOUDS.items()} == {
        "AzureCloud": ("https://login.microsoftonline.com", "https://graph.microsoft.com"),
        "AzureUSGovernment": ("https://login.microsoftonline.us", "https://graph.microsoft.us"),
        "AzureChinaCloud": ("https://login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn"),
    }


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("spelling", ["{}", "{}/", " {} ", "{}/common/"])
@pytest.mark.parametrize("scheme", ["", "https://", "HTTPS://"])
def test_a_known_authority_brings_its_graph_along(name, spelling, scheme):
    host = CLOUDS[name].authority[len("https://") :]
    assert custom_cloud(scheme + spelling.format(host).strip(), "", "x") == CLOUDS[name]
    assert custom_cloud(spelling.format(host.upper()), "", "x") == CLOUDS[name]


@pytest.mark.parametrize("authority", ["localhost:8443", "https://localhost:8443/", " https://LOCALHOST:8443/x "])
@pytest.mark.parametrize("graph", ["localhost:9443", "https://localhost:9443/v1.0"])
def test_a_pair_of_endpoints(authority, graph):
    assert custom_cloud(authority, graph, "x") == Cloud("https://localhost:8443", "https://localhost:9443")


def test_a_known_authority_with_another_graph():
    cloud = custom_cloud("login.microsoftonline.us", "dod-graph.microsoft.us", "x")
    assert cloud == Cloud("https://login.microsoftonline.us", "https://dod-graph.microsoft.us")


def test_an_unknown_authority_needs_its_graph():
    with pytest.raises(BadInput, match="no Graph endpoint"):
        custom_cloud("login.example", "", "the record X")


BAD_HOSTS = [
    "http://login.example",
    "ftp://login.example",
    "https://",
    "https:///path",
    "https://user:password@login.example",
    "login.example:99999",
    "login.example:port",
    "login.example:0",
    "login example",
    "login.example\nx",
]


@pytest.mark.parametrize("text", BAD_HOSTS)
def test_what_is_no_https_address_is_bad_input(text):
    with pytest.raises(BadInput, match="the record X"):
        custom_cloud(text, "graph.example", "the record X")
    with pytest.raises(BadInput, match="the record X"):
        custom_cloud("login.example", text, "the record X")


@pytest.mark.parametrize("text", ["https://[", "https://[::1", "login.example\u2100", "https://]x"])
def test_what_is_no_address_at_all_is_bad_input(text):
    with pytest.raises(BadInput):
        custom_cloud(text, "graph.example", "the record X")


@settings(max_examples=100)
@given(st.text("abcXYZ019.-:/@ ?#\\%_", max_size=30))
def test_an_endpoint_is_an_https_root_or_bad_input(text):
    try:
        root = custom_cloud(text, "graph.example", "x").authority
    except BadInput:
        return
    assert root.startswith("https://")
    assert not set("/@ \\?#") & set(root[len("https://") :]) - {"\\"}


# -- identities


@pytest.mark.parametrize("tenant", [TENANT, TENANT.upper(), "contoso.onmicrosoft.com", "contoso.example"])
def test_a_tenant_is_an_id_or_a_domain(tenant):
    assert Identity(CLIENT_ID, tenant, "x").tenant_id == tenant


@pytest.mark.parametrize(
    "tenant", ["", " ", "a/b", "../x", "contoso.com/", "a b", "a?b", "a#b", "a@b", "-x", ".x", "tenant\n", "a%2fb"]
)
def test_what_would_change_the_url_is_no_tenant(tenant):
    with pytest.raises(BadInput, match="the record X"):
        Identity(CLIENT_ID, tenant, "the record X")


@pytest.mark.parametrize("client_id", ["Zq8~[6g]@+:.a-secret", CLIENT_ID + "x"])
def test_a_client_id_that_is_none_is_not_shown(client_id):
    # Who pastes the secret into the wrong field shall not find it in the log.
    Identity(client_id, TENANT, "the record X", secret=Secret("a-secret-value"))
    assert client_id not in scrub(f"signed in as {client_id} from the record X")


def test_a_tenant_id_that_is_none_is_not_shown():
    with pytest.raises(BadInput) as caught:
        Identity(CLIENT_ID, "Zq8~[6g]@+:.a-secret", "the record X")
    assert "Zq8" not in caught.value.message
