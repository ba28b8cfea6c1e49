# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a test needs may be missing, but in CI only where it could not be installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import needed

CI = Path(__file__).resolve().parents[3] / ".ci" / "run"
NEEDS = [lambda: needed.program("no-such-program", "none"), lambda: needed.module("no_such_module.part")]
need = pytest.mark.parametrize("need", NEEDS, ids=["program", "module"])
skipped, failed = pytest.skip.Exception, pytest.fail.Exception


def test_what_is_there_is_returned() -> None:
    assert needed.program("sh", "dash") == shutil.which("sh")
    assert needed.module("os.path") is os.path


@need
def test_without_it_a_test_is_skipped(need: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEEPERPAM_FULL", raising=False)
    with pytest.raises(skipped, match="is not installed"):
        need()


@need
def test_in_ci_only_where_it_is_named(need: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPERPAM_FULL", "1")
    monkeypatch.setenv("KEEPERPAM_LEFT_OUT", "chromium promtool")
    with pytest.raises(failed, match="KEEPERPAM_LEFT_OUT does not name it"):
        need()
    monkeypatch.setenv("KEEPERPAM_LEFT_OUT", "no-such-program no_such_module")
    with pytest.raises(skipped):
        need()


@pytest.mark.skipif(not CI.is_file(), reason="only in a checkout")
@pytest.mark.parametrize("there", [[], ["promtool"], ["chromium", "promtool"]])
def test_ci_names_what_could_not_be_installed(there: list[str], tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(CI, tmp_path / ".ci" / "run")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "dirname").symlink_to(str(shutil.which("dirname")))
    bash = str(shutil.which("bash"))
    does = {"apt-get": "exit 100", "make": 'echo "make $1 without [$KEEPERPAM_LEFT_OUT]"'}
    for name in ("apt-get", "make", "git", "python3", "mmdebstrap", "systemd-nspawn", "ssh", *there):
        (programs / name).write_text(f"#!{bash}\n{does.get(name, '')}\n", "utf-8")
        (programs / name).chmod(0o755)
    command = [bash, str(tmp_path / ".ci" / "run")]
    done = subprocess.run(command, env={"PATH": str(programs)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    left_out = " ".join(name for name in ("chromium", "promtool") if name not in there)
    assert f"make ci without [{left_out}]" in done.stdout
    assert (f"left out, as they are not to be had: {left_out}\n" in done.stdout) is bool(left_out)
