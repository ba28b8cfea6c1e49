# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Microsoft Graph v1.0, as far as client secrets of applications go: reads, lists, batches of reads, addPassword and
removePassword."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Callable, NoReturn

from . import graph_batch, graph_query
from . import graph_forms as forms
from .directory import DEFAULT_LIFETIME, PERSONAL_AUDIENCES, PERSONAL_SECRETS_MAX, Application, Directory
from .entra import Entra, Grant
from .exchange import Operation, Refusal, Request, Response

LIST = "/v1.0/applications"
ADDRESS = re.compile(
    r"/v1\.0/applications(?:/(?P<object>[^/]+)|\(appId='(?P<client>[^']*)'\))"
    r"(?:/(?:microsoft\.graph\.)?(?P<action>\w+))?"
)
BATCH = "/v1.0/$batch"
PRINCIPAL = re.compile(r"/v1\.0/servicePrincipals\(appId='([^']*)'\)")
OWNED_OBJECTS = re.compile(r"/v1\.0/servicePrincipals\(appId='([^']*)'\)/ownedObjects")
GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
EVERYTHING = ("Application.ReadWrite.All", "Directory.ReadWrite.All")
READ_EVERYTHING = (*EVERYTHING, "Application.Read.All", "Directory.Read.All")
OWNED = "Application.ReadWrite.OwnedBy"
# Writes and seconds, for all applications and for those of personal accounts:
# https://learn.microsoft.com/graph/throttling-limits
WRITES = {False: (3000, 150.0), True: (60, 60.0)}


class Graph:
    """Graph's applications on one directory. `url` is its own root; tokens must have been issued for it.

    Its answers have the forms of public recordings of the real one.
    """

    name = "graph"

    def __init__(self, directory: Directory, entra: Entra) -> None:
        self.directory, self.entra = directory, entra
        self._writes: dict[tuple[str, bool], deque[float]] = defaultdict(deque)
        self.url = ""

    def operation(self, request: Request) -> Operation:
        """One of the calls on an application, a list, or what a caller owns; the subject is the id that was used."""
        path = re.sub("/{2,}", "/", request.path)
        owner, address = OWNED_OBJECTS.fullmatch(path), ADDRESS.fullmatch(path)
        if owner is not None and request.method == "GET":
            return Operation("owned_objects", owner[1], request, lambda: self._owned(request, owner[1]))
        if path == LIST and request.method == "GET":
            return Operation("list_applications", path, request, lambda: self._list(request))
        if path == BATCH and request.method == "POST":
            return Operation("batch", path, request, lambda: graph_batch.answer(self, request, self._json(request)))
        principal = PRINCIPAL.fullmatch(path)
        if principal is not None and request.method == "GET":
            return Operation("get_principal", path, request, lambda: self._principal(request, principal[1]))
        if address is None:
            text = f"Resource not found for {path}."
            return Operation("unknown", path, request, lambda: self.error(request, 404, "ResourceNotFound", text))
        action = (request.method, address["action"])
        calls: dict[Any, Callable[[Request, Application], Response]] = {
            ("GET", None): self._get,
            ("GET", "owners"): self._owners,
            ("POST", "addPassword"): self._add,
            ("POST", "removePassword"): self._remove,
        }
        subject = address["object"] or address["client"] or ""
        if action not in calls:
            text = f"Resource not found for the segment '{address['action']}'."
            return Operation("unknown", subject, request, lambda: self.error(request, 400, "BadRequest", text))

        def perform() -> Response:
            grant = self._authenticate(request)
            application = self._find(request, address["object"], address["client"])
            self._authorize(request, grant, application, write=request.method == "POST")
            if request.method == "POST" and self.directory.throttle:
                self._count(request, grant, application.audience in PERSONAL_AUDIENCES)
            return calls[action](request, application)

        return Operation(address["action"] or "get_application", subject, request, perform)

    def error(self, request: Request, status: int, /, code: str = "", message: str = "", **extra: Any) -> Response:
        """An error in OData's shape; `extra` goes into innerError."""
        headers = {**self._headers(request), "Content-Type": "application/json"}
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
        return self._answer(request, {"error": error}, status, headers, detail=code)

    def batch_headers(self, request: Request) -> dict[str, str]:
        """The headers of the answer to a batch."""
        return self._headers(request)

    def _answer(
        self,
        request: Request,
        body: Mapping[str, Any],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **rest: Any,
    ) -> Response:
        """An answer with a body: streamed, which the real one does with all of them."""
        own = self._headers(request) if headers is None else headers
        common = {"Content-Type": forms.JSON_TYPE, "odata-version": "4.0", "Vary": "Accept-Encoding"}
        return Response.of(status, body, {**common, **own}, streamed=True, **rest)

    def _headers(self, request: Request) -> dict[str, str]:
        whole = request.path.endswith(LIST) and request.method == "GET"
        units = max(1, (2 if whole else 1) - ("$select" in request.query))
        return forms.headers(request, self._now(request), units)

    def _now(self, request: Request) -> datetime:
        """The clock of the front end that this request has met."""
        return self.directory.now() + timedelta(seconds=self.directory.ahead(request.turn))

    def _refuse(self, request: Request, status: int, code: str, message: str, **extra: Any) -> NoReturn:
        raise Refusal(self.error(request, status, code, message, **extra))

    # -- how often

    def _count(self, request: Request, grant: Grant, personal: bool) -> None:
        """Graph's limits on writes, of an application in the tenant: what is refused does not count."""
        now = time.monotonic()
        for kind in sorted({False, personal}):
            most, seconds = WRITES[kind]
            with self.directory.lock:
                taken = self._writes[(grant.client_id, kind)]
                while taken and now - taken[0] >= seconds:
                    taken.popleft()
                if len(taken) < most:
                    taken.append(now)
                    continue
                wait = taken[0] + seconds - now
            response = self.error(request, 429, "TooManyRequests", "Please retry again later.")
            response.headers["Retry-After"] = f"{wait:.3f}"
            raise Refusal(response)

    # -- who may do what

    def _authenticate(self, request: Request) -> Grant:
        scheme, _space, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            self._refuse(request, 401, "InvalidAuthenticationToken", "Access token is empty.")
        grant = self.entra.grant(token)
        text = "Access token validation failure."
        if grant is None:
            self._refuse(request, 401, "InvalidAuthenticationToken", text)
        if grant.audience != self.url:
            self._refuse(request, 401, "InvalidAuthenticationToken", f"{text} Invalid audience.")
        if self.directory.time() >= grant.expires:
            self._refuse(request, 401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.")
        return grant

    def _find(self, request: Request, object_id: str | None, client_id: str | None) -> Application:
        given = object_id or client_id or ""
        if not GUID.fullmatch(given):
            text = "Invalid value specified for property 'appId' of resource 'Application'."
            text = f"Invalid object identifier '{given}'." if object_id else text
            self._refuse(request, 400, "Request_BadRequest", text)
        found = self.directory.by_object_id(given) if object_id else self.directory.by_client_id(given)
        if found is None or self.directory.unheard(found, request.turn):
            text = (
                f"Resource '{given}' does not exist or one of its queried reference-property objects are not present."
            )
            self._refuse(request, 404, "Request_ResourceNotFound", text)
        return found

    def _authorize(self, request: Request, grant: Grant, application: Application | None, write: bool) -> None:
        roles = set(grant.roles)
        owns = application is not None and OWNED in roles and grant.client_id in application.owners
        if write:
            allowed = bool(roles & set(EVERYTHING)) or owns
        else:
            # OwnedBy reads every application, and an application reads itself without any permission.
            itself = application is not None and grant.client_id == application.client_id
            reads_all = self.directory.owned_by_reads_all and OWNED in roles
            allowed = bool(roles & set(READ_EVERYTHING)) or reads_all or owns or itself
        if not allowed:
            text = "Insufficient privileges to complete the operation."
            self._refuse(request, 403, "Authorization_RequestDenied", text)

    # -- reads

    def _owned(self, request: Request, client_id: str) -> Response:
        grant = self._authenticate(request)
        if grant.client_id != client_id.lower():
            self._authorize(request, grant, None, write=False)
        owned = [one for one in self.directory.applications if client_id.lower() in one.owners]
        value = [{"@odata.type": "#microsoft.graph.application", "id": one.object_id} for one in owned]
        context = f"{self.url}/v1.0/$metadata#directoryObjects(id)"
        return self._answer(request, {"@odata.context": context, "value": value})

    def _owners(self, request: Request, application: Application) -> Response:
        value = forms.owner_forms(application, self.directory.applications, graph_query.selected(request.query))
        context = f"{self.url}/v1.0/$metadata#directoryObjects"
        return self._answer(request, {"@odata.context": context, "value": value})

    def _principal(self, request: Request, client_id: str) -> Response:
        self._authorize(request, self._authenticate(request), None, write=False)
        found = self.directory.by_client_id(client_id)
        if found is None or not found.service_principal:
            text = f"Resource '{client_id}' does not exist."
            self._refuse(request, 404, "Request_ResourceNotFound", text)
        names = graph_query.selected(request.query)
        shown = graph_query.select(forms.principal_form(found), names, "servicePrincipal")
        context = f"{self.url}/v1.0/$metadata#servicePrincipals({','.join(names)})/$entity"
        return self._answer(request, {"@odata.context": context, **shown})

    def _list(self, request: Request) -> Response:
        self._authorize(request, self._authenticate(request), None, write=False)
        names = graph_query.selected(request.query)
        try:
            found = graph_query.matching(self.directory.applications, request.query.get("$filter", ""))
            part, more = graph_query.page(found, request.query, self.url + LIST)
            value = [graph_query.select(self._form(request, one), names) for one in part]
        except graph_query.BadQuery as bad:
            self._refuse(request, 400, bad.code, bad.message)
        context = f"{self.url}/v1.0/$metadata#applications" + (f"({','.join(names)})" if names else "")
        link = {"@odata.nextLink": more} if more else {}
        return self._answer(request, {"@odata.context": context, **link, "value": value})

    def _get(self, request: Request, application: Application) -> Response:
        names, form = graph_query.selected(request.query), self._form(request, application)
        try:
            shown = graph_query.select(form, names)
        except graph_query.BadQuery as bad:
            self._refuse(request, 400, bad.code, bad.message)
        context = f"#applications({','.join(names)})/$entity" if names else "#applications/$entity"
        body = {"@odata.context": f"{self.url}/v1.0/$metadata{context}", **shown}
        return self._answer(request, body, detail=f"{len(form['passwordCredentials'])} secrets shown")

    def _form(self, request: Request, application: Application) -> dict[str, Any]:
        secrets = self.directory.shown(application, request.turn)
        return forms.application_form(application, secrets, self.directory.tenant_domain)

    # -- writes

    def _add(self, request: Request, application: Application) -> Response:
        wish = self._json(request).get("passwordCredential") or {}
        if not isinstance(wish, dict) or set(wish) - {"displayName", "endDateTime", "startDateTime"}:
            text = "A password credential takes displayName, startDateTime and endDateTime."
            self._refuse(request, 400, "Request_BadRequest", text)
        directory = self.directory
        if directory.policy_blocks_passwords:
            text = f"Credential type is not allowed as per assigned policy '{directory.policy_id}'."
            self._refuse(request, 400, "CredentialTypeNotAllowedAsPerAppPolicy", text)
        now = self._now(request)
        given = self._moment(request, wish.get("startDateTime"))
        start, start_tick = given or (now, 1)
        end, end_tick = self._moment(request, wish.get("endDateTime")) or (start + DEFAULT_LIFETIME, start_tick)
        if end <= start:
            self._refuse(request, 400, "Request_BadRequest", "Key credential end date is invalid.")
        longest = directory.policy_max_days
        if longest is not None and end - start > timedelta(days=longest):
            text = f"Credential lifetime exceeds the max value allowed as per assigned policy '{directory.policy_id}'."
            why = {"code": "InvalidKeyEndDate", "message": "The credential end date is invalid.", "target": "EndDate"}
            self._refuse(request, 400, "CredentialInvalidLifetimeAsPerAppPolicy", text, details=[why])
        number = len(application.credentials) + 1
        if application.audience in PERSONAL_AUDIENCES and number > PERSONAL_SECRETS_MAX:
            most = f"You can only add a maximum of {PERSONAL_SECRETS_MAX} passwords."
            self._refuse(request, 400, "TooManyAppPasswords", f"Not allowed to add {number} passwords. {most}")
        skew = 0.0 if given else directory.ahead(request.turn)
        credential = directory.create(application, wish.get("displayName"), start, end, skew, request.turn)
        credential.ticks = (start_tick, end_tick)
        body = {
            "@odata.context": f"{self.url}/v1.0/$metadata#microsoft.graph.passwordCredential",
            **forms.secret_form(credential),
            "secretText": credential.text,
        }
        headers = {**self._headers(request), "location": self.url}
        return self._answer(request, body, 200, headers, changed=True, detail=f"key {credential.key_id}")

    def _remove(self, request: Request, application: Application) -> Response:
        key_id = self._json(request).get("keyId")
        if not isinstance(key_id, str) or not GUID.fullmatch(key_id):
            text = "Cannot convert the literal to the expected type 'Edm.Guid'."
            self._refuse(request, 400, "Request_BadRequest", text)
        # A replica that has not heard of a new secret cannot remove it: the same 400 as for one that never was. One
        # that still shows a removed secret is asked to remove what it shows, and finds nothing wrong with that.
        found = [one for one in self.directory.shown(application, request.turn) if one.key_id == key_id.lower()]
        if not found:
            self._refuse(request, 400, "Request_BadRequest", f"No password credential found with keyId '{key_id}'.")
        present = found[0].removed_by is None
        if present:
            self.directory.remove(application, found[0], turn=request.turn)
        return Response(204, b"", self._headers(request), changed=present, detail=f"key {key_id.lower()}")

    def _json(self, request: Request) -> dict[str, Any]:
        if not request.headers.get("Content-Type", "").startswith("application/json"):
            text = "Write requests (excluding DELETE) must contain the Content-Type header declaration."
            self._refuse(request, 400, "BadRequest", text)
        try:
            body = json.loads(request.body)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._refuse(request, 400, "BadRequest", "Unable to read JSON request payload.")
        return body

    def _moment(self, request: Request, text: Any) -> tuple[datetime, int] | None:
        if text is None:
            return None
        moment = forms.moment_of(text)
        if moment is None:
            why = f"Cannot convert the literal '{text}' to the expected type 'Edm.DateTimeOffset'."
            self._refuse(request, 400, "Request_BadRequest", why)
        return moment
