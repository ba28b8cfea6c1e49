# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No piece of a secret in what Ansible prints, in the events that AWX stores, or on disk, however it was given."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import World, make_world

from cores import ONE_EACH, Controller, Core
from leaks import pieces_in
from sandbox import Fault

PLAYBOOK = Path(__file__).with_name("leaks.yml")
#: The first, the last that masks in no order, and the last. There are as many orders as hash seeds.
SEEDS = {"2.16": (0, 1, 2, 3), "2.18": (0, 1), "2.21": (0,)}
CHOSEN = [core for core in ONE_EACH if core.version in SEEDS]
CASES = [(core, "mapping", seed) for core in CHOSEN for seed in SEEDS[core.version]]
CASES += [(CHOSEN[0], form, 0) for form in ("text", "base64", "file")]
CASES += [(CHOSEN[1], "text", 0), (CHOSEN[2], "file", 0)]


def options(form: str, config: dict[str, str], folder: Path) -> dict[str, Any]:
    """Return the variables by which the configuration is given."""
    path = folder / "client-config.json"
    path.write_text(json.dumps(config), "utf-8")
    if form == "mapping":
        return {"keeper_config": config}
    if form == "text":  # up to ansible-core 2.18, a template makes a mapping of it
        return {"keeper_config": f"{{{{ lookup('file', '{path}') }}}}"}
    if form == "base64":
        return {"keeper_config": base64.b64encode(json.dumps(config).encode()).decode()}
    return {"keeper_config_file": str(path)}


def secrets_of(world: World, config: dict[str, str]) -> list[str]:
    """Return what nobody may read."""
    keys = [config[name] for name in ("privateKey", "appKey", "clientId")]
    return [
        *world.secrets(),
        *world.sandbox.issued_tokens(),
        *keys,
        base64.b64encode(json.dumps(config).encode()).decode(),
    ]


def contents(folder: Path) -> Iterator[tuple[Path, str]]:
    """Give every file below the folder with its text."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes().decode(errors="replace")


@pytest.mark.parametrize(("core", "form", "seed"), CASES, ids=str)
def test_nothing_is_in_events_or_output(
    core: Core, controller: Controller, form: str, seed: int, tmp_path: Path
) -> None:
    with make_world() as world:
        config = {**world.sandbox.client_config(), "a number": "7", "a letter": "A"}
        given = {
            "record": world.record.uid,
            "pam_config": world.configuration.uid,
            # Typed in as it is, it would be read as a template, which a secret may look like; the environment is what
            # ansible-runner keeps a copy of.
            "client_secret": f"{{{{ lookup('ansible.builtin.file', '{tmp_path}/rotator') }}}}",
            **options(form, config, tmp_path),
        }
        (tmp_path / "rotator").write_text(world.admin_secret.text, "utf-8")
        # What ansible-runner is given lies in env, what it makes of it in artifacts.
        (tmp_path / "run" / "env").mkdir(parents=True)
        (tmp_path / "run" / "env" / "extravars").write_text(json.dumps(given), "utf-8")
        command = [str(controller.programs / "ansible-runner"), "run", str(tmp_path / "run")]
        command += ["--playbook", str(PLAYBOOK), "--cmdline=-vvvv --diff"]
        environ = controller.environ(
            world.sandbox,
            PYTHONHASHSEED=str(seed),
            PATH=f"{controller.programs}:{os.environ['PATH']}",
        )
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        secrets = secrets_of(world, config)
        assert said.count('"status": "bad_input"') == 3, said
        assert pieces_in(said, secrets) == []
        events = [text for path, text in contents(tmp_path / "run" / "artifacts") if path.parent.name == "job_events"]
        assert any('"res": {' in text for text in events)
        for path, text in contents(tmp_path / "run" / "artifacts"):
            assert pieces_in(text, secrets) == [], path.name
        # Nor is anything else masked: the key's number is in every date.
        shown = said[said.index("TASK [Show what it has found]") : said.index("TASK [Give a wrong argument]")]
        shown = shown[shown.index("\n") :]  # what is beside the title are stars
        assert '"status": "planned"' in shown
        assert "********" not in shown


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("core", [CHOSEN[0], CHOSEN[-1]], ids=str)
def test_nothing_stays_on_disk_after_an_interruption(core: Core, controller: Controller, pipelining: bool) -> None:
    """By default; without pipelining there is something, or this test has not looked."""
    with make_world() as world:
        config = world.sandbox.client_config()
        world.sandbox.faults.add(Fault("token", kind="delay", seconds=20, times=None))
        variables = {
            "rotate_records": world.record.uid,
            "rotate_pam_config": world.configuration.uid,
            "rotate_keeper_config": config,
            **({} if pipelining else {"ansible_pipelining": False}),
        }
        with controller.file(variables) as path:
            command = [str(controller.programs / "ansible-playbook"), "keeperpam.azure.rotate", "-e", f"@{path}"]
            process = subprocess.Popen(
                command,
                env=controller.environ(world.sandbox),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            try:
                deadline = time.monotonic() + 60
                while "get_secret" not in world.operations() and time.monotonic() < deadline:
                    time.sleep(0.05)
                os.killpg(process.pid, signal.SIGINT)
                said = process.communicate(timeout=60)[0]
            finally:
                process.kill()
        assert process.returncode != 0
        left = [path for path, text in contents(controller.home) if pieces_in(text, secrets_of(world, config))]
        assert bool(left) is not pipelining, (left, said)
