# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a network, a proxy or a host may do to a run: it ends as it should, and says what was in the way and where."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import FORMS, Result, World, run_script

from sandbox import Fault

PORTAL = {"Location": "https://portal.example:8443/login?secret=x"}
HTML = {"Content-Type": "text/html"}
PAGE = "<!DOCTYPE html><html><head><title>Sign in to the guest network</title></head></html>"


def answer(status: int, body: Any = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """A fault that replaces the answer."""
    return {"kind": "status", "status": status, "body": body, "headers": headers or {}}


def refused(world: World, result: Result, *words: str) -> None:
    """Check that nothing was changed, that it is no bug, and that the words are said."""
    assert (result.status, result.changed) == ("refused", False), result.said()
    assert world.untouched()
    assert "Next: " in result.message
    for word in words:
        assert word in result.message, result.message
    assert "a bug" not in result.said()
    assert "Traceback" not in result.said()


PASS = "Next: let what stands in between"
BETWEEN: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "Keeper redirects": ("get_secret", answer(302, None, PORTAL), ["redirects to portal.example", PASS]),
    "Keeper is a page": ("get_secret", answer(200, PAGE, HTML), ["'Sign in to the guest network'", "localhost", PASS]),
    "Keeper is filtered": ("get_secret", answer(403, PAGE, HTML), ["page", "HTTP 403", "localhost", PASS]),
    "discovery redirects": ("discovery", answer(302, None, PORTAL), ["redirects to portal.example", PASS]),
    "discovery is empty": ("discovery", answer(204), ["nothing came", "localhost", "HTTP 204", PASS]),
    "discovery is a page": ("discovery", answer(200, PAGE, HTML), ["page", "localhost", PASS]),
    "discovery is filtered": ("discovery", answer(403, PAGE, HTML), ["page", "HTTP 403", "localhost", PASS]),
    "discovery is a list": ("discovery", answer(200, "[1]"), ["token endpoint"]),
    "discovery has wrong types": (
        "discovery",
        answer(200, {"token_endpoint": 5, "authorization_endpoint": [], "issuer": {}}),
        ["token endpoint"],
    ),
    "discovery has no scheme": ("discovery", answer(200, {"token_endpoint": "//[", "issuer": 1}), ["token endpoint"]),
    "the sign-in redirects": ("token", answer(302, None, PORTAL), ["redirects to portal.example", PASS]),
    "the sign-in is a page": ("token", answer(200, PAGE, HTML), ["page", "localhost", PASS]),
    "the sign-in is filtered": ("token", answer(403, PAGE, HTML), ["page", "HTTP 403", PASS]),
    "the sign-in has wrong types": ("token", answer(200, {"access_token": {}, "expires_in": "soon"}), []),
    "Graph redirects": ("get_application", answer(302, None, PORTAL), ["redirects to portal.example", PASS]),
    "Graph is a page": ("get_application", answer(200, PAGE, HTML), ["page", "localhost", PASS]),
    "Graph is filtered": ("get_application", answer(403, PAGE, HTML), ["page", "HTTP 403", PASS]),
    "Graph's page is not found": ("get_application", answer(404, PAGE, HTML), ["page", "HTTP 404", PASS]),
    "Graph asks who we are": ("get_application", answer(401, PAGE, HTML), ["page", "HTTP 401", PASS]),
}


@pytest.mark.parametrize("case", BETWEEN)
def test_what_stands_in_between(world: World, case: str) -> None:
    op, fault, words = BETWEEN[case]
    world.sandbox.faults.add(Fault(op, times=None, **fault))
    refused(world, run_script(world, "--debug"), *words)


def test_the_module_says_it_too(world: World) -> None:
    world.sandbox.faults.add(Fault("discovery", times=None, **answer(302, None, PORTAL)))
    refused(world, FORMS["module"](world), "redirects to portal.example", PASS)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_the_secret_goes_to_the_authority_alone(world: World, scheme: str) -> None:
    """Whatever discovery names: here a listener beside it, which is asked nothing."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0)
        endpoint = f"{scheme}://localhost:{other.getsockname()[1]}/tenant/oauth2/v2.0/token"
        body = {"token_endpoint": endpoint, "authorization_endpoint": endpoint, "issuer": endpoint}
        world.sandbox.faults.add(Fault("discovery", times=None, **answer(200, body)))
        refused(world, run_script(world), "token endpoint")
        with pytest.raises(BlockingIOError):
            other.accept()


# -- what the host itself lacks

LOCAL: dict[str, tuple[dict[str, str], list[str]]] = {
    "a proxy that is no address": ({"HTTPS_PROXY": "http://u:p4ssw0rd@[::1:1"}, ["HTTPS_PROXY"]),
    "a proxy of another kind": ({"HTTPS_PROXY": "gopher://127.0.0.1:1"}, ["HTTPS_PROXY"]),
    "a SOCKS proxy without support": ({"ALL_PROXY": "socks5h://u:p4ssw0rd@127.0.0.1:1"}, ["SOCKS", "requests[socks]"]),
    "an empty CA bundle": ({"REQUESTS_CA_BUNDLE": "/dev/null"}, ["/dev/null (REQUESTS_CA_BUNDLE)", "PEM"]),
    "a CA bundle that is missing": ({"REQUESTS_CA_BUNDLE": "/nonexistent.pem"}, ["/nonexistent.pem", "No such file"]),
}


@pytest.mark.parametrize("case", LOCAL)
def test_what_never_leaves_the_host(world: World, tmp_path: Path, case: str) -> None:
    environ, words = LOCAL[case]
    (tmp_path / "socks.py").write_text("raise ImportError('no PySocks here')\n")
    result = run_script(world, environ={"PYTHONPATH": str(tmp_path), "NO_PROXY": None, "no_proxy": None, **environ})
    refused(world, result, *words)
    assert "p4ssw0rd" not in result.said()


def test_a_host_name_with_a_space(world: World) -> None:
    config = {**world.sandbox.client_config(), "hostname": "keeper security.example"}
    refused(world, run_script(world, environ={"GATEWAY_CONFIG": json.dumps(config)}), "host name")


# -- addresses that swallow what is sent to them

FOUR = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
#: Four addresses of one family that swallow, before the one of the other that answers, as with a dead IPv6.
RESOLVER = """
import socket

def found(host, port, *rest, original=socket.getaddrinfo, **more):
    if host != "localhost":
        return original(host, port, *rest, **more)
    dead = [(socket.AF_INET6, 1, 6, "", ("::ffff:" + each, port, 0, 0)) for each in FOUR]
    return dead + [(socket.AF_INET, 1, 6, "", (LIVE, port))]

socket.getaddrinfo = found
"""


@contextmanager
def swallowing(world: World, folder: Path, live: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """Every host has four addresses that take no connection and refuse none, and then ``live``."""
    text = RESOLVER.replace("FOUR", repr(FOUR)).replace("LIVE", repr(live))
    (folder / "sitecustomize.py").write_text(text)
    sandbox = world.sandbox
    hosts = (sandbox.keeper_host, sandbox.authority, sandbox.graph_url)
    with ExitStack() as stack:
        for address, host in itertools.product(FOUR, hosts):
            place = (address, int(host.rpartition(":")[2]))
            stack.enter_context(socket.create_server(place, backlog=0))
            stack.enter_context(socket.create_connection(place))
        yield {"PYTHONPATH": str(folder)}


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python knows no IPv6")
def test_ipv6_that_swallows_packets_does_no_harm(world: World, tmp_path: Path) -> None:
    with swallowing(world, tmp_path) as environ:
        result = run_script(world, environ=environ)
    assert result.returncode == 0, result.stderr
    assert world.agrees()
