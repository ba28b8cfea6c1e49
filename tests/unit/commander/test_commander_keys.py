# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file with a new Gateway's configuration is never overwritten, never empty, and nobody else's to read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._commander import keys
from ansible_collections.keeperpam.azure.plugins.module_utils._commander.model import Keys
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import Refused

UNBOUND = {"clientKey": "token", "clientId": "id", "privateKey": "key"}


def test_what_is_there_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "gateway.b64"
    assert keys.look("") == keys.look(str(path)) == Keys()
    assert keys.look(str(tmp_path / "nowhere" / "file")).problem == f"there is no directory {tmp_path}/nowhere"
    keys.write_new(str(path), UNBOUND)
    assert keys.look(str(path)) == Keys(True, True, "id")
    keys.replace(str(path), {"clientId": "id", "privateKey": "key", "appKey": "app"})
    there = keys.look(str(path))
    assert (there.exists, there.unbound) == (True, False)
    assert "the file exists" in there.problem
    path.write_text("something else", "utf-8")
    assert "the file exists" in keys.look(str(path)).problem
    path.unlink()
    path.mkdir()
    assert keys.look(str(path)).problem


def test_it_is_private_and_complete_from_the_beginning(tmp_path: Path) -> None:
    path, before = tmp_path / "gateway.b64", os.umask(0)
    try:
        keys.write_new(str(path), UNBOUND)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert keys.read(str(path)) == UNBOUND
        keys.replace(str(path), {"appKey": "app"})
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert keys.read(str(path)) == {"appKey": "app"}
    assert [one.name for one in tmp_path.iterdir()] == ["gateway.b64"]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "gateway.b64"
    path.write_text("mine", "utf-8")
    with pytest.raises(Refused, match="cannot be kept"):
        keys.write_new(str(path), UNBOUND)
    assert path.read_text("utf-8") == "mine"
    with pytest.raises(Refused, match="cannot be completed"):
        keys.replace(str(tmp_path / "nowhere" / "file"), UNBOUND)
