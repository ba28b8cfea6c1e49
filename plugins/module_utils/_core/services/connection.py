# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections of requests and urllib3: one trust for all, families of addresses raced, and the truth where none comes.

urllib3 tries the addresses of a host one after the other, each until its timeout: a host whose IPv6 swallows packets
would take all the time there is.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from ..base.timing import Budget
from ..base.version import VERSION

try:
    from requests import Session as Base
    from requests.adapters import HTTPAdapter
    from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.exceptions import HTTPError
    from urllib3.util.ssl_ import create_urllib3_context
except ImportError as _problem:
    REQUESTS_PROBLEM = str(_problem)
    if not TYPE_CHECKING:  # the classes below are made all the same, but no objects of them
        HTTPAdapter = HTTPConnection = HTTPSConnection = HTTPConnectionPool = HTTPSConnectionPool = Base = object
else:
    REQUESTS_PROBLEM = ""

# What to do where a service is not reached at all.
TOO_OLD = "what it goes by was too old before it could be sent"
REACH = "check the network and the proxy; for a proxy with a CA of its own, set REQUESTS_CA_BUNDLE to the PEM file"
HOST = "correct the host name in the configuration that names it"
_NO_HOST = "the address of the service holds no valid host name"
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY")
# The "Connection Attempt Delay" of https://www.rfc-editor.org/rfc/rfc8305#section-5, seconds.
_HEAD_START = 0.25
_NAME = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+(?:%\w+)?")
_NO_HANDLES = (errno.EMFILE, errno.ENFILE)


class NotConnected(Exception):
    """The request has certainly not left this host. It is none of requests' or urllib3's, so that neither wraps it.

    ``todo`` is the next step. ``lasting``: nothing that a repetition could change.
    """

    def __init__(self, why: str, todo: str = REACH, lasting: bool = False) -> None:
        super().__init__(why)
        self.todo = todo
        self.lasting = lasting


class Line:
    """What is known of the request that is under way, for whoever must tell why it did not end well."""

    def __init__(self) -> None:
        self.sent = False
        self.awaited = ""  # what is being waited for, where
        self.where = ""  # host and address
        self.families: dict[str, int] = {}  # by host, the family of the address that was connected to last
        self.socket: socket.socket | None = None  # what the request is sent over
        self.sent_at = float("-inf")  # by a clock that goes on while the host sleeps
        self.may_send: Callable[[], float] = lambda: float("inf")  # for how many seconds more it may be sent

    def begin(self, where: str, awaited: str) -> None:
        """Note that the request is sent there from now on. Raises NotConnected where it may not be any more."""
        if not self.may_send():
            raise NotConnected(TOO_OLD, "run it again", lasting=True)
        self.sent, self.sent_at = True, Budget.awake()
        self.where, self.awaited = where, awaited

    def cut(self) -> None:
        """Let what waits for an answer fail at once; for another thread than the one that waits."""
        if self.socket is not None:
            # Behind a proxy that is spoken to over TLS it is a wrapper of urllib3's around the real one.
            real = getattr(self.socket, "socket", self.socket)
            with contextlib.suppress(OSError):  # it is closed already
                socket.socket.shutdown(real, socket.SHUT_RDWR)


@functools.cache
def trust(bundle: str) -> ssl.SSLContext:
    """Return the one context for all connections that trust this file or folder of CA certificates. Raises OSError.

    To load a bundle of full size takes as long as several handshakes.
    """
    context = create_urllib3_context()
    context.load_verify_locations(**{"capath" if os.path.isdir(bundle) else "cafile": bundle})
    return context


def _trust() -> ssl.SSLContext:
    name = next((name for name in _BUNDLES if os.environ.get(name)), "")
    bundle = os.environ[name] if name else DEFAULT_CA_BUNDLE_PATH
    try:
        return trust(bundle)
    except OSError as problem:
        # Only OpenSSL's own errors have no text of the system.
        why = "it holds no certificate in PEM form" if isinstance(problem, ssl.SSLError) else problem.strerror
        todo = f"let {name} name a file with PEM certificates" if name else "install the Python package certifi again"
        source = f"{bundle} ({name})" if name else bundle
        raise NotConnected(f"the CA bundle {source} cannot be used: {why}", todo, lasting=True) from None


class Session(Base):
    """A session that keeps ``line`` up to date, and nothing of what is answered. Raises NotConnected."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.headers["User-Agent"] = "keeperpam.azure/" + VERSION
        # requests replaces our Authorization header by an entry of ~/.netrc unless an auth object is set.
        self.auth = _leave_alone
        # A cookie would bind what follows to the replica that has set it.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _Adapter(line)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def get_redirect_target(self, resp: Any) -> None:
        """Return none: even where redirections are not followed, requests reads their target and their whole body."""


def _leave_alone(request: Any) -> Any:
    return request


class _Adapter(HTTPAdapter):
    """Makes our connections, which share one trust."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._context = _trust()
        pools = {"http": _HttpPool, "https": _HttpsPool}
        self._pools = {scheme: functools.partial(pool, line=line) for scheme, pool in pools.items()}
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the pools of connections through this proxy."""
        if proxy.lower().startswith("socks"):
            manager = super().proxy_manager_for(proxy, ssl_context=self._context, **options)
            # PySocks' connections are not ours, and tell nothing.
            self._line.begin("the SOCKS proxy", "the SOCKS proxy's answer")
            return manager
        both = {"ssl_context": self._context, "proxy_ssl_context": self._context}
        manager = super().proxy_manager_for(proxy, **both, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """Leave the CA bundle to the context, which has it already; otherwise each connection would load it."""
        return super().build_connection_pool_key_attributes(request, True, cert)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Do nothing, for the same reason: the context verifies."""

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        """Return the pool for this request, directly or through the proxy."""
        try:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        except (OSError, ValueError, HTTPError) as problem:
            proxy = select_proxy(request.url, proxies)
            raise (_proxy_problem(proxy, problem) if proxy else NotConnected(_NO_HOST, HOST, lasting=True)) from None


def _proxy_problem(proxy: str, problem: Exception) -> NotConnected:
    # Not quoted: it may hold a password, and where it is malformed, nobody knows at which place.
    name = next((name for name in _PROXIES if os.environ.get(name) == proxy), "the proxy settings")
    if "SOCKS" in str(problem):
        todo = "install requests[socks] for the Python that runs this, or name an HTTP proxy"
        return NotConnected(
            f"{name} names a SOCKS proxy, for which the Python package PySocks is missing", todo, lasting=True
        )
    todo = f"correct {name}, the form is http://host:port"
    return NotConnected(f"{name} holds no address of an HTTP proxy", todo, lasting=True)


class _Connection:
    """What is ours in both kinds of connections."""

    host: str
    port: int
    timeout: float
    sock: Any
    proxy: Any
    socket_options: Any
    _dns_host: str
    _tunnel_host: str | None

    def __init__(self, *arguments: Any, line: Line, **options: Any) -> None:
        self._line = line
        self._where = ""
        super().__init__(*arguments, **options)

    def connect(self) -> None:
        """Connect, through the proxy where there is one, and shake hands."""
        host, proxy = self.host, f"the proxy {self.host}:{self.port}" if self.proxy else ""
        target = self._tunnel_host or host
        try:
            super().connect()  # type: ignore[misc]
        except (OSError, ValueError, HTTPError, HTTPException) as problem:
            raise self._failed(problem, target, proxy) from None
        self._line.socket = self.sock

    def _failed(self, problem: Exception, target: str, proxy: str) -> NotConnected:
        if isinstance(problem, UnicodeError):
            return NotConnected(_NO_HOST, HOST, lasting=True)
        if isinstance(problem, ssl.SSLCertVerificationError):
            return NotConnected(f"the certificate of {self._where} is not trusted ({problem.verify_message})")
        if str(problem).startswith("Tunnel connection failed"):
            status = str(problem).split(": ", 1)[-1]
            todo = f"let {proxy} pass connections to {target}, or correct the proxy settings"
            lasting = not status.startswith(("408", "429", "5"))
            return NotConnected(f"{proxy} refuses a connection to {target} ({status})", todo, lasting)
        if isinstance(problem, TimeoutError) or "timed out" in str(problem):
            return NotConnected(f"{self._line.awaited} did not come within {in_seconds(self.timeout)}")
        if isinstance(problem, ssl.SSLError):
            return NotConnected(f"{self._line.awaited} failed ({(problem.reason or 'no reason').replace('_', ' ')})")
        return NotConnected(f"{self._line.awaited} failed ({getattr(problem, 'strerror', None) or 'it broke off'})")

    def _new_conn(self) -> socket.socket:
        name = f"the proxy {self.host}" if self.proxy else self.host
        line = self._line
        line.awaited = f"the address of {name}"
        sock = race(self._dns_host, self.port, self.timeout, line, name)
        for option in self.socket_options or ():
            sock.setsockopt(*option)
        self._where = f"{name} ({sock.getpeername()[0]})"
        if self._tunnel_host:
            self._where = f"{self._tunnel_host} through {self._where}"
        line.awaited = f"the TLS handshake with {self._where}"
        return sock

    def request(self, *arguments: Any, **options: Any) -> None:
        """Send the request, where that may still be."""
        self._line.begin(self._where, f"the answer of {self._where}")
        self._line.socket = self.sock
        super().request(*arguments, **options)  # type: ignore[misc]


class _HttpConnection(_Connection, HTTPConnection):  # type: ignore[misc]
    pass


class _HttpsConnection(_Connection, HTTPSConnection):  # type: ignore[misc]
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection  # type: ignore[assignment]


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection  # type: ignore[assignment]


def race(host: str, port: int, timeout: float, line: Line, name: str) -> socket.socket:
    """Return a connection to the first address of ``host`` that takes one: they are tried side by side.

    Each has a head start over the next, and the families take turns (https://www.rfc-editor.org/rfc/rfc8305).
    ``timeout`` is in seconds, for all of them together; ``name`` is the host in words. Raises NotConnected.
    """
    end = time.monotonic() + timeout
    failures: list[str] = []
    if not _NAME.fullmatch(host):  # requests encodes a space, and the resolver looks for what comes out
        raise NotConnected(_NO_HOST, HOST, lasting=True)
    try:
        with selectors.DefaultSelector() as begun:  # first, since a resolver that finds no file handle does not say so
            addresses = in_turn(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM), line.families.get(host))
            line.awaited = f"a connection to {name} ({', '.join(address[4][0] for address in addresses)})"
            winner = _first(addresses, begun, end, failures)
    except socket.gaierror as problem:
        raise NotConnected(f"the address of {name} was not found ({problem.strerror})") from None
    except UnicodeError:
        raise NotConnected(_NO_HOST, HOST, lasting=True) from None
    except OSError as problem:
        handles = problem.errno in _NO_HANDLES
        todo = "let the service open more files (LimitNOFILE), or end what keeps them open" if handles else REACH
        raise NotConnected(f"no connection could be begun ({problem.strerror})", todo, lasting=handles) from None
    if winner is None:
        left = f" within {in_seconds(timeout)}" if time.monotonic() >= end else ""
        raise NotConnected(f"no connection to {name}{left} ({', '.join(failures)})")
    line.families[host] = winner.family
    winner.settimeout(max(0.01, end - time.monotonic()))  # for the handshake, too
    return winner


def _first(addresses: list[Any], begun: Any, end: float, failures: list[str]) -> socket.socket | None:
    try:
        while addresses or begun.get_map():
            if addresses:
                address = addresses.pop(0)
                try:
                    begun.register(_begin(address), selectors.EVENT_WRITE, address[4][0])
                except OSError as problem:
                    if problem.errno in _NO_HANDLES:
                        raise
                    failures.append(f"{address[4][0]}: {problem.strerror}")
            left = end - time.monotonic()
            if left <= 0:
                failures += [f"{key.data}: no answer" for key in begun.get_map().values()]
                return None
            for key, _events in begun.select(min(left, _HEAD_START) if addresses else left):
                begun.unregister(key.fileobj)
                code = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    found: socket.socket = key.fileobj
                    return found
                key.fileobj.close()
                failures.append(f"{key.data}: {os.strerror(code)}")
        return None
    finally:
        for key in list(begun.get_map().values()):
            key.fileobj.close()


def _begin(address: Any) -> socket.socket:
    family, kind, protocol, _name, where = address
    begun = socket.socket(family, kind, protocol)
    begun.setblocking(False)
    code = begun.connect_ex(where)
    if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
        begun.close()
        raise OSError(code, os.strerror(code))
    return begun


def in_turn(addresses: Sequence[Any], family: int | None) -> list[Any]:
    """Return the addresses (as ``getaddrinfo`` does, family first) so that the families take turns.

    ``family`` begins where it is there, else that of the first one.
    """
    order = sorted(dict.fromkeys(address[0] for address in addresses), key=lambda each: each != family)
    queues = [[address for address in addresses if address[0] == each] for each in order]
    return [queue[number] for number in range(len(addresses)) for queue in queues if number < len(queue)]


def in_seconds(value: float) -> str:
    """Return seconds in words."""
    return f"{value:.3g} s"
