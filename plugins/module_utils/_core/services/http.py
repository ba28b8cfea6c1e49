# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP with one policy: timeouts on every call, kept-alive connections, retries only where they are safe."""

from __future__ import annotations

import json
import math
import random
import ssl
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any

from ..base.redact import Log
from ..base.timing import Budget
from ..base.version import VERSION

try:
    import requests
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
except ImportError as _problem:
    REQUESTS_PROBLEM = str(_problem)
else:
    REQUESTS_PROBLEM = ""

# What to do where a service is not reached at all.
REACH = "check the network and the proxy; for a proxy with a CA of its own, set REQUESTS_CA_BUNDLE to the PEM file"
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 20.0
ATTEMPTS = 5
CONNECT_ATTEMPTS = 3
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0
_LARGEST_ANSWER = 64 * 1024 * 1024


class Unanswered(Exception):
    """No complete answer came. ``sent`` is False where the request has certainly not reached the server."""

    def __init__(self, why: str, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class Reply:
    """A complete HTTP answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

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


def busy(reply: Reply) -> bool:
    """Whether the same request may well succeed a little later (for calls that are safe to repeat)."""
    return reply.status in (408, 424, 429) or reply.status >= 500


def retry_after(reply: Reply, now: float | None = None) -> float | None:
    """Return the seconds that ``Retry-After`` asks for: a decimal (as in Graph's throttling page) or an HTTP date.

    None where the header is missing or unreadable; never negative. ``now`` is the Unix time, for dates.
    """
    text = (reply.headers.get("Retry-After") or "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - (time.time() if now is None else now)
        except (TypeError, ValueError, IndexError, OverflowError):
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

    connect_timeout = CONNECT_TIMEOUT
    connect_attempts = CONNECT_ATTEMPTS
    heeds_environment = True  # proxies, above all

    def __init__(self, budget: Budget, log: Log) -> None:
        self._budget = budget
        self._log = log
        self._session = self._new_session()

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
        while True:
            last = None
            started = time.monotonic()
            try:
                reply = self._once(request, fresh)
            except Unanswered as problem:
                self._log.detail(f"{name}: {problem}")
                if (problem.sent and retry is None) or attempt >= (ATTEMPTS if problem.sent else self.connect_attempts):
                    raise
                pause = pause_before(attempt + 1)
                if pause >= self._budget.left():
                    raise
            else:
                self._log.detail(f"{name}: HTTP {reply.status} after {time.monotonic() - started:.2f} s")
                if attempt >= ATTEMPTS or retry is None or not retry(reply):
                    return reply
                pause = pause_before(attempt + 1, retry_after(reply))
                if pause >= self._budget.left():
                    return reply
                last = reply
            if not fresh and (last is None or last.status == 503):
                # Graph: "always make new retry requests over a new HTTP connection"
                # https://learn.microsoft.com/graph/errors
                self._session.close()
            self._budget.pause(pause)
            attempt += 1

    def _once(self, request: dict[str, Any], fresh: bool) -> Reply:
        self._budget.check()
        if not fresh:
            return self._send(self._session, request)
        with self._new_session() as session:
            return self._send(session, request)

    def _send(self, session: requests.Session, request: dict[str, Any]) -> Reply:
        left = max(self._budget.left(), 0.01)
        timeout = (min(self.connect_timeout, left), min(READ_TIMEOUT, left))
        try:
            with session.request(**request, timeout=timeout, allow_redirects=False, stream=True) as response:
                content = bytearray()
                for piece in response.iter_content(65536):
                    content += piece
                    self._budget.check()
                    if len(content) > _LARGEST_ANSWER:
                        raise Unanswered("the answer is larger than 64 MiB", sent=True)
                return Reply(response.status_code, response.headers, bytes(content))
        except OSError as problem:  # what requests raises, and a bundle of CAs that is not there
            raise Unanswered(_words(problem, self.connect_timeout), sent=not _not_sent(problem)) from None

    def _new_session(self) -> requests.Session:
        session = _session()
        session.trust_env = self.heeds_environment
        return session

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


class LocalHttp(Http):
    """The way to a service of this host or its link: through no proxy, and quickly given up where nothing is there."""

    connect_timeout = 2.5
    connect_attempts = 1
    heeds_environment = False


def _session() -> requests.Session:
    session = requests.Session()
    session.headers["User-Agent"] = "keeperpam.azure/" + VERSION
    # requests replaces our Authorization header by an entry of ~/.netrc unless an auth object is set.
    session.auth = _leave_alone
    # A cookie would bind what follows to the replica that has set it.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


def _leave_alone(request: Any) -> Any:
    return request


def _not_sent(problem: Exception) -> bool:
    # Neither an SSLError nor a ProxyError proves anything by itself: a connection, or a proxy's tunnel, that is cut
    # after the request shows as one too.
    root = _root(problem)
    if isinstance(root, (NewConnectionError, ConnectTimeoutError, ssl.SSLCertVerificationError)):
        return True
    no_request = not isinstance(problem, requests.exceptions.RequestException)
    return no_request or str(root).startswith("Tunnel connection failed")


def _root(problem: BaseException) -> BaseException:
    while True:
        inner = getattr(problem, "reason", None) or getattr(problem, "original_error", None)
        inner = inner or (problem.args[0] if problem.args else None)
        if isinstance(problem, NewConnectionError) or not isinstance(inner, BaseException):
            return problem
        problem = inner


def _words(problem: Exception, connect_timeout: float) -> str:
    root = _root(problem)
    if isinstance(root, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted ({root.verify_message})"
    if isinstance(problem, requests.exceptions.ConnectTimeout):
        return f"no connection within {connect_timeout:g} s"
    if isinstance(problem, requests.exceptions.Timeout) or "timed out" in str(root):
        return f"no complete answer within {READ_TIMEOUT:.0f} s"
    if not isinstance(problem, requests.exceptions.RequestException):
        return str(problem)
    if _not_sent(problem):
        return "no connection: " + str(root).split(": ", 1)[-1]
    return "the connection broke before the answer was complete"
