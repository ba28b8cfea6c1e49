# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A TLS listener on the loopback for one emulated service, and the application of faults to its exchanges."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import select
import socket
import ssl
import sys
import threading
import time
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable
from urllib.parse import parse_qsl, unquote, urlsplit

from .exchange import Operation, Refusal, Request, Response, Service
from .faults import Fault, FaultPlan
from .state import Entry, State

POLL_SECONDS = 0.05
GZIP_LEVEL = 1


class Listener(ThreadingHTTPServer):
    """Serves one service on 127.0.0.1; a thread per connection, HTTP/1.1 with kept-alive connections."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        service: Service,
        state: State,
        faults: FaultPlan,
        kill: Callable[[int], None],
        tls: ssl.SSLContext | None,
        port: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.service, self.state, self.faults, self.kill, self.tls = service, state, faults, kill, tls
        self.turns = itertools.count()
        self._connections: set[socket.socket] = set()
        self._idle = threading.Condition()
        self._thread = threading.Thread(target=self.serve_forever, args=(POLL_SECONDS,), daemon=True)

    def start(self) -> None:
        """Accept connections from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection, and wait until their threads have let go of them."""
        self.shutdown()
        self._thread.join()
        with self._idle:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the plain socket's shutdown, which leaves the TLS object alone
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
            self._idle.wait_for(lambda: not self._connections, timeout=5)
        self.server_close()

    def opened(self, connection: socket.socket) -> None:
        """A handler has taken this connection."""
        with self._idle:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """A handler has let go of this connection."""
        with self._idle:
            self._connections.discard(connection)
            self._idle.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that break off are part of the play; anything else is a defect of the sandbox."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):
            self.state.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        # The handshake belongs to this thread: a slow client must not hold up the ones behind it.
        if self.server.tls is not None:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self.server.opened(self.request)
        super().setup()

    def finish(self) -> None:
        try:
            with contextlib.suppress(OSError):
                super().finish()
        finally:
            self.request.close()
            self.server.closed(self.request)

    def do_GET(self) -> None:
        server = self.server
        operation = server.service.operation(self._read())
        fault = None if operation.silent else server.faults.take(operation.name, operation.subject)
        try:
            self._dawdle(operation)
            answer = self._exchange(operation, fault)
            self._dawdle(operation)
            self._deliver(operation.request, answer, fault)
        except OSError:
            self.close_connection = True

    do_POST = do_PATCH = do_DELETE = do_PUT = do_GET

    def _dawdle(self, operation: Operation) -> None:
        latency = self.server.faults.latency
        if latency is not None and not operation.silent:
            self.server.state.stopping.wait(latency(operation.name))

    def log_message(self, format: str, *args: Any) -> None:
        """The log is the state's."""

    def _read(self) -> Request:
        split = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = dict(parse_qsl(split.query, keep_blank_values=True))
        return Request(self.command, unquote(split.path), query, self.headers, body, next(self.server.turns))

    def _exchange(self, operation: Operation, fault: Fault | None) -> Response:
        """Take the effect, unless the fault comes before it, and return the answer to put on the wire."""
        server = self.server
        if fault is None:
            return self._perform(operation, None, None)
        replacement = fault.answer(server.service, operation)
        if fault.moment == "before" and fault.kind != "delay":
            answer = replacement or server.service.error(operation.request, 500)
            self._record(operation, answer, fault)
            return answer
        if fault.moment == "before":
            server.state.stopping.wait(fault.seconds)
            return self._perform(operation, fault, None)
        answer = self._perform(operation, fault, replacement)
        if fault.kind == "delay":
            server.state.stopping.wait(fault.seconds)
        return answer

    def _perform(self, operation: Operation, fault: Fault | None, replacement: Response | None) -> Response:
        with self.server.state.lock:
            try:
                response = operation.perform()
            except Refusal as refusal:
                response = refusal.response
            except Exception as error:
                self.server.state.errors.append(error)
                response = self.server.service.error(operation.request, 500)
            answer = replacement or response
            if not operation.silent:
                self._record(operation, answer, fault, response)
        return answer

    def _record(
        self, operation: Operation, answer: Response, fault: Fault | None, effect: Response | None = None
    ) -> None:
        unanswered = fault is not None and (fault.kind == "drop" or (fault.kind == "kill" and fault.then == "drop"))
        detail = " ".join(filter(None, (operation.subject, effect.detail if effect else "")))
        entry = Entry(
            time.time(),
            self.server.service.name,
            operation.name,
            None if unanswered else answer.status,
            detail,
            fault.kind if fault else None,
        )
        self.server.state.record(entry, changed=effect is not None and effect.changed)

    def _deliver(self, request: Request, answer: Response, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "kill":
            self.server.kill(fault.signal)
            self._hold(fault.seconds)
        if fault is not None and (fault.kind == "drop" or (fault.kind == "kill" and fault.then == "drop")):
            self.close_connection = True
            return
        head, body = self._on_wire(request, answer)
        if fault is not None and fault.kind == "truncate":
            self.close_connection = True
            body = body[: len(body) // 2]
        wire = head + body
        pieces = [wire] if fault is None or fault.kind != "drip" else [bytes((byte,)) for byte in wire]
        for number, piece in enumerate(pieces):
            if fault is not None and number and self.server.state.stopping.wait(fault.seconds):
                return
            self.wfile.write(piece)

    def _on_wire(self, request: Request, answer: Response) -> tuple[bytes, bytes]:
        """Head and body; a body is streamed, or its length is in the head."""
        body = answer.body
        headers = [*{"Date": formatdate(usegmt=True), **answer.headers}.items()]
        headers += [("Set-Cookie", cookie) for cookie in answer.cookies]
        if answer.streamed:
            if "gzip" in request.headers.get("Accept-Encoding", ""):
                body = gzip.compress(body, GZIP_LEVEL)
                headers.append(("Content-Encoding", "gzip"))
            headers.append(("Transfer-Encoding", "chunked"))
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        elif answer.status != 204:
            headers.append(("Content-Length", str(len(body))))
        phrases = {status.value: status.phrase for status in HTTPStatus}
        head = f"HTTP/1.1 {answer.status} {phrases.get(answer.status, 'Unknown')}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers)
        return head.encode("latin-1") + b"\r\n", body

    def _hold(self, seconds: float) -> None:
        """Wait until the client has closed its side: its end is the only thing it can still send."""
        poll = select.poll()
        poll.register(self.request.fileno(), select.POLLIN | select.POLLHUP)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.server.state.stopping.is_set():
            if poll.poll(POLL_SECONDS * 1000):
                return
