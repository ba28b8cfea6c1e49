# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every error is one line that says what, why and what to do next, and has its exit status."""

from __future__ import annotations

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base import errors
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import printable
from hypothesis import given, settings
from hypothesis import strategies as st

# Section 4 of the design.
END_STATES = [
    (errors.RotationError, "error", 1),
    (errors.BadInput, "bad_input", 2),
    (errors.Refused, "refused", 3),
    (errors.RolledBack, "rolled_back", 4),
    (errors.Incomplete, "incomplete", 5),
    (errors.Orphan, "orphan", 6),
]


@pytest.mark.parametrize(("kind", "status", "exit_status"), END_STATES)
def test_each_end_state_has_its_exit_status(kind, status, exit_status):
    problem = kind("it failed", key_id="k")
    assert (problem.status, problem.exit_status) == (status, exit_status)
    assert problem.facts == {"key_id": "k"}
    assert isinstance(problem, errors.RotationError)


def test_no_error_is_without_an_end_state():
    kinds = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert kinds == {kind for kind, status, exit_status in END_STATES}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("it failed",), "it failed."),
        (("it failed!",), "it failed!"),
        (("it failed", "no room"), "it failed: no room."),
        (("it failed", "no room."), "it failed: no room."),
        (("it failed", "", "make room"), "it failed. Next: make room."),
        (("it failed", "no room", "make room."), "it failed: no room. Next: make room."),
        (("two\nlines", "a\r\nb", "c\t d"), "two lines: a b. Next: c d."),
    ],
)
def test_the_message(parts, message):
    assert errors.RotationError(*parts).message == message
    assert str(errors.RotationError(*parts)) == message


@settings(max_examples=60)
@given(st.text(), st.text(), st.text())
def test_the_message_is_one_line_and_has_every_part(what, why, todo):
    message = errors.Refused(what, why, todo).message
    assert message.isprintable()
    for part in (what, why, todo.rstrip(". ")):
        assert printable(" ".join(part.split())).rstrip(".") in message


@pytest.mark.parametrize("kind", [errors.Stopped, errors.OutOfTime])
def test_no_library_swallows_a_stop(kind):
    assert not issubclass(kind, Exception)
    assert issubclass(errors.OutOfTime, errors.Stopped)
