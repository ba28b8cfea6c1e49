# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module of the same name, and shows a line for each application of a fleet as it ends.

The module does the work, in a process of its own: here, signals, environment, ``become`` and interpreter are not those
of the task.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils._progress import FIFO

_PAUSE = 0.2


class ActionModule(ActionBase):
    """The action plugin of app_secret."""

    _requires_connection = True
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Run the module; return its result."""
        del tmp
        result: dict[str, Any] = super().run(None, task_vars)
        result.pop("invocation", None)
        lines = self._lines()
        try:
            result.update(self._execute_module(task_vars=task_vars, wrap_async=bool(self._task.async_val)))
        finally:
            if lines is not None:
                lines.end()
        if not self._task.async_val:
            self._remove_tmp_path(self._connection._shell.tmpdir)  # type: ignore[no-untyped-call]
        return result

    def _lines(self) -> Lines | None:
        """Begin to listen, where the module runs on this host, as this user, and has much to tell."""
        away = self._connection.transport != "local" or self._connection.become or self._task.async_val
        if away or not self._task.args.get("records") or not hasattr(os, "mkfifo"):
            return None
        try:
            self._make_tmp_path()
            return Lines(os.path.join(self._connection._shell.tmpdir, FIFO))
        except OSError:
            return None


class Lines:
    """Shows on stderr what is written to a FIFO, so that what callbacks write to stdout stays as it is."""

    def __init__(self, path: str) -> None:
        os.mkfifo(path, 0o600)
        self._read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()

    def _show(self) -> None:
        display, rest = Display(), b""
        while True:
            is_over = self._ended.is_set()
            try:
                data = os.read(self._read, 65536)
            except BlockingIOError:
                data = b""
            *whole, rest = (rest + data).split(b"\n")
            for text in whole:
                display.display(text.decode("utf-8", "replace"), stderr=True)
            if not data and is_over:
                return
            if not data:
                self._ended.wait(_PAUSE)

    def end(self) -> None:
        """Show what is left."""
        self._ended.set()
        self._thread.join()
        os.close(self._read)
