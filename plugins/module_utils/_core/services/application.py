# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An application and its password credentials, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ..base.errors import BadInput
from ..base.redact import foreign

# "maximum of two client secrets": https://learn.microsoft.com/entra/identity-platform/supported-accounts-validation
_TWO_SECRETS = {"azureadandpersonalmicrosoftaccount", "personalmicrosoftaccount"}
_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"(\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?", re.IGNORECASE)


def guid(text: str) -> str | None:
    """Return the GUID in lower case, or None where the text is none (braces and space around it are accepted)."""
    plain = text.strip().strip("{}").lower()
    return plain if _GUID.fullmatch(plain) else None


def parse_time(text: Any) -> datetime | None:
    """Return the time of an OData DateTimeOffset, in UTC; None for nothing or anything else.

    Graph writes seven fractional digits or none, which ``datetime.fromisoformat`` reads from Python 3.11 on only.
    """
    match = _TIME.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        return None
    seconds, fraction, zone = match.groups()
    zone = "+00:00" if zone is None or zone.upper() == "Z" else zone
    try:
        return datetime.fromisoformat(f"{seconds.upper()}.{(fraction or '0')[:6]:<06}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class Credential:
    """One passwordCredential of an application. ``hint`` is the first three characters of the secret."""

    key_id: str
    display_name: str = ""
    start: datetime | None = None
    end: datetime | None = None
    end_text: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Application:
    """An application as one read of Graph has shown it; ``read_at`` is the server's time of that read."""

    object_id: str
    client_id: str
    display_name: str
    two_secrets: bool
    credentials: tuple[Credential, ...]
    read_at: datetime

    def credential(self, key_id: str) -> Credential | None:
        """Return the credential with that key id, in whatever spelling of a GUID; what is none names nothing."""
        wanted = guid(key_id)
        return next((credential for credential in self.credentials if credential.key_id == wanted), None)


def application_in(body: Mapping[str, Any], read_at: datetime) -> Application | None:
    """Return the application that a JSON object of Graph is, read at this time of the server; None for any other."""
    object_id, client_id = guid(str(body.get("id"))), guid(str(body.get("appId")))
    listed = body.get("passwordCredentials")
    if not object_id or not client_id or not isinstance(listed, list):
        return None
    return Application(
        object_id,
        client_id,
        foreign(body.get("displayName") or client_id),
        str(body.get("signInAudience")).lower() in _TWO_SECRETS,
        tuple(credentials_in(listed)),
        read_at,
    )


def credentials_in(items: list[Any]) -> list[Credential]:
    """Return the credentials of a JSON list of Graph; what has no key id is passed over."""
    found = []
    for item in items:
        key_id = guid(str(item.get("keyId"))) if isinstance(item, dict) else None
        if key_id is None:
            continue
        end = parse_time(item.get("endDateTime"))
        end_text = str(item.get("endDateTime") or "")
        if end is not None and not end_text.upper().endswith(("Z", "+00:00")):
            end_text = format_time(end)
        found.append(
            Credential(
                key_id,
                str(item.get("displayName") or ""),
                parse_time(item.get("startDateTime")),
                end,
                end_text,
                str(item.get("hint") or ""),
            )
        )
    return found


def format_time(when: datetime) -> str:
    """Return the time as Graph reads it: UTC, whole seconds."""
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def after(start: datetime, days: int) -> datetime:
    """Return the time that many days later. Raises BadInput where the calendar ends before."""
    try:
        return start + timedelta(days=days)
    except OverflowError:
        raise BadInput(f"a lifetime of {days} days is too long", todo="lower lifetime_days") from None
