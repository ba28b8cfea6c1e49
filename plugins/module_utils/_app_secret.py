# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module app_secret: options in, a rotation, its outcome out.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from ._core.base.redact import Log
from ._core.base.timing import Budget
from ._core.rotation.doctor import dry_run
from ._core.rotation.subject import Task
from ._core.rotation.transaction import perform
from ._core.services.http import Http
from ._core.services.vault import Vault, not_found
from ._diff import diff
from ._fleet import rotate_all
from ._module import ENTRA_OPTIONS, EXCLUSIVE, KEEPER_OPTIONS, Module, conclude
from ._setting import Setting


def run(options: Mapping[str, Any]) -> NoReturn:
    """Be the module. ``options`` is the part of the argument spec that is its own."""
    conclude(
        Module(
            {**options, **KEEPER_OPTIONS, **ENTRA_OPTIONS},
            mutually_exclusive=[*EXCLUSIVE, ("record", "records"), ("application", "records")],
            required_one_of=[("record", "records")],
        ),
        _rotate,
    )


def _rotate(module: Module, http: Http, budget: Budget, log: Log) -> dict[str, Any]:
    if module.params["records"] is not None:
        return rotate_all(module, Setting(module.params), budget, log)

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
    setting = Setting(params)
    vault = Vault(setting.keeper, http, budget, log)
    beside = setting.beside()
    found = vault.read(dict.fromkeys([params["record"], *beside.values()]))
    for option, uid in {"record": params["record"], **beside}.items():
        if uid not in found:
            raise not_found(uid, option)
    record = found[params["record"]]
    sources, policy = setting.about(record, found, http, vault)
    return Task(vault, record, sources, policy, params["application"] or "")
