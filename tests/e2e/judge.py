# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The judge of a run: what both stores show, at every change and at the end, against what it has said."""

from __future__ import annotations

import copy
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from harness import Result, World
from looks import Looks

from leaks import pieces_in
from sandbox import Entry, Fault

#: A run is over by then, whatever happens.
BOUND = 480.0
STATUSES = {0: "rotated", 2: "bad_input", 3: "refused", 4: "rolled_back", 5: "incomplete", 6: "orphan"}
PUBLISHED = ("client_secret", "client_secret_id", "expires")
#: What can be wrong: a record shows a dead secret, by a step of the product or with its approval; a secret was shown
#: before every replica that answers in turn had learned of it; the run says what is not so; a secret got out; the run
#: does not end; the next run does not mend it; somebody else's things were touched; the case did not happen.
KINDS = ("lost", "early", "wrong", "leak", "stuck", "unmended", "foreign", "idle")


@dataclass
class Verdict:
    """How a case went. ``problems`` is empty when all was as it must be.

    ``group`` is its class. ``early`` counts the secrets that were shown before every replica had learned of them,
    ``gaps`` those whose predecessors were removed before that, ``exempt`` the dead ones in records that the run could
    not know of, or that people made dead when the run had looked for the last time.
    """

    name: str
    group: str = ""
    status: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    said: str = ""
    early: int = 0
    gaps: int = 0
    exempt: int = 0

    @property
    def red(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.problems)

    def blame(self, kind: str, text: str) -> None:
        """Note that something is wrong, once."""
        assert kind in KINDS
        line = f"{kind}: {text}"
        if line not in self.problems:
            self.problems.append(line)


class Stores:
    """Both stores at one moment."""

    def __init__(self, world: World) -> None:
        with world.sandbox.state.lock:
            self.live = {one.key_id: one for one in world.app.live_secrets()}
            self.admin = [one.key_id for one in world.admin.live_secrets()]
            self.records = world.sandbox.vault.snapshot()
            self.shown = {label: world.record.value(label) for label in PUBLISHED}
            self.uid = world.record.uid

    def same(self, other: Stores, but: Iterable[str] = ()) -> bool:
        """Whether nothing differs, but for secrets with these key ids."""
        mine, theirs = (set(stores.live) - set(but) for stores in (self, other))
        return (mine, self.admin, self.records) == (theirs, other.admin, other.records)

    def others(self) -> dict[str, Any]:
        """Return all that a rotation has no business with: other records, the other fields of this one."""
        records = copy.deepcopy(self.records)
        mine = records.get(self.uid, {})
        for section in ("fields", "custom"):
            if mine.get(section):
                mine[section] = [item for item in mine[section] if item.get("label") not in PUBLISHED]
        return {"records": records, "admin": self.admin}


class Judge:
    """Watches a world from now on, and judges the runs in it.

    Where the run cannot be ``patient``, as its time is over before the answers come, none counts as one. ``in_turn``:
    every replica is met by the sign-ins of a proof, so that none may be early.
    """

    def __init__(self, world: World, name: str, patient: bool = True, in_turn: bool = False, group: str = "") -> None:
        self.world = world
        self._patient = patient
        self.verdict = Verdict(name, group)
        self.before = Stores(world)
        self._foreign = self.before.others()
        self.secrets = set(world.secrets())
        self._phase = "at first"
        self.acted: list[float] = []
        self._added: set[str] = set()
        self._by_another_run = False
        self._theirs: set[str] = set()
        self.looks = Looks(world, self.verdict, in_turn)
        self.look()
        world.sandbox.watch(lambda sandbox, entry: self.look(entry))

    # -- at every change

    def look(self, entry: Entry | None = None) -> None:
        """What every record shows signs in, and will go on doing so, unless people have seen to it."""
        with self.world.sandbox.state.lock:
            apps = self.world.sandbox.directory.applications
            self.secrets.update(one.text for app in apps for one in (*app.credentials, *app.lingering))
            self.looks.look(self._phase, entry)
            if entry is not None and self._by_another_run and entry.op == "addPassword":
                self._theirs.add(entry.detail.rpartition(" ")[2])

    def unknowable(self, uid: str) -> None:
        """Say that the runs cannot know what this record shows: it is a copy, or a secret was typed into it by hand."""
        self.looks.unknowable.add(uid)

    @contextmanager
    def people(self, another_run: bool = False) -> Iterator[None]:
        """What happens inside is done by people, or by ``another_run``, not by the run that is judged."""
        before, self._by_another_run = self.world.live(), another_run
        self.acted.append(time.time())
        try:
            yield
        finally:
            self._added |= self.world.live() - before
            self._by_another_run = False
            self._foreign = Stores(self.world).others()

    # -- the run in question

    def disturbed(self, run: Callable[[], Result], name: str = "the disturbed run") -> Result | None:
        """Run and judge: the status against the truth, what was said, how long it took."""
        result = self._timed(name, run)
        if result is None:
            self.verdict.status = "stuck"
            return None
        self.verdict.status = "killed" if result.returncode == -9 else result.status or f"exit {result.returncode}"
        self.verdict.said = result.stderr + result.stdout
        self._judge_words(result)
        if result.returncode != -9:
            self._judge_form(result)
            self._judge_status(result)
            self.looks.judge(result, self.acted)
        if Stores(self.world).others() != self._foreign:
            self.verdict.blame("foreign", "other records or fields differ")
        return result

    def _timed(self, phase: str, run: Callable[[], Result]) -> Result | None:
        self._phase = phase
        started = time.monotonic()
        result = None
        try:
            result = run()
        except subprocess.TimeoutExpired:
            self.verdict.blame("stuck", f"{phase} did not end")
        seconds = time.monotonic() - started
        self.verdict.seconds = max(self.verdict.seconds, seconds)
        if seconds > BOUND:
            self.verdict.blame("stuck", f"{phase} took {seconds:.0f} s")
        self.look()
        return result

    def _judge_words(self, result: Result) -> None:
        tokens = self.world.sandbox.issued_tokens()
        for secret in pieces_in(result.said(), {*self.secrets, *self.world.secrets(), *tokens}):
            self.verdict.blame("leak", f"{secret} is in the output")
        if "Traceback" in result.said():
            self.verdict.blame("wrong", "a traceback was shown")

    def _judge_form(self, result: Result) -> None:
        """One line of JSON, and a status, exit status, failed and changed that fit together."""
        blame = self.verdict.blame
        code, status = result.returncode, result.status
        if len(result.stdout.strip().splitlines()) != 1 or not result.output:
            blame("wrong", "stdout is not one line of JSON")
        if "rotate_azure_app.py" in " ".join(result.argv) and STATUSES.get(code) != status:
            blame("wrong", f"exit status {code} with status {status}")
        if "rotate_azure_app.py" not in " ".join(result.argv) and (code != 0) != result.failed:
            blame("wrong", f"exit status {code} with failed {result.failed}")
        if result.failed != (status not in ("rotated", "unchanged")):
            blame("wrong", f"failed is {result.failed} with status {status}")
        if not result.message:
            blame("wrong", "no message")
        if result.failed and " Next: " not in result.message:
            blame("wrong", "the message names no next step")

    def _judge_status(self, result: Result) -> None:
        blame, world, output = self.verdict.blame, self.world, result.output
        now = Stores(world)
        foreign = self._added | self._theirs
        new = {key: one for key, one in now.live.items() if key not in self.before.live and key not in foreign}
        old = [key_id for key_id in now.live if key_id in self.before.live]
        shows_new = now.shown["client_secret"] in [one.text for one in new.values()]
        unknowable = self._unknowable(result.status)
        removed = output.get("removed") or []
        self._judge_changed(result, now, bool(new), unknowable)
        unpublished = [key_id for key_id, one in new.items() if one.text != now.shown["client_secret"]]
        if set(removed) & set(now.live):
            blame("wrong", f"{result.status}, but what it says it removed is there")
        if result.status in ("rotated", "unchanged"):
            overtaken = now.shown["client_secret_id"] in foreign
            named = {now.shown["client_secret_id"], output.get("key_id")}
            unnamed = set(now.live) - named - set(result.kept()) - foreign
            if len(unnamed) > overtaken:  # one that the other run has not found is left to the next
                blame("wrong", f"{result.status}, but Entra holds {len(unnamed)} more secrets that it does not name")
            if result.status == "rotated" and not shows_new and not self.acted:
                blame("wrong", "rotated, but the vault shows no new secret")
            if not overtaken and not self.looks.dead_by_people():
                self._judge_published(output, now)
        elif result.status in ("bad_input", "refused", "rolled_back"):
            if new or (not self.acted and not now.same(self.before, but=removed)):
                blame("wrong", f"{result.status}, but the stores differ: {len(new)} new, {len(old)} old secrets")
        elif result.status == "incomplete" and not self.acted:
            if not shows_new:
                blame("wrong", "incomplete, but the vault shows no new secret")
            if not old and not unpublished and not unknowable:
                blame("wrong", "incomplete, but nothing remains")
            shown = {record.value("client_secret") for record in world.sandbox.vault.records.values()}
            elsewhere = {key_id for key_id in old if now.live[key_id].text in shown}
            if not set(old) <= {*(output.get("remaining") or []), *result.kept(), *elsewhere}:
                blame("wrong", "incomplete, but not every old secret that remains is named")
            self._judge_published(output, now)
        elif result.status == "orphan":
            if not unpublished and not unknowable:
                blame("wrong", "orphan, but there is none")
            named = output.get("orphans") or []
            if any(key_id not in unpublished for key_id in named) and not unknowable:
                blame("wrong", "an orphan is named that is none")
            if any(new[key_id].display_name != output.get("marker") for key_id in unpublished):
                blame("wrong", "the marker is not that of the orphan")
            if not any(text and text in result.message for text in (*named, output.get("marker"))):
                blame("wrong", "the message names neither key id nor marker")
        elif result.status != "incomplete":
            blame("wrong", f"status {result.status!r}, exit status {result.returncode}")

    def _judge_changed(self, result: Result, now: Stores, made: bool, unknowable: bool) -> None:
        """``changed`` is whether the run has left a trace: where nobody else has, the stores tell."""
        if self.acted:
            changed = made or bool(result.output.get("removed")) or result.status in ("rotated", "incomplete")
        else:
            changed = not now.same(self.before)
        if result.changed != changed and not unknowable:
            text = f"changed is {result.changed} with {result.status}"
            self.verdict.blame("wrong", f"{text}, but the stores {'do not ' * (not changed)}differ")

    def _judge_published(self, output: dict[str, Any], now: Stores) -> None:
        shown = next((one for one in now.live.values() if one.key_id == now.shown["client_secret_id"]), None)
        if shown is None or shown.text != now.shown["client_secret"]:
            self.verdict.blame("wrong", "the record's client_secret_id is not that of its client_secret")
            return
        expires = now.shown["expires"] or ""
        if not expires.endswith("Z") or _second(expires) != shown.end.replace(microsecond=0):
            self.verdict.blame("wrong", f"expires is {expires!r}")
        if output.get("key_id") != shown.key_id or _second(output.get("expires") or "") != _second(expires):
            self.verdict.blame("wrong", "key_id or expires of the output is not what the record shows")

    def _unknowable(self, status: str) -> bool:
        """Whether the stores have left the run without any answer from which it could tell how it ended.

        True only where it asked: the last request to change something was disturbed, and so was each later read.
        """
        log = list(self.world.sandbox.log)

        def disturbed(entry: Entry) -> bool:
            return entry.fault is not None or not self._patient

        def left_open(changes: tuple[str, ...], read: str) -> bool:
            sent = [index for index, entry in enumerate(log) if entry.op in changes]
            if not sent or not disturbed(log[sent[-1]]):
                return False
            reads = [entry for entry in log[sent[-1] + 1 :] if entry.op == read]
            return (bool(reads) or not self._patient) and all(disturbed(entry) for entry in reads)

        if status == "orphan":
            confirmed = any(entry.op == "update_secret" and entry.status == 200 and not entry.fault for entry in log)
            in_vault = not confirmed and left_open(("update_secret",), "get_secret")
            return in_vault or left_open(("addPassword", "removePassword"), "get_application")
        return status == "incomplete" and left_open(("removePassword",), "get_application")

    # -- afterwards

    def reached(self, fired: bool) -> None:
        """The disturbance must have happened, or the case shows nothing."""
        if not fired:
            self.verdict.blame("idle", "the disturbance did not happen")

    def settle(self, faults: Iterable[Fault]) -> None:
        """End every disturbance; wait until requests that were held up have taken their effect. Lags go on."""
        directory = self.world.sandbox.directory
        self.world.sandbox.faults.clear()
        self.world.sandbox.faults.latency = None
        log = self.world.sandbox.log
        for fault in faults:
            deadline = time.monotonic() + fault.seconds
            while time.monotonic() < deadline and not any(
                entry.op == fault.op and entry.fault == "delay" for entry in list(log)
            ):
                time.sleep(0.2)
        directory.usable_after = directory.application_lags = 0.0
        self.look()

    def accept(self) -> None:
        """Take the records as they are now for what people want them to be."""
        self._foreign = Stores(self.world).others()

    def recovery(self, run: Callable[[], Result], at_most: int = 1, world: World | None = None) -> list[Result]:
        """Undisturbed runs, at once: within ``at_most`` of them one ends complete, whatever was left to it.

        What it keeps, and says so, the next one removes. ``world``: that of another application that the record has
        come to name.
        """
        world = world or self.world
        results: list[Result] = []
        for number in range(1, at_most + 1):
            result = self._timed("the clean run" + f", number {number}" * (number > 1), run)
            if result is None:
                return results
            results.append(result)
            self._judge_words(result)
            if result.returncode == 0 and world.agrees():
                break
        last = results[-1]
        if last.returncode != 0 or not world.agrees() or not world.alive():
            text = f"clean run {len(results)} said {last.status or last.returncode}, Entra holds {len(world.live())}"
            self.verdict.blame("unmended", text)
            self.verdict.said += "\n-- the clean run:\n" + last.stderr + last.stdout
        if Stores(self.world).others() != self._foreign:
            self.verdict.blame("foreign", "other records or fields differ after the clean run")
        return results


def _second(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text[:19] + "+00:00")
    except ValueError:
        return None
