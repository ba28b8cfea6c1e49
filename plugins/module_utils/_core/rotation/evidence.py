# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was seen last of the record, of the application's list and of the sign-in. It grows old, and is taken again."""

from __future__ import annotations

from ..base.errors import BadInput
from ..base.timing import Budget
from ..services.application import Application
from ..services.entra import Answer
from ..services.graph import Graph
from ..services.vault import Vault, VaultRecord
from .deciding import Published, hint_of, other_records
from .proving import FRESH, Proving
from .publishing import FIELD_KEY_ID, FIELD_SECRET


class Evidence:
    """The looks of one run at one record and one application; none that is used is older than ``FRESH`` seconds.

    ``others`` are the records that secrets of the application were made for: they are read along with the record.
    """

    def __init__(
        self, vault: Vault, record: VaultRecord, graph: Graph, application: Application, budget: Budget
    ) -> None:
        self._vault, self._record, self._graph, self._application = vault, record, graph, application
        self._budget = budget
        self._record_at = self._list_at = float("-inf")
        self._listed, self._is_new = application, False
        self.others: dict[str, Published | None] = {}

    def record(self) -> VaultRecord:
        """Return the record. Raises BadInput where it has gone, Refused, Stopped."""
        if self._budget.awake() - self._record_at > FRESH:
            uid = self._record.uid
            more = other_records((*self._application.credentials, *self._listed.credentials), uid)
            found = self._vault.read([uid, *more])
            if uid not in found:
                raise BadInput(
                    f"the record {uid} has gone meanwhile", todo="restore the record or its sharing, and run it again"
                )
            self._record, self._record_at = found[uid], self._vault.asked_at
            self.others = {other: published_in(found[other]) if other in found else None for other in more}
        return self._record

    def listed(self) -> Application:
        """Return the application as Graph lists it. Raises NotDone, RotationError, Stopped."""
        if self._budget.awake() - self._list_at > FRESH:
            self._listed = self._graph.read(self._application)
            self._list_at, self._is_new = self._graph.asked_at, True
            unread = set(other_records(self._listed.credentials, self._record.uid)) - set(self.others)
            if unread:
                self._record_at = float("-inf")
        return self._listed

    def last_listed(self) -> Application:
        """Return what the last list has shown, however old."""
        return self._listed

    def list_is_new(self) -> bool:
        """Whether the last list was not asked about by this yet."""
        is_new, self._is_new = self._is_new, False
        return is_new

    @staticmethod
    def taken(proving: Proving) -> Answer:
        """Return what the sign-in says of the secret; always yes where there are no sign-ins. Raises Stopped."""
        if proving.taken_within(FRESH):
            return Answer.TAKEN
        return proving.sign_in().answer

    def fresh_until(self, *more: float) -> float:
        """Return when (of the budget's ``awake``) the record, the list or one of ``more`` is too old to go by."""
        return min(self._record_at + FRESH, self._list_at + FRESH, *more)

    def forget(self) -> None:
        """Let everything be looked at again."""
        self._record_at = self._list_at = float("-inf")

    def forget_list(self) -> None:
        """Let the list be looked at again."""
        self._list_at = float("-inf")


def published_in(record: VaultRecord) -> Published:
    """Return what a record shows."""
    secret = record.secret(FIELD_SECRET)
    return Published(record.uid, record.value(FIELD_KEY_ID), hint_of(secret), record.editable, record.value("expires"))
