# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lines about a fleet as it goes on, from the module to the action plugin on the same host.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import os
import stat
import time

#: The name of the FIFO in the temporary directory of the task.
FIFO = "progress"
# What is written in one piece arrives in one piece: https://pubs.opengroup.org/onlinepubs/9699919799/functions/write.html
_PIECE = 512


class Progress:
    """Counts what has ended of so many, and says so where somebody listens. ``directory`` is the task's, or none."""

    def __init__(self, directory: str | None, total: int) -> None:
        self._total, self._ended, self._failed = total, 0, 0
        self._began = time.monotonic()
        self._fifo = _open(os.path.join(directory, FIFO)) if directory else None

    def ended(self, message: str, failed: bool) -> None:
        """One more has ended, with this verdict."""
        self._ended += 1
        self._failed += failed
        self._write(line(self._ended, self._total, self._failed, time.monotonic() - self._began, message))

    def close(self) -> None:
        """Nothing more is said."""
        if self._fifo is not None:
            os.close(self._fifo)
            self._fifo = None

    def _write(self, text: str) -> None:
        if self._fifo is None:
            return
        data = text.encode("utf-8", "replace")
        try:
            os.write(self._fifo, data[: _PIECE - 1].decode("utf-8", "ignore").encode() + b"\n")
        except BlockingIOError:
            return  # nobody reads as fast: a line less
        except OSError:
            self.close()


def line(ended: int, total: int, failed: int, seconds: float, message: str) -> str:
    """Return what is said when one of ``total`` has ended, so many seconds after the beginning."""
    left = seconds / ended * (total - ended)
    more = f", about {left:.0f} s left" if ended < total else ""
    return f"[{ended:>{len(str(total))}}/{total}] {failed} failed{more}: {message}"


def _open(path: str) -> int | None:
    try:
        if stat.S_ISFIFO(os.lstat(path).st_mode):
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        pass  # no lines, the same result
    return None
