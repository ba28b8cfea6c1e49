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
      - The results of M(keeperpam.azure.app_secret) in check mode, in a loop over the uids of records.
      - Or the variables of hosts of the inventory P(keeperpam.azure.app_records#inventory).
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
    that: looks.results | keeperpam.azure._shared([]) | length == 0
"""

RETURN = r"""
_value:
  description: A sentence for each application that several records name.
  type: list
  elements: str
  sample: ["the records ZmpJl4qCXJEi0ohFKzzQaA and DpR8i4oUY7LfnmYeumxFaw name the same application, billing-api"]
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def shared(looks: Iterable[Mapping[str, Any]], adopt: Iterable[str]) -> list[str]:
    """Return a sentence for each application that several records name and not all but one of them give up."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for look in looks:
        application = look.get("application") or {"object_id": look.get("keeper_application_object_id")}
        if application.get("object_id"):
            found.setdefault(str(application["object_id"]).lower(), []).append(look)
    given_up = set(adopt)
    sentences = []
    for group in found.values():
        names = [str(look.get("item") or look.get("keeper_record")) for look in group]
        if len(set(names) - given_up) > 1:
            title = (group[0].get("application") or {}).get("display_name") or "an application"
            sentences.append(f"the records {' and '.join(names)} name the same application, {title}")
    return sentences


class FilterModule:
    """The filter, by its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it."""
        return {"_shared": shared}
