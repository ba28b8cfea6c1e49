# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One family of errors. Each class is one end state of a rotation, with the exit status that tells it."""

from __future__ import annotations

from typing import Any

from .redact import printable


class RotationError(Exception):
    """A rotation that did not complete.

    ``what`` names the thing and what happened to it, ``why`` gives the reason, ``todo`` the next step.
    ``facts`` are secret-free values for the machine-readable outcome (key ids, names).
    """

    status = "error"
    exit_status = 1

    def __init__(self, what: str, why: str = "", todo: str = "", **facts: Any) -> None:
        self.what, self.why, self.todo = (_one_line(text) for text in (what, why, todo))
        self.facts: dict[str, Any] = facts
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """What happened to what, why, and what to do next, in one line."""
        text = self.what + (": " + self.why if self.why else "")
        text = text if text.endswith((".", "!", "?")) else text + "."
        return text + (" Next: " + self.todo.rstrip(".") + "." if self.todo else "")


class BadInput(RotationError):
    """The stdin, the configuration or the record cannot be used. Nothing has changed."""

    status = "bad_input"
    exit_status = 2


class Refused(RotationError):
    """Entra, Graph or Keeper said no, or was not reached, before anything changed."""

    status = "refused"
    exit_status = 3


class RolledBack(RotationError):
    """A new secret was made and removed again: the vault and the old secrets are as before."""

    status = "rolled_back"
    exit_status = 4


class Incomplete(RotationError):
    """The new secret is published and valid, but old ones remain."""

    status = "incomplete"
    exit_status = 5


class Orphan(RotationError):
    """A new secret was made, is not known to be published, and could not be removed."""

    status = "orphan"
    exit_status = 6


class Stopped(BaseException):
    """A signal, or the end of a phase's time. Not an Exception: no library may swallow it."""


class OutOfTime(Stopped):
    """The end of a phase's time."""


def out_of_memory() -> Refused:
    """Return how a run ends for which this host has no memory."""
    todo = "give it more memory, or end what takes it, and run it again"
    return Refused("the run was stopped", "this host has no memory left", todo)


def _one_line(text: str) -> str:
    return printable(" ".join(str(text).split()))
