# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every record shows at every change: whether it signs in, where, and whose doing it is where it does not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import Result, World

from sandbox import Entry
from sandbox.directory import Application, Credential
from sandbox.vault import VaultRecord

if TYPE_CHECKING:
    from judge import Verdict

#: Evidence for a step that cannot be taken back is no older (seconds); a little is on its way.
FRESH = 10.0 + 1.0
PRODUCT, PEOPLE, UNKNOWABLE, TOO_LATE = "product", "people", "unknowable", "too late"
_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Shown:
    """What one record shows, since when, and where that signs in nowhere, or not for long, whose doing it is."""

    text: str
    app: str
    former: str
    since: float
    by_people: bool
    cause: str = ""
    dead_since: float = 0.0


class Looks:
    """The looks at the records that name an application, and what they have shown; `verdict` gets the blame."""

    def __init__(self, world: World, verdict: Verdict, in_turn: bool) -> None:
        self.world, self.verdict, self._in_turn = world, verdict, in_turn
        self.unknowable: set[str] = set()
        self._shown: dict[str, Shown] = {}
        self._began = len(world.sandbox.log)

    def look(self, phase: str, entry: Entry | None, at: Iterable[VaultRecord] | None = None) -> None:
        """Look at every record, or at these, right after this change."""
        for record in self.world.sandbox.vault.records.values() if at is None else at:
            app = self._application(record)
            text = record.value("client_secret")
            if app is not None and text:
                self._look_at(record, app, str(text), f"{phase}, after {entry.op}" if entry else phase, entry)

    def dead_by_people(self) -> bool:
        """Whether what the record of this world shows is dead, and people have seen to it."""
        shown = self._shown.get(self.world.record.uid)
        return shown is not None and shown.cause in (PEOPLE, UNKNOWABLE, TOO_LATE)

    def judge(self, result: Result, acted: Iterable[float]) -> None:
        """A run says `rotated` neither over a secret that people have taken away, nor over a record that they have
        written since, where it has looked after that, or should have; and it puts back what it can."""
        shown = self._shown.get(self.world.record.uid)
        done = result.status in ("rotated", "unchanged")
        first = min(acted, default=None)
        if shown is None or first is None:
            return
        if shown.cause == PEOPLE and shown.app == self.world.app.object_id:
            if done and self._could_know(shown.dead_since, "get_application", "token"):
                self.verdict.blame("lost", f"{result.status}, but the vault's secret was taken away")
            elif done:
                self.verdict.exempt += 1
            elif not done and self._could_be_put_back(shown, result):
                self.verdict.blame("lost", f"{result.status}, but what the record showed before could be put back")
        written = shown.by_people and shown.since >= first and result.output.get("key_id") != self.world.shows()
        if done and written and self._could_know(shown.since, "get_secret"):
            self.verdict.blame("wrong", f"{result.status}, but the record shows what somebody has written")

    # -- one record

    def _application(self, record: VaultRecord) -> Application | None:
        named = str(record.value("application_object_id") or "").lower()
        found = _GUID.search(named)
        if found is None:
            return self.world.app if record.uid == self.world.record.uid else None
        directory = self.world.sandbox.directory
        return directory.by_object_id(found[0]) or directory.by_client_id(found[0])

    def _look_at(self, record: VaultRecord, app: Application, text: str, when: str, entry: Entry | None) -> None:
        before = self._shown.get(record.uid)
        outside = entry is not None and entry.service == "outside"
        at = entry.at if entry else 0.0
        if before is None or (before.text, before.app) != (text, app.object_id):
            former = before.text if before else ""
            before = Shown(text, app.object_id, former, at, outside or before is None)
            self._shown[record.uid] = before
        takes = self.world.sandbox.directory.takes(app.client_id, text)
        secret = _secret(app, text)
        if any(takes) and (secret is None or secret.removed_by is None):
            before.cause = ""
            self._look_for_early(app, before, takes, when, entry)
        elif not before.cause:
            before.dead_since = at
            before.cause = self._cause(record, secret, before, entry)
            if before.cause == PRODUCT:
                how = "is removed" if secret is not None and secret.removed_by else "does not sign in"
                self.verdict.blame("lost", f"{when}, the secret that {record.data['title']} shows {how}")
            elif before.cause in (UNKNOWABLE, TOO_LATE):
                self.verdict.exempt += 1

    def _cause(self, record: VaultRecord, secret: Credential | None, shown: Shown, entry: Entry | None) -> str:
        if record.uid in self.unknowable:
            return UNKNOWABLE
        if secret is not None and secret.removed_by == "graph":
            late = shown.by_people and shown.since > 0 and not self._could_know(shown.since, "get_secret")
            return TOO_LATE if late else PRODUCT
        if secret is not None and secret.removed_by is not None:
            return PEOPLE
        return PEOPLE if shown.by_people else PRODUCT

    def _look_for_early(
        self, app: Application, shown: Shown, takes: list[bool], when: str, entry: Entry | None
    ) -> None:
        """Published by the product, and some replica has not learned of it: the former must go on working there."""
        if all(takes) or shown.by_people or entry is None or entry.op not in ("update_secret", "removePassword"):
            return
        former = _secret(app, shown.former)
        known = self.world.sandbox.directory.takes(app.client_id, shown.former)
        neither = [not one and not other for one, other in zip(takes, known)]
        if entry.op == "update_secret" and entry.at == shown.since:
            self.verdict.early += 1
            if self._in_turn:
                self.verdict.blame("early", f"{when}, {takes.count(False)} replicas do not know what is shown")
        elif entry.op == "removePassword" and former is not None and former.key_id in entry.detail and any(neither):
            self.verdict.gaps += 1
            if self._in_turn:
                self.verdict.blame("early", f"{when}, {neither.count(True)} replicas know neither secret")

    # -- what the run could know

    def _log(self) -> list[Entry]:
        return self.world.sandbox.log[self._began :]

    def _could_know(self, moment: float, *looks: str) -> bool:
        """Whether a run has looked after this moment; or has removed something since, without a look of its own that
        was young enough."""
        client = self.world.app.client_id
        seen = [
            one
            for one in self._log()
            if one.op in looks and one.status is not None and (one.op != "token" or client in one.detail)
        ]
        if any(one.at > moment for one in seen):
            return True
        saves = [one.at for one in self._log() if one.op == "update_secret" and one.at <= moment]
        saved = saves[-1] if saves else 0.0
        for removal in self._log():
            evidence = [one.at for one in seen if saved < one.at <= moment and removal.at - one.at <= FRESH]
            if removal.op == "removePassword" and removal.at > moment and not evidence:
                return True
        return False

    def _could_be_put_back(self, shown: Shown, result: Result) -> bool:
        """Whether the record still shows this run's secret, and the former one lives and was not to be removed."""
        former = _secret(self.world.app, shown.former)
        published = not shown.by_people and result.status in ("incomplete", "orphan")
        lives = former is not None and former.removed_by is None
        sent = any(one.op == "removePassword" and former and former.key_id in one.detail for one in self._log())
        return published and lives and not sent


def _secret(app: Application, text: str) -> Credential | None:
    return next((one for one in (*app.credentials, *app.lingering) if text and one.text == text), None)
