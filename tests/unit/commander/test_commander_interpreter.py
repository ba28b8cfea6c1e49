# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commander's Python is found through whatever has installed it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._commander import interpreter
from ansible_collections.keeperpam.azure.plugins.module_utils._commander.interpreter import NotFound, find

BODY = "import sys\nfrom keepercommander.__main__ import main\nsys.exit(main())\n"


def program(path: Path, text: str) -> Path:
    """Write an executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Return a Python that has the package: this one, with a directory of its own on its path."""
    package = tmp_path / "site" / "keepercommander"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    text = f'#!/bin/sh\nPYTHONPATH="{tmp_path}/site" exec "{sys.executable}" "$@"\n'
    return program(tmp_path / "a place" / "bin" / "python3", text)


def test_this_python_is_taken_where_it_has_the_package(monkeypatch: pytest.MonkeyPatch, python: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(python))
    assert find() == str(python)


def test_a_console_script_names_its_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, python: Path) -> None:
    plain = tmp_path / "python3.12"
    plain.symlink_to(python)
    bin_ = tmp_path / "bin"
    program(bin_ / "keeper", f"#!{plain} -I\n{BODY}")
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")
    assert find() == str(plain)
    assert find("keeper") == find(str(bin_ / "keeper")) == str(plain)
    # A path with a blank is not for the kernel: pip, pipx and uv then write a shell script that is Python as well.
    program(bin_ / "keeper", f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n{BODY}")
    assert find() == str(python)
    (tmp_path / "linked").symlink_to(bin_ / "keeper")
    assert find(str(tmp_path / "linked")) == str(python)


def test_the_shim_of_pyenv_is_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, python: Path) -> None:
    real = program(tmp_path / "versions" / "keeper", f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n{BODY}")
    program(tmp_path / "bin" / "pyenv", f'#!/bin/sh\n[ "$1 $2" = "which keeper" ] && echo "{real}"\n')
    program(tmp_path / "shims" / "keeper", '#!/usr/bin/env bash\nexec "/opt/pyenv/libexec/pyenv" exec keeper "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}/shims:{tmp_path}/bin:{os.environ['PATH']}")
    assert find() == str(python)


def test_what_cannot_be_used_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="there is no command keeper on the PATH"):
        find()
    with pytest.raises(NotFound, match="/nowhere/keeper is no command"):
        find("/nowhere/keeper")
    frozen = tmp_path / "keeper"
    frozen.write_bytes(b"\x7fELF\x02\x01\x01" + b"\x00" * 64)
    frozen.chmod(0o755)
    with pytest.raises(NotFound, match="a packaged build of Keeper Commander cannot be used"):
        find()
    program(frozen, f"#!{sys.executable}\n{BODY}")
    with pytest.raises(NotFound, match="has no package keepercommander"):
        find()


def test_it_runs_as_a_script(tmp_path: Path, python: Path) -> None:
    path = str(Path(interpreter.__file__))
    keeper = program(tmp_path / "keeper", f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n{BODY}")
    done = subprocess.run([sys.executable, path, str(keeper)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{python}\n"
    done = subprocess.run([sys.executable, path, "/nowhere"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Keeper Commander was not found: /nowhere is no command. Next: install it")
