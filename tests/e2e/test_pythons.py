# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every supported Python, with nothing but the runtime packages: the script, the module's core, its unit tests.

And those that are too old, which are to be told so; and what lies beside the script, which is not to be imported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from environments import find, with_requirements
from harness import CHECKOUT, SCRIPT, make_world, run_script

SUPPORTED = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
#: Modules that the script imports sooner or later, its own libraries and Python's.
IMPORTED = ("argparse", "base64", "json", "signal", "typing", "requests", "msal", "keeper_secrets_manager_core")


@pytest.fixture(scope="module", params=SUPPORTED)
def python(request: pytest.FixtureRequest) -> str:
    """Return the interpreter of an environment with the runtime packages, made once and kept in .cache."""
    if not os.environ.get("KEEPERPAM_FULL"):
        pytest.skip("needs minutes of installing the first time: set KEEPERPAM_FULL=1")
    found = with_requirements(request.param)
    if found is None:
        pytest.skip(f"there is no Python {request.param} on this machine")
    return found


def test_the_script_rotates(python: str) -> None:
    with make_world() as world:
        result = run_script(world, python=python)
        assert result.returncode == 0, result.stderr
        assert world.agrees()
        assert len(result.stderr.splitlines()) == len(set(result.stderr.splitlines()))


def test_the_unit_tests_of_the_core_pass(python: str) -> None:
    command = [python, "-m", "pytest", "-q", str(CHECKOUT / "tests" / "unit" / "core")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def fakes(folder: Path) -> Path:
    """Lay modules in the folder that end the process with status 99 as soon as they are imported."""
    folder.mkdir(exist_ok=True)
    for name in IMPORTED:
        (folder / f"{name}.py").write_text("raise SystemExit(99)\n")
    return folder


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run with nothing on stdin and nothing inherited."""
    environ = {"PATH": os.environ["PATH"], **options.pop("environ", {})}  # type: ignore[dict-item]
    return subprocess.run(command, input="", capture_output=True, text=True, check=False, env=environ, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("version", ["3.7", "3.8"])
def test_a_python_that_is_too_old_is_told_so_in_one_line(version: str, tmp_path: Path) -> None:
    interpreter = find(version)
    if interpreter is None:
        pytest.skip(f"there is no Python {version} on this machine")
    done = run(interpreter, str(SCRIPT), "--version", environ={"PYTHONPATH": str(fakes(tmp_path / "beside"))})
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    for word in ("Python 3.9", version + ".", interpreter, "Next: "):
        assert word in line


def test_a_python_whose_compiler_stops_first_shows_what_is_needed() -> None:
    interpreter = find("3.6")
    if interpreter is None:
        pytest.skip("there is no Python 3.6 on this machine")
    done = run(interpreter, str(SCRIPT))
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Python 3.9 or newer" in done.stderr
    assert len(done.stderr.splitlines()) <= 4


@pytest.mark.parametrize("way", ["absolute", "relative", "a link to it", "-P", "-I", "-s", "-E"])
def test_what_lies_beside_the_script_is_not_imported(tmp_path: Path, way: str) -> None:
    if way == "-P" and sys.version_info < (3, 11):
        pytest.skip("Python has -P from 3.11 on")
    beside = fakes(tmp_path / "beside")
    script = Path(shutil.copy(SCRIPT, beside))
    (tmp_path / "link.py").symlink_to(script)
    named = {"relative": script.name, "a link to it": "../link.py"}.get(way, str(script))
    options = [way] if way.startswith("-") else []
    done = run(sys.executable, *options, named, "--version", cwd=beside)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_way_to_the_libraries_stays(tmp_path: Path) -> None:
    """Where Python puts no folder of a script on its path, nothing else is taken off."""
    (tmp_path / "json.py").write_text("raise SystemExit(99)\n")
    for options in ((), ("-P",)) if sys.version_info >= (3, 11) else ((),):
        done = run(sys.executable, *options, str(SCRIPT), "--version", environ={"PYTHONPATH": str(tmp_path)})
        assert done.returncode == 99
