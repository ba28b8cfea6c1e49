# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A started sandbox for each test, and clients of it that are as unmodified as users' are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import requests

TESTS = str(Path(__file__).resolve().parents[2])
if TESTS not in sys.path:
    sys.path.insert(0, TESTS)

from sandbox import Sandbox  # noqa: E402
from sandbox.seed import Seeded, seed  # noqa: E402


@pytest.fixture
def sb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", sandbox.ca_file)
        yield sandbox


@pytest.fixture
def seeded(sb: Sandbox) -> Seeded:
    return seed(sb)


@pytest.fixture
def sign_in(sb: Sandbox) -> Callable[..., requests.Response]:
    """One bare token request: (client id, secret text, **form) -> answer."""

    def post(client: str, secret: str, tenant: str = "", **form: str) -> requests.Response:
        body = {
            "client_id": client,
            "client_secret": secret,
            "grant_type": "client_credentials",
            "scope": f"{sb.graph_url}/.default",
            **form,
        }
        return requests.post(
            f"https://{sb.authority}/{tenant or sb.tenant_id}/oauth2/v2.0/token", data=body, timeout=20
        )

    return post


class GraphClient:
    """The three calls on an application, with a token of the given caller."""

    def __init__(self, sb: Sandbox, token: str) -> None:
        self.root = f"{sb.graph_url}/v1.0"
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {token}"

    def get(self, address: str, **query: str) -> requests.Response:
        return self.session.get(f"{self.root}/applications{address}", params=query, timeout=20)

    def add(self, address: str, **credential: Any) -> requests.Response:
        return self.session.post(
            f"{self.root}/applications{address}/addPassword", json={"passwordCredential": credential}, timeout=20
        )

    def remove(self, address: str, key_id: str) -> requests.Response:
        return self.session.post(
            f"{self.root}/applications{address}/removePassword", json={"keyId": key_id}, timeout=20
        )


@pytest.fixture
def graph_as(sb: Sandbox, sign_in: Callable[..., requests.Response]) -> Iterator[Callable[[str, str], GraphClient]]:
    """A Graph client for (client id, secret text)."""
    clients = []

    def make(client_id: str, secret: str) -> GraphClient:
        clients.append(GraphClient(sb, sign_in(client_id, secret).json()["access_token"]))
        return clients[-1]

    yield make
    for client in clients:
        client.session.close()


@pytest.fixture
def graph(seeded: Seeded, graph_as: Callable[[str, str], GraphClient]) -> GraphClient:
    """Graph as the seeded admin application, which may manage what it owns."""
    return graph_as(seeded.admin.client_id, seeded.admin_secret.text)


@pytest.fixture
def ksm(sb: Sandbox) -> Callable[..., Any]:
    """The unmodified SDK on a device of its own."""
    from keeper_secrets_manager_core import SecretsManager
    from keeper_secrets_manager_core.storage import InMemoryKeyValueStorage

    return lambda bound=True: SecretsManager(config=InMemoryKeyValueStorage(sb.client_config(bound=bound)))
