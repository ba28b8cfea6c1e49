# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The new secret at Graph: made once, found again where the answer was lost, and removed where it has to be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import IntEnum

from ..base.errors import Refused
from ..base.redact import Log, Secret
from ..base.timing import CREATE, Budget
from ..services.application import Application, Credential
from ..services.graph import ADD, Graph, NotDone
from ..services.http import pause_before

# How long Graph is watched for a secret whose making was not answered, and for one that it says it does not know.
_LOOK = (0.0, 1.0, 2.0, 4.0)
_SETTLE = 8.0
_MAKES = 4


class _Doubt(IntEnum):
    """Whether Graph may hold a secret of this run whose value is lost."""

    NONE = 0
    ANSWERED_NO = 1
    UNANSWERED = 2


class Full(Exception):
    """The application holds as many secrets as it may."""


class Making:
    """The secrets that one run makes, known by ``display_name``, which no other run has."""

    def __init__(self, graph: Graph, application: Application, display_name: str, budget: Budget, log: Log) -> None:
        self._graph, self._application, self.display_name = graph, application, display_name
        self._budget, self._log = budget, log
        self._doubt = _Doubt.NONE
        self._left = CREATE
        self.tried = False
        self._undone: list[str] = []
        self.made: tuple[Credential, Secret] | None = None
        self.removed: list[str] = []
        self._open: dict[str, Credential] = {}  # removals of others that were not answered
        self.left: list[str] = []  # after undo has failed

    def make(self, end: datetime) -> tuple[Credential, Secret]:
        """Make one secret that is valid until ``end``. Raises Refused, Full, Stopped.

        addPassword is not idempotent: before it is repeated, what an unanswered attempt may have made is removed.
        """
        began = self._budget.spent()
        try:
            with self._budget.phase("create a secret", self._left):
                return self._make(end)
        finally:
            self._left = max(1.0, self._left - (self._budget.spent() - began))

    def _make(self, end: datetime) -> tuple[Credential, Secret]:
        name = self._application.display_name
        for attempt in range(1, _MAKES + 1):
            self._graph.await_turn(ADD)
            self.tried, before, self._doubt = True, self._doubt, _Doubt.UNANSWERED
            try:
                self.made = self._graph.add_password(self._application, self.display_name, end)
                self.left = [self.made[0].key_id]
            except NotDone as problem:
                failed = Refused(f"no new secret could be made for {name}", problem.why, problem.todo)
                if problem.certain or problem.busy:
                    self._doubt = max(before, _Doubt.ANSWERED_NO if problem.status else _Doubt.NONE)
                if problem.full:
                    raise Full from None
                if problem.certain:
                    raise failed from None
                self._log.say(f"making a secret was not confirmed: {problem.why}")
                pause = pause_before(attempt + 1, problem.wait)
                if attempt == _MAKES or pause >= self._budget.left():
                    raise failed from None
                self._budget.pause(pause)
                self._remove_unanswered()
            else:
                self._doubt = before
                key_id = self.made[0].key_id
                self._log.say(f"made the secret {key_id}, valid until {self.made[0].end_text}")
                return self.made
        raise AssertionError("unreachable")

    def _remove_unanswered(self) -> None:
        """Remove secrets of this run whose value is lost; whatever cannot be removed now is tried again later."""
        try:
            for item in self.look():
                if self._graph.remove_password(self._application, item.key_id):
                    self._log.say(f"removed the secret {item.key_id}, whose value was lost on the way")
                    self.took_away(item)
        except NotDone as problem:
            self._log.say(f"what was made without an answer is not removed yet: {problem.why}")

    def old_removed(self) -> list[str]:
        """Return the key ids of the removed secrets that this run has not made."""
        return [key_id for key_id in self.removed if key_id not in self._undone]

    def took_away(self, item: Credential) -> None:
        """Note that a secret was removed."""
        if item.key_id not in self.removed:
            self.removed.append(item.key_id)
        if item.display_name == self.display_name:
            self._undone.append(item.key_id)

    def remove_old(self, item: Credential) -> bool:
        """Remove a secret that this run has not made; return False where Graph knows none. Raises NotDone, Stopped."""
        was_open = item.key_id in self._open
        self._open[item.key_id] = item
        try:
            known = self._graph.remove_password(self._application, item.key_id)
        except NotDone as problem:
            if problem.certain and not was_open:
                del self._open[item.key_id]
            raise
        if known:
            self.took_away(item)
        if known or not was_open:
            del self._open[item.key_id]
        return known

    def is_gone(self, key_id: str) -> bool:
        """Note that a secret is gone; return whether a removal of this run, which was not answered, has done that."""
        item = self._open.get(key_id)
        if item is not None:
            self.took_away(item)
            del self._open[key_id]
            self._log.say(f"removed the secret {key_id}, although that was not answered")
        return item is not None

    def see(self, listed: Application) -> bool:
        """Note which of the removals that were not answered have been done; return whether any has."""
        gone = [key_id for key_id in self._open if not listed.credential(key_id)]
        for key_id in gone:
            self.is_gone(key_id)
        return bool(gone)

    def see_what_was_removed(self) -> None:
        """Look once at what became of the removals that were not answered. Raises Stopped."""
        if self._open:
            try:
                self.see(self._graph.read(self._application))
            except NotDone as problem:
                self._log.detail(f"what was removed is not known: {problem}")

    def unanswered(self) -> bool:
        """Whether Graph may hold a secret of this run that has not shown yet."""
        return self._doubt is _Doubt.UNANSWERED

    def look(self) -> list[Credential]:
        """Return this run's secrets other than the one in hand.

        Where making one was not answered, watch Graph for some seconds, as reads lag behind writes. Raises NotDone.
        """
        key_id = self.made[0].key_id if self.made else ""
        for pause in _LOOK if self.unanswered() else _LOOK[:1]:
            if pause >= self._budget.left():
                break
            if pause:
                self._budget.pause(pause)
            seen = self._graph.read(self._application)
            self.see(seen)
            found = [item for item in seen.credentials if item.display_name == self.display_name]
            found = [item for item in found if item.key_id not in (key_id, *self.removed)]
            if found:
                return found
        return []

    def undo(self) -> bool | None:
        """Remove what this run made; return whether all of it is gone, None where nothing was found. Raises Stopped."""
        found = [self.made[0].key_id] if self.made else []
        try:
            found += [item.key_id for item in self.look()] if self._doubt is not _Doubt.NONE else []
            self.left = list(found)
            for key_id in found:
                self.remove_surely(key_id)
                self.left.remove(key_id)
                self._undone.append(key_id)
                self._log.say(f"removed the new secret {key_id}")
        except NotDone as problem:
            self._log.say(f"removing what was made did not succeed: {problem.why}")
            # Graph has refused to make one, and no look can be had at what it has: its word counts.
            return None if not found and self._doubt is _Doubt.ANSWERED_NO and not self._undone else False
        return True if self._undone else None

    def remove_surely(self, key_id: str) -> bool:
        """Remove a secret that was made moments ago; return False where it is gone already. Raises NotDone, Stopped.

        Graph says that it does not know such a secret as long as the replica asked has not seen it: only when it
        stays unseen for some seconds is it gone.
        """
        attempt = 1
        unseen_from: float | None = None  # as the time that was left when it was first seen to be absent
        while True:
            attempt += 1
            if _unless_busy(lambda: self._graph.remove_password(self._application, key_id)):
                return True
            self._budget.pause(pause_before(min(attempt, 4)))
            seen = _unless_busy(lambda: self._graph.read(self._application).credential(key_id) is not None)
            if seen:
                unseen_from = None
            elif seen is not None and unseen_from is None:
                unseen_from = self._budget.left()
            elif seen is not None and unseen_from is not None and unseen_from - self._budget.left() >= _SETTLE:
                return False


def _unless_busy(call: Callable[[], bool]) -> bool | None:
    """Return what the call does; None where Graph cannot answer now. Raises NotDone where it refuses."""
    try:
        return call()
    except NotDone as problem:
        if problem.certain:
            raise
        return None
