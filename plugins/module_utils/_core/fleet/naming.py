# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which application each record of a fleet names, found out before anything is changed."""

from __future__ import annotations

import functools
import queue
import time
from collections.abc import Callable, Sequence

from ..base.errors import RotationError, Stopped
from ..base.redact import Log
from ..base.timing import RESOLVE
from ..rotation.admin import Admin
from ..rotation.identity import Sources
from ..rotation.publishing import FIELD_APPLICATION
from ..services.application import Application
from ..services.http import Http, Lines
from ..services.vault import VaultRecord
from .company import Fleetmates
from .pacing import Pacer, Turn
from .stopping import MemberBudget, Stop, Watch
from .threads import Threads

_AT_ONCE = 16
# Seconds: where Graph does not answer, each rotation finds that out by itself. Each record adds to it.
_LIMIT, _EACH = 60.0, 0.05
# No answer comes for so many seconds before those are cut off whose time is over.
_LOOK, _GRACE = 0.5, 5.0


class Naming:
    """The first look at the applications of many records. ``sources`` returns where the admin identity of one comes
    from."""

    def __init__(
        self,
        sources: Callable[[VaultRecord, Http], Sources],
        company: Fleetmates,
        lines: Lines,
        pacer: Pacer,
        stop: Stop,
        log: Log,
    ) -> None:
        self._sources, self._company, self._lines = sources, company, lines
        self._pacer, self._stop, self._log = pacer, stop, log

    def applications(self, records: Sequence[VaultRecord]) -> dict[str, Application]:
        """Return the application of each record, by the record's uid, as far as it can be found."""
        answers: queue.SimpleQueue[tuple[str, Application | None]] = queue.SimpleQueue()
        until = time.monotonic() + _LIMIT + _EACH * len(records)
        threads = Threads(min(_AT_ONCE, len(records)))

        def look(record: VaultRecord) -> None:
            late = time.monotonic() > until or self._stop.reason
            answers.put((record.uid, None if late else self._application(record)))

        for record in records:
            threads.do(functools.partial(look, record))
        threads.end()
        found: dict[str, Application | None] = {}
        watch = Watch(self._lines)
        while len(found) < len(records) and time.monotonic() < until + RESOLVE + _GRACE:
            try:
                uid, application = answers.get(timeout=_LOOK)
                found[uid] = application
            except queue.Empty:
                watch.look()
            if self._stop.reason:
                self._stop.announce()
        return {uid: application for uid, application in found.items() if application is not None}

    def _application(self, record: VaultRecord) -> Application | None:
        budget = MemberBudget(self._stop)
        http = Http(budget, self._log, lines=self._lines, pace=Turn(self._pacer))
        try:
            with budget.phase("resolve the application", RESOLVE):
                admin = Admin(self._sources(record, http), self._company, http, budget, self._log)
                return admin.graph.find(record.value(FIELD_APPLICATION))
        except (RotationError, Stopped) as problem:
            self._log.detail(f"{record.uid}: {problem}")  # its rotation will say so
        except Exception as bug:
            self._log.detail(f"{record.uid}: {type(bug).__name__}")
        return None
