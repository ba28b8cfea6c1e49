# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Graph says no with, in words, and what to do about it: by its code, and by what the token may do."""

from __future__ import annotations

from ..base.redact import foreign
from .entra_words import CONDITIONAL_ACCESS
from .http import PASS, Reply

# https://learn.microsoft.com/graph/permissions-reference
OWNED_ONLY = "Application.ReadWrite.OwnedBy"
ALL_APPLICATIONS = {"Application.ReadWrite.All", "Directory.ReadWrite.All"}
# What Graph may carry out a little later.
LATER = (408, 409, 424, 429)
_FULL_OBJECT = "size of the object has exceeded its limit"


def code_and_text(reply: Reply) -> tuple[str, str]:
    """Return the code and the message of Graph's error; empty texts where it has none."""
    error = reply.json().get("error")
    error = error if isinstance(error, dict) else {}
    return foreign(error.get("code") or ""), foreign(error.get("message") or "")


def refusal_of(reply: Reply, roles: set[str] | None, who: str) -> tuple[str, str]:
    """Return why Graph has not done what it was asked for, and the next step, which may be empty.

    ``roles`` are the permissions in the token, None where they cannot be read; ``who`` is the caller in words.
    """
    code, text = code_and_text(reply)
    why = f"{text or 'no readable reason'} ({code or 'HTTP'} {reply.status})"
    if not code and reply.status == 403:
        return f"the answer of {reply.host} is not Graph's (HTTP 403)", PASS
    if code == "CredentialInvalidLifetimeAsPerAppPolicy":
        return why, "lower lifetime_days to what the tenant's app management policy allows"
    if code == "CredentialTypeNotAllowedAsPerAppPolicy":
        return why, "exempt the application from the policy, or let it use a certificate or a federated credential"
    if code == "Directory_ResourceSizeExceeded" or _FULL_OBJECT in text:
        return why, "remove secrets, redirect URIs or other entries that the application does not need"
    if code == "Directory_QuotaExceeded":
        return why, "let the tenant's directory quota be raised, or delete objects that nobody needs"
    if reply.status == 403:
        return _not_allowed(code, text, roles, who)
    if reply.status >= 500 or reply.status in LATER:
        return why, "run it again later"
    if reply.status == 401 and "insufficient_claims" in (reply.headers.get("WWW-Authenticate") or ""):
        return f"Conditional Access has ended what the token may do: {why}", CONDITIONAL_ACCESS
    if reply.status == 401:
        return why, "check that the authority and the Graph endpoint belong to the same cloud"
    return why, ""


def _not_allowed(code: str, text: str, roles: set[str] | None, who: str) -> tuple[str, str]:
    why = f"{text or 'access denied'} ({code})"
    owner = "make its service principal an owner of the application"
    grant = f"grant {OWNED_ONLY} to {who}, consent to it, and {owner}"
    if roles is None:
        return why, grant
    if roles & ALL_APPLICATIONS:
        return why, f"see in Entra what keeps {who} from this application, as a restricted administrative unit does"
    if OWNED_ONLY in roles:
        todo = f"make the service principal of {who} an owner of the application"
        return (
            f"{who} does not own the application, as {OWNED_ONLY} wants it: {why}",
            f"{todo}; if it was made one minutes ago, run it again",
        )
    carries = f"the token carries {', '.join(sorted(map(foreign, roles)))} alone" if roles else ""
    todo = f"{grant}; if consent was given minutes ago, run it again in some minutes"
    return f"{carries or 'the token carries no permission'}: {why}", todo
