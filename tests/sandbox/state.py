# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the emulated services share: one lock, the log, and those who watch the stores change."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Callable


@dataclass(frozen=True)
class Entry:
    """One request as it was served.

    `at` is in seconds since the epoch, `status` is the HTTP status put on the wire (None: no answer was given),
    `fault` is the kind of the fault that was applied. `detail` never holds a secret.
    Watchers also get entries of the service "outside": somebody changed a store without the network.
    """

    at: float
    service: str
    op: str
    status: int | None
    detail: str
    fault: str | None = None


@dataclass
class State:
    """The lock that guards both stores, and what was seen of them. Hold `lock` for looks that must be consistent."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    log: list[Entry] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    _watchers: list[Callable[[Entry], None]] = field(default_factory=list)

    def watch(self, callback: Callable[[Entry], None]) -> None:
        """Call back, with the lock held, after every change of a store."""
        with self.lock:
            self._watchers.append(callback)

    def record(self, entry: Entry, changed: bool = False) -> None:
        """Log a request that was served, and tell the watchers when it changed something."""
        with self.lock:
            self.log.append(entry)
            if changed:
                self._tell(entry)

    @contextlib.contextmanager
    def outside(self, op: str, detail: str) -> Iterator[None]:
        """Change a store the way an admin or a person at the vault would: not logged, but watchers are told."""
        with self.lock:
            yield
            self._tell(Entry(time.time(), "outside", op, None, detail))

    def _tell(self, entry: Entry) -> None:
        for callback in list(self._watchers):
            try:
                callback(entry)
            except Exception as error:  # a failed assertion of a watcher must fail the test, not one connection
                self.errors.append(error)
