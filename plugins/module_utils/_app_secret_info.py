# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module app_secret_info: options in, a survey out.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from ._core.base.errors import BadInput, Refused
from ._core.base.redact import Log
from ._core.base.timing import Budget
from ._core.fleet.judging import Limits
from ._core.fleet.survey import Seen, Survey, Wanted, vault_seen
from ._core.rotation.identity import Sources
from ._core.rotation.policy import is_record_uid
from ._core.services.http import Http
from ._core.services.vault import Vault
from ._module import ENTRA_OPTIONS, EXCLUSIVE, KEEPER_OPTIONS, Module, conclude
from ._setting import Setting


def run(options: Mapping[str, Any]) -> NoReturn:
    """Be the module. ``options`` is the part of the argument spec that is its own."""
    conclude(Module({**options, **KEEPER_OPTIONS, **ENTRA_OPTIONS}, mutually_exclusive=EXCLUSIVE), _look)


def _look(module: Module, http: Http, budget: Budget, log: Log) -> dict[str, Any]:
    params = module.params
    wanted = _wanted(params)
    setting = Setting(params)
    vault = Vault(setting.keeper, http, budget, log)
    seen = vault_seen(lambda: vault.find(()), budget)
    found = Survey(seen, _sources(setting, seen, http), wanted, http, budget, log).look()
    return {**found, "vault": f"https://{setting.keeper.get('hostname', 'keepersecurity.com')}", "changed": False}


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


def _sources(setting: Setting, seen: Seen, http: Http) -> Sources:
    """Return where the admin identity may come from. Raises BadInput, Refused."""
    for option, uid in setting.beside().items():
        if seen.problem:
            raise Refused("the admin identity could not be read", seen.problem)
        if uid not in seen.records:
            raise BadInput(
                f"the record {uid} ({option}) was not found",
                "it is not shared with the KSM application, or does not exist",
                "share the record's folder with the application",
            )
    return setting.sources(None, seen.records, http, None)
