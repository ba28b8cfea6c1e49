# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client assertions: signed with a certificate of the application, or by another provider that it trusts."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

from .application import Application

AUDIENCE = "api://AzureADTokenExchange"
SKEW = timedelta(minutes=5)
LONGEST = timedelta(days=1, hours=1)
CHECK = "Please check your federated identity credential Subject, Audience and Issuer against the presented assertion."
DOCS = "https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
NO_RECORD = "No matching federated identity record found for presented assertion"

# number -> (HTTP status, error, text), as entra.AADSTS. Of 50013 and 50166, sources give the texts, not the status.
AADSTS: dict[int, tuple[int, str, str]] = {
    50013: (401, "invalid_client", "Assertion failed signature validation. [Reason - {reason}]"),
    50027: (401, "invalid_client", "JWT token is invalid or malformed."),
    50166: (401, "invalid_client", "Request to External OIDC endpoint failed."),
    70023: (
        401,
        "invalid_client",
        "External OIDC Provider token must have a lifetime of less than or equal to 1.01:00:00.",
    ),
    700021: (
        401,
        "invalid_client",
        "Client assertion application identifier doesn't match 'client_id' parameter. Review the documentation at "
        "https://docs.microsoft.com/azure/active-directory/develop/active-directory-certificate-credentials .",
    ),
    700023: (401, "invalid_client", "Client assertion audience claim does not match Realm issuer."),
    700024: (
        401,
        "invalid_client",
        "Client assertion is not within its valid time range. Current time: {now}, assertion valid from {start}, "
        "expiry time of assertion {end}. Review the documentation at "
        "https://docs.microsoft.com/azure/active-directory/develop/active-directory-certificate-credentials .",
    ),
    700027: (
        401,
        "invalid_client",
        "The certificate with identifier used to sign the client assertion is not registered on application. "
        "[Reason - {reason}, Thumbprint of key used by client: '{thumbprint}', Please visit the Azure Portal, Graph "
        "Explorer or directly use MS Graph to see configured keys for app Id '{client}'.]",
    ),
    700211: (400, "invalid_request", f"{NO_RECORD} issuer '{{issuer}}'. {CHECK} {DOCS}"),
    700212: (400, "invalid_request", f"{NO_RECORD} audience '{{audience}}'. {CHECK} {DOCS}"),
    700213: (400, "invalid_request", f"{NO_RECORD} subject '{{subject}}'. {CHECK} {DOCS}"),
    7002138: (
        400,
        "invalid_request",
        f"{NO_RECORD} subject '{{subject}}'. The subject matches with case-insensitive comparison, but not with "
        f"case-sensitive comparison. {CHECK} {DOCS}",
    ),
}


@dataclass(frozen=True)
class FederatedCredential:
    """What an application trusts: tokens of this issuer about this subject, made for this audience."""

    issuer: str
    subject: str
    audience: str = AUDIENCE


@dataclass
class Issuer:
    """Another identity provider, such as a Kubernetes cluster or a CI service. It signs what it is asked to."""

    url: str
    _key: Any = field(default=None, repr=False)

    @property
    def key(self) -> Any:
        """Its RSA key, which takes a moment to make."""
        from cryptography.hazmat.primitives.asymmetric import rsa

        if self._key is None:
            self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return self._key

    def token(self, subject: str, audience: str = AUDIENCE, seconds: float = 3600, since: float = 0.0) -> str:
        """A token about a subject that is valid for so many seconds from `since` (seconds from now) on."""
        import jwt

        start = int(time.time() + since)
        claims = {"iss": self.url, "sub": subject, "aud": audience, "iat": start, "nbf": start}
        claims.update(exp=int(start + seconds), jti=str(uuid4()))
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": "1"})


class Assertions:
    """Judges assertions by the directory's clock. `issuers` are the providers that it can reach, by their URLs."""

    def __init__(self) -> None:
        self.issuers: dict[str, Issuer] = {}

    def add(self, issuer: Issuer) -> Issuer:
        """Let Entra reach this provider for its keys."""
        self.issuers[issuer.url] = issuer
        return issuer

    def judge(
        self, application: Application, assertion: str, endpoint: str, now: datetime
    ) -> tuple[int | None, dict[str, str]]:
        """The AADSTS number by which the assertion is refused, None where it is taken, and what its text names."""
        import jwt

        try:
            header = jwt.get_unverified_header(assertion)
            claims = jwt.decode(assertion, options={"verify_signature": False})
        except jwt.InvalidTokenError:
            return 50027, {}
        start, end = (_moment(claims.get(name)) for name in ("nbf", "exp"))
        names = {
            "issuer": str(claims.get("iss")),
            "subject": str(claims.get("sub")),
            "audience": str(claims.get("aud")),
            "now": _text(now),
            "start": _text(start),
            "end": _text(end),
        }
        own = claims.get("iss") == application.client_id
        refused = _by_certificate if own else self._by_federation
        number, more = refused(application, assertion, header, claims, endpoint, now)
        if number is None and not start - SKEW <= now < end + (SKEW if own else timedelta()):
            number = 700024
        return number, {**names, **more}

    def _by_federation(
        self, application: Application, assertion: str, header: Any, claims: Any, endpoint: str, now: datetime
    ) -> tuple[int | None, dict[str, str]]:
        import jwt

        known = [one for one in application.federated if one.issuer == claims.get("iss")]
        subject = str(claims.get("sub"))
        if not known:
            return 700211, {}
        if not [one for one in known if one.subject == subject]:
            similar = any(one.subject.lower() == subject.lower() for one in known)
            return (7002138 if similar else 700213), {}
        if not [one for one in known if (one.subject, one.audience) == (subject, claims.get("aud"))]:
            return 700212, {}
        issuer = self.issuers.get(known[0].issuer)
        if issuer is None:
            return 50166, {}
        try:
            jwt.decode(assertion, issuer.key.public_key(), algorithms=["RS256"], options=_SIGNATURE_ONLY)
        except jwt.InvalidTokenError:
            return 50013, {"reason": "The provided signature value did not match the expected signature value."}
        lifetime = _moment(claims.get("exp")) - _moment(claims.get("iat"))
        return (70023 if lifetime > LONGEST else None), {}


def _by_certificate(
    application: Application, assertion: str, header: Any, claims: Any, endpoint: str, now: datetime
) -> tuple[int | None, dict[str, str]]:
    import jwt
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    name, kind = ("x5t#S256", hashes.SHA256()) if "x5t#S256" in header else ("x5t", hashes.SHA1())
    names = {"reason": "The key was not found.", "thumbprint": _unpadded(str(header.get(name) or "")).hex().upper()}
    certificates = [x509.load_pem_x509_certificate(pem) for pem in application.certificates]
    wanted = _unpadded(str(header.get(name) or ""))
    found = next((one for one in certificates if one.fingerprint(kind) == wanted), None)
    if found is None:
        return 700027, names
    leaf = (header.get("x5c") or [None])[0]
    if leaf is not None and base64.b64decode(leaf) != found.public_bytes(Encoding.DER):
        return 700027, names
    if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        return 700027, {**names, "reason": "The key used is expired."}
    try:
        jwt.decode(
            assertion,
            found.public_key(),  # type: ignore[arg-type]
            algorithms=["RS256", "PS256"],
            options=_SIGNATURE_ONLY,
        )
    except jwt.InvalidTokenError:
        return 700027, {**names, "reason": "The provided signature value did not match the expected signature value."}
    if claims.get("sub") != application.client_id:
        return 700021, names
    return (None if claims.get("aud") == endpoint else 700023), names


_SIGNATURE_ONLY: Any = {"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _moment(seconds: Any) -> datetime:
    return datetime.fromtimestamp(seconds if isinstance(seconds, (int, float)) else 0, timezone.utc)


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"
