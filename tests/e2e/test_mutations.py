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
from lags import another_record, in_turn
from matrix import Case, all_cases
from people import PEOPLE_AT_WORK, REPLACES_IT, SEEN, SHOWN, Encounter

CASES = (
    "script/token (proof)/after/SIGTERM",
    "script/update_secret/before/out of sync",
    "script/update_secret/after/drop",
    "script/every save is refused/lasting",
)


def _met_in_turn() -> dict[str, Case]:
    """One case for each precaution against the many, with replicas that are met in turn."""
    shape, prompt = in_turn(0, 2, 4), in_turn(0, 0, 0)
    removes = next(person for person in PEOPLE_AT_WORK if person.name == "removes the new one")
    behind = next(case for case in all_cases() if case.name == "script/three 10 s behind/Graph replicas")
    return {
        "proof": Case("script", "proof", "mutations", list, shape=in_turn(2, 0, 4), in_turn=True),
        "look": Encounter("script", "look", "mutations", list, shape=prompt, person=removes, number=SHOWN),
        "marker": Case("script", "marker", "mutations", list, shape=another_record(shape=shape), in_turn=True),
        "gone": behind,
        "put back": Encounter("script", "put back", "mutations", list, shape=prompt, person=REPLACES_IT, number=SEEN),
    }


MET_IN_TURN = _met_in_turn()


@dataclass(frozen=True)
class Mutation:
    """Edits of the script that break it, and what the judge must then find at least once, in these cases."""

    name: str
    edits: tuple[tuple[str, str], ...]
    finds: str
    case: str = ""


MUTATIONS = (
    Mutation(
        "old secrets are retired before the new one is published",
        (
            (
                "            publishing = self._publish(new, secret, proving)\n",
                "            self._new = new\n"
                "            yield from self._settle_and_retire(new, proving, lambda record: True)\n"
                "            publishing = self._publish(new, secret, proving)\n",
            ),
        ),
        "lost: ",
    ),
    Mutation(
        "an error of the save is swallowed",
        (
            (
                '            if problem is None:\n                self._log.say(f"published in the record',
                '            if True:\n                self._log.say(f"published in the record',
            ),
        ),
        "wrong: incomplete, but the vault shows no new secret",
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
    Mutation("the proof is one sign-in", (("_IN_A_ROW = 3\n", "_IN_A_ROW = 1\n"),), "early: ", "proof"),
    Mutation(
        "old secrets are removed without a look for the new one",
        (
            (
                "            there, answer = self._look()\n            # A list",
                "            there, answer = True, Answer.TAKEN\n            # A list",
            ),
            ("good_until(self._evidence.fresh_until(self._proving.fresh_until()))", "good_until(float('inf'))"),
        ),
        "lost: rotated, but the vault's secret was taken away",
        "look",
    ),
    Mutation(
        "a secret with another record's name is removed",
        (("    if other is not None and not ours:\n", "    if False:\n"),),
        "lost: ",
        "marker",
    ),
    Mutation(
        "what is not found is taken for gone",
        (
            (
                "            self._watched[item.key_id] = _Unseen(self._budget.awake())\n",
                "            self._gone.add(item.key_id)\n",
            ),
        ),
        "unmended: ",
        "gone",
    ),
    Mutation(
        "what was shown is put back without a look at the record",
        (("if not self.shows_ours(current) or attempt > _SAVES:", "if attempt > _SAVES:"),),
        "wrong: rolled_back, and not incomplete",
        "put back",
    ),
)


def cases(name: str = "") -> list[Case]:
    """Return the cases that show a precaution to be missing."""
    found = [MET_IN_TURN[name]] if name else [case for case in all_cases() if case.name in CASES]
    assert name or len(found) == len(CASES)
    return found


def problems(script: Path, chosen: list[Case]) -> list[str]:
    """Run the cases with this script; return what the judge has found."""
    with ThreadPoolExecutor(len(chosen)) as pool:
        verdicts = list(pool.map(lambda case: case.run(script), chosen))
    return [problem for verdict in verdicts for problem in verdict.problems]


@pytest.mark.parametrize("name", ["", *MET_IN_TURN])
def test_the_unbroken_script_is_green(name: str, tmp_path: Path) -> None:
    copy = tmp_path / SCRIPT.name
    copy.write_bytes(SCRIPT.read_bytes())
    assert problems(copy, cases(name)) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_script_is_red(mutation: Mutation, tmp_path: Path) -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    for old, new in mutation.edits:
        assert text.count(old) == 1, f"the script has changed: {old!r} is in it {text.count(old)} times"
        text = text.replace(old, new)
    broken = tmp_path / SCRIPT.name
    broken.write_text(text, encoding="utf-8")
    found = problems(broken, cases(mutation.case))
    assert any(problem.startswith(mutation.finds) for problem in found), found
