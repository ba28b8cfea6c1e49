# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module app_secret_info: options in, a survey out.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

from ._core.base.errors import BadInput, Refused
from ._core.base.labels import Labelled
from ._core.base.redact import Log
from ._core.base.timing import Budget
from ._core.fleet.judging import Limits
from ._core.fleet.survey import Seen, Survey, Wanted, vault_seen
from ._core.rotation.identity import AUTHORITY_VARIABLE, Sources
from ._core.rotation.policy import is_record_uid
from ._core.services.files import certificates_of
from ._core.services.http import Http
from ._core.services.vault import Vault
from ._module import ENTRA_OPTIONS, EXCLUSIVE, KEEPER_OPTIONS, Module, cloud, conclude, identities, keeper_configuration


def run(options: Mapping[str, Any]) -> NoReturn:
    """Be the module. ``options`` is the part of the argument spec that is its own."""
    conclude(Module({**options, **KEEPER_OPTIONS, **ENTRA_OPTIONS}, mutually_exclusive=EXCLUSIVE), _look)


def _look(module: Module, http: Http, budget: Budget, log: Log) -> dict[str, Any]:
    params = module.params
    wanted = _wanted(params)
    configuration = keeper_configuration(params, os.environ)
    vault = Vault(configuration, http, budget, log)
    seen = vault_seen(lambda: vault.find(()), budget)
    found = Survey(seen, _sources(params, seen, http), wanted, http, budget, log).look()
    return {**found, "vault": f"https://{configuration.get('hostname', 'keepersecurity.com')}", "changed": False}


def _wanted(params: Mapping[str, Any]) -> Wanted:
    records = list(dict.fromkeys(params["records"] or ()))
    for uid in records:
        if not is_record_uid(uid):
            raise BadInput(f"records names {uid!r}", "it must be the uids of records", "correct it")
    for name, least in (("limit", 1), ("min_days_left", 0), ("max_age_days", 1)):
        if params[name] < least:
            raise BadInput(f"{name} is {params[name]}", f"it must be {least} at the least", "correct it")
    limits = Limits(params["min_days_left"], params["max_age_days"])
    return Wanted(records, params["owners"], params["service_principals"], limits, params["limit"])


def _sources(params: Mapping[str, Any], seen: Seen, http: Http) -> Sources:
    """Return where the admin identity may come from. Raises BadInput, Refused."""
    explicit, fallback = identities(params, dict(os.environ))
    default = cloud(os.environ.get("AZURE_CLOUD_ENVIRONMENT"), "the environment variable AZURE_CLOUD_ENVIRONMENT")

    def view(option: str) -> Labelled | None:
        uid = params[option]
        if not uid:
            return None
        if seen.problem:
            raise Refused("the admin identity could not be read", seen.problem)
        if uid not in seen.records:
            raise BadInput(
                f"the record {uid} ({option}) was not found",
                "it is not shared with the KSM application, or does not exist",
                "share the record's folder with the application",
            )
        return seen.records[uid].view()

    attached = view("admin_record")
    if attached is not None and not explicit and not attached.get("application_client_id"):
        raise BadInput(f"the record {attached.uid} lacks application_client_id", todo="fill in the field")
    return Sources(
        advice="set pam_config or admin_record, or tenant_id, client_id and a credential",
        explicit=explicit,
        attached=[attached] if attached is not None else [],
        configuration=view("pam_config"),
        fallback=fallback,
        cloud=cloud(params["cloud_environment"], "cloud_environment"),
        default_cloud=default,
        authority=os.environ.get(AUTHORITY_VARIABLE, ""),
        files=lambda uid: certificates_of(seen.records[uid], http) if uid in seen.records else (),
    )
