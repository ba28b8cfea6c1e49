# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the admin application's credential comes from: the first source that is there, in whatever order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..base.errors import BadInput
from ..base.labels import Labelled
from ..base.redact import Secret
from ..services.application import guid
from ..services.credentials import Certificate, Identity, certificate_at, token_at, token_of
from ..services.entra import CLOUDS, Cloud, authority_root, custom_cloud
from .deciding import Holding, Published
from .policy import truth_of

# Every spelling that Keeper's own tools give the fields of an Azure PAM configuration, normalised
# (Commander, the SaaS plug-ins' pamazure..., the KSM helper, Commander's old commands).
_CLIENT_ID = ("clientId", "pamazureclientid")
_CLIENT_SECRET = ("clientSecret", "pamazureclientsecret")
_TENANT_ID = ("tenantId", "pamazuretenantid")

# The names that azure.azcollection, AKS and Microsoft's own libraries give these, by the name of our option.
VARIABLES = {
    "tenant_id": ("AZURE_TENANT", "AZURE_TENANT_ID"),
    "client_id": ("AZURE_CLIENT_ID",),
    "client_secret": ("AZURE_SECRET", "AZURE_CLIENT_SECRET"),
    "certificate_path": ("AZURE_X509_CERTIFICATE_PATH", "AZURE_CLIENT_CERTIFICATE_PATH"),
    "certificate_passphrase": ("AZURE_CLIENT_CERTIFICATE_PASSWORD",),
    "oidc_token": ("AZURE_FEDERATED_TOKEN",),
    "oidc_token_file_path": ("AZURE_FEDERATED_TOKEN_FILE",),
}
AUTHORITY_VARIABLE = "AZURE_AUTHORITY_HOST"
_AUTHORITY_SOURCE = f"the environment variable {AUTHORITY_VARIABLE}"
# The options that each are a credential, in the order in which they count where the environment has several.
CREDENTIALS = ("client_secret", "certificate_path", "oidc_token", "oidc_token_file_path")
# Fields by which a record would make the host read a file or hand over a token. Who edits the record of an application
# may not decide that; who edits the PAM configuration may.
_HOST_FIELDS = ("managed_identity", "certificate_path", "oidc_token", "oidc_token_file_path")


@dataclass(frozen=True)
class Sources:
    """The places to look at, in the order in which they count; ``cloud`` counts before what records name.

    ``authority`` is what the environment names, as it is there. ``files`` returns the certificates that are attached
    to the record with a uid.
    """

    explicit: Identity | None = None
    attached: Sequence[Labelled] = ()
    own: Labelled | None = None
    configuration: Labelled | None = None
    fallback: Identity | None = None
    cloud: Cloud | None = None
    default_cloud: Cloud | None = None
    authority: str = ""
    files: Callable[[str], Sequence[Certificate]] = lambda uid: ()
    # Reads a record again, which may have been rotated since the sources were read; None where it is not to be had.
    afresh: Callable[[str], Labelled | None] = lambda uid: None
    # What to do where none of them holds an identity.
    advice: str = "attach a record with application_client_id, client_secret and tenant_id"


def in_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the environment sets, by the names of our options; empty texts for what it does not."""
    return {name: next((environ[key] for key in keys if environ.get(key)), "") for name, keys in VARIABLES.items()}


def identity_in(values: Mapping[str, str], source: str) -> Identity | None:
    """Return the identity that is complete in these values (by the names of our options), else None. Raises BadInput.

    The first of ``CREDENTIALS`` counts. Files are not read yet.
    """
    given = next((name for name in CREDENTIALS if values[name]), "")
    if not (given and values["tenant_id"] and values["client_id"]):
        return None
    identity, text = Identity(values["client_id"], values["tenant_id"], source), values[given]
    if given == "client_secret":
        return replace(identity, secret=Secret(text))
    if given == "certificate_path":
        return replace(identity, certificate=certificate_at(text, values["certificate_passphrase"]))
    return replace(identity, token=token_of(text, source) if given == "oidc_token" else token_at(text))


def choose(sources: Sources) -> tuple[Identity, Cloud]:
    """Return the admin identity and the cloud it lives in. Raises BadInput naming what is missing where."""
    identity, record = _identity(sources)
    return identity, _cloud_of(sources, identity, record)


def renewed(record: Labelled, identity: Identity) -> Identity | None:
    """Return the identity with the secret that its record holds by now; None where that is the same, or is of another
    application."""
    secret = record.get("client_secret", *_CLIENT_SECRET)
    same = record.get("application_client_id", *_CLIENT_ID).lower() == identity.client_id.lower()
    if not secret or not same or identity.secret is None or identity.secret.reveal() == secret:
        return None
    return replace(identity, secret=Secret(secret), expires=record.get("expires"))


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

    def is_it(text: str) -> bool:
        return (guid(text) or text.strip().lower()) == client_id

    for identity in (sources.explicit, sources.fallback):
        if identity and is_it(identity.client_id):
            return identity.source
    records: list[tuple[Labelled, Sequence[str], Sequence[str]]] = [
        (record, ("application_client_id",), ("client_secret",)) for record in sources.attached
    ]
    if sources.configuration is not None:
        records.append((sources.configuration, _CLIENT_ID, _CLIENT_SECRET))
    for record, ids, secrets in records:
        if not is_it(record.get(*ids)):
            continue
        # What has to be asked for comes last.
        if any(map(record.get, (*secrets, *_HOST_FIELDS))) or sources.files(record.uid):
            return _name(record)
    return ""


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
        return _of_user_record(record, sources, why), record
    configuration = sources.configuration
    if configuration is not None:
        named = (_CLIENT_ID, _CLIENT_SECRET, *((field,) for field in _HOST_FIELDS if field != "managed_identity"))
        wants_managed = truth_of(configuration, "managed_identity")
        if wants_managed or any(configuration.get(*labels) for labels in named):
            return _of_configuration(configuration, sources, bool(wants_managed)), configuration
        if not sources.fallback and wants_managed is None and configuration.get(*_TENANT_ID):
            why = "it names neither client id nor client secret, and nothing else names an admin identity"
            return _managed(configuration, "", why), configuration
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


def _of_user_record(record: Labelled, sources: Sources, why: str) -> Identity:
    host = [field for field in _HOST_FIELDS if record.get(field)]
    if host:
        raise BadInput(
            f"{_name(record)} has the field {host[0]}",
            "the PAM configuration, the environment and the module's options alone name files and tokens of a host",
            "remove the field; a certificate may be attached to the record as a file",
        )
    secret = record.get("client_secret")
    certificate = None if secret else _attached_certificate(record, sources)
    missing = [label for label in ("client_secret", "tenant_id") if not record.get(label)]
    if certificate and "client_secret" in missing:
        missing.remove("client_secret")
    if missing:
        raise _lacking(record, missing)
    return Identity(
        record.get("application_client_id"),
        record.get("tenant_id"),
        _name(record),
        secret=Secret(secret) if secret else None,
        certificate=certificate,
        record_uid=record.uid,
        why=why,
        expires=record.get("expires") if secret else "",
    )


def _of_configuration(record: Labelled, sources: Sources, managed: bool) -> Identity:
    secret, path = record.get(*_CLIENT_SECRET), record.get("certificate_path")
    text, token_path = record.get("oidc_token"), record.get("oidc_token_file_path")
    credentials = {"clientSecret": secret, "certificate_path": path, "oidc_token": text}
    credentials.update(oidc_token_file_path=token_path, managed_identity="true" if managed else "")
    given = [name for name, value in credentials.items() if value]
    if len(given) > 1:
        raise BadInput(f"{_name(record)} holds several credentials: {', '.join(given)}", todo="leave one of them")
    if managed:
        return _managed(record, record.get(*_CLIENT_ID), "it is the PAM configuration, and sets managed_identity")
    certificate = certificate_at(path, record.get("certificate_passphrase")) if path else None
    if not given:
        certificate = _attached_certificate(record, sources)
    labels = {"clientId": _CLIENT_ID, "clientSecret": _CLIENT_SECRET, "tenantId": _TENANT_ID}
    if given != ["clientSecret"] and (given or certificate):
        del labels["clientSecret"]
    missing = [name for name, spellings in labels.items() if not record.get(*spellings)]
    if missing:
        raise _lacking(record, missing)
    token = token_of(text, _name(record)) if text else token_at(token_path) if token_path else None
    return Identity(
        record.get(*_CLIENT_ID),
        record.get(*_TENANT_ID),
        _name(record),
        secret=Secret(secret) if secret else None,
        certificate=certificate,
        token=token,
        record_uid=record.uid,
        why="it is the PAM configuration, and no record with application_client_id is attached",
    )


def _managed(record: Labelled, client_id: str, why: str) -> Identity:
    tenant = record.get(*_TENANT_ID)
    if not tenant:
        raise _lacking(record, ["tenantId"])
    return Identity(client_id, tenant, _name(record), managed=True, record_uid=record.uid, why=why)


def _attached_certificate(record: Labelled, sources: Sources) -> Certificate | None:
    found = sources.files(record.uid)
    if len(found) > 1:
        names = ", ".join(certificate.name for certificate in found)
        raise BadInput(f"several certificates are attached to {_name(record)}: {names}", todo="leave one of them")
    passphrase = record.get("certificate_passphrase")
    return replace(found[0], passphrase=Secret(passphrase) if passphrase else None) if found else None


def _lacking(record: Labelled, missing: Sequence[str]) -> BadInput:
    todo = "fill in the fields"
    if missing[0] in ("client_secret", "clientSecret"):
        todo += "; for a certificate, attach it to the record as a .pem or .pfx file that the KSM application sees"
    if missing[0] == "clientSecret":
        todo += "; for a managed identity, set the field managed_identity to true"
    return BadInput(f"{_name(record)} lacks " + " and ".join(missing), todo=todo)


def _cloud_of(sources: Sources, identity: Identity, record: Labelled | None) -> Cloud:
    named = sources.cloud or _cloud(record)
    if named:
        return named
    authority = authority_root(sources.authority, _AUTHORITY_SOURCE) if sources.authority else ""
    configuration = sources.configuration
    cloud = _cloud(configuration)
    if cloud is None or configuration is None:
        if authority and not sources.default_cloud:
            return custom_cloud(authority, "", _AUTHORITY_SOURCE)
        return sources.default_cloud or CLOUDS["AzureCloud"]
    # An assertion by certificate is for one authority, and worth nothing to another; a secret and a token are.
    of_host = identity.uses_host or (record is None and identity.secret is not None)
    if of_host and not cloud.is_microsofts and cloud.authority != authority:
        raise BadInput(
            f"{identity.name} of {identity.source} is not sent to {cloud.authority}",
            f"that authority is named by {_name(configuration)} alone, and not where the identity comes from",
            f"name it there, too: with cloud_environment, or with the environment variable {AUTHORITY_VARIABLE}",
        )
    return cloud


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
