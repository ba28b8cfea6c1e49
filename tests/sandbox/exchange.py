# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP exchange as the emulated services see it: what came in, what goes out, and what is done in between."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Callable, Protocol, Union

Body = Union[None, str, bytes, Mapping[str, Any]]


@dataclass(frozen=True)
class Request:
    """A request after TLS and HTTP were taken off; `path` is percent-decoded and carries no query.

    `turn` is how many requests this service has had before: what takes turns goes by it.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message[str, str]  # looked up without regard to case
    body: bytes
    turn: int = 0


@dataclass
class Response:
    """An answer. `changed` says that a store differs from before; `detail` goes to the log, so it holds no secret.

    Each of `cookies` becomes a Set-Cookie header. A `streamed` body goes out in chunks, gzip'ed where the client takes
    that.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    changed: bool = False
    detail: str = ""
    cookies: Sequence[str] = ()
    streamed: bool = False

    @classmethod
    def of(cls, status: int, body: Body = None, headers: Mapping[str, str] | None = None, **rest: Any) -> Response:
        """Make an answer from text, bytes or something that becomes JSON; a content type in `headers` wins."""
        if body is None:
            data, kind = b"", ""
        elif isinstance(body, (str, bytes)):
            data = body.encode() if isinstance(body, str) else body
            kind = "text/plain; charset=utf-8" if isinstance(body, str) else "application/octet-stream"
        else:
            data, kind = json.dumps(body).encode(), "application/json; charset=utf-8"
        return cls(status, data, {**({"Content-Type": kind} if kind else {}), **(headers or {})}, **rest)


class Refusal(Exception):
    """Raised anywhere below a service to end the exchange with this answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


@dataclass(frozen=True)
class Operation:
    """What a request asks for, under the name that the log and the fault plan use.

    `subject` is the thing it is about (an application, a record), `perform` takes the effect and is called with
    the state locked. A `silent` operation is neither logged nor subject to faults.
    """

    name: str
    subject: str
    request: Request
    perform: Callable[[], Response]
    silent: bool = False


class Service(Protocol):
    """One of the emulated services, as the TLS listener uses it. `url` is where it is reached, once it is."""

    name: str
    url: str

    def operation(self, request: Request) -> Operation:
        """Say what the request asks for; changes nothing yet."""

    def error(self, request: Request, status: int, /, code: str = "", message: str = "", **extra: Any) -> Response:
        """Make an error answer in the shape that this service uses."""
