# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Output that never holds a run: a pipe whose reader has stopped reading blocks whoever writes to it, for ever."""

from __future__ import annotations

import os
import select
import time
from typing import Any

# So long, in seconds and for all lines together, is waited for a reader.
WAIT_FOR_READERS = 5.0
_AT_ONCE = 512  # POSIX: a pipe that is ready takes so much at once


class Outlet:
    """Writes to stdout and stderr at once, past their buffers, which would be written at the end of the process."""

    def __init__(self, patience: float = WAIT_FOR_READERS) -> None:
        self._patience = patience

    def write(self, stream: Any, text: str) -> None:
        """Write the text, or where nobody reads as much of it as is taken. Raises OSError, ValueError.

        ``stream`` is None where the process was started without.
        """
        if stream is None:
            return
        try:
            handle = stream.fileno()
        except (AttributeError, OSError, ValueError):
            handle = -1
        if handle < 0 or not hasattr(select, "poll"):  # no file of the system, or Windows
            stream.write(text)
            stream.flush()
            return
        left = text.encode(stream.encoding or "utf-8", "backslashreplace")
        while left and self._is_taken(handle):
            try:
                left = left[os.write(handle, left[:_AT_ONCE]) :]
            except BlockingIOError:
                continue  # a pipe that does not block and has room for less than a piece

    def _is_taken(self, handle: int) -> bool:
        begun = time.monotonic()
        poll = select.poll()
        poll.register(handle, select.POLLOUT)
        ready = bool(poll.poll(max(0.0, self._patience) * 1000))
        self._patience -= time.monotonic() - begun
        return ready
