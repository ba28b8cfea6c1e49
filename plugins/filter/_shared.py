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
  - Each rotation would remove secrets that the other record shows, or may do so.
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
    description: The uids of records whose secrets are given up. All but one of those that name one application may be.
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
  description: A sentence for each application that several records name.
  type: list
  elements: str
  sample: ["the records ZmpJl4qCXJEi0ohFKzzQaA and DpR8i4oUY7LfnmYeumxFaw name the same application"]
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def shared(hosts: Iterable[Mapping[str, Any]], adopt: Iterable[str]) -> list[str]:
    """Return a sentence for each application that several records name and not all but one of them give up."""
    found: dict[str, list[str]] = {}
    for host in hosts:
        application = str(host.get("keeper_application_object_id") or "").lower()
        if application:
            found.setdefault(application, []).append(str(host.get("keeper_record")))
    given_up = set(adopt)
    return [
        f"the records {' and '.join(uids)} name the same application"
        for uids in found.values()
        if len(set(uids) - given_up) > 1
    ]


class FilterModule:
    """The filter, by its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it."""
        return {"_shared": shared}
