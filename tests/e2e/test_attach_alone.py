# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module pam_rotation in a task of one's own, under a Python that has no Commander."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commander_office import GUID, Office, make_office

from leaks import pieces_in


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """Return an office with an empty vault."""
    with make_office(tmp_path) as made:
        yield made


def task(office: Office, **changes: Any) -> tuple[int, str]:
    """Run the task under the Python of Ansible; return the status and what was said."""
    arguments = json.dumps({**office.options, **changes})
    names = ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "ANSIBLE_NOCOLOR", "PATH")
    environ = office.keeper.environ(office.home, **{name: os.environ[name] for name in names})
    program = str(Path(sys.executable).with_name("ansible"))
    interpreter = json.dumps({"ansible_python_interpreter": sys.executable})
    command = [program, "localhost", "-c", "local", "-m", "keeperpam.azure.pam_rotation", "-a", arguments]
    done = subprocess.run(
        [*command, "-e", interpreter],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def keeper(office: Office) -> str:
    """The command keeper of the environment that has Commander."""
    return str(Path(office.keeper.python).with_name("keeper"))


def test_it_starts_anew_under_commanders_python(office: Office) -> None:
    status, said = task(office, keeper_command=keeper(office))
    assert status == 0, said
    assert '"changed": true' in said
    assert office.complete()
    assert pieces_in(said, [office.options["pam_config"]["client_secret"]]) == []


def test_what_it_cannot_hand_over_it_says_how_to_run(office: Office) -> None:
    many = [{"title": f"application {number}", "application_object_id": GUID} for number in range(200)]
    status, said = task(office, keeper_command=keeper(office), records=many)
    assert status != 0
    assert f"set ansible_python_interpreter to {office.keeper.python} for this task" in said
    assert not office.keeper.account.folders


def test_without_commander_it_says_how_to_get_it(office: Office) -> None:
    status, said = task(office, keeper_command=str(office.home / "keeper"))
    assert status != 0
    assert "Next: install it, as with: pipx install keepercommander" in said
