# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a connection comes about, and what is said where none does: the true reason, where, and what to do next."""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
from contextlib import suppress

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import OutOfTime
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services import connection, http
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.connection import in_turn
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.http import (
    Http,
    Unanswered,
    busy,
    retry_after,
)
from core_samples import reply
from core_servers import Hole, Keeping, Server, Silent, Tunnel, closing, make_certificate
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "CURL_CA_BUNDLE")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> str:
    """The path of a self-signed certificate for localhost with its key."""
    return make_certificate(tmp_path_factory.mktemp("tls") / "both.pem")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, certificate):
    """No proxy, the certificate is trusted, and nothing is waited for between attempts."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    monkeypatch.setattr(Budget, "pause", lambda self, seconds: None)


class Caller:
    """Makes calls, and counts the attempts by their lines in the log."""

    def __init__(self, budget: Budget | None = None) -> None:
        self.attempts: list[str] = []
        self.http = Http(budget or Budget(), Log(self.attempts.append, debug=True))

    def fails(self, url: str, **arguments) -> Unanswered:
        with pytest.raises(Unanswered) as caught:
            self.http.call("POST", url, name="a call", body="{}", **arguments)
        return caught.value


def resolving(monkeypatch, *addresses: str) -> None:
    """Let every host name have these addresses."""

    def found(host, port, *rest, **more):
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port) if family == socket.AF_INET else (address, port, 0, 0))
            for family, address in zip(families, addresses)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)


# -- what never leaves the host


def no_socks(monkeypatch, certificate, tmp_path):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:p4ssw0rd-of-it@127.0.0.1:1080")

    def missing(*arguments, **options):
        raise http.requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

    monkeypatch.setattr(http.requests.adapters, "SOCKSProxyManager", missing)


def no_file_handles(monkeypatch, certificate, tmp_path):
    def none_left(*arguments, **options):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socket", none_left)


def bundle(content: bytes | None, mode: int = 0o600):
    def shape(monkeypatch, certificate, tmp_path):
        path = tmp_path / "ca-bundle.pem"
        if content is not None:
            path.write_bytes(content)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))

    return shape


def proxy(text: str, name: str = "HTTPS_PROXY"):
    return lambda monkeypatch, certificate, tmp_path: monkeypatch.setenv(name, text)


def nothing(monkeypatch, certificate, tmp_path):
    """The address itself is at fault."""


URL = "https://localhost:1/"
LOCAL = {
    "SOCKS without support": (no_socks, URL, "SOCKS", "requests[socks]"),
    "a proxy that is no address": (proxy("http://[::1:3128"), URL, "HTTPS_PROXY", "HTTPS_PROXY"),
    "a proxy with a bad port": (proxy("http://p4ssw0rd-of-it:x@h:port"), URL, "HTTPS_PROXY", "HTTPS_PROXY"),
    "a proxy without a host": (proxy("http://", "https_proxy"), URL, "https_proxy", "https_proxy"),
    "a proxy of another kind": (proxy("ftp://127.0.0.1:21", "ALL_PROXY"), URL, "ALL_PROXY", "ALL_PROXY"),
    "a CA bundle that is missing": (bundle(None), URL, "ca-bundle.pem (REQUESTS_CA_BUNDLE)", "REQUESTS_CA_BUNDLE"),
    "a CA bundle that is empty": (bundle(b""), URL, "ca-bundle.pem (REQUESTS_CA_BUNDLE)", "PEM"),
    "a CA bundle that is no PEM": (bundle(b"\x30\x82\x01"), URL, "ca-bundle.pem (REQUESTS_CA_BUNDLE)", "PEM"),
    "a host name with a space": (nothing, "https://keeper security.com/api", "the address of the service", "host name"),
    "a host name that is too long": (
        nothing,
        f"https://{'a' * 70}.example/",
        "the address of the service",
        "host name",
    ),
    "an empty label": (nothing, "https://keeper..com/", "the address of the service", "host name"),
    "no file handle left": (no_file_handles, "https://127.0.0.1:1/", "Too many open files", "LimitNOFILE"),
}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("case", LOCAL)
def test_what_never_leaves_the_host_is_said_once_and_was_not_sent(monkeypatch, certificate, tmp_path, case, fresh):
    shape, url, why, todo = LOCAL[case]
    shape(monkeypatch, certificate, tmp_path)
    caller = Caller()
    problem = caller.fails(url, retry=busy, fresh=fresh)
    assert problem.sent is False
    assert why in str(problem)
    assert todo in problem.todo
    assert len(caller.attempts) == 1
    assert "p4ssw0rd" not in str(problem) + problem.todo


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_ca_bundle_that_may_not_be_read(monkeypatch, certificate, tmp_path):
    path = tmp_path / "ca-bundle.pem"
    path.write_bytes(b"")
    path.chmod(0)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    assert "Permission denied" in str(Caller().fails(URL))


def test_a_folder_may_be_the_bundle(monkeypatch, certificate, tmp_path):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    with closing(Keeping(certificate)) as (server,):
        assert "not trusted" in str(Caller().fails(server.url))


def test_no_file_handle_left_for_real(certificate):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    caller = Caller()
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        problem = caller.fails("https://127.0.0.1:1/")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    # The bundle of certificates is the first file that cannot be opened.
    assert problem.sent is False
    assert "Too many open files" in str(problem)
    assert len(caller.attempts) == 1


@pytest.mark.parametrize(
    ("status", "attempts"), [(b"407 Proxy Authentication Required", 1), (b"403 Forbidden", 1), (b"503 Busy", 3)]
)
def test_what_a_proxy_refuses_names_the_proxy(monkeypatch, status, attempts):
    with closing(Tunnel(status)) as (tunnel,):
        monkeypatch.setenv("HTTPS_PROXY", tunnel.url)
        caller = Caller()
        problem = caller.fails("https://graph.example/")
    assert problem.sent is False
    assert status.decode() in str(problem)
    assert "the proxy 127.0.0.1:" in str(problem)
    assert "graph.example" in str(problem)
    assert "proxy" in problem.todo
    assert len(caller.attempts) == attempts


def test_a_server_that_speaks_no_tls_was_not_sent_anything():
    with closing(Server(answer=b"HTTP/1.1 400 Bad Request\r\n\r\n")) as (server,):
        problem = Caller().fails(f"https://localhost:{server.port}/")
    assert problem.sent is False
    assert "TLS" in str(problem)
    assert "localhost" in str(problem)


# -- redirections of a server are nothing that is followed, whatever they say


@pytest.mark.parametrize("location", [b"https://[", b"http://a b/", b"//", b"\xff", b"x:\x7f"])
def test_a_redirection_that_is_no_address_does_no_harm(location):
    answer = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\nLocation: " + location + b"\r\n\r\n"
    with closing(Server(answer=answer)) as (server,):
        found = Caller().http.call("GET", f"http://127.0.0.1:{server.port}/", name="x")
    assert found.status == 302
    assert "127.0.0.1" in found.between()


@pytest.mark.parametrize(
    ("status", "headers", "body", "words"),
    [
        (302, {"Location": "https://portal.example/login?user=x"}, b"", ["redirect", "portal.example", "302"]),
        (307, {"Location": "/login"}, b"", ["redirect", "graph.example", "307"]),
        (200, {"Content-Type": "text/html"}, b"<html><title> Sign in\nhere </title>", ["page", "'Sign in here'"]),
        (403, {"Content-Type": "text/html; charset=x"}, b"<HTML><p>Blocked", ["page", "graph.example", "403"]),
        (511, {}, b"<!DOCTYPE html>", ["page", "graph.example", "511"]),
        (204, {}, b"", ["nothing", "graph.example", "204"]),
        (200, {}, b"", ["nothing", "graph.example", "200"]),
        (200, {}, b"OK", ["no JSON", "graph.example", "200"]),
    ],
)
def test_an_answer_of_something_in_between_names_its_host(status, headers, body, words):
    answer = reply(status, body, host="graph.example", **{key.replace("-", "_"): text for key, text in headers.items()})
    assert all(word in answer.between() for word in words), answer.between()
    assert "user=x" not in answer.between()


@pytest.mark.parametrize("body", [{}, {"error": {"code": "x"}}, []])
@pytest.mark.parametrize("status", [200, 400, 403, 503])
def test_json_is_from_the_service(status, body):
    assert reply(status, body, host="graph.example").between() == ""


# -- the families of addresses are raced


def test_the_families_take_turns_and_the_first_begins():
    six, four = (socket.AF_INET6,), (socket.AF_INET,)
    assert in_turn([six, six, six, four, four], None) == [six, four, six, four, six]
    assert in_turn([four, four, six], None) == [four, six, four]
    assert in_turn([six, six], None) == [six, six]
    assert in_turn([], None) == []


def test_the_family_that_won_before_begins():
    six, four = (socket.AF_INET6,), (socket.AF_INET,)
    assert in_turn([six, six, four], socket.AF_INET) == [four, six, six]
    assert in_turn([six], socket.AF_INET) == [six]


def test_an_address_that_swallows_packets_does_no_harm(monkeypatch, certificate):
    budget = Budget()
    server = Keeping(certificate)
    with closing(server, Hole(port=server.port)), budget.phase("try it", 5):
        resolving(monkeypatch, "127.0.0.2", "127.0.0.1")
        assert Caller(budget).http.call("GET", server.url, name="x").status == 200


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
def test_ipv6_that_swallows_packets_does_no_harm_and_is_not_tried_first_again(monkeypatch, certificate):
    try:
        hole = Hole("::1")
    except OSError:
        pytest.skip("there is no IPv6 here")
    budget = Budget()
    began: list[int] = []
    begin = connection._begin
    monkeypatch.setattr(connection, "_begin", lambda address: began.append(address[0]) or begin(address))
    with closing(hole, Keeping(certificate, port=hole.port)) as (_hole, server), budget.phase("try it", 5):
        resolving(monkeypatch, "::1", "127.0.0.1")
        caller = Caller(budget)
        for _each in range(3):
            assert caller.http.call("GET", server.url, name="x", fresh=True).status == 200
    assert began[:2] == [socket.AF_INET6, socket.AF_INET]
    assert began[2:] == [socket.AF_INET, socket.AF_INET]


def test_an_address_that_refuses_is_passed_over(monkeypatch, certificate):
    with closing(Keeping(certificate)) as (server,):
        resolving(monkeypatch, "::1", "127.0.0.3", "127.0.0.1")
        assert Caller().http.call("GET", server.url, name="x").status == 200


def test_where_no_address_answers_all_are_named_with_the_real_limit(monkeypatch):
    monkeypatch.setattr(http, "CONNECT_TIMEOUT", 0.6)
    hole = Hole()
    with closing(hole, Hole("127.0.0.3", hole.port)):
        resolving(monkeypatch, "127.0.0.2", "127.0.0.3")
        problem = Caller().fails(f"https://login.example:{hole.port}/")
    assert problem.sent is False
    for word in ("login.example", "127.0.0.2", "127.0.0.3", "0.6 s"):
        assert word in str(problem)


def test_where_every_address_refuses_all_are_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    resolving(monkeypatch, "127.0.0.2", "127.0.0.1")
    problem = Caller().fails(f"https://login.example:{port}/")
    for word in ("login.example", "127.0.0.2", "127.0.0.1", "Connection refused"):
        assert word in str(problem)


def test_a_host_without_addresses_is_said_as_such(monkeypatch):
    def unknown(*arguments, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    problem = Caller().fails("https://login.example/")
    assert problem.sent is False
    assert "login.example" in str(problem)
    assert "Name or service not known" in str(problem)


def test_what_is_sent_through_a_socks_proxy_is_dated_and_not_sent_late(monkeypatch):
    class Manager:
        def __init__(self, *arguments, **options):
            raise ValueError("reached")

    monkeypatch.setattr(http.requests.adapters, "SOCKSProxyManager", Manager)
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    caller = Caller()
    before = Budget.awake()
    with pytest.raises(Unanswered):
        caller.http.call("GET", "https://graph.example/", name="x")
    assert caller.http.asked_at == float("-inf")
    monkeypatch.setattr(http.requests.adapters, "SOCKSProxyManager", lambda *arguments, **options: None)
    with pytest.raises(Exception, match="NoneType"):
        caller.http.call("GET", "https://graph.example/", name="x")
    assert before <= caller.http.asked_at <= Budget.awake()
    budget = caller.http.budget
    with budget.good_until(budget.awake()), pytest.raises(Unanswered, match="too old"):
        caller.http.call("GET", "https://graph.example/", name="x")


def test_the_race_leaves_no_socket_behind(monkeypatch, certificate):
    server = Keeping(certificate)
    with closing(server, Hole(port=server.port)):
        resolving(monkeypatch, "127.0.0.2", "127.0.0.1")
        caller = Caller()
        caller.http.call("GET", server.url, name="x", fresh=True)
        server.ended.get(timeout=20)
        before = len(os.listdir("/proc/self/fd"))
        for _each in range(3):
            caller.http.call("GET", server.url, name="x", fresh=True)
            server.ended.get(timeout=20)
        assert len(os.listdir("/proc/self/fd")) <= before


# -- one trust for all connections


def test_one_context_serves_all_connections(monkeypatch, certificate):
    made: list[ssl.SSLContext] = []
    make = connection.create_urllib3_context
    monkeypatch.setattr(connection, "create_urllib3_context", lambda: made.append(make()) or made[-1])
    connection.trust.cache_clear()
    with closing(Keeping(certificate)) as (server,):
        for _run in range(2):
            caller = Caller()
            for fresh in (False, True, True, False):
                assert caller.http.call("GET", server.url, name="x", fresh=fresh).status == 200
    assert len(made) == 1
    assert len({number for number, _request in server.requests}) == 6


# -- the end of time


def test_an_answer_that_does_not_come_names_host_address_and_limit(monkeypatch, certificate):
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.3)
    with closing(Silent(certificate)) as (server,):
        problem = Caller().fails(f"https://localhost:{server.port}/")
    assert problem.sent is True
    for word in ("localhost", "127.0.0.1", "0.3 s"):
        assert word in str(problem)


def test_the_limit_that_is_named_is_the_real_one(certificate):
    budget = Budget()
    with closing(Silent(certificate)) as (server,), budget.phase("try it", 0.7):
        problem = Caller(budget).fails(f"https://localhost:{server.port}/")
    assert "within 0." in str(problem)


def test_a_handshake_that_does_not_come_was_not_sent(monkeypatch):
    monkeypatch.setattr(http, "CONNECT_TIMEOUT", 0.3)
    with closing(Silent()) as (server,):
        problem = Caller().fails(f"https://localhost:{server.port}/")
    assert problem.sent is False
    for word in ("TLS", "localhost", "127.0.0.1", "0.3 s"):
        assert word in str(problem)


def test_the_end_of_a_phase_says_what_was_waited_for(certificate):
    budget = Budget()
    with (
        closing(Silent(certificate, drip=b"x")) as (server,),
        pytest.raises(OutOfTime) as caught,
        budget.phase("try it", 0.7),
    ):
        Caller(budget).http.call("GET", f"https://localhost:{server.port}/", name="x")
    for word in ("try it", "0.7 s", "the answer of localhost", "127.0.0.1"):
        assert word in str(caught.value)


def test_the_last_real_reason_is_kept(certificate):
    budget = Budget()
    busy_first = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    with (
        closing(Silent(certificate, drip=b"x", first=busy_first)) as (server,),
        pytest.raises(OutOfTime) as caught,
        budget.phase("try it", 0.7),
    ):
        Caller(budget).http.call("GET", f"https://localhost:{server.port}/", name="x", retry=busy)
    assert "HTTP 503" in str(caught.value)


def test_an_answer_that_memory_does_not_hold_is_no_bug(monkeypatch, certificate):
    def too_much(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(http.requests.Response, "iter_content", too_much)
    with closing(Keeping(certificate)) as (server,):
        problem = Caller().fails(server.url)
    assert problem.sent is True
    assert "memory" in str(problem)


HEADS = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 302 Found\r\n",
    b"HTTP/1.0 999 ?\r\n",
    b"HTTP/1.1 200\r\n",
    b"HTTP/9.9 200 OK\r\n",
    b"ICY 200 OK\r\n",
    b"HTTP/1.1 abc\r\n",
    b"",
)
HEADERS = st.sampled_from(
    [
        b"Content-Length: 2",
        b"Content-Length: 2, 3",
        b"Content-Length: -5",
        b"Content-Length: x",
        b"Transfer-Encoding: chunked",
        b"Content-Encoding: gzip",
        b"Content-Encoding: deflate, br",
        b"Content-Type: text/html; charset=nonsense",
        b"Location: \xff\xfe//[",
        b"Set-Cookie: a=b; Expires=never; Max-Age=x",
        b"Retry-After: NaN",
        b"Date: yesterday",
        b": no name",
        b"no colon",
        b"X: " + b"y" * 70_000,
    ]
)


@settings(max_examples=80)
@given(st.sampled_from(HEADS), st.lists(HEADERS, max_size=4), st.binary(max_size=40) | st.just(b"5\r\nabc"))
def test_whatever_is_answered_is_an_answer_or_none(head, headers, body):
    data = head + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body
    with closing(Server(answer=data)) as (server,), suppress(Unanswered):
        found = Http(Budget(), Log(lambda line: None)).call("GET", f"http://127.0.0.1:{server.port}/", name="x")
        assert isinstance(found.between(), str)
        assert isinstance(found.json(), dict)
        assert retry_after(found) is None
