# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several rotations of one application at once, and people who work on the record and in the portal meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import FORMS, Result, World, make_world
from judge import Judge

from sandbox import Sandbox
from sandbox.state import Entry

#: Seeds of the random times. What goes wrong with one is repeated by it, as far as processes can be.
SEEDS = range(6 if os.environ.get("KEEPERPAM_MATRIX") == "full" else 5)


@dataclass
class Crowd:
    """Several runs at once in a world, and what the vault has shown meanwhile."""

    world: World
    chance: random.Random
    judge: Judge
    published: list[str] = field(default_factory=list)
    made: int = 0
    on_made: Callable[[int], None] | None = None

    def watch(self, sandbox: Sandbox, entry: Entry) -> None:
        """Note which secrets the vault shows, one after the other, and count those that are made."""
        shown = self.world.record.value("client_secret_id")
        if not self.published or shown != self.published[-1]:
            self.published.append(shown)
        if entry.op == "addPassword":
            self.made += 1
            if self.on_made:
                self.on_made(self.made)

    def run(self, number: int, kill: bool = False) -> list[Result]:
        """Start so many runs, of either form, shortly after each other; return their results."""
        self.world.sandbox.watch(self.watch)
        lock = threading.Lock()

        def latency(op: str) -> float:
            with lock:
                return self.chance.choice((0.0, 0.0, 0.01, 0.05, 0.2)) * self.chance.random()

        self.world.sandbox.faults.latency = latency
        plans = [
            (self.chance.choice(sorted(FORMS)), self.chance.random() * 0.4, kill and index == 0)
            for index in range(number)
        ]
        with ThreadPoolExecutor(number) as pool:
            results = list(pool.map(lambda plan: self._one(*plan), plans))
        self.world.sandbox.faults.latency = None
        return results

    def _one(self, form: str, delay: float, kill: bool) -> Result:
        time.sleep(delay)
        until = 0.4 + 0.8 * self.chance.random()

        def shoot(pid: int) -> None:
            timer = threading.Timer(until, self._end, (pid,))
            timer.daemon = True
            timer.start()

        return FORMS[form](self.world, watch=shoot if kill else None)

    @staticmethod
    def _end(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it was faster
            os.kill(pid, signal.SIGKILL)

    def judge_all(self, results: list[Result], foreign: tuple[str, ...] = ()) -> None:
        """Each has told the truth, as far as it is to be seen from outside: who says so has published, nobody else."""
        self.judge.look()
        problems = list(self.judge.verdict.problems)
        winners = [one for one in results if one.status in ("rotated", "incomplete")]
        killed = [one for one in results if one.returncode == -signal.SIGKILL]
        said = "\n".join(f"{one.returncode} {one.stdout}{one.stderr}" for one in results)
        for one in results:
            if one not in killed and one.status not in ("rotated", "refused", "rolled_back", "incomplete", "orphan"):
                problems.append(f"one says {one.status!r} with {one.returncode}")
            if one not in killed and one.failed != (one.status != "rotated"):
                problems.append(f"one says failed={one.failed} with {one.status}")
        claimed = [one.output["key_id"] for one in winners]
        if not set(claimed) <= set(self.published[1:]):
            problems.append("one says that it was published and was not")
        # The secret of one that is killed may be the last; that of another may be replaced before it has read it back.
        if not killed and self.published[1:] and self.published[-1] not in claimed:
            problems.append("nobody says that it has published what the vault shows")
        named = {key for one in results for what in ("remaining", "orphans") for key in one.output.get(what) or []}
        live = {one.key_id for one in self.world.app.live_secrets()}
        unexplained = live - {self.published[-1]} - named - set(foreign)
        if not winners:
            unexplained -= set(self.judge.before.live)
        if not killed and unexplained:
            problems.append(f"{len(unexplained)} secrets are left that nobody has named")
        for text in set(foreign) - live:
            problems.append(f"the secret {text} of somebody else was removed")
        assert not problems, f"{problems}\n{said}"

    def mend(self) -> None:
        """One more run, alone, ends complete."""
        last = FORMS[self.chance.choice(sorted(FORMS))](self.world)
        assert (last.returncode, last.status) == (0, "rotated"), last.said()
        assert self.world.agrees()
        self.judge.look()
        assert not self.judge.verdict.problems


@pytest.fixture
def crowd(seed: int) -> Iterator[Crowd]:
    """Return a crowd with random times of its own."""
    with make_world() as world:
        world.app.add_secret("second", days=100)
        made = Crowd(world, random.Random(seed), Judge(world, f"seed {seed}"))
        made.published.append(world.old.key_id)
        yield made


@pytest.mark.parametrize("seed", SEEDS)
class TestTogether:
    """Runs at once."""

    def test_one_is_published_at_a_time_and_the_others_leave_nothing(self, crowd: Crowd) -> None:
        results = crowd.run(crowd.chance.randint(2, 5))
        crowd.judge_all(results)
        assert any(one.status == "rotated" for one in results)
        crowd.mend()

    def test_one_is_killed(self, crowd: Crowd) -> None:
        crowd.judge_all(crowd.run(crowd.chance.randint(2, 4), kill=True))
        crowd.mend()

    def test_while_the_record_is_edited_and_moved(self, crowd: Crowd) -> None:
        world, ended = crowd.world, threading.Event()
        folder = world.sandbox.vault.add_folder("Elsewhere")
        written: list[str] = []

        def edit() -> None:
            while len(written) < 4 and not ended.wait(crowd.chance.uniform(0.1, 0.9)):
                written.append(f"edit {len(written)}")
                world.record.edit("operators' notes", written[-1])
                world.sandbox.vault.move(world.record.uid, crowd.chance.choice((None, folder, world.record.folder)))

        editor = threading.Thread(target=edit)
        editor.start()
        try:
            results = crowd.run(crowd.chance.randint(2, 3))
        finally:
            ended.set()
            editor.join()
        crowd.judge_all(results)
        assert not written or world.record.value("operators' notes") == written[-1]
        crowd.mend()
        assert not written or world.record.value("operators' notes") == written[-1]

    def test_while_somebody_adds_a_secret_in_the_portal(self, crowd: Crowd) -> None:
        number = crowd.chance.randint(1, 4)
        foreign: list[str] = []

        def add(made: int) -> None:
            if made == number:  # all have read what there was, and made theirs
                foreign.append(crowd.world.app.add_secret("made in the portal").key_id)

        crowd.on_made = add
        results = crowd.run(number)
        assert foreign
        crowd.judge_all(results, tuple(foreign))
        crowd.mend()


@pytest.mark.parametrize("form", sorted(FORMS))
class TestPeople:
    """One run, and somebody who does the one thing that it must notice."""

    @staticmethod
    def _during(world: World, op: str, act: Callable[[], Any]) -> None:
        done: list[int] = []

        def watch(sandbox: Sandbox, entry: Entry) -> None:
            if entry.op == op and not done:
                done.append(1)
                act()

        world.sandbox.watch(watch)

    def test_another_secret_is_put_into_the_record_by_hand(self, form: str) -> None:
        with make_world() as world:
            judge = Judge(world, form)
            by_hand = world.app.add_secret("by hand")

            def put() -> None:
                world.record.edit("client_secret", by_hand.text)
                world.record.edit("client_secret_id", by_hand.key_id)

            self._during(world, "addPassword", put)
            result = FORMS[form](world)
            assert (result.status, result.changed) == ("rolled_back", False)
            assert world.record.value("client_secret") == by_hand.text
            assert {one.key_id for one in world.app.live_secrets()} == {world.old.key_id, by_hand.key_id}
            assert not judge.verdict.problems

    def test_the_record_is_given_to_another_application(self, form: str) -> None:
        with make_world() as world:
            other = world.sandbox.directory.add_application("other", owners=[world.admin.client_id])
            self._during(world, "addPassword", lambda: world.record.edit("application_object_id", other.object_id))
            result = FORMS[form](world)
            assert (result.status, result.changed) == ("rolled_back", False)
            assert world.untouched()
            assert world.record.value("application_object_id") == other.object_id
            assert other.live_secrets() == []

    def test_the_record_is_deleted(self, form: str) -> None:
        with make_world() as world:
            self._during(world, "addPassword", lambda: world.sandbox.vault.remove(world.record.uid))
            result = FORMS[form](world)
            assert (result.status, result.changed) == ("rolled_back", False)
            assert [one.key_id for one in world.app.live_secrets()] == [world.old.key_id]

    def test_the_record_becomes_read_only(self, form: str) -> None:
        def lock(world: World) -> None:
            world.record.editable = False

        with make_world() as world:
            self._during(world, "addPassword", lambda: lock(world))
            result = FORMS[form](world)
            assert (result.status, result.changed) == ("rolled_back", False)
            assert world.untouched()

    def test_the_old_secret_is_removed_by_somebody_else(self, form: str) -> None:
        with make_world() as world:

            def remove() -> None:
                world.sandbox.directory.remove(world.app, world.old)

            self._during(world, "update_secret", remove)
            result = FORMS[form](world)
            assert (result.status, result.changed) == ("rotated", True)
            assert world.agrees()

    def test_the_new_secret_is_removed_by_somebody_else(self, form: str) -> None:
        with make_world(**({"verify_timeout": "2"} if form == "script" else {})) as world:

            def remove() -> None:
                newest = max(world.app.live_secrets(), key=lambda one: one.created_at)
                world.sandbox.directory.remove(world.app, newest)

            self._during(world, "addPassword", remove)
            result = FORMS[form](world, **({"verify_timeout": 2} if form == "module" else {}))
            assert (result.status, result.changed) == ("rolled_back", False)
            assert world.untouched()

    def test_the_application_is_disabled(self, form: str) -> None:
        with make_world() as world:

            def disable() -> None:
                world.app.disabled = True

            self._during(world, "addPassword", disable)
            result = FORMS[form](world)
            assert (result.status, result.changed) == ("rolled_back", False)
            assert world.untouched()
