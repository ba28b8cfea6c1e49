# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module pam_rotation: everything in the vault that the rotation of applications needs.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from typing import Any, NoReturn

from ansible.module_utils.common.respawn import has_respawned, respawn_module

from ._commander import run as session
from ._commander.interpreter import NotFound, find
from ._commander.wanted import foreseen, wanted
from ._core.base.errors import BadInput
from ._core.base.redact import Log
from ._core.base.timing import Budget
from ._module import Module, end

# What people have called something.
NAMES = (
    "application",
    "azure_id",
    "commander_config",
    "folder",
    "gateway",
    "gateway_config_file",
    "keeper_command",
    "login",
    "network_id",
    "resource_groups",
    "schedule",
    "script",
    "script_command",
    "title",
)
# Longer options may not fit into the pipe by which a module starts itself anew: it would hang.
LONGEST = 16 * 1024


def run(options: Mapping[str, Any]) -> NoReturn:
    """Be the module. ``options`` is its argument spec."""
    module = Module(options, keep_empty=("script_command",), names=NAMES)

    def work(budget: Budget, log: Log) -> dict[str, Any]:
        go_to_commander(module)
        # Nothing may ask: what tries to gets the end of the file.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        want = wanted(module.params)
        done = session.run(module.params["commander_config"] or "", want, budget, log, module.check_mode)
        number = len(want.records)
        what = f"The rotation of {number} record{'s' if number > 1 else ''}" if want.present else "The script"
        verb = "would be" if module.check_mode and done.changed else "is"
        uids = done.last.uids
        return {
            "changed": done.changed,
            "msg": f"{what} {verb} {'set up' if want.present else 'detached'}.",
            "warnings": foreseen(want),
            "folder": uids.folder,
            "application": uids.application,
            "gateway": uids.gateway,
            "pam_config": uids.config,
            "records": session.records(done, want),
            "diff": difference(done) if done.changed else {},
        }

    end(module, work)


def go_to_commander(module: Module) -> None:
    """Start anew under Commander's Python, unless this is it. Raises BadInput."""
    if importlib.util.find_spec("keepercommander") is not None:
        return
    try:
        python = find(module.params["keeper_command"] or "")
    except NotFound as problem:
        raise BadInput(str(problem)) from None
    if has_respawned() or len(json.dumps(module.params, default=str)) > LONGEST:  # type: ignore[no-untyped-call]
        todo = f"set ansible_python_interpreter to {python} for this task"
        raise BadInput("pam_rotation must run under Keeper Commander's own Python", "its options are long", todo)
    respawn_module(python)


def difference(outcome: session.Outcome) -> dict[str, str]:
    """Return what the steps change, in words."""
    steps = outcome.first.steps
    return {
        name: "".join(f"{text}\n" for text in (getattr(step, name) for step in steps) if text)
        for name in ("before", "after")
    }
