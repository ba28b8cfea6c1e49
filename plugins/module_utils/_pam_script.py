# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module pam_script: a script attached to a record.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

from ._core.base.errors import BadInput
from ._core.base.redact import Log
from ._core.base.timing import Budget
from ._core.records.attaching import attach, check_content, differences, facts
from ._core.records.attachments import LARGEST, FileVault, Script
from ._core.services.http import Http
from ._module import KEEPER_EXCLUSIVE, KEEPER_OPTIONS, Module, conclude, keeper_configuration


def run(options: Mapping[str, Any]) -> NoReturn:
    """Be the module. ``options`` is the part of the argument spec that is its own."""
    module = Module(
        {**options, **KEEPER_OPTIONS},
        keep_empty=("command",),
        mutually_exclusive=KEEPER_EXCLUSIVE,
        required_if=[("state", "present", ("src",)), ("state", "absent", ("src", "name"), True)],
    )
    conclude(module, _attach)


def _attach(module: Module, http: Http, budget: Budget, log: Log) -> dict[str, Any]:
    script = wanted(module.params)
    configuration = keeper_configuration(module.params, os.environ)
    check_content(script, configuration)
    vault = FileVault(configuration, http, budget, log)
    done = attach(vault, module.params["record"], script, budget, log, module.check_mode)
    verb = "would be" if module.check_mode and done.changed else "is"
    what = "detached from" if script.content is None else "attached to"
    return {
        "changed": done.changed,
        "msg": f"{script.name} {verb} {what} {done.found.record.title}.",
        "diff": differences(done, script),
        **facts(done, script),
    }


def wanted(params: Mapping[str, Any]) -> Script:
    """Return the script that the options describe. Raises BadInput."""
    name = params["name"] or os.path.basename(params["src"] or "")
    if not name or name != os.path.basename(name):
        raise BadInput(f"{name!r} is no file name", todo="correct the option name")
    if params["state"] == "absent":
        return Script(name, None)
    try:
        with open(params["src"], "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as problem:
        raise BadInput(f"the script {params['src']} cannot be read", problem.strerror or "", "check the path") from None
    credentials = None if params["credentials"] is None else tuple(params["credentials"])
    return Script(name, content, params["command"], credentials)
