# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The new secret in the vault: published where nobody was faster, and never in doubt afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ..base.errors import BadInput, OutOfTime, Refused, RolledBack, RotationError
from ..base.redact import Log, Secret
from ..base.timing import PUBLISH, Budget
from ..services.application import Credential
from ..services.http import pause_before
from ..services.vault import NotSaved, Vault, VaultRecord

FIELD_APPLICATION, FIELD_SECRET = "application_object_id", "client_secret"
FIELD_KEY_ID, FIELD_EXPIRES = "client_secret_id", "expires"
# Every field of a record that tells the rotation something.
LABELS = (
    FIELD_APPLICATION,
    FIELD_SECRET,
    FIELD_KEY_ID,
    FIELD_EXPIRES,
    "tenant_id",
    "application_client_id",
    "lifetime_days",
    "keep_previous",
    "retire",
    "retire_after",
    "adopt",
    "verify",
    "verify_timeout",
)
_SAVES = 7


class Shown(Enum):
    """Whose secret the vault shows."""

    OURS = 1
    ANOTHER = 2
    UNKNOWN = 3


@dataclass
class _Save:
    """A save that may have taken effect, or may do so later."""

    revision: int
    answered_no: bool = False


class Publishing:
    """One new secret on its way into one record. ``follow`` is whether the record names the application.

    ``look`` makes sure before a save that nobody has taken the secret away (its argument: whether a save was out of
    sync before); it raises RolledBack where it is not listed, or not taken by a sign-in, and returns until when (of the
    budget's ``awake``) the secret may be saved on that.
    """

    def __init__(
        self,
        vault: Vault,
        record: VaultRecord,
        new: Credential,
        secret: Secret,
        *,
        follow: bool,
        look: Callable[[bool], float],
        budget: Budget,
        log: Log,
    ) -> None:
        self._vault, self._record, self._new, self._secret = vault, record, new, secret
        self._follow, self._look, self._budget, self._log = follow, look, budget, log
        self._saves: list[_Save] = []
        self.confirmed = False  # Keeper has said that it took a save, and nothing has been seen that says otherwise

    def publish(self) -> None:
        """Save the three fields where nobody was faster. Raises RolledBack, Refused, Stopped.

        A save that Keeper confirms is not read back here: that is the first look of what comes after it.
        """
        problems: list[NotSaved] = []
        why, todo, over = "it changes all the time", "run it again", ""
        try:
            with self._budget.phase("publish the secret", PUBLISH):
                if self._publish(problems):
                    return
        except OutOfTime as end:
            why = over = str(end)
        if problems and not problems[-1].conflict:
            why, todo = problems[-1].why + (f"; {over}" if over else ""), problems[-1].todo
        raise RolledBack(f"the record {self._record.uid} was not saved", why, todo)

    def _publish(self, problems: list[NotSaved]) -> bool:
        """Return whether the record shows the new secret; ``problems`` takes what was in the way."""
        current, conflict = self._record, False
        for attempt in range(1, _SAVES + 1):
            self._vault.await_turn()
            until = self._look(conflict)
            with self._budget.good_until(until):
                problem = self._save(current.with_values(self._values(), (FIELD_SECRET,)))
            if problem is None:
                self._log.say(f"published in the record {current.title!r} ({current.uid})")
                return True
            problems.append(problem)
            self._say(problem)
            conflict = conflict or problem.conflict
            if problem.wait:
                self._budget.pause(problem.wait)
            if not problem.sent and self._budget.awake() >= until:
                continue
            if not problem.sent:
                raise RolledBack("Keeper was not reached", problem.why, "check the network and run it again")
            before, current = current, self._reread()
            if self.shows_ours(current):
                self._log.say(f"published in the record {current.title!r} ({current.uid})")
                return True
            self._settle_saves(current)
            self._stand_back(before, current)
            if problem.certain and not problem.conflict and not problem.wait:
                raise RolledBack(f"the record {current.uid} could not be saved", problem.why, problem.todo)
            self._budget.pause(pause_before(attempt + 1))
        return False

    def _values(self) -> dict[str, str]:
        new = self._new
        return {FIELD_SECRET: self._secret.reveal(), FIELD_KEY_ID: new.key_id, FIELD_EXPIRES: new.end_text}

    def put_back(self) -> bool:
        """Let the record show what it showed before, while it shows ours; return whether it does. Raises Stopped.

        The record is read before each save, which Keeper takes only at the revision that was read.
        """
        before = {label: self._record.secret(label) for label in (FIELD_SECRET, FIELD_KEY_ID, FIELD_EXPIRES)}
        with self._budget.phase("put the former secret back", PUBLISH):
            for attempt in range(1, _SAVES + 2):  # the last one is but a look at what became of the last save
                current = self._reread()
                if current.secret(FIELD_SECRET) == before[FIELD_SECRET]:
                    return True
                if not self.shows_ours(current) or attempt > _SAVES:
                    return False
                try:
                    self._vault.save(current.with_values(before, (FIELD_SECRET,)))
                except NotSaved as problem:
                    self._say(problem)
                    self._budget.pause(problem.wait or pause_before(attempt + 1))
                else:
                    return True
        return False

    def in_doubt(self) -> bool:
        """Whether a save has taken effect, or may."""
        return bool(self._saves)

    def shown(self) -> Shown:
        """Find out whether our secret is published, for good. Raises Stopped."""
        for attempt in range(1, 5):
            try:
                current = self._reread()
            except RotationError as problem:
                self._log.say(problem.message)
                if self.confirmed:
                    return Shown.OURS
                return Shown.ANOTHER if isinstance(problem, RolledBack) and not self._saves else Shown.UNKNOWN
            if self.shows_ours(current):
                return Shown.OURS
            self._settle_saves(current)
            if not self._saves:
                return Shown.ANOTHER
            # A save is under way that was never answered. Saving the record as it is moves its revision on, and the
            # late save can then no longer take effect.
            self._log.say("making sure that no late save changes the record")
            try:
                self._vault.save(current)
            except NotSaved as problem:
                self._say(problem)
                self._budget.pause(problem.wait or pause_before(attempt + 1))
        return Shown.UNKNOWN

    def _say(self, problem: NotSaved) -> None:
        unsure = problem.sent and not problem.certain
        self._log.say(f"the save was not {'confirmed' if unsure else 'made'}: {problem.why}; reading the record")

    def _save(self, record: VaultRecord) -> NotSaved | None:
        attempt = _Save(record.revision)
        self._saves.append(attempt)
        try:
            self._vault.save(record)
        except NotSaved as problem:
            attempt.answered_no = problem.certain
            if not problem.sent:
                self._saves.remove(attempt)
            return problem
        self.confirmed = True
        return None

    def _reread(self) -> VaultRecord:
        uid = self._record.uid
        record = self._vault.read([uid]).get(uid)
        if record is None:
            # It may show to others what this application cannot see any more.
            self._saves = [save for save in self._saves if not save.answered_no]
            raise RolledBack(
                f"the record {uid} has gone while it was rotated",
                "it was removed, or is no longer shared with the KSM application",
                "restore the record or its sharing and run it again",
            )
        return record

    def shows_ours(self, record: VaultRecord) -> bool:
        """Whether this reading of the record shows the new secret."""
        same_id = record.value(FIELD_KEY_ID).lower() == self._new.key_id
        return same_id and record.secret(FIELD_SECRET) == self._secret.reveal()

    def _settle_saves(self, record: VaultRecord) -> None:
        """Forget the saves that can no longer take effect, now that ``record`` was read and does not show them: Keeper
        has answered no to them, or they carry a revision that has passed."""
        self._saves = [save for save in self._saves if not save.answered_no and save.revision >= record.revision]
        self.confirmed = self.confirmed and bool(self._saves)

    def _stand_back(self, before: VaultRecord, record: VaultRecord) -> None:
        if record.revision != before.revision and record.data == before.data:
            # See fence(): that run may remove our secret after any look of ours.
            raise RolledBack(
                f"another run has saved the record {record.uid} as it is",
                "it takes this run for an interrupted one, and this run stands back",
                "nothing, if another rotation was under way",
            )
        if record.secret(FIELD_SECRET) != self._record.secret(FIELD_SECRET):
            raise RolledBack(
                f"somebody else published a secret in the record {record.uid} meanwhile",
                "this run stands back",
                "nothing, if it was another rotation",
            )
        same = record.value(FIELD_APPLICATION).lower() == self._record.value(FIELD_APPLICATION).lower()
        if self._follow and not same:
            raise RolledBack(f"the record {record.uid} names another application now", todo="run it again")


def fence(vault: Vault, record: VaultRecord, budget: Budget, log: Log) -> VaultRecord:
    """Save the record as it is, and return it as it is read then: a run that is about to save what it read before meets
    "out of sync" from now on, and stands back. Raises Refused where it shows another secret by now, or cannot be saved;
    Stopped.
    """
    log.say("saving the record as it is, so that no interrupted run can publish any more")
    current, problem = record, None
    for attempt in range(1, _SAVES + 1):
        try:
            vault.save(current)
        except NotSaved as failure:
            problem = failure
            log.say(f"the save was not confirmed: {problem.why}")
            if problem.certain and not problem.conflict and not problem.wait:
                break
            budget.pause(problem.wait or pause_before(attempt + 1))
        revision = current.revision
        found = vault.read([record.uid]).get(record.uid)
        if found is None or found.secret(FIELD_SECRET) != record.secret(FIELD_SECRET):
            raise Refused(
                f"the record {record.uid} has changed meanwhile", "another rotation may be under way", "run it again"
            )
        current = found
        # Whoever has saved it: what was read before cannot be saved any more.
        if problem is None or current.revision > revision:
            return current
        problem = None
    why, todo = (problem.why, problem.todo) if problem else ("it changes all the time", "run it again")
    raise Refused(f"the record {record.uid} could not be saved", why, todo)


def check_fields(record: VaultRecord, named: bool) -> None:
    """Raise BadInput where the fields cannot be used; ``named`` is whether the application is named elsewhere."""

    def unusable(why: str, todo: str) -> BadInput:
        return BadInput(f"the record {record.title!r} ({record.uid}) cannot be used", why, todo)

    for label in LABELS:
        tied = record.tied(label)
        if tied:
            what = f"several of its fields match {label} equally well"
            raise unusable(f"{what}: {' and '.join(tied)}", "remove or rename all but one of them")
    for label in (FIELD_APPLICATION, FIELD_SECRET, FIELD_KEY_ID, FIELD_EXPIRES):
        kind = record.unusable(label)
        if kind:
            raise unusable(f"its field {label} is of type {kind}", "change the field to Text (Hidden for secrets)")
    if not named and not record.value(FIELD_APPLICATION):
        raise unusable(
            f"it has no {FIELD_APPLICATION}", "enter the application's Object ID there (the client id will do)"
        )
