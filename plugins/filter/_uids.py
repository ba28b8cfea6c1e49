# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin is PRIVATE to the keeperpam.azure collection. It may change at any time.

from __future__ import annotations

DOCUMENTATION = r"""
name: _uids
short_description: Read the uids of Keeper records as people write them down
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - Takes a list, or text with commas, spaces or line breaks between the uids, as a survey of AWX gives it.
  - This filter is PRIVATE to the collection. It may change at any time.
options:
  _input:
    description: What was given. What is neither a list nor text holds no uids.
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Show the uids
  ansible.builtin.debug:
    msg: "{{ 'ZmpJl4qCXJEi0ohFKzzQaA, DpR8i4oUY7LfnmYeumxFaw' | keeperpam.azure._uids }}"
"""

RETURN = r"""
_value:
  description: The uids, each once.
  type: list
  elements: str
  sample: [ZmpJl4qCXJEi0ohFKzzQaA, DpR8i4oUY7LfnmYeumxFaw]
"""

import re
from collections.abc import Callable
from typing import Any

_BETWEEN = re.compile(r"[\s,;\"'\[\]]+")


def uids(value: Any) -> list[str]:
    """Return the uids that somebody gave, each once."""
    items = value if isinstance(value, (list, tuple)) else [value]
    texts = [item for item in items if isinstance(item, str)]
    return list(dict.fromkeys(uid for text in texts for uid in _BETWEEN.split(text) if uid))


class FilterModule:
    """The filter, by its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it."""
        return {"_uids": uids}
