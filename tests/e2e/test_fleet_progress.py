# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet with the real ansible-playbook: a line for each application as it ends, beside what callbacks write."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from fleets import FleetWorld, make_fleet

from leaks import pieces_in


def play(fleet: FleetWorld, home: Path, task: dict[str, Any], **keywords: Any) -> subprocess.CompletedProcess[str]:
    """Rotate all of them in a play; `keywords` are those of the task."""
    options = {
        "records": fleet.uids(),
        "pam_config": fleet.first.configuration.uid,
        "keeper_config": json.dumps(fleet.first.sandbox.client_config()),
    }
    tasks = [{"keeperpam.azure.app_secret": {**options, **task}, **keywords}]
    variables = {"ansible_python_interpreter": sys.executable, "ansible_pipelining": True}
    book = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": tasks}]
    (home / "play.json").write_text(json.dumps(book), "utf-8")
    environ = fleet.first.sandbox.environ(
        GATEWAY_CONFIG=None,
        HOME=str(home),
        LC_ALL="C.UTF-8",
        ANSIBLE_STDOUT_CALLBACK="ansible.builtin.minimal",
        ANSIBLE_ASYNC_DIR=str(home / "async"),
        **{name: os.environ[name] for name in ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "ANSIBLE_NOCOLOR")},
    )
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, str(home / "play.json")]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines about single applications."""
    return [line for line in done.stderr.splitlines() if re.match(r"\[ *\d+/\d+\]", line)]


def test_each_application_has_a_line_on_stderr_as_it_ends(tmp_path: Path) -> None:
    with make_fleet(5) as fleet:
        secrets = fleet.secrets()
        fleet.worlds[2].record.editable = False
        done = play(fleet, tmp_path, {})
        assert done.returncode == 2, done.stdout + done.stderr
        found = lines(done)
        assert [line[:5] for line in found] == [f"[{number}/5]" for number in range(1, 6)]
        assert " 1 failed: " in found[-1]
        assert "about" in found[0]
        for world in fleet.worlds:
            assert sum(world.record.uid in line for line in found) == 1
            assert world.record.uid in done.stdout
        assert not re.search(r"^\[\d/5\]", done.stdout, re.MULTILINE)
        assert pieces_in(done.stdout + done.stderr, [*secrets, *fleet.secrets()]) == []
        assert not list((tmp_path / ".ansible" / "tmp").glob("*/*"))


def test_elsewhere_the_result_is_the_same(tmp_path: Path) -> None:
    with make_fleet(3) as fleet:
        done = play(fleet, tmp_path, {}, **{"async": 60, "poll": 1})
        assert done.returncode == 0, done.stdout + done.stderr
        assert "3 records: 3 rotated" in done.stdout
        assert lines(done) == []
