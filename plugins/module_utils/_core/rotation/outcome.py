# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a run ended, and its last word, in one grammar everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..base.errors import Incomplete, Orphan, RotationError
from ..base.redact import Log, scrub_all


@dataclass
class Outcome:
    """How a rotation ended. ``facts`` hold no secret."""

    status: str
    exit_status: int
    message: str
    changed: bool
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the machine-readable form."""
        outcome = {"status": self.status, "changed": self.changed, "message": self.message, **self.facts}
        scrubbed: dict[str, Any] = scrub_all(outcome)
        return scrubbed


def verdict(status: str, facts: dict[str, Any], what: str, why: str = "", todo: str = "") -> str:
    """Return the last word of a run: ``ROTATED 'title' (uid): what. why. Next: step.``"""
    record = f" {facts['title']!r} ({facts['record']})" if facts.get("record") else ""
    parts = [text.rstrip(". ") + "." for text in (what, why) if text.strip(". ")]
    return f"{status.upper()}{record}: {' '.join(parts)}" + (f" Next: {todo.rstrip('. ')}." if todo else "")


def ended(problem: RotationError, facts: dict[str, Any], log: Log) -> Outcome:
    """Return the outcome of a run that ``problem`` has ended, and say it."""
    removed = facts.get("removed") if not isinstance(problem, (Incomplete, Orphan)) else None
    why = "; ".join(part for part in (problem.why, f"removed before: {', '.join(removed)}" if removed else "") if part)
    text = verdict(problem.status, facts, problem.what, why, problem.todo)
    log.say(text)
    changed = isinstance(problem, (Incomplete, Orphan)) or bool(facts.get("removed"))
    return Outcome(problem.status, problem.exit_status, text, changed, facts)
