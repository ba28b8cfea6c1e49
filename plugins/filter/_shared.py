# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin is PRIVATE to the keeperpam.azure collection. It may change at any time.

from __future__ import annotations

DOCUMENTATION = r"""
name: _shared
short_description: Find records that name one application
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - Each rotation would remove secrets that the other record shows, or may do so. Waves are calls of their own, which do
    not see each other's records.
  - As with M(keeperpam.azure.app_secret), O(adopt) counts in place of what the records say, and of two records one must
    adopt the other.
  - This filter is PRIVATE to the collection. It may change at any time.
positional: adopt
options:
  _input:
    description:
      - The variables of hosts of the inventory P(keeperpam.azure.app_records#inventory).
    type: list
    elements: dict
    required: true
  adopt:
    description: The uids of records whose secrets are given up; where there are none, the records' own count.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Check that each record has an application of its own
  ansible.builtin.assert:
    that: groups.expired | map('extract', hostvars) | keeperpam.azure._shared([]) | length == 0
"""

RETURN = r"""
_value:
  description: Why a record is not rotated, by its uid; those that may be are not there.
  type: dict
  sample:
    ZmpJl4qCXJEi0ohFKzzQaA: >-
      REFUSED ZmpJl4qCXJEi0ohFKzzQaA: it was not rotated, nothing was changed. several of the hosts name its
      application: ZmpJl4qCXJEi0ohFKzzQaA and DpR8i4oUY7LfnmYeumxFaw. Next: leave one of them
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any


def shared(hosts: Iterable[Mapping[str, Any]], adopt: Collection[str]) -> dict[str, str]:
    """Return why a record is not rotated whose application others name that it neither adopts nor is adopted by."""
    found: dict[str, dict[str, set[str]]] = {}
    for host in hosts:
        application = str(host.get("keeper_application_object_id") or "").lower()
        if application:
            adopted = set(adopt or host.get("keeper_adopt") or ())
            found.setdefault(application, {})[str(host.get("keeper_record"))] = adopted
    return {
        uid: _refusal([uid, *others])
        for adopted in found.values()
        for uid in adopted
        for others in [[one for one in adopted if one not in {uid, *adopted[uid]} and uid not in adopted[one]]]
        if others
    }


def _refusal(uids: list[str]) -> str:
    return (
        f"REFUSED {uids[0]}: it was not rotated, nothing was changed. several of the hosts name its application: "
        f"{' and '.join(uids)}. Next: leave one of them, or let the one that takes over adopt the other, with its "
        "field adopt or with rotate_adopt."
    )


class FilterModule:
    """The filter, by its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it."""
        return {"_shared": shared}
