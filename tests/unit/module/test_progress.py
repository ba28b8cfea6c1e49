# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lines about a fleet as it goes on: short, whole, and never in the way."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.keeperpam.azure.plugins.module_utils._progress import FIFO, Progress, line


def test_a_line_has_counts_and_the_time_that_is_left():
    assert line(50, 200, 2, 30.0, "ROTATED 'a'") == "[ 50/200] 2 failed, about 90 s left: ROTATED 'a'"
    assert line(200, 200, 0, 30.0, "ROTATED 'a'") == "[200/200] 0 failed: ROTATED 'a'"


def test_what_is_long_is_cut_to_what_arrives_in_one_piece(tmp_path: Path):
    os.mkfifo(tmp_path / FIFO)
    read = os.open(tmp_path / FIFO, os.O_RDONLY | os.O_NONBLOCK)
    progress = Progress(str(tmp_path), 2)
    progress.ended("ä" * 1000, failed=True)
    progress.close()
    text = os.read(read, 65536).decode()
    os.close(read)
    assert text.startswith("[1/2] 1 failed, about 0 s left: ääää")
    assert text.endswith("ä\n")
    assert len(text.encode()) <= 512


def test_nobody_has_to_listen(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for directory in (None, str(tmp_path), str(tmp_path / "nowhere")):
        Progress(directory, 1).ended("text", failed=False)
    os.mkfifo(tmp_path / FIFO)
    Progress(str(tmp_path), 1).ended("text", failed=False)


def test_who_does_not_read_holds_nothing_up(tmp_path: Path):
    os.mkfifo(tmp_path / FIFO)
    read = os.open(tmp_path / FIFO, os.O_RDONLY | os.O_NONBLOCK)
    progress = Progress(str(tmp_path), 1000)
    for _number in range(1000):
        progress.ended("t" * 400, failed=False)
    os.close(read)
    progress.ended("text", failed=False)
    progress.close()
