# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The HTTP policy: how long to wait, what to repeat, and whether a request was certainly not sent."""

from __future__ import annotations

import datetime
import os
import random
import socket
import time
from email.utils import format_datetime

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import OutOfTime
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services import http
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.http import (
    Http,
    Pace,
    Unanswered,
    busy,
    pause_before,
    retry_after,
)
from core_samples import NOW, reply
from core_servers import Keeping, Server, Tunnel, closing, make_certificate
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2.128", 2.128),
        ("0", 0.0),
        (" 10 ", 10.0),
        ("-5", 0.0),
        ("-inf", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("", None),
        ("soon", None),
        ("2 s", None),
        ("Mon, 99 Foo 2026", None),
    ],
)
def test_retry_after_in_seconds(text, seconds):
    assert retry_after(reply(429, Retry_After=text)) == seconds


@pytest.mark.parametrize("ahead", [0, 1, 90])
def test_retry_after_as_a_date(ahead):
    date = format_datetime(NOW + datetime.timedelta(seconds=ahead), usegmt=True)
    assert retry_after(reply(429, Retry_After=date), NOW.timestamp()) == ahead


def test_retry_after_as_a_date_that_has_passed_is_now():
    date = format_datetime(NOW - datetime.timedelta(days=1), usegmt=True)
    assert retry_after(reply(429, Retry_After=date), NOW.timestamp()) == 0.0


def test_no_retry_after():
    assert retry_after(reply(429)) is None


@settings(max_examples=100)
@given(st.text() | st.text("0123456789.eE+-infa :,JanMonGMT", max_size=30) | st.floats().map(str))
def test_any_retry_after_is_a_finite_pause_or_none(text):
    seconds = retry_after(reply(429, Retry_After=text), 0.0)
    assert seconds is None or 0.0 <= seconds < float("inf")


@pytest.mark.parametrize(("attempt", "middle"), [(2, 0.5), (3, 1.0), (4, 2.0), (5, 4.0), (6, 8.0), (7, 8.0), (40, 8.0)])
def test_pauses_double_up_to_a_limit_and_differ(attempt, middle):
    random.seed(4711)
    pauses = [pause_before(attempt) for _number in range(50)]
    assert middle * 0.75 <= min(pauses) < max(pauses) <= middle * 1.25


def test_a_pause_that_was_asked_for_is_kept_and_never_shortened():
    pauses = [pause_before(2, 2.5) for _number in range(50)]
    assert 2.5 <= min(pauses) < max(pauses) <= 2.75
    assert pause_before(2, 0.0) <= 0.25


@pytest.mark.parametrize("status", [408, 424, 429, 500, 502, 503, 504, 599])
def test_busy_answers(status):
    assert busy(reply(status))


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 403, 404, 409])
def test_answers_that_stay(status):
    assert not busy(reply(status))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"5", b"null", b"\xff", b'{"a"', b'"x"'])
def test_a_body_that_is_no_object_is_an_empty_one(body):
    assert reply(200, body).json() == {}
    assert isinstance(reply(200, body).text, str)


def test_a_body_is_read():
    assert reply(200, {"a": "ä"}).json() == {"a": "ä"}
    assert reply(418).status_code == 418


def test_a_deeply_nested_body_is_an_empty_object():
    assert reply(200, b'{"a":' * 100_000).json() == {}


# -- real connections


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    """The path of a self-signed certificate for localhost with its key."""
    return make_certificate(tmp_path_factory.mktemp("tls") / "both.pem")


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Repeat without waiting."""
    monkeypatch.setattr(Budget, "pause", lambda self, seconds: None)


def unanswered(url: str, **arguments) -> Unanswered:
    with pytest.raises(Unanswered) as caught:
        Http(Budget(), Log(lambda line: None)).call("POST", url, name="a call", body="{}", **arguments)
    return caught.value


def test_a_refused_connection_was_not_sent():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    problem = unanswered(f"https://127.0.0.1:{port}/")
    assert problem.sent is False
    assert "Connection refused" in str(problem)


def test_an_unknown_host_was_not_sent():
    assert unanswered("https://no-such-host.invalid/").sent is False


def test_a_certificate_that_is_not_trusted_was_not_sent(certificate, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    with closing(Server(certificate)) as (server,):
        problem = unanswered(f"https://localhost:{server.port}/")
    assert problem.sent is False
    assert "not trusted" in str(problem)
    assert "not trusted" in str(problem)
    assert server.requests == []


def test_a_certificate_of_another_host_was_not_sent(certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    monkeypatch.setattr(socket, "getaddrinfo", _everything_is_here(socket.getaddrinfo))
    with closing(Server(certificate)) as (server,):
        problem = unanswered(f"https://elsewhere.example:{server.port}/")
    assert problem.sent is False
    assert server.requests == []


def _everything_is_here(original):
    return lambda host, *rest, **more: original("127.0.0.1", *rest, **more)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", b"HTTP/1.1 2"])
def test_an_answer_that_breaks_off_may_have_taken_effect_and_is_not_repeated(certificate, monkeypatch, answer):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    with closing(Server(certificate, answer)) as (server,):
        problem = unanswered(f"https://localhost:{server.port}/")
    assert problem.sent is True
    assert len(server.requests) == 1


def test_a_call_that_is_safe_to_repeat_is_repeated(certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    with closing(Server(certificate)) as (server,):
        unanswered(f"https://localhost:{server.port}/", retry=busy)
    assert len(server.requests) == http.ATTEMPTS


@pytest.mark.parametrize(("retry", "requests"), [(None, 1), (busy, http.ATTEMPTS)])
def test_a_busy_answer_is_returned_in_the_end(retry, requests):
    answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    with closing(Server(answer=answer)) as (server,):
        call = Http(Budget(), Log(lambda line: None)).call
        assert call("POST", f"http://127.0.0.1:{server.port}/", name="a call", body="{}", retry=retry).status == 503
    assert len(server.requests) == requests


def test_a_redirection_is_not_followed_and_no_netrc_is_read(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    answer = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with closing(Server(answer=answer)) as (server,):
        call = Http(Budget(), Log(lambda line: None)).call
        reply_ = call("GET", f"http://127.0.0.1:{server.port}/", name="x", headers={"Authorization": "Bearer t"})
    assert reply_.status == 302
    (request,) = server.requests
    assert b"Authorization: Bearer t\r\n" in request


def through(monkeypatch, certificate: str, proxy: str) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)


def test_what_a_proxy_refuses_was_not_sent(certificate, monkeypatch):
    with closing(Server(certificate), Tunnel(b"407 Proxy Authentication Required")) as (server, tunnel):
        through(monkeypatch, certificate, tunnel.url)
        assert unanswered(f"https://localhost:{server.port}/").sent is False
    assert server.requests == []


def test_without_its_proxy_nothing_was_sent(certificate, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # a port that is taken, and where nobody listens
        through(monkeypatch, certificate, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        assert unanswered("https://localhost:1/").sent is False


def test_an_answer_lost_behind_a_proxy_may_have_taken_effect_and_is_not_repeated(certificate, monkeypatch):
    with closing(Server(certificate), Tunnel()) as (server, tunnel):
        through(monkeypatch, certificate, tunnel.url)
        problem = unanswered(f"https://localhost:{server.port}/")
    assert server.requests
    assert problem.sent is True
    assert len(server.requests) == 1


def test_a_missing_ca_bundle_is_told_as_such(monkeypatch, tmp_path):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.fspath(tmp_path / "missing.pem"))
    assert "missing.pem" in str(unanswered("https://127.0.0.1:1/"))


def test_no_call_is_begun_after_the_end_of_a_phase():
    budget = Budget()
    caller = Http(budget, Log(lambda line: None))
    with closing(Server()) as (server,), pytest.raises(OutOfTime), budget.phase("too late", 0.0):
        caller.call("GET", f"http://127.0.0.1:{server.port}/", name="x")
    assert server.requests == []


def test_nothing_is_sent_after_what_it_goes_by_is_too_old():
    budget = Budget()
    caller = Http(budget, Log(lambda line: None))
    with closing(Server()) as (server,):
        with pytest.raises(Unanswered) as caught, budget.good_until(budget.awake()):
            caller.call("POST", f"http://127.0.0.1:{server.port}/", name="x", retry=busy)
        with pytest.raises(Unanswered):
            caller.call("POST", f"http://127.0.0.1:{server.port}/", name="x")
    assert caught.value.sent is False
    assert len(server.requests) == 1


@pytest.mark.parametrize(("wait", "requests"), [(b"2", http.ATTEMPTS), (b"12", 1)])
def test_nothing_is_sent_again_after_that(wait, requests):
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}" % wait
    budget = Budget()
    with closing(Server(answer=answer)) as (server,), budget.good_until(budget.awake() + 10.0):
        url = f"http://127.0.0.1:{server.port}/"
        assert Http(budget, Log(lambda line: None)).call("POST", url, name="x", retry=busy).status == 503
    assert len(server.requests) == requests


def test_nothing_is_sent_late_after_a_slow_connection(certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    original = socket.getaddrinfo

    def slowly(*arguments, **more):
        time.sleep(0.5)
        return original(*arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    budget = Budget()
    with closing(Server(certificate, slow_handshake=0.5)) as (server,):
        caller = Http(budget, Log(lambda line: None))
        with budget.good_until(budget.awake() + 0.8), pytest.raises(Unanswered) as caught:
            caller.call("POST", f"https://localhost:{server.port}/", name="x", retry=busy)
    assert caught.value.sent is False
    assert server.requests == []


def test_what_is_asked_is_as_old_as_the_question(certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    with closing(Server(certificate, answer, slow_answer=0.3)) as (server,):
        caller = Http(Budget(), Log(lambda line: None))
        before = Budget.awake()
        caller.call("GET", f"https://localhost:{server.port}/", name="x")
        assert before <= caller.asked_at <= Budget.awake() - 0.3


class Closing(Pace):
    """Lets one request through and closes the server before the next one."""

    def __init__(self, server: Server) -> None:
        self._server, self._calls = server, 0

    def wait(self, method: str, url: str, budget: Budget) -> None:
        self._calls += 1
        if self._calls == 2:
            self._server.socket.shutdown(socket.SHUT_RDWR)


def test_what_was_sent_once_may_have_taken_effect_whatever_its_repetition_meets(certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    with closing(Server(certificate)) as (server,):
        caller = Http(Budget(), Log(lambda line: None), pace=Closing(server))
        with pytest.raises(Unanswered) as caught:
            caller.call("POST", f"https://localhost:{server.port}/", name="x", retry=busy)
    assert len(server.requests) == 1
    assert caught.value.sent is True


def test_a_fresh_call_has_a_connection_of_its_own(certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    with closing(Keeping(certificate)) as (server,):
        caller = Http(Budget(), Log(lambda line: None))
        for fresh in (False, False, True, True, False):
            assert caller.call("GET", server.url, name="x", fresh=fresh).status == 200
        assert {server.ended.get(timeout=20) for _each in range(2)} == {2, 3}
    assert [number for number, _request in server.requests] == [1, 1, 2, 3, 1]


def test_no_cookie_is_kept_or_sent(certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    with closing(Keeping(certificate)) as (server,):
        caller = Http(Budget(), Log(lambda line: None))
        for fresh in (False, True, False, True):
            caller.call("GET", server.url, name="x", fresh=fresh)
    assert len(server.requests) == 4
    assert not [request for _number, request in server.requests if b"cookie" in request.lower()]
