# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What comes from outside is no template. PRIVATE to the collection: it may change at any time."""

from __future__ import annotations

from typing import Any

from ansible import template


def untrusted(value: Any) -> Any:
    """Return data from outside in a form that Ansible never takes for a template, whatever is in it."""
    if hasattr(template, "trust_as_template"):  # from ansible-core 2.19 on nothing is one that was not said to be
        return value
    if isinstance(value, dict):
        return {key: untrusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [untrusted(item) for item in value]
    if not isinstance(value, str) or "{" not in value:
        return value  # as plain as it is, others than Ansible can read it in what ansible-inventory lists
    from ansible.utils.unsafe_proxy import wrap_var

    wrapped: Any = wrap_var(value)
    return wrapped
