# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever disturbs a run, nothing is lost, the truth is told, and the next run ends complete.

By default a part of the matrix is run; all of it with ``KEEPERPAM_MATRIX=full``. Most of it is waiting: give pytest
three times as many processes as there are cores (``-n 6`` on two). ``KEEPERPAM_MATRIX='script/addPassword/*'`` chooses
by name. The tables are printed in short at the end, and written to tests/output/matrix.md.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from matrix import Case, chosen, run_all
from report import to_plain

#: As many cases in one test as keep its threads busy.
PORTION = 24


def _portions() -> list[list[Case]]:
    # Dealt out like cards, so that the slow ones of a row do not meet in one test.
    cases = chosen()
    number = -(-len(cases) // PORTION)
    return [cases[start::number] for start in range(number)]


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage would cost each of the some thousand processes 0.15 s, and other tests run the same lines."""
    monkeypatch.delenv("MODULE_COVERAGE", raising=False)


@pytest.mark.parametrize("cases", [pytest.param(one, id=f"{len(one)}-from-{one[0].name}") for one in _portions()])
def test_nothing_is_lost(cases: list[Case], record_property: Callable[[str, object], None]) -> None:
    verdicts = run_all(cases)
    for verdict in verdicts:
        record_property("matrix", to_plain(verdict))
    red = [f"{one.name}: {'; '.join(one.problems)}\n{one.said}" for one in verdicts if one.red]
    assert not red, f"{len(red)} of {len(verdicts)} cases\n" + "\n".join(red)
