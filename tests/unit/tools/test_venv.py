# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The virtual environment of the checkout heals itself."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "venv.py"
_spec = importlib.util.spec_from_file_location("venv_tool", TOOL)
assert _spec
assert _spec.loader
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)


def run(folder: Path, requirements: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run the tool as make does, in a checkout of its own."""
    copy = requirements.parent / "tests" / "tools" / "venv.py"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(TOOL, copy)
    return subprocess.run(
        [python, str(copy), str(folder), str(requirements)], capture_output=True, text=True, check=False
    )


def works(folder: Path) -> bool:
    """Whether the environment's own program runs in it."""
    command = [str(folder / "bin" / "pip"), "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and str(folder) in done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkout with an environment, to copy: making one takes seconds."""
    checkout = tmp_path_factory.mktemp("made")
    (checkout / "requirements.txt").write_text("")
    done = run(checkout / ".venv", checkout / "requirements.txt")
    assert done.returncode == 0, done.stderr
    assert works(checkout / ".venv")
    return checkout


@pytest.fixture
def checkout(made: Path, tmp_path: Path) -> Path:
    """Return a folder for a checkout, with requirements."""
    folder = tmp_path / "with a space"
    folder.mkdir()
    (folder / "requirements.txt").write_text("")
    return folder


def test_one_that_is_fine_is_left_alone(made: Path) -> None:
    done = run(made / ".venv", made / "requirements.txt")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def break_it(how: str, folder: Path) -> None:
    """Break an environment that was copied from elsewhere, and so is broken already."""
    if how == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif how == "marked":
        (folder / ".unfinished").touch()
    elif how == "without pip":
        shutil.rmtree(next(folder.glob("lib/python*/site-packages/pip")))
    elif how == "without its Python":
        (folder / "bin" / "python").unlink()
        (folder / "bin" / "python").symlink_to("/nonexistent/python")


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("empty", "it is not there"),
        ("moved", "it was moved"),
        ("marked", "it was left half-made"),
        ("without pip", "its Python is too old, or has no pip"),
        ("without its Python", "its Python is gone"),
    ],
)
def test_what_is_wrong_with_one_is_seen(made: Path, checkout: Path, how: str, why: str) -> None:
    folder = checkout / ".venv"
    shutil.copytree(made / ".venv", folder, symlinks=True)
    break_it(how, folder)
    assert not works(folder)
    assert tool.what_is_wrong(str(folder)) == why


def test_a_broken_one_is_made_anew(made: Path, checkout: Path) -> None:
    folder = checkout / ".venv"
    shutil.copytree(made / ".venv", folder, symlinks=True)
    done = run(folder, checkout / "requirements.txt")
    assert done.returncode == 0, done.stderr
    assert f"Making {folder} anew: it was moved" in done.stdout
    assert works(folder)


def test_what_was_not_made_here_is_not_removed(checkout: Path) -> None:
    folder = checkout / "precious"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    done = run(folder, checkout / "requirements.txt")
    assert done.returncode == 1
    assert "VENV=" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "thesis.txt").exists()


def test_the_larger_set_of_requirements_holds_the_smaller_one(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner.txt", tmp_path / "outer.txt"
    inner.write_text("requests\n")
    outer.write_text("-r inner.txt\npytest\n")
    before, of_inner = tool.closure(str(outer))
    assert of_inner == [tool.closure(str(inner))[0]]
    inner.write_text("requests>=2\n")
    assert tool.closure(str(outer))[0] != before


def test_an_installation_that_fails_is_one_sentence_and_is_not_taken_for_done(made: Path, checkout: Path) -> None:
    requirements = checkout / "requirements.txt"
    requirements.write_text(f"{checkout / 'there-is-no-such-package.whl'}\n")
    shutil.copytree(made / ".venv", checkout / ".venv", symlinks=True)
    done = run(checkout / ".venv", requirements)
    assert done.returncode == 1
    assert "Next: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert (checkout / ".venv" / ".unfinished").exists()


def old_pythons() -> list[str]:
    """Return the Pythons on this machine that are too old."""
    found = [shutil.which(f"python3.{minor}") for minor in (6, 7, 8, 9, 10)]
    found += [str(path) for path in sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))]
    code = "import sys; sys.exit(sys.version_info >= (3, 11))"
    return [one for one in found if one and subprocess.run([one, "-c", code], check=False).returncode == 0]


def test_an_old_python_says_so(checkout: Path) -> None:
    pythons = old_pythons()
    if not pythons:
        pytest.skip("there is no Python on this machine that is too old")
    for python in pythons:
        done = run(checkout / ".venv", checkout / "requirements.txt", python)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "PYTHON=" in done.stderr


def test_a_python_without_ensurepip_says_what_to_install(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho 'ensurepip is not available'\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "_base_executable", str(python))
    with pytest.raises(tool.Trouble, match=r"ensurepip is not available.*python3-venv"):
        tool.ensure(str(checkout / ".venv"), str(checkout / "requirements.txt"), own=True)
