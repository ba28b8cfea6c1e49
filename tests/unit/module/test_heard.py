# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether somebody waits for what a module writes."""

from __future__ import annotations

import os
import pty
from pathlib import Path

from ansible_collections.keeperpam.azure.plugins.module_utils._fleet import is_heard


def test_a_pipe_is_heard_as_long_as_it_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x")
    assert is_heard(writer)
    os.close(reader)
    assert not is_heard(writer)
    os.close(writer)


def test_a_terminal_is_heard_as_long_as_it_is_there() -> None:
    terminal, stream = pty.openpty()
    assert is_heard(stream)
    os.close(terminal)
    assert not is_heard(stream)
    os.close(stream)


def test_a_file_is_heard(tmp_path: Path) -> None:
    with (tmp_path / "output").open("w") as file:
        assert is_heard(file.fileno())
