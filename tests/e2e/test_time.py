# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run is over within five minutes: where nobody answers, where an answer drips in, where the vault throttles.

Those that take up to a minute are run with ``KEEPERPAM_MATRIX=full`` alone. No time is asserted but the upper bound.
"""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base import timing
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import Policy
from harness import FORMS, Result, World, make_world
from judge import BOUND, Judge

from sandbox import Fault

full = pytest.mark.skipif(os.environ.get("KEEPERPAM_MATRIX") != "full", reason="KEEPERPAM_MATRIX=full runs it")


def in_both_forms(check: Any) -> None:
    """Call ``check`` with either form, at once."""
    with ThreadPoolExecutor(len(FORMS)) as pool:
        for done in [pool.submit(check, form) for form in FORMS]:
            done.result()


def judged(world: World, form: str, patient: bool = True, **options: Any) -> Result:
    """Run once; the judge must be content with status, words and time."""
    judge = Judge(world, form, patient)
    arguments = ("--debug",) if form == "script" else ()
    result = judge.disturbed(lambda: FORMS[form](world, *arguments, **options))
    assert not judge.verdict.problems, f"{judge.verdict.problems}\n{judge.verdict.said}"
    assert result is not None
    return result


@contextmanager
def black_hole() -> Iterator[str]:
    """A port that takes connections and says nothing, not even its part of the handshake."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"localhost:{listener.getsockname()[1]}"


@full
@pytest.mark.parametrize("seconds", [5.2, 4.4, 9.0])
def test_a_slow_network(seconds: float) -> None:
    def check(form: str) -> None:
        with make_world() as world:
            world.app.add_secret("second", days=100)
            world.sandbox.faults.latency = lambda op: seconds
            judged(world, form, patient=False)

    in_both_forms(check)


def test_the_phases_of_the_longest_run_end_in_time() -> None:
    policy = Policy()
    made = timing.RESOLVE + timing.ROOM + policy.retire_after.total_seconds() + timing.CREATE + policy.verify_timeout
    assert made + timing.PUBLISH + timing.SETTLE + timing.RETIRE + timing.REVIEW <= BOUND
    assert made + timing.PUBLISH + timing.UNDO <= BOUND


def test_a_proof_that_is_never_answered() -> None:
    def check(form: str) -> None:
        fields = {"verify_timeout": "3"} if form == "script" else {}
        with make_world(**fields) as world:
            world.sandbox.faults.add(Fault("token", nth=2, kind="delay", seconds=BOUND, times=None))
            result = judged(world, form, **({} if fields else {"verify_timeout": 3}))
            assert result.status == "rolled_back"

    in_both_forms(check)


def test_a_proof_that_drips_in() -> None:
    def check(form: str) -> None:
        fields = {"verify_timeout": "3"} if form == "script" else {}
        with make_world(**fields) as world:
            world.sandbox.faults.add(Fault("token", nth=2, kind="drip", seconds=0.5, times=None))
            result = judged(world, form, **({} if fields else {"verify_timeout": 3}))
            assert result.status == "rolled_back"

    in_both_forms(check)


@full
@pytest.mark.parametrize("service", ["keeper", "entra", "graph"])
def test_a_black_hole(service: str) -> None:
    def check(form: str) -> None:
        with make_world() as world, black_hole() as nowhere:
            config = world.sandbox.client_config()
            if service == "keeper":
                config["hostname"] = nowhere
            elif service == "entra":
                world.configuration.edit("Azure Authority FQDN", nowhere)
            else:  # Entra gives no tokens for another Graph
                world.sandbox.faults.add(Fault("get_application", kind="delay", seconds=BOUND, times=None))
            environ = {"GATEWAY_CONFIG": base64.b64encode(json.dumps(config).encode()).decode()}
            options = {"environ": environ} if form == "script" else {"keeper_config": json.dumps(config)}
            assert judged(world, form, **options).status == "refused"
            assert world.untouched()

    in_both_forms(check)


@full
@pytest.mark.parametrize(
    ("op", "nth", "statuses"),
    [
        ("get_secret", 1, {"refused"}),
        ("discovery", 1, {"refused"}),
        ("token", 1, {"refused"}),
        ("get_application", 1, {"refused"}),
        ("addPassword", 1, {"rolled_back"}),
        ("update_secret", 1, {"rotated", "incomplete"}),
        ("get_secret", 2, {"incomplete"}),
        ("get_application", 2, {"incomplete"}),
        ("removePassword", 1, {"rotated", "incomplete"}),
    ],
)
def test_answers_that_drip_in_for_ever(op: str, nth: int, statuses: set[str]) -> None:
    def check(form: str) -> None:
        with make_world() as world:
            world.sandbox.faults.add(Fault(op, nth=nth, moment="after", kind="drip", seconds=1, times=None))
            assert judged(world, form).status in statuses

    in_both_forms(check)


@full
@pytest.mark.parametrize("op", ["addPassword", "update_secret", "removePassword"])
def test_requests_that_are_never_answered(op: str) -> None:
    def check(form: str) -> None:
        with make_world() as world:
            world.sandbox.faults.add(Fault(op, moment="after", kind="delay", seconds=BOUND, times=None))
            judged(world, form)

    in_both_forms(check)
