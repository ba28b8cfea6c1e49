# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hands the collection's own script to the module pam_script where none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

SCRIPT = Path(__file__).resolve().parents[2] / "playbooks" / "files" / "rotate_azure_app.py"


class ActionModule(ActionBase):
    """The script lies on the controller, and the module may run elsewhere."""

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, with the script beside it if it needs that."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if not arguments.get("src") and (arguments.get("state") or "present") == "present":
            shell = self._connection._shell
            if not shell.tmpdir:
                self._make_tmp_path()
            arguments["src"] = shell.join_path(shell.tmpdir, SCRIPT.name)
            self._transfer_file(str(SCRIPT), arguments["src"])  # type: ignore[no-untyped-call]
            self._fixup_perms2((shell.tmpdir, arguments["src"]))  # type: ignore[no-untyped-call]
        result.update(self._execute_module(module_args=arguments, task_vars=task_vars))
        return result
