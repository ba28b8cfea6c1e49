# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Microsoft Entra: clouds, tokens for the admin application, and the proof that a secret signs in."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from ..base.errors import BadInput, Refused
from ..base.redact import Log, Secret
from ..base.timing import Budget
from .application import format_time
from .certificate import open_certificate
from .credentials import Identity, end_of
from .entra_words import (
    BUSY_SIGN_IN,
    EXPIRED_SECRET,
    OUT_OF_TIME,
    SIGN_IN_WORDS,
    WRONG_SECRET,
    codes_in,
    sign_in_advice,
    sign_in_reason,
)
from .http import Http, Reply, Unanswered, busy, retry_after
from .managed_identity import ManagedIdentity

try:
    import msal
except ImportError as _problem:
    MSAL_PROBLEM = str(_problem)
else:
    MSAL_PROBLEM = ""

# Waiting changes none of these for an application that exists.
_FINAL = {700016, 7000229, 7000112, 53003, 90002, 500011, 500021, 5000211}
_ADMIN_ATTEMPTS = 3
# From this msal on the certificate is enough, and its SHA-256 thumbprint is used.
_WITHOUT_THUMBPRINT = (1, 35)


@dataclass(frozen=True)
class Cloud:
    """The two endpoints of a cloud, as https roots without a trailing slash."""

    authority: str
    graph: str

    @property
    def is_microsofts(self) -> bool:
        """Whether both endpoints are known to be Microsoft's."""
        clouds = CLOUDS.values()
        graphs = {_DEFENSE_GRAPH, *(cloud.graph for cloud in clouds)}
        return self.graph in graphs and self.authority in {cloud.authority for cloud in clouds}


# https://learn.microsoft.com/graph/deployments and https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
CLOUDS = {
    "AzureCloud": Cloud("https://login.microsoftonline.com", "https://graph.microsoft.com"),
    "AzureUSGovernment": Cloud("https://login.microsoftonline.us", "https://graph.microsoft.us"),
    "AzureChinaCloud": Cloud("https://login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn"),
}
# Older names of these authorities, which AKS and other tools may still use.
_ALIASES = {
    "https://login.windows.net": CLOUDS["AzureCloud"].authority,
    "https://login.microsoft.com": CLOUDS["AzureCloud"].authority,
    "https://sts.windows.net": CLOUDS["AzureCloud"].authority,
    "https://login.usgovcloudapi.net": CLOUDS["AzureUSGovernment"].authority,
    "https://login.chinacloudapi.cn": CLOUDS["AzureChinaCloud"].authority,
}
# That of the US Department of Defense (L5), which shares its authority with AzureUSGovernment (L4).
_DEFENSE_GRAPH = "https://dod-graph.microsoft.us"


def custom_cloud(authority: str, graph: str, where: str) -> Cloud:
    """Return the cloud of two endpoints; an authority that is well known brings its Graph endpoint along.

    Both may come with or without ``https://``. ``where`` names their origin. Raises BadInput.
    """
    login = authority_root(authority, where)
    if graph:
        return Cloud(login, _root_url(graph, "Graph endpoint", where))
    for cloud in CLOUDS.values():
        if cloud.authority == login:
            return cloud
    raise BadInput(f"{where} names the authority {login} but no Graph endpoint", todo="add the Graph endpoint")


def authority_root(text: str, where: str) -> str:
    """Return the https root of an authority, which may come without ``https://``, under its newest name.

    Raises BadInput.
    """
    url = _root_url(text, "authority", where)
    return _ALIASES.get(url, url)


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


class NotReached(Refused):
    """The token endpoint has said neither yes nor no."""


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

    @property
    def asked_at(self) -> float:
        """When (of the budget's ``awake``) the last request was sent."""
        return self._http.asked_at

    def token(self, identity: Identity, renew: Callable[[], Identity | None] | None = None) -> Secret:
        """Return an access token of the admin application for Graph.

        A secret that Entra calls wrong is tried again for some seconds: after a rotation of the admin application
        itself not every replica knows it yet. Before that, ``renew`` may return the identity with another secret, which
        is tried at once. What comes from a file is read afresh. Raises Refused, BadInput.
        """
        if identity.managed:
            return ManagedIdentity(identity, self._cloud.graph, self._budget, self._log).token()
        for attempt in range(1, _ADMIN_ATTEMPTS + 1):
            answer = self._acquire(identity)
            if "access_token" in answer:
                self._log.detail(f"signed in as {identity.client_id}")
                return Secret(str(answer["access_token"]))
            if renew and identity.secret and {WRONG_SECRET, EXPIRED_SECRET} & set(codes_in(answer)):
                newer, renew = renew(), None
                if newer:
                    identity = newer
                    continue
            pause = 2.0 * attempt
            if WRONG_SECRET not in codes_in(answer) or attempt == _ADMIN_ATTEMPTS or pause >= self._budget.left():
                break
            self._log.say(f"Entra does not accept the secret of {identity.source}; trying again")
            self._budget.pause(pause)
        raise Refused(
            f"the admin application {identity.client_id} could not sign in to tenant {self._tenant}",
            sign_in_reason(answer),
            sign_in_advice(answer, identity),
        )

    def _acquire(self, identity: Identity) -> Mapping[str, Any]:
        transport = _Transport(self._http, self._cloud)
        credential: Any = identity.secret.reveal() if identity.secret else None
        token: Secret | None = None
        if identity.certificate:
            pair = open_certificate(identity.certificate)
            credential = {"private_key": pair.private_key.reveal(), "public_certificate": pair.certificate}
            if _msal_version() < _WITHOUT_THUMBPRINT:
                credential["thumbprint"] = pair.thumbprint
        elif identity.token:
            token = identity.token.fetch()
            credential = {"client_assertion": token.reveal}
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
            raise NotReached(f"{self._cloud.authority} was not reached", str(problem), problem.todo) from None
        except Refused:
            raise
        except Exception as problem:  # whatever msal makes of an answer
            self._log.detail(f"msal: {type(problem).__name__}")
            answer = {}
        if "access_token" not in answer and transport.last is not None:
            # msal hides the body of a failed discovery, which is where an unknown tenant shows.
            answer = {**answer, **_with_origin(transport.last)}
        if OUT_OF_TIME in codes_in(answer) and transport.last is not None:
            raise _out_of_time(identity, token, transport.last)
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
        if set(codes_in(answer)) & {WRONG_SECRET, EXPIRED_SECRET}:
            return SignIn(Answer.REFUSED, f"Entra's sign-in does not know the secret (AADSTS{codes_in(answer)[0]})")
        return SignIn(classify(reply), sign_in_reason(_with_origin(reply)), retry_after(reply))


def classify(reply: Reply) -> Answer:
    """Return whether waiting may change a sign-in that was neither taken nor refused."""
    answer = reply.json()
    codes = set(codes_in(answer))
    error = answer.get("error")
    if codes & _FINAL:
        return Answer.NEVER
    if codes & BUSY_SIGN_IN or busy(reply) or not error:
        return Answer.LATER
    waits = error in ("invalid_client", "temporarily_unavailable", "server_error")
    return Answer.LATER if waits else Answer.NEVER


class _Transport:
    """What msal sends its requests with: our timeouts and retries. Asking for a token is safe to repeat."""

    def __init__(self, http: Http, cloud: Cloud) -> None:
        self._http = http
        self._cloud = cloud
        self.last: Reply | None = None

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
        return self._call("POST", url, params, data, headers)

    def close(self) -> None:
        """The connections belong to the Http object."""

    def _call(self, method: str, url: str, query: Any, body: Any, headers: Any) -> Reply:
        name = "sign-in of the admin application" if method == "POST" else "discovery"
        self.last = self._http.call(method, url, name=name, headers=headers, body=body, query=query, retry=_retry)
        return self.last


def _msal_version() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", msal.__version__)[:2])


def _is_below(url: Any, root: str) -> bool:
    try:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        return f"{parts.scheme}://{parts.netloc}".lower() == root and len(parts.path) > 1
    except ValueError:
        return False


def _with_origin(reply: Reply) -> dict[str, Any]:
    """Return the answer, with what their words need where it is not Entra's."""
    return {
        **reply.json(),
        "http_status": reply.status,
        "between": reply.between(),
        "busy": busy(reply),
        "remedy": reply.remedy(),
    }


def _retry(reply: Reply) -> bool:
    return busy(reply) or bool(BUSY_SIGN_IN & set(codes_in(reply.json()))) or (reply.status == 200 and not reply.json())


def _out_of_time(identity: Identity, token: Secret | None, reply: Reply) -> Refused:
    """Say whether it is the token that has ended or this host's clock that is wrong."""
    what, now = f"the admin application {identity.client_id} could not sign in", datetime.now(timezone.utc)
    try:
        theirs = parsedate_to_datetime(reply.headers.get("Date") or "").astimezone(timezone.utc)
    except (TypeError, ValueError, IndexError, OverflowError):
        theirs = now
    end = end_of(token) if token else None
    if identity.token and end is not None and end <= theirs:
        why = f"{identity.token.name} has expired, it was valid until {format_time(end)} (AADSTS{OUT_OF_TIME})"
        return Refused(what, why, "see to whatever issues the token; it is read anew at each sign-in")
    apart = abs((now - theirs).total_seconds())
    why = f"{SIGN_IN_WORDS[OUT_OF_TIME]}; this host's clock differs from Entra's by {apart:.0f} s (AADSTS{OUT_OF_TIME})"
    return Refused(what, why, "let the host keep its time (NTP)")
