# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which records of a fleet are its trial."""

from __future__ import annotations

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.running import in_order


@pytest.mark.parametrize(
    ("canary", "last", "idle", "order", "trial"),
    [
        (0, "", "a", "abcd", 0),
        (2, "", "", "abcd", 2),
        (2, "", "ac", "bdac", 2),
        (3, "", "ac", "bdac", 3),
        (1, "a", "", "bacd", 1),
        (1, "ab", "cd", "cabd", 1),
        (9, "a", "b", "cdba", 3),
        (1, "abcd", "", "abcd", 0),
    ],
)
def test_the_trial_is_of_those_that_need_a_secret_and_of_no_admin(canary, last, idle, order, trial):
    assert in_order("abcd", canary, last, idle) == (list(order), trial)
