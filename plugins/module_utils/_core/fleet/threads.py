# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A few threads that do what they are given, one after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

# With less, JSON that is nested deeply ends the process on Python 3.13, where others raise RecursionError. Only what is
# used of it takes memory.
_STACK = 8 * 1024 * 1024


class Threads:
    """So many threads. They end with the process at the latest."""

    def __init__(self, number: int) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        before = threading.stack_size(_STACK)
        try:
            self._threads = [threading.Thread(target=self._work, daemon=True) for _number in range(number)]
            for thread in self._threads:
                thread.start()
        finally:
            threading.stack_size(before)

    def do(self, job: Callable[[], None]) -> None:
        """Let one of them do the job, which raises nothing."""
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            job()

    def end(self) -> None:
        """Let them end when all is done."""
        for _thread in self._threads:
            self._jobs.put(None)
