# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module app_secret: options in, a rotation, its outcome out.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

from ._core.base.errors import BadInput
from ._core.base.labels import Labelled
from ._core.base.redact import Log
from ._core.base.timing import Budget
from ._core.rotation.doctor import dry_run
from ._core.rotation.identity import AUTHORITY_VARIABLE, Sources
from ._core.rotation.outcome import Outcome
from ._core.rotation.policy import policy_of
from ._core.rotation.subject import Task
from ._core.rotation.transaction import perform
from ._core.services.files import certificates_of
from ._core.services.http import Http
from ._core.services.vault import Vault, VaultRecord
from ._module import ENTRA_OPTIONS, EXCLUSIVE, KEEPER_OPTIONS, Module, cloud, conclude, identities, keeper_configuration

POLICY = (
    "rotate",
    "min_days_left",
    "lifetime_days",
    "keep_previous",
    "retire",
    "retire_after",
    "adopt",
    "verify",
    "verify_timeout",
)


def run(options: Mapping[str, Any]) -> NoReturn:
    """Be the module. ``options`` is the part of the argument spec that is its own."""
    conclude(Module({**options, **KEEPER_OPTIONS, **ENTRA_OPTIONS}, mutually_exclusive=EXCLUSIVE), _rotate)


def _rotate(module: Module, http: Http, budget: Budget, log: Log) -> dict[str, Any]:
    def task() -> Task:
        return prepare(module.params, http, budget, log)

    dry = module.check_mode
    outcome = dry_run(task, http, budget, log, check=True) if dry else perform(task, http, budget, log)
    result = outcome.as_dict()
    result["msg"] = result.pop("message")
    result["failed"] = outcome.exit_status != 0
    if "secrets_before" in result:
        result["diff"] = diff(outcome)
    return result


def prepare(params: dict[str, Any], http: Http, budget: Budget, log: Log) -> Task:
    """Read the options and the records. Raises BadInput, Refused."""
    explicit, fallback = identities(params, dict(os.environ))
    named = cloud(params["cloud_environment"], "cloud_environment")
    default = cloud(os.environ.get("AZURE_CLOUD_ENVIRONMENT"), "the environment variable AZURE_CLOUD_ENVIRONMENT")
    vault = Vault(keeper_configuration(params, os.environ), http, budget, log)
    wanted = [params[name] for name in ("record", "admin_record", "pam_config") if params[name]]
    found = vault.read(dict.fromkeys(wanted))
    record = _record(found, params["record"], "record")
    attached: list[Labelled] = []
    if params["admin_record"] and params["admin_record"] != params["record"]:
        attached = [_record(found, params["admin_record"], "admin_record").view()]
        if not explicit and not attached[0].get("application_client_id"):
            raise BadInput(f"the record {params['admin_record']} lacks application_client_id", todo="fill in the field")
    configuration = _record(found, params["pam_config"], "pam_config").view() if params["pam_config"] else None

    def afresh(uid: str) -> Labelled | None:
        read = vault.read([uid]).get(uid)
        return read.view() if read else None

    sources = Sources(
        advice="set pam_config or admin_record, or tenant_id, client_id and a credential",
        explicit=explicit,
        attached=attached,
        own=record.view(),
        configuration=configuration,
        fallback=fallback,
        cloud=named,
        default_cloud=default,
        authority=os.environ.get(AUTHORITY_VARIABLE, ""),
        files=lambda uid: certificates_of(found[uid], http) if uid in found else (),
        afresh=afresh,
    )
    given = {name: params[name] for name in POLICY if params[name] is not None}
    return Task(vault, record, sources, policy_of(sources.own or record.view(), **given), params["application"] or "")


def _record(found: dict[str, VaultRecord], uid: str, option: str) -> VaultRecord:
    if uid not in found:
        raise BadInput(
            f"the record {uid} ({option}) was not found",
            "it is not shared with the KSM application, or does not exist",
            "share the record's folder with the application, with edit permission for the application's own record",
        )
    return found[uid]


def diff(outcome: Outcome) -> dict[str, Any]:
    """Return what --diff shows: key ids and ends, of the record and of the application."""
    facts = outcome.facts
    before = facts.get("secrets_before", {})
    gone = set(facts.get("would_remove" if outcome.status == "planned" else "removed", []))
    after = {key_id: end for key_id, end in before.items() if key_id not in gone}
    new = facts.get("key_id") or "(a new one)"
    shown_before = {"client_secret_id": facts.get("previous_key_id"), "expires": facts.get("previous_expires")}
    shown_after = dict(shown_before)
    if outcome.changed and facts.get("expires"):
        after[new] = facts["expires"]
        shown_after = {"client_secret_id": new, "expires": facts["expires"]}
    return {
        "before": {"record": shown_before, "secrets": before},
        "after": {"record": shown_after, "secrets": after},
    }
