# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A model of the two stores, and the core's rotation on top of it, step by step, in this process.

The rotation is the real code. Graph, Entra, Vault and the clock are replaced at their Python interface: every call of
theirs stops at a gate, and whoever drives the run says what becomes of it (see ``Run.step``). Several runs may be under
way; nothing sleeps.
"""

from __future__ import annotations

import copy
import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import OutOfTime, Refused, Stopped
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log, Secret
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation import transaction as rotation
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.identity import Sources
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import Policy
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.transaction import Outcome, Task, perform
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.application import Application, Credential
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra import Identity, Proof
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.graph import NotDone
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.vault import NotSaved, VaultRecord

START = datetime(2026, 5, 4, 12, 0, tzinfo=timezone.utc)
CLIENT, OBJECT, ADMIN = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
UID = "record-of-the-model"
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
#: So long a secret must be unseen to be gone.
SETTLED = 8.0
_SECONDS_EACH = 0.2
_UNANSWERED = 20.0


@dataclass
class Held:
    """A secret of the application."""

    key_id: str
    text: str
    name: str
    made: float
    usable: float
    visible: float

    def shown(self) -> Credential:
        """Return it as Graph lists it."""
        start = START + timedelta(seconds=self.made)
        end = start + timedelta(days=365)
        return Credential(self.key_id, self.name, start, end, end.strftime("%Y-%m-%dT%H:%M:%SZ"), self.text[:3])


class Killed(BaseException):
    """The process is no more."""


@dataclass
class Stores:
    """Entra and the vault. ``history`` are the key ids that the vault has shown, ``lost`` what went wrong with it."""

    usable_after: float = 0.0
    visible_after: float = 0.0
    now: float = 10000.0
    held: list[Held] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    revision: int = 100
    disabled: bool = False
    late: list[Callable[[], None]] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1000))

    def __post_init__(self) -> None:
        for _age in range(2):
            self.add("first", made=self.now - 5000)
        first = self.held[0]
        labels = {"application_object_id": OBJECT, "client_secret": first.text, "client_secret_id": first.key_id}
        fields = [{"type": "text", "label": label, "value": [value]} for label, value in labels.items()]
        self.data = {"title": "model", "type": "pamUser", "fields": [], "custom": fields}
        self.check()

    def add(self, name: str, made: float | None = None) -> Held:
        """Make a secret; one that was made in the past is known everywhere."""
        key = str(uuid.UUID(int=next(self._numbers)))
        moment = self.now if made is None else made
        one = Held(key, "text-of-" + key, name, moment, moment + self.usable_after, moment + self.visible_after)
        self.held.append(one)
        return one

    def visible(self) -> list[Held]:
        """Return what a read shows now."""
        return [one for one in self.held if one.visible <= self.now]

    def remove(self, key_id: str) -> bool:
        """Remove a secret that is visible; return whether there was one."""
        found = [one for one in self.visible() if one.key_id == key_id]
        self.held = [one for one in self.held if one not in found]
        self.check()
        return bool(found)

    def save(self, data: dict[str, Any], revision: int) -> bool:
        """Save the record unless its revision is another by now; return whether it was saved."""
        if revision != self.revision:
            return False
        self.data, self.revision = data, self.revision + 1
        self.check()
        return True

    def value(self, label: str) -> str:
        """Return a value of the record."""
        return next((item["value"][0] for item in self.data["custom"] if item["label"] == label), "")

    def edit(self, label: str, text: str) -> None:
        """Somebody writes a field of the record."""
        data = copy.deepcopy(self.data)
        data["custom"] = [item for item in data["custom"] if item["label"] != label]
        data["custom"].append({"type": "text", "label": label, "value": [text]})
        self.save(data, self.revision)

    def check(self) -> None:
        """See whether the vault's secret signs in, as at every change."""
        key_id, text = self.value("client_secret_id"), self.value("client_secret")
        if not self.history or self.history[-1] != key_id:
            self.history.append(key_id)
        if not any(one.text == text and one.key_id == key_id and one.usable <= self.now for one in self.held):
            self.lost.append(f"the vault shows {key_id}, which does not sign in")

    def settle(self) -> None:
        """Let everything that is under way arrive, and the time pass until all is known everywhere."""
        while self.late:
            self.late.pop(0)()
        self.now += max(self.visible_after, self.usable_after) + 1

    def snapshot(self) -> tuple[list[str], str]:
        """Return what a rotation changes, to compare."""
        return sorted(one.key_id for one in self.held), repr(self.data)


class FakeBudget(Budget):
    """The budget on the model's clock."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def left(self) -> float:
        return max(0.0, self._end - self._run.stores.now)

    @contextmanager
    def phase(self, name: str, seconds: float) -> Iterator[None]:
        before = self._end, self._phase
        self._end, self._phase = min(before[0], self._run.stores.now + seconds), name
        try:
            yield
        finally:
            self._end, self._phase = before

    def check(self) -> None:
        if self.left() <= 0:
            self._over()

    def _over(self) -> NoReturn:
        self._run.cut_off = self._run.cut_off or self._phase in ("undo", "see what remains")
        raise OutOfTime("no time left to " + self._phase)

    def pause(self, seconds: float) -> None:
        if seconds >= self.left() or seconds < 0:
            self._over()
        self._run.request("pause", lambda: None, lambda why, sure: AssertionError("a pause has no answer"))
        self._run.stores.now += seconds


class Run:
    """One rotation in a thread of its own, which moves only in ``step``. ``outcome`` is None until it ends.

    ``driver``, where given, says what becomes of each request at once, and the run needs no thread.
    """

    def __init__(self, stores: Stores, policy: Policy, driver: Callable[[Run, str], str] | None = None) -> None:
        self.stores, self.policy, self.driver = stores, policy, driver
        self.outcome: Outcome | None = None
        self.crash: BaseException | None = None
        self.killed = self.signalled = False
        self.pending = ""
        self.names: set[str] = set()
        self.made: list[str] = []
        self.log: list[tuple[str, bool, float]] = []  # each request, whether it was answered, and when
        self.before = stores.snapshot()
        self.hidden = len(stores.held) != len(stores.visible())
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

    def whole(self) -> None:
        """Run in this thread, with the driver."""
        log = Log(lambda line: None)
        try:
            self.outcome = perform(self._task, None, self.budget, log)  # type: ignore[arg-type]
        except Killed:
            self.killed = True
        except BaseException as problem:
            self.crash = problem

    def _main(self) -> None:
        self.whole()
        self._theirs.release()

    def _task(self) -> Task:
        record = self.read_record()
        sources = Sources(explicit=Identity(ADMIN, "contoso.example", "the test", secret=Secret("admin-secret")))
        return Task(FakeVault(self), record, sources, self.policy)  # type: ignore[arg-type]

    def request(
        self, op: str, effect: Callable[[], Any], failure: Callable[[str, bool], BaseException], writes: bool = False
    ) -> Any:
        """Stop at the gate; then let the request have its fate. ``failure`` makes the error: why, and if for sure."""
        if op != "pause":
            self.budget.check()
        self.pending = op
        if self.driver is not None:
            fate = self.driver(self, op)
        else:
            self._theirs.release()
            self._mine.acquire()
            fate = self._fate
        self.stores.now += _SECONDS_EACH
        if fate == "busy after" and op == "add" and self.stores.visible_after:
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
            return []
        if self.crash is not None:
            return [f"it crashed: {self.crash!r}"]
        assert self.outcome is not None
        status, facts = self.outcome.status, self.outcome.facts
        stores, own = self.stores, self.own()
        published = [key_id for key_id in self.made if key_id in stores.history]
        problems = []
        if status == "rotated":
            if facts["key_id"] not in stores.history:
                problems.append("rotated, but its secret was never shown")
            complete = self.policy.rotate == "always" and alone and not self.hidden
            if complete and [one.key_id for one in stores.held] != [stores.value("client_secret_id")]:
                problems.append(f"rotated, but Entra holds {len(stores.held)} secrets")
            if len([one for one in own if one.key_id != facts["key_id"]]) > 0:
                problems.append("rotated, but it has left a second secret")
        elif status in ("refused", "rolled_back", "bad_input", "unchanged"):
            # What it has published may have been replaced by the next run before it has read it back.
            if own or (published and (alone or stores.history[-1] in published)):
                problems.append(f"{status}, but its secret is there ({len(own)}) or was shown ({len(published)})")
            if alone and stores.snapshot() != self.before:
                problems.append(f"{status}, but the stores differ")
        elif status == "incomplete":
            if facts["key_id"] not in stores.history:
                problems.append("incomplete, but its secret was never shown")
            if alone and len(stores.held) == 1 and not self.unknowable():
                problems.append("incomplete, but nothing remains")
        elif status == "orphan":
            unpublished = [one for one in own if one.key_id not in stores.history]
            if not unpublished and not self.unknowable():
                problems.append("orphan, but there is none")
            if facts["marker"] not in self.names:
                problems.append("the marker is not its own")
        else:
            problems.append(f"status {status}")
        if self.outcome.exit_status == 1 or self.outcome.changed != (status in ("rotated", "incomplete", "orphan")):
            problems.append(f"{status} with {self.outcome.exit_status}, changed {self.outcome.changed}")
        return problems

    def read_record(self) -> VaultRecord:
        """Read the record; that it cannot be read ends the run."""

        def effect() -> VaultRecord:
            data = copy.deepcopy(self.stores.data)
            return VaultRecord(UID, "model", "pamUser", self.stores.revision, True, data, None)

        record: VaultRecord = self.request("read", effect, lambda why, sure: Refused("Keeper was not reached", why))
        return record


class FakeVault:
    """``Vault`` for one run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def read(self, uids: Any) -> dict[str, VaultRecord]:
        """Return the record."""
        return {UID: self._run.read_record()}

    def save(self, record: VaultRecord) -> None:
        """Save the record at its revision."""
        stores, data, revision = self._run.stores, copy.deepcopy(record.data), record.revision

        def failure(why: str, sure: bool) -> BaseException:
            return NotSaved(why, certain=sure or why == "busy", wait=11.0 if why == "busy" else None)

        if not self._run.request("save", lambda: stores.save(data, revision), failure, writes=True):
            raise NotSaved("out of sync", certain=True, conflict=True)


class FakeGraph:
    """``Graph`` for one run."""

    def __init__(self, run: Run) -> None:
        self._run = run

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
            shown = tuple(one.shown() for one in self._run.stores.visible())
            return Application(OBJECT, CLIENT, "model", False, shown, START + timedelta(seconds=self._run.stores.now))

        application_: Application = self._run.request("list", effect, self._failure)
        return application_

    def add_password(self, application: Any, display_name: str, end: datetime) -> tuple[Credential, Secret]:
        """Make a secret."""
        run = self._run
        run.names.add(display_name)

        def effect() -> Held:
            one = run.stores.add(display_name)
            run.made.append(one.key_id)
            return one

        made: Held = run.request("add", effect, self._failure, writes=True)
        return made.shown(), Secret(made.text)

    def remove_password(self, application: Any, key_id: str) -> bool:
        """Remove a secret."""
        removed: bool = self._run.request("remove", lambda: self._run.stores.remove(key_id), self._failure, writes=True)
        return removed


class FakeEntra:
    """``Entra`` for one run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def prove(self, client_id: str, secret: Secret) -> tuple[Proof, str]:
        """Try to sign in."""
        stores = self._run.stores

        def effect() -> Proof:
            if stores.disabled:
                return Proof.NEVER
            known = any(one.text == secret.reveal() and one.usable <= stores.now for one in stores.held)
            return Proof.SIGNED_IN if known else Proof.NOT_YET

        try:
            return self._run.request("prove", effect, lambda why, sure: _NoProof()), "as the model has it"
        except _NoProof:
            return Proof.NOT_YET, "no answer"


class _NoProof(Exception):
    """The proof was not answered."""


@contextmanager
def modelled() -> Iterator[None]:
    """Let the rotation make our Graph and Entra: the budget tells whose they are."""
    before = rotation.Graph, rotation.Entra
    rotation.Graph = lambda http, root, admin, sign_in, log: FakeGraph(_run_of(sign_in))  # type: ignore[assignment,misc]
    rotation.Entra = lambda http, cloud, tenant, budget, log: FakeEntra(budget._run)  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        rotation.Graph, rotation.Entra = before  # type: ignore[misc]


def _run_of(sign_in: Any) -> Run:
    run: Run = sign_in.__self__._budget._run
    return run
