#!/usr/bin/env python3
# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""keeperpam.azure 0.1.0: rotates the client secret of a Microsoft Entra application, as a Keeper PAM Script.

It needs Python 3.9 or newer and the packages:
    msal>=1.32.0
    requests>=2.32.4
    keeper-secrets-manager-core>=17.3.0

This file is the core of the Ansible collection keeperpam.azure, made by its ``make script`` from the modules named in
the rulers below; it is not edited by hand. To verify a copy, compare its SHA-256 with that of the file in the release:
    sha256sum rotate_azure_app.py
"""

from __future__ import annotations  # Python 3.9 or newer is needed: let the script command name one

import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # the folder of this file: nothing that lies beside it is to be imported
if sys.version_info < (3, 9):
    if sys.stderr is not None:
        sys.stderr.write(
            f"BAD INPUT: this script needs Python 3.9 or newer, and was started with Python {sys.version.split()[0]} "
            f"({sys.executable}). Next: let the script command name a newer one.\n"
        )
    sys.exit(2)

import argparse
import base64
import binascii
import copy
import errno
import functools
import json
import logging
import math
import os
import platform
import random
import re
import selectors
import signal
import socket
import ssl
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from enum import Enum, IntEnum
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import PackageNotFoundError, version
from typing import Any, IO, TYPE_CHECKING, TypeVar
from urllib.parse import quote, quote_plus, urlsplit
from weakref import WeakValueDictionary


# ---- base.errors ----------------------------------------------------------------------------------------------------
# One family of errors. Each class is one end state of a rotation, with the exit status that tells it.


class RotationError(Exception):
    """A rotation that did not complete.

    ``what`` names the thing and what happened to it, ``why`` gives the reason, ``todo`` the next step.
    ``facts`` are secret-free values for the machine-readable outcome (key ids, names).
    """

    status = "error"
    exit_status = 1

    def __init__(self, what: str, why: str = "", todo: str = "", **facts: Any) -> None:
        self.what, self.why, self.todo = (_one_line(text) for text in (what, why, todo))
        self.facts: dict[str, Any] = facts
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """What happened to what, why, and what to do next, in one line."""
        text = self.what + (": " + self.why if self.why else "")
        text = text if text.endswith((".", "!", "?")) else text + "."
        return text + (" Next: " + self.todo.rstrip(".") + "." if self.todo else "")


class BadInput(RotationError):
    """The stdin, the configuration or the record cannot be used. Nothing has changed."""

    status = "bad_input"
    exit_status = 2


class Refused(RotationError):
    """Entra, Graph or Keeper said no, or was not reached, before anything changed."""

    status = "refused"
    exit_status = 3


class RolledBack(RotationError):
    """A new secret was made and removed again: the vault and the old secrets are as before."""

    status = "rolled_back"
    exit_status = 4


class Incomplete(RotationError):
    """The new secret is published and valid, but old ones remain."""

    status = "incomplete"
    exit_status = 5


class Orphan(RotationError):
    """A new secret was made, is not known to be published, and could not be removed."""

    status = "orphan"
    exit_status = 6


class Stopped(BaseException):
    """A signal, or the end of a phase's time. Not an Exception: no library may swallow it."""


class OutOfTime(Stopped):
    """The end of a phase's time."""


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


# ---- base.redact ----------------------------------------------------------------------------------------------------
# Secrets that do not print, and texts from elsewhere made fit to print.


MASK = "***"
# Shorter values are not searched for: masking every "a" in a text helps nobody. Entra's secrets have 16 characters
# or more, https://learn.microsoft.com/graph/api/resources/passwordcredential
_SHORTEST = 6
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}")
_NAMED = re.compile(
    r"(?i)(\b(?:client_secret|client_assertion|access_token|secretText|Authorization)[\"']?\s*[=:]\s*)"
    r"(?:(?:Bearer|Signature)\s+)?[^\s&,;}]+"
)
# Needs no lock, which a signal could leave held: valuerefs() takes all in one step of the interpreter, while reading a
# WeakSet raises where a secret ends in another thread.
_known: WeakValueDictionary[int, Secret] = WeakValueDictionary()
_for_good: set[str] = set()


class Secret:
    """A secret value. It is no ``str``, so that no formatting, joining or JSON encoder can print it."""

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        _known[id(self)] = self

    def reveal(self) -> str:
        """Return the value; only for the call that must send or store it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __str__(self) -> str:
        return MASK

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return MASK

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not serialised")


def remember(value: str) -> None:
    """Let ``scrub`` know a value that is held as plain text, for as long as the process lives."""
    _for_good.add(value)


def scrub(text: str) -> str:
    """Return ``text`` without any secret that this process knows, in plain or encoded form, and without tokens."""
    forms: set[str] = set()
    secrets = [reference() for reference in _known.valuerefs()]
    values = {secret.reveal() for secret in secrets if secret is not None} | _for_good
    for value in values:
        if len(value) >= _SHORTEST:
            forms.update((value, json.dumps(value)[1:-1], repr(value)[1:-1]))
            encoded = value.encode("utf-8", "replace")
            forms.update((quote(encoded, safe=""), quote_plus(encoded), base64.b64encode(encoded).decode().rstrip("=")))
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return _NAMED.sub(r"\1" + MASK, _TOKEN.sub(MASK, text))


def scrub_all(value: Any) -> Any:
    """Return JSON data with every text in it scrubbed."""
    if isinstance(value, dict):
        return {key: scrub_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [scrub_all(item) for item in value]
    return scrub(value) if isinstance(value, str) else value


class Log:
    """One line per step, in words, with the UTC time. A broken pipe must never stop a rotation half-way."""

    def __init__(self, write: Callable[[str], object], debug: bool = False) -> None:
        self._write = write
        self._debug = debug
        self.steps: list[str] = []

    def say(self, text: str) -> None:
        """Write one step."""
        line = scrub(" ".join(text.split()))
        self.steps.append(line)
        self._emit(line)

    def detail(self, text: str) -> None:
        """Write one line that only ``--debug`` shows."""
        if self._debug:
            self._emit("  " + scrub(text))

    def _emit(self, line: str) -> None:
        try:
            self._write(time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + line + "\n")
        except (OSError, ValueError):
            self._write = _discard


def to_stderr(line: str) -> None:
    """Write a line to stderr at once; where there is no stderr, nowhere."""
    if sys.stderr is not None:
        sys.stderr.write(line)
        sys.stderr.flush()


def _discard(line: str) -> None:
    del line


# ---- base.timing ----------------------------------------------------------------------------------------------------
# Time: every phase of a rotation has an end, and a signal ends it early.


# Seconds that each phase may take: with a verify_timeout of 120 s, 290 s for a whole run. It ends with RETIRE and
# REVIEW, or with UNDO.
RESOLVE, MAKE_ROOM, CREATE, PUBLISH, RETIRE, REVIEW, UNDO = 45.0, 10.0, 35.0, 45.0, 35.0, 5.0, 35.0

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
# Calls and pauses end by themselves at the end of a phase; the alarm is for what does not look at the clock,
# such as a connection that is tried at one address of a host after the other, or an answer that drips in.
_GRACE = 1.0
_AGAIN = 5.0  # the alarm comes again, in case it meets code that swallows what it raises, as callbacks do
_ALARM = getattr(signal, "SIGALRM", None)  # Windows has none: there only calls and pauses end a phase


class Budget:
    """The time that is left (seconds, monotonic clock). Outside of a phase it is unlimited."""

    def __init__(self) -> None:
        self._end = self._seconds = float("inf")
        self._phase = ""
        self.shielded = False  # while undoing and reporting, signals are let pass

    def left(self) -> float:
        """Seconds to the end of this phase, never negative."""
        return max(0.0, self._end - time.monotonic())

    def shield(self) -> None:
        """From now on let signals pass, and forget the phase that one may have cut off."""
        self.shielded = True
        self._end = float("inf")

    @contextmanager
    def phase(self, name: str, seconds: float) -> Iterator[None]:
        """Limit what runs inside to ``seconds``; it raises OutOfTime at the end of them.

        Within a phase that ends earlier, that one's end counts.
        """
        before = self._end, self._phase, self._seconds
        end = time.monotonic() + seconds
        if end < self._end:
            self._end, self._phase, self._seconds = end, name, seconds
        self._arm()
        try:
            yield
        finally:
            self._end, self._phase, self._seconds = before
            self._arm()

    def check(self) -> None:
        """Raise OutOfTime when the phase has no time left."""
        if self.left() <= 0:
            raise self._over()

    def pause(self, seconds: float) -> None:
        """Sleep; raise OutOfTime at once when the phase would end before, or has ended."""
        if not 0 <= seconds < self.left():
            raise self._over()
        time.sleep(seconds)

    def on_alarm(self, number: int, frame: Any) -> None:
        """Handle SIGALRM: the phase is over."""
        raise self._over()

    def _over(self) -> OutOfTime:
        return OutOfTime(f"no time left to {self._phase} (limit {self._seconds:.3g} s)")

    def _arm(self) -> None:
        # Only where catch_signals() has put a handler in place: the default action of SIGALRM is to kill.
        if _ALARM is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(_ALARM) == self.on_alarm:
            finite = self._end != float("inf")
            signal.setitimer(signal.ITIMER_REAL, self.left() + _GRACE if finite else 0, _AGAIN)


def catch_signals(budget: Budget) -> None:
    """Turn the first SIGTERM, SIGINT or SIGHUP of this process into Stopped, and the end of a phase into OutOfTime.

    For a process that does nothing else: the handlers stay until it ends.
    """
    seen: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        if not seen and not budget.shielded:
            seen.append(number)
            raise Stopped("interrupted by " + signal.Signals(number).name)

    for number in _SIGNALS:
        signal.signal(number, on_signal)
    if _ALARM is not None:
        signal.signal(_ALARM, budget.on_alarm)


# ---- base.version ---------------------------------------------------------------------------------------------------
# The version of the collection, the same as in galaxy.yml.


VERSION = "0.1.0"


# ---- services.application -------------------------------------------------------------------------------------------
# An application and its password credentials, as data.


_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"(\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?", re.IGNORECASE)


def guid(text: str) -> str | None:
    """Return the GUID in lower case, or None where the text is none (braces and space around it are accepted)."""
    plain = text.strip().strip("{}").lower()
    return plain if _GUID.fullmatch(plain) else None


def parse_time(text: Any) -> datetime | None:
    """Return the time of an OData DateTimeOffset, in UTC; None for nothing or anything else.

    Graph writes seven fractional digits or none, which ``datetime.fromisoformat`` reads from Python 3.11 on only.
    """
    match = _TIME.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        return None
    seconds, fraction, zone = match.groups()
    zone = "+00:00" if zone is None or zone.upper() == "Z" else zone
    try:
        return datetime.fromisoformat(f"{seconds.upper()}.{(fraction or '0')[:6]:<06}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class Credential:
    """One passwordCredential of an application. ``hint`` is the first three characters of the secret."""

    key_id: str
    display_name: str = ""
    start: datetime | None = None
    end: datetime | None = None
    end_text: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Application:
    """An application as one read of Graph has shown it; ``read_at`` is the server's time of that read."""

    object_id: str
    client_id: str
    display_name: str
    two_secrets: bool
    credentials: tuple[Credential, ...]
    read_at: datetime

    def credential(self, key_id: str) -> Credential | None:
        """Return the credential with that key id, compared without case."""
        wanted = key_id.strip().lower()
        return next((credential for credential in self.credentials if credential.key_id == wanted), None)


def credentials_in(items: list[Any]) -> list[Credential]:
    """Return the credentials of a JSON list of Graph; what has no key id is passed over."""
    found = []
    for item in items:
        key_id = guid(str(item.get("keyId"))) if isinstance(item, dict) else None
        if key_id is None:
            continue
        end = parse_time(item.get("endDateTime"))
        end_text = str(item.get("endDateTime") or "")
        if end is not None and not end_text.upper().endswith(("Z", "+00:00")):
            end_text = format_time(end)
        found.append(
            Credential(
                key_id,
                str(item.get("displayName") or ""),
                parse_time(item.get("startDateTime")),
                end,
                end_text,
                str(item.get("hint") or ""),
            )
        )
    return found


def format_time(when: datetime) -> str:
    """Return the time as Graph reads it: UTC, whole seconds."""
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def after(start: datetime, days: int) -> datetime:
    """Return the time that many days later. Raises BadInput where the calendar ends before."""
    try:
        return start + timedelta(days=days)
    except OverflowError:
        raise BadInput(f"a lifetime of {days} days is too long", todo="lower lifetime_days") from None


# ---- services.connection --------------------------------------------------------------------------------------------
# Connections of requests and urllib3: one trust for all, families of addresses raced, and the truth where none comes.
#
# urllib3 tries the addresses of a host one after the other, each until its timeout: a host whose IPv6 swallows packets
# would take all the time there is.


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
REACH = "check the network and the proxy; for a proxy with a CA of its own, set REQUESTS_CA_BUNDLE to the PEM file"
HOST = "correct the host name in the configuration that names it"
_NO_HOST = "the address of the service holds no valid host name"
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY")
# The "Connection Attempt Delay" of https://www.rfc-editor.org/rfc/rfc8305#section-5, seconds.
_HEAD_START = 0.25
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
            self._line.sent, self._line.where, self._line.awaited = True, "the SOCKS proxy", "the SOCKS proxy's answer"
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
            return NotConnected(f"{self._line.awaited} did not come within {duration(self.timeout)}")
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
        """Send the request."""
        self._line.sent = True
        self._line.where = self._where
        self._line.awaited = f"the answer of {self._where}"
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
        left = f" within {duration(timeout)}" if time.monotonic() >= end else ""
        raise NotConnected(f"no connection to {name}{left} ({', '.join(failures)})")
    line.families[host] = winner.family
    winner.settimeout(timeout)
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


def duration(value: float) -> str:
    """Return seconds in words."""
    return f"{value:.3g} s"


# ---- services.http --------------------------------------------------------------------------------------------------
# HTTP with one policy: timeouts on every call, kept-alive connections, retries only where they are safe.


try:
    import requests
    from urllib3.exceptions import HTTPError
except ImportError:
    pass  # connection.REQUESTS_PROBLEM tells

# What to do where something else than the service has answered.
PASS = "let what stands in between (a proxy, a web filter, the sign-in page of a network) pass requests to that host"
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 20.0
ATTEMPTS = 5
CONNECT_ATTEMPTS = 3
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0
_LARGEST_ANSWER = 64 * 1024 * 1024
_HOST = re.compile(r"[\w.:-]{1,253}")
_PAGE = re.compile(r"(?is)<(?:!doctype\s+html|html)\b(?:.*?<title[^>]*>(?P<title>.{,100}?)</title>)?")
_PAGE_HEAD = 16384


class Unanswered(Exception):
    """No complete answer came. ``sent`` is False where the request has certainly not reached the server.

    ``todo`` is the next step. ``lasting``: nothing that a repetition could change.
    """

    def __init__(self, why: str, sent: bool, todo: str = REACH, lasting: bool = False) -> None:
        super().__init__(why)
        self.sent = sent
        self.todo = todo
        self.lasting = lasting


class Reply:
    """A complete HTTP answer of ``host``, or of what stands before it."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, host: str = "") -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.host = host

    @property
    def status_code(self) -> int:
        """The status under the name that msal reads."""
        return self.status

    @property
    def text(self) -> str:
        """The body as text; what is no UTF-8 is replaced."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> dict[str, Any]:
        """Return the body's JSON object; empty where it is anything else."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def page(self) -> re.Match[str] | None:
        """Return the beginning of a web page, with its title; None where it is none."""
        return _PAGE.search(self.body[:_PAGE_HEAD].decode("utf-8", "replace"))

    def between(self) -> str:
        """Say who has answered in place of a service that answers with JSON; empty where it is JSON."""
        about = f"(HTTP {self.status})"
        if 300 <= self.status < 400:
            return f"something in between redirects to {self._redirected()} {about}"
        if not self.body.strip():
            return f"nothing came in the answer of {self.host} {about}"
        try:
            json.loads(self.body)
        except (ValueError, RecursionError):
            page = self.page()
            if page is None:
                return f"the answer of {self.host} is no JSON {about}"
            title = f" with the title {' '.join(page['title'].split())!r}" if page["title"] else ""
            return f"a page{title} came in place of the answer of {self.host} {about}"
        return ""

    def remedy(self) -> str:
        """Return what to do about an answer that is not the service's own."""
        return "run it again later" if busy(self) else PASS

    def _redirected(self) -> str:
        try:
            target = urlsplit(self.headers.get("Location") or "").hostname or ""
        except ValueError:
            target = ""
        return target if _HOST.fullmatch(target) else self.host


def busy(reply: Reply) -> bool:
    """Whether the same request may well succeed a little later (for calls that are safe to repeat)."""
    return reply.status in (408, 424, 429) or reply.status >= 500


def retry_after(reply: Reply, now: float | None = None) -> float | None:
    """Return the seconds that ``Retry-After`` asks for: a decimal (as in Graph's throttling page) or an HTTP date.

    None where the header is missing or unreadable; never negative. ``now`` is the Unix time, for dates.
    """
    text = (reply.headers.get("Retry-After") or "").strip()
    seconds = seconds_in(text)
    if seconds is None and text:
        try:
            seconds = seconds_in(parsedate_to_datetime(text).timestamp() - (time.time() if now is None else now))
        except (TypeError, ValueError, IndexError, OverflowError):
            return None
    return seconds


def seconds_in(value: Any) -> float | None:
    """Return the seconds that a server asks to be waited for, never negative; None for what is no finite number."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def pause_before(attempt: int, asked: float | None = None) -> float:
    """Return the seconds to wait before attempt number ``attempt`` (2 is the first repetition), with some jitter.

    ``asked`` is what the server wants to be waited for.
    """
    if asked is not None:
        return asked + random.uniform(0.0, 0.25)
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (attempt - 2)) * random.uniform(0.75, 1.25)


class Http:
    """The one way out. Not for use by several threads."""

    def __init__(self, budget: Budget, log: Log) -> None:
        self._budget = budget
        self._log = log
        self._line = Line()
        self._session: requests.Session | None = None

    def call(
        self,
        method: str,
        url: str,
        *,
        name: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        files: Any = None,
        query: Mapping[str, str] | None = None,
        retry: Callable[[Reply], bool] | None = None,
        fresh: bool = False,
    ) -> Reply:
        """Send a request and return the answer, whatever its status.

        ``retry`` says which answers are worth a repetition; None means that the call is not safe to repeat, and
        then only a request that was not sent is sent again. With ``fresh`` every attempt goes over a new connection
        of its own, which another replica may answer. Raises Unanswered, and Stopped when the phase ends.
        """
        request = {"method": method, "url": url, "headers": headers, "data": body, "files": files, "params": query}
        attempt = 1
        before = ""
        while True:
            last = None
            started = time.monotonic()
            try:
                reply = self._once(request, fresh)
            except OutOfTime as end:
                awaited = f", while waiting for {self._line.awaited}" if self._line.awaited else ""
                raise OutOfTime(f"{end}{awaited}{before}") from None
            except Unanswered as problem:
                self._log.detail(f"{name}: {problem}")
                before = f"; before, {problem}"
                attempts = ATTEMPTS if problem.sent else CONNECT_ATTEMPTS
                if problem.lasting or (problem.sent and retry is None) or attempt >= attempts:
                    raise
                pause = pause_before(attempt + 1)
                if pause >= self._budget.left():
                    raise
            else:
                self._log.detail(f"{name}: HTTP {reply.status} after {time.monotonic() - started:.2f} s")
                before = f"; before, {reply.host} answered HTTP {reply.status}"
                if attempt >= ATTEMPTS or retry is None or not retry(reply):
                    return reply
                pause = pause_before(attempt + 1, retry_after(reply))
                if pause >= self._budget.left():
                    return reply
                last = reply
            if not fresh and (last is None or last.status == 503):
                # Graph: "always make new retry requests over a new HTTP connection"
                # https://learn.microsoft.com/graph/errors
                self.close()
            self._budget.pause(pause)
            attempt += 1

    def _once(self, request: dict[str, Any], fresh: bool) -> Reply:
        self._line.sent, self._line.awaited = False, ""
        self._budget.check()
        try:
            if fresh:
                with Session(self._line) as session:
                    return self._send(session, request)
            if self._session is None:
                self._session = Session(self._line)
            return self._send(self._session, request)
        except NotConnected as problem:
            raise Unanswered(str(problem), False, problem.todo, problem.lasting) from None

    def _send(self, session: requests.Session, request: dict[str, Any]) -> Reply:
        left = max(self._budget.left(), 0.01)
        connect, read = min(CONNECT_TIMEOUT, left), min(READ_TIMEOUT, left)
        try:
            with session.request(**request, timeout=(connect, read), allow_redirects=False, stream=True) as response:
                content = bytearray()
                for piece in response.iter_content(65536):
                    content += piece
                    self._budget.check()
                    if len(content) > _LARGEST_ANSWER:
                        raise Unanswered(f"{self._line.awaited} is larger than 64 MiB", sent=True)
                host = urlsplit(request["url"]).hostname or ""
                return Reply(response.status_code, response.headers, bytes(content), host)
        except MemoryError:
            todo = "give this host more memory, or end what takes it"
            raise Unanswered("this host has no memory left for the answer", self._line.sent, todo) from None
        except (OSError, ValueError, HTTPError) as problem:
            line = self._line
            if not line.sent:  # requests has found no way to make a request of it
                raise NotConnected("the address of the service is none", HOST, lasting=True) from None
            if isinstance(problem, requests.exceptions.Timeout) or "timed out" in str(problem):
                raise Unanswered(f"{line.awaited} was not complete within {duration(read)}", sent=True) from None
            raise Unanswered(
                f"the connection to {line.where} broke before the answer was complete", sent=True
            ) from None

    def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            self._session.close()


# ---- services.entra -------------------------------------------------------------------------------------------------
# Microsoft Entra: clouds, tokens for the admin application, and the proof that a secret signs in.


try:
    import msal
except ImportError as _problem:
    MSAL_PROBLEM = str(_problem)
else:
    MSAL_PROBLEM = ""

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
# AADSTS numbers: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_WRONG_SECRET, _EXPIRED_SECRET = 7000215, 7000222
_BUSY = {90006, 90012, 90024, 90033, 90055, 90090}
_WORDS = {
    _WRONG_SECRET: "the client secret is not valid (a secret's value is needed, not its id)",
    _EXPIRED_SECRET: "the client secret has expired",
    700016: "there is no application with this client id in the tenant (no service principal here)",
    7000229: "the application has no service principal in the tenant",
    7000112: "the application is disabled",
    53003: "Conditional Access blocks the sign-in",
    90002: "the tenant does not exist in this cloud",
    7000216: "the client secret is empty",
    7000218: "the client secret is empty",
    500011: "Graph is not known in this tenant: authority and Graph endpoint belong to different clouds",
}
# Waiting changes none of these for an application that exists.
_FINAL = {700016, 7000229, 7000112, 53003, 90002, 500011}
_ADMIN_ATTEMPTS = 3


@dataclass(frozen=True)
class Cloud:
    """The two endpoints of a cloud, as https roots without a trailing slash."""

    authority: str
    graph: str


# https://learn.microsoft.com/graph/deployments and https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
CLOUDS = {
    "AzureCloud": Cloud("https://login.microsoftonline.com", "https://graph.microsoft.com"),
    "AzureUSGovernment": Cloud("https://login.microsoftonline.us", "https://graph.microsoft.us"),
    "AzureChinaCloud": Cloud("https://login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn"),
}


def custom_cloud(authority: str, graph: str, where: str) -> Cloud:
    """Return the cloud of two endpoints; an authority that is well known brings its Graph endpoint along.

    Both may come with or without ``https://``. ``where`` names their origin. Raises BadInput.
    """
    login = _root_url(authority, "authority", where)
    if graph:
        return Cloud(login, _root_url(graph, "Graph endpoint", where))
    for cloud in CLOUDS.values():
        if cloud.authority == login:
            return cloud
    raise BadInput(f"{where} names the authority {login} but no Graph endpoint", todo="add the Graph endpoint")


def _root_url(text: str, what: str, where: str) -> str:
    url = text.strip() if "://" in text else "https://" + text.strip()
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", url):
        raise BadInput(f"the {what} of {where} is no https address: {text!r}", todo="enter a host name")
    return "https://" + urlsplit(url).netloc.lower()


@dataclass(frozen=True)
class Identity:
    """What the admin application signs in with. ``source`` says where it was found, in words."""

    client_id: str
    tenant_id: str
    source: str
    secret: Secret | None = None
    certificate: Secret | None = None  # PEM: private key and certificate
    record_uid: str = ""

    def __post_init__(self) -> None:
        if guid(self.client_id) is None:
            remember(self.client_id)  # what was entered in the wrong field may be a secret
        if not _TENANT.fullmatch(self.tenant_id):
            raise BadInput(
                f"the tenant id of {self.source} is neither an id nor a domain",
                todo="enter the directory (tenant) id",
            )


class Proof(Enum):
    """What one attempt to sign in with a new secret has shown."""

    SIGNED_IN = "signed in"
    NOT_YET = "not yet"
    NEVER = "never"


class Entra:
    """The token endpoint of one tenant."""

    def __init__(self, http: Http, cloud: Cloud, tenant_id: str, budget: Budget, log: Log) -> None:
        self._http = http
        self._cloud = cloud
        self._tenant = tenant_id
        self._budget = budget
        self._log = log
        self._token_endpoint = f"{cloud.authority}/{tenant_id}/oauth2/v2.0/token"
        # msal logs an answer that it cannot parse, and with it perhaps a token.
        logging.getLogger("msal").addHandler(logging.NullHandler())
        logging.getLogger("msal").propagate = False

    def token(self, identity: Identity) -> Secret:
        """Return an access token of the admin application for Graph.

        A secret that Entra calls wrong is tried again for some seconds: after a rotation of the admin application
        itself not every replica knows it yet. Raises Refused.
        """
        for attempt in range(1, _ADMIN_ATTEMPTS + 1):
            answer = self._acquire(identity)
            if "access_token" in answer:
                self._log.say(f"signed in as {identity.client_id} from {identity.source}")
                return Secret(str(answer["access_token"]))
            pause = 2.0 * attempt
            if _WRONG_SECRET not in _codes(answer) or attempt == _ADMIN_ATTEMPTS or pause >= self._budget.left():
                break
            self._log.say(f"Entra does not accept the secret of {identity.source}; trying again")
            self._budget.pause(pause)
        raise Refused(
            f"the admin application {identity.client_id} could not sign in to tenant {self._tenant}",
            _reason(answer),
            _advice(answer, identity),
        )

    def _acquire(self, identity: Identity) -> Mapping[str, Any]:
        transport = _Transport(self._http, self._cloud)
        credential: Any = identity.secret.reveal() if identity.secret else None
        if identity.certificate:
            pem = identity.certificate.reveal()
            credential = {"private_key": pem, "public_certificate": pem}
        try:
            # A new object each time: msal answers from its caches otherwise, and a 400 stays cached for 60 s.
            # No instance discovery: the authority is from our table, or was named by the administrator.
            client = msal.ConfidentialClientApplication(
                identity.client_id,
                client_credential=credential,
                authority=f"{self._cloud.authority}/{self._tenant}",
                instance_discovery=False,
                http_client=transport,
            )
            answer: Mapping[str, Any] = client.acquire_token_for_client([self._cloud.graph + "/.default"])
        except Unanswered as problem:
            raise Refused(f"{self._cloud.authority} was not reached", str(problem), problem.todo) from None
        except Refused:
            raise
        except Exception as problem:  # whatever msal makes of an answer, or of a certificate
            if identity.certificate and not transport.asked:
                raise BadInput(
                    f"the certificate of {identity.source} cannot be used", type(problem).__name__, "check the PEM file"
                ) from None
            answer = {}
        if "access_token" not in answer and transport.last is not None:
            # msal hides the body of a failed discovery, which is where an unknown tenant shows.
            return {**_with_origin(transport.last), **answer}
        return answer

    def prove(self, client_id: str, secret: Secret) -> tuple[Proof, str]:
        """Try once to sign in with a new secret; return what it shows, and in words why.

        One plain request, as documented in
        https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow: msal's caches are not
        keyed by the secret and could answer for the old one. Raises Stopped.
        """
        body = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": secret.reveal(),
            "scope": self._cloud.graph + "/.default",
        }
        try:
            reply = self._http.call(
                "POST", self._token_endpoint, name="sign-in with the new secret", body=body, retry=_retry
            )
        except Unanswered as problem:
            return Proof.NOT_YET, str(problem)
        answer = reply.json()
        if reply.status == 200 and answer.get("access_token"):
            return Proof.SIGNED_IN, ""
        if set(_codes(answer)) & {_WRONG_SECRET, _EXPIRED_SECRET}:
            return Proof.NOT_YET, f"Entra's sign-in does not know the secret (AADSTS{_codes(answer)[0]})"
        return classify(reply), _reason(_with_origin(reply))


def classify(reply: Reply) -> Proof:
    """Return whether waiting may change a refused sign-in with a secret that was made a moment ago."""
    answer = reply.json()
    codes = set(_codes(answer))
    error = answer.get("error")
    if codes & _FINAL:
        return Proof.NEVER
    if codes & (_BUSY | {_WRONG_SECRET, _EXPIRED_SECRET}) or busy(reply):
        return Proof.NOT_YET
    if error in ("invalid_client", "temporarily_unavailable", "server_error") or not error:
        return Proof.NOT_YET
    return Proof.NEVER


class _Transport:
    """What msal sends its requests with: our timeouts and retries. Asking for a token is safe to repeat."""

    def __init__(self, http: Http, cloud: Cloud) -> None:
        self._http = http
        self._cloud = cloud
        self.last: Reply | None = None
        self.asked = False  # for a token

    def get(self, url: str, params: Any = None, headers: Any = None, **kwargs: Any) -> Reply:
        reply = self._call("GET", url, params, None, headers)
        if reply.status < 400:
            self._check(reply)
        return reply

    def _check(self, discovery: Reply) -> None:
        """The secret goes where discovery says: to the authority itself, or nowhere. Raises Refused."""
        endpoint, name = discovery.json().get("token_endpoint"), self._cloud.authority
        if _is_below(endpoint, name):
            return
        todo = "choose the cloud that the tenant is in" if endpoint else discovery.remedy()
        why = discovery.between() or "it names no token endpoint of its own"
        raise Refused(f"{name} does not say where to sign in", why, todo)

    def post(self, url: str, params: Any = None, data: Any = None, headers: Any = None, **kwargs: Any) -> Reply:
        self.asked = True
        return self._call("POST", url, params, data, headers)

    def close(self) -> None:
        """The connections belong to the Http object."""

    def _call(self, method: str, url: str, query: Any, body: Any, headers: Any) -> Reply:
        name = "sign-in of the admin application" if method == "POST" else "discovery"
        self.last = self._http.call(method, url, name=name, headers=headers, body=body, query=query, retry=_retry)
        return self.last


def _is_below(url: Any, root: str) -> bool:
    try:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        return f"{parts.scheme}://{parts.netloc}".lower() == root and len(parts.path) > 1
    except ValueError:
        return False


def _with_origin(reply: Reply) -> dict[str, Any]:
    """Return the answer, with what ``_reason`` and ``_advice`` need where it is not Entra's."""
    return {**reply.json(), "http_status": reply.status, "between": reply.between(), "remedy": reply.remedy()}


def _retry(reply: Reply) -> bool:
    return busy(reply) or bool(_BUSY & set(_codes(reply.json()))) or (reply.status == 200 and not reply.json())


def _codes(answer: Mapping[str, Any]) -> list[int]:
    codes = answer.get("error_codes")
    found = [code for code in codes if isinstance(code, int)] if isinstance(codes, list) else []
    return found or [int(code) for code in re.findall(r"AADSTS(\d+)", str(answer.get("error_description", "")))[:1]]


def _reason(answer: Mapping[str, Any]) -> str:
    for code in _codes(answer):
        if code in _WORDS:
            return f"{_WORDS[code]} (AADSTS{code})"
    lines = str(answer.get("error_description") or "").splitlines()
    error = answer.get("error")
    if lines:
        return f"{error}: {lines[0][:300]}"
    if answer.get("between"):
        return str(answer["between"])
    status = answer.get("http_status")
    return str(error) if isinstance(error, str) else f"Entra answered HTTP {status} without a readable reason"


def _advice(answer: Mapping[str, Any], identity: Identity) -> str:
    advice: dict[int, str] = {
        _WRONG_SECRET: f"put the current secret's value into {identity.source}",
        _EXPIRED_SECRET: f"make a new secret for the admin application by hand and put it into {identity.source}",
        700016: f"check the client id and the tenant id in {identity.source}",
        90002: f"check the tenant id in {identity.source} and the cloud",
        7000112: "enable the admin application",
        53003: "exempt the admin application from the policy, or allow this host",
    }
    for code in _codes(answer):
        if code in advice:
            return advice[code]
    if answer.get("between"):
        return str(answer["remedy"])
    return f"check {identity.source}"


# ---- services.graph -------------------------------------------------------------------------------------------------
# Microsoft Graph v1.0: an application's password credentials, read, added and removed.


_SELECT = "id,appId,displayName,signInAudience,passwordCredentials"
# "maximum of two client secrets": https://learn.microsoft.com/entra/identity-platform/supported-accounts-validation
_TWO_SECRETS = {"azureadandpersonalmicrosoftaccount", "personalmicrosoftaccount"}
_LATER = (408, 409, 424, 429)
_CONCURRENT = "Directory_ConcurrencyViolation"


class NotDone(Exception):
    """A call of Graph did not succeed. ``why`` and ``todo`` are for people.

    ``certain`` tells that Graph has refused; otherwise the call may have taken effect, or may do so later.
    ``busy`` tells that by Graph's words the call was not carried out, and may be later. ``status`` is that of the
    HTTP answer, 0 where there was none. ``wait`` is the pause in seconds that Graph asked for.
    """

    def __init__(
        self,
        why: str,
        todo: str = "",
        *,
        certain: bool = True,
        busy: bool = False,
        status: int = 0,
        wait: float | None = None,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.todo = todo
        self.certain = certain
        self.busy = busy
        self.status = status
        self.wait = wait


class Graph:
    """The applications of one tenant, as one admin application may see them.

    ``sign_in`` returns a fresh access token; it is asked once at first and again after a 401.
    """

    def __init__(self, http: Http, root: str, admin: str, sign_in: Callable[[], Secret], log: Log) -> None:
        self._http = http
        self._root = root + "/v1.0"
        self._admin = admin
        self._sign_in = sign_in
        self._log = log
        self._token: Secret | None = None

    def find(self, identifier: str, client_id_first: bool = False) -> Application:
        """Return the application with that object id or client id.

        Keeper's page mixes the two up, so both are tried. Not by ``$filter``: that is refused to an admin application
        with Application.ReadWrite.OwnedBy (https://learn.microsoft.com/graph/permissions-reference). Raises BadInput
        for what is no GUID, Refused.
        """
        wanted = guid(identifier)
        if wanted is None:
            raise BadInput(
                "application_object_id holds neither an object id nor a client id",
                todo="enter the Object ID of the app registration's overview page",
            )
        forms = [f"/{wanted}", f"(appId='{wanted}')"]
        problems = []
        for form in reversed(forms) if client_id_first else forms:
            try:
                return self._read(form)
            except NotDone as refusal:
                problems.append(refusal)
                if refusal.status not in (400, 403, 404):
                    break
        problem = next((each for each in problems if each.status != 404), problems[-1])
        if problem.status == 404:
            raise Refused(
                f"the application {wanted} was not found",
                "Graph knows it neither as object id nor as client id in this tenant",
                "check application_object_id, the tenant, and whether the app registration was deleted",
            )
        raise Refused(f"the application {wanted} could not be read", problem.why, problem.todo)

    def read(self, application: Application) -> Application:
        """Read the application afresh. Raises NotDone."""
        return self._read("/" + application.object_id)

    def _read(self, form: str) -> Application:
        reply = self._call(
            "GET", "/applications" + form, "read application", {"$select": _SELECT}, None, retry=_busy_or_garbled
        )
        body = reply.json()
        object_id, client_id = guid(str(body.get("id"))), guid(str(body.get("appId")))
        if not object_id or not client_id:
            between = reply.between()
            raise NotDone(
                between or "Graph's answer is no application", reply.remedy() if between else "", certain=False
            )
        listed = body.get("passwordCredentials")
        return Application(
            object_id,
            client_id,
            str(body.get("displayName") or client_id),
            str(body.get("signInAudience")).lower() in _TWO_SECRETS,
            tuple(credentials_in(listed if isinstance(listed, list) else [])),
            _server_time(reply),
        )

    def add_password(self, application: Application, display_name: str, end: datetime) -> tuple[Credential, Secret]:
        """Create a client secret once, without any repetition; Entra generates the value and shows it only here.

        https://learn.microsoft.com/graph/api/application-addpassword. No startDateTime is sent: with a client's
        clock that is ahead, the secret would not be valid yet. Raises NotDone.
        """
        wanted = {"displayName": display_name, "endDateTime": format_time(end)}
        body = {"passwordCredential": wanted}
        reply = self._call(
            "POST", f"/applications/{application.object_id}/addPassword", "add password", None, body, retry=None
        )
        answer = reply.json()
        text = answer.get("secretText")
        found = credentials_in([answer])
        if not found or not isinstance(text, str) or not text:
            raise NotDone("Graph's answer to addPassword could not be read", certain=False)
        credential = found[0]
        if credential.end is None:
            credential = Credential(
                credential.key_id, credential.display_name, credential.start, end, wanted["endDateTime"]
            )
        return credential, Secret(text)

    def remove_password(self, application: Application, key_id: str) -> bool:
        """Remove a client secret; return False where Graph knows none with that key id.

        https://learn.microsoft.com/graph/api/application-removepassword. Safe to repeat. An unknown key id is answered
        with 400 and a text, for which no error code is documented. Raises NotDone.
        """
        body, path = {"keyId": key_id}, f"/applications/{application.object_id}/removePassword"
        try:
            self._call("POST", path, "remove password", None, body, retry=_again)
        except NotDone as problem:
            if problem.status == 400 and "no password credential found" in problem.why.lower():
                return False
            raise
        return True

    def roles(self) -> set[str] | None:
        """Return the application permissions in the access token; None where it cannot be read (it is opaque)."""
        token = self._token.reveal() if self._token else ""
        try:
            payload = token.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            return {str(role) for role in claims.get("roles", [])}
        except (IndexError, ValueError, AttributeError, TypeError):
            return None

    def owns(self, application: Application) -> bool | None:
        """Return whether the admin application's service principal owns the application, None if Graph does not say.

        The call that Application.ReadWrite.OwnedBy allows: https://learn.microsoft.com/graph/permissions-reference.
        """
        path = f"/servicePrincipals(appId='{self._admin}')/ownedObjects"
        query: dict[str, str] | None = {"$select": "id", "$top": "999"}
        for page in range(20):
            try:
                reply = self._call("GET", path, f"owned objects, page {page + 1}", query, None, retry=_busy_or_garbled)
            except NotDone:
                return None
            body = reply.json()
            found = body.get("value")
            if not isinstance(found, list):
                return None
            if any(isinstance(item, dict) and guid(str(item.get("id"))) == application.object_id for item in found):
                return True
            following = str(body.get("@odata.nextLink") or "")
            if not following.startswith(self._root):
                return False
            path, query = following[len(self._root) :], None
        return None

    def _call(
        self,
        method: str,
        path: str,
        name: str,
        query: Mapping[str, str] | None,
        body: dict[str, Any] | None,
        retry: Callable[[Reply], bool] | None,
    ) -> Reply:
        for fresh in (False, True):
            if self._token is None:
                self._token = self._sign_in()
            elif fresh:
                self._token = self._sign_in_again()
            headers = {
                "Authorization": "Bearer " + self._token.reveal(),
                "Content-Type": "application/json",
                # Graph's best practices: a GUID per request, to find it in Microsoft's logs.
                "client-request-id": str(uuid.uuid4()),
            }
            data = None if body is None else json.dumps(body)
            try:
                url = self._root + path
                reply = self._http.call(method, url, name=name, headers=headers, body=data, query=query, retry=retry)
            except Unanswered as problem:
                raise NotDone(f"Graph did not answer: {problem}", problem.todo, certain=not problem.sent) from None
            if reply.status != 401:
                break
            self._log.detail("Graph does not accept the token; signing in again")
        if reply.status // 100 == 2:
            return reply
        raise self._problem(reply)

    def _sign_in_again(self) -> Secret:
        try:
            return self._sign_in()
        except Refused as problem:
            raise NotDone(f"Graph does not accept the token any more; {problem.message}", status=401) from None

    def _problem(self, reply: Reply) -> NotDone:
        error = reply.json().get("error")
        error = error if isinstance(error, dict) else {}
        code, message = str(error.get("code") or ""), str(error.get("message") or "")
        if not code and reply.between():
            return NotDone(reply.between(), reply.remedy(), certain=False, wait=retry_after(reply))
        why, todo = f"{message or 'no readable reason'} ({code or 'HTTP'} {reply.status})", ""
        if reply.status == 403:
            why = f"{message or 'access denied'} ({code or reply.status})"
            todo = (
                f"grant Application.ReadWrite.OwnedBy to the admin application {self._admin}, consent to it, and make "
                "its service principal an owner of the application"
            )
        elif code == "CredentialInvalidLifetimeAsPerAppPolicy":
            todo = "lower lifetime_days to what the tenant's app management policy allows"
        elif code == "CredentialTypeNotAllowedAsPerAppPolicy":
            todo = "exempt the application from the policy, or let it use a certificate or a federated credential"
        elif "size of the object has exceeded its limit" in message:
            todo = "remove secrets, redirect URIs or other entries that the application does not need"
        elif reply.status >= 500 or reply.status in _LATER:
            todo = "run it again later"
        elif reply.status == 401:
            todo = "check that the authority and the Graph endpoint belong to the same cloud"
        # What comes without Graph's own error code is from something in between, and proves nothing.
        certain = reply.status == 401 or (bool(code) and reply.status < 500 and reply.status not in _LATER)
        return NotDone(
            why,
            todo,
            certain=certain,
            busy=reply.status == 429 or code == _CONCURRENT,
            status=reply.status,
            wait=retry_after(reply),
        )


def _again(reply: Reply) -> bool:
    error = reply.json().get("error")
    return busy(reply) or (reply.status == 409 and isinstance(error, dict) and error.get("code") == _CONCURRENT)


def _busy_or_garbled(reply: Reply) -> bool:
    return _again(reply) or (reply.status == 200 and not reply.json())


def _server_time(reply: Reply) -> datetime:
    """Graph's own clock: a lifetime counted on a host whose clock is ahead would exceed a policy's maximum."""
    try:
        return parsedate_to_datetime(reply.headers.get("Date") or "").astimezone(timezone.utc)
    except (TypeError, ValueError, IndexError, OverflowError):
        return datetime.now(timezone.utc)


# ---- base.labels ----------------------------------------------------------------------------------------------------
# Labels of record fields, as people write them.


_PUNCTUATION = re.compile(r"[\W_]")


def normalise(label: str) -> str:
    """Return the label without case and punctuation: ``Client Secret`` and ``client_secret`` are the same."""
    return _PUNCTUATION.sub("", label.casefold())


def find(labels: Sequence[Any], wanted: str) -> int | None:
    """Return the index of the first label that equals ``wanted``, else of the first that does when normalised."""
    if wanted in labels:
        return labels.index(wanted)
    plain = normalise(wanted)
    for index, label in enumerate(labels):
        if isinstance(label, str) and normalise(label) == plain:
            return index
    return None


def text_of(value: Any) -> str:
    """Return a field's value as text without surrounding space: the first of a list, empty for nothing."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    return str(value).strip() if isinstance(value, (str, int, float)) else ""


class Labelled:
    """A record's values under their labels (or types, where a field has no label). It prints no value."""

    def __init__(self, uid: str, title: str, pairs: Iterable[tuple[str, Any]]) -> None:
        self.uid = uid
        self.title = title
        self._pairs: list[tuple[str, str]] = [(label, text_of(value)) for label, value in pairs]

    def get(self, *labels: str) -> str:
        """Return the first value that is not blank under one of the labels; empty where there is none.

        Each label is matched exactly first, then without case and punctuation.
        """
        pairs = [pair for pair in self._pairs if pair[1]]
        names = [label for label, value in pairs]
        for label in labels:
            index = find(names, label)
            if index is not None:
                return pairs[index][1]
        return ""

    def __repr__(self) -> str:
        return f"Labelled({self.uid!r}, {[label for label, value in self._pairs]!r})"


# ---- rotation.identity ----------------------------------------------------------------------------------------------
# Where the admin application's credential comes from: the first source that is there, in whatever order.


# Every spelling that Keeper's own tools give the fields of an Azure PAM configuration, normalised
# (Commander, the SaaS plug-ins' pamazure..., the KSM helper, Commander's old commands).
_CLIENT_ID = ("clientId", "pamazureclientid")
_CLIENT_SECRET = ("clientSecret", "pamazureclientsecret")
_TENANT_ID = ("tenantId", "pamazuretenantid")


@dataclass(frozen=True)
class Sources:
    """The places to look at, in the order in which they count; ``cloud`` counts before what records name."""

    explicit: Identity | None = None
    attached: Sequence[Labelled] = ()
    own: Labelled | None = None
    configuration: Labelled | None = None
    fallback: Identity | None = None
    cloud: Cloud | None = None
    default_cloud: Cloud = CLOUDS["AzureCloud"]
    # What to do where none of them holds an identity.
    advice: str = "attach a record with application_client_id, client_secret and tenant_id"


def choose(sources: Sources) -> tuple[Identity, Cloud]:
    """Return the admin identity and the cloud it lives in. Raises BadInput naming what is missing where."""
    identity, record = _identity(sources)
    return identity, sources.cloud or _cloud(record) or _cloud(sources.configuration) or sources.default_cloud


def admin_hints(sources: Sources, client_id: str) -> tuple[str, ...]:
    """Return the hints (first three characters) of secrets of the application ``client_id`` itself that are kept
    elsewhere than in its own record, and that an admin application signs in with: they are not to be removed, whichever
    of the sources this run uses."""
    held = [(identity.client_id, identity.secret) for identity in (sources.explicit, sources.fallback) if identity]
    holders: list[tuple[Labelled, Sequence[str], Sequence[str]]] = [
        (record, ("application_client_id",), ("client_secret",)) for record in sources.attached
    ]
    if sources.configuration is not None:
        holders.append((sources.configuration, _CLIENT_ID, _CLIENT_SECRET))
    held += [(record.get(*name), Secret(record.get(*secret))) for record, name, secret in holders]
    same = [secret for name, secret in held if name.strip().lower() == client_id and secret]
    return tuple(secret.reveal()[:3] for secret in same)


def _identity(sources: Sources) -> tuple[Identity, Labelled | None]:
    if sources.explicit:
        return sources.explicit, None
    carriers = [record for record in sources.attached if record.get("application_client_id")]
    if len({record.get("application_client_id").lower() for record in carriers}) > 1:
        raise BadInput(
            "several records with an application_client_id are attached",
            ", ".join(sorted(_name(record) for record in carriers)),
            "attach the record of one admin application only",
        )
    if not carriers and sources.own is not None and sources.own.get("application_client_id"):
        carriers = [sources.own]
    if carriers:
        record = min(carriers, key=lambda carrier: carrier.uid)
        return _read(record, ("application_client_id",), ("client_secret",), ("tenant_id",)), record
    configuration = sources.configuration
    if configuration is not None and (configuration.get(*_CLIENT_ID) or configuration.get(*_CLIENT_SECRET)):
        return _read(configuration, _CLIENT_ID, _CLIENT_SECRET, _TENANT_ID), configuration
    if sources.fallback:
        return sources.fallback, None
    if configuration is not None:
        raise BadInput(
            f"{_name(configuration)} holds no client id and client secret",
            "no other source of an admin identity is there",
            sources.advice,
        )
    raise BadInput(
        "no admin identity was found",
        "none of the records that could hold one does",
        sources.advice,
    )


def _read(
    record: Labelled, client_id: Sequence[str], client_secret: Sequence[str], tenant_id: Sequence[str]
) -> Identity:
    missing = [labels[0] for labels in (client_id, client_secret, tenant_id) if not record.get(*labels)]
    if missing:
        raise BadInput(f"{_name(record)} lacks " + " and ".join(missing), todo="fill in the fields")
    return Identity(
        record.get(*client_id),
        record.get(*tenant_id),
        _name(record),
        secret=Secret(record.get(*client_secret)),
        record_uid=record.uid,
    )


def _cloud(record: Labelled | None) -> Cloud | None:
    if record is None:
        return None
    authority, graph = record.get("Azure Authority FQDN"), record.get("Azure Graph Endpoint")
    if not authority and not graph:
        return None
    if not authority:
        raise BadInput(
            f"{_name(record)} has an Azure Graph Endpoint but no Azure Authority FQDN", todo="fill in both or none"
        )
    return custom_cloud(authority, graph, _name(record))


def _name(record: Labelled) -> str:
    return f"the record {record.title!r} ({record.uid})" if record.title else f"the record {record.uid}"


# ---- rotation.plan --------------------------------------------------------------------------------------------------
# What is to be done to an application, and why. Pure decisions: nothing here reads a clock, a vault or a network.


# Longer than a rotation may take (1075 s with the highest verify_timeout): an unpublished secret of ours that is older
# belongs to no run any more.
IN_FLIGHT = timedelta(minutes=20)
ROTATE, FINISH, NOTHING = "rotate", "finish", "nothing"
RETIRE_CHOICES = ("all", "managed", "none")
ROTATE_CHOICES = ("always", "expiring")
_LIMITS = {
    "lifetime_days": (1, 36500),
    "keep_previous": (0, 1000),
    "verify_timeout": (1, 900),
    "min_days_left": (0, 36500),
}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Policy:
    """How to rotate. Days are days of 24 hours, ``verify_timeout`` is in seconds. Raises BadInput when out of range."""

    rotate: str = "always"
    min_days_left: int = 30
    lifetime_days: int = 365
    keep_previous: int = 0
    retire: str = "all"
    verify: bool = True
    verify_timeout: int = 120

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise BadInput(f"{name} is {getattr(self, name)}", f"it must be from {least} to {most}", "correct it")
        for name, choices in (("retire", RETIRE_CHOICES), ("rotate", ROTATE_CHOICES)):
            if getattr(self, name) not in choices:
                raise BadInput(f"{name} is {getattr(self, name)!r}", "it must be " + " or ".join(choices), "correct it")


def policy_of(record: Labelled, **given: object) -> Policy:
    """Return the policy of what is ``given``, else of the record's optional Text fields, else the default.

    Raises BadInput for a field that cannot be read; one in whose place something is given is not looked at.
    """
    values: dict[str, object] = dict(given)
    for name in ("lifetime_days", "keep_previous", "verify_timeout"):
        text = record.get(name)
        if text and name not in given:
            # No int(): it also takes underscores and other scripts' digits.
            if not (text.isascii() and text.isdigit() and len(text) <= 9):
                raise _unreadable(record, name, text, "a whole number")
            values[name] = int(text)
    verify = record.get("verify").lower()
    if verify and "verify" not in given:
        if verify not in _TRUE + _FALSE:
            raise _unreadable(record, "verify", verify, "true or false")
        values["verify"] = verify in _TRUE
    if record.get("retire") and "retire" not in given:
        values["retire"] = record.get("retire").lower()
    try:
        return Policy(**values)  # type: ignore[arg-type]
    except BadInput as problem:
        where = "the options and the record" if given else "the record"
        raise BadInput(f"{where} {record.uid}: {problem.what}", problem.why, "correct it") from None


def _unreadable(record: Labelled, name: str, text: str, wanted: str) -> BadInput:
    return BadInput(f"the field {name} of the record {record.uid} is {text!r}", f"{wanted} is needed", "correct it")


def marker(record_uid: str, run_id: str) -> str:
    """Return the display name of a secret: by it a later run knows what an interrupted one has left."""
    return f"keeper/{record_uid}/{run_id}"


@dataclass(frozen=True)
class Published:
    """What the record shows before the rotation. ``hint`` is the first three characters of its secret."""

    record_uid: str
    key_id: str
    hint: str
    editable: bool = True
    expires: str = ""


@dataclass(frozen=True)
class Kept:
    """A secret that stays, and why."""

    key_id: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What would be done. ``make_room`` is removed before, ``retire`` after the new secret is published."""

    action: str
    reason: str
    end: datetime
    retire: tuple[Credential, ...] = ()
    keep: tuple[Kept, ...] = ()
    make_room: tuple[Credential, ...] = ()


def plan(policy: Policy, published: Published, application: Application, admin_hints: Sequence[str] = ()) -> Plan:
    """Say what is to be done, and why. Raises Refused for what would fail, before anything changes.

    ``admin_hints`` are the hints of the application's secrets that an admin application signs in with from another
    record, where the application is an admin application.
    """
    if not published.editable:
        raise Refused(
            f"the record {published.record_uid} is read-only for this KSM application",
            "no secret was made, as it could not be stored",
            "share the record's folder with the application with edit permission",
        )
    end = after(application.read_at, policy.lifetime_days)
    due = _due(policy, published, application)
    if due is None:
        current = application.credential(published.key_id)
        retire, keep = sort_out(
            policy, published, application.credentials, current, (), admin_hints, application.read_at
        )
        reason = f"the secret {published.key_id} is valid until {current.end_text if current else '?'}"
        if retire:
            return Plan(FINISH, reason + ", but an earlier run left secrets behind", end, tuple(retire), tuple(keep))
        return Plan(NOTHING, reason, end, (), tuple(keep))
    room = _room(published, application)
    before = [credential.key_id for credential in application.credentials]
    retire, keep = sort_out(policy, published, application.credentials, None, before, admin_hints, application.read_at)
    return Plan(ROTATE, due, end, tuple(retire), tuple(keep), room)


def _due(policy: Policy, published: Published, application: Application) -> str | None:
    if policy.rotate == "always":
        return "every run rotates"
    if not published.hint or not published.key_id:
        return "the record holds no secret yet"
    current = application.credential(published.key_id)
    if current is None:
        return f"the application has no secret {published.key_id}, which the record names"
    if current.hint and current.hint != published.hint:
        return f"the record's secret is not the one it names, {published.key_id}"
    if current.end is None or current.end - application.read_at < timedelta(days=policy.min_days_left):
        return f"the secret {published.key_id} expires {current.end_text or 'at an unknown time'}"
    return None


def _room(published: Published, application: Application) -> tuple[Credential, ...]:
    if not application.two_secrets or len(application.credentials) < 2:
        return ()
    current = application.credential(published.key_id)
    orphans = [item for item in application.credentials if is_orphan(item, published, current)]
    stale = [item for item in orphans if _older(item, application.read_at - IN_FLIGHT)]
    if len(application.credentials) - len(stale) < 2:
        return tuple(stale)
    raise Refused(
        f"{application.display_name} has no room for a second secret",
        "applications that are open to personal Microsoft accounts hold two secrets at the most, and it has two",
        "remove the one that is not in use"
        + (" (one is of a run that was interrupted minutes ago; a later run removes it by itself)" if orphans else ""),
    )


def is_orphan(credential: Credential, published: Published, current: Credential | None) -> bool:
    """Whether an interrupted run made this secret for the record and never published it.

    It is newer than the published one, ``current``; or nothing of ours was ever published: then the record names no key
    id, and what secret it may hold is not this one.
    """
    if not credential.display_name.startswith(marker(published.record_uid, "")):
        return False
    if current is None and guid(published.key_id) is None:
        return not published.hint or bool(credential.hint and credential.hint != published.hint)
    return current is not None and credential.key_id != current.key_id and not _older(credential, current.start)


def unlisted(policy: Policy, published: Published, application: Application) -> tuple[Credential, ...]:
    """Return the secret that the record names where Graph does not list it because it was made minutes ago and has not
    reached all replicas. That it is so young shows in its end. Where old secrets are to be kept it is left alone."""
    key_id, end = guid(published.key_id), parse_time(published.expires)
    if key_id is None or end is None or application.credential(key_id):
        return ()
    if policy.retire == "none" or policy.keep_previous:
        return ()
    made = end - timedelta(days=policy.lifetime_days)
    return (Credential(key_id),) if made > application.read_at - IN_FLIGHT else ()


def sort_out(
    policy: Policy,
    published: Published,
    listed: Iterable[Credential],
    new: Credential | None,
    before: Iterable[str],
    admin_hints: Sequence[str],
    now: datetime,
) -> tuple[list[Credential], list[Kept]]:
    """Return the secrets to remove (oldest first) and those to keep, out of ``listed``.

    ``new`` is the secret that stays (None while it is not made yet), ``before`` are the key ids that were seen before
    it was made. A secret that may have been made after it is never removed: somebody else made it, and may be about
    to publish it. Only a strictly earlier start, or having been seen before, proves that it was not.
    """
    known = {key_id.lower() for key_id in before}
    everything = {credential.key_id: credential for credential in listed}
    current = everything.get(published.key_id.strip().lower())
    finishing = new is not None and current is not None and new.key_id == current.key_id
    if new is not None:
        everything.pop(new.key_id, None)
    retire: list[Credential] = []
    keep: list[Kept] = []
    candidates: list[Credential] = []
    for item in everything.values():
        ours = item.display_name.startswith(marker(published.record_uid, ""))
        orphan = is_orphan(item, published, current)
        if new is not None and ours and item.display_name == new.display_name:
            retire.append(item)  # the answer to an earlier attempt of the same run was lost
        elif admin_hints and (item.hint in admin_hints if item.hint else not orphan):
            keep.append(Kept(item.key_id, "the admin application signs in with it"))
        elif finishing and orphan:
            # Nothing is published in this run, so another run may still be about to publish it.
            if _older(item, now - IN_FLIGHT):
                retire.append(item)
            else:
                keep.append(Kept(item.key_id, "another run may be about to publish it"))
        elif new is not None and not (
            item.key_id in known or _older(item, new.start, timedelta(0) if ours else IN_FLIGHT)
        ):
            keep.append(Kept(item.key_id, "it was made after the secret that is published"))
        elif orphan:
            retire.append(item)
        elif policy.retire == "none":
            keep.append(Kept(item.key_id, "retire is none"))
        elif policy.retire == "managed" and not ours and item is not current:
            keep.append(Kept(item.key_id, "it was not made for this record"))
        else:
            candidates.append(item)
    candidates.sort(key=_age, reverse=True)
    keep += [Kept(item.key_id, "keep_previous") for item in candidates[: policy.keep_previous]]
    retire += candidates[policy.keep_previous :]
    return sorted(retire, key=_age), keep


def _older(credential: Credential, than: datetime | None, by: timedelta = timedelta(0)) -> bool:
    return credential.start is not None and than is not None and credential.start < than - by


def _age(credential: Credential) -> tuple[float, str]:
    return (credential.start.timestamp() if credential.start else 0.0, credential.key_id)


# ---- services.vault -------------------------------------------------------------------------------------------------
# Keeper records over Keeper Secrets Manager (KSM): read, and saved only where nobody was faster.


try:
    from keeper_secrets_manager_core import SecretsManager
    from keeper_secrets_manager_core.configkeys import ConfigKeys
    from keeper_secrets_manager_core.crypto import CryptoUtils
    from keeper_secrets_manager_core.dto.dtos import Folder as SdkFolder
    from keeper_secrets_manager_core.dto.dtos import Record as SdkRecord
    from keeper_secrets_manager_core.dto.payload import KSMHttpResponse
    from keeper_secrets_manager_core.storage import InMemoryKeyValueStorage
except ImportError as _problem:
    KSM_PROBLEM = str(_problem)
else:
    KSM_PROBLEM = ""

_T = TypeVar("_T")
# The SDK's own first pause after a throttled call: the limit counts the calls of 10 s.
_THROTTLE_PAUSE = 11.0
_KEY_CHANGES = 3
_TEXT_TYPES = {"text", "secret", "multiline", "password", "note"}
# REGION:token or host:token, https://docs.keeper.io/secrets-manager
_ONE_TIME = re.compile(r"[\w.-]+:[\w-]{40,}={0,2}(?::.*)?")
_NEEDED = ("clientId", "privateKey", "appKey")


def parse_configuration(text: str, source: str) -> dict[str, str]:
    """Return a KSM client configuration from JSON or base64 of JSON; ``source`` names it in errors.

    Only a bound configuration is accepted: binding would spend its one-time token and keep the new keys in memory
    alone. Raises BadInput.
    """
    todo = "use the configuration of a device or Gateway that has been initialised"
    plain = text.strip()
    if not plain:
        raise BadInput(f"the Keeper configuration in {source} is empty", todo=todo)
    try:
        if not plain.startswith("{"):
            # The SDK fails on a trailing newline and on missing padding.
            compact = "".join(plain.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
            plain = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True).decode("utf-8-sig")
        values = json.loads(plain)
    except (ValueError, binascii.Error, RecursionError):
        values = None
    if _ONE_TIME.fullmatch(plain):
        why = "a device redeems it once, and keeps the configuration that it gets for it"
        raise BadInput(f"the Keeper configuration in {source} is a one-time token", why, todo)
    if not isinstance(values, dict):
        raise BadInput(f"the Keeper configuration in {source} is neither JSON nor base64 of JSON", todo=todo)
    # Keys that the SDK does not know all collapse into one.
    config = {key.value: str(values[key.value]) for key in ConfigKeys if values.get(key.value)}
    for name in ("privateKey", "appKey", "clientKey", "clientId"):
        if name in config:
            remember(config[name])
    missing = [name for name in _NEEDED if name not in config]
    if missing:
        why = "it was never initialised" if "clientKey" in config else "it is damaged"
        raise BadInput(f"the Keeper configuration in {source} lacks " + " and ".join(missing), why, todo)
    return config


@dataclass
class VaultRecord:
    """A record as one read has shown it."""

    uid: str
    title: str
    type: str
    revision: int
    editable: bool
    data: dict[str, Any] = field(repr=False)
    sdk: Any = field(repr=False)

    def view(self) -> Labelled:
        """Return all values, those of custom fields first."""
        pairs = [(str(item.get("label") or item.get("type") or ""), item.get("value")) for item in _fields(self.data)]
        return Labelled(self.uid, self.title, pairs)

    def value(self, label: str) -> str:
        """Return the value of the field that ``set`` would write; empty where there is none."""
        item = _field(self.data, label)
        return text_of(item.get("value")) if item else ""

    def secret(self, label: str) -> str:
        """Return the value that the field holds, with every space in it."""
        item = _field(self.data, label)
        values = item.get("value") if item else None
        value = values[0] if isinstance(values, list) and values else values
        return value if isinstance(value, str) else ""

    def has(self, label: str) -> bool:
        """Whether there is such a field."""
        return _field(self.data, label) is not None

    def shows(self, label: str) -> bool:
        """Whether everybody who opens the record sees the field's value."""
        item = _field(self.data, label)
        return item is not None and item.get("type") not in ("secret", "password")

    def unusable(self, label: str) -> str | None:
        """Return the type of the field when it cannot hold a text, else None."""
        item = _field(self.data, label)
        kind = str(item.get("type")) if item else "text"
        return None if kind in _TEXT_TYPES else kind

    def with_values(self, values: Mapping[str, str], secret_labels: Iterable[str]) -> VaultRecord:
        """Return a copy in which the fields hold the values; a missing field becomes a custom field.

        A new field is of type ``secret`` ("Hidden Field") where its label is in ``secret_labels``, else ``text``.
        """
        data = copy.deepcopy(self.data)
        for label, value in values.items():
            item = _field(data, label)
            if item is None:
                if not isinstance(data.get("custom"), list):
                    data["custom"] = []
                item = {"type": "secret" if label in secret_labels else "text", "label": label}
                data["custom"].append(item)
            item["value"] = [value]
        return VaultRecord(self.uid, self.title, self.type, self.revision, self.editable, data, self.sdk)


class NotSaved(Exception):
    """A save that was not confirmed.

    ``certain`` tells that Keeper has answered no (the record is to be read again all the same: an answer may be
    lost on its way and another one given instead); otherwise the request may still take effect, now or later,
    unless ``sent`` is False. ``wait`` is the pause in seconds that Keeper asked for.
    """

    def __init__(
        self, why: str, *, certain: bool, sent: bool = True, conflict: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(why)
        self.why = why
        self.certain = certain
        self.sent = sent
        self.conflict = conflict
        self.wait = wait


class _Answered(Exception):
    """Keeper answered with an error."""

    def __init__(self, status: int, code: str, message: str, wait: float | None, between: str, todo: str) -> None:
        super().__init__(between or f"{message or 'no readable reason'} ({code or 'HTTP'} {status})")
        self.status = status
        self.code = code
        self.message = message
        self.wait = wait
        self.between, self.todo = between, todo  # who else has answered, and what to do about that

    @property
    def throttled(self) -> bool:
        return self.code == "throttled" or self.status == 429


class Vault:
    """A KSM application's view of the vault, through the SDK, with our HTTP policy in place of the SDK's.

    The SDK has no timeouts, sleeps for minutes when throttled and follows ``error: key`` for ever (17.3.0,
    core.py ``_post_query``); all its requests go through the instance's ``post_function``.
    """

    def __init__(self, configuration: Mapping[str, str], http: Http, budget: Budget, log: Log) -> None:
        self._http = http
        self._budget = budget
        self._log = log
        self._key_changes = 0
        try:
            self._app_key = base64.b64decode(configuration["appKey"])
            # In memory: the SDK's file storage rewrites, and may empty, the Gateway's file.
            storage = InMemoryKeyValueStorage(json.dumps(dict(configuration)))
            self._sdk = SecretsManager(config=storage)
            # Keys that are damaged would show with the first call, as troubles with an answer.
            CryptoUtils.der_base64_private_key_to_private_key(configuration["privateKey"])
            CryptoUtils.encrypt_aes(b"", self._app_key)
            SecretsManager.generate_transmission_key(
                storage.get(ConfigKeys.KEY_SERVER_PUBLIC_KEY_ID), storage.get(ConfigKeys.KEY_SERVER_PUBLIC_KEY)
            )
        except Exception as problem:
            raise BadInput(
                "the Keeper configuration cannot be used",
                f"{type(problem).__name__}: {problem}",
                "use a configuration that has been initialised",
            ) from None
        self._sdk.post_function = self._post

    def read(self, uids: Iterable[str]) -> dict[str, VaultRecord]:
        """Return the records with these uids that the application may see. Raises Refused and BadInput.

        A record that is there but cannot be decrypted is an error, not a record that is missing.
        """
        wanted = list(uids)
        try:
            answer = self._patiently("get_secret", lambda: self._sdk.get_secrets(wanted, full_response=True))
        except _Answered as problem:
            if problem.between:
                raise Refused("Keeper was not reached", problem.between, problem.todo) from None
            raise Refused(
                "Keeper refused to read the record",
                str(problem),
                "check that the KSM application and its device are not expired, removed or locked to another address",
            ) from None
        except Unanswered as problem:
            raise Refused("Keeper was not reached", str(problem), problem.todo) from None
        found: dict[str, VaultRecord] = {}
        mended, lost = self._mend(answer)
        for sdk in list(answer.records or []) + mended:
            record = _record(sdk)
            # A shortcut shows the same record twice; one of the two may lie in a folder that is not editable.
            if record is not None and (record.uid not in found or record.editable > found[record.uid].editable):
                found[record.uid] = record
        for uid in wanted:
            if uid not in found and uid in lost:
                raise BadInput(
                    f"the record {uid} is there but could not be decrypted",
                    todo="share its folder with the KSM application again",
                )
        return found

    def save(self, record: VaultRecord, unlink: Sequence[str] = ()) -> None:
        """Save the record; Keeper takes it only at the revision it was read at. Raises NotSaved, Stopped.

        The files whose uids are in ``unlink`` are detached in the same step.
        A plain save: one with a transaction type would stay staged until somebody completes it, and the Gateway may
        hold a transaction of its own on the record.
        """
        record.sdk.dict = record.data
        record.sdk.raw_json = json.dumps(record.data)
        self._confirmed(lambda: self._sdk.save(record.sdk, links_to_remove=list(unlink) or None))

    def _confirmed(self, call: Callable[[], _T]) -> _T:
        try:
            return self._once(call)
        except _Answered as problem:
            raise NotSaved(
                str(problem),
                # What comes without Keeper's own error code is from something in between, and proves nothing.
                certain=problem.status < 500 and problem.status != 408 and bool(problem.code),
                conflict="out of sync" in problem.message.lower(),
                wait=_throttle_pause(1, problem.wait) if problem.throttled else None,
            ) from None
        except Unanswered as problem:
            raise NotSaved(str(problem), certain=False, sent=problem.sent) from None

    def _mend(self, answer: Any) -> tuple[list[Any], set[Any]]:
        """Decrypt what SDK 17.3.0 gives up on; return the records, and the uids of those that remain unreadable.

        It drops a record in ``records`` whose key is wrapped with its folder's key, a record with an attached file
        that it cannot decrypt, and a whole folder for one record of it.
        """
        raws = [bad.get("r") or {} for bad in answer.bad_records or []]
        keys = [folder.key for folder in answer.folders or []] + [self._app_key]
        for bad in answer.bad_folders or []:
            folder = bad.get("f") or {}
            raws += [raw for raw in folder.get("records") or [] if isinstance(raw, dict)]
            try:
                keys.append(SdkFolder({**folder, "records": []}, self._app_key).key)
            except Exception as problem:
                self._log.detail(f"folder {folder.get('folderUid')}: {type(problem).__name__}")
        mended, lost = [], set()
        for raw in raws:
            for key, variant in [(key, variant) for variant in (raw, {**raw, "files": None}) for key in keys]:
                try:
                    mended.append(SdkRecord(variant, key, raw.get("innerFolderUid") or ""))
                    break
                except Exception as problem:
                    self._log.detail(f"record {raw.get('recordUid')}: {type(problem).__name__}")
            else:
                lost.add(raw.get("recordUid"))
        return mended, lost

    def _patiently(self, name: str, call: Callable[[], _T]) -> _T:
        attempt = 1
        while True:
            problem: Exception
            try:
                return self._once(call)
            except Unanswered as unanswered:
                if not unanswered.sent:
                    raise
                problem, pause = unanswered, pause_before(attempt + 1)
            except _Answered as answered:
                problem = answered
                if answered.throttled:
                    pause = _throttle_pause(attempt, answered.wait)
                    self._log.say(f"Keeper throttles; trying again in {pause:.0f} s")
                elif answered.status >= 500 or answered.status == 408:
                    pause = pause_before(attempt + 1)
                else:
                    raise
            if attempt >= 4 or pause >= self._budget.left():
                raise problem
            self._log.detail(f"{name}: {problem}; trying again in {pause:.1f} s")
            self._budget.pause(pause)
            attempt += 1

    def _once(self, call: Callable[[], _T]) -> _T:
        self._key_changes = 0
        try:
            return call()
        except (Unanswered, _Answered):
            raise
        except Exception as problem:
            # What is left are the SDK's troubles with an answer that it cannot decrypt or parse.
            raise Unanswered(f"Keeper's answer could not be read ({type(problem).__name__})", sent=True) from None

    def _post(self, url: str, key: Any, payload: Any, verify: Any = True, proxy: Any = None) -> Any:
        headers = {
            "Content-Type": "application/octet-stream",
            "PublicKeyId": str(key.publicKeyId),
            "TransmissionKey": base64.b64encode(key.encryptedKey).decode(),
            "Authorization": "Signature " + base64.b64encode(payload.signature).decode(),
        }
        name = "Keeper " + url.rsplit("/", 1)[-1]
        reply = self._http.call("POST", url, name=name, headers=headers, body=payload.encrypted_payload)
        if reply.status == 200:
            if not reply.body and url.endswith("/get_secret"):
                raise Unanswered("Keeper's answer is empty", sent=True)
            if reply.page():
                raise Unanswered(reply.between(), sent=True, todo=reply.remedy())
            return KSMHttpResponse(200, reply.body, reply)
        raise_for = _error(reply)
        if raise_for.code == "key" and self._key_changes < _KEY_CHANGES:
            self._key_changes += 1
            return KSMHttpResponse(reply.status, reply.body, _SdkReply(reply))
        raise raise_for


class _SdkReply:
    """An answer under the names that the SDK's error handler reads."""

    def __init__(self, reply: Reply) -> None:
        self.status_code = reply.status
        self.text = reply.text
        self.reason = ""


def _error(reply: Reply) -> _Answered:
    body = reply.json()
    code = str(body.get("result_code") or body.get("error") or "")
    message = str(body.get("message") or body.get("additional_info") or "")
    wait = retry_after(reply)
    if wait is None:
        wait = seconds_in(body.get("retry_after"))
    return _Answered(reply.status, code, message, wait, "" if code else reply.between(), reply.remedy())


def _throttle_pause(attempt: int, asked: float | None) -> float:
    pause = asked if asked else _THROTTLE_PAUSE * 2.0 ** (attempt - 1)
    return pause * random.uniform(1.0, 1.1)


def _record(sdk: Any) -> VaultRecord | None:
    if not isinstance(sdk.dict, dict) or not sdk.uid:
        return None
    # is_editable is None where the server leaves it out.
    editable = sdk.is_editable is not False
    return VaultRecord(sdk.uid, str(sdk.title or ""), str(sdk.type or ""), sdk.revision or 0, editable, sdk.dict, sdk)


def _fields(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for section in ("custom", "fields"):
        items = data.get(section)
        found += [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return found


def _field(data: Mapping[str, Any], label: str) -> dict[str, Any] | None:
    items = _fields(data)
    index = find([item.get("label") for item in items], label)
    return None if index is None else items[index]


# ---- rotation.publishing --------------------------------------------------------------------------------------------
# The new secret in the vault: published where nobody was faster, and never in doubt afterwards.


FIELD_APPLICATION, FIELD_SECRET = "application_object_id", "client_secret"
FIELD_KEY_ID, FIELD_EXPIRES = "client_secret_id", "expires"
_SAVES = 7


class Shown(Enum):
    """Whose secret the vault shows."""

    OURS = 1
    ANOTHER = 2
    UNKNOWN = 3


@dataclass
class _Save:
    """A save that may have taken effect, or may do so later."""

    revision: int
    answered_no: bool = False


class Publishing:
    """One new secret on its way into one record. ``follow`` is whether the record names the application."""

    def __init__(
        self,
        vault: Vault,
        record: VaultRecord,
        new: Credential,
        secret: Secret,
        *,
        follow: bool,
        budget: Budget,
        log: Log,
    ) -> None:
        self._vault, self._record, self._new, self._secret = vault, record, new, secret
        self._follow, self._budget, self._log = follow, budget, log
        self._saves: list[_Save] = []
        self.confirmed = False  # Keeper has said that it took a save, and nothing has been seen that says otherwise

    def publish(self) -> None:
        """Save the three fields where nobody was faster, and read them back. Raises RolledBack, Refused, Stopped."""
        new = self._new
        values = {FIELD_SECRET: self._secret.reveal(), FIELD_KEY_ID: new.key_id, FIELD_EXPIRES: new.end_text}
        current = self._record
        with self._budget.phase("publish the secret", PUBLISH):
            for attempt in range(1, _SAVES + 1):
                problem = self._save(current.with_values(values, (FIELD_SECRET,)))
                if problem is not None:
                    self._say(problem)
                    if problem.wait:
                        self._budget.pause(problem.wait)
                    if not problem.sent:
                        raise RolledBack("Keeper was not reached", problem.why, "check the network and run it again")
                current = self._reread()
                if self._shows_ours(current):
                    self._log.say(f"published in the record {current.title!r} ({current.uid})")
                    return
                self._settle_saves(current)
                self._stand_back(current)
                final = problem is not None and problem.certain and not problem.conflict and not problem.wait
                if final and problem is not None:
                    raise RolledBack(
                        f"the record {current.uid} could not be saved",
                        problem.why,
                        "check that the record's folder is shared with edit permission",
                    )
                self._budget.pause(pause_before(attempt + 1))
        raise RolledBack(f"the record {self._record.uid} was not saved", "it changes all the time", "run it again")

    def in_doubt(self) -> bool:
        """Whether a save has taken effect, or may."""
        return bool(self._saves)

    def shown(self) -> Shown:
        """Find out whether our secret is published, for good. Raises Stopped."""
        for attempt in range(1, 5):
            try:
                current = self._reread()
            except RotationError as problem:
                self._log.say(problem.message)
                if self.confirmed:
                    return Shown.OURS
                return Shown.ANOTHER if isinstance(problem, RolledBack) and not self._saves else Shown.UNKNOWN
            if self._shows_ours(current):
                return Shown.OURS
            self._settle_saves(current)
            if not self._saves:
                return Shown.ANOTHER
            # A save is under way that was never answered. Saving the record as it is moves its revision on, and the
            # late save can then no longer take effect.
            self._log.say("making sure that no late save changes the record")
            try:
                self._vault.save(current)
            except NotSaved as problem:
                self._say(problem)
                self._budget.pause(problem.wait or pause_before(attempt + 1))
        return Shown.UNKNOWN

    def _say(self, problem: NotSaved) -> None:
        unsure = problem.sent and not problem.certain
        self._log.say(f"the save was not {'confirmed' if unsure else 'made'}: {problem.why}; reading the record")

    def _save(self, record: VaultRecord) -> NotSaved | None:
        attempt = _Save(record.revision)
        self._saves.append(attempt)
        try:
            self._vault.save(record)
        except NotSaved as problem:
            attempt.answered_no = problem.certain
            if not problem.sent:
                self._saves.remove(attempt)
            return problem
        self.confirmed = True
        return None

    def _reread(self) -> VaultRecord:
        uid = self._record.uid
        record = self._vault.read([uid]).get(uid)
        if record is None:
            # It may show to others what this application cannot see any more.
            self._saves = [save for save in self._saves if not save.answered_no]
            raise RolledBack(
                f"the record {uid} has gone while it was rotated",
                "it was removed, or is no longer shared with the KSM application",
                "restore the record or its sharing and run it again",
            )
        return record

    def _shows_ours(self, record: VaultRecord) -> bool:
        same_id = record.value(FIELD_KEY_ID).lower() == self._new.key_id
        return same_id and record.secret(FIELD_SECRET) == self._secret.reveal()

    def _settle_saves(self, record: VaultRecord) -> None:
        """Forget the saves that can no longer take effect, now that ``record`` was read and does not show them: Keeper
        has answered no to them, or they carry a revision that has passed."""
        self._saves = [save for save in self._saves if not save.answered_no and save.revision >= record.revision]
        self.confirmed = self.confirmed and bool(self._saves)

    def _stand_back(self, record: VaultRecord) -> None:
        if record.secret(FIELD_SECRET) != self._record.secret(FIELD_SECRET):
            raise RolledBack(
                f"somebody else published a secret in the record {record.uid} meanwhile",
                "this run stands back",
                "nothing, if it was another rotation",
            )
        same = record.value(FIELD_APPLICATION).lower() == self._record.value(FIELD_APPLICATION).lower()
        if self._follow and not same:
            raise RolledBack(f"the record {record.uid} names another application now", todo="run it again")


def check_fields(record: VaultRecord, named: bool) -> None:
    """Raise BadInput where the fields cannot be used; ``named`` is whether the application is named elsewhere."""

    def unusable(why: str, todo: str) -> BadInput:
        return BadInput(f"the record {record.title!r} ({record.uid}) cannot be used", why, todo)

    for label in (FIELD_APPLICATION, FIELD_SECRET, FIELD_KEY_ID, FIELD_EXPIRES):
        kind = record.unusable(label)
        if kind:
            raise unusable(f"its field {label} is of type {kind}", "change the field to Text (Hidden for secrets)")
    if not named and not record.value(FIELD_APPLICATION):
        raise unusable(
            f"it has no {FIELD_APPLICATION}", "enter the application's Object ID there (the client id will do)"
        )


# ---- rotation.making ------------------------------------------------------------------------------------------------
# The new secret at Graph: made once, found again where the answer was lost, and removed where it has to be.


# How long Graph is watched for a secret whose making was not answered, and for one that it says it does not know.
_LOOK = (0.0, 1.0, 2.0, 4.0)
_SETTLE = 8.0
_MAKES = 4


class _Doubt(IntEnum):
    """Whether Graph may hold a secret of this run whose value is lost."""

    NONE = 0
    ANSWERED_NO = 1
    UNANSWERED = 2


class Making:
    """The secrets that one run makes, known by ``display_name``, which no other run has."""

    def __init__(self, graph: Graph, application: Application, display_name: str, budget: Budget, log: Log) -> None:
        self._graph, self._application, self.display_name = graph, application, display_name
        self._budget, self._log = budget, log
        self._doubt = _Doubt.NONE
        self.tried = False
        self._undone: list[str] = []
        self.made: tuple[Credential, Secret] | None = None
        self.removed: list[str] = []
        self.left: list[str] = []  # after undo has failed

    def make(self, end: datetime) -> tuple[Credential, Secret]:
        """Make one secret that is valid until ``end``. Raises Refused, Stopped.

        addPassword is not idempotent: before it is repeated, what an unanswered attempt may have made is removed.
        """
        name = self._application.display_name
        with self._budget.phase("create a secret", CREATE):
            for attempt in range(1, _MAKES + 1):
                self.tried, before, self._doubt = True, self._doubt, _Doubt.UNANSWERED
                try:
                    self.made = self._graph.add_password(self._application, self.display_name, end)
                    self.left = [self.made[0].key_id]
                except NotDone as problem:
                    failed = Refused(f"no new secret could be made for {name}", problem.why, problem.todo)
                    if problem.certain or problem.busy:
                        self._doubt = max(before, _Doubt.ANSWERED_NO if problem.status else _Doubt.NONE)
                    if problem.certain:
                        raise failed from None
                    self._log.say(f"making a secret was not confirmed: {problem.why}")
                    pause = pause_before(attempt + 1, problem.wait)
                    if attempt == _MAKES or pause >= self._budget.left():
                        raise failed from None
                    self._budget.pause(pause)
                    self._remove_unanswered()
                else:
                    self._doubt = before
                    key_id = self.made[0].key_id
                    self._log.say(f"made the secret {key_id}, valid until {self.made[0].end_text}")
                    return self.made
        raise AssertionError("unreachable")

    def _remove_unanswered(self) -> None:
        """Remove secrets of this run whose value is lost; whatever cannot be removed now is tried again later."""
        try:
            for item in self.look():
                if self._graph.remove_password(self._application, item.key_id):
                    self._log.say(f"removed the secret {item.key_id}, whose value was lost on the way")
                    self.removed.append(item.key_id)
                    self._undone.append(item.key_id)
        except NotDone as problem:
            self._log.say(f"what was made without an answer is not removed yet: {problem.why}")

    def unanswered(self) -> bool:
        """Whether Graph may hold a secret of this run that has not shown yet."""
        return self._doubt is _Doubt.UNANSWERED

    def look(self) -> list[Credential]:
        """Return this run's secrets other than the one in hand.

        Where making one was not answered, watch Graph for some seconds, as reads lag behind writes. Raises NotDone.
        """
        key_id = self.made[0].key_id if self.made else ""
        for pause in _LOOK if self.unanswered() else _LOOK[:1]:
            if pause >= self._budget.left():
                break
            if pause:
                self._budget.pause(pause)
            seen = self._graph.read(self._application).credentials
            found = [item for item in seen if item.display_name == self.display_name and item.key_id != key_id]
            found = [item for item in found if item.key_id not in self.removed]
            if found:
                return found
        return []

    def undo(self) -> bool | None:
        """Remove what this run made; return whether all of it is gone, None where nothing was found. Raises Stopped."""
        found = [self.made[0].key_id] if self.made else []
        try:
            found += [item.key_id for item in self.look()] if self._doubt is not _Doubt.NONE else []
            self.left = list(found)
            for key_id in found:
                self.remove_surely(key_id)
                self.left.remove(key_id)
                self._undone.append(key_id)
                self._log.say(f"removed the new secret {key_id}")
        except NotDone as problem:
            self._log.say(f"removing what was made did not succeed: {problem.why}")
            # Graph has refused to make one, and no look can be had at what it has: its word counts.
            return None if not found and self._doubt is _Doubt.ANSWERED_NO and not self._undone else False
        return True if self._undone else None

    def remove_surely(self, key_id: str) -> bool:
        """Remove a secret that was made moments ago; return False where it is gone already. Raises NotDone, Stopped.

        Graph says that it does not know such a secret as long as the replica asked has not seen it: only when it
        stays unseen for some seconds is it gone.
        """
        attempt = 1
        unseen_from: float | None = None  # as the time that was left when it was first seen to be absent
        while True:
            attempt += 1
            if _unless_busy(lambda: self._graph.remove_password(self._application, key_id)):
                return True
            self._budget.pause(pause_before(min(attempt, 4)))
            seen = _unless_busy(lambda: self._graph.read(self._application).credential(key_id) is not None)
            if seen:
                unseen_from = None
            elif seen is not None and unseen_from is None:
                unseen_from = self._budget.left()
            elif seen is not None and unseen_from is not None and unseen_from - self._budget.left() >= _SETTLE:
                return False


def _unless_busy(call: Callable[[], bool]) -> bool | None:
    """Return what the call does; None where Graph cannot answer now. Raises NotDone where it refuses."""
    try:
        return call()
    except NotDone as problem:
        if problem.certain:
            raise
        return None


# ---- rotation.retiring ----------------------------------------------------------------------------------------------
# The old secrets at Graph: removed once their successor is published, as far as they may be.


# Given the secrets that are listed and the time, those to remove and those to keep.
Choice = Callable[[Sequence[Credential], datetime], "tuple[list[Credential], list[Kept]]"]


class Retiring:
    """The removal of one application's old secrets, of which Graph may not list some (``unlisted``) yet.

    ``kept`` are those that stay, known once ``retire`` has run.
    """

    def __init__(
        self,
        graph: Graph,
        application: Application,
        unlisted: Sequence[Credential],
        making: Making,
        choose: Choice,
        budget: Budget,
        log: Log,
    ) -> None:
        self._graph, self._application, self._unlisted, self._making = graph, application, unlisted, making
        self._choose, self._budget, self._log = choose, budget, log
        self.kept: list[Kept] = []

    def retire(self) -> None:
        """Remove the old secrets, going by a fresh list. One that fails keeps no other from being removed.

        Raises NotDone for the first that was not removed, RotationError where the admin application cannot sign in any
        more, Stopped.
        """
        refusals: list[NotDone] = []
        with self._budget.phase("remove the old secrets", RETIRE):
            fresh = self._graph.read(self._application)
            late = self._making.look() if self._making.unanswered() else []
            # Reads lag behind writes: what either of the two lists shows is there, or was a moment ago.
            listed = (*self._unlisted, *self._application.credentials, *fresh.credentials, *late)
            old, self.kept = self._choose(listed, fresh.read_at)
            for stays in self.kept:
                self._log.say(f"keeping the secret {stays.key_id}: {stays.reason}")
            for item in old:
                try:
                    self._remove(item)
                except NotDone as refusal:
                    self._log.say(f"the secret {item.key_id} was not removed: {refusal.why}")
                    refusals.append(refusal)
        if refusals:
            raise refusals[0]

    def _remove(self, item: Credential) -> None:
        if item.key_id in self._making.removed:
            return
        young = item.display_name == self._making.display_name or item in self._unlisted
        remove = self._making.remove_surely if young else self._remove_old
        if not remove(item.key_id):
            self._log.say(f"the secret {item.key_id} was gone already")
            return
        self._log.say(f"removed the secret {item.key_id}")
        self._making.removed.append(item.key_id)

    def _remove_old(self, key_id: str) -> bool:
        return self._graph.remove_password(self._application, key_id)

    def remaining(self) -> list[str] | None:
        """Return the key ids that are left after ``retire`` has failed; None where that is not to be had.

        A removal whose answer was lost has taken effect more often than not.
        """
        if self._making.unanswered():
            return None
        try:
            with self._budget.phase("see what remains", REVIEW):
                fresh = self._graph.read(self._application)
        except (NotDone, RotationError, Stopped) as problem:
            self._log.detail(f"what remains is not known: {problem}")
            return None
        listed = {item.key_id for item in fresh.credentials}
        removed = self._making.removed
        gone = [item.key_id for item in self._application.credentials if item.key_id not in listed]
        removed += [key_id for key_id in gone if key_id not in removed]
        old, self.kept = self._choose(fresh.credentials, fresh.read_at)
        return [item.key_id for item in old]


# ---- rotation.transaction -------------------------------------------------------------------------------------------
# The rotation of one application: create, prove, publish, retire; and the way back from every step.
#
# The order is what keeps the vault's secret valid at every instant: nothing is stored before it is seen to sign in, and
# nothing is removed before its successor is read back from the vault. What cannot be known is never guessed: a secret
# whose save may still take effect is not removed.


# A secret that was published before needs no time to spread.
_SECONDS_FOR_KNOWN = 10


@dataclass
class Outcome:
    """How a rotation ended. ``facts`` hold no secret."""

    status: str
    exit_status: int
    message: str
    changed: bool
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the machine-readable form."""
        outcome = {"status": self.status, "changed": self.changed, "message": self.message, **self.facts}
        scrubbed: dict[str, Any] = scrub_all(outcome)
        return scrubbed


@dataclass(frozen=True)
class Task:
    """What to rotate. ``application`` overrides the record's own field; empty means the record's."""

    vault: Vault
    record: VaultRecord
    sources: Sources
    policy: Policy
    application: str = ""


def perform(prepare: Callable[[], Task], http: Http, budget: Budget, log: Log, check: bool = False) -> Outcome:
    """Rotate, or with ``check`` only say what would be done; return how it ended. It raises none of RotationError.

    ``prepare`` reads whatever names the task; nothing changes while it runs.
    """
    facts: dict[str, Any] = {}
    try:
        try:
            with budget.phase("resolve the application", RESOLVE):
                rotation = Rotation(prepare(), http, budget, log, facts)
        except Stopped as stop:
            raise Refused("nothing was changed", str(stop), "run it again") from None
        return rotation.describe() if check else _to_the_end(rotation, budget)
    except RotationError as problem:
        log.say(problem.message)
        facts.update(problem.facts)
        changed = isinstance(problem, (Incomplete, Orphan))
        return Outcome(problem.status, problem.exit_status, problem.message, changed, facts)


def _to_the_end(rotation: Rotation, budget: Budget) -> Outcome:
    try:
        try:
            return rotation.run()
        except (Exception, Stopped) as failure:
            budget.shield()
            return rotation.end(failure)
    except Stopped as stop:  # the one signal that is let through came before the shield was up
        budget.shield()
        return rotation.end(stop)


class Rotation:
    """One run. Making the object resolves everything and plans; it changes nothing. Raises BadInput, Refused."""

    def __init__(self, task: Task, http: Http, budget: Budget, log: Log, facts: dict[str, Any]) -> None:
        self._vault, self._record, self._policy = task.vault, task.record, task.policy
        self._budget, self._log, self._facts = budget, log, facts
        facts["record"] = self._record.uid
        self._identity, cloud = choose(task.sources)
        check_fields(self._record, bool(task.application))
        identifier = task.application or self._record.value(FIELD_APPLICATION)
        self._follow = not task.application
        self._entra = Entra(http, cloud, self._identity.tenant_id, budget, log)
        self._graph = Graph(http, cloud.graph, self._identity.client_id, self._sign_in, log)
        admin = self._identity.client_id.strip().lower()
        app = self._graph.find(identifier, client_id_first=identifier.strip().lower() == admin)
        if self._identity.record_uid == self._record.uid and app.client_id != admin:
            raise BadInput(
                f"the record {self._record.uid} holds an admin application's credential, but names another application",
                "its client_secret would be overwritten",
                "remove application_client_id from it, and attach the admin application's own record",
            )
        self._application = app
        facts["application"] = {
            "display_name": app.display_name,
            "object_id": app.object_id,
            "client_id": app.client_id,
        }
        secret = self._record.value(FIELD_SECRET)
        key_id, expires = self._record.value(FIELD_KEY_ID), self._record.value(FIELD_EXPIRES)
        self._published = Published(self._record.uid, key_id, secret[:3], self._record.editable, expires)
        facts.update(previous_key_id=key_id, previous_expires=expires)
        facts["secrets_before"] = {item.key_id: item.end_text for item in app.credentials}
        self._admin_hints = admin_hints(task.sources, app.client_id)
        self._plan: Plan = plan(self._policy, self._published, app, self._admin_hints)
        if self._record.shows(FIELD_SECRET):
            log.say(f"the field {FIELD_SECRET} is no Hidden field: everybody who opens the record sees the secret")
        log.say(f"{app.display_name} ({app.client_id}) has {len(app.credentials)} secret(s); {self._plan.reason}")
        self._making = Making(self._graph, app, marker(self._record.uid, uuid.uuid4().hex), budget, log)
        self._publishing: Publishing | None = None
        self._unlisted = unlisted(self._policy, self._published, app)
        self._retiring = Retiring(self._graph, app, self._unlisted, self._making, self._choose, budget, log)
        self._current: Credential | None = None  # what the vault shows and will show: ours, once it is published
        self._complete = False

    def describe(self) -> Outcome:
        """Say what would be done."""
        todo, name = self._plan, self._application.display_name
        self._facts["kept"] = _as_facts(todo.keep)
        self._facts["would_remove"] = [item.key_id for item in todo.make_room + todo.retire]
        if todo.action == NOTHING:
            return self._unchanged()
        verb = "would be rotated" if todo.action != FINISH else "needs no new secret, but would be cleaned up"
        text = f"{name} {verb}: {todo.reason}; old secrets that would be removed: {len(self._facts['would_remove'])}."
        self._log.say(text)
        self._facts["expires"] = todo.end.strftime("%Y-%m-%dT%H:%M:%SZ") if todo.action != FINISH else ""
        return Outcome("planned", 0, text, True, self._facts)

    def run(self) -> Outcome:
        """Carry the plan out. Whatever it raises is to be handed to ``end``."""
        if self._plan.action == NOTHING:
            return self._unchanged()
        if self._plan.action == FINISH and self._published_signs_in():
            self._current = self._application.credential(self._published.key_id)
        else:
            self._make_room()
            new, secret = self._making.make(self._plan.end)
            self._prove(secret, self._policy.verify_timeout)
            self._publishing = Publishing(
                self._vault, self._record, new, secret, follow=self._follow, budget=self._budget, log=self._log
            )
            self._publishing.publish()
            self._current = new
            if self._identity.record_uid == self._record.uid:
                # A token may have to be fetched again after the secret that it came from is removed.
                self._identity = replace(self._identity, secret=secret)
        self._retiring.retire()
        self._complete = True
        self._budget.shield()
        return self._rotated()

    def end(self, failure: BaseException) -> Outcome:
        """Undo what ``run`` has left half done, as far as that is certain to be safe.

        Raises one of RotationError, which tells the truth about what remains.
        """
        if self._complete:
            return self._rotated()
        if self._current is not None:
            remaining = self._retiring.remaining()
            if remaining == []:
                return self._rotated()
            raise self._incomplete(self._current, failure, remaining) from None
        raise self._undo(failure) from None

    def _rotated(self) -> Outcome:
        new = self._current
        key_id, end = (new.key_id, new.end_text) if new else ("", "")
        self._facts.update(key_id=key_id, expires=end, removed=self._making.removed)
        self._facts["kept"] = _as_facts(self._retiring.kept)
        did = "was rotated" if self._plan.action != FINISH else "needed no new secret and was cleaned up"
        removed = len(self._making.removed)
        name = self._application.display_name
        text = f"{name} {did}: its secret {key_id} is valid until {end}, {removed} old removed."
        self._log.say(text)
        return Outcome("rotated", 0, text, True, self._facts)

    # -- before anything changes

    def _sign_in(self) -> Secret:
        return self._entra.token(self._identity)

    def _unchanged(self) -> Outcome:
        self._facts["kept"] = _as_facts(self._plan.keep)
        current = self._application.credential(self._published.key_id)
        self._facts.update(key_id=self._published.key_id, expires=current.end_text if current else "")
        text = f"{self._application.display_name} needs no rotation: {self._plan.reason}."
        self._log.say(text)
        return Outcome("unchanged", 0, text, False, self._facts)

    # -- forward

    def _make_room(self) -> None:
        for item in self._plan.make_room:
            self._log.say(f"removing the secret {item.key_id} that an interrupted run left, to make room")
            try:
                with self._budget.phase("make room for a new secret", MAKE_ROOM):
                    self._graph.remove_password(self._application, item.key_id)
            except NotDone as problem:
                raise Refused("no room could be made for a new secret", problem.why, problem.todo) from None
            self._making.removed.append(item.key_id)

    def _published_signs_in(self) -> bool:
        """Whether the vault's secret signs in; where it does not, plan a rotation in place of the clean-up."""
        try:
            self._prove(Secret(self._record.secret(FIELD_SECRET)), min(_SECONDS_FOR_KNOWN, self._policy.verify_timeout))
        except RolledBack as problem:
            self._log.say(f"the vault's secret does not sign in, so it is rotated: {problem.why}")
            always = replace(self._policy, rotate="always")
            self._plan = plan(always, self._published, self._application, self._admin_hints)
            return False
        return True

    def _prove(self, secret: Secret, limit: int) -> None:
        if not self._policy.verify:
            self._log.say("not proving that the secret signs in (verify is false)")
            self._facts["verified"] = False
            return
        name, why = self._application.display_name, "no answer"
        try:
            with self._budget.phase("prove the secret", limit):
                for attempt in range(1, 1000):
                    proof, why = self._entra.prove(self._application.client_id, secret)
                    if proof is Proof.SIGNED_IN:
                        self._log.say("the secret signs in")
                        self._facts["verified"] = True
                        return
                    if proof is Proof.NEVER:
                        raise RolledBack(
                            f"{name} cannot sign in with its new secret",
                            why,
                            "remove the cause, or set verify to false if it cannot sign in from this host",
                        )
                    if attempt == 1:
                        self._log.say(f"the secret does not sign in yet, waiting up to {limit} s: {why}")
                    # The last attempt is made shortly before the time is over.
                    self._budget.pause(min(pause_before(min(attempt, 4) + 1), self._budget.left() - 0.5))
        except OutOfTime:
            pass
        raise RolledBack(
            f"the new secret of {name} did not sign in within {limit} s", why, "run it again, or raise verify_timeout"
        )

    def _choose(self, listed: Sequence[Credential], now: datetime) -> tuple[list[Credential], list[Kept]]:
        seen_before = self._application.credentials if self._plan.action != FINISH else ()
        before = [item.key_id for item in (*seen_before, *self._unlisted)]
        return sort_out(self._policy, self._published, listed, self._current, before, self._admin_hints, now)

    # -- back

    def _incomplete(self, new: Credential, why: BaseException, remaining: list[str] | None) -> Incomplete:
        removed = self._making.removed
        if remaining is None:
            remaining = [item.key_id for item in self._plan.retire if item.key_id not in removed]
        todo = why.todo if isinstance(why, (NotDone, RotationError)) else ""
        return Incomplete(
            f"{self._application.display_name} has the secret {new.key_id} in the vault, which is valid, but old "
            f"secrets may remain ({', '.join(remaining) or 'not counted'})",
            _why(why),
            (todo + ", then " if todo else "") + "run it again; the next run removes them",
            key_id=new.key_id,
            expires=new.end_text,
            removed=removed,
            remaining=remaining,
        )

    def _undo(self, failure: BaseException) -> RotationError:
        name, making = self._application.display_name, self._making
        wanted = failure if isinstance(failure, RotationError) else None
        unchanged = wanted or Refused(f"{name} was not rotated, nothing was changed", _why(failure), "run it again")
        if not making.tried:
            return unchanged
        if making.made is not None:
            self._log.say("undoing: " + _why(failure))
        removed: bool | None = False
        shown = Shown.ANOTHER
        try:
            with self._budget.phase("undo", UNDO):
                if self._publishing is not None and self._publishing.in_doubt():
                    shown = Shown.OURS if self._publishing.confirmed else Shown.UNKNOWN  # as long as no look says more
                    shown = self._publishing.shown()
                if shown is Shown.ANOTHER:
                    removed = making.undo()
        except (Exception, Stopped) as problem:
            self._log.say(f"undoing did not succeed: {_why(problem)}")
        if shown is Shown.OURS and making.made is not None:
            return self._incomplete(making.made[0], failure, None)
        if shown is Shown.UNKNOWN:
            return self._orphan(failure, "the vault may show it, so that it was left in place")
        if removed is False:
            return self._orphan(failure, "it could not be removed")
        if removed is None:
            return unchanged
        todo = wanted.todo if wanted else "run it again"
        return RolledBack(f"{name} was not rotated, the new secret was removed again", _why(failure), todo)

    def _orphan(self, failure: BaseException, why: str) -> Orphan:
        name = self._making.display_name
        key_ids = list(self._making.left)
        named = f"secret {', '.join(key_ids)}" if key_ids else f"secret named {name}, if it was made at all,"
        return Orphan(
            f"{self._application.display_name} may have kept the new {named} beside its old ones, which still work",
            f"{_why(failure)}; {why}",
            "run it again, the next run removes it; or remove it in Entra if the record does not show its id",
            orphans=key_ids,
            marker=name,
        )


def _as_facts(kept: Sequence[Kept]) -> list[dict[str, str]]:
    return [{"key_id": item.key_id, "reason": item.reason} for item in kept]


def _why(failure: BaseException) -> str:
    if isinstance(failure, RotationError):
        return failure.what + (": " + failure.why if failure.why else "")
    if isinstance(failure, (Stopped, NotDone)):
        return str(failure)
    return f"unexpected {type(failure).__name__}: {failure}"


# ---- rotation.doctor ------------------------------------------------------------------------------------------------
# A look at everything that a rotation needs, without changing anything.


OK, WARNING, FAILURE = "ok", "warning", "failure"
PACKAGES = ("requests", "msal", "keeper-secrets-manager-core")
# Entra accepts no more than five minutes; a minute is what a host that keeps time is far below.
LARGEST_SKEW = 60.0
_ALL = {"Application.ReadWrite.All", "Directory.ReadWrite.All"}
_OWNED = "Application.ReadWrite.OwnedBy"


@dataclass(frozen=True)
class Check:
    """What one look has shown; ``todo`` is empty where all is well."""

    name: str
    level: str
    text: str
    todo: str = ""


class Doctor:
    """Looks at one thing after the other; a look that needs what an earlier one did not find is left out."""

    def __init__(self, budget: Budget, log: Log) -> None:
        self._budget, self._log = budget, log
        self.checks: list[Check] = []
        self._exit_status = 0

    def examine(self, prepare: Callable[[], Task], http: Http) -> Outcome:
        """Check everything for the task that ``prepare`` reads. It raises none of RotationError."""
        self._add("packages", OK, f"Python {platform.python_version()}, {packages()} ({sys.executable})")
        try:
            with self._budget.phase("look at everything", RESOLVE):
                self._examine(prepare, http)
        except RotationError as problem:
            self._exit_status = self._exit_status or problem.exit_status
            self._add(
                "rotation",
                FAILURE,
                problem.what + (f": {problem.why}" if problem.why else ""),
                problem.todo or "remove the cause",
            )
        return self.outcome()

    def facts(self) -> dict[str, Any]:
        """Return the checks as JSON data."""
        return {"checks": [check.__dict__ for check in self.checks]}

    def outcome(self) -> Outcome:
        """Return what all looks together say."""
        first = next((check for check in self.checks if check.level == FAILURE), None)
        counts = {level: sum(check.level == level for check in self.checks) for level in (OK, WARNING, FAILURE)}
        status = {0: "unchanged", BadInput.exit_status: "bad_input", Refused.exit_status: "refused"}[self._exit_status]
        count = ", ".join(f"{number} {level}" for level, number in counts.items())
        found = f"{first.text}. Next: {first.todo}" if first else "everything that a rotation needs is there"
        text = f"{found} (checked, nothing was changed: {count})."
        self._log.say(text)
        return Outcome(status, self._exit_status, text, False, self.facts())

    def _add(self, name: str, level: str, text: str, todo: str = "") -> None:
        check = Check(name, level, text, todo)
        self.checks.append(check)
        self._log.say(f"{level}: {name}: {text}" + (f". Next: {todo}" if todo else ""))

    def _examine(self, prepare: Callable[[], Task], http: Http) -> None:
        task = prepare()
        record = task.record
        self._add("Keeper", OK, "the configuration is usable, the vault was read over trusted TLS")
        self._fields(task)
        identity, cloud = choose(task.sources)
        entra = Entra(http, cloud, identity.tenant_id, self._budget, self._log)
        graph = Graph(http, cloud.graph, identity.client_id, lambda: entra.token(identity), self._log)
        identifier = task.application or record.value(FIELD_APPLICATION)
        application = graph.find(identifier)
        self._add("admin", OK, f"{identity.client_id} from {identity.source} signs in at {cloud.authority}")
        text = f"{application.display_name}, object id {application.object_id}, client id {application.client_id}"
        self._add("application", OK, f"{text}, {len(application.credentials)} secret(s)")
        self._permission(graph, application)
        self._clock(application)
        self._current(entra, application, record.secret(FIELD_SECRET), task.policy.verify)
        secret = record.value(FIELD_SECRET)
        published = Published(record.uid, record.value(FIELD_KEY_ID), secret[:3], record.editable)
        todo = plan(task.policy, published, application, admin_hints(task.sources, application.client_id))
        self._add("room", OK, "there is room for a new secret" + (", after an orphan" if todo.make_room else ""))

    def _fields(self, task: Task) -> None:
        record = task.record
        check_fields(record, bool(task.application))
        missing = [name for name in (FIELD_SECRET, FIELD_KEY_ID, FIELD_EXPIRES) if not record.has(name)]
        note = f"; {', '.join(missing)} will be created" if missing else ""
        if record.shows(FIELD_SECRET):
            note += f"; {FIELD_SECRET} is no Hidden field, everybody who opens the record sees it"
        if record.type != "pamUser":
            note += f"; it is of type {record.type}, which the Gateway does not rotate"
        self._add("record", WARNING if note else OK, f"{record.title!r} ({record.uid}) has usable fields{note}")
        if record.editable:
            self._add("edit right", OK, "the record may be edited")

    def _permission(self, graph: Graph, application: Application) -> None:
        roles = graph.roles()
        if roles is None:
            self._add("permission", WARNING, "the token does not show the permissions", "make sure of " + _OWNED)
        elif roles & _ALL:
            self._add("permission", OK, ", ".join(sorted(roles & _ALL)))
        elif _OWNED not in roles:
            self._exit_status = Refused.exit_status
            todo = f"grant {_OWNED} to the admin application and consent to it"
            self._add("permission", FAILURE, f"the token carries {', '.join(sorted(roles)) or 'none'}", todo)
        else:
            owns = graph.owns(application)
            if owns is False:
                self._exit_status = Refused.exit_status
                todo = "make the admin application's service principal an owner of the application"
                self._add("permission", FAILURE, f"{_OWNED}, but it does not own the application", todo)
            elif owns is None:
                self._add("permission", WARNING, f"{_OWNED}; Graph does not tell who owns the application")
            else:
                self._add("permission", OK, f"{_OWNED}, and it owns the application")

    def _clock(self, application: Application) -> None:
        skew = abs((application.read_at - datetime.now(timezone.utc)).total_seconds())
        level = OK if skew <= LARGEST_SKEW else WARNING
        todo = "" if level == OK else "let the host keep its time (NTP)"
        self._add("clock", level, f"differs from Graph's by {skew:.0f} s", todo)

    def _current(self, entra: Entra, application: Application, secret: str, verify: bool) -> None:
        if not secret:
            self._add("current secret", WARNING, "the record holds none yet")
            return
        proof, why = entra.prove(application.client_id, Secret(secret))
        if proof is Proof.SIGNED_IN:
            self._add("current secret", OK, "the vault's secret signs in")
        elif proof is Proof.NOT_YET:
            self._add("current secret", WARNING, f"the vault's secret does not sign in: {why}", "rotate it")
        else:
            # Neither would a new one.
            self._exit_status = self._exit_status or (Refused.exit_status if verify else 0)
            todo = "remove the cause, or set verify to false if it cannot sign in from this host"
            self._add("current secret", FAILURE if verify else WARNING, f"the application cannot sign in: {why}", todo)


def dry_run(prepare: Callable[[], Task], http: Http, budget: Budget, log: Log, check: bool) -> Outcome:
    """Look at everything; with ``check``, and where nothing stands in the way, also say what would be done."""
    doctor = Doctor(budget, log)
    outcome = doctor.examine(prepare, http)
    if check and outcome.exit_status == 0:
        outcome = perform(prepare, http, budget, log, check=True)
        outcome.facts.update(doctor.facts())
    return outcome


def packages() -> str:
    """Return the runtime packages with their versions."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (version unknown)")
    return ", ".join(found)


# ---- script.gateway -------------------------------------------------------------------------------------------------
# The Keeper Gateway's side of a PAM Script: what it passes on stdin, and where its own configuration is.


_TODO = "let the Gateway run the script, or pass it the line that the Gateway does"
_LONGEST = 64 * 1024 * 1024
# Text in the variable itself, or the path of a file; first that is there.
_VARIABLES = (
    ("GATEWAY_CONFIG", False),
    ("GATEWAY_CONFIG_PATH", True),
    ("KSM_CONFIG", False),
    ("KSM_CONFIG_FILE", True),
)
_FILES = ("/etc/keeper-gateway/gateway-config.json", "~/.keeper/gateway-config.json")


@dataclass(frozen=True)
class Request:
    """What the Gateway asks for. The passwords that it also passes are of no use here and are not kept."""

    user_uid: str
    provider_uid: str
    records: tuple[Labelled, ...]

    def configuration(self) -> Labelled | None:
        """Return the PAM configuration, where it was passed."""
        return next((record for record in self.records if record.uid and record.uid == self.provider_uid), None)

    def attached(self) -> tuple[Labelled, ...]:
        """Return the records attached to the script: neither the application's own nor the PAM configuration."""
        return tuple(record for record in self.records if record.uid not in ("", self.user_uid, self.provider_uid))


def read_request(stream: IO[bytes]) -> Request:
    """Read the Gateway's line: base64 of a JSON object whose ``records`` is base64 of a JSON array.

    https://docs.keeper.io/keeperpam/privileged-access-manager/password-rotation/post-rotation-scripts/parameters.
    A record's keys are the labels of its fields, else their types. Raises BadInput.
    """
    line = b""
    while not line.strip():
        line = stream.readline(_LONGEST)
        if not line:
            raise BadInput("stdin is empty", todo=_TODO)
    message = _decode(line, "stdin")
    if not isinstance(message, dict):
        raise BadInput("stdin holds no JSON object", todo=_TODO)
    missing = [key for key in ("userRecordUid", "records") if key not in message]
    if missing:
        raise BadInput("stdin lacks " + " and ".join(missing), todo=_TODO)
    records = message["records"]
    if not isinstance(records, str):
        raise BadInput("records on stdin is no text", todo=_TODO)
    items = _decode(records.encode("ascii", "replace"), "records on stdin") if records.strip() else []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadInput("records on stdin is no JSON array of objects", todo=_TODO)
    return Request(
        _uid(message, "userRecordUid", required=True),
        _uid(message, "providerRecordUid", required=False),
        tuple(_labelled(item) for item in items),
    )


def _decode(data: bytes, what: str) -> Any:
    text = data.strip()
    if text.startswith(b"\xef\xbb\xbf"):  # PowerShell may put a byte order mark in front
        text = text[3:]
    try:
        compact = text.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        decoded = base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise BadInput(f"{what} is no base64", todo=_TODO) from None
    try:
        return json.loads(decoded.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise BadInput(f"{what} is base64, but not of JSON", todo=_TODO) from None


def _uid(message: Mapping[str, Any], key: str, required: bool) -> str:
    value = message.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value.strip()):
        raise BadInput(f"{key} on stdin is no record uid", todo=_TODO)
    return value.strip()


def _labelled(item: Mapping[str, Any]) -> Labelled:
    pairs = [(str(key), value) for key, value in item.items() if key not in ("uid", "title")]
    return Labelled(text_of(item.get("uid")), text_of(item.get("title")), pairs)


def find_configuration(environ: Mapping[str, str], read: Callable[[str], str] | None = None) -> tuple[str, str]:
    """Return the text of the Gateway's configuration, and where it was found.

    It is read once and never opened for writing. The first source that is there counts: one that is there but cannot
    be read is an error, no reason to go on to the next. Raises BadInput.
    """
    read = read or _read_file
    for name, is_path in _VARIABLES:
        value = environ.get(name, "").strip()
        if value:
            return (read(value), f"{value} ({name})") if is_path else (value, name)
    looked: list[str] = []
    for path in _FILES:
        full = os.path.expanduser(path)
        if not full.startswith("~") and _is_there(full):
            return read(full), full
        looked.append(path)
    raise BadInput(
        "no Keeper configuration was found",
        "looked at " + ", ".join([name for name, is_path in _VARIABLES] + looked),
        "set GATEWAY_CONFIG_PATH to the Gateway's configuration file",
    )


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        return True  # in a folder that this user may not enter: worth an error, not silence
    except OSError:
        return False
    return True


def _read_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_LONGEST).decode("utf-8-sig")
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or "it is no text"
        todo = "correct the path" if isinstance(problem, FileNotFoundError) else "run the script as the Gateway's user"
        raise BadInput(f"the Keeper configuration {path} cannot be read", why, todo) from None


# ---- script.pam_script ----------------------------------------------------------------------------------------------
# The PAM Script: what the Keeper Gateway runs when it rotates the record of an application.


_HELP = """Rotates the client secret of a Microsoft Entra application and publishes it in its Keeper record.
The Keeper Gateway runs it as a PAM Script (rotation method "Run PAM scripts only") and passes it the record on
stdin: one line, base64 of a JSON object with userRecordUid, providerRecordUid and records, which is base64 of a JSON
array. It writes its steps to stderr and one line of JSON to stdout."""
_EPILOG = """exit status: 0 rotated, 1 bug, 2 bad input, 3 refused, 4 rolled back, 5 incomplete (new secret valid, old
ones remain), 6 orphan (a new secret could not be removed)"""


def missing_libraries() -> dict[str, str]:
    """Return the packages that cannot be imported, by their names on the package index, with the reason."""
    problems = {"requests": REQUESTS_PROBLEM, "msal": MSAL_PROBLEM, "keeper-secrets-manager-core": KSM_PROBLEM}
    return {name: problem for name, problem in problems.items() if problem}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script form; return the exit status."""
    parser = argparse.ArgumentParser(prog="rotate_azure_app.py", description=_HELP, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("--doctor", action="store_true", help="change nothing, check everything that a rotation needs")
    parser.add_argument("--check", action="store_true", help="the same, and say what would be done")
    parser.add_argument("--record", metavar="UID", default="", help="with these: the record, in place of stdin")
    parser.add_argument("--provider", metavar="UID", default="", help="with --record: the PAM configuration")
    parser.add_argument("--debug", action="store_true", help="write every call, and a traceback for a bug, to stderr")
    options = parser.parse_args(arguments)
    dry = options.doctor or options.check
    if (options.record and not dry) or (options.provider and not options.record):
        parser.error("--record goes with --doctor or --check, --provider with --record")
    if not options.record and sys.stdin is not None and sys.stdin.isatty():
        parser.print_help(sys.stderr)
        return BadInput.exit_status
    log = Log(to_stderr, options.debug)
    outcome = _run(log, options, os.environ)
    _print({"version": VERSION, **outcome.as_dict()})
    return outcome.exit_status


def _run(log: Log, options: argparse.Namespace, environ: Mapping[str, str]) -> Outcome:
    try:
        dry = options.doctor or options.check
        missing = missing_libraries()
        if missing:
            raise BadInput(
                "Python packages are missing: " + ", ".join(missing),
                "; ".join(missing.values()),
                f"{sys.executable} -m pip install {' '.join(missing)}, or let the script command name another Python",
            )
        budget = Budget()
        catch_signals(budget)
        http = Http(budget, log)

        requests: list[Request] = []

        def task() -> Task:
            if not requests:
                named = Request(options.record, options.provider, ()) if options.record else None
                requests.append(named or read_request(_stdin()))
            return prepare(requests[0], http, budget, log, environ)

        outcome = dry_run(task, http, budget, log, options.check) if dry else perform(task, http, budget, log)
        budget.shield()
        return outcome
    except BadInput as problem:
        log.say(problem.message)
        return Outcome(problem.status, problem.exit_status, problem.message, False)
    except Stopped as stop:
        # Only outside of a rotation's phases, where nothing has begun or everything has ended.
        problem_ = Refused("the run was stopped", str(stop), "run it again")
        log.say(problem_.message)
        return Outcome(problem_.status, problem_.exit_status, problem_.message, False)
    except Exception as bug:
        text = f"a bug: {type(bug).__name__}: {bug}. Next: run it with --debug and report what it shows."
        log.say(text)
        if options.debug:
            for line in traceback.format_exc().splitlines():
                log.detail(line)
        return Outcome("error", 1, scrub(text), False)


def _stdin() -> IO[bytes]:
    if sys.stdin is None:
        raise BadInput("stdin is closed", todo="let the Gateway run the script")
    return sys.stdin.buffer


def prepare(request: Request, http: Http, budget: Budget, log: Log, environ: Mapping[str, str]) -> Task:
    """Read the Gateway's configuration and the records. Raises BadInput, Refused."""
    text, source = find_configuration(environ)
    vault = Vault(parse_configuration(text, source), http, budget, log)
    configuration = request.configuration()
    uids = [request.user_uid]
    if configuration is None and request.provider_uid:
        uids.append(request.provider_uid)
    found = vault.read(uids)
    record = found.get(request.user_uid)
    if record is None:
        raise BadInput(
            f"the record {request.user_uid} was not found",
            f"it is not shared with the KSM application of {source}, or does not exist",
            "share the record's folder with the Gateway's application, with edit permission",
        )
    if configuration is None and request.provider_uid in found:
        configuration = found[request.provider_uid].view()
    own = record.view()
    advice = "fill in the PAM configuration's client id and secret, or attach the admin application's record"
    if not request.provider_uid:
        advice = "attach the admin application's record to the script, or name the PAM configuration (--provider)"
    elif configuration is None:
        advice = f"share the folder of the PAM configuration {request.provider_uid} with the Gateway's application"
    sources = Sources(advice=advice, attached=request.attached(), own=own, configuration=configuration)
    return Task(vault, record, sources, policy_of(own))


def _print(outcome: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        # Nobody reads: the exit status still has to tell. Python would replace it when it flushes at exit.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


if __name__ == "__main__":
    raise SystemExit(main())
