# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rotation of one application: create, prove, publish, retire; and the way back from every step.

The order is what keeps the vault's secret valid at every instant: nothing is stored before it is seen to sign in, and
nothing is removed before its successor is read back from the vault. What cannot be known is never guessed: a secret
whose save may still take effect is not removed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ..base.errors import BadInput, Incomplete, Orphan, OutOfTime, Refused, RolledBack, RotationError, Stopped
from ..base.redact import Log, Secret, scrub_all
from ..base.timing import MAKE_ROOM, RESOLVE, UNDO, Budget
from ..services.application import Credential
from ..services.entra import Entra, Proof
from ..services.graph import Graph, NotDone
from ..services.http import Http, pause_before
from ..services.vault import Vault, VaultRecord
from .identity import Sources, admin_hints, choose
from .making import Making
from .plan import FINISH, NOTHING, Kept, Plan, Policy, Published, marker, plan, sort_out, unlisted
from .publishing import (
    FIELD_APPLICATION,
    FIELD_EXPIRES,
    FIELD_KEY_ID,
    FIELD_SECRET,
    Publishing,
    Shown,
    check_fields,
)
from .retiring import Retiring

# A secret that was published before needs no time to spread.
_SECONDS_FOR_KNOWN = 10


@dataclass
class Outcome:
    """How a rotation ended. ``facts`` hold no secret."""

    status: str
    exit_status: int
    message: str
    changed: bool
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the machine-readable form."""
        outcome = {"status": self.status, "changed": self.changed, "message": self.message, **self.facts}
        scrubbed: dict[str, Any] = scrub_all(outcome)
        return scrubbed


@dataclass(frozen=True)
class Task:
    """What to rotate. ``application`` overrides the record's own field; empty means the record's."""

    vault: Vault
    record: VaultRecord
    sources: Sources
    policy: Policy
    application: str = ""


def perform(prepare: Callable[[], Task], http: Http, budget: Budget, log: Log, check: bool = False) -> Outcome:
    """Rotate, or with ``check`` only say what would be done; return how it ended. It raises none of RotationError.

    ``prepare`` reads whatever names the task; nothing changes while it runs.
    """
    facts: dict[str, Any] = {}
    try:
        try:
            with budget.phase("resolve the application", RESOLVE):
                rotation = Rotation(prepare(), http, budget, log, facts)
        except Stopped as stop:
            raise Refused("nothing was changed", str(stop), "run it again") from None
        return rotation.describe() if check else _to_the_end(rotation, budget)
    except RotationError as problem:
        log.say(problem.message)
        facts.update(problem.facts)
        changed = isinstance(problem, (Incomplete, Orphan))
        return Outcome(problem.status, problem.exit_status, problem.message, changed, facts)


def _to_the_end(rotation: Rotation, budget: Budget) -> Outcome:
    try:
        try:
            return rotation.run()
        except (Exception, Stopped) as failure:
            budget.shield()
            return rotation.end(failure)
    except Stopped as stop:  # the one signal that is let through came before the shield was up
        budget.shield()
        return rotation.end(stop)


class Rotation:
    """One run. Making the object resolves everything and plans; it changes nothing. Raises BadInput, Refused."""

    def __init__(self, task: Task, http: Http, budget: Budget, log: Log, facts: dict[str, Any]) -> None:
        self._vault, self._record, self._policy = task.vault, task.record, task.policy
        self._budget, self._log, self._facts = budget, log, facts
        facts["record"] = self._record.uid
        self._identity, cloud = choose(task.sources)
        check_fields(self._record, bool(task.application))
        identifier = task.application or self._record.value(FIELD_APPLICATION)
        self._follow = not task.application
        self._entra = Entra(http, cloud, self._identity.tenant_id, budget, log)
        self._graph = Graph(http, cloud.graph, self._identity.client_id, self._sign_in, log)
        admin = self._identity.client_id.strip().lower()
        app = self._graph.find(identifier, client_id_first=identifier.strip().lower() == admin)
        if self._identity.record_uid == self._record.uid and app.client_id != admin:
            raise BadInput(
                f"the record {self._record.uid} holds an admin application's credential, but names another application",
                "its client_secret would be overwritten",
                "remove application_client_id from it, and attach the admin application's own record",
            )
        self._application = app
        facts["application"] = {
            "display_name": app.display_name,
            "object_id": app.object_id,
            "client_id": app.client_id,
        }
        secret = self._record.value(FIELD_SECRET)
        key_id, expires = self._record.value(FIELD_KEY_ID), self._record.value(FIELD_EXPIRES)
        self._published = Published(self._record.uid, key_id, secret[:3], self._record.editable, expires)
        facts.update(previous_key_id=key_id, previous_expires=expires)
        facts["secrets_before"] = {item.key_id: item.end_text for item in app.credentials}
        self._admin_hints = admin_hints(task.sources, app.client_id)
        self._plan: Plan = plan(self._policy, self._published, app, self._admin_hints)
        if self._record.shows(FIELD_SECRET):
            log.say(f"the field {FIELD_SECRET} is no Hidden field: everybody who opens the record sees the secret")
        log.say(f"{app.display_name} ({app.client_id}) has {len(app.credentials)} secret(s); {self._plan.reason}")
        self._making = Making(self._graph, app, marker(self._record.uid, uuid.uuid4().hex), budget, log)
        self._publishing: Publishing | None = None
        self._unlisted = unlisted(self._policy, self._published, app)
        self._retiring = Retiring(self._graph, app, self._unlisted, self._making, self._choose, budget, log)
        self._current: Credential | None = None  # what the vault shows and will show: ours, once it is published
        self._complete = False

    def describe(self) -> Outcome:
        """Say what would be done."""
        todo, name = self._plan, self._application.display_name
        self._facts["kept"] = _as_facts(todo.keep)
        self._facts["would_remove"] = [item.key_id for item in todo.make_room + todo.retire]
        if todo.action == NOTHING:
            return self._unchanged()
        verb = "would be rotated" if todo.action != FINISH else "needs no new secret, but would be cleaned up"
        text = f"{name} {verb}: {todo.reason}; old secrets that would be removed: {len(self._facts['would_remove'])}."
        self._log.say(text)
        self._facts["expires"] = todo.end.strftime("%Y-%m-%dT%H:%M:%SZ") if todo.action != FINISH else ""
        return Outcome("planned", 0, text, True, self._facts)

    def run(self) -> Outcome:
        """Carry the plan out. Whatever it raises is to be handed to ``end``."""
        if self._plan.action == NOTHING:
            return self._unchanged()
        if self._plan.action == FINISH and self._published_signs_in():
            self._current = self._application.credential(self._published.key_id)
        else:
            self._make_room()
            new, secret = self._making.make(self._plan.end)
            self._prove(secret, self._policy.verify_timeout)
            self._publishing = Publishing(
                self._vault, self._record, new, secret, follow=self._follow, budget=self._budget, log=self._log
            )
            self._publishing.publish()
            self._current = new
            if self._identity.record_uid == self._record.uid:
                # A token may have to be fetched again after the secret that it came from is removed.
                self._identity = replace(self._identity, secret=secret)
        self._retiring.retire()
        self._complete = True
        self._budget.shield()
        return self._rotated()

    def end(self, failure: BaseException) -> Outcome:
        """Undo what ``run`` has left half done, as far as that is certain to be safe.

        Raises one of RotationError, which tells the truth about what remains.
        """
        if self._complete:
            return self._rotated()
        if self._current is not None:
            remaining = self._retiring.remaining()
            if remaining == []:
                return self._rotated()
            raise self._incomplete(self._current, failure, remaining) from None
        raise self._undo(failure) from None

    def _rotated(self) -> Outcome:
        new = self._current
        key_id, end = (new.key_id, new.end_text) if new else ("", "")
        self._facts.update(key_id=key_id, expires=end, removed=self._making.removed)
        self._facts["kept"] = _as_facts(self._retiring.kept)
        did = "was rotated" if self._plan.action != FINISH else "needed no new secret and was cleaned up"
        removed = len(self._making.removed)
        name = self._application.display_name
        text = f"{name} {did}: its secret {key_id} is valid until {end}, {removed} old removed."
        self._log.say(text)
        return Outcome("rotated", 0, text, True, self._facts)

    # -- before anything changes

    def _sign_in(self) -> Secret:
        return self._entra.token(self._identity)

    def _unchanged(self) -> Outcome:
        self._facts["kept"] = _as_facts(self._plan.keep)
        current = self._application.credential(self._published.key_id)
        self._facts.update(key_id=self._published.key_id, expires=current.end_text if current else "")
        text = f"{self._application.display_name} needs no rotation: {self._plan.reason}."
        self._log.say(text)
        return Outcome("unchanged", 0, text, False, self._facts)

    # -- forward

    def _make_room(self) -> None:
        for item in self._plan.make_room:
            self._log.say(f"removing the secret {item.key_id} that an interrupted run left, to make room")
            try:
                with self._budget.phase("make room for a new secret", MAKE_ROOM):
                    self._graph.remove_password(self._application, item.key_id)
            except NotDone as problem:
                raise Refused("no room could be made for a new secret", problem.why, problem.todo) from None
            self._making.removed.append(item.key_id)

    def _published_signs_in(self) -> bool:
        """Whether the vault's secret signs in; where it does not, plan a rotation in place of the clean-up."""
        try:
            self._prove(Secret(self._record.secret(FIELD_SECRET)), min(_SECONDS_FOR_KNOWN, self._policy.verify_timeout))
        except RolledBack as problem:
            self._log.say(f"the vault's secret does not sign in, so it is rotated: {problem.why}")
            always = replace(self._policy, rotate="always")
            self._plan = plan(always, self._published, self._application, self._admin_hints)
            return False
        return True

    def _prove(self, secret: Secret, limit: int) -> None:
        if not self._policy.verify:
            self._log.say("not proving that the secret signs in (verify is false)")
            self._facts["verified"] = False
            return
        name, why = self._application.display_name, "no answer"
        try:
            with self._budget.phase("prove the secret", limit):
                for attempt in range(1, 1000):
                    proof, why = self._entra.prove(self._application.client_id, secret)
                    if proof is Proof.SIGNED_IN:
                        self._log.say("the secret signs in")
                        self._facts["verified"] = True
                        return
                    if proof is Proof.NEVER:
                        raise RolledBack(
                            f"{name} cannot sign in with its new secret",
                            why,
                            "remove the cause, or set verify to false if it cannot sign in from this host",
                        )
                    if attempt == 1:
                        self._log.say(f"the secret does not sign in yet, waiting up to {limit} s: {why}")
                    # The last attempt is made shortly before the time is over.
                    self._budget.pause(min(pause_before(min(attempt, 4) + 1), self._budget.left() - 0.5))
        except OutOfTime:
            pass
        raise RolledBack(
            f"the new secret of {name} did not sign in within {limit} s", why, "run it again, or raise verify_timeout"
        )

    def _choose(self, listed: Sequence[Credential], now: datetime) -> tuple[list[Credential], list[Kept]]:
        seen_before = self._application.credentials if self._plan.action != FINISH else ()
        before = [item.key_id for item in (*seen_before, *self._unlisted)]
        return sort_out(self._policy, self._published, listed, self._current, before, self._admin_hints, now)

    # -- back

    def _incomplete(self, new: Credential, why: BaseException, remaining: list[str] | None) -> Incomplete:
        removed = self._making.removed
        if remaining is None:
            remaining = [item.key_id for item in self._plan.retire if item.key_id not in removed]
        todo = why.todo if isinstance(why, (NotDone, RotationError)) else ""
        return Incomplete(
            f"{self._application.display_name} has the secret {new.key_id} in the vault, which is valid, but old "
            f"secrets may remain ({', '.join(remaining) or 'not counted'})",
            _why(why),
            (todo + ", then " if todo else "") + "run it again; the next run removes them",
            key_id=new.key_id,
            expires=new.end_text,
            removed=removed,
            remaining=remaining,
        )

    def _undo(self, failure: BaseException) -> RotationError:
        name, making = self._application.display_name, self._making
        wanted = failure if isinstance(failure, RotationError) else None
        unchanged = wanted or Refused(f"{name} was not rotated, nothing was changed", _why(failure), "run it again")
        if not making.tried:
            return unchanged
        if making.made is not None:
            self._log.say("undoing: " + _why(failure))
        removed: bool | None = False
        shown = Shown.ANOTHER
        try:
            with self._budget.phase("undo", UNDO):
                if self._publishing is not None and self._publishing.in_doubt():
                    shown = Shown.OURS if self._publishing.confirmed else Shown.UNKNOWN  # as long as no look says more
                    shown = self._publishing.shown()
                if shown is Shown.ANOTHER:
                    removed = making.undo()
        except (Exception, Stopped) as problem:
            self._log.say(f"undoing did not succeed: {_why(problem)}")
        if shown is Shown.OURS and making.made is not None:
            return self._incomplete(making.made[0], failure, None)
        if shown is Shown.UNKNOWN:
            return self._orphan(failure, "the vault may show it, so that it was left in place")
        if removed is False:
            return self._orphan(failure, "it could not be removed")
        if removed is None:
            return unchanged
        todo = wanted.todo if wanted else "run it again"
        return RolledBack(f"{name} was not rotated, the new secret was removed again", _why(failure), todo)

    def _orphan(self, failure: BaseException, why: str) -> Orphan:
        name = self._making.display_name
        key_ids = list(self._making.left)
        named = f"secret {', '.join(key_ids)}" if key_ids else f"secret named {name}, if it was made at all,"
        return Orphan(
            f"{self._application.display_name} may have kept the new {named} beside its old ones, which still work",
            f"{_why(failure)}; {why}",
            "run it again, the next run removes it; or remove it in Entra if the record does not show its id",
            orphans=key_ids,
            marker=name,
        )


def _as_facts(kept: Sequence[Kept]) -> list[dict[str, str]]:
    return [{"key_id": item.key_id, "reason": item.reason} for item in kept]


def _why(failure: BaseException) -> str:
    if isinstance(failure, RotationError):
        return failure.what + (": " + failure.why if failure.why else "")
    if isinstance(failure, (Stopped, NotDone)):
        return str(failure)
    return f"unexpected {type(failure).__name__}: {failure}"
