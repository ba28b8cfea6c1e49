# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin is PRIVATE to the keeperpam.azure collection. It may change at any time.

from __future__ import annotations

DOCUMENTATION = r"""
name: _report
short_description: Put a survey into a form for people or for programs
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - Takes the result of M(keeperpam.azure.app_secret_info), of one that failed as well.
  - This filter is PRIVATE to the collection. It may change at any time.
positional: form
options:
  _input:
    description: The result of the module.
    type: dict
    required: true
  form:
    description:
      - V(page) is what the template of the page shows, of which nothing is escaped yet.
      - V(json), V(csv) and V(metrics) are the text of a file.
      - V(verdict) is what to say at the end, and whether that is a failure.
    type: str
    choices: [page, json, csv, metrics, verdict]
    required: true
  script:
    description: The script of the page.
    type: str
    default: ''
  previous:
    description: The file with the metrics as it was.
    type: str
    default: ''
  fail_on:
    description: The bucket from which on the verdict is a failure.
    type: str
    choices: [critical, expiring, attention, never]
    default: critical
  written:
    description: The results of the tasks that have written the files. One that has failed makes the verdict a failure.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Say how it ended
  ansible.builtin.debug:
    msg: "{{ (survey | keeperpam.azure._report('verdict', fail_on='expiring')).text }}"
"""

RETURN = r"""
_value:
  description: A text, or a mapping for V(page) and V(verdict).
  type: raw
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..module_utils._core.fleet.judging import reaches
from ..module_utils._reporting.files import as_csv, as_json
from ..module_utils._reporting.metrics import metrics
from ..module_utils._reporting.page import page

# As many credentials as a screen shows.
_SHOWN = 20


def report(
    survey: Mapping[str, Any],
    form: str,
    script: str = "",
    previous: str = "",
    fail_on: str = "critical",
    written: Sequence[Mapping[str, Any]] = (),
) -> str | dict[str, Any]:
    """Return the survey in one of the forms."""
    forms: dict[str, Callable[[], str | dict[str, Any]]] = {
        "page": lambda: page(survey, script),
        "json": lambda: as_json(survey),
        "csv": lambda: as_csv(survey),
        "metrics": lambda: metrics(survey, previous),
        "verdict": lambda: verdict(survey, fail_on, written),
    }
    return forms[form]()


def verdict(survey: Mapping[str, Any], fail_on: str, written: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return whether the report is a failure, and the lines to say: the counts, what is at least as bad as that, and
    what could not be written."""
    lost = [_lost(one) for one in written if one.get("failed")]
    if "credentials" not in survey:
        return {"failed": True, "text": [str(survey.get("msg") or "no message"), *lost]}
    bad = [one for one in survey["credentials"] if reaches(one["bucket"], fail_on)]
    lines = [str(survey["msg"]), *map(_line, bad[:_SHOWN])]
    number = sum(count for bucket, count in survey["buckets"].items() if reaches(bucket, fail_on))
    if number > _SHOWN:
        lines.append(f"and {number - _SHOWN} more")
    return {"failed": bool(lost) or reaches(survey["worst"], fail_on), "text": lines + lost}


def _lost(result: Mapping[str, Any]) -> str:
    where = f"{result['item']['dest']}: " if "item" in result else ""
    why = str(result.get("stderr") or result.get("msg") or "no reason was given").strip(". \n")
    return f"Not written: {where}{why}. Next: see that its folder is there and may be written by the user of the play"


def _line(one: Mapping[str, Any]) -> str:
    left = "" if one["days_left"] is None else f", {one['days_left']} days left"
    where = one["application"] or one["object_id"]
    records = " ".join(record["uid"] for record in one["records"])
    what = f"{one['state'].replace('_', ' ')} {one['key_id']}".strip()
    return f"{one['bucket']} {where}: {what}{left}. Next: {one['todo'] or 'look at it'}" + (
        f" ({records})" if records else ""
    )


class FilterModule:
    """The filter, by its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it."""
        return {"_report": report}
