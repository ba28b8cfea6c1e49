# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module says of a fleet: the counts first, the failures last, and no more than an event of AWX holds."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.outcome import Outcome
from ansible_collections.keeperpam.azure.plugins.module_utils._diff import of_record
from ansible_collections.keeperpam.azure.plugins.module_utils._fleet import (
    _ALWAYS,
    _FACTS,
    _SHORT,
    bounded_results,
    summary,
)
from ansible_collections.keeperpam.azure.plugins.modules.app_secret import RETURN


def entry(number: int, status: str = "rotated", **facts: Any) -> dict[str, Any]:
    """The result of one record."""
    failed = status not in ("rotated", "unchanged", "planned")
    message = f"{status.upper()} 'app-{number}' (uid-{number}): what. why. Next: step."
    return {
        "record": f"uid-{number}",
        "title": f"app-{number}",
        "status": status,
        "changed": not failed,
        "failed": failed,
        "msg": message,
        **facts,
    }


def test_the_counts_come_first_and_the_failures_last():
    found = summary([entry(1, "refused"), entry(2), entry(3, "unchanged"), entry(4, "incomplete")])
    assert found["status"] == "incomplete"
    assert found["msg"] == (
        "INCOMPLETE 4 records: 1 unchanged, 1 rotated, 1 refused, 1 incomplete. "
        "REFUSED 'app-1' (uid-1): what. why. Next: step. INCOMPLETE 'app-4' (uid-4): what. why. Next: step."
    )
    assert (found["failed"], found["changed"]) == (True, True)
    assert found["counts"] == {"unchanged": 1, "rotated": 1, "refused": 1, "incomplete": 1}


def test_a_thousand_failures_are_not_all_named():
    found = summary([entry(number, "refused") for number in range(1000)])
    assert len(found["msg"]) < 10_000
    assert "980 more have failed, see results." in found["msg"]


def test_large_results_lose_what_is_least_needed():
    kept = [{"key_id": "k" * 36, "reason": "r" * 300}] * 3
    entries = [entry(number, kept=kept, key_id="k" * 36) for number in range(1000)]
    found = bounded_results(entries)
    assert len(json.dumps(found)) < 600_000
    assert all("kept" not in one and one["key_id"] == "k" * 36 for one in found)
    assert found[999]["msg"] == entries[999]["msg"]


def test_messages_are_cut_where_that_is_not_enough():
    entries = [{**entry(number, "refused"), "msg": "REFUSED " + "m" * 1900} for number in range(1000)]
    found = bounded_results(entries)
    assert len(json.dumps(found)) < 600_000
    assert all(one["msg"].startswith("REFUSED ") for one in found)


def test_small_results_are_left_alone():
    entries = [entry(1, kept=[{"key_id": "a", "reason": "b"}])]
    assert bounded_results(entries) == entries


def change(number: int, **facts: Any) -> dict[str, Any]:
    """The diff of one record."""
    before = {"previous_key_id": "a" * 36, "secrets_before": {"a" * 36: "2026-12-01T16:00:22.3926920Z"}}
    return of_record(f"uid-{number}", f"app-{number}", Outcome("rotated", 0, "", True, {**before, **facts}))


def rotated(number: int) -> dict[str, Any]:
    """The diff of one record whose secret is another now."""
    return change(number, key_id="b" * 36, expires="2027-09-09T19:50:29.3086381Z", removed=["a" * 36])


def test_each_change_has_a_diff_with_the_name_of_its_record():
    found = summary([entry(1), entry(2)], [rotated(1), rotated(2)])["diff"]
    assert [one["before_header"] for one in found] == ["'app-1' (uid-1)", "'app-2' (uid-2)"]
    assert [one["after_header"] for one in found] == ["'app-1' (uid-1)", "'app-2' (uid-2)"]
    assert found[0]["before"]["secrets"] == {"a" * 36: "2026-12-01T16:00:22.3926920Z"}
    assert found[0]["after"]["secrets"] == {"b" * 36: "2027-09-09T19:50:29.3086381Z"}


def test_what_has_not_changed_has_no_diff():
    assert summary([entry(1, "unchanged"), entry(2)], [change(1), rotated(2)])["diff"] == [rotated(2)]


@pytest.mark.parametrize("message", ["m" * 150, "m" * 1900])
def test_with_the_diffs_of_a_thousand_the_result_stays_what_an_event_holds(message: str):
    entries = [{**entry(number, key_id="k" * 36), "msg": message} for number in range(1000)]
    found = summary(entries, [rotated(number) for number in range(1000)])
    assert len(json.dumps(found["results"])) + len(json.dumps(found["diff"])) < 620_000
    # The callbacks of Ansible put the indented form in place of each diff, and AWX keeps that and the text made of it.
    assert len(json.dumps(found["diff"], indent=4)) < 300_000
    *shown, last = found["diff"]
    assert shown == [rotated(number) for number in range(len(shown))]
    assert last == {"prepared": f"{1000 - len(shown)} more are left out, as they are too large: see results.\n"}


def test_the_diffs_of_a_hundred_are_all_shown():
    found = summary([entry(number) for number in range(100)], [rotated(number) for number in range(100)])
    assert found["diff"] == [rotated(number) for number in range(100)]


def test_the_documentation_names_what_an_entry_holds():
    returned = yaml.safe_load(RETURN)
    whole, short = (re.findall(r"RV\((\w+)\)", text) for text in returned["results"]["description"])
    assert set(returned["results"]["contains"]) == set(_ALWAYS)
    assert (set(whole), set(short)) == (set(_FACTS), set(_SHORT))
    assert set(_FACTS) <= set(returned)
