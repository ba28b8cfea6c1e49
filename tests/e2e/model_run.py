# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The core's rotation on the model of the two stores, step by step, in this process.

The rotation is the real code. Graph, Entra, Vault and the clock are replaced at their Python interface: every call of
theirs stops at a gate, and whoever drives the run says what becomes of it (see ``Run.step``). Several runs may be under
way.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import OutOfTime, Refused, Stopped
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log, Secret
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation import admin
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.identity import Sources
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import Policy
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.transaction import Outcome, Task, perform
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.application import (
    Application,
    Credential,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.credentials import Identity
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra import Answer, SignIn
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.graph import NotDone
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.vault import NotSaved, VaultRecord
from model import ADMIN, CLIENT, FRESH, OBJECT, SECONDS_EACH, START, UID, Held, Stores

#: What may become of a request, beside "ok": nothing or everything has happened when its answer is lost, it takes
#: effect later, it is refused, it is put off (or so it is said: "busy after"), the process is told to end or is killed
#: before or after its effect.
FATES = (
    "lost before",
    "lost after",
    "late",
    "refused",
    "busy",
    "busy after",
    "SIGTERM before",
    "SIGTERM after",
    "SIGKILL before",
    "SIGKILL after",
)
_READS = ("read", "list", "prove")
#: So long a secret must be unseen to be gone.
SETTLED = 8.0
#: What is refused at first is not published before it is so old (seconds).
SPREAD = 20.0
_UNANSWERED = 20.0
_ASKED_TO_WAIT = 5.0


def fates_of(op: str) -> tuple[str, ...]:
    """Return the fates that differ for a request of this kind."""
    if op == "pause":
        return ("SIGTERM before", "SIGKILL before")
    if op in _READS:
        return ("lost before", "refused", "busy", "SIGTERM before", "SIGKILL before")
    return FATES


class Killed(BaseException):
    """The process is no more."""


class FakeBudget(Budget):
    """The budget on the model's clock, which goes on while a run does not."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def left(self) -> float:
        return max(0.0, self._end - self._run.stores.now)

    def spent(self) -> float:
        return self._run.stores.now - self._run.began

    def awake(self) -> float:  # type: ignore[override]
        return self._run.stores.now

    @contextmanager
    def phase(self, name: str, seconds: float) -> Iterator[None]:
        before = self._end, self._phase
        end = self._run.stores.now + seconds
        if end < self._end:
            self._end, self._phase = end, name
        try:
            yield
        finally:
            self._end, self._phase = before

    def check(self) -> None:
        if self.left() <= 0:
            raise self._over()

    def _over(self) -> OutOfTime:
        self._run.cut_off = self._run.cut_off or self._phase in ("undo", "see what remains")
        return OutOfTime("no time left to " + self._phase)

    def pause(self, seconds: float) -> None:
        if not 0 <= seconds < self.left():
            raise self._over()
        self._run.request("pause", lambda: None, lambda why, sure: AssertionError("a pause has no answer"))
        self._run.stores.now += seconds


class Run:
    """One rotation in a thread of its own, which moves only in ``step``. ``outcome`` is None until it ends.

    ``driver``, where given, says what becomes of each request at once, and the run needs no thread.
    """

    def __init__(
        self, stores: Stores, policy: Policy, driver: Callable[[Run, str], str] | None = None, uid: str = UID
    ) -> None:
        self.stores, self.policy, self.driver, self.uid = stores, policy, driver, uid
        self.outcome: Outcome | None = None
        self.crash: BaseException | None = None
        self.killed = self.signalled = False
        self.pending = ""
        self.names: set[str] = set()
        self.made: list[str] = []
        self.published_at: float | None = None
        self.ops: list[str] = []
        self.log: list[tuple[str, bool, float]] = []  # each request, whether it was answered, and when
        self.before: tuple[set[str], dict[str, str]] = (set(), {})
        self.first = ""  # what the record shows when it begins
        self.hidden = False  # whether something is not known everywhere then
        self.wrong: list[str] = []  # what it has done although the design forbids it
        self.sign_ins: dict[str, list[Answer]] = {}  # what was answered to each secret
        self.began = self.asked_at = stores.now
        self.budget = FakeBudget(self)
        self._fate = "ok"
        self.cut_off = False  # it had no time left to see what remains
        self._mine, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._main, daemon=True)

    @property
    def ended(self) -> bool:
        """Whether it is over, in whatever way."""
        return self.killed or self.outcome is not None or self.crash is not None

    def start(self) -> None:
        """Run up to the first request."""
        self._thread.start()
        self._theirs.acquire()

    def step(self, fate: str = "ok") -> None:
        """Let the pending request end in this way, and run up to the next one."""
        self._fate = fate
        self._mine.release()
        self._theirs.acquire()

    def finish(self) -> None:
        """Run to the end, undisturbed."""
        while not self.ended:
            self.step()

    def begin(self) -> None:
        """Note what there is before it begins."""
        stores = self.stores
        self.before = stores.snapshot(self.uid)
        since = stores.now - stores.lag
        self.hidden = any(one.made > since or since < one.removed < stores.now for one in stores.everything)

    def whole(self) -> Run:
        """Run in this thread, with the driver."""
        log = Log(lambda line: None)
        self.begin()
        try:
            self.outcome = perform(self._task, None, self.budget, log)  # type: ignore[arg-type]
        except Killed:
            self.killed = True
        except BaseException as problem:
            self.crash = problem
        return self

    def _main(self) -> None:
        self.whole()
        self._theirs.release()

    def _task(self) -> Task:
        record = self.read_records([self.uid])[self.uid]
        sources = Sources(explicit=Identity(ADMIN, "contoso.example", "the test", secret=Secret("admin-secret")))
        return Task(FakeVault(self), record, sources, self.policy)  # type: ignore[arg-type]

    def request(
        self, op: str, effect: Callable[[], Any], failure: Callable[[str, bool], BaseException], writes: bool = False
    ) -> Any:
        """Stop at the gate; then let the request have its fate. ``failure`` makes the error: why, and if for sure."""
        if op != "pause":
            self.budget.check()
        self.pending = op
        self.ops.append(op)
        if self.driver is not None:
            fate = self.driver(self, op)
        else:
            self._theirs.release()
            self._mine.acquire()
            fate = self._fate
        self.stores.now += SECONDS_EACH
        self.asked_at = self.stores.now
        if fate == "busy after" and op == "add" and max(self.stores.lists):
            fate = "busy"  # where Graph's word is wrong and no read shows it, nobody could tell
        word, _space, moment = fate.partition(" ")
        if word.startswith("SIG"):
            result = effect() if moment == "after" else None
            if word == "SIGKILL":
                raise Killed
            if not self.signalled and not self.budget.shielded:
                self.signalled = True
                if op != "pause":
                    self.log.append((op, False, self.stores.now))
                raise Stopped("interrupted by SIGTERM")
            return self._answered(op, (lambda: result) if moment == "after" else effect)
        if op == "pause" or fate == "ok" or (fate == "late" and not writes):
            return self._answered(op, effect)
        if fate == "late":
            self.stores.late.append(effect)
        elif moment == "after":
            effect()
        sure = word == "refused"
        self.log.append((op, sure and writes, self.stores.now))
        if word in ("lost", "late"):
            self.stores.now += min(_UNANSWERED, self.budget.left())
        raise failure(word, sure)

    def _answered(self, op: str, effect: Callable[[], Any]) -> Any:
        if op != "pause":
            self.log.append((op, True, self.stores.now))
        return effect()

    # -- what the run does, against what it may

    def has_saved(self, before: str, now: str) -> None:
        """Judge a save that has taken effect: what the record showed before, and what it shows now."""
        if before not in (now, self.first, *self.made):
            self.wrong.append("it has overwritten what somebody else had published")
        if now not in self.made or self.published_at is not None:
            return
        self.published_at = self.stores.now
        one = next(one for one in self.stores.everything if one.key_id == now)
        answers = [answer for answer in self.sign_ins.get(one.text, []) if answer is not Answer.LATER]
        age = self.stores.now - one.made
        if self.policy.verify and answers[-3:] != [Answer.TAKEN] * 3:
            self.wrong.append("it has published what was not taken three times in a row")
        if Answer.REFUSED in answers and age < SPREAD:
            self.wrong.append(f"it has published {age:.0f} s after making what was refused at first")

    def has_removed(self, key_id: str, sent: float) -> None:
        """Judge a removal that was sent at that time."""
        if self.published_at is None or key_id in self.made:
            return
        waited = sent + SECONDS_EACH - self.published_at
        if key_id == self.first and waited < self.policy.retire_after.total_seconds():
            self.wrong.append(f"it removes what the record showed before {waited:.0f} s after publishing")
        new = next(one for one in self.stores.everything if one.key_id == self.made[-1])
        if sent > new.removed + self.stores.lag + FRESH + 2 * SECONDS_EACH:
            self.wrong.append("it removes an old secret although the new one has gone")

    # -- what the run says, against what there is

    def own(self) -> list[Held]:
        """Return the secrets that it has made and that are there."""
        return [one for one in self.stores.held if one.name in self.names]

    def unknowable(self) -> bool:
        """Return whether no answer has told it what became of a change, although it has asked, if there was time to.

        That a read does not show a secret tells little, as reads lag behind writes: it has to be so for some seconds.
        """

        def asked(change: str, read: str) -> list[tuple[bool, float]]:
            sent = [index for index, (op, answered, _at) in enumerate(self.log) if op == change and not answered]
            return [(answered, at) for op, answered, at in self.log[sent[-1] + 1 :] if op == read] if sent else []

        if self.cut_off:
            return True
        made, removed, saved = asked("add", "list"), asked("remove", "list"), asked("save", "read")
        seen = [at for answered, at in removed if answered]
        if self.outcome is not None and self.outcome.status == "orphan" and removed:
            return not seen or seen[-1] - seen[0] < SETTLED
        last_lost = bool(made) and not made[-1][0]
        return last_lost or any(bool(one) and not any(answered for answered, _at in one) for one in (removed, saved))

    def judge(self, alone: bool) -> list[str]:
        """Return what is wrong with what the run has said; ``alone`` is whether nobody else has changed anything."""
        if self.killed:
            return self.wrong
        if self.crash is not None:
            return [f"it crashed: {self.crash!r}"]
        assert self.outcome is not None
        status, facts = self.outcome.status, self.outcome.facts
        stores, record, own = self.stores, self.stores.records[self.uid], self.own()
        published = [key_id for key_id in self.made if key_id in record.history]
        keys, values = stores.snapshot(self.uid)
        removed = set(facts.get("removed", []))
        problems = list(self.wrong)
        if status == "rotated":
            problems += self._judge_rotated(alone)
        elif status in ("refused", "rolled_back", "bad_input", "unchanged"):
            # What it has published may have been replaced by the next run before it has read it back.
            put_back = [key_id for key_id in published if record.key_id != key_id]
            if own or (len(published) > len(put_back) and (alone or record.history[-1] in published)):
                problems.append(f"{status}, but its secret is there ({len(own)}) or was shown ({len(published)})")
            if alone and (keys, values) != (self.before[0] - removed, self.before[1]) and not self.unknowable():
                problems.append(f"{status}, but the stores differ")
        elif status == "incomplete":
            if facts["key_id"] not in record.history:
                problems.append("incomplete, but its secret was never shown")
            if alone and len(keys) == 1 and not stores.lag and not self.unknowable():
                problems.append("incomplete, but nothing remains")
        elif status == "orphan":
            unpublished = [one for one in own if one.key_id not in record.history]
            if not unpublished and not self.unknowable():
                problems.append("orphan, but there is none")
            if facts["marker"] not in self.names:
                problems.append("the marker is not its own")
        else:
            problems.append(f"status {status}: {self.outcome.message}")
        if removed & keys:
            problems.append("it says that it has removed what is there")
        if alone and removed - self.before[0] - set(self.made):
            problems.append("it says that it has removed what was not there")
        changed = status in ("rotated", "incomplete", "orphan") or bool(removed)
        if self.outcome.exit_status == 1 or self.outcome.changed != changed:
            problems.append(f"{status} with {self.outcome.exit_status}, changed {self.outcome.changed}")
        return problems

    def _judge_rotated(self, alone: bool) -> list[str]:
        assert self.outcome is not None
        facts, stores = self.outcome.facts, self.stores
        record, key_id = stores.records[self.uid], self.outcome.facts["key_id"]
        problems = []
        if key_id not in record.history:
            problems.append("rotated, but its secret was never shown")
        if [one for one in self.own() if one.key_id != key_id]:
            problems.append("rotated, but it has left a second secret")
        keys, _values = stores.snapshot(self.uid)
        if alone and not self.hidden and keys != {key_id} | {one["key_id"] for one in facts["kept"]}:
            problems.append(f"rotated, but Entra holds {len(keys)} secrets")
        # Whoever looks at the list and signs in on evidence of ten seconds sees what is gone everywhere for longer.
        one = next(one for one in stores.everything if one.key_id == key_id)
        looked = [at for op, answered, at in self.log if op == "list" and answered]
        gone = one.removed + stores.lag + FRESH + SECONDS_EACH
        if "a later run" not in self.outcome.message and looked[-1:] > [gone]:
            problems.append("rotated, but its secret is gone")
        return problems

    def read_records(self, uids: list[str]) -> dict[str, VaultRecord]:
        """Read records; that they cannot be read ends the run."""

        def effect() -> dict[str, VaultRecord]:
            found = [self.stores.records[uid] for uid in uids if uid in self.stores.records]
            self.first = self.first or self.stores.records[self.uid].key_id
            return {
                record.uid: VaultRecord(
                    record.uid, "model", "pamUser", record.revision, True, copy.deepcopy(record.data), None
                )
                for record in found
            }

        read: dict[str, VaultRecord] = self.request(
            "read", effect, lambda why, sure: Refused("Keeper was not reached", why)
        )
        return read


class FakeVault:
    """``Vault`` for one run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def asked_at(self) -> float:
        """When the last request took effect."""
        return self._run.asked_at

    def read(self, uids: Any) -> dict[str, VaultRecord]:
        """Return the records."""
        return self._run.read_records(list(uids))

    def await_turn(self) -> None:
        """Nobody counts here."""

    def save(self, record: VaultRecord) -> None:
        """Save the record at its revision."""
        run, data, revision = self._run, copy.deepcopy(record.data), record.revision

        def effect() -> bool:
            before = run.stores.records[record.uid].key_id
            saved = run.stores.save(record.uid, data, revision, run.policy.verify)
            if saved:
                run.has_saved(before, run.stores.records[record.uid].key_id)
            return saved

        def failure(why: str, sure: bool) -> BaseException:
            return NotSaved(why, certain=sure or why == "busy", wait=11.0 if why == "busy" else None)

        if not run.request("save", effect, failure, writes=True):
            raise NotSaved("out of sync", certain=True, conflict=True)


class FakeGraph:
    """``Graph`` for one run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def asked_at(self) -> float:
        """When the last request took effect."""
        return self._run.asked_at

    @staticmethod
    def _failure(why: str, sure: bool) -> BaseException:
        status = {"refused": 403, "busy": 409}.get(why, 0)
        return NotDone(why, certain=sure, busy=why == "busy", status=status)

    def find(self, identifier: str, client_id_first: bool = False) -> Application:
        """Read the application."""
        try:
            return self.read(None)
        except NotDone as problem:
            raise Refused("the application could not be read", problem.why) from None

    def read(self, application: Any) -> Application:
        """Read the application."""

        def effect() -> Application:
            stores = self._run.stores
            shown = tuple(one.shown() for one in reversed(stores.listed()))
            read_at = START + timedelta(seconds=int(stores.now))
            return Application(OBJECT, CLIENT, "model", stores.limit == 2, shown, read_at)

        application_: Application = self._run.request("list", effect, self._failure)
        return application_

    def add_password(self, application: Any, display_name: str, end: datetime) -> tuple[Credential, Secret]:
        """Make a secret."""
        run = self._run
        run.names.add(display_name)

        def effect() -> Held | None:
            if len(run.stores.held) >= run.stores.limit:
                return None
            one = run.stores.add(display_name, end=end)
            run.made.append(one.key_id)
            return one

        made: Held | None = run.request("add", effect, self._failure, writes=True)
        if made is None:
            raise NotDone("Not allowed to add 3 passwords.", certain=True, full=True, status=400)
        return made.shown(trimmed=False), Secret(made.text)

    def await_turn(self, name: str) -> None:
        """Nobody counts here."""

    def remove_password(self, application: Any, key_id: str) -> bool:
        """Remove a secret."""
        run, sent = self._run, self._run.stores.now

        def effect() -> bool:
            run.has_removed(key_id, sent)
            return run.stores.remove(run.uid, key_id, sent)

        removed: bool = run.request("remove", effect, self._failure, writes=True)
        return removed


class FakeEntra:
    """``Entra`` for one run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def asked_at(self) -> float:
        """When the last request took effect."""
        return self._run.asked_at

    def sign_in(self, client_id: str, secret: Secret) -> SignIn:
        """Sign in once."""
        stores = self._run.stores

        def effect() -> SignIn:
            if stores.disabled:
                return SignIn(Answer.NEVER, "the application is disabled")
            taken = stores.takes(secret.reveal())
            return SignIn(Answer.TAKEN) if taken else SignIn(Answer.REFUSED, "as the model has it")

        def failure(why: str, sure: bool) -> BaseException:
            wait = _ASKED_TO_WAIT if why == "busy" else None
            return _NotTaken(SignIn(Answer.REFUSED if sure else Answer.LATER, why, wait))

        try:
            look: SignIn = self._run.request("prove", effect, failure)
        except _NotTaken as problem:
            look = problem.look
        self._run.sign_ins.setdefault(secret.reveal(), []).append(look.answer)
        return look


class _NotTaken(Exception):
    """The sign-in was not answered, or was by a replica that has not heard of the secret."""

    def __init__(self, look: SignIn) -> None:
        super().__init__(look.why)
        self.look = look


@contextmanager
def modelled() -> Iterator[None]:
    """Let the admin make our Entra and Graph: the budget tells whose they are."""
    before = admin.Graph, admin.Entra
    admin.Graph = lambda http, root, admin, sign_in, log: FakeGraph(_run_of(sign_in))  # type: ignore[assignment,misc]
    admin.Entra = lambda http, cloud, tenant, budget, log: FakeEntra(budget._run)  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        admin.Graph, admin.Entra = before  # type: ignore[misc]


def _run_of(sign_in: Any) -> Run:
    run: Run = sign_in.__self__.entra._run
    return run
