# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entra's sign-in service: OpenID discovery and the token endpoint for client credentials, with AADSTS answers."""

from __future__ import annotations

import base64
import json
import re
import secrets
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs

from .directory import Application, Directory, Replica, new_guid
from .exchange import Operation, Request, Response
from .identity_assertions import AADSTS as ASSERTION_AADSTS
from .identity_assertions import Assertions

DISCOVERY = re.compile(r"/([^/]+)/v2\.0/\.well-known/openid-configuration")
TOKEN = re.compile(r"/([^/]+)/oauth2/v2\.0/token")
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
PUBLIC_GRAPH = "https://graph.microsoft.com"

# number -> (HTTP status, error, text)
AADSTS: dict[int, tuple[int, str, str]] = {
    7000215: (
        401,
        "invalid_client",
        "Invalid client secret provided. Ensure the secret being sent in the request is "
        "the client secret value, not the client secret ID, for a secret added to app '{client}'.",
    ),
    7000222: (
        401,
        "invalid_client",
        "The provided client secret keys for app '{client}' are expired. Visit the Azure "
        "portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate "
        "credentials for added security: https://aka.ms/certCreds.",
    ),
    700016: (
        400,
        "unauthorized_client",
        "Application with identifier '{client}' was not found in the directory "
        "'{tenant}'. This can happen if the application has not been installed by the administrator of the "
        "tenant or consented to by any user in the tenant. You may have sent your authentication request to the "
        "wrong tenant.",
    ),
    90002: (
        400,
        "invalid_request",
        "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID "
        "and are signing into the correct cloud. Check with your subscription administrator, this may happen if "
        "there are no active subscriptions for the tenant.",
    ),
    7000112: (400, "unauthorized_client", "Application '{client}'({name}) is disabled."),
    7000216: (
        401,
        "invalid_client",
        "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
    ),
    53003: (
        400,
        "invalid_grant",
        "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.",
    ),
    500011: (
        400,
        "invalid_resource",
        "The resource principal named {scope} was not found in the tenant named {tenant}.",
    ),
    70011: (
        400,
        "invalid_scope",
        "The provided request must include a 'scope' input parameter. The provided value "
        "for the input parameter 'scope' is not valid. The scope {scope} is not valid.",
    ),
    70003: (400, "unsupported_grant_type", "The app requested an unsupported grant type '{grant}'."),
    **ASSERTION_AADSTS,
}


@dataclass(frozen=True)
class Grant:
    """What an access token stands for: its caller, the permissions at the time of issue, its audience and its end.

    `expires` is in seconds since the epoch, by the directory's clock.
    """

    client_id: str
    roles: tuple[str, ...]
    audience: str
    expires: float


class Entra:
    """The token endpoint of one tenant. `url` is its own root, `graph_url` the resource that it knows as Graph."""

    name = "entra"

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.url = self.graph_url = ""
        self.assertions = Assertions()
        self._grants: dict[str, Grant | None] = {}

    def grant(self, token: str) -> Grant | None:
        """What this access token stands for, None when it was never issued."""
        return self._grants.get(token)

    def revoke(self) -> None:
        """Let no access token that was issued be worth anything any more."""
        self._grants = dict.fromkeys(self._grants, None)

    def issued(self) -> list[str]:
        """Every access token that was ever issued."""
        return list(self._grants)

    def operation(self, request: Request) -> Operation:
        """Discovery or a token request; the subject of the latter is the client id."""
        discovery, token = DISCOVERY.fullmatch(request.path), TOKEN.fullmatch(request.path)
        if discovery and request.method == "GET":
            tenant = discovery.group(1)
            return Operation("discovery", tenant, request, lambda: self._discovery(tenant))
        if token and request.method == "POST":
            tenant = token.group(1)
            form = {name: values[0] for name, values in parse_qs(request.body.decode(), True).items()}
            return Operation("token", form.get("client_id", ""), request, lambda: self._token(request, tenant, form))
        return Operation("unknown", request.path, request, lambda: self.error(request, 404))

    def error(self, request: Request, status: int, /, code: str = "", message: str = "", **extra: Any) -> Response:
        """An OAuth error of this service; a 5xx or 429 is the transient failure 90033."""
        text = message or "A transient error has occurred. Please try again."
        return self._error(status, code or "temporarily_unavailable", 90033, text, **extra)

    def _discovery(self, tenant: str) -> Response:
        if not self._is_here(tenant):
            status, _error, text = AADSTS[90002]
            return self._error(status, "invalid_tenant", 90002, text.format(tenant=tenant))
        root = f"{self.url}/{tenant}"
        return Response.of(
            200,
            {
                "token_endpoint": f"{root}/oauth2/v2.0/token",
                "token_endpoint_auth_methods_supported": [
                    "client_secret_post",
                    "private_key_jwt",
                    "client_secret_basic",
                ],
                "jwks_uri": f"{root}/discovery/v2.0/keys",
                "issuer": f"{self.url}/{self.directory.tenant_id}/v2.0",
                "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
                "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
                "tenant_region_scope": "EU",
                "cloud_instance_name": "localhost",
            },
            {"Date": self._date()},
        )

    def _token(self, request: Request, tenant: str, form: dict[str, str]) -> Response:
        cookie = _cookie(request)
        turn = self.directory.route(cookie)
        response = self._answer(tenant, form, self.directory.sign_in_replicas[turn])
        response.cookies = _cookies(cookie)
        response.detail += f" by replica {turn}"
        return response

    def _answer(self, tenant: str, form: dict[str, str], replica: Replica) -> Response:
        client = form.get("client_id", "")
        names = {
            "client": client,
            "tenant": tenant,
            "scope": form.get("scope", ""),
            "grant": form.get("grant_type", ""),
        }
        number, application = self._judge(tenant, form, replica, names)
        if number is not None or application is None:
            number = number or 700016
            status, error, text = AADSTS[number]
            names["name"] = application.display_name if application else ""
            status = self.directory.sign_in_status.get(number, status)
            return self._error(status, error, number, text.format(**names))
        lifetime = self.directory.token_lifetime
        audience = form["scope"][: -len("/.default")]
        token = self.issue(application, audience, lifetime)
        return Response.of(
            200,
            {"token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime, "access_token": token},
            self._headers(),
            detail="issued",
        )

    def issue(self, application: Application, audience: str, lifetime: float) -> str:
        """A new access token of this application, or managed identity, for so many seconds."""
        token = _new_token(application, audience, self.directory.tenant_id)
        end = self.directory.time() + lifetime
        self._grants[token] = Grant(application.client_id, tuple(application.roles), audience, end)
        return token

    def _judge(
        self, tenant: str, form: dict[str, str], replica: Replica, names: dict[str, str]
    ) -> tuple[int | None, Application | None]:
        """The AADSTS number by which this replica refuses, if it does, and the application that the request names.

        What the text of the refusal names is added to `names`.
        """
        application = self.directory.by_client_id(form.get("client_id", ""))
        if not self._is_here(tenant):
            return 90002, None
        if form.get("grant_type") != "client_credentials":
            return 70003, application
        scope = form.get("scope", "")
        if not scope.endswith("/.default"):
            return 70011, application
        if scope[: -len("/.default")] not in (self.graph_url, PUBLIC_GRAPH):
            return 500011, application
        if application is None:
            return 700016, None
        if form.get("client_assertion") and form.get("client_assertion_type") == ASSERTION_TYPE:
            endpoint, now = f"{self.url}/{tenant}/oauth2/v2.0/token", self.directory.now()
            number, more = self.assertions.judge(application, form["client_assertion"], endpoint, now)
            names.update(more)
            return number or self.directory.sign_in_error(application, None, replica), application
        if not form.get("client_secret"):
            return 7000216, application
        return self.directory.sign_in_error(application, form["client_secret"], replica), application

    def _headers(self) -> dict[str, str]:
        return {
            "Cache-Control": "no-store, no-cache",
            "Pragma": "no-cache",
            "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
            "P3P": 'CP="DSP CUR OTPi IND OTRi ONL FIN"',
            "x-ms-request-id": new_guid(),
            "x-ms-ests-server": "2.1.0.0 - LOOPBACK ProdSlices",
            "Date": self._date(),
        }

    def _date(self) -> str:
        return format_datetime(self.directory.now(), usegmt=True)

    def _is_here(self, tenant: str) -> bool:
        return tenant.lower() in (self.directory.tenant_id, self.directory.tenant_domain)

    def _error(self, status: int, error: str, number: int, text: str, **extra: Any) -> Response:
        trace, correlation = new_guid(), new_guid()
        stamp = self.directory.now().strftime("%Y-%m-%d %H:%M:%SZ")
        description = "\r\n".join(
            (f"AADSTS{number}: {text}", f"Trace ID: {trace}", f"Correlation ID: {correlation}", f"Timestamp: {stamp}")
        )
        body = {
            "error": error,
            "error_description": description,
            "error_codes": [number],
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={number}",
            **extra,
        }
        return Response.of(status, body, self._headers(), detail=f"AADSTS{number}")


def _new_token(application: Application, audience: str, tenant: str) -> str:
    """A JWT by its looks: Graph here knows it as a whole, clients may read the permissions in it."""
    claims = {"aud": audience, "appid": application.client_id, "tid": tenant, "roles": application.roles}
    claims["uti"] = secrets.token_hex(64)
    parts = [json.dumps(part).encode() for part in ({"typ": "JWT", "alg": "RS256"}, claims)]
    encoded = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, secrets.token_urlsafe(128)])


def _cookie(request: Request) -> str:
    """The cookie that tells clients apart: as it was sent back, else a new one."""
    sent = re.search(r"(?:^|; )fpc=([^;]+)", request.headers.get("Cookie", ""))
    return sent[1] if sent else secrets.token_urlsafe(16)


def _cookies(fpc: str) -> list[str]:
    """The cookies of a token answer. Only `fpc` differs between clients, the others name a slice of the service."""
    return [
        f"fpc={fpc}; path=/; secure; HttpOnly; SameSite=None",
        "x-ms-gateway-slice=estsfd; path=/; secure; HttpOnly; SameSite=None",
        "stsservicecookie=estsfd; path=/; secure; HttpOnly; SameSite=None",
    ]
