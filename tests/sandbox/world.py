# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox as a whole: it wires stores, services, faults and the Gateway together and puts them on the network."""

from __future__ import annotations

import base64
import json
import os
import ssl
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Callable

import trustme

from .directory import Directory
from .entra import Entra
from .exchange import Service
from .faults import FaultPlan
from .gateway import Gateway
from .graph import Graph
from .keeper import Keeper
from .server import Listener
from .state import Entry, State
from .vault import Vault

#: An address of the loopback at which nobody is.
NOBODY = "http://127.0.0.1:9"


class SandboxError(AssertionError):
    """A watcher failed, or the sandbox itself did; raised when it stops, so that no test passes over it."""


class Sandbox:
    """Entra, Graph and Keeper on three TLS ports of the loopback, and the Gateway that runs scripts against them.

    A context manager; `start` and `stop` do the same. Ports are ephemeral unless given. `out_of_sync_status` is the
    HTTP status of Keeper's answer to a stale revision, which no source states.
    """

    def __init__(
        self, entra_port: int = 0, graph_port: int = 0, keeper_port: int = 0, out_of_sync_status: int = 403
    ) -> None:
        self.state = State()
        self.faults = FaultPlan()
        self.directory = Directory(self.state)
        self.vault = Vault(self.state)
        self.vault.out_of_sync_status = out_of_sync_status
        self.gateway = Gateway(self)
        self.client_pid: int | None = None
        self.on_kill: Callable[[int], None] | None = None
        self.ca_file = ""
        self._entra = Entra(self.directory)
        self._graph = Graph(self.directory, self._entra)
        self._keeper = Keeper(self.vault)
        self._ports = (entra_port, graph_port, keeper_port)
        self._listeners: list[Listener] = []
        self._files: tempfile.TemporaryDirectory[str] | None = None
        self._gateway_config: dict[str, str] = {}

    @property
    def log(self) -> list[Entry]:
        """Every request that was answered or cut off, in order; the Gateway's own reading is not in it."""
        return self.state.log

    @property
    def tenant_id(self) -> str:
        """The directory (tenant) ID."""
        return self.directory.tenant_id

    @property
    def entra(self) -> Entra:
        """The sign-in service: what it trusts besides secrets, and who has a managed identity."""
        return self._entra

    @property
    def authority(self) -> str:
        """The value of `Azure Authority FQDN`: localhost:PORT."""
        return self.vault.authority

    @property
    def graph_url(self) -> str:
        """The value of `Azure Graph Endpoint`: https://localhost:PORT."""
        return self.vault.graph_url

    @property
    def keeper_host(self) -> str:
        """The `hostname` of KSM configurations: localhost:PORT."""
        return self.vault.host

    def start(self) -> Sandbox:
        """Make a certificate authority in a temporary directory and listen."""
        self._files = tempfile.TemporaryDirectory(prefix="sandbox-")
        authority = trustme.CA()
        self.ca_file = str(Path(self._files.name) / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(tls)
        services: list[Service] = [self._entra, self._graph, self._keeper]
        for service, port in zip(services, self._ports):
            listener = Listener(service, self.state, self.faults, self._kill, tls, port)
            self._listeners.append(listener)
            service.url = f"https://localhost:{listener.server_address[1]}"
        self._entra.graph_url = self.vault.graph_url = self._graph.url
        self.vault.authority = self._entra.url[len("https://") :]
        self.vault.host = self._keeper.url[len("https://") :]
        self._gateway_config = self.vault.client_config()
        for listener in self._listeners:
            listener.start()
        return self

    def serve(self, service: Service) -> None:
        """Put a further service on a plain HTTP port of the loopback, such as a host's metadata service."""
        listener = Listener(service, self.state, self.faults, self._kill, None)
        self._listeners.append(listener)
        service.url = f"http://127.0.0.1:{listener.server_address[1]}"
        listener.start()

    def stop(self) -> None:
        """Close everything; raises SandboxError if a watcher failed or the sandbox did."""
        self._close()
        if self.state.errors:
            raise SandboxError(f"{len(self.state.errors)} error(s) in the sandbox") from self.state.errors[0]

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An error of the test itself comes first; that of the sandbox must not hide it.
        self._close() if error else self.stop()

    def environ(self, **extra: str | None) -> dict[str, str]:
        """The whole environment of a client process: PATH, trust in this sandbox, the Gateway's KSM configuration.

        No HOME. `extra` adds variables, None takes one away.
        """
        config = base64.b64encode(json.dumps(self._gateway_config).encode()).decode()
        basis = {
            "PATH": os.environ.get("PATH", os.defpath),
            "REQUESTS_CA_BUNDLE": self.ca_file,
            "SSL_CERT_FILE": self.ca_file,
            "GATEWAY_CONFIG": config,
            # No client may meet the metadata service of the host that all this runs on.
            "AZURE_POD_IDENTITY_AUTHORITY_HOST": NOBODY,
        }
        return {name: value for name, value in {**basis, **extra}.items() if value is not None}

    def client_config(self, bound: bool = True) -> dict[str, str]:
        """A KSM client configuration of a device of its own; not bound, it holds a one-time token to bind with."""
        return self.vault.client_config(bound)

    def issued_tokens(self) -> list[str]:
        """Every access token that was issued, for tests that look for leaks."""
        return self._entra.issued()

    def watch(self, callback: Callable[[Sandbox, Entry], Any]) -> None:
        """Call back after every change of either store, with the state locked; what it raises, `stop` raises."""
        self.state.watch(lambda entry: callback(self, entry))

    def _kill(self, number: int) -> None:
        if self.on_kill is not None:
            self.on_kill(number)
        elif self.client_pid is not None:
            os.kill(self.client_pid, number)
        else:
            self.state.errors.append(RuntimeError("a kill fault needs client_pid or on_kill"))

    def _close(self) -> None:
        self.state.stopping.set()
        for listener in self._listeners:
            listener.stop()
        self._listeners.clear()
        if self._files is not None:
            self._files.cleanup()
            self._files = None
