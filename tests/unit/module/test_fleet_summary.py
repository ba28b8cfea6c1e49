# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module says of a fleet: the counts first, the failures last, and no more than an event of AWX holds."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.keeperpam.azure.plugins.module_utils._fleet import bounded_results, summary


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
