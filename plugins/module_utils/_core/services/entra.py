# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Microsoft Entra: clouds, tokens for the admin application, and the proof that a secret signs in."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from ..base.errors import BadInput, Refused
from ..base.redact import Log, Secret, foreign, remember
from ..base.timing import Budget
from .application import guid
from .http import Http, Reply, Unanswered, busy, retry_after

try:
    import msal
except ImportError as _problem:
    MSAL_PROBLEM = str(_problem)
else:
    MSAL_PROBLEM = ""

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
# AADSTS numbers: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_WRONG_SECRET, _EXPIRED_SECRET = 7000215, 7000222
# 50196: too many sign-ins of one client in a row.
_BUSY = {50196, 90006, 90012, 90024, 90033, 90055, 90090}
_WORDS = {
    _WRONG_SECRET: "the client secret is not valid (a secret's value is needed, not its id)",
    _EXPIRED_SECRET: "the client secret has expired",
    700016: "there is no application with this client id in the tenant (no service principal here)",
    7000229: "the application has no service principal in the tenant",
    7000112: "the application is disabled",
    53003: "Conditional Access blocks the sign-in",
    90002: "the tenant does not exist in this cloud",
    7000216: "the client secret is empty",
    7000218: "the client secret is empty",
    500011: "Graph is not known in this tenant: authority and Graph endpoint belong to different clouds",
}
# Waiting changes none of these for an application that exists.
_FINAL = {700016, 7000229, 7000112, 53003, 90002, 500011}
_ADMIN_ATTEMPTS = 3


@dataclass(frozen=True)
class Cloud:
    """The two endpoints of a cloud, as https roots without a trailing slash."""

    authority: str
    graph: str


# https://learn.microsoft.com/graph/deployments and https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
CLOUDS = {
    "AzureCloud": Cloud("https://login.microsoftonline.com", "https://graph.microsoft.com"),
    "AzureUSGovernment": Cloud("https://login.microsoftonline.us", "https://graph.microsoft.us"),
    "AzureChinaCloud": Cloud("https://login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn"),
}


def custom_cloud(authority: str, graph: str, where: str) -> Cloud:
    """Return the cloud of two endpoints; an authority that is well known brings its Graph endpoint along.

    Both may come with or without ``https://``. ``where`` names their origin. Raises BadInput.
    """
    login = _root_url(authority, "authority", where)
    if graph:
        return Cloud(login, _root_url(graph, "Graph endpoint", where))
    for cloud in CLOUDS.values():
        if cloud.authority == login:
            return cloud
    raise BadInput(f"{where} names the authority {login} but no Graph endpoint", todo="add the Graph endpoint")


def _root_url(text: str, what: str, where: str) -> str:
    url = text.strip() if "://" in text else "https://" + text.strip()
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", url):
        raise BadInput(f"the {what} of {where} is no https address: {text!r}", todo="enter a host name")
    return "https://" + urlsplit(url).netloc.lower()


@dataclass(frozen=True)
class Identity:
    """What the admin application signs in with. ``source`` says where it was found, ``why`` why that one is used."""

    client_id: str
    tenant_id: str
    source: str
    secret: Secret | None = None
    certificate: Secret | None = None  # PEM: private key and certificate
    record_uid: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        if guid(self.client_id) is None:
            remember(self.client_id)  # what was entered in the wrong field may be a secret
        if not _TENANT.fullmatch(self.tenant_id):
            raise BadInput(
                f"the tenant id of {self.source} is neither an id nor a domain",
                todo="enter the directory (tenant) id",
            )


class Answer(Enum):
    """What one sign-in has shown of the secret that it was made with."""

    TAKEN = "taken"
    REFUSED = "refused"  # Entra's word that the secret is wrong or expired
    LATER = "later"  # neither yes nor no: busy, or no answer
    NEVER = "never"  # neither, and waiting does not change it


@dataclass(frozen=True)
class SignIn:
    """One sign-in: its answer, in words why, and the pause in seconds that Entra asks for."""

    answer: Answer
    why: str = ""
    wait: float | None = None


class Entra:
    """The token endpoint of one tenant."""

    def __init__(self, http: Http, cloud: Cloud, tenant_id: str, budget: Budget, log: Log) -> None:
        self._http = http
        self._cloud = cloud
        self._tenant = tenant_id
        self._budget = budget
        self._log = log
        self._token_endpoint = f"{cloud.authority}/{tenant_id}/oauth2/v2.0/token"
        # msal logs an answer that it cannot parse, and with it perhaps a token.
        logging.getLogger("msal").addHandler(logging.NullHandler())
        logging.getLogger("msal").propagate = False

    def token(self, identity: Identity) -> Secret:
        """Return an access token of the admin application for Graph.

        A secret that Entra calls wrong is tried again for some seconds: after a rotation of the admin application
        itself not every replica knows it yet. Raises Refused.
        """
        for attempt in range(1, _ADMIN_ATTEMPTS + 1):
            answer = self._acquire(identity)
            if "access_token" in answer:
                self._log.detail(f"signed in as {identity.client_id}")
                return Secret(str(answer["access_token"]))
            pause = 2.0 * attempt
            if _WRONG_SECRET not in _codes(answer) or attempt == _ADMIN_ATTEMPTS or pause >= self._budget.left():
                break
            self._log.say(f"Entra does not accept the secret of {identity.source}; trying again")
            self._budget.pause(pause)
        raise Refused(
            f"the admin application {identity.client_id} could not sign in to tenant {self._tenant}",
            _reason(answer),
            _advice(answer, identity),
        )

    def _acquire(self, identity: Identity) -> Mapping[str, Any]:
        transport = _Transport(self._http, self._cloud)
        credential: Any = identity.secret.reveal() if identity.secret else None
        if identity.certificate:
            pem = identity.certificate.reveal()
            credential = {"private_key": pem, "public_certificate": pem}
        try:
            # A new object each time: msal answers from its caches otherwise, and a 400 stays cached for 60 s.
            # No instance discovery: the authority is from our table, or was named by the administrator.
            client = msal.ConfidentialClientApplication(
                identity.client_id,
                client_credential=credential,
                authority=f"{self._cloud.authority}/{self._tenant}",
                instance_discovery=False,
                http_client=transport,
            )
            answer: Mapping[str, Any] = client.acquire_token_for_client([self._cloud.graph + "/.default"])
        except Unanswered as problem:
            raise Refused(f"{self._cloud.authority} was not reached", str(problem), problem.todo) from None
        except Refused:
            raise
        except Exception as problem:  # whatever msal makes of an answer, or of a certificate
            if identity.certificate and not transport.asked:
                raise BadInput(
                    f"the certificate of {identity.source} cannot be used", type(problem).__name__, "check the PEM file"
                ) from None
            answer = {}
        if "access_token" not in answer and transport.last is not None:
            # msal hides the body of a failed discovery, which is where an unknown tenant shows.
            return {**_with_origin(transport.last), **answer}
        return answer

    def sign_in(self, client_id: str, secret: Secret) -> SignIn:
        """Sign in once with a secret of an application, over a connection of its own; say what it shows.

        One plain request, as documented in
        https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow: msal's caches are not
        keyed by the secret and could answer for another one. Raises Stopped.
        """
        body = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": secret.reveal(),
            "scope": self._cloud.graph + "/.default",
        }
        try:
            reply = self._http.call("POST", self._token_endpoint, name="sign-in", body=body, fresh=True)
        except Unanswered as problem:
            return SignIn(Answer.LATER, str(problem))
        answer = reply.json()
        if reply.status == 200 and answer.get("access_token"):
            return SignIn(Answer.TAKEN)
        if set(_codes(answer)) & {_WRONG_SECRET, _EXPIRED_SECRET}:
            return SignIn(Answer.REFUSED, f"Entra's sign-in does not know the secret (AADSTS{_codes(answer)[0]})")
        return SignIn(classify(reply), _reason(_with_origin(reply)), retry_after(reply))


def classify(reply: Reply) -> Answer:
    """Return whether waiting may change a sign-in that was neither taken nor refused."""
    answer = reply.json()
    codes = set(_codes(answer))
    error = answer.get("error")
    if codes & _FINAL:
        return Answer.NEVER
    if codes & _BUSY or busy(reply) or not error:
        return Answer.LATER
    waits = error in ("invalid_client", "temporarily_unavailable", "server_error")
    return Answer.LATER if waits else Answer.NEVER


class _Transport:
    """What msal sends its requests with: our timeouts and retries. Asking for a token is safe to repeat."""

    def __init__(self, http: Http, cloud: Cloud) -> None:
        self._http = http
        self._cloud = cloud
        self.last: Reply | None = None
        self.asked = False  # for a token

    def get(self, url: str, params: Any = None, headers: Any = None, **kwargs: Any) -> Reply:
        reply = self._call("GET", url, params, None, headers)
        if reply.status < 400:
            self._check(reply)
        return reply

    def _check(self, discovery: Reply) -> None:
        """The secret goes where discovery says: to the authority itself, or nowhere. Raises Refused."""
        endpoint, name = discovery.json().get("token_endpoint"), self._cloud.authority
        if _is_below(endpoint, name):
            return
        todo = "choose the cloud that the tenant is in" if endpoint else discovery.remedy()
        why = discovery.between() or "it names no token endpoint of its own"
        raise Refused(f"{name} does not say where to sign in", why, todo)

    def post(self, url: str, params: Any = None, data: Any = None, headers: Any = None, **kwargs: Any) -> Reply:
        self.asked = True
        return self._call("POST", url, params, data, headers)

    def close(self) -> None:
        """The connections belong to the Http object."""

    def _call(self, method: str, url: str, query: Any, body: Any, headers: Any) -> Reply:
        name = "sign-in of the admin application" if method == "POST" else "discovery"
        self.last = self._http.call(method, url, name=name, headers=headers, body=body, query=query, retry=_retry)
        return self.last


def _is_below(url: Any, root: str) -> bool:
    try:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        return f"{parts.scheme}://{parts.netloc}".lower() == root and len(parts.path) > 1
    except ValueError:
        return False


def _with_origin(reply: Reply) -> dict[str, Any]:
    """Return the answer, with what ``_reason`` and ``_advice`` need where it is not Entra's."""
    return {**reply.json(), "http_status": reply.status, "between": reply.between(), "remedy": reply.remedy()}


def _retry(reply: Reply) -> bool:
    return busy(reply) or bool(_BUSY & set(_codes(reply.json()))) or (reply.status == 200 and not reply.json())


def _codes(answer: Mapping[str, Any]) -> list[int]:
    codes = answer.get("error_codes")
    found = [code for code in codes if isinstance(code, int)] if isinstance(codes, list) else []
    return found or [int(code) for code in re.findall(r"AADSTS(\d+)", str(answer.get("error_description", "")))[:1]]


def _reason(answer: Mapping[str, Any]) -> str:
    for code in _codes(answer):
        if code in _WORDS:
            return f"{_WORDS[code]} (AADSTS{code})"
    lines = str(answer.get("error_description") or "").strip().splitlines()
    error = answer.get("error")
    if lines:
        return f"{foreign(error)}: {foreign(lines[0])}"
    if answer.get("between"):
        return str(answer["between"])
    status = answer.get("http_status")
    return foreign(error) if isinstance(error, str) else f"Entra answered HTTP {status} without a readable reason"


def _advice(answer: Mapping[str, Any], identity: Identity) -> str:
    advice: dict[int, str] = {
        _WRONG_SECRET: f"put the current secret's value into {identity.source}",
        _EXPIRED_SECRET: f"make a new secret for the admin application by hand and put it into {identity.source}",
        700016: f"check the client id and the tenant id in {identity.source}",
        90002: f"check the tenant id in {identity.source} and the cloud",
        7000112: "enable the admin application",
        53003: "exempt the admin application from the policy, or allow this host",
    }
    for code in _codes(answer):
        if code in advice:
            return advice[code]
    if answer.get("between"):
        return str(answer["remedy"])
    return f"check {identity.source}"
