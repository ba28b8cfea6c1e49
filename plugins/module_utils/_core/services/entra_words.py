# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Entra's token endpoint says no with, in words, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..base.redact import foreign
from .credentials import Identity

# AADSTS numbers: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
WRONG_SECRET, EXPIRED_SECRET = 7000215, 7000222
OUT_OF_TIME = 700024
_NO_FEDERATION = (70021, 700211, 700212, 700213, 7002131, 7002138)
# 50196: too many sign-ins of one client in a row.
BUSY_SIGN_IN = {50196, 90006, 90012, 90024, 90033, 90055, 90090}
# A header or a policy of the network lets through to some tenants alone:
# https://learn.microsoft.com/entra/external-id/tenant-restrictions-v2
_OTHER_TENANTS = (500021, 5000211)
_POLICY_BLOCKS = 53003
SIGN_IN_WORDS = {
    WRONG_SECRET: "the client secret is not valid (a secret's value is needed, not its id)",
    EXPIRED_SECRET: "the client secret has expired",
    700016: "there is no application with this client id in the tenant (no service principal here)",
    7000229: "the application has no service principal in the tenant",
    7000112: "the application is disabled",
    _POLICY_BLOCKS: "Conditional Access blocks the sign-in",
    90002: "the tenant does not exist in this cloud",
    7000216: "the client secret is empty",
    7000218: "the client secret is empty",
    500011: "Graph is not known in this tenant: authority and Graph endpoint belong to different clouds",
    70021: "no federated credential of the application fits the token",
    700211: "no federated credential of the application names the issuer of the token",
    700212: "no federated credential of the application names the audience of the token",
    700213: "no federated credential of the application names the subject of the token",
    7002131: "no federated credential of the application names the subject of the token, and no expression fits it",
    7002138: "no federated credential of the application names the subject of the token: upper and lower case differ",
    70023: "the federated token is valid for more than a day, which Entra does not take",
    OUT_OF_TIME: "what was presented is not valid at this time",
    700027: "the certificate is not registered on the application, or has ended",
    **dict.fromkeys(_OTHER_TENANTS, "tenant restrictions of the network do not let sign in to this tenant"),
    50196: "too many sign-ins of this application in a row",
    90055: "too many requests to the tenant",
}
CONDITIONAL_ACCESS = "exempt the admin application from the policy, or allow this host's address in it"


def codes_in(answer: Mapping[str, Any]) -> list[int]:
    """Return the AADSTS numbers of an answer, the most telling one first."""
    codes = answer.get("error_codes")
    found = [code for code in codes if isinstance(code, int)] if isinstance(codes, list) else []
    return found or [int(code) for code in re.findall(r"AADSTS(\d+)", str(answer.get("error_description", "")))[:1]]


def sign_in_reason(answer: Mapping[str, Any]) -> str:
    """Say why a sign-in was refused. The answer may have ``http_status``, and ``between`` where it is not Entra's."""
    for code in codes_in(answer):
        if code in SIGN_IN_WORDS:
            return f"{SIGN_IN_WORDS[code]} (AADSTS{code})"
    lines = str(answer.get("error_description") or "").strip().splitlines()
    error = answer.get("error")
    if answer.get("claims"):
        said = f" ({foreign(lines[0])})" if lines else ""
        return f"Conditional Access asks for claims that an application cannot give{said}"
    if lines:
        return f"{foreign(error)}: {foreign(lines[0])}"
    if answer.get("between"):
        return str(answer["between"])
    status = answer.get("http_status")
    if isinstance(error, str):
        return f"{foreign(error)} (HTTP {status})" if status else foreign(error)
    return f"Entra answered HTTP {status} without a readable reason"


def sign_in_advice(answer: Mapping[str, Any], identity: Identity) -> str:
    """Return the next step after a sign-in of the admin application was refused."""
    advice: dict[int, str] = {
        WRONG_SECRET: f"put the current secret's value into {identity.source}",
        EXPIRED_SECRET: f"make a new secret for the admin application by hand and put it into {identity.source}",
        700016: f"check the client id and the tenant id in {identity.source}",
        90002: f"check the tenant id in {identity.source} and the cloud",
        7000112: "enable the admin application",
        _POLICY_BLOCKS: CONDITIONAL_ACCESS,
        **dict.fromkeys(
            _OTHER_TENANTS,
            f"let whoever runs the network's proxy or its tenant restrictions allow the tenant {identity.tenant_id}",
        ),
        **dict.fromkeys(BUSY_SIGN_IN, "run it again later"),
    }
    if identity.token:
        compare = f"compare issuer, subject and audience of {identity.token.name} with the federated credentials of"
        advice.update(dict.fromkeys(_NO_FEDERATION, f"{compare} the application {identity.client_id}"))
    if identity.certificate:
        advice[700027] = f"upload {identity.certificate.name}, without its key, to the application's certificates"
    for code in codes_in(answer):
        if code in advice:
            return advice[code]
    if answer.get("claims"):
        return CONDITIONAL_ACCESS
    if answer.get("between") or answer.get("busy"):
        return str(answer["remedy"])
    return f"check {identity.source}"
