# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which refused sign-ins may pass with waiting, the clouds, and the shape of an identity."""

from __future__ import annotations

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log, Secret, scrub
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra import (
    CLOUDS,
    Answer,
    Cloud,
    Entra,
    Identity,
    SignIn,
    classify,
    custom_cloud,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra_words import (
    sign_in_advice,
    sign_in_reason,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.http import Reply, Unanswered
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
        (50196, 400, "invalid_grant"),
        (50196, 401, "invalid_client"),
    ],
)
def test_what_waiting_may_change(number, status, error, with_codes):
    assert classify(reply(status, aadsts(number, error, with_codes=with_codes))) is Answer.LATER


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
    assert classify(reply(status, aadsts(number, error, with_codes=with_codes))) is Answer.NEVER


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [b"", b"<html>", {"error": "server_error"}, {"error": "temporarily_unavailable"}])
def test_an_endpoint_that_is_busy_says_nothing_about_the_secret(status, body):
    assert classify(reply(status, body)) is Answer.LATER


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", {}, {"error": ""}, {"error": None}])
def test_an_answer_without_a_reason_is_no_proof_of_anything(body):
    assert classify(reply(400, body)) is Answer.LATER


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
def test_any_answer_is_classified_and_none_says_anything_of_the_secret(status, body):
    answer = reply(status, body)
    assert classify(answer) in (Answer.LATER, Answer.NEVER)
    assert isinstance(sign_in_reason({"http_status": status, **answer.json()}), str)


class OneAnswer:
    """In place of Http: one answer, or none."""

    def __init__(self, answer: Reply | Unanswered) -> None:
        self._answer = answer
        self.calls: list[tuple] = []

    def call(self, method, url, **more):
        """Answer."""
        self.calls.append((method, url, more))
        if isinstance(self._answer, Unanswered):
            raise self._answer
        return self._answer


def sign_in(answer: Reply | Unanswered, secret: str = "a+b c&d") -> tuple[SignIn, OneAnswer]:
    http = OneAnswer(answer)
    log = Log(lambda line: None)
    entra_ = Entra(http, CLOUDS["AzureCloud"], TENANT, Budget(), log)  # type: ignore[arg-type]
    return entra_.sign_in(CLIENT_ID, Secret(secret)), http


def test_a_sign_in_is_one_request_over_a_connection_of_its_own_and_is_not_repeated():
    look, http = sign_in(reply(200, {"access_token": "x", "token_type": "Bearer"}))
    assert look == SignIn(Answer.TAKEN)
    ((method, url, more),) = http.calls
    assert (method, url) == ("POST", f"https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token")
    assert (more["fresh"], more.get("retry")) == (True, None)
    assert more["body"] == {
        "grant_type": "client_credentials",
        "client_id": CLIENT_ID,
        "client_secret": "a+b c&d",
        "scope": "https://graph.microsoft.com/.default",
    }


@pytest.mark.parametrize("with_codes", [True, False])
@pytest.mark.parametrize(
    ("number", "status", "error", "answer"),
    [
        (7000215, 401, "invalid_client", Answer.REFUSED),
        (7000222, 401, "invalid_client", Answer.REFUSED),
        (7000222, 400, "invalid_client", Answer.REFUSED),
        (7000216, 401, "invalid_client", Answer.LATER),
        (50196, 400, "invalid_grant", Answer.LATER),
        (90055, 429, "temporarily_unavailable", Answer.LATER),
        (700016, 400, "unauthorized_client", Answer.NEVER),
        (7000112, 401, "invalid_client", Answer.NEVER),
        (53003, 400, "access_denied", Answer.NEVER),
    ],
)
def test_what_a_sign_in_says(number, status, error, answer, with_codes):
    look, _http = sign_in(reply(status, aadsts(number, error, with_codes=with_codes)))
    assert (look.answer, look.wait) == (answer, None)
    assert str(number) in look.why


@pytest.mark.parametrize("status", [400, 429, 503])
@pytest.mark.parametrize(("header", "wait"), [("60", 60.0), ("2.128", 2.128), ("soon", None), ("", None)])
@pytest.mark.parametrize("number", [50196, 90055])
def test_the_wait_that_entra_asks_for_comes_along(number, header, wait, status):
    look, _http = sign_in(reply(status, aadsts(number, "temporarily_unavailable"), Retry_After=header))
    assert (look.answer, look.wait) == (Answer.LATER, wait)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [b"", b"<html>", {"error": "server_error"}])
def test_an_endpoint_that_is_busy_is_neither_yes_nor_no(status, body):
    assert sign_in(reply(status, body))[0].answer is Answer.LATER


@pytest.mark.parametrize(
    "answer",
    [
        Unanswered("no connection", sent=False),
        Unanswered("no complete answer within 20 s", sent=True),
        reply(200, b"<html>a captive portal</html>"),
        reply(200, {"token_type": "Bearer"}),
        reply(200, {"access_token": ""}),
        reply(302, b"", Location="https://proxy.example"),
        reply(204),
    ],
)
def test_no_answer_is_neither_yes_nor_no(answer):
    look, _http = sign_in(answer)
    assert look.answer is Answer.LATER
    assert look.why


def test_a_refusal_shows_nothing_of_the_secret():
    text = "Invalid client secret provided: an-unusual-value."
    look, _http = sign_in(reply(401, aadsts(7000215, "invalid_client", text)), "an-unusual-value")
    assert "an-unusual-value" not in look.why


@pytest.mark.parametrize("number", [7000215, 7000222, 700016, 7000112, 53003, 90002])
def test_the_reason_is_in_words_with_the_number(number):
    reason = sign_in_reason(aadsts(number, "invalid_client"))
    assert reason.endswith(f"(AADSTS{number})")
    assert "Trace ID" not in reason


def test_an_unknown_reason_is_entras_first_line():
    assert sign_in_reason(aadsts(4711, "invalid_client")) == "invalid_client: AADSTS4711: Some words."


def test_a_long_reason_is_cut():
    assert len(sign_in_reason(aadsts(4711, "invalid_client", "x" * 5000))) < 1200


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
    text = sign_in_advice(aadsts(number, "invalid_client"), identity)
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
