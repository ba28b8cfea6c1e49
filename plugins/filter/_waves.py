# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This plugin is PRIVATE to the keeperpam.azure collection. It may change at any time.

from __future__ import annotations

DOCUMENTATION = r"""
name: _waves
short_description: Read the sizes of waves as people write them down
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - Takes a number, a percentage, or several as a list or with commas between them.
  - This filter is PRIVATE to the collection. It may change at any time.
options:
  _input:
    description: What was given. Where that is nothing, all hosts are one wave.
    type: raw
    required: true
"""

EXAMPLES = r"""
- name: Show the sizes
  ansible.builtin.debug:
    msg: "{{ '1, 25%, 100%' | keeperpam.azure._waves }}"
"""

RETURN = r"""
_value:
  description: The sizes as C(serial) of a play takes them; nothing where one of them cannot be read.
  type: list
  elements: str
  sample: ["1", "25%", "100%"]
"""

import re
from collections.abc import Callable
from typing import Any

_SIZE = re.compile(r"[1-9][0-9]{0,5}|(?:[1-9][0-9]?|100)%")


def waves(value: Any) -> list[str]:
    """Return the sizes that somebody gave; none where one of them is none."""
    given = "100%" if value in (None, "", []) else value
    items = given if isinstance(given, (list, tuple)) else [given]
    sizes = [size.strip() for item in items for size in str(item).split(",")]
    return sizes if all(_SIZE.fullmatch(size) for size in sizes) else []


class FilterModule:
    """The filter, by its name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return it."""
        return {"_waves": waves}
