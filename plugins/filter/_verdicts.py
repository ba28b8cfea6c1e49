# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin is PRIVATE to the keeperpam.azure collection. It may change at any time.

from __future__ import annotations

DOCUMENTATION = r"""
name: _verdicts
short_description: Say how the rotations of several records ended
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - The counts come first and the failures last, where people look.
  - This filter is PRIVATE to the collection. It may change at any time.
options:
  _input:
    description: The entries of M(keeperpam.azure.app_secret) with O(keeperpam.azure.app_secret#module:records).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Say how each ended
  ansible.builtin.debug:
    msg: "{{ done.results | keeperpam.azure._verdicts }}"
"""

RETURN = r"""
_value:
  description: A line with the counts, then one for each record.
  type: list
  elements: str
  sample: ["2 records: 1 rotated, 1 refused"]
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# The best ends come first.
_ORDER = ("rotated", "unchanged", "planned", "incomplete", "orphan", "rolled_back", "refused", "bad_input", "error")


def verdicts(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return how each record's rotation ended, a line each: the counts first, the failures last."""
    ordered = sorted(results, key=lambda result: bool(result.get("failed")))
    statuses = Counter(str(result["status"]) for result in ordered)
    ranks = {status: rank for rank, status in enumerate(_ORDER)}
    counts = sorted(statuses.items(), key=lambda item: ranks.get(item[0], len(ranks)))
    total = f"{len(ordered)} record{'' if len(ordered) == 1 else 's'}"
    return [f"{total}: " + ", ".join(f"{number} {status}" for status, number in counts), *map(_verdict, ordered)]


def _verdict(result: Mapping[str, Any]) -> str:
    return " ".join(str(result["msg"]).split())


class FilterModule:
    """The filter, by its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it."""
        return {"_verdicts": verdicts}
