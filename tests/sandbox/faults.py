# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault plan: which request goes wrong, at which moment, and how."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Callable

from .exchange import Body, Operation, Response, Service

CONCURRENCY = "Error due to concurrent requests being made to the tenant. Please wait briefly and retry."
THROTTLED = "Due to repeated attempts, your request has been throttled. Try again in 2 minutes."
BAD_GATEWAY = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1>"
    "</center>\r\n</body>\r\n</html>\r\n"
)

ANSWERS = (
    "status",
    "html502",
    "throttled403",
    "throttled429",
    "out_of_sync",
    "key",
    "concurrency409",
    "concurrency503",
    "graph429",
)
MANNERS = ("drop", "delay", "drip", "truncate", "kill")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with an operation.

    `op` is a name as in the log ("*": any); `about` narrows it to a subject that contains this text (an application's
    id as addressed, a record's uid). It fires on the `nth` matching request since it was added, for `times` requests
    in a row (None: for ever). `moment` "before": the operation takes no effect; "after": it does, then this happens.

    Kinds that replace the answer: "status" (status, body, headers), "html502", "throttled403" and "throttled429"
    (Keeper; retry_after), "out_of_sync" and "key" (Keeper; key_id), "concurrency409", "concurrency503" and "graph429"
    (Graph; retry_after, decimal seconds or an HTTP date).
    Kinds that change its manner: "drop" (the connection ends without an answer), "truncate" (half of the body), "drip"
    (the answer byte by byte, `seconds` apart), "delay" (seconds; with "before" the effect comes after the delay, even
    when the client has gone), "kill" (signal to the client; then the connection is held until the client is gone or
    `seconds` passed, and `then` it is dropped or, with then="answer", answered).
    """

    op: str
    nth: int = 1
    moment: str = "before"
    kind: str = "status"
    times: int | None = 1
    about: str = ""
    status: int = 500
    body: Body = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 10.0
    retry_after: int | float | str | None = None
    key_id: int | str = 10
    signal: int = 15
    then: str = "drop"

    def __post_init__(self) -> None:
        if self.kind not in ANSWERS + MANNERS:
            raise ValueError(f"no such kind of fault: {self.kind}")
        if self.moment not in ("before", "after") or self.then not in ("drop", "answer") or self.nth < 1:
            raise ValueError("moment is 'before' or 'after', then is 'drop' or 'answer', nth counts from 1")

    def answer(self, service: Service, operation: Operation) -> Response | None:
        """The answer that this fault puts in place of the real one; None for a fault of manner."""
        request = operation.request
        header = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        response: Response | None = None
        if self.kind == "status":
            response = (
                service.error(request, self.status)
                if self.body is None and self.status >= 400
                else Response.of(self.status, self.body)
            )
        elif self.kind == "html502":
            response = Response.of(502, BAD_GATEWAY, {"Content-Type": "text/html"})
        elif self.kind in ("throttled403", "throttled429"):
            extra = {} if self.retry_after is None else {"retry_after": self.retry_after}
            response = service.error(request, int(self.kind[-3:]), "throttled", THROTTLED, **extra)
        elif self.kind == "out_of_sync":
            response = service.error(request, 403, "access_denied", f"Record {operation.subject} is out of sync")
        elif self.kind == "key":
            response = service.error(request, 401, "key", "", key_id=self.key_id)
        elif self.kind in ("concurrency409", "concurrency503"):
            response = service.error(request, int(self.kind[-3:]), "Directory_ConcurrencyViolation", CONCURRENCY)
        elif self.kind == "graph429":
            response = service.error(request, 429, "TooManyRequests", "Please retry again later.", status="429")
        if response is not None:
            response.headers.update({**header, **self.headers})
        return response


class FaultPlan:
    """The faults in force. `fired` lists the faults that were applied, in order, once per request.

    `latency`, where set, is called with the operation's name and returns the seconds to wait: twice for each request,
    before it takes effect and before it is answered.
    """

    def __init__(self) -> None:
        self.fired: list[Fault] = []
        self.latency: Callable[[str], float] | None = None
        self._lock = threading.Lock()
        self._plan: list[_Counted] = []

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force; its count of matching requests starts now."""
        with self._lock:
            self._plan.append(_Counted(fault))
        return fault

    def clear(self) -> None:
        """Forget every fault in force; `fired` stays."""
        with self._lock:
            self._plan.clear()

    def take(self, op: str, subject: str) -> Fault | None:
        """Count this request against the plan and return the fault that it meets, the one added first if several."""
        with self._lock:
            due = [counted.fault for counted in self._plan if counted.meets(op, subject)]
            self.fired.extend(due[:1])
            return due[0] if due else None


@dataclass
class _Counted:
    fault: Fault
    seen: int = 0

    def meets(self, op: str, subject: str) -> bool:
        fault = self.fault
        if fault.op not in (op, "*") or fault.about not in subject:
            return False
        self.seen += 1
        return self.seen >= fault.nth and (fault.times is None or self.seen < fault.nth + fault.times)
