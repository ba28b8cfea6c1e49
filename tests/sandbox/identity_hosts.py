# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gives a host's managed identity its tokens: a VM's metadata service, App Service, and Azure Arc's agent."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .application import Application, new_guid
from .entra import Entra
from .exchange import Operation, Request, Response

LIFETIME = 86399
#: Where Azure Arc's agent keeps the keys by which a caller proves that it is on this host. Clients know no other.
ARC_KEYS = "/var/opt/azcmagent/tokens"


class Host:
    """A host in Azure, as its local token service. `system` is its own identity, `users` those assigned to it."""

    name = "metadata"
    operation_name = "metadata_token"
    path = "/metadata/identity/oauth2/token"

    def __init__(self, entra: Entra, system: Application | None = None, users: Sequence[Application] = ()) -> None:
        self.entra, self.system, self.users = entra, system, users
        self.url = ""

    def environ(self) -> dict[str, str | None]:
        """The variables by which clients on this host find the service."""
        raise NotImplementedError

    def operation(self, request: Request) -> Operation:
        """A request for a token; the subject is the client id that it names."""
        subject = request.query.get("client_id", "")
        if request.method != "GET" or request.path != self.path:
            return Operation("unknown", request.path, request, lambda: self.error(request, 404))
        return Operation(self.operation_name, subject, request, lambda: self._token(request))

    def error(self, request: Request, status: int, /, code: str = "", message: str = "", **extra: Any) -> Response:
        """An error of this service."""
        body = {"error": code or "internal_error", "error_description": message or "Internal Server Error", **extra}
        return Response.of(status, body, detail=code)

    def _token(self, request: Request) -> Response:
        raise NotImplementedError

    def _chosen(self, request: Request) -> Application | None:
        client_id = request.query.get("client_id")
        if client_id is None:
            return self.system
        return next((one for one in self.users if one.client_id == client_id.lower()), None)

    def _granted(self, request: Request, identity: Application) -> dict[str, str]:
        """The members that all the services share, as texts."""
        resource = request.query["resource"]
        start = int(self.entra.directory.time())
        return {
            "access_token": self.entra.issue(identity, resource, LIFETIME),
            "client_id": identity.client_id,
            "expires_in": str(LIFETIME),
            "expires_on": str(start + LIFETIME),
            "ext_expires_in": str(LIFETIME),
            "not_before": str(start - 300),
            "resource": resource,
            "token_type": "Bearer",
        }

    def _unknown_resource(self, request: Request) -> bool:
        return request.query.get("resource") not in (self.entra.graph_url, "https://graph.microsoft.com")


class VirtualMachine(Host):
    """The instance metadata service (IMDS) of an Azure VM."""

    name = "imds"
    operation_name = "imds_token"

    def environ(self) -> dict[str, str | None]:
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self.url}

    def _token(self, request: Request) -> Response:
        resource = request.query.get("resource", "")
        if request.headers.get("Metadata", "").lower() != "true" or request.headers.get("X-Forwarded-For"):
            return self.error(request, 400, "invalid_request", "Required metadata header not specified")
        if request.query.get("api-version") != "2018-02-01":
            return self.error(request, 400, "invalid_request", "Bad request. api-version is invalid")
        if not resource:
            return self.error(request, 400, "invalid_request", "Required audience parameter not specified")
        identity = self._chosen(request)
        if identity is None:
            return self.error(request, 400, "invalid_request", "Identity not found")
        if self._unknown_resource(request):
            text = (
                f"AADSTS500011: The resource principal named {resource} was not found in the tenant named "
                f"{self.entra.directory.tenant_domain}."
            )
            return self.error(request, 400, "invalid_resource", text)
        return Response.of(200, self._granted(request, identity), detail="issued")


class AppService(Host):
    """The token endpoint of App Service and Azure Functions, guarded by a header that only the app knows."""

    name = "appservice"
    operation_name = "appservice_token"
    path = "/msi/token"

    def __init__(self, entra: Entra, system: Application | None = None, users: Sequence[Application] = ()) -> None:
        super().__init__(entra, system, users)
        self.header = secrets.token_hex(32).upper()

    def environ(self) -> dict[str, str | None]:
        return {"IDENTITY_ENDPOINT": self.url + self.path, "IDENTITY_HEADER": self.header}

    def error(self, request: Request, status: int, /, code: str = "", message: str = "", **extra: Any) -> Response:
        body = {"statusCode": status, "message": message or "Internal Server Error", **extra}
        return Response.of(status, body, detail=code)

    def _token(self, request: Request) -> Response:
        if request.headers.get("X-IDENTITY-HEADER") != self.header:
            return self.error(request, 401, message="Unauthorized")
        identity = self._chosen(request)
        if request.query.get("api-version") != "2019-08-01" or "resource" not in request.query:
            return self.error(request, 400, message="The parameters of the request are not valid.")
        if identity is None:
            text = "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId."
            return self.error(request, 400, message=text)
        if self._unknown_resource(request):
            return self.error(request, 500, message="An unexpected error occured while fetching the AAD Token.")
        granted = self._granted(request, identity)
        shown = ("access_token", "expires_on", "resource", "token_type", "client_id")
        return Response.of(200, {name: granted[name] for name in shown}, detail="issued")


class ArcServer(Host):
    """Azure Arc's agent (himds) on a host anywhere: it answers who can read a file that it has just written.

    `keys` is the folder in which that file is written; clients look for it in ARC_KEYS. `confirms` is whether the agent
    knows of user-assigned identities; an older one gives the host's own for any.
    """

    name = "himds"
    operation_name = "himds_token"

    def __init__(
        self, entra: Entra, keys: Path, system: Application | None = None, users: Sequence[Application] = ()
    ) -> None:
        super().__init__(entra, system, users)
        self.keys = keys
        self.confirms = True
        self.made: list[str] = []

    def environ(self) -> dict[str, str | None]:
        return {"IDENTITY_ENDPOINT": self.url + self.path, "IMDS_ENDPOINT": self.url}

    def _token(self, request: Request) -> Response:
        if request.headers.get("Metadata", "").lower() != "true":
            return self.error(request, 400, "invalid_request", "Required metadata header not specified")
        scheme, _space, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Basic":
            return self._challenge(request)
        if shown not in self.made:
            return self.error(request, 401, "invalid_request", "The challenge token is not valid")
        identity = self._chosen(request) if self.confirms else self.system
        if identity is None or self._unknown_resource(request):
            return self.error(request, 400, "invalid_request", "Identity not found")
        return Response.of(200, self._granted(request, identity), detail="issued")

    def _challenge(self, request: Request) -> Response:
        name, key = f"{new_guid()}.key", secrets.token_hex(32)
        (self.keys / name).write_text(key, encoding="ascii")
        self.made.append(key)
        answer = self.error(request, 401, "unauthorized_client", "Missing Basic Authorization header")
        answer.headers["WWW-Authenticate"] = f"Basic realm={ARC_KEYS}/{name}"
        return answer


def managed_identity(entra: Entra, name: str, roles: Sequence[str] = ()) -> Application:
    """A managed identity: it has a service principal, but is none of the applications that Graph lists."""
    directory = entra.directory
    return Application(name, "AzureADMyOrg", [], list(roles), True, directory.now(), _directory=directory)
