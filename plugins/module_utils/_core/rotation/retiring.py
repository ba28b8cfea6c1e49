# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The old secrets at Graph: removed once their successor is published, as far as they may be, on fresh evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..base.errors import OutOfTime, RotationError, Stopped
from ..base.redact import Log
from ..base.timing import REVIEW, SOON, Budget
from ..services.application import Application, Credential, guid
from ..services.entra import Answer
from ..services.graph import REMOVE, Graph, NotDone
from ..services.vault import VaultRecord
from .deciding import Sorted
from .evidence import Evidence
from .making import Making
from .proving import Proving
from .publishing import FIELD_KEY_ID

# What stays unseen for so many seconds, in so many looks at least, is gone.
_UNSEEN = 8.0
_UNSEEN_LOOKS = 3
_LOOK_PAUSE = 2.0


class Gone(Exception):
    """The secret that the record shows was taken away."""


class Superseded(Exception):
    """A later run of this record has published its secret, ``key_id``, and cleans up."""

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id


class TakenOver(Exception):
    """The record shows neither our secret nor that of a later run."""


class Unsure(Exception):
    """One look says that the new secret is there, another that it is not."""


@dataclass
class _Unseen:
    """Since when something was not seen, and in how many looks."""

    since: float
    looks: int = 0

    def is_gone(self, now: float) -> bool:
        """Count one more look without it; whether that is enough."""
        self.looks += 1
        return self.looks >= _UNSEEN_LOOKS and now - self.since >= _UNSEEN


class Retiring:
    """The removal of one application's old secrets beside ``new``, the one that stays.

    ``shows_new`` tells of a reading of the record whether it shows that one, ``is_ours`` of a secret whether it was
    made for this record; ``sort`` decides about secrets, ``now`` is Graph's time. ``unlisted`` are secrets that Graph
    may not list yet.
    """

    def __init__(
        self,
        *,
        graph: Graph,
        application: Application,
        unlisted: tuple[Credential, ...],
        new: Credential,
        evidence: Evidence,
        proving: Proving,
        making: Making,
        shows_new: Callable[[VaultRecord], bool],
        is_ours: Callable[[Credential], bool],
        sort: Callable[[list[Credential]], Sorted],
        now: Callable[[], datetime],
        budget: Budget,
        log: Log,
    ) -> None:
        self._graph, self._application, self._unlisted, self._new = graph, application, unlisted, new
        self._evidence, self._proving, self._making = evidence, proving, making
        self._shows_new, self._is_ours, self._sort, self._now = shows_new, is_ours, sort, now
        self._budget, self._log = budget, log
        self._late: list[Credential] = []
        self._watched: dict[str, _Unseen] = {}
        self._gone: set[str] = set()
        self._refused: dict[str, NotDone] = {}
        self.sent: set[str] = set()  # key ids whose removal was asked for

    # -- what there is to do

    def outlook(self) -> Sorted:
        """Decide about all that is known: reads lag behind writes, and what any list shows is there, or was."""
        lists = (
            *self._unlisted,
            *self._application.credentials,
            *self._evidence.last_listed().credentials,
            *self._late,
        )
        away = {*self._making.removed, *self._gone}
        return self._sort([item for item in lists if item.key_id not in away])

    def _todo(self) -> list[Credential]:
        return [item for item in self.outlook().due(self._now()) if item.key_id not in self._refused]

    def new_is_listed(self) -> bool | None:
        """Look at the list once more; None where Graph does not tell. Raises RotationError, Stopped."""
        self._evidence.forget_list()
        try:
            return self._evidence.listed().credential(self._new.key_id) is not None
        except NotDone:
            return None

    def early(self) -> None:
        """Remove what is due before any wait: what earlier runs of this record have left. One look each, no waiting:
        what cannot be removed now goes at the end of the wait. Raises Gone, Superseded, TakenOver, RotationError."""
        if not [item for item in self._todo() if self._is_ours(item)]:
            return
        try:
            self._confirm(patient=False)
            for item in [item for item in self._todo() if self._is_ours(item)]:
                self._graph.await_turn(REMOVE)
                self._confirm(patient=False)
                self._remove(item)
        except (NotDone, Unsure) as problem:
            self._log.say(f"not removed before the wait: {problem}")

    def retire(self, seconds: float, not_before: datetime | None) -> None:
        """Remove what is due, within so many seconds, but not before the given time: what was waited for is due then.
        One that fails keeps no other from being removed.

        Raises NotDone for one that was not removed, Gone, Superseded, TakenOver, RotationError, Stopped.
        """
        problem: NotDone | None = None
        try:
            with self._budget.phase("remove the old secrets", seconds):
                self._late = self._making.look() if self._making.unanswered() else []
                while True:
                    self._confirm(patient=True)
                    todo = [item for item in self._todo() if item.key_id not in self._watched]
                    if not todo and not self._watched:
                        rest = (not_before - self._now()).total_seconds() if not_before else 0.0
                        if rest <= 0:
                            break
                        self._budget.pause(rest)
                        continue
                    problem = self._remove_all(todo) or problem
                    if self._todo():
                        self._budget.pause(min(_LOOK_PAUSE, max(0.1, self._budget.left() - 0.5)))
                        self._evidence.forget_list()
        except OutOfTime as end:
            raise problem or NotDone(str(end), certain=False) from None
        if self._refused:
            raise next(iter(self._refused.values()))

    def _remove_all(self, todo: list[Credential]) -> NotDone | None:
        problem = None
        for item in todo:
            self._graph.await_turn(REMOVE)
            self._confirm(patient=True)
            if item.key_id not in (one.key_id for one in self._todo()):
                continue
            try:
                self._remove(item)
            except NotDone as failure:
                problem = failure
                self._log.say(f"the secret {item.key_id} was not removed: {failure.why}")
                if failure.certain and failure.status:
                    self._refused[item.key_id] = failure
                elif failure.wait and failure.wait < self._budget.left():
                    self._budget.pause(failure.wait)
        return problem

    def _remove(self, item: Credential) -> None:
        was_sent = item.key_id in self.sent
        self.sent.add(item.key_id)
        try:
            with self._budget.good_until(self._evidence.fresh_until(self._proving.fresh_until())):
                was_known = self._making.remove_old(item)
        except NotDone as problem:
            if problem.certain and not problem.status and not was_sent:
                self.sent.remove(item.key_id)  # Graph was not reached
            raise
        if was_known:
            self._log.say(f"removed the secret {item.key_id}")
        else:
            # One replica does not know it: it is gone, or that replica has not heard of it yet.
            self._watched[item.key_id] = _Unseen(self._budget.awake())
            self._evidence.forget_list()

    # -- the evidence for a removal

    def _confirm(self, patient: bool) -> None:
        """Make sure, on evidence that is fresh, that the record shows the new secret, and that it is there.

        Where one look says so and another does not, look again until the phase ends, or raise Unsure.
        """
        unseen: _Unseen | None = None
        while True:
            self._check_record()
            there, answer = self._look()
            # A list may have named further records to read.
            self._check_record()
            if there and answer is Answer.TAKEN:
                return
            if self._proving.verify and there is False and answer is Answer.REFUSED:
                unseen = unseen or _Unseen(self._budget.awake())
                if unseen.is_gone(self._budget.awake()):
                    raise Gone
            elif there or (answer is Answer.TAKEN and self._proving.verify):
                unseen = None
                if not self._todo():
                    return
            if not patient:
                raise Unsure(f"the new secret is {'' if there else 'not '}listed; sign-in: {answer.value}")
            self._look_again(there)

    def _look(self) -> tuple[bool | None, Answer]:
        """Return whether the new secret is listed (None: Graph does not tell), and what its sign-in says."""
        try:
            listed = self._evidence.listed()
        except NotDone as problem:
            self._log.detail(f"the list is not to be had: {problem}")
            there = None
        else:
            self._count_unseen(listed)
            found = listed.credential(self._new.key_id)
            there = found is not None and (found.end is None or found.end > self._now())
        return there, self._evidence.taken(self._proving)

    def _look_again(self, there: bool | None) -> None:
        pause = self._proving.last.wait or _LOOK_PAUSE
        if pause >= self._budget.left():
            if not self._proving.verify and there is False:
                raise Gone
            raise NotDone("the new secret is not seen everywhere yet", "run it again", certain=False)
        self._budget.pause(pause)
        self._evidence.forget_list()
        self._proving.forget()

    def _count_unseen(self, listed: Application) -> None:
        if self._evidence.list_is_new():
            for key_id, unseen in list(self._watched.items()):
                if listed.credential(key_id):
                    del self._watched[key_id]
                elif unseen.is_gone(self._budget.awake()):
                    del self._watched[key_id]
                    self._gone.add(key_id)
                    if not self._making.is_gone(key_id):
                        self._log.say(f"the secret {key_id} was gone already")

    def _check_record(self) -> None:
        record = self._evidence.record()
        if self._shows_new(record):
            return
        key_id = guid(record.value(FIELD_KEY_ID)) or ""
        first = {item.key_id for item in self._application.credentials}
        unseen = _Unseen(self._budget.awake())
        while True:
            found = self._evidence.listed().credential(key_id)
            if found is not None and self._is_ours(found) and key_id not in first:
                raise Superseded(key_id)
            if found is not None or not key_id or unseen.is_gone(self._budget.awake()):
                raise TakenOver
            self._budget.pause(_LOOK_PAUSE)
            self._evidence.forget_list()

    def remaining(self) -> list[str] | None:
        """Return the key ids that may be left after ``retire`` has failed; None where that is not to be had.

        A removal whose answer was lost has taken effect more often than not. What a replica did not know has not stayed
        unseen long enough.
        """
        if self._making.unanswered():
            return None
        try:
            with self._budget.phase("see what remains", REVIEW):
                fresh = self._graph.read(self._application)
        except (NotDone, RotationError, Stopped) as problem:
            self._log.detail(f"what remains is not known: {problem}")
            return None
        listed = {item.key_id for item in fresh.credentials}
        if self._new.key_id not in listed:
            return None  # the list is stale
        self._making.see(fresh)
        soon = self._now() + timedelta(seconds=SOON)
        due = [item.key_id for item in self._sort(list(fresh.credentials)).due(soon)]
        return due + [key_id for key_id in self._watched if key_id not in (*due, *self._making.removed)]
