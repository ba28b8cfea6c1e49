# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The matrix bites: builds that are broken on purpose turn it red, each in its own way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import SCRIPT
from judge import Verdict
from matrix import Case, all_cases

CASES = (
    "script/token (proof)/after/SIGTERM",
    "script/update_secret/before/out of sync",
    "script/update_secret/after/drop",
    "script/every save is refused/lasting",
)


@dataclass(frozen=True)
class Mutation:
    """Edits of the script that break it, and what the judge must then find at least once."""

    name: str
    edits: tuple[tuple[str, str], ...]
    finds: str


MUTATIONS = (
    Mutation(
        "old secrets are retired before the new one is published",
        (
            (
                "            self._publishing.publish()\n            self._current = new\n",
                "            self._current = new\n            self._retiring.retire()\n"
                "            self._publishing.publish()\n",
            ),
        ),
        "lost: ",
    ),
    Mutation(
        "an error of the save is swallowed",
        (
            (
                "                current = self._reread()\n                if self._shows_ours(current):\n",
                "                if True:\n",
            ),
        ),
        "lost: ",
    ),
    Mutation("an orphan is not removed", (("removed = making.undo()", "removed = True"),), "wrong: rolled_back, but"),
    Mutation(
        "the secret is printed for --debug",
        (
            ('self._emit("  " + printable(scrub(text)))', 'self._emit("  " + text)'),
            (
                '            raise NotDone("Graph\'s answer to addPassword could not be read", certain=False)\n',
                '            raise NotDone("Graph\'s answer to addPassword could not be read", certain=False)\n'
                '        self._log.detail("made " + text)\n',
            ),
        ),
        "leak: ",
    ),
)


def verdicts(script: Path) -> list[Verdict]:
    """Run the cases with this script."""
    cases = [case for case in all_cases() if case.name in CASES]
    assert len(cases) == len(CASES)
    with ThreadPoolExecutor(len(cases)) as pool:
        return list(pool.map(lambda case: Case.run(case, script), cases))


def problems(script: Path) -> list[str]:
    """Return what the judge has found."""
    return [problem for verdict in verdicts(script) for problem in verdict.problems]


def test_the_unbroken_script_is_green(tmp_path: Path) -> None:
    copy = tmp_path / SCRIPT.name
    copy.write_bytes(SCRIPT.read_bytes())
    assert problems(copy) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_script_is_red(mutation: Mutation, tmp_path: Path) -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    for old, new in mutation.edits:
        assert text.count(old) == 1, f"the script has changed: {old!r} is in it {text.count(old)} times"
        text = text.replace(old, new)
    broken = tmp_path / SCRIPT.name
    broken.write_text(text, encoding="utf-8")
    found = problems(broken)
    assert any(problem.startswith(mutation.finds) for problem in found), found
