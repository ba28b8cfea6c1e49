# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the rotations of a fleet share and know of each other: tokens, and what the other records hold."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..base.errors import Refused
from ..base.redact import Secret
from ..rotation.admin import Company
from ..rotation.deciding import Holding
from ..rotation.evidence import published_in
from ..rotation.publishing import FIELD_APPLICATION
from ..services.application import Application, guid
from ..services.credentials import Identity
from ..services.entra import Cloud, NotReached
from ..services.vault import VaultRecord

# A token is valid for an hour or more, and a rotation goes on for some minutes with the one it has got (seconds).
_RENEW = 1200.0
# Where a sign-in fails, the next ones would fail alike.
_FAILED, _NOT_REACHED = 60.0, 10.0


def same_application(name: str, uids: Sequence[str]) -> Refused:
    """Return why none of these records is rotated."""
    return Refused(
        f"{name} was not rotated, nothing was changed",
        f"several of the records name this application: {' and '.join(uids)}",
        "leave one of them, or let the one that takes over adopt the other",
    )


@dataclass
class _Kept:
    """The token of one identity, or why there is none, and since when."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    token: Secret | None = None
    problem: Refused | None = None
    at: float = 0.0


class Fleetmates(Company):
    """All the rotations of a fleet. ``records`` are theirs, as the first read has shown them; ``adopted`` are the
    uids that each adopts."""

    def __init__(
        self,
        records: Iterable[VaultRecord],
        adopted: Mapping[str, Collection[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adopted, self._clock = adopted, clock
        self._rotating: dict[str, list[str]] = {}
        self._lock = threading.Lock()
        self._tokens: dict[object, _Kept] = {}
        self._by_id: dict[str, list[Holding]] = defaultdict(list)
        for record in records:
            self._add(record)

    def _add(self, record: VaultRecord) -> None:
        shown = published_in(record)
        ids = (record.value(FIELD_APPLICATION), record.value("application_client_id"))
        about = frozenset(found for found in map(guid, ids) if found)
        holding = Holding(f"the record {record.title!r} ({record.uid})", shown, about)
        key_id = guid(shown.key_id)
        for name in [key_id] if key_id else about if shown.hint else ():
            self._by_id[name].append(holding)

    def meet(self, record: VaultRecord, application: Application) -> tuple[Holding, ...]:
        """Return what the other records of the fleet hold, as far as it may be of the application. Raises Refused."""
        with self._lock:
            rotating = self._rotating.setdefault(application.object_id, [])
            others = [uid for uid in rotating if uid != record.uid and not self._linked(uid, record.uid)]
            if not others and record.uid not in rotating:
                rotating.append(record.uid)
        if others:
            raise same_application(application.display_name, [record.uid, *others])
        names = [application.object_id, application.client_id, *(item.key_id for item in application.credentials)]
        found = [holding for name in names for holding in self._by_id.get(name, ())]
        return tuple(holding for holding in found if holding.shown.record_uid != record.uid)

    def clashes(self, applications: Mapping[str, Application]) -> dict[str, Refused]:
        """Return what is wrong with the records that name the same application as another one; by their uids, as
        ``applications`` is."""
        by_application: dict[str, list[str]] = defaultdict(list)
        for uid, application in applications.items():
            by_application[application.object_id].append(uid)
        found: dict[str, Refused] = {}
        for uids in by_application.values():
            for uid in uids:
                others = [other for other in uids if other != uid and not self._linked(uid, other)]
                if others:
                    found[uid] = same_application(applications[uid].display_name, [uid, *others])
        return found

    def _linked(self, one: str, other: str) -> bool:
        return other in self._adopted.get(one, ()) or one in self._adopted.get(other, ())

    def token(self, identity: Identity, cloud: Cloud, refused: Secret | None, fetch: Callable[[], Secret]) -> Secret:
        """Return the token that all rotations with this identity share; a new one where it is old, or was refused."""
        secret = identity.secret.reveal() if identity.secret else ""
        key = (identity.client_id, identity.tenant_id, identity.source, identity.managed, cloud, secret)
        with self._lock:
            kept = self._tokens.setdefault(key, _Kept())
        with kept.lock:
            age = self._clock() - kept.at
            if kept.problem is not None and age < (_NOT_REACHED if isinstance(kept.problem, NotReached) else _FAILED):
                raise Refused(kept.problem.what, kept.problem.why, kept.problem.todo)
            if kept.token is None or kept.token is refused or age >= _RENEW:
                former = kept.token if kept.token is not refused else None
                kept.token, kept.problem = None, None
                try:
                    kept.token = fetch()
                except Refused as problem:
                    if former is None:
                        # Whoever is at work with a token tries by itself: it has something to undo.
                        kept.problem = problem if refused is None else None
                        raise
                    kept.token = former  # it is good for longer than that
                finally:
                    kept.at = self._clock()
            return kept.token
