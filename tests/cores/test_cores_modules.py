# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every module on every supported ansible-core: its main path, check and diff, wrong arguments, missing packages."""

from __future__ import annotations

import json
from pathlib import Path

from harness import SCRIPT, make_world

from cores import Controller
from leaks import pieces_in

PLAYBOOK = str(Path(__file__).with_name("modules.yml"))


def test_the_modules(controller: Controller, tmp_path: Path) -> None:
    for package in ("msal", "keeper_secrets_manager_core"):
        (tmp_path / "broken" / package).mkdir(parents=True)
        (tmp_path / "broken" / package / "__init__.py").write_text("raise ImportError('there is none here')\n")
    with make_world() as world:
        config = {**world.sandbox.client_config(), "a number": "7", "a letter": "A"}
        variables = {
            "record": world.record.uid,
            "application": world.app.object_id,
            "pam_config": world.configuration.uid,
            "script": str(SCRIPT),
            "keeper_config": config,
            "broken": str(tmp_path / "broken"),
            "result": str(tmp_path / "result.json"),
        }
        done = controller.play(world.sandbox, PLAYBOOK, variables, "-vvvv")
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        results = json.loads((tmp_path / "result.json").read_text("utf-8"))
        statuses = {name: [one["status"] for one in results[name]] for name in results}
        wrong = ["bad_input", "bad_input"]
        assert statuses == {
            "record": ["planned", "changed", "unchanged", *wrong],
            "rotation": ["bad_input"],
            "script": ["planned", "changed", "unchanged", *wrong],
            "secret": ["planned", "rotated", "unchanged", *wrong],
        }
        assert "Next: " in results.pop("rotation")[0]["msg"]
        for name, (check, real, again, argument, missing) in results.items():
            assert [one["changed"] for one in (check, real, again)] == [True, True, False], name
            assert check["diff"], name
            assert "********" not in json.dumps([check, real, again]), name
            for one in (argument, missing):
                assert one["failed"], name
                assert "Next: " in one["msg"], name
            assert "python -m pip install msal keeper-secrets-manager-core" in missing["msg"], name
        assert results["secret"][1]["expires"].startswith("20")
        assert world.record.value("lifetime_days") == "180"
        assert world.agrees()
        secrets = [*world.secrets(), *world.sandbox.issued_tokens()]
        secrets += [config[name] for name in ("privateKey", "appKey", "clientId")]
        assert pieces_in(said + json.dumps(results), secrets) == []
