# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The managed identity of this host: an Azure VM, an App Service, or any host that Azure Arc's agent runs on.

https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token,
https://learn.microsoft.com/azure/app-service/overview-managed-identity and
https://learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication
"""

from __future__ import annotations

import os
from typing import Any

from ..base.errors import Refused
from ..base.redact import Log, Secret, foreign, remember
from ..base.timing import Budget
from .application import guid
from .credentials import Identity, claims
from .http import Http, Reply, Unanswered, busy, pause_before, retry_after

try:
    import msal
    from msal import managed_identity as msal_sources
except ImportError:
    pass  # entra.MSAL_PROBLEM tells

# Seconds that a service which is there, but busy, is asked again.
PATIENCE = 30.0
ARC_AGENT = "/opt/azcmagent/bin/himds"
ARC_KEYS = "/var/opt/azcmagent/tokens"
ARC_GROUP = "himds"
_VM, _VM_ADDRESS = "an Azure VM's metadata service", "http://169.254.169.254"
_ARC = "Azure Arc's agent"


def host_service() -> tuple[str, str]:
    """Return what on this host gives tokens, in words, and its address; chosen as msal chooses it.

    Raises Refused for Service Fabric, whose tokens only its own runtime can fetch.
    """
    kind = msal_sources.get_managed_identity_source()
    endpoint = os.environ.get("IDENTITY_ENDPOINT", "")
    if kind is msal_sources.SERVICE_FABRIC:
        raise Refused(
            "this host's managed identity cannot be used",
            "Azure Service Fabric is not supported",
            "use a federated credential or a certificate",
        )
    if kind is msal_sources.APP_SERVICE:
        return "App Service", endpoint
    if kind is msal_sources.MACHINE_LEARNING:
        return "Azure Machine Learning", os.environ.get("MSI_ENDPOINT", "")
    if kind is msal_sources.AZURE_ARC:
        return _ARC, endpoint or "http://localhost:40342"
    return _VM, os.environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST", _VM_ADDRESS)


class ManagedIdentity:
    """Gets tokens of this host's managed identity for one resource (https root of Graph)."""

    def __init__(self, identity: Identity, resource: str, budget: Budget, log: Log) -> None:
        self._identity = identity
        self._resource = resource
        self._budget = budget
        self._log = log
        self._service, self._address = host_service()

    def token(self) -> Secret:
        """Return an access token. Raises Refused."""
        self._log.detail(f"asking {self._service} at {self._address} for a token of {self._identity.name}")
        http = Http(self._budget, self._log, local=True)
        try:
            with self._budget.phase("get a token of this host's managed identity", PATIENCE):
                answer, last = self._ask(_MetadataTransport(http, self._budget, self._log))
        finally:
            http.close()
        if not answer.get("access_token"):
            raise self._refused(_service_words(answer, last))
        token = Secret(str(answer["access_token"]))
        theirs, ours = guid(str(claims(token).get("tid"))), guid(self._identity.tenant_id)
        if theirs and ours and theirs != ours:
            raise Refused(
                "this host's managed identity belongs to another tenant",
                f"it is of {theirs}, {self._identity.source} names {ours}",
                "correct the tenant id, or run it on a host of that tenant",
            )
        return token

    def _ask(self, transport: _MetadataTransport) -> tuple[dict[str, Any], Reply | None]:
        client_id = self._identity.client_id
        who = (
            msal.UserAssignedManagedIdentity(client_id=client_id) if client_id else msal.SystemAssignedManagedIdentity()
        )
        try:
            # A new object each time: msal remembers tokens, and answers that a service was busy.
            client = msal.ManagedIdentityClient(who, http_client=transport)
            answer = client.acquire_token_for_client(resource=self._resource)
        except Unanswered as problem:
            if problem.sent:
                raise self._refused(str(problem), "run it again later") from None
            raise Refused(
                "no managed identity was found on this host",
                f"{self._service} is not reached at {self._address} ({problem}){self._looked_for()}",
                f"run it on a host that has one, or give {self._identity.source} a client id with a client secret",
            ) from None
        except _Unfit as problem:
            raise self._refused(str(problem), "run it again later" if problem.later else "") from None
        except PermissionError:
            raise self._refused(
                f"this user may not read the keys of Azure Arc's agent in {ARC_KEYS}",
                f"make the user a member of the group {ARC_GROUP}, which needs to read that folder, and start its "
                "service again",
            ) from None
        except OSError as problem:
            why = f"the key that Azure Arc's agent has named cannot be read ({problem.strerror or 'no reason'})"
            raise self._refused(why, f"see whether the agent writes to {ARC_KEYS}") from None
        except Exception as problem:  # whatever msal makes of an answer; its text may quote it
            self._log.detail(f"msal: {type(problem).__name__}")
            # An agent that knows the host's own identity alone; older versions of msal do not even ask it.
            if client_id and self._service == _ARC and (transport.last is None or transport.last.status == 200):
                raise self._refused(f"{_ARC} has not confirmed that identity") from None
            answer = {}
        return (answer if isinstance(answer, dict) else {}), transport.last

    def _looked_for(self) -> str:
        if self._service != _VM:
            return ""
        return (
            f"; nor is it App Service (IDENTITY_ENDPOINT and IDENTITY_HEADER are not set) or one of Azure Arc's "
            f"({ARC_AGENT} is not there)"
        )

    def _refused(self, why: str, todo: str = "") -> Refused:
        name = self._identity.name
        which = "assign that identity to this host" if self._identity.client_id else "give this host a managed identity"
        return Refused(f"{name} got no token from {self._service} at {self._address}", why, todo or which)


class _Unfit(Exception):
    """An answer that is none; ``later`` where the service may give one later."""

    def __init__(self, why: str, later: bool) -> None:
        super().__init__(why)
        self.later = later


class _MetadataTransport:
    """What msal asks with, by GET only."""

    def __init__(self, http: Http, budget: Budget, log: Log) -> None:
        self._http = http
        self._budget = budget
        self._log = log
        self.last: Reply | None = None

    def get(self, url: str, params: Any = None, headers: Any = None, **kwargs: Any) -> Reply:
        """Return an answer that is no "later"; repeat the request until then. Raises Unanswered, _Unfit, Stopped."""
        for name, value in (headers or {}).items():
            if name.lower() in ("authorization", "x-identity-header", "secret"):
                remember(str(value).rsplit(" ", 1)[-1])
        attempt = 1
        while True:
            asked = None
            try:
                reply = self._http.call("GET", url, name="managed identity", headers=headers, query=params, fresh=True)
            except Unanswered as problem:
                if not problem.sent:
                    raise
                why = str(problem)
            else:
                self.last = reply
                if 300 <= reply.status < 400:
                    raise _Unfit(f"it redirects elsewhere (HTTP {reply.status}), which is not followed", later=False)
                # 404 and 410: the service, or the identity, is being set up.
                if not (busy(reply) or reply.status in (404, 410)):
                    return reply
                asked, why = retry_after(reply), f"it is busy (HTTP {reply.status})"
            attempt += 1
            pause = pause_before(attempt, asked)
            if pause >= self._budget.left():
                raise _Unfit(f"{why}, also after {attempt - 1} requests", later=True)
            if attempt == 2:
                self._log.say(f"the managed identity has to wait: {why}")
            self._budget.pause(pause)

    def post(self, url: str, **kwargs: Any) -> Reply:
        """Do nothing: no service that is supported is asked so."""
        raise _Unfit("it is asked in a way that is not supported", later=False)

    def close(self) -> None:
        """The connections are closed by whoever made them."""


def _service_words(answer: dict[str, Any], last: Reply | None) -> str:
    """Return why there is no token: the service's own words, not what msal makes of them."""
    if last is None:
        return "it was not asked"
    body = last.json()
    nested = body.get("error")
    found = [body.get("error_description"), body.get("message"), nested if isinstance(nested, str) else None]
    text = next((each for each in found if isinstance(each, str) and each.strip()), "")
    first = foreign(text.strip().splitlines()[0]) if text else "its answer has no readable reason"
    return f"{first} (HTTP {last.status})"
