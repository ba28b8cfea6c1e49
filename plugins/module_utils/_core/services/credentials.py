# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the admin application signs in with: a secret, a certificate, another provider's token, a managed identity."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..base.errors import BadInput
from ..base.redact import Secret, remember
from .application import guid

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_LARGEST_FILE = 65536
_JWT = re.compile(rb"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Certificate:
    """A file with a certificate and its private key; ``name`` is the file in words, for errors.

    ``read`` returns its content and raises BadInput or Refused: it is opened when it is needed, not before.
    """

    name: str
    read: Callable[[], bytes] = field(repr=False)
    passphrase: Secret | None = None


@dataclass(frozen=True)
class FederatedToken:
    """A token of another identity provider that an application of Entra trusts; ``name`` is its place in words.

    ``read`` returns its newest text and raises BadInput: whoever issues such tokens replaces the file's content often.
    """

    name: str
    read: Callable[[], bytes] = field(repr=False)

    def fetch(self) -> Secret:
        """Return the token as it is now. Raises BadInput for what is none: nothing else may be sent anywhere."""
        content = self.read().strip()
        if not _JWT.fullmatch(content):
            what = f"{self.name} {'is no token' if content else 'is empty'}"
            raise BadInput(what, "a JSON Web Token is needed", "see to whatever issues the token")
        return Secret(content.decode())


@dataclass(frozen=True)
class Identity:
    """What the admin application signs in with. ``source`` says where it was found, ``why`` why that one is used.

    One of the four kinds of credentials is set. A managed identity without client id is the host's own
    ("system-assigned").
    """

    client_id: str
    tenant_id: str
    source: str
    secret: Secret | None = None
    certificate: Certificate | None = None
    token: FederatedToken | None = None
    managed: bool = False
    record_uid: str = ""
    why: str = ""
    expires: str = ""  # when the secret ends, in the words of the record that holds it

    def __post_init__(self) -> None:
        if self.client_id and guid(self.client_id) is None:
            remember(self.client_id)  # what was entered in the wrong field may be a secret
        if not _TENANT.fullmatch(self.tenant_id):
            raise BadInput(
                f"the tenant id of {self.source} is neither an id nor a domain",
                todo="enter the directory (tenant) id",
            )

    @property
    def name(self) -> str:
        """Who signs in, and with what, in words."""
        if self.managed:
            which = f"user-assigned managed identity {self.client_id}" if self.client_id else "managed identity"
            return f"this host's {which}"
        with_what = self.certificate.name if self.certificate else self.token.name if self.token else "a client secret"
        return f"{self.client_id} (with {with_what})"

    @property
    def uses_host(self) -> bool:
        """Whether signing in hands over a token that this host has, and not one that was made for it alone."""
        return self.managed or self.token is not None


def certificate_at(path: str, passphrase: str = "") -> Certificate:
    """Return the certificate in a file of this host."""
    name = f"the certificate in the file {path}"
    return Certificate(name, lambda: _host_file(path, "certificate"), Secret(passphrase) if passphrase else None)


def token_at(path: str) -> FederatedToken:
    """Return the federated token that a file of this host holds."""
    return FederatedToken(f"the federated token in the file {path}", lambda: _host_file(path, "federated token"))


def token_of(text: str, where: str) -> FederatedToken:
    """Return the federated token with this text; ``where`` names its origin."""
    secret = Secret(text.strip())
    return FederatedToken(f"the federated token of {where}", lambda: secret.reveal().encode("utf-8", "replace"))


def _host_file(path: str, what: str) -> bytes:
    """Return the content of a small file of this host. Raises BadInput, which never quotes it."""
    try:
        # Not to wait where it is a named pipe.
        handle = os.open(os.path.expanduser(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(0, "it is no regular file")
            content = os.read(handle, _LARGEST_FILE + 1)
            if len(content) > _LARGEST_FILE:
                raise OSError(0, "it is too large")
            return content
        finally:
            os.close(handle)
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or "its name is none"
        todo = "check the path, and that the user who runs this may read it"
        raise BadInput(f"the {what} {path} cannot be read", why, todo) from None


def claims(token: Secret) -> dict[str, Any]:
    """Return what a JSON Web Token says of itself, unverified; empty where it cannot be read (it may be opaque)."""
    try:
        payload = token.reveal().split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def end_of(token: Secret) -> datetime | None:
    """Return when a JSON Web Token ends by its own word."""
    end = claims(token).get("exp")
    if not isinstance(end, (int, float)):
        return None
    try:
        return datetime.fromtimestamp(end, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
