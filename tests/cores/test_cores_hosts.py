# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts with every Python, under every supported ansible-core: what the README's table says, and no more."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from environments import find, with_requirements
from harness import CHECKOUT, World, make_world

from cores import BOOTED, ONE_EACH, PYTHONS, TOO_OLD, Controller, Core, table

PLAYBOOK = str(Path(__file__).with_name("hosts.yml"))


def inventory(core: Core, world: World) -> dict[str, dict[str, str]]:
    """Return the variables of a host for each Python that the core supports and that is there, by its version."""
    hosts = {}
    for version in (*TOO_OLD, *PYTHONS):
        python = find(version) if version in TOO_OLD else with_requirements(version)
        if python is None or not core.supports(version):
            continue
        app = world.sandbox.directory.add_application(f"app {version}", owners=[world.admin.client_id])
        record = world.sandbox.vault.pam_user(
            app.display_name, folder=world.sandbox.vault.folder_uid, application_object_id=app.object_id
        )
        hosts[version] = {"ansible_python_interpreter": python, "record": record.uid}
    return hosts


@pytest.mark.parametrize("core", ONE_EACH, ids=str)
def test_a_host_with_each_python(core: Core, controller: Controller, tmp_path: Path) -> None:
    with make_world() as world:
        hosts = inventory(core, world)
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
        variables = {
            "pam_config": world.configuration.uid,
            "keeper_config": world.sandbox.client_config(),
            "result": str(tmp_path / "result.json"),
        }
        done = controller.play(world.sandbox, PLAYBOOK, variables, "-i", str(tmp_path / "hosts.json"), "--forks=6")
        assert done.returncode == 0, done.stdout + done.stderr
        results = dict(json.loads((tmp_path / "result.json").read_text("utf-8")))
        statuses = {version: results[version].get("status") for version in hosts}
        assert statuses == {version: "bad_input" if version in TOO_OLD else "rotated" for version in hosts}
        for version in set(hosts) & set(TOO_OLD):
            for words in ("Python 3.9", f"is Python {version}", "Next: "):
                assert words in results[version]["msg"]
    missing = [version for version in PYTHONS if core.supports(version) and version not in (*hosts, *BOOTED)]
    if missing:
        pytest.skip(f"the others passed; there is no Python {', '.join(missing)} on this machine")


def test_the_readme_has_the_table_of_these_runs() -> None:
    assert textwrap.indent(table(), "  ") in (CHECKOUT / "README.md").read_text("utf-8")
