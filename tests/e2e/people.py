# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people do while a run is under way: each of them at each request of it, as cases of the matrix.

A request is held before it takes effect, the person acts, and the run goes on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import FORMS, Result, World, make_world, run_module
from judge import Judge, Verdict
from matrix import PLACES, Case, Place

from sandbox.directory import Application, Credential

PEOPLE = "people"
#: A new secret signs in at once here, or never: there is nothing to wait for.
POLICY = {"verify_timeout": 10}


@dataclass(frozen=True)
class Step:
    """A moment of an undisturbed run: before a request takes effect, or after it."""

    place: Place
    moment: str = "before"

    @property
    def name(self) -> str:
        """The name in the report."""
        return self.place.name if self.moment == "before" else "the end"


_BY_NAME = {place.name: place for place in PLACES}
_PROOFS = tuple(Place(f"token (proof {nth - 1})", "entra", "token", nth) for nth in (2, 3, 4))
#: Those of an undisturbed run that has two secrets to remove, in their order.
STEPS = (
    *(Step(place) for place in PLACES[: PLACES.index(_BY_NAME["token (proof)"])]),
    *(Step(place) for place in _PROOFS),
    *(Step(place) for place in PLACES[PLACES.index(_BY_NAME["token (last proof)"]) + 1 :]),
    Step(PLACES[-1], "after"),
)
#: The steps by their numbers: from when on the new secret is there, shown, listed, and an old one may be removed.
READ, LISTED, MADE, SHOWN, SEEN, REMOVING = 1, 4, 5, 9, 10, 11
assert [STEPS[number].name for number in (READ, LISTED, MADE, SHOWN, SEEN, REMOVING)] == [
    "discovery",
    "addPassword",
    "token (proof 1)",
    "get_secret (read-back)",
    "get_application (retire)",
    "removePassword (first)",
]


class Held:
    """Lets `act` happen once, while the request of the run under way that `step` names is held.

    What `act` itself asks for is neither held nor counted. `happened` tells whether it came to that. `during` is called
    with the name of each request from then on, before it takes effect and before it is answered.
    """

    def __init__(
        self, world: World, step: Step, act: Callable[[], Any], during: Callable[[str], None] = lambda op: None
    ) -> None:
        self._step, self._act, self._during, self._lock = step, act, during, threading.Lock()
        self._calls, self._acting, self.happened = 0, False, False
        self.failure: BaseException | None = None
        world.sandbox.faults.latency = self

    def __call__(self, op: str) -> float:
        """Take note of a request, which calls twice: before it takes effect and before it is answered."""
        with self._lock:
            if self._acting or self.happened:
                self._during(op)
            if self._acting or self.happened or op != self._step.place.op:
                return 0.0
            self._calls += 1
            if self._calls != 2 * self._step.place.nth - (self._step.moment == "before"):
                return 0.0
            self._acting = True
        try:
            self._act()
        except BaseException as failure:
            self.failure = failure
        self._acting, self.happened = False, True
        return 0.0


class Stop(Held):
    """Stops the run under way once its request that `step` names is served; `meanwhile` happens, then it goes on.

    `run` it with `watch=stop.see`, so that the process is known.
    """

    def __init__(self, world: World, step: Step, meanwhile: Callable[[], Any]) -> None:
        super().__init__(world, step, self._stop)
        self._meanwhile, self._pid = meanwhile, 0

    def see(self, pid: int) -> None:
        """Take note of the process of the run."""
        self._pid = pid

    def _stop(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)
        threading.Thread(target=self._go_on, daemon=True).start()

    def _go_on(self) -> None:
        try:
            self._meanwhile()
        except BaseException as failure:
            self.failure = failure
        finally:
            os.kill(self._pid, signal.SIGCONT)


@dataclass
class Scene:
    """A world with what people need to hand, and what they leave behind."""

    world: World
    judge: Judge
    form: str
    other: Application
    theirs: Credential
    at_first: dict[str, Any]
    added: Credential | None = None
    second: Result | None = None
    #: Called with the name of each request from the moment on at which somebody acts.
    during: Callable[[str], None] = lambda op: None

    @property
    def new(self) -> Credential:
        """The secret that the run has made."""
        return max(self.world.app.live_secrets(), key=lambda one: one.created_at)

    def type_in(self) -> None:
        """Make a secret in the portal, and type it into the record."""
        self.added = self.world.app.add_secret("made in the portal")
        data = self.world.record
        state = self.world.sandbox.state
        with state.lock:  # one save of a person
            for label, value in (("client_secret", self.added.text), ("client_secret_id", self.added.key_id)):
                found = data.field_named(label)
                assert found is not None
                found["value"] = [value]
            data.edit("expires", self.added.end.strftime("%Y-%m-%dT%H:%M:%SZ"))

    def copy(self) -> None:
        """Copy the record: what the copy shows is not kept up."""
        self.judge.unknowable(self.world.sandbox.vault.copy(self.world.record.uid).uid)

    def move(self) -> None:
        """Move the record into another folder."""
        vault = self.world.sandbox.vault
        vault.move(self.world.record.uid, vault.add_folder("Elsewhere"))

    def run_again(self, ahead: float) -> None:
        """Rotate by another run; its secret starts so many seconds after the first run's, if that has made one."""
        directory = self.world.sandbox.directory
        mine = [one for one in self.world.app.live_secrets() if (one.display_name or "").startswith("keeper/")]
        first = mine[-1] if mine else None

        def during(op: str) -> None:
            if op != "addPassword" or first is None:
                return
            made = self.new
            if made is first:  # it is about to be made, by a front end with such a clock
                start = first.start.timestamp() + ahead
                directory.clock_offsets = [start - directory.time()]
            elif not ahead:
                made.start = first.start

        self.during = during
        if self.world.record.value("retire_after") is None:
            # Nobody would answer the first run for as long as this one waits.
            self.second = run_module(self.world, retire_after="0", **POLICY)
        else:
            self.second = FORMS[self.form](self.world, **(POLICY if self.form == "module" else {}))
        directory.clock_offsets = [0.0]
        self.during = lambda op: None

    def meanwhile(self, op: str) -> None:
        """Do what is to be done at a request, as it is by then."""
        self.during(op)

    def replace(self) -> None:
        """Take the new secret away, and type another one in once the former one has been looked at."""
        _remove(self, self.new)

        def during(op: str) -> None:
            last = self.world.sandbox.log[-1]
            if last.op == "token" and last.status == 200 and self.world.app.client_id in last.detail:
                self.during = lambda op: None
                with self.judge.people():
                    self.type_in()

        self.during = during


Expected = Callable[[int], "set[str]"]


@dataclass(frozen=True)
class Person:
    """What somebody does, from which step on, how the run may then end, and after how many clean runs it is mended."""

    name: str
    act: Callable[[Scene], Any]
    ends: Expected
    since: int = 0
    runs: int = 1
    another_run: bool = False


def _always(number: int) -> set[str]:
    return {"rotated"}


def _ends(proving: str, published: str, before: str = "rotated", made: int = MADE, late: int = REMOVING) -> Expected:
    """``before`` until the step ``made``, ``proving`` before the save, ``published`` after it; from the step ``late``
    on nobody can know: the evidence for the removal that is under way was taken before."""

    def ends(number: int) -> set[str]:
        if number < made:
            return {before}
        if number < SHOWN - 1:
            return {proving}
        return {published} if number < late else {"rotated", "incomplete", published}

    return ends


def _written(number: int) -> set[str]:
    """Another secret is in the record: the run stands back, or removes nothing."""
    if number < READ:
        return {"rotated"}
    if number < SHOWN:
        return {"rolled_back"}
    return {"incomplete"} if number < SEEN else {"rotated", "incomplete"}


def _restored(number: int) -> set[str]:
    """Before it is published the record is saved as it is, which is what a run does that takes this one for one that
    was interrupted: nobody can tell the two apart, and the run stands back."""
    if number < SHOWN:
        return {"rotated"} if number < READ else {"rolled_back"}
    return {"incomplete"} if number < SEEN else {"rotated", "incomplete"}


def _renamed(number: int) -> set[str]:
    """Before it is published the run stands back; after it nothing says whether the application still counts."""
    return {"rolled_back"} if number < SHOWN else {"rotated", "incomplete"}


def _overtaken(number: int) -> set[str]:
    """Another run has published before, or after: then this one is superseded."""
    return {"rotated"} if number < READ or number >= SHOWN else {"rolled_back"}


def _add(scene: Scene) -> None:
    scene.added = scene.world.app.add_secret("made in the portal")


PEOPLE_AT_WORK = (
    Person("adds a secret", _add, _always),
    Person(
        "removes the new one",
        lambda scene: _remove(scene, scene.new),
        _ends("rolled_back", "rolled_back"),
        since=MADE,
    ),
    Person("removes the old one", lambda scene: _remove(scene, scene.world.old), _always, runs=2),
    Person(
        "removes all",
        lambda scene: _remove(scene, *scene.world.app.live_secrets()),
        _ends("rolled_back", "incomplete"),
        runs=2,
    ),
    Person("edits another field", lambda scene: scene.world.record.edit("notes", "by hand"), _always),
    Person("types in another secret", Scene.type_in, _written),
    Person("restores the record", lambda scene: scene.world.record.restore(scene.at_first), _restored, runs=2),
    Person("copies the record", Scene.copy, _always),
    Person("moves the record", Scene.move, _always),
    Person(
        "names another application",
        lambda scene: scene.world.record.edit("application_object_id", scene.other.object_id),
        _renamed,
        since=READ,
        runs=2,
    ),
    Person("resets the application", lambda scene: scene.world.app.reset(), _ends("rolled_back", "incomplete"), runs=2),
    Person("rotates, 5 s before", lambda scene: scene.run_again(-5.0), _overtaken, another_run=True),
    Person("rotates, at once", lambda scene: scene.run_again(0.0), _overtaken, another_run=True),
    Person("rotates, 5 s after", lambda scene: scene.run_again(5.0), _overtaken, another_run=True),
)


#: What was taken away may not be put back into a record that somebody else has written.
REPLACES_IT = Person(
    "removes the new one, and types in another", Scene.replace, lambda number: {"incomplete"}, since=MADE
)


def _remove(scene: Scene, *wanted: Credential) -> None:
    for secret in wanted:
        if secret.key_id in scene.world.live():
            scene.world.app.remove_secret(secret.key_id)


@dataclass(frozen=True)
class Encounter(Case):
    """One run, and one person who acts at one step of it."""

    person: Person = PEOPLE_AT_WORK[0]
    number: int = 0
    #: In place of the step with that number.
    step: Step | None = None

    def run(self, script: Path | None = None) -> Verdict:
        """Run the case and judge it; ``script`` takes the place of the script form's file."""
        module = self.form == "module"
        options: dict[str, Any] = dict(POLICY) if module else {}
        if script is not None:
            options["script"] = script
        fields: dict[str, str | None] = {} if module else {key: str(value) for key, value in POLICY.items()}
        fields["retire_after"] = self.retire_after
        with make_world(**fields) as world:
            world.app.add_secret("second", days=100)
            if self.shape:
                self.shape(world)
            other = world.sandbox.directory.add_application("other", owners=[world.admin.client_id])
            theirs = other.add_secret("of the other")
            judge = Judge(world, self.name, group=self.group)
            at_first = world.sandbox.vault.snapshot()[world.record.uid]
            scene = Scene(world, judge, self.form, other, theirs, at_first)

            def act() -> None:
                with judge.people(self.person.another_run):
                    self.person.act(scene)

            held = Held(world, self.step or STEPS[self.number], act, scene.meanwhile)
            result = judge.disturbed(lambda: FORMS[self.form](world, **options))
            judge.reached(held.happened)
            if held.failure is not None:
                raise held.failure
            if result is not None and held.happened:
                self._judge_end(scene, result)
            judge.settle([])
            world.record.edit("retire_after", "0")
            judge.accept()
            self._mend(scene, lambda: FORMS[self.form](world, **options))
            return judge.verdict

    def _judge_end(self, scene: Scene, result: Result) -> None:
        blame, world = scene.judge.verdict.blame, scene.world
        allowed = self.person.ends(self.number)
        if result.status not in allowed:
            blame("wrong", f"{result.status}, and not {' or '.join(sorted(allowed))}")
        if scene.added is not None and self.number >= LISTED and scene.added.key_id not in world.live():
            blame("foreign", "the secret that somebody has made since is gone")
        if scene.second is not None:
            if scene.second.status != "rotated":
                blame("wrong", f"the other run said {scene.second.status}: {scene.second.said()}")
            if not world.alive():
                blame("lost", "what the record shows after both runs does not sign in")
            if len(world.live()) > 2:
                blame("wrong", f"after both runs Entra holds {len(world.live())} secrets")

    def _mend(self, scene: Scene, run: Callable[[], Result]) -> None:
        world, other = scene.world, scene.other
        if str(world.record.value("application_object_id")) != other.object_id:
            scene.judge.recovery(run, self.person.runs)
            return
        before = world.live()
        results = scene.judge.recovery(run, self.person.runs, world.seen_from(world.record, other))
        if world.live() != before:
            scene.judge.verdict.blame("foreign", "the application that the record named before has other secrets")
        if results and scene.theirs.key_id not in results[0].kept():
            scene.judge.verdict.blame("foreign", "the first run for the other application has not kept its secret")


def encounters() -> Iterator[Case]:
    """Everybody at every step of the script; in the module, everybody once in each part of a run."""
    parts = ((0, LISTED), (LISTED, SHOWN - 1), (SHOWN - 1, REMOVING), (REMOVING, len(STEPS)))
    for index, person in enumerate(PEOPLE_AT_WORK):
        quick = person.since + index % (REMOVING - person.since)
        for number in range(person.since, len(STEPS)):
            yield _encounter("script", person, number, quick=number == quick)
        for start, end in parts:
            number = start + index % (end - start)
            if number >= person.since:
                yield _encounter("module", person, number, quick=False)


def _encounter(form: str, person: Person, number: int, quick: bool) -> Encounter:
    row = f"{person.name}, {STEPS[number].name}"
    return Encounter(form, row, PEOPLE, list, quick=quick, person=person, number=number)
