# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Microsoft Graph v1.0: an application's password credentials, read, added and removed."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from ..base.errors import BadInput, Refused
from ..base.redact import Log, Secret
from .application import Application, Credential, application_in, credentials_in, format_time, guid
from .credentials import claims
from .graph_words import LATER, code_and_text, refusal_of
from .http import Http, Reply, Unanswered, busy, retry_after

_SELECT = "id,appId,displayName,signInAudience,passwordCredentials"
ADD, REMOVE = WRITES = "addPassword", "removePassword"
_CONCURRENT = "Directory_ConcurrencyViolation"
_FULL = "TooManyAppPasswords"
_OWNED_PAGES = 20


class NotDone(Exception):
    """A call of Graph did not succeed. ``why`` and ``todo`` are for people.

    ``certain`` tells that Graph has refused; otherwise the call may have taken effect, or may do so later.
    ``busy`` tells that by Graph's words the call was not carried out, and may be later. ``full`` tells that the
    application holds as many secrets as it may. ``status`` is that of the HTTP answer, 0 where there was none.
    ``wait`` is the pause in seconds that Graph asked for.
    """

    def __init__(
        self,
        why: str,
        todo: str = "",
        *,
        certain: bool = True,
        busy: bool = False,
        full: bool = False,
        status: int = 0,
        wait: float | None = None,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.todo = todo
        self.certain = certain
        self.busy = busy
        self.full = full
        self.status = status
        self.wait = wait


class Graph:
    """The applications of one tenant, as one admin application may see them; ``admin`` is its client id, if known.

    ``sign_in`` returns a fresh access token; it is asked once at first and again after a 401.
    """

    def __init__(self, http: Http, root: str, admin: str, sign_in: Callable[[], Secret], log: Log) -> None:
        self._http = http
        self._root = root + "/v1.0"
        self._admin = admin
        self._sign_in = sign_in
        self._log = log
        self._token: Secret | None = None

    @property
    def asked_at(self) -> float:
        """When (of the budget's ``awake``) the last request was sent."""
        return self._http.asked_at

    def connect(self) -> None:
        """Fetch the first token. Raises Refused, BadInput."""
        self._token = self._sign_in()

    def find(self, identifier: str, client_id_first: bool = False) -> Application:
        """Return the application with that object id or client id.

        Keeper's page mixes the two up, so both are tried. Not by ``$filter``: that is refused to an admin application
        with Application.ReadWrite.OwnedBy (https://learn.microsoft.com/graph/permissions-reference). Raises BadInput
        for what is no GUID, Refused.
        """
        wanted = guid(identifier)
        if wanted is None:
            raise BadInput(
                "application_object_id holds neither an object id nor a client id",
                todo="enter the Object ID of the app registration's overview page",
            )
        forms = [f"/{wanted}", f"(appId='{wanted}')"]
        problems = []
        for form in reversed(forms) if client_id_first else forms:
            try:
                return self._read(form)
            except NotDone as refusal:
                problems.append(refusal)
                if refusal.status not in (400, 403, 404):
                    break
        problem = next((each for each in problems if each.status != 404), problems[-1])
        if problem.status == 404:
            raise Refused(
                f"the application {wanted} was not found",
                "Graph knows it neither as object id nor as client id in this tenant",
                "check application_object_id, the tenant, and whether the app registration was deleted",
            )
        raise Refused(f"the application {wanted} could not be read", problem.why, problem.todo)

    def read(self, application: Application) -> Application:
        """Read the application afresh, over a connection of its own. Raises NotDone."""
        with _if_known():
            return self._read("/" + application.object_id, fresh=True)

    def _read(self, form: str, fresh: bool = False) -> Application:
        reply = self._call(
            "GET",
            "/applications" + form,
            "read application",
            {"$select": _SELECT},
            retry=_again_or_garbled,
            fresh=fresh,
        )
        found = application_in(reply.json(), server_time(reply))
        if found is None:
            between = reply.between()
            why = between or "Graph's answer is no application with a list of its secrets"
            raise NotDone(why, between and reply.remedy(), certain=False)
        return found

    def add_password(self, application: Application, display_name: str, end: datetime) -> tuple[Credential, Secret]:
        """Create a client secret once, without any repetition; Entra generates the value and shows it only here.

        https://learn.microsoft.com/graph/api/application-addpassword. No startDateTime is sent: with a client's
        clock that is ahead, the secret would not be valid yet. Raises NotDone.
        """
        wanted = {"displayName": display_name, "endDateTime": format_time(end)}
        body = {"passwordCredential": wanted}
        with _if_known():
            reply = self._call("POST", f"/applications/{application.object_id}/{ADD}", "add password", body=body)
        answer = reply.json()
        text = answer.get("secretText")
        found = credentials_in([answer])
        if not found or not isinstance(text, str) or not text:
            raise NotDone("Graph's answer to addPassword could not be read", certain=False)
        credential = found[0]
        if credential.end is None:
            credential = Credential(
                credential.key_id, credential.display_name, credential.start, end, wanted["endDateTime"]
            )
        return credential, Secret(text)

    def await_turn(self, name: str) -> None:
        """Wait until a write of that name may be sent: what is to be fresh then is looked at afterwards.

        Raises Stopped.
        """
        self._http.pace.book(name, self._http.budget)

    def remove_password(self, application: Application, key_id: str) -> bool:
        """Remove a client secret; return False where Graph knows none with that key id.

        https://learn.microsoft.com/graph/api/application-removepassword. Safe to repeat. An unknown key id is answered
        with 400 and a text, for which no error code is documented. Raises NotDone.
        """
        body, path = {"keyId": key_id}, f"/applications/{application.object_id}/{REMOVE}"
        try:
            with _if_known():
                self._call("POST", path, "remove password", body=body, retry=_again)
        except NotDone as problem:
            if problem.status == 400 and "no password credential found" in problem.why.lower():
                return False
            raise
        return True

    def roles(self) -> set[str] | None:
        """Return the application permissions in the access token; None where it cannot be read (it is opaque)."""
        said = claims(self._token) if self._token else {}
        roles = said.get("roles", [])
        return {str(role) for role in roles} if said and isinstance(roles, list) else None

    def owns(self, application: Application) -> bool | None:
        """Return whether the admin application's service principal owns the application, None if Graph does not say.

        The call that Application.ReadWrite.OwnedBy allows: https://learn.microsoft.com/graph/permissions-reference.
        """
        said = claims(self._token) if self._token else {}
        # A host's own managed identity is known by its tokens alone.
        admin = self._admin or guid(str(said.get("appid")))
        if not admin:
            return None
        path = f"/servicePrincipals(appId='{admin}')/ownedObjects"
        try:
            for number, reply in enumerate(self.pages(path, "owned objects", {"$select": "id", "$top": "999"})):
                found = reply.json()["value"]
                if any(isinstance(one, dict) and guid(str(one.get("id"))) == application.object_id for one in found):
                    return True
                if number == _OWNED_PAGES - 1:
                    return None
        except NotDone:
            return None
        return False

    def pages(self, path: str, name: str, query: Mapping[str, str]) -> Iterator[Reply]:
        """Give the answers with the pages of a list, each a JSON object with a list as ``value``. Raises NotDone."""
        rest: Mapping[str, str] | None = query
        for number in itertools.count(1):
            reply = self._call("GET", path, f"{name}, page {number}", rest, retry=_again_or_garbled)
            body = reply.json()
            if not isinstance(body.get("value"), list):
                between = reply.between()
                raise NotDone(between or "Graph's answer is no list", between and reply.remedy(), certain=False)
            yield reply
            following = str(body.get("@odata.nextLink") or "")
            if not following:
                return
            if not following.startswith(self._root + "/"):
                raise NotDone("the next page of Graph's list lies elsewhere", certain=False)
            path, rest = following[len(self._root) :], None

    def batch(self, requests: Sequence[Mapping[str, str]], name: str) -> Reply:
        """Send several requests at once, which must all be safe to repeat (https://learn.microsoft.com/graph/json-batching).

        Return the answer, a JSON object with a list as ``responses``. Raises NotDone.
        """
        reply = self._call("POST", "/$batch", name, body={"requests": list(requests)}, retry=_again)
        if not isinstance(reply.json().get("responses"), list):
            between = reply.between()
            raise NotDone(between or "Graph's answer is no batch", between and reply.remedy(), certain=False)
        return reply

    def _call(
        self,
        method: str,
        path: str,
        name: str,
        query: Mapping[str, str] | None = None,
        body: dict[str, Any] | None = None,
        retry: Callable[[Reply], bool] | None = None,
        fresh: bool = False,
    ) -> Reply:
        for again in (False, True):
            with self._http.budget.good_until(float("inf")):  # a token does not grow old like that
                if self._token is None:
                    self._token = self._sign_in()
                elif again:
                    self._token = self._sign_in_again()
            headers = {
                "Authorization": "Bearer " + self._token.reveal(),
                "Content-Type": "application/json",
                # Graph's best practices: a GUID per request, to find it in Microsoft's logs.
                "client-request-id": str(uuid.uuid4()),
            }
            data = None if body is None else json.dumps(body)
            try:
                url = self._root + path
                reply = self._http.call(
                    method, url, name=name, headers=headers, body=data, query=query, retry=retry, fresh=fresh
                )
            except Unanswered as problem:
                raise NotDone(f"Graph did not answer: {problem}", problem.todo, certain=not problem.sent) from None
            if reply.status != 401:
                break
            self._log.detail("Graph does not accept the token; signing in again")
        if reply.status // 100 == 2:
            return reply
        raise self.problem(reply)

    def _sign_in_again(self) -> Secret:
        try:
            return self._sign_in()
        except Refused as problem:
            raise NotDone(f"Graph does not accept the token any more; {problem.message}", status=401) from None

    def _who(self) -> str:
        return f"the admin application {self._admin}" if self._admin else "this host's managed identity"

    def problem(self, reply: Reply) -> NotDone:
        """Return what an answer means that is no success."""
        code = code_and_text(reply)[0]
        if not code and reply.between():
            return NotDone(reply.between(), reply.remedy(), certain=False, wait=retry_after(reply))
        why, todo = refusal_of(reply, self.roles(), self._who())
        # What comes without Graph's own error code is from something in between, and proves nothing.
        certain = reply.status == 401 or (bool(code) and reply.status < 500 and reply.status not in LATER)
        return NotDone(
            why,
            todo,
            certain=certain,
            busy=reply.status == 429 or code == _CONCURRENT,
            full=code == _FULL,
            status=reply.status,
            wait=retry_after(reply),
        )


@contextmanager
def _if_known() -> Iterator[None]:
    """Let "not found" mean "later" for an application that was read before: a replica has not heard of it, or of the
    last write to it, yet (https://github.com/hashicorp/terraform-provider-azuread/issues/661)."""
    try:
        yield
    except NotDone as problem:
        if problem.status == 404:
            problem.certain, problem.busy = False, True
        raise


def _again(reply: Reply) -> bool:
    return busy(reply) or reply.status == 409


def _again_or_garbled(reply: Reply) -> bool:
    body = reply.json()
    lists = isinstance(body.get("passwordCredentials", body.get("value")), list)
    return _again(reply) or (reply.status == 200 and not lists)


def server_time(reply: Reply) -> datetime:
    """Return Graph's own time: a lifetime counted on a host whose clock is ahead would exceed a policy's maximum."""
    try:
        return parsedate_to_datetime(reply.headers.get("Date") or "").astimezone(timezone.utc)
    except (TypeError, ValueError, IndexError, OverflowError):
        return datetime.now(timezone.utc)
