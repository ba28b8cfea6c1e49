# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small servers on the loopback that answer, hang up, keep what they are given, or swallow everything."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def make_certificate(path: Path) -> str:
    """Write a self-signed certificate for localhost with its key, and return its path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
    )
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pem += key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pem)
    return str(path)


class Server:
    """Accepts connections, counts the requests that reach it, and sends ``answer`` (nothing: it hangs up), with so many
    seconds before it shakes hands, and before it answers."""

    def __init__(
        self, certificate: str = "", answer: bytes = b"", slow_handshake: float = 0.0, slow_answer: float = 0.0
    ) -> None:
        self._slow_handshake, self._slow_answer = slow_handshake, slow_answer
        self.context = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)
        self.answer = answer
        self.requests: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _peer = self.socket.accept()
            except OSError:
                return
            time.sleep(self._slow_handshake)
            try:
                with self.context.wrap_socket(connection, server_side=True) if self.context else connection as stream:
                    stream.settimeout(5)
                    request = stream.recv(65536)
                    if request:
                        self.requests.append(request)
                        time.sleep(self._slow_answer)
                        stream.sendall(self.answer)
            except OSError:
                connection.close()


class Tunnel:
    """A proxy that takes CONNECT and passes on what comes, or refuses it."""

    def __init__(self, status: bytes = b"200 OK") -> None:
        self.status = status
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                inner, _peer = self.socket.accept()
            except OSError:
                return
            head = b""
            while b"\r\n\r\n" not in head:
                head += inner.recv(4096)
            inner.sendall(b"HTTP/1.1 " + self.status + b"\r\n\r\n")
            if not self.status.startswith(b"200"):
                inner.close()
                continue
            outer = socket.create_connection(("127.0.0.1", int(head.split()[1].rsplit(b":", 1)[1])))
            for pair in ((inner, outer), (outer, inner)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for each in (source, sink):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


class Keeping:
    """Keeps its connections, counts them and the requests, and sets a cookie with every answer."""

    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: replica=7; Path=/\r\n\r\n{}"

    def __init__(self, certificate: str, port: int = 0) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.requests: list[tuple[int, bytes]] = []
        self.ended: queue.Queue[int] = queue.Queue()
        self.socket = socket.create_server(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.url = f"https://localhost:{self.port}/"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for number in itertools.count(1):
            try:
                connection, _peer = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._keep, args=(number, connection), daemon=True).start()

    def _keep(self, number: int, connection: socket.socket) -> None:
        with suppress(OSError), self.context.wrap_socket(connection, server_side=True) as stream:
            stream.settimeout(20)
            while request := stream.recv(65536):
                self.requests.append((number, request))
                stream.sendall(self.ANSWER)
        self.ended.put(number)


class Silent:
    """Takes requests and never answers, but for the ``first``; with ``drip`` it sends that again and again.

    Without a certificate it does not even shake hands.
    """

    def __init__(self, certificate: str = "", drip: bytes = b"", first: bytes = b"") -> None:
        self.context = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)
        self.drip, self.first = drip, first
        self.ended = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for number in itertools.count():
            try:
                connection, _peer = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(number, connection), daemon=True).start()

    def _answer(self, number: int, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self.context is None:
                connection.recv(65536)
                self.ended.wait(20)
                return
            with self.context.wrap_socket(connection, server_side=True) as stream:
                stream.settimeout(20)
                stream.recv(65536)
                if number == 0 and self.first:
                    stream.sendall(self.first)
                    return
                if self.drip:
                    stream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                while self.drip and not self.ended.wait(0.02):
                    stream.sendall(b"%x\r\n%s\r\n" % (len(self.drip), self.drip))
                while stream.recv(65536):
                    pass


class Hole:
    """A port that takes no connection and refuses none, like an address whose packets are swallowed on their way."""

    def __init__(self, address: str = "127.0.0.2", port: int = 0) -> None:
        self.address = address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.create_server((address, port), family=family, backlog=0)
        self.port = self.socket.getsockname()[1]
        # The queue has room for one: from then on the kernel drops what knocks.
        self._first = socket.create_connection((address, self.port))


@contextmanager
def closing(*servers: Any) -> Iterator[tuple[Any, ...]]:
    """Close the servers' ports in the end."""
    try:
        yield servers
    finally:
        for server in servers:
            server.socket.close()
