# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Making a secret: what was not asked for leaves nothing behind, and nothing to look for."""

from __future__ import annotations

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import OutOfTime
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.making import Making
from core_samples import NOW, application


class Closed:
    """In place of Graph, where nobody gets a turn."""

    def await_turn(self, name: str) -> None:
        raise OutOfTime(f"no time left to wait for {name}")


def test_a_secret_whose_turn_never_came_was_not_tried():
    making = Making(Closed(), application(), "keeper/x", Budget(), Log(print))  # type: ignore[arg-type]
    with pytest.raises(OutOfTime, match="addPassword"):
        making.make(NOW)
    assert (making.tried, making.unanswered(), making.undo()) == (False, False, None)
