# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Output reaches whoever reads it, and waits no longer than it may for one who does not."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.output import Outlet


@pytest.fixture
def pipe():
    """The ends of a pipe, the second as a text file with an encoding that knows little."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="ascii") as stream:
        yield reader, stream
    os.close(reader)


def fill(stream) -> None:
    os.set_blocking(stream.fileno(), False)
    with suppress(BlockingIOError):
        while True:
            os.write(stream.fileno(), b"x" * 4096)
    os.set_blocking(stream.fileno(), True)


def test_a_line_is_written_at_once_in_the_encoding_of_the_stream(pipe):
    reader, stream = pipe
    Outlet().write(stream, "a Grüße line\n")
    assert os.read(reader, 100) == b"a Gr\\xfc\\xdfe line\n"


def test_a_long_line_is_written_as_a_whole(pipe):
    reader, stream = pipe
    Outlet().write(stream, "y" * 20_000)
    assert os.read(reader, 100_000) == b"y" * 20_000


def test_one_who_does_not_read_is_waited_for_once(pipe):
    reader, stream = pipe
    fill(stream)
    outlet = Outlet(patience=0.05)
    for _line in range(100):
        outlet.write(stream, "a line\n")
    assert outlet._patience <= 0
    os.set_blocking(reader, False)
    with suppress(BlockingIOError):
        while os.read(reader, 65536):
            pass
    outlet.write(stream, "read again\n")
    assert os.read(reader, 65536) == b"read again\n"


def test_a_closed_pipe_is_an_error_for_the_log_to_see(pipe):
    reader, stream = pipe
    os.dup2(os.open(os.devnull, os.O_RDONLY), reader)
    with pytest.raises(OSError, match="Broken pipe"):
        Outlet().write(stream, "a line\n")


def test_streams_that_are_no_files(capsys):
    Outlet().write(None, "nowhere\n")
    text = io.StringIO()
    Outlet().write(text, "a line\n")
    Outlet().write(sys.stderr, "another\n")
    assert text.getvalue() == "a line\n"
    assert capsys.readouterr().err == "another\n"
