# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the admin application's credential comes from: the first source that is there, in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..base.errors import BadInput
from ..base.labels import Labelled
from ..base.redact import Secret
from ..services.application import guid
from ..services.entra import CLOUDS, Cloud, Identity, custom_cloud
from .deciding import Holding, Published

# Every spelling that Keeper's own tools give the fields of an Azure PAM configuration, normalised
# (Commander, the SaaS plug-ins' pamazure..., the KSM helper, Commander's old commands).
_CLIENT_ID = ("clientId", "pamazureclientid")
_CLIENT_SECRET = ("clientSecret", "pamazureclientsecret")
_TENANT_ID = ("tenantId", "pamazuretenantid")


@dataclass(frozen=True)
class Sources:
    """The places to look at, in the order in which they count; ``cloud`` counts before what records name."""

    explicit: Identity | None = None
    attached: Sequence[Labelled] = ()
    own: Labelled | None = None
    configuration: Labelled | None = None
    fallback: Identity | None = None
    cloud: Cloud | None = None
    default_cloud: Cloud = CLOUDS["AzureCloud"]
    # What to do where none of them holds an identity.
    advice: str = "attach a record with application_client_id, client_secret and tenant_id"


def choose(sources: Sources) -> tuple[Identity, Cloud]:
    """Return the admin identity and the cloud it lives in. Raises BadInput naming what is missing where."""
    identity, record = _identity(sources)
    return identity, sources.cloud or _cloud(record) or _cloud(sources.configuration) or sources.default_cloud


def holdings(sources: Sources) -> tuple[Holding, ...]:
    """Return the secrets that other places than the record hold, as far as this run has read them: they are not to be
    removed, whichever of the sources the run uses."""
    found = []
    for identity in (sources.explicit, sources.fallback):
        if identity and identity.secret:
            shown = Published("", "", identity.secret.reveal()[:3])
            found.append(Holding(identity.source, shown, frozenset({identity.client_id.strip().lower()})))
    for record in sources.attached:
        ids = (record.get("application_client_id"), record.get("application_object_id"))
        found.append(_holding(record, ids, record.get("client_secret_id"), record.get("client_secret")))
    if sources.configuration is not None:
        record = sources.configuration
        found.append(_holding(record, (record.get(*_CLIENT_ID),), "", record.get(*_CLIENT_SECRET)))
    return tuple(one for one in found if one.shown.hint or guid(one.shown.key_id))


def _holding(record: Labelled, ids: Sequence[str], key_id: str, secret: str) -> Holding:
    about = frozenset(guid(each) or each.strip().lower() for each in ids if each.strip())
    return Holding(_name(record), Published(record.uid, key_id, secret[:3]), about)


def holder(sources: Sources, client_id: str) -> str:
    """Return, in words, which source other than the target's own record holds a credential of the application with this
    client id; empty where none does."""
    held = [(identity.client_id, identity.source) for identity in (sources.explicit, sources.fallback) if identity]
    for record in sources.attached:
        if record.get("client_secret"):
            held.append((record.get("application_client_id"), _name(record)))
    if sources.configuration is not None and sources.configuration.get(*_CLIENT_SECRET):
        held.append((sources.configuration.get(*_CLIENT_ID), _name(sources.configuration)))
    return next((source for name, source in held if (guid(name) or name.strip().lower()) == client_id), "")


def _identity(sources: Sources) -> tuple[Identity, Labelled | None]:
    if sources.explicit:
        return replace(sources.explicit, why="it is named explicitly"), None
    carriers = [record for record in sources.attached if record.get("application_client_id")]
    if len({record.get("application_client_id").lower() for record in carriers}) > 1:
        raise BadInput(
            "several records with an application_client_id are attached",
            ", ".join(sorted(_name(record) for record in carriers)),
            "attach the record of one admin application only",
        )
    why = "it is attached"
    if not carriers and sources.own is not None and sources.own.get("application_client_id"):
        carriers, why = [sources.own], "it is the admin application's own, and none is attached"
    if carriers:
        record = min(carriers, key=lambda carrier: carrier.uid)
        return _read(record, ("application_client_id",), ("client_secret",), ("tenant_id",), why), record
    configuration = sources.configuration
    if configuration is not None and (configuration.get(*_CLIENT_ID) or configuration.get(*_CLIENT_SECRET)):
        why = "it is the PAM configuration, and no record with application_client_id is attached"
        return _read(configuration, _CLIENT_ID, _CLIENT_SECRET, _TENANT_ID, why), configuration
    if sources.fallback:
        return replace(sources.fallback, why="no record holds one"), None
    if configuration is not None:
        raise BadInput(
            f"{_name(configuration)} holds no client id and client secret",
            "no other source of an admin identity is there",
            sources.advice,
        )
    raise BadInput(
        "no admin identity was found",
        "none of the records that could hold one does",
        sources.advice,
    )


def _read(
    record: Labelled, client_id: Sequence[str], client_secret: Sequence[str], tenant_id: Sequence[str], why: str
) -> Identity:
    missing = [labels[0] for labels in (client_id, client_secret, tenant_id) if not record.get(*labels)]
    if missing:
        raise BadInput(f"{_name(record)} lacks " + " and ".join(missing), todo="fill in the fields")
    return Identity(
        record.get(*client_id),
        record.get(*tenant_id),
        _name(record),
        secret=Secret(record.get(*client_secret)),
        record_uid=record.uid,
        why=why,
    )


def _cloud(record: Labelled | None) -> Cloud | None:
    if record is None:
        return None
    authority, graph = record.get("Azure Authority FQDN"), record.get("Azure Graph Endpoint")
    if not authority and not graph:
        return None
    if not authority:
        raise BadInput(
            f"{_name(record)} has an Azure Graph Endpoint but no Azure Authority FQDN", todo="fill in both or none"
        )
    return custom_cloud(authority, graph, _name(record))


def _name(record: Labelled) -> str:
    return f"the record {record.title!r} ({record.uid})" if record.title else f"the record {record.uid}"
