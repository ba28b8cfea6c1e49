# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin is PRIVATE to the keeperpam.azure collection. It may change at any time.

from __future__ import annotations

DOCUMENTATION = r"""
name: _unmatched
short_description: Find out why a pattern of hosts matches less than somebody means
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - Ansible warns of an inventory that it cannot read and of a name that it does not know, and goes on with the hosts it
    has. A rotation that is left out that way must not look like one that was not needed.
  - A slip in what is excluded with C(!) would rotate what was meant to be left out.
  - A name with a wildcard or a regular expression is not looked at.
  - This filter is PRIVATE to the collection. It may change at any time.
positional: groups
options:
  _input:
    description: The patterns, as C(hosts) of a play has them.
    type: list
    elements: str
    required: true
  groups:
    description: The names of the hosts of each group, as the variable of this name has them.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Check that the inventory was read
  ansible.builtin.assert:
    that: "['expired', 'expiring'] | keeperpam.azure._unmatched(groups) | length == 0"
"""

RETURN = r"""
_value:
  description: What is wrong and what to do about it; nothing where each name is one of a host or a group.
  type: list
  elements: str
  sample: ["there is no host or group expird. Next: correct rotate_hosts"]
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.inventory.manager import split_host_pattern

from ..module_utils._core.fleet.hosts import STATES

_PART_OF_A_GROUP = re.compile(r"\[[-\d:]+\]$")
_NO_NAME = re.compile(r"~|.*[*?\[]")


def unmatched(patterns: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return why these patterns match less than somebody means, if they do."""
    if not set(STATES) & set(groups):
        return [
            "no inventory of keeperpam.azure.app_records was read, and Ansible only warns of one that it cannot read. "
            "Next: see the warnings above, name the inventory with -i, and set ANSIBLE_INVENTORY_UNPARSED_FAILED=1 to "
            "have Ansible fail there"
        ]
    known = {*STATES, *groups, *(host for hosts in groups.values() for host in hosts)}
    parts = split_host_pattern(list(patterns))  # type: ignore[no-untyped-call]
    names = [_PART_OF_A_GROUP.sub("", part.lstrip("&!")) for part in parts]
    unknown = [name for name in names if not _NO_NAME.match(name) and name not in known]
    return [f"there is no host or group {' nor '.join(unknown)}. Next: correct rotate_hosts"] if unknown else []


class FilterModule:
    """The filter, by its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it."""
        return {"_unmatched": unmatched}
