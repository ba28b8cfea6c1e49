# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin is PRIVATE to the keeperpam.azure collection. It may change at any time.

from __future__ import annotations

DOCUMENTATION = r"""
name: _misnamed
short_description: Find variables whose names are nearly those of a playbook or role
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - A variable that begins with the prefix of a playbook or role and has no meaning there is a slip of the pen where its
    name is nearly one that has. Others are somebody else's, and do no harm.
  - This filter is PRIVATE to the collection. It may change at any time.
positional: known, prefix
options:
  _input:
    description: The names of the variables that are set.
    type: list
    elements: str
    required: true
  known:
    description: The names of the variables that have a meaning.
    type: list
    elements: str
    required: true
  prefix:
    description: What the names begin with.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Check the names of the variables
  ansible.builtin.assert:
    that: misnamed | length == 0
    fail_msg: "There is no variable {{ misnamed | join(', ') }}"
  vars:
    names: "{{ query('ansible.builtin.varnames', '^rotate_') }}"
    misnamed: "{{ names | keeperpam.azure._misnamed(['rotate_records'], 'rotate_') }}"
"""

RETURN = r"""
_value:
  description: A hint for each slip.
  type: list
  elements: str
  sample: ["rotate_record (did you mean rotate_records?)"]
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

# How alike (0 to 1, difflib's ratio) two names are of which one is taken for a slip of the other. `lifetime` for
# `lifetime_days` has 0.76; `logs_days`, somebody's own, has 0.55.
_ALIKE = 0.75


def misnamed(names: Iterable[str], known: Sequence[str], prefix: str) -> list[str]:
    """Return a hint for each of ``names`` that is no variable of ours, begins like one and is nearly one."""
    bare = {name[len(prefix) :].lower(): name for name in known}
    hints = []
    for name in names:
        if name in known or not name.startswith(prefix):
            continue
        near = difflib.get_close_matches(name[len(prefix) :].lower(), list(bare), n=1, cutoff=_ALIKE)
        if near:
            hints.append(f"{name} (did you mean {bare[near[0]]}?)")
    return hints


class FilterModule:
    """The filter, by its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it."""
        return {"_misnamed": misnamed}
