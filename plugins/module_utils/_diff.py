# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What --diff shows of rotations: key ids and ends, of the records and of the applications.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ._core.rotation.outcome import Outcome


def diff(outcome: Outcome) -> dict[str, Any]:
    """Return the diff of one rotation."""
    facts = outcome.facts
    before = facts.get("secrets_before", {})
    gone = set(facts.get("would_remove" if outcome.status == "planned" else "removed", []))
    after = {key_id: end for key_id, end in before.items() if key_id not in gone}
    new = facts.get("key_id") or "(a new one)"
    shown_before = {"client_secret_id": facts.get("previous_key_id"), "expires": facts.get("previous_expires")}
    shown_after = dict(shown_before)
    if outcome.changed and facts.get("expires"):
        after[new] = facts["expires"]
        shown_after = {"client_secret_id": new, "expires": facts["expires"]}
    return {
        "before": {"record": shown_before, "secrets": before},
        "after": {"record": shown_after, "secrets": after},
    }


def of_record(uid: str, title: str, outcome: Outcome) -> dict[str, Any]:
    """Return the diff of one rotation of several, under the name of its record."""
    name = f"{title!r} ({uid})"
    return {"before_header": name, "after_header": name, **diff(outcome)}


def bounded(diffs: Iterable[dict[str, Any]], largest: int) -> list[dict[str, Any]]:
    """Return the diffs in which something changes, as many as there is room for, and how many are left out."""
    changes = [one for one in diffs if one["before"] != one["after"]]
    shown: list[dict[str, Any]] = []
    for one in changes:
        # Ansible's callbacks put this form in the place of the other.
        largest -= len(json.dumps(one, indent=4))
        if largest < 0:
            left = len(changes) - len(shown)
            return [*shown, {"prepared": f"{left} more are left out, as they are too large: see results.\n"}]
        shown.append(one)
    return shown
