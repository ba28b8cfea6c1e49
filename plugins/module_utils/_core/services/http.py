# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP with one policy: timeouts on every call, kept-alive connections, retries only where they are safe."""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from ..base.errors import OutOfTime
from ..base.redact import Log, foreign
from ..base.timing import Budget
from .connection import HOST, REACH, TOO_OLD, Line, NotConnected, Session, in_seconds

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
LOCAL_TIMEOUT, LOCAL_ATTEMPTS = 2.5, 1
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
            title = f" with the title '{foreign(page['title'])}'" if page["title"] else ""
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


class Pace:
    """The pace at which requests are sent: each as soon as it is there. Whoever shares a limit has another one."""

    def wait(self, method: str, url: str, budget: Budget) -> None:
        """Wait until such a request may be sent. Raises Stopped."""

    def book(self, name: str, budget: Budget) -> None:
        """Wait so already now that the next request to the endpoint of that name need not. Raises Stopped."""

    def answered(self, method: str, url: str, reply: Reply | None) -> None:
        """Note the answer to a request that was waited for; None where there was none."""


class Lines:
    """Sessions, each with its line, that are used by one caller at a time and kept alive between calls."""

    def __init__(self) -> None:
        self._idle: list[tuple[requests.Session, Line]] = []
        self._families: dict[str, int] = {}
        self.busy: dict[Line, Budget] = {}  # whose request is under way on it

    def take(self, fresh: bool, local: bool) -> tuple[requests.Session, Line]:
        """Return a session, one without any connection where it must be ``fresh``. Raises NotConnected."""
        try:
            return self._new(local) if fresh else self._idle.pop()
        except IndexError:
            return self._new(local)

    def _new(self, local: bool) -> tuple[requests.Session, Line]:
        line = Line()
        line.families = self._families
        session = Session(line)
        session.trust_env = not local  # proxies, above all
        return session, line

    def keep(self, session: requests.Session, line: Line) -> None:
        """Let somebody else have the session."""
        line.socket = None
        self._idle.append((session, line))

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop()[0].close()


class Http:
    """The one way out. Not for use by several threads, unlike its ``lines``.

    ``local`` is for services of this host and its link: through no proxy, and given up quickly where none is there.
    """

    def __init__(
        self, budget: Budget, log: Log, local: bool = False, lines: Lines | None = None, pace: Pace | None = None
    ) -> None:
        self.budget = budget
        self._log = log
        self._local = local
        self._lines = lines or Lines()
        self._line = Line()
        self.pace = pace or Pace()
        self.asked_at = float("-inf")  # when (of the budget's ``awake``) the last request was sent

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
        then only a request that was not sent is sent again. None is sent after what it goes by has become too old
        (``Budget.good_until``). With ``fresh`` every attempt goes over a new connection
        of its own, which another replica may answer. Raises Unanswered, and Stopped when the phase ends.
        """
        request = {"method": method, "url": url, "headers": headers, "data": body, "files": files, "params": query}
        attempt, sent = 1, False
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
                attempts = ATTEMPTS if problem.sent else LOCAL_ATTEMPTS if self._local else CONNECT_ATTEMPTS
                lasting = problem.lasting or (problem.sent and retry is None)
                problem.sent = sent = sent or problem.sent
                pause = pause_before(attempt + 1)
                if lasting or attempt >= attempts or pause >= self.budget.sending():
                    raise
            else:
                self._log.detail(f"{name}: HTTP {reply.status} after {time.monotonic() - started:.2f} s")
                before = f"; before, {reply.host} answered HTTP {reply.status}"
                if attempt >= ATTEMPTS or retry is None or not retry(reply):
                    return reply
                pause = pause_before(attempt + 1, retry_after(reply))
                if pause >= self.budget.sending():
                    return reply
                last, sent = reply, True
            if not fresh and (last is None or last.status == 503):
                # Graph: "always make new retry requests over a new HTTP connection"
                # https://learn.microsoft.com/graph/errors
                self.close()
            self.budget.pause(pause)
            attempt += 1

    def _once(self, request: dict[str, Any], fresh: bool) -> Reply:
        self._line = Line()
        self.pace.wait(request["method"], request["url"], self.budget)
        reply = None
        try:
            self.budget.admit()
            if not self.budget.sending():
                raise NotConnected(TOO_OLD, "run it again", lasting=True)
            session, self._line = self._lines.take(fresh, self._local)
            reply = self._over(session, request, fresh)
            return reply
        except NotConnected as problem:
            raise Unanswered(str(problem), False, problem.todo, problem.lasting) from None
        finally:
            self.pace.answered(request["method"], request["url"], reply)

    def _over(self, session: requests.Session, request: dict[str, Any], fresh: bool) -> Reply:
        line, lines = self._line, self._lines
        line.sent, line.awaited, line.may_send = False, "", self.budget.sending
        lines.busy[line] = self.budget
        try:
            return self._send(session, request)
        finally:
            self.asked_at = line.sent_at
            del lines.busy[line]
            if fresh:
                session.close()
            else:
                lines.keep(session, line)

    def _send(self, session: requests.Session, request: dict[str, Any]) -> Reply:
        left, sending = max(self.budget.left(), 0.01), max(self.budget.sending(), 0.01)
        connect, read = min(LOCAL_TIMEOUT if self._local else CONNECT_TIMEOUT, sending), min(READ_TIMEOUT, left)
        try:
            with session.request(**request, timeout=(connect, read), allow_redirects=False, stream=True) as response:
                content = bytearray()
                for piece in response.iter_content(65536):
                    content += piece
                    self.budget.check()
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
                raise Unanswered(f"{line.awaited} was not complete within {in_seconds(read)}", sent=True) from None
            raise Unanswered(
                f"the connection to {line.where} broke before the answer was complete", sent=True
            ) from None

    def close(self) -> None:
        """Close the connections."""
        self._lines.close()
