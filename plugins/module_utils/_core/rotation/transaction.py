# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rotation of one application: create, prove, publish, settle, retire; and the way back from every step.

The order is what keeps the vault's secret valid at every instant: nothing is stored before it is seen to sign in, and
nothing is removed before its successor is seen again in the vault, in the list and at the sign-in. What cannot be known
is never guessed: a secret whose save may still take effect is not removed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import datetime, timedelta
from typing import Any, TypeVar

from ..base.errors import Incomplete, Orphan, Refused, RolledBack, RotationError, Stopped
from ..base.redact import Log, Secret
from ..base.timing import PUBLISH, RESOLVE, RETIRE, REVIEW, SOON, UNDO, Budget, Wait, drive, room_time, rotating_time
from ..services.application import Credential, format_time, guid
from ..services.entra import Answer
from ..services.graph import NotDone
from ..services.http import Http
from ..services.vault import VaultRecord
from .deciding import Kept, Situation, other_records, sort_out
from .evidence import Evidence
from .making import Full, Making
from .outcome import Outcome, ended, verdict
from .plan import KEEP, Plan, plan, room
from .proving import SHORTEST_LIMIT, NotProven, Proving
from .publishing import FIELD_SECRET, Publishing, Shown, fence
from .retiring import Gone, Retiring, Superseded, TakenOver
from .room import Room
from .settling import Settling
from .subject import Subject, Task

# A sign-in that is older (seconds) is repeated before a save is.
_OLD_SIGN_IN = 30.0
_ROOMS = 3
_Ended = TypeVar("_Ended")
# Work that is done step by step, so that whoever does it may do other work in between.
Steps = Generator[Wait, None, _Ended]


def perform(prepare: Callable[[], Task], http: Http, budget: Budget, log: Log, check: bool = False) -> Outcome:
    """Rotate, or with ``check`` only say what would be done; return how it ended. It raises none of RotationError.

    ``prepare`` reads whatever names the task; nothing changes while it runs.
    """
    return drive(rotate(prepare, http, budget, log, check), budget)


def rotate(prepare: Callable[[], Task], http: Http, budget: Budget, log: Log, check: bool = False) -> Steps[Outcome]:
    """Do as ``perform`` does, step by step. Each new secret is made after a wait for the turn to make one; the first
    wait after it comes when that secret is published."""
    facts: dict[str, Any] = {}
    try:
        try:
            with budget.phase("resolve the application", RESOLVE):
                rotation = Rotation(prepare(), http, budget, log, facts)
                if check:
                    return rotation.describe()
        except Stopped as stop:
            raise Refused("nothing was changed", str(stop), "run it again") from None
        return (yield from _to_the_end(rotation, budget))
    except RotationError as problem:
        budget.shield()
        facts.update(problem.facts)
        return ended(problem, facts, log)


def _to_the_end(rotation: Rotation, budget: Budget) -> Steps[Outcome]:
    try:
        try:
            return (yield from rotation.steps())
        except (Exception, Stopped) as failure:
            budget.shield()
            return rotation.end(failure)
    except Stopped as stop:  # the one signal that is let through came before the shield was up
        budget.shield()
        return rotation.end(stop)


class Rotation:
    """One run. Making the object resolves everything and plans; it changes nothing. Raises BadInput, Refused."""

    def __init__(self, task: Task, http: Http, budget: Budget, log: Log, facts: dict[str, Any]) -> None:
        self._budget, self._log, self._facts = budget, log, facts
        self._subject = subject = Subject(task, http, budget, log, facts)
        self._policy, self._application, self._graph = task.policy, subject.application, subject.graph
        self._name = subject.application.display_name
        self._plan: Plan = plan(subject.known())
        number = len(self._application.credentials)
        log.say(f"{self._name} ({self._application.client_id}) has {number} secret(s); {self._plan.reason}")
        if subject.admin_ends():
            log.say("warning: " + subject.admin_ends())
        self._making = Making(self._graph, self._application, subject.run_name, budget, log)
        wait = self._policy.retire_after.total_seconds()
        self._room_time = room_time(wait)
        self._until = rotating_time(max(SHORTEST_LIMIT, self._policy.verify_timeout), wait)
        self._publishing: Publishing | None = None
        self._retiring: Retiring | None = None
        self._new: Credential | None = None  # what the vault shows and will show, once that is decided
        self._published_at: datetime | None = None
        self._superseded = ""
        self._kept: list[Kept] = []
        self._complete = False
        self._final: RotationError | None = None

    def _known(self) -> Situation:
        return self._subject.known(new=self._new, published_at=self._published_at)

    # -- what would be done

    def describe(self) -> Outcome:
        """Say what would be done."""
        name, soon = self._name, self._subject.now() + timedelta(seconds=SOON)
        if other_records(self._application.credentials, self._subject.record.uid):
            self._subject.evidence.record()
        todo = plan(self._known())
        removes = [item.key_id for item in todo.outlook.due(soon)]
        self._kept = todo.outlook.stays(soon)
        self._facts.update(kept=[item.as_dict() for item in self._kept], would_remove=removes)
        if todo.action == KEEP and not removes:
            return self._unchanged()
        if todo.action != KEEP and self._is_full():
            decision, _until = room(self._known(), self._application.credentials)
            self._log.say(f"the secret {decision.credential.key_id} would make room: {decision.reason}")
        verb = "would be rotated" if todo.action != KEEP else "needs no new secret, but would be cleaned up"
        why = [todo.reason, f"old secrets that would be removed: {len(removes)}", *self._notes()]
        text = verdict("planned", self._facts, f"{name} {verb}", "; ".join(why))
        self._log.say(text)
        self._facts["expires"] = format_time(todo.end) if todo.action != KEEP else ""
        return Outcome("planned", 0, text, True, self._facts)

    def _is_full(self) -> bool:
        return self._application.two_secrets and len(self._application.credentials) > 1

    # -- forward

    def steps(self) -> Steps[Outcome]:
        """Carry the plan out. Whatever it raises is to be handed to ``end``."""
        if self._plan.action != KEEP or not (yield from self._keep()):
            yield self._turn(makes=True)
            self._until += self._budget.spent()
            new, secret = self._make()
            proving = self._subject.proving(secret)
            self._prove(proving)
            publishing = self._publish(new, secret, proving)
            yield Wait()
            yield from self._finish(new, publishing, proving)
        self._complete = True
        self._budget.shield()
        return self._rotated()

    def _turn(self, makes: bool) -> Wait:
        """What the next writes wait for: the new secret, what will be removed, and a second try where there is room to
        be made first."""
        removes = len(self._plan.outlook.due(self._subject.now() + timedelta(seconds=SOON)))
        writes = removes + (2 if self._is_full() else 1) if makes else removes
        return Wait(writes=writes, makes=makes, personal=self._application.two_secrets)

    def _keep(self) -> Steps[bool]:
        """Clean up beside the shown secret; return False where that does not sign in, so that a new one is needed."""
        shown = self._known().shown
        if shown is None or self._subject.shown is None:
            return False
        try:
            if self._policy.verify:
                self._subject.shown.prove(max(SHORTEST_LIMIT, self._policy.verify_timeout), patient=False)
        except NotProven as problem:
            if problem.answer is Answer.REFUSED:
                self._log.say(f"the vault's secret does not sign in, so it is rotated: {problem.why}")
                return False
            raise Refused(
                f"{self._name} was not rotated, nothing was changed",
                f"its sign-in says neither yes nor no to the vault's secret: {problem.why}",
                "run it again; set verify to false if it cannot sign in from this host",
            ) from None
        yield self._turn(makes=False)
        if self._plan.outlook.left_overs:
            with self._budget.phase("save the record as it is", PUBLISH):
                self._subject.record = fence(self._subject.vault, self._subject.record, self._budget, self._log)
            self._subject.evidence.forget()
        self._new = shown
        text = self._subject.record.secret(FIELD_SECRET)
        try:
            yield from self._settle_and_retire(
                shown, self._subject.shown, lambda record: record.secret(FIELD_SECRET) == text
            )
        except Gone:
            self._log.say("the vault's secret was taken away, so it is rotated")
            self._new = self._retiring = None
            return False
        return True

    def _make(self) -> tuple[Credential, Secret]:
        """Make the new secret, and room for it where there is none. Raises Refused, Stopped."""
        for number in range(_ROOMS + 1):
            try:
                return self._making.make(self._plan.end)
            except Full:
                if number == _ROOMS:
                    break
                self._make_room()
        raise Refused(
            f"no new secret could be made for {self._name}",
            "it holds as many secrets as it may, although some were removed",
            "run it again later",
        )

    def _make_room(self) -> None:
        place = Room(
            vault=self._subject.vault,
            record=self._subject.record,
            evidence=self._subject.evidence,
            graph=self._graph,
            making=self._making,
            shown=self._subject.shown,
            known=lambda listed: self._subject.known(listed, published_at=self._application.read_at),
            budget=self._budget,
            log=self._log,
        )
        began = self._budget.spent()
        try:
            place.make(self._room_time)
        finally:
            self._room_time -= self._budget.spent() - began
            self._subject.record = place.record

    def _publish(self, new: Credential, secret: Secret, proving: Proving) -> Publishing:
        self._publishing = publishing = Publishing(
            self._subject.vault,
            self._subject.record,
            new,
            secret,
            follow=self._subject.names_application,
            look=lambda conflict: self._look_before_saving(new, proving, conflict),
            budget=self._budget,
            log=self._log,
        )
        publishing.publish()
        self._new, self._published_at = new, self._subject.now()
        self._subject.follow(secret)
        return publishing

    def _prove(self, proving: Proving) -> None:
        self._facts["verified"] = proving.verify
        if not proving.verify:
            self._log.say("not proving that the secret signs in (verify is false)")
            return
        name, limit = self._name, self._policy.verify_timeout
        if limit < SHORTEST_LIMIT:
            self._log.say(f"verify_timeout {limit} counts as {SHORTEST_LIMIT}")
            limit = SHORTEST_LIMIT
        try:
            proving.prove(limit)
        except NotProven as problem:
            if problem.answer is Answer.NEVER:
                raise RolledBack(
                    f"{name} cannot sign in with its new secret",
                    problem.why,
                    "remove the cause, or set verify to false if it cannot sign in from this host",
                ) from None
            raise RolledBack(
                f"the new secret of {name} did not sign in within {limit} s",
                problem.why,
                "run it again, or raise verify_timeout",
            ) from None

    def _look_before_saving(self, new: Credential, proving: Proving, conflict: bool) -> float:
        """Raise RolledBack where somebody has taken the new secret away before it is saved; return until when (of the
        budget's ``awake``) it may be saved on that. Raises Stopped."""
        what = "somebody has removed the new secret meanwhile"
        away = RolledBack(what, "this run stands back", "nothing, if it was another rotation")
        if conflict:
            proving.forget()
            for pause in (2.0, 3.0, 3.0, None):
                try:
                    if self._graph.read(self._application).credential(new.key_id):
                        break
                except NotDone as problem:
                    self._log.detail(f"the list is not to be had: {problem}")
                if pause is None:
                    raise away
                self._budget.pause(pause)
        while not proving.taken_within(_OLD_SIGN_IN):
            look = proving.sign_in()
            if look.answer in (Answer.REFUSED, Answer.NEVER):
                raise away
            if look.answer is Answer.LATER:
                self._budget.pause(look.wait or 2.0)
        return proving.fresh_until(_OLD_SIGN_IN)

    def _finish(self, new: Credential, publishing: Publishing, proving: Proving) -> Steps[None]:
        """Settle and retire after publishing. Raises RotationError, NotDone, Stopped."""
        self._subject.evidence.forget()
        try:
            yield from self._settle_and_retire(new, proving, publishing.shows_ours)
        except Gone:
            self._budget.shield()
            self._final = self._taken_away(new, publishing)
            raise self._final from None

    def _settle_and_retire(
        self, new: Credential, proving: Proving, shows_new: Callable[[VaultRecord], bool]
    ) -> Steps[None]:
        known = self._known()
        self._retiring = retiring = Retiring(
            graph=self._graph,
            application=self._application,
            unlisted=self._subject.unlisted,
            new=new,
            evidence=self._subject.evidence,
            proving=proving,
            making=self._making,
            shows_new=shows_new,
            is_ours=known.is_ours,
            sort=lambda listed: sort_out(self._known(), listed),
            now=self._subject.now,
            budget=self._budget,
            log=self._log,
        )
        if self._publishing is None and not retiring.outlook().due(self._subject.now() + timedelta(seconds=SOON)):
            self._kept = retiring.outlook().stays(self._subject.now())
            return
        try:
            until = retiring.outlook().wait_until(self._subject.now())
            seconds = (until - self._subject.now()).total_seconds() if until else 0.0
            if seconds:
                settling = Settling(proving, retiring.new_is_listed, self._budget, self._log)
                yield from settling.steps(seconds, retiring.early)
            rest = (until - self._subject.now()).total_seconds() if until else 0.0
            retiring.retire(self._retire_time(max(0.0, rest)), until)
            self._kept = retiring.outlook().stays(self._subject.now())
        except Superseded as other:
            self._superseded = other.key_id
        except TakenOver:
            self._final = self._incomplete(
                new,
                "the record shows something else by now, so that nothing more is removed",
                "see who has changed the record; run it again if it should be rotated",
                retiring.remaining(),
            )
            raise self._final from None

    def _retire_time(self, rest: float) -> float:
        """Return the seconds that removing old secrets may take, ``rest`` of them to wait: what undoes a new one that
        is gone has to fit in."""
        if self._publishing is None:
            return rest + RETIRE
        return max(REVIEW, min(rest + RETIRE, self._until - UNDO - self._budget.spent()))

    def _taken_away(self, new: Credential, publishing: Publishing) -> RotationError:
        """Somebody has taken the published secret away: let the record show the former one again, if that is possible.

        Returns how the run ends.
        """
        name = self._name
        self._log.say(f"somebody has taken the new secret {new.key_id} away")
        why, is_back = "there is no former secret that could be put back", False
        try:
            with self._budget.phase("put the former secret back", UNDO):
                if self._former_is_there():
                    why = "the record shows something else by now, or could not be saved"
                    is_back = publishing.put_back()
                    if is_back:
                        self._making.undo()  # what is gone may come back where a replica has it still
        except (Exception, Stopped) as problem:
            why = f"the former secret could not be put back: {_why(problem)}"
        if is_back:
            return RolledBack(
                f"somebody has taken the new secret of {name} away, and the record shows the former one again",
                "this run or its secret was taken for something else",
                "see who removes its secrets, then run it again",
            )
        return self._incomplete(
            new, f"the vault shows a secret that somebody has taken away; {why}", "run it again at once", None
        )

    def _former_is_there(self) -> bool:
        key_id = guid(self._subject.published.key_id) or ""
        if self._subject.shown is None or not key_id or (self._retiring and key_id in self._retiring.sent):
            return False
        if not self._graph.read(self._application).credential(key_id):
            return False
        self._subject.shown.forget()
        return Evidence.taken(self._subject.shown) is Answer.TAKEN

    # -- the ends

    def end(self, failure: BaseException) -> Outcome:
        """Undo what ``run`` has left half done, as far as that is certain to be safe.

        Raises one of RotationError, which tells the truth about what remains.
        """
        if self._complete:
            return self._rotated()
        if self._final is None and self._new is not None:
            remaining = self._retiring.remaining() if self._retiring else None
            if self._retiring and remaining == []:
                self._kept = self._retiring.outlook().stays(self._subject.now())
                return self._rotated()
            self._final = self._failed_to_retire(self._new, failure, remaining)
        problem = self._final or self._undo(failure)
        if self._making.old_removed():
            self._facts["removed"] = self._making.old_removed()
        raise problem from None

    def _rotated(self) -> Outcome:
        new, removed = self._new, self._making.removed
        key_id, end = (new.key_id, new.end_text) if new else ("", "")
        if self._publishing is None and not removed:
            return self._unchanged()
        self._facts.update(key_id=key_id, expires=end, removed=removed, kept=[item.as_dict() for item in self._kept])
        did = "was rotated" if self._publishing else "needed no new secret and was cleaned up"
        why = [f"{len(removed)} old removed"]
        if self._superseded:
            why.append(f"a later run of this record has published {self._superseded} and cleans up")
        why += self._notes()
        check = "see whether the record names the right application, then run it again"
        todo = check if self._kept and not self._subject.bound else ""
        what = f"{self._name} {did}: its secret {key_id} is valid until {end}"
        text = verdict("rotated", self._facts, what, "; ".join(why), todo)
        self._log.say(text)
        return Outcome("rotated", 0, text, True, self._facts)

    def _unchanged(self) -> Outcome:
        shown = self._known().shown
        self._facts.update(key_id=self._subject.published.key_id, expires=shown.end_text if shown else "")
        self._facts["kept"] = [item.as_dict() for item in self._kept]
        why = "; ".join([self._plan.reason, *self._notes()])
        text = verdict("unchanged", self._facts, f"{self._name} needs no rotation", why)
        self._log.say(text)
        return Outcome("unchanged", 0, text, False, self._facts)

    def _notes(self) -> list[str]:
        """Return what is said beside: what stays, and what the record named and the application does not list."""
        notes = ["kept: " + ", ".join(str(item) for item in self._kept)] if self._kept else []
        named = guid(self._subject.published.key_id)
        if named and not self._application.credential(named) and named not in self._making.removed:
            self._facts["unlisted"] = [named]
            notes.append(
                f"the record named {named}, which the application does not list: it has gone, or is one of the service "
                "principal (which works as well) or of the application that the record named before"
            )
        if self._subject.admin_ends():
            notes.append(self._subject.admin_ends())
        return notes

    # -- back

    def _incomplete(self, new: Credential, why: str, todo: str, remaining: list[str] | None) -> Incomplete:
        removed = self._making.removed
        if remaining is None:
            old = [one.credential.key_id for one in self._plan.outlook.old]
            remaining = [key_id for key_id in old if key_id not in removed]
        return Incomplete(
            f"{self._name} has published the secret {new.key_id}, but is not complete",
            f"{why}; old secrets that may remain: {', '.join(remaining) or 'none known'}",
            todo,
            key_id=new.key_id,
            expires=new.end_text,
            removed=removed,
            remaining=remaining,
        )

    def _failed_to_retire(self, new: Credential, failure: BaseException, remaining: list[str] | None) -> Incomplete:
        todo = failure.todo if isinstance(failure, (NotDone, RotationError)) else ""
        more = f"{todo}, then " if todo and "run it again" not in todo else ""
        return self._incomplete(new, _why(failure), more + "run it again; the next run removes them", remaining)

    def _undo(self, failure: BaseException) -> RotationError:
        name, making = self._name, self._making
        wanted = failure if isinstance(failure, RotationError) else None
        if not making.tried:
            return wanted or Refused(f"{name} was not rotated, nothing was changed", _why(failure), "run it again")
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
                making.see_what_was_removed()
        except (Exception, Stopped) as problem:
            self._log.say(f"undoing did not succeed: {_why(problem)}")
        if shown is Shown.OURS and making.made is not None:
            return self._failed_to_retire(making.made[0], failure, None)
        if shown is Shown.UNKNOWN:
            return self._orphan(failure, "the vault may show it, so that it was left in place")
        if removed is False:
            return self._orphan(failure, "it could not be removed")
        if removed is None:
            was = "what was removed was to make room" if making.old_removed() else "nothing was changed"
            return wanted or Refused(f"{name} was not rotated, {was}", _why(failure), "run it again")
        todo = wanted.todo if wanted else "run it again"
        return RolledBack(f"{name} was not rotated, the new secret was removed again", _why(failure), todo)

    def _orphan(self, failure: BaseException, why: str) -> Orphan:
        name = self._making.display_name
        key_ids = list(self._making.left)
        named = f"secret {', '.join(key_ids)}" if key_ids else f"secret named {name}, if it was made at all,"
        return Orphan(
            f"{self._name} may have kept the new {named} beside its old ones, which still work",
            f"{_why(failure)}; {why}",
            "run it again, the next run removes it; or remove it in Entra if the record does not show its id",
            orphans=key_ids,
            marker=name,
        )


def _why(failure: BaseException) -> str:
    if isinstance(failure, RotationError):
        return failure.what + (": " + failure.why if failure.why else "")
    if isinstance(failure, (Stopped, NotDone)):
        return str(failure)
    return f"unexpected {type(failure).__name__}: {failure}"
