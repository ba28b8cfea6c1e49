# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of the fault matrix as tables: how each disturbed run ended, and what was wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from judge import KINDS, Verdict
from matrix import DISTURBANCES, MOMENTS, PLACES, all_cases

OUTPUT = Path(__file__).resolve().parents[1] / "output" / "matrix.md"
_WORDS = {
    "lost": "a record showed a dead secret",
    "early": "shown too early",
    "wrong": "wrong end state or message",
    "leak": "a secret got out",
    "stuck": "did not end in time",
    "unmended": "the next run did not complete",
    "foreign": "something else was changed",
    "idle": "the disturbance did not happen",
}
_TITLES = {"lasting": "Disturbances that last", "slow stores": "Stores that are slow to agree"}


def to_plain(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as pytest-xdist can carry it."""
    return {**asdict(verdict), "said": ""}


def tables(results: Iterable[dict[str, Any]]) -> str:
    """Return the report in Markdown."""
    by_name = {result["name"]: result for result in results}
    cases = [case for case in all_cases() if case.name in by_name]
    cells: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for case in cases:
        result = by_name[case.name]
        mark = ("**wrong** " if result["problems"] else "") + result["status"].replace("_", " ")
        cells.setdefault((case.row, case.moment, case.column), []).append((case.form, mark))
    lines = ["# Fault matrix", "", *summary(by_name.values()), ""]
    for service, columns in DISTURBANCES.items():
        rows = [(place.name, moment) for place in PLACES if place.service == service for moment in MOMENTS]
        lines += _table(f"Requests to {service.capitalize()}", rows, list(columns), cells)
    for column in dict.fromkeys(case.column for case in cases if not case.moment):
        title = _TITLES.get(column, column.capitalize())
        rows = list(dict.fromkeys((case.row, "") for case in cases if case.column == column))
        lines += _table(title, rows, [column], cells, heads=["end"])
    wrong = [f"- `{name}`: {'; '.join(one['problems'])}" for name, one in by_name.items() if one["problems"]]
    return "\n".join([*lines, *(["## Wrong", "", *wrong, ""] if wrong else [])])


def summary(results: Iterable[dict[str, Any]]) -> list[str]:
    """Return the counts, one to a line: of all, and of each class."""
    results = list(results)
    statuses = Counter(one["status"].replace("_", " ") for one in results)
    longest = max((one["seconds"] for one in results), default=0.0)
    classes = Counter(one["group"] for one in results)
    return [
        f"{len(results)} cases; the longest run took {longest:.0f} s.",
        "Ends: " + ", ".join(f"{status} {count}" for status, count in statuses.most_common()) + ".",
        "Wrong: " + _wrong(results) + ".",
        *(_of_class(name, [one for one in results if one["group"] == name]) for name in classes),
    ]


def _wrong(results: list[dict[str, Any]]) -> str:
    problems = Counter(kind for one in results for kind in {text.split(":")[0] for text in one["problems"]})
    return ", ".join(f"{_WORDS[kind]} {problems[kind]}" for kind in KINDS)


def _of_class(name: str, results: list[dict[str, Any]]) -> str:
    red = [one for one in results if one["problems"]]
    early, gaps, exempt = (sum(one[what] for one in results) for what in ("early", "gaps", "exempt"))
    more = f" ({_wrong(red)})" if red else ""
    shown = f", {early} shown before every replica knew them" if early else ""
    shown += f", {gaps} of these after their predecessors were gone" if gaps else ""
    known = f", {exempt} that no run can know" if exempt else ""
    return f"- {name}: {len(results)} cases, {len(red)} red{more}{shown}{known}."


def write(results: Iterable[dict[str, Any]]) -> list[str]:
    """Write the report to its file; return what is worth a look on the terminal."""
    results = list(results)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(tables(results), encoding="utf-8")
    wrong = [f"{one['name']}: {'; '.join(one['problems'])}" for one in results if one["problems"]]
    return [*summary(results), *wrong, f"The table is in {OUTPUT.relative_to(OUTPUT.parents[2])}."]


def _table(
    title: str,
    rows: list[tuple[str, str]],
    columns: list[str],
    cells: dict[tuple[str, str, str], list[tuple[str, str]]],
    heads: list[str] | None = None,
) -> list[str]:
    shown = [row for row in rows if any((*row, column) in cells for column in columns)]
    if not shown:
        return []
    lines = [f"## {title}", "", "| | " + " | ".join(heads or columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in shown:
        found = [_cell(cells.get((*row, column), [])) for column in columns]
        lines.append("| " + " | ".join([", ".join(filter(None, row)), *found]) + " |")
    return [*lines, ""]


def _cell(marks: list[tuple[str, str]]) -> str:
    """One word where the forms agree."""
    if len({mark for _form, mark in marks}) <= 1:
        return marks[0][1] if marks else ""
    return ", ".join(f"{form}: {mark}" for form, mark in marks)
