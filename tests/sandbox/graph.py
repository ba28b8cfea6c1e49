# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Microsoft Graph v1.0, as far as client secrets of applications go: GET, addPassword and removePassword."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any, Callable, NoReturn

from .directory import (
    DEFAULT_LIFETIME,
    PERSONAL_AUDIENCES,
    PERSONAL_SECRETS_MAX,
    Application,
    Credential,
    Directory,
    new_guid,
)
from .entra import Entra, Grant
from .exchange import Operation, Refusal, Request, Response

ADDRESS = re.compile(
    r"/v1\.0/applications(?:/(?P<object>[^/]+)|\(appId='(?P<client>[^']*)'\))"
    r"(?:/(?:microsoft\.graph\.)?(?P<action>\w+))?"
)
OWNED_OBJECTS = re.compile(r"/v1\.0/servicePrincipals\(appId='([^']*)'\)/ownedObjects")
GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
MOMENT = re.compile(r"(\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,12}))?(Z|[+-]\d\d:\d\d)")
EVERYTHING = ("Application.ReadWrite.All", "Directory.ReadWrite.All")
READ_EVERYTHING = (*EVERYTHING, "Application.Read.All", "Directory.Read.All")
OWNED = "Application.ReadWrite.OwnedBy"


class Graph:
    """Graph's applications on one directory. `url` is its own root; tokens must have been issued for it."""

    name = "graph"

    def __init__(self, directory: Directory, entra: Entra) -> None:
        self.directory, self.entra = directory, entra
        self.url = ""

    def operation(self, request: Request) -> Operation:
        """One of the three calls (or the refused listing); the subject is the id that the caller used."""
        owner = OWNED_OBJECTS.fullmatch(request.path)
        if owner is not None and request.method == "GET":
            return Operation("owned_objects", owner[1], request, lambda: self._owned(request, owner[1]))
        address = ADDRESS.fullmatch(request.path)
        if address is None:
            listing = request.path == "/v1.0/applications" and request.method == "GET"
            return Operation(
                "list_applications" if listing else "unknown",
                request.path,
                request,
                lambda: (
                    self._list(request)
                    if listing
                    else self.error(request, 404, "ResourceNotFound", f"Resource not found for {request.path}.")
                ),
            )
        action = (request.method, address["action"])
        calls: dict[Any, Callable[[Request, Application], Response]] = {
            ("GET", None): self._get,
            ("POST", "addPassword"): self._add,
            ("POST", "removePassword"): self._remove,
        }
        subject = address["object"] or address["client"] or ""
        if action not in calls:
            return Operation(
                "unknown",
                subject,
                request,
                lambda: self.error(
                    request, 400, "BadRequest", f"Resource not found for the segment '{address['action']}'."
                ),
            )

        def perform() -> Response:
            grant = self._authenticate(request)
            application = self._find(request, address["object"], address["client"])
            self._authorize(request, grant, application, write=request.method == "POST")
            return calls[action](request, application)

        return Operation(address["action"] or "get_application", subject, request, perform)

    def error(self, request: Request, status: int, /, code: str = "", message: str = "", **extra: Any) -> Response:
        """An error in OData's shape; `extra` goes into innerError."""
        headers = self._headers(request)
        inner = {
            "date": self._now(request).strftime("%Y-%m-%dT%H:%M:%S"),
            "request-id": headers["request-id"],
            "client-request-id": headers["client-request-id"],
        }
        details = extra.pop("details", None)
        error = {
            "code": code or {503: "ServiceNotAvailable", 504: "GatewayTimeout"}.get(status, "UnknownError"),
            "message": message or "An unexpected error occurred.",
            **({"details": details} if details else {}),
            "innerError": {**inner, **extra},
        }
        if status == 401:
            uri = f"{self.entra.url}/common/oauth2/authorize"
            headers["WWW-Authenticate"] = f'Bearer realm="", authorization_uri="{uri}"'
        return Response.of(status, {"error": error}, headers, detail=code)

    def _refuse(self, request: Request, status: int, code: str, message: str, **extra: Any) -> NoReturn:
        raise Refusal(self.error(request, status, code, message, **extra))

    def _authenticate(self, request: Request) -> Grant:
        scheme, _space, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            self._refuse(request, 401, "InvalidAuthenticationToken", "Access token is empty.")
        grant = self.entra.grant(token)
        if grant is None:
            self._refuse(request, 401, "InvalidAuthenticationToken", "Access token validation failure.")
        if grant.audience != self.url:
            self._refuse(
                request, 401, "InvalidAuthenticationToken", "Access token validation failure. Invalid audience."
            )
        if self.directory.time() >= grant.expires:
            self._refuse(request, 401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.")
        return grant

    def _find(self, request: Request, object_id: str | None, client_id: str | None) -> Application:
        given = object_id or client_id or ""
        if not GUID.fullmatch(given):
            self._refuse(
                request,
                400,
                "Request_BadRequest",
                f"Invalid object identifier '{given}'."
                if object_id
                else "Invalid value specified for property 'appId' of resource 'Application'.",
            )
        found = self.directory.by_object_id(given) if object_id else self.directory.by_client_id(given)
        if found is None or self.directory.unheard(found, request.turn):
            self._refuse(
                request,
                404,
                "Request_ResourceNotFound",
                f"Resource '{given}' does not exist or one of its queried reference-property objects are not present.",
            )
        return found

    def _authorize(self, request: Request, grant: Grant, application: Application | None, write: bool) -> None:
        if set(grant.roles) & set(EVERYTHING if write else READ_EVERYTHING):
            return
        if OWNED not in grant.roles or application is None or grant.client_id not in application.owners:
            self._refuse(
                request, 403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation."
            )

    def _owned(self, request: Request, client_id: str) -> Response:
        # What OwnedBy may list: the objects of its own service principal.
        grant = self._authenticate(request)
        if grant.client_id != client_id.lower() and not set(grant.roles) & set(READ_EVERYTHING):
            message = "Insufficient privileges to complete the operation."
            self._refuse(request, 403, "Authorization_RequestDenied", message)
        owned = [one for one in self.directory.applications if client_id.lower() in one.owners]
        value = [{"@odata.type": "#microsoft.graph.application", "id": one.object_id} for one in owned]
        context = f"{self.url}/v1.0/$metadata#directoryObjects(id)"
        return Response.of(200, {"@odata.context": context, "value": value}, self._headers(request))

    def _list(self, request: Request) -> Response:
        # OwnedBy may not list, not even with a filter that would find an owned application.
        self._authorize(request, self._authenticate(request), None, write=False)
        wanted = re.fullmatch(r"appId eq '([^']*)'", request.query.get("$filter", ""))
        found = [one for one in self.directory.applications if wanted is None or one.client_id == wanted[1].lower()]
        body = {
            "@odata.context": f"{self.url}/v1.0/$metadata#applications",
            "value": [self._shown(request, one) for one in found],
        }
        return Response.of(200, body, self._headers(request))

    def _get(self, request: Request, application: Application) -> Response:
        shown = self._shown(request, application)
        select = [name for name in request.query.get("$select", "").split(",") if name]
        unknown = [name for name in select if name not in shown]
        if unknown:
            self._refuse(
                request,
                400,
                "BadRequest",
                "Parsing OData Select and Expand failed: Could not find a "
                f"property named '{unknown[0]}' on type 'microsoft.graph.application'.",
            )
        context = f"#applications({','.join(select)})/$entity" if select else "#applications/$entity"
        body = {
            "@odata.context": f"{self.url}/v1.0/$metadata{context}",
            **{name: value for name, value in shown.items() if not select or name in select},
        }
        return Response.of(
            200, body, self._headers(request), detail=f"{len(shown['passwordCredentials'])} secrets shown"
        )

    def _shown(self, request: Request, application: Application) -> dict[str, Any]:
        return {
            "id": application.object_id,
            "deletedDateTime": None,
            "appId": application.client_id,
            "createdDateTime": _stamp(application.created, 0),
            "displayName": application.display_name,
            "isDisabled": application.disabled or None,
            "signInAudience": application.audience,
            "keyCredentials": [],
            "passwordCredentials": [_shown(one) for one in self.directory.shown(application, request.turn)],
        }

    def _add(self, request: Request, application: Application) -> Response:
        wish = self._json(request).get("passwordCredential") or {}
        if not isinstance(wish, dict) or set(wish) - {"displayName", "endDateTime", "startDateTime"}:
            self._refuse(
                request,
                400,
                "Request_BadRequest",
                "A password credential takes displayName, startDateTime and endDateTime.",
            )
        if self.directory.policy_blocks_passwords:
            self._refuse(
                request,
                400,
                "CredentialTypeNotAllowedAsPerAppPolicy",
                f"Credential type is not allowed as per assigned policy '{self.directory.policy_id}'.",
            )
        start = self._moment(request, wish.get("startDateTime")) or self._now(request)
        skew = 0.0 if wish.get("startDateTime") else self.directory.ahead(request.turn)
        end = self._moment(request, wish.get("endDateTime")) or start + DEFAULT_LIFETIME
        if end <= start:
            self._refuse(request, 400, "Request_BadRequest", "Key credential end date is invalid.")
        longest = self.directory.policy_max_days
        if longest is not None and end - start > timedelta(days=longest):
            self._refuse(
                request,
                400,
                "CredentialInvalidLifetimeAsPerAppPolicy",
                "Credential lifetime exceeds the max "
                f"value allowed as per assigned policy '{self.directory.policy_id}'.",
                details=[
                    {"code": "InvalidKeyEndDate", "message": "The credential end date is invalid.", "target": "EndDate"}
                ],
            )
        if application.audience in PERSONAL_AUDIENCES and len(application.credentials) >= PERSONAL_SECRETS_MAX:
            self._refuse(
                request,
                400,
                "Request_BadRequest",
                "The size of the object has exceeded its limit. Please "
                "reduce the number of values and retry your request.",
            )
        credential = self.directory.create(application, wish.get("displayName"), start, end, skew, request.turn)
        body = {
            "@odata.context": f"{self.url}/v1.0/$metadata#microsoft.graph.passwordCredential",
            **_shown(credential),
            "secretText": credential.text,
        }
        return Response.of(200, body, self._headers(request), changed=True, detail=f"key {credential.key_id}")

    def _remove(self, request: Request, application: Application) -> Response:
        key_id = self._json(request).get("keyId")
        if not isinstance(key_id, str) or not GUID.fullmatch(key_id):
            self._refuse(
                request, 400, "Request_BadRequest", "Cannot convert the literal to the expected type 'Edm.Guid'."
            )
        # A replica that has not heard of a new secret cannot remove it: the same 400 as for one that never was. One
        # that still shows a removed secret is asked to remove what it shows, and finds nothing wrong with that.
        found = [one for one in self.directory.shown(application, request.turn) if one.key_id == key_id.lower()]
        if not found:
            self._refuse(request, 400, "Request_BadRequest", f"No password credential found with keyId '{key_id}'.")
        present = found[0].removed_by is None
        if present:
            self.directory.remove(application, found[0], turn=request.turn)
        return Response(204, b"", self._headers(request), changed=present, detail=f"key {key_id.lower()}")

    def _now(self, request: Request) -> datetime:
        """The clock of the front end that this request has met."""
        return self.directory.now() + timedelta(seconds=self.directory.ahead(request.turn))

    def _headers(self, request: Request) -> dict[str, str]:
        return {
            "Date": format_datetime(self._now(request), usegmt=True),
            "request-id": new_guid(),
            "client-request-id": request.headers.get("client-request-id") or new_guid(),
            "Strict-Transport-Security": "max-age=31536000",
            "x-ms-ags-diagnostic": json.dumps({"ServerInfo": {"DataCenter": "Loopback", "Slice": "E", "Ring": "1"}}),
        }

    def _json(self, request: Request) -> dict[str, Any]:
        if not request.headers.get("Content-Type", "").startswith("application/json"):
            self._refuse(
                request,
                400,
                "BadRequest",
                "Write requests (excluding DELETE) must contain the Content-Type header declaration.",
            )
        try:
            body = json.loads(request.body)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._refuse(request, 400, "BadRequest", "Unable to read JSON request payload.")
        return body

    def _moment(self, request: Request, text: Any) -> datetime | None:
        """An Edm.DateTimeOffset as an aware datetime, cut to microseconds; None stays None."""
        if text is None:
            return None
        match = MOMENT.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            self._refuse(
                request,
                400,
                "Request_BadRequest",
                f"Cannot convert the literal '{text}' to the expected type 'Edm.DateTimeOffset'.",
            )
        whole, fraction, zone = match.groups()
        micro = (fraction or "").ljust(6, "0")[:6]
        moment = datetime.fromisoformat(f"{whole}.{micro}{'+00:00' if zone == 'Z' else zone}")
        return moment.astimezone(timezone.utc)


def _shown(credential: Credential) -> dict[str, Any]:
    """A passwordCredential as every GET shows it: without its text."""
    return {
        "customKeyIdentifier": None,
        "displayName": credential.display_name,
        "endDateTime": _stamp(credential.end, credential.fraction_digits),
        "hint": credential.hint,
        "keyId": credential.key_id,
        "secretText": None,
        "startDateTime": _stamp(credential.start, credential.fraction_digits),
    }


def _stamp(moment: datetime, digits: int) -> str:
    """Graph's writing of a time: UTC, Z, and a fraction of a second of this many digits (7 is what Graph has)."""
    fraction = f"{moment.microsecond:06d}0"[:digits]
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S") + (f".{fraction}" if digits else "") + "Z"
