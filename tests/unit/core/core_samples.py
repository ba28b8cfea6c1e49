# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small makers of what the tests of the core are about."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.labels import Labelled
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.application import Application, Credential
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.http import Reply

NOW = datetime(2026, 6, 15, 12, 0, 0, tzinfo=timezone.utc)
RECORD = "ZmpJl4qCXJEi0ohFKzzQaA"
OURS = f"keeper/{RECORD}/"
CLIENT_ID = "ebfbb457-8935-4c3f-802b-d6a2d24478de"
OBJECT_ID = "ec64d6ec-23f2-4391-ac66-58e4b52472f2"


class Clock:
    """In place of the module ``time``: time passes only when somebody sleeps or a test says so. One clock for all."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def clock_gettime(self, number: int) -> float:
        """Seconds, of whatever clock."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.slept.append(seconds)
        self.now += seconds


def reply(status: int = 200, body: Any = None, host: str = "", **headers: str) -> Reply:
    """An HTTP answer; a body that is not bytes is written as JSON, underscores in header names become hyphens."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, content, host)


def key(name: str) -> str:
    """The key id of the secret that the tests call so: always the same one. What is no name, is a key id already."""
    return name if name.count("-") == 4 else str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def credential(
    name: str, hours_ago: float = 0.0, title: str = "", days: float = 365, hint: str = "", start: Any = ""
) -> Credential:
    """The client secret of this name, made so many hours before NOW, that ends so many days after NOW."""
    begin = NOW - timedelta(hours=hours_ago) if start == "" else start
    end = NOW + timedelta(days=days)
    return Credential(key(name), title, begin, end, end.strftime("%Y-%m-%dT%H:%M:%SZ"), hint)


def application(*credentials: Credential, two_secrets: bool = False) -> Application:
    """An application as it was read at NOW."""
    return Application(OBJECT_ID, CLIENT_ID, "billing-api", two_secrets, credentials, NOW)


def labelled(uid: str = RECORD, title: str = "billing-api", **values: Any) -> Labelled:
    """A record's view."""
    return Labelled(uid, title, values.items())


def base64_of(value: Any) -> bytes:
    """Base64 of JSON, as the Gateway writes it."""
    return base64.b64encode(json.dumps(value).encode())
