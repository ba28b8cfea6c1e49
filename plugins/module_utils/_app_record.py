# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module app_record: the fields of an application's record.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

from ._core.base.labels import Labelled
from ._core.base.redact import Log
from ._core.base.timing import Budget
from ._core.records.app_fields import TYPES, check_values, ensure
from ._core.rotation.policy import foresight, policy_of
from ._core.services.http import Http
from ._core.services.vault import Vault
from ._module import KEEPER_EXCLUSIVE, KEEPER_OPTIONS, Module, conclude, keeper_configuration


def run(options: Mapping[str, Any]) -> NoReturn:
    """Be the module. ``options`` is the part of the argument spec that is its own."""
    conclude(Module({**options, **KEEPER_OPTIONS}, mutually_exclusive=KEEPER_EXCLUSIVE), _ensure)


def _ensure(module: Module, http: Http, budget: Budget, log: Log) -> dict[str, Any]:
    values = wanted(module.params)
    vault = Vault(keeper_configuration(module.params, os.environ), http, budget, log)
    done = ensure(vault, module.params["record"], values, budget, log, module.check_mode)
    verb = "would get" if module.check_mode and done.changed else "has"
    return {
        "changed": done.changed,
        "msg": f"{done.title} {verb} the fields.",
        "warnings": foresight(policy_of(_as_record(values))),
        "record": module.params["record"],
        "diff": {"before": done.before, "after": done.after},
    }


def wanted(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the values that the options give. Raises BadInput."""
    values = {label: _text(params[label]) for label in TYPES if params.get(label) is not None}
    policy_of(_as_record(values))
    check_values(values)
    return values


def _as_record(values: Mapping[str, str]) -> Labelled:
    return Labelled("", "", values.items())


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
