# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machines, booted once for all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import machines
from provision import ENDS, Provision, Shop, make_core, make_wheels

sys.path.insert(0, str(machines.CHECKOUT / "tests" / "e2e"))

from harness import make_world


@pytest.fixture(scope="session")
def provision() -> Iterator[Provision]:
    """Return the running machines with what their playbook needs. Root in CI must be able to run them."""
    reason = machines.missing()
    if reason and os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with ThreadPoolExecutor() as pool:
        wheels = pool.submit(make_wheels)
        cores = {name: pool.submit(make_core, name) for name in ENDS}
        with machines.running() as booted, make_world() as world:
            wheels.result()
            usual = {name: machine for name, machine in booted.items() if machine.release != machines.TO_COME}
            (unlike,) = (machine for name, machine in booted.items() if name not in usual)
            shop = Shop(world)
            yield Provision(usual, unlike, {name: core.result() for name, core in cores.items()}, world, shop)
            shop.closed.set()
