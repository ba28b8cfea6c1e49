# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet under faults, throttling and signals, and beside another one: nothing is lost, and the next run completes."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fleets import FleetJudge, FleetWorld, make_fleet

from sandbox import Fault

FULL = os.environ.get("KEEPERPAM_MATRIX") == "full"
#: What goes wrong is drawn with this; it is said where a test fails.
SEEDS = range(4 if FULL else 1)
NUMBER = 200
#: The first look has so many seconds; what a signal ends is over before.
HANGS = 40.0


def some_faults(fleet: FleetWorld, chance: random.Random) -> None:
    """Let something go wrong with one request of every third application."""
    kinds: list[dict[str, object]] = [
        {"kind": "drop", "moment": "before"},
        {"kind": "drop", "moment": "after"},
        {"kind": "truncate", "moment": "after"},
        {"kind": "status", "status": 500, "moment": "before"},
        {"kind": "status", "status": 500, "moment": "after"},
        {"kind": "status", "status": 403},
        {"kind": "html502"},
        {"kind": "delay", "seconds": 2.0},
    ]
    graph: list[dict[str, object]] = [{"kind": "concurrency409"}, {"kind": "graph429", "retry_after": 1}]
    for world in fleet.worlds:
        if chance.random() > 1 / 3:
            continue
        op = chance.choice(["addPassword", "update_secret", "removePassword", "get_application", "token"])
        about = {"token": world.app.client_id, "update_secret": world.record.uid}.get(op, world.app.object_id)
        choice = chance.choice(kinds + (graph if op.endswith("Password") else []))
        nth, times = chance.choice([1, 1, 2]), chance.choice([1, 1, 2])
        fleet.first.sandbox.faults.add(Fault(op, nth=nth, times=times, about=about, **choice))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", SEEDS)
def test_under_random_faults_nothing_is_lost_and_the_next_run_completes(seed: int) -> None:
    chance = random.Random(seed)
    with make_fleet(NUMBER) as fleet:
        judge = FleetJudge(fleet)
        some_faults(fleet, chance)
        result = fleet.run(concurrency=64)
        fired = len(fleet.first.sandbox.faults.fired)
        judge.judge(result)
        fleet.first.sandbox.faults.clear()
        again = fleet.run(concurrency=64, rotate="expiring")
        judge.leaks(again)
        judge.complete()
        assert judge.verdict.problems == [], f"seed {seed}"
        assert not again.failed, again.message
        assert fired > NUMBER / 6
        assert result.output["counts"]["rotated"] > NUMBER / 2


def when(fleet: FleetWorld, op: str, number: int, act: Callable[[int], None]) -> Callable[[int], None]:
    """Return what is told the process of a run, and does this to it at that request of this kind."""
    seen, lock, pids = [0], threading.Lock(), []

    def watch(sandbox: object, entry: object) -> None:
        with lock:
            seen[0] += getattr(entry, "op", "") == op
            if seen[0] == number and pids:
                act(pids.pop())

    fleet.first.sandbox.watch(watch)
    return pids.append


@pytest.mark.parametrize("op", ["addPassword", "removePassword"])
def test_a_signal_ends_it_with_the_truth_about_each(op: str) -> None:
    with make_fleet(18, retire_after="3s") as fleet:
        judge = FleetJudge(fleet)
        fleet.first.sandbox.faults.latency = lambda op: 0.03
        result = fleet.run(concurrency=6, watch=when(fleet, op, 9, lambda pid: os.kill(pid, signal.SIGTERM)))
        judge.judge(result)
        assert result.failed
        assert "interrupted by SIGTERM" in result.said()
        again = fleet.run(concurrency=24, rotate="expiring", retire_after="0")
        judge.leaks(again)
        judge.complete()
        assert judge.verdict.problems == []
        assert not again.failed, again.message


def test_a_first_look_that_drips_in_keeps_no_other_from_its_rotation() -> None:
    """The time of a first look is longer than that of the others, which are done by then."""
    with make_fleet(4) as fleet:
        slow = fleet.worlds[1]
        drip = Fault("get_application", about=slow.app.object_id, kind="drip", seconds=5.0, times=1)
        fleet.first.sandbox.faults.add(drip)
        result = fleet.run()
        assert result.output["counts"] == {"rotated": 4}, result.said()


def test_a_signal_in_the_first_look_ends_it_with_nothing_changed() -> None:
    with make_fleet(6) as fleet:
        fleet.first.sandbox.faults.add(Fault("get_application", kind="graph429", retry_after=600, times=1))
        pids: list[int] = []

        def stop(op: str) -> float:
            if op == "get_application" and pids:
                os.kill(pids.pop(), signal.SIGTERM)
            return 0.0

        fleet.first.sandbox.faults.latency = stop
        began = time.monotonic()
        result = fleet.run(watch=pids.append)
        assert time.monotonic() - began < HANGS
        assert result.output["counts"] == {"refused": 6}, result.said()
        assert "interrupted by SIGTERM" in result.said()
        assert all(world.untouched() for world in fleet.worlds)


def test_where_nobody_waits_for_its_result_it_ends_early(tmp_path: Path) -> None:
    """What has called it is gone, and has passed no signal on."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n{sys.executable} "$@" | true\n', "utf-8")
    python.chmod(0o755)
    with make_fleet(12, retire_after="0") as fleet:
        judge = FleetJudge(fleet)
        assert fleet.run(concurrency=1, python=str(python)).stdout == ""
        made = [entry.op for entry in fleet.first.sandbox.log].count("addPassword")
        assert made < 6
        again = fleet.run(concurrency=12, rotate="expiring")
        judge.leaks(again)
        judge.complete()
        assert judge.verdict.problems == []


@pytest.mark.parametrize("op", ["update_secret", *(["addPassword", "removePassword"] if FULL else [])])
def test_one_that_was_killed_is_completed_by_the_next(op: str) -> None:
    with make_fleet(16) as fleet:
        judge = FleetJudge(fleet)
        result = fleet.run(concurrency=8, watch=when(fleet, op, 6, lambda pid: os.kill(pid, signal.SIGKILL)))
        assert result.returncode == -9
        again = fleet.run(concurrency=16, rotate="expiring")
        judge.leaks(again)
        judge.complete()
        assert judge.verdict.problems == []
        assert not again.failed, again.message


def test_two_fleets_at_the_same_time_lose_nothing() -> None:
    with make_fleet(10) as fleet:
        judge = FleetJudge(fleet)
        fleet.first.sandbox.faults.latency = lambda op: 0.02
        with ThreadPoolExecutor(2) as pool:
            orders = fleet.uids(), list(reversed(fleet.uids()))
            results = list(pool.map(lambda uids: fleet.run(records=uids), orders))
        for result in results:
            judge.leaks(result)
        again = fleet.run(concurrency=16, rotate="expiring")
        judge.leaks(again)
        judge.complete()
        assert judge.verdict.problems == []
        assert not again.failed, again.message
        assert all(entry["status"] != "error" for result in results for entry in result.output["results"])


def test_a_rotation_survives_throttling_wherever_it_is() -> None:
    faults = [
        Fault("update_secret", nth=3, times=2, kind="throttled429"),
        Fault("get_secret", nth=2, kind="throttled403"),
        Fault("addPassword", nth=3, times=3, kind="graph429", retry_after=2),
        Fault("removePassword", nth=3, times=2, kind="graph429", retry_after=2),
        Fault("get_application", nth=3, times=2, kind="graph429", retry_after=2),
    ]
    with make_fleet(10) as fleet:
        judge = FleetJudge(fleet)
        for fault in faults:
            fleet.first.sandbox.faults.add(fault)
        result = fleet.run()
        judge.judge(result)
        judge.complete()
        assert judge.verdict.problems == []
        assert result.message == "ROTATED 10 records: 10 rotated."
        assert {fault.op for fault in fleet.first.sandbox.faults.fired} == {fault.op for fault in faults}
        said = " ".join(result.output["steps"])
        assert "Keeper throttles update_secret" in said
        assert "Keeper throttles get_secret" in said
        assert "Graph throttles" in said


def test_undisturbed_it_keeps_to_keeper_s_counter() -> None:
    with make_fleet(110) as fleet:
        fleet.first.sandbox.vault.throttle = True
        result = fleet.run(concurrency=64)
        assert result.message == "ROTATED 110 records: 110 rotated."
        assert [entry for entry in fleet.first.sandbox.log if entry.status == 429] == []
        assert result.output["steps"][-1].endswith("0 requests were throttled")
