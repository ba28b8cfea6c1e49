# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tokens of a host's managed identity: asked for as each service wants it, directly, and with an end."""

from __future__ import annotations

import json
import os
import threading
import types
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import Refused
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log, scrub
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services import http, managed_identity
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.credentials import Identity
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.managed_identity import ManagedIdentity
from core_samples import CLIENT_ID
from core_servers import Hole, Silent, closing
from msal import managed_identity as msal_sources
from test_core_credentials import TENANT, jwt

GRAPH = "https://graph.microsoft.us"
TOKEN = jwt(appid=CLIENT_ID, tid=TENANT)
GRANTED = {
    "access_token": TOKEN,
    "client_id": CLIENT_ID,
    "expires_in": "86399",
    "expires_on": "4102444800",
    "resource": GRAPH,
    "token_type": "Bearer",
}
VARIABLES = (
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "NO_PROXY",
    "no_proxy",
)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """No service is named, a proxy is that cannot be reached, and nothing is waited for between requests."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(Budget, "pause", lambda self, seconds: None)


class Service:
    """Gives its answers (status, body, headers) in turn, the last one again and again, and keeps what it was asked."""

    def __init__(self, answers) -> None:
        self.requests: list[tuple[str, dict, dict]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                service.requests.append(
                    (parts.path, query, {key.lower(): value for key, value in self.headers.items()})
                )
                status, body, more = answers[min(len(service.requests), len(answers)) - 1]
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {**more, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@contextmanager
def serving(*answers):
    """A service with these answers: a status and a body each, or with headers as the third."""
    service = Service([answer if len(answer) == 3 else (*answer, {}) for answer in answers])
    try:
        yield service
    finally:
        service.server.shutdown()
        service.server.server_close()


def ask(client_id: str = "", lines: list[str] | None = None, tenant: str = TENANT):
    identity = Identity(client_id, tenant, "the record CONFIG", managed=True)
    log = Log((lines if lines is not None else []).append, debug=True)
    return ManagedIdentity(identity, GRAPH, Budget(), log).token()


def refused(client_id: str = "", **more) -> Refused:
    with pytest.raises(Refused) as caught:
        ask(client_id, **more)
    return caught.value


@pytest.mark.parametrize("client_id", ["", CLIENT_ID])
def test_a_vm(monkeypatch, client_id):
    with serving((200, GRANTED)) as service:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", service.url)
        assert ask(client_id).reveal() == TOKEN
    ((path, query, headers),) = service.requests
    assert path == "/metadata/identity/oauth2/token"
    assert query == {"api-version": "2018-02-01", "resource": GRAPH, **({"client_id": client_id} if client_id else {})}
    assert headers["metadata"] == "true"
    assert "x-forwarded-for" not in headers


@pytest.mark.parametrize("client_id", ["", CLIENT_ID])
def test_app_service(monkeypatch, client_id):
    with serving((200, GRANTED)) as service:
        monkeypatch.setenv("IDENTITY_ENDPOINT", service.url + "/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "8CC1FE4A0F2E4C2C")
        assert ask(client_id).reveal() == TOKEN
    ((path, query, headers),) = service.requests
    assert path == "/msi/token"
    assert query["resource"] == GRAPH
    assert query.get("client_id", "") == client_id
    assert headers["x-identity-header"] == "8CC1FE4A0F2E4C2C"
    assert "8CC1FE4A0F2E4C2C" not in scrub("some service quotes 8CC1FE4A0F2E4C2C")


@pytest.fixture
def arc(monkeypatch, tmp_path):
    """A context with Arc's agent, whose keys are in tmp_path: the challenge, then these answers."""

    @contextmanager
    def make(*answers, challenge=f"Basic realm={managed_identity.ARC_KEYS}/7.key"):
        (tmp_path / "7.key").write_text("cGF0aGVuLWtleQ0815")
        monkeypatch.setattr(msal_sources, "_supported_arc_platforms_and_their_prefixes", {"linux": str(tmp_path)})
        monkeypatch.setattr(msal_sources.sys, "platform", "linux")
        with serving((401, {}, {"WWW-Authenticate": challenge}), *answers) as service:
            monkeypatch.setenv("IDENTITY_ENDPOINT", service.url + "/metadata/identity/oauth2/token")
            monkeypatch.setenv("IMDS_ENDPOINT", service.url)
            yield service

    return make


def test_arc(arc):
    lines: list[str] = []
    with arc((200, GRANTED)) as service:
        assert ask(lines=lines).reveal() == TOKEN
    assert [headers.get("authorization") for _path, _query, headers in service.requests] == [
        None,
        "Basic cGF0aGVuLWtleQ0815",
    ]
    assert "cGF0aGVuLWtleQ0815" not in scrub("some service quotes cGF0aGVuLWtleQ0815") + "".join(lines)


@pytest.mark.skipif(
    not hasattr(msal_sources, "_raise_if_arc_did_not_honor_user_assigned_identity"), reason="older msal"
)
def test_arc_s_user_assigned_identity_counts_only_where_the_agent_confirms_it(arc):
    with arc((200, GRANTED)):
        assert ask(CLIENT_ID).reveal() == TOKEN
    with arc((200, {**GRANTED, "client_id": "someone-else"})):
        problem = refused(CLIENT_ID)
    assert "has not confirmed" in problem.why
    assert CLIENT_ID in problem.what


def test_an_identity_that_msal_refuses_to_ask_arc_for(arc, monkeypatch):
    def refuse(*arguments, **more):
        raise msal_sources.ManagedIdentityError("only system-assigned identities")

    with arc((200, GRANTED)):
        monkeypatch.setattr(msal_sources, "_obtain_token_on_arc", refuse)
        assert "has not confirmed" in refused(CLIENT_ID).why


def test_a_vm_is_not_said_to_lack_an_identity_whose_token_is_damaged(monkeypatch):
    with serving((200, {**GRANTED, "expires_in": "soon"})) as service:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", service.url)
        assert "no readable reason" in refused(CLIENT_ID).why


def test_arc_s_key_that_this_user_may_not_read(arc, monkeypatch):
    def stat(path):
        raise PermissionError(13, "Permission denied", path)

    masked = types.SimpleNamespace(environ=os.environ, getenv=os.getenv, path=os.path, stat=stat)
    with arc((200, GRANTED)):
        monkeypatch.setattr(msal_sources, "os", masked)
        problem = refused()
    assert managed_identity.ARC_KEYS in problem.why
    assert f"group {managed_identity.ARC_GROUP}" in problem.todo


def test_arc_s_key_that_is_not_there(arc, tmp_path):
    with arc((200, GRANTED)):
        (tmp_path / "7.key").unlink()
        assert "No such file" in refused().why


@pytest.mark.parametrize("challenge", ["", "Bearer x", "Basic realm", "Basic realm=a=b"])
def test_a_challenge_that_is_none(arc, challenge):
    with arc((200, GRANTED), challenge=challenge):
        assert "HTTP 401" in refused().why


@pytest.mark.parametrize("status", [404, 408, 410, 424, 429, 500, 502, 503, 504])
def test_a_service_that_is_busy_is_asked_again(monkeypatch, status):
    lines: list[str] = []
    with serving((status, b"busy"), (status, b""), (200, GRANTED)) as service:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", service.url)
        assert ask(lines=lines).reveal() == TOKEN
    assert len(service.requests) == 3
    assert f"busy (HTTP {status})" in "".join(lines)


@pytest.mark.parametrize(
    ("status", "headers", "patience"),
    [(404, {}, 0.2), (410, {}, 0.2), (429, {}, 0.2), (503, {}, 0.2), (429, {"Retry-After": "70"}, 30.0)],
)
def test_a_service_that_stays_busy_is_given_up(monkeypatch, status, headers, patience):
    monkeypatch.setattr(managed_identity, "PATIENCE", patience)
    with serving((status, b"busy", headers)) as service:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", service.url)
        problem = refused()
    assert f"busy (HTTP {status})" in problem.why
    assert problem.todo == "run it again later"
    assert len(service.requests) == 1


def test_the_limits_are_those_that_are_documented():
    assert managed_identity.PATIENCE == 30.0
    assert http.LOCAL_TIMEOUT * http.LOCAL_ATTEMPTS < 3.0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_refused(monkeypatch, status):
    with serving((200, GRANTED)) as elsewhere, serving((status, b"", {"Location": elsewhere.url})) as service:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", service.url)
        assert f"redirects elsewhere (HTTP {status})" in refused().why
    assert len(service.requests) == 1
    assert not elsewhere.requests


def test_a_service_that_is_not_there(monkeypatch):
    with serving((200, GRANTED)) as service:
        pass
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", service.url)
    problem = refused()
    for part in ("Azure VM", service.url, "IDENTITY_ENDPOINT", managed_identity.ARC_AGENT):
        assert part in problem.why
    assert "the record CONFIG" in problem.todo
    monkeypatch.setenv("IDENTITY_ENDPOINT", service.url)
    monkeypatch.setenv("IDENTITY_HEADER", "x")
    assert "App Service is not reached" in refused().why


def test_an_address_that_swallows_everything_is_given_up_after_one_attempt(monkeypatch):
    monkeypatch.setattr(http, "LOCAL_TIMEOUT", 0.2)
    lines: list[str] = []
    with closing(Hole()) as (hole,):
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://{hole.address}:{hole.port}")
        assert "0.2 s" in refused(lines=lines).why
    assert sum("managed identity: " in line for line in lines) == 1


def test_a_service_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(managed_identity, "PATIENCE", 0.3)
    with closing(Silent()) as (silent,):
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{silent.port}")
        problem = refused()
        silent.ended.set()
    assert "not complete within" in problem.why


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": "invalid_request", "error_description": "Identity not found"}, "Identity not found"),
        ({"statusCode": 400, "message": "No User Assigned or Delegated Managed Identity found"}, "No User Assigned"),
        ({"error": "invalid_resource", "error_description": "AADSTS500011: x\r\nTrace ID: y"}, "AADSTS500011: x (HTTP"),
        ({"error": "invalid_request"}, "invalid_request"),
        ({"error": {"code": 1}}, "no readable reason"),
        ({}, "no readable reason"),
        (b"<html>", "no readable reason"),
        (b"", "no readable reason"),
        ([], "no readable reason"),
        (None, "no readable reason"),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 401, 403])
@pytest.mark.parametrize("endpoint", ["AZURE_POD_IDENTITY_AUTHORITY_HOST", "IDENTITY_ENDPOINT"])
def test_what_the_service_says_in_place_of_a_token(monkeypatch, endpoint, status, body, words):
    monkeypatch.setenv("IDENTITY_HEADER", "x")
    with serving((status, body)) as service:
        monkeypatch.setenv(endpoint, service.url)
        problem = refused()
    assert words in problem.why
    assert f"HTTP {status}" in problem.why
    assert "Trace ID" not in problem.why


@pytest.mark.parametrize(
    "body",
    [
        {**GRANTED, "expires_in": "soon"},
        {**GRANTED, "expires_in": None},
        {**GRANTED, "access_token": ""},
        {**GRANTED, "access_token": None},
    ],
)
def test_an_answer_that_is_no_grant_is_not_quoted(monkeypatch, body):
    with serving((200, body)) as service:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", service.url)
        assert TOKEN not in refused().message


def test_a_tenant_that_is_another_than_the_configuration_says(monkeypatch):
    with serving((200, GRANTED)) as service:
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", service.url)
        problem = refused(tenant=CLIENT_ID)
        assert "another tenant" in problem.what
        assert TENANT in problem.why
        assert ask(tenant="contoso.example").reveal() == TOKEN


@pytest.mark.skipif(not hasattr(msal_sources, "SERVICE_FABRIC"), reason="older msal")
def test_service_fabric_is_refused(monkeypatch):
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT"):
        monkeypatch.setenv(name, "x")
    assert "Service Fabric is not supported" in refused().why
