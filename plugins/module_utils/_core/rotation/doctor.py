# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A look at everything that a rotation needs, without changing anything."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..base.errors import BadInput, Refused, RotationError
from ..base.redact import Log, Secret
from ..base.timing import RESOLVE, SOON, Budget
from ..services.application import Application, guid
from ..services.entra import Answer, Entra
from ..services.graph import Graph
from ..services.http import Http
from ..services.vault import Vault, VaultRecord
from .evidence import published_in
from .identity import choose
from .outcome import Outcome, verdict
from .policy import Policy
from .publishing import FIELD_APPLICATION, FIELD_EXPIRES, FIELD_KEY_ID, FIELD_SECRET, check_fields
from .subject import Task
from .transaction import perform

OK, WARNING, FAILURE = "ok", "warning", "failure"
PACKAGES = ("requests", "msal", "keeper-secrets-manager-core")
# Entra accepts no more than five minutes; a minute is what a host that keeps time is far below.
LARGEST_SKEW = 60.0
_ALL = {"Application.ReadWrite.All", "Directory.ReadWrite.All"}
_OWNED = "Application.ReadWrite.OwnedBy"


@dataclass(frozen=True)
class Check:
    """What one look has shown; ``todo`` is empty where all is well."""

    name: str
    level: str
    text: str
    todo: str = ""


class Doctor:
    """Looks at one thing after the other; a look that needs what an earlier one did not find is left out."""

    def __init__(self, budget: Budget, log: Log) -> None:
        self._budget, self._log = budget, log
        self.checks: list[Check] = []
        self._facts: dict[str, Any] = {}
        self._exit_status = 0

    def examine(self, prepare: Callable[[], Task], http: Http) -> Outcome:
        """Check everything for the task that ``prepare`` reads. It raises none of RotationError."""
        self._add("packages", OK, f"Python {platform.python_version()}, {packages()} ({sys.executable})")
        try:
            with self._budget.phase("look at everything", RESOLVE):
                self._examine(prepare, http)
        except RotationError as problem:
            self._exit_status = self._exit_status or problem.exit_status
            self._add(
                "rotation",
                FAILURE,
                problem.what + (f": {problem.why}" if problem.why else ""),
                problem.todo or "remove the cause",
            )
        return self.outcome()

    def facts(self) -> dict[str, Any]:
        """Return the checks as JSON data."""
        return {**self._facts, "checks": [check.__dict__ for check in self.checks]}

    def outcome(self) -> Outcome:
        """Return what all looks together say."""
        first = next((check for check in self.checks if check.level == FAILURE), None)
        counts = {level: sum(check.level == level for check in self.checks) for level in (OK, WARNING, FAILURE)}
        status = {0: "unchanged", BadInput.exit_status: "bad_input", Refused.exit_status: "refused"}[self._exit_status]
        count = ", ".join(f"{number} {level}" for level, number in counts.items())
        what = f"{first.name}: {first.text}" if first else "everything that a rotation needs is there"
        why = f"checked, nothing was changed: {count}"
        text = verdict(status, self._facts, what, why, first.todo if first else "")
        return Outcome(status, self._exit_status, text, False, self.facts())

    def foresee(self, planned: Outcome) -> None:
        """Say what a rotation would find and leave."""
        kept = [f"{one['key_id']} ({one['reason']})" for one in planned.facts.get("kept", [])]
        self._add("room", OK, "there is room for a new secret, or it can be made")
        self._add("old secrets", OK, "all of them go" if not kept else "these stay: " + ", ".join(kept))
        for key_id in planned.facts.get("unlisted", []):
            text = f"the record names {key_id}, which the application does not list"
            self._add("named secret", WARNING, text, "see whether the record names the right application")

    def _add(self, name: str, level: str, text: str, todo: str = "") -> None:
        check = Check(name, level, text, todo)
        self.checks.append(check)
        self._log.say(f"{level}: {name}: {text}" + (f". Next: {todo}" if todo else ""))

    def _examine(self, prepare: Callable[[], Task], http: Http) -> None:
        task = prepare()
        record = task.record
        self._facts.update(record=record.uid, title=record.title)
        self._add("Keeper", OK, "the configuration is usable, the vault was read over trusted TLS")
        self._fields(task)
        identity, cloud = choose(task.sources)
        entra = Entra(http, cloud, identity.tenant_id, self._budget, self._log)
        graph = Graph(http, cloud.graph, identity.client_id, lambda: entra.token(identity), self._log)
        identifier = task.application or record.value(FIELD_APPLICATION)
        application = graph.find(identifier)
        text = f"{identity.client_id} from {identity.source} signs in at {cloud.authority} ({identity.why})"
        self._add("admin", OK, text)
        text = f"{application.display_name}, object id {application.object_id}, client id {application.client_id}"
        self._add("application", OK, f"{text}, {len(application.credentials)} secret(s)")
        self._permission(graph, application)
        self._clock(application)
        self._current(entra, application, record.secret(FIELD_SECRET), task.policy.verify)
        self._policy(task.policy, application)
        self._others(task.vault, record, application)

    def _policy(self, policy: Policy, application: Application) -> None:
        seconds = policy.retire_after.total_seconds()
        if not seconds:
            text = "it is 0: what still uses the old secret fails at once"
            self._add("retire_after", WARNING, text, "set it to what your applications need to fetch a new secret")
        elif application.two_secrets and seconds > SOON:
            text = "the application holds two secrets at the most: while both are taken it is not rotated"
            self._add("retire_after", WARNING, text, f"let it rotate less often than every {seconds:.0f} s")
        else:
            self._add("retire_after", OK, f"an old secret goes {seconds:.0f} s after it was superseded")

    def _others(self, vault: Vault, record: VaultRecord, application: Application) -> None:
        """Name every other record that names the application, or shows one of its secrets."""
        ids = {application.object_id, application.client_id}
        found = []
        for other in vault.read([]).values():
            if other.uid == record.uid:
                continue
            view, shown = other.view(), published_in(other)
            names = bool(ids & {guid(view.get("application_object_id")), guid(view.get("application_client_id"))})
            by_id = guid(shown.key_id) is not None and application.credential(shown.key_id) is not None
            if names or by_id:
                found.append(f"{other.title!r} ({other.uid})")
        if found:
            text = f"named or shown by other records, too: {', '.join(sorted(found))}"
            todo = "let one record publish an application's secret; a rotation knows the others by its own markers only"
            self._add("other records", WARNING, text, todo)
        else:
            self._add("other records", OK, "no other record that is seen names the application or shows its secrets")

    def _fields(self, task: Task) -> None:
        record = task.record
        check_fields(record, bool(task.application))
        missing = [name for name in (FIELD_SECRET, FIELD_KEY_ID, FIELD_EXPIRES) if not record.has(name)]
        note = f"; {', '.join(missing)} will be created" if missing else ""
        if record.shows(FIELD_SECRET):
            note += f"; {FIELD_SECRET} is no Hidden field, everybody who opens the record sees it"
        if record.type != "pamUser":
            note += f"; it is of type {record.type}, which the Gateway does not rotate"
        self._add("record", WARNING if note else OK, f"{record.title!r} ({record.uid}) has usable fields{note}")
        if record.editable:
            self._add("edit right", OK, "the record may be edited")

    def _permission(self, graph: Graph, application: Application) -> None:
        roles = graph.roles()
        if roles is None:
            self._add("permission", WARNING, "the token does not show the permissions", "make sure of " + _OWNED)
        elif roles & _ALL:
            self._add("permission", OK, ", ".join(sorted(roles & _ALL)))
        elif _OWNED not in roles:
            self._exit_status = Refused.exit_status
            todo = f"grant {_OWNED} to the admin application and consent to it"
            self._add("permission", FAILURE, f"the token carries {', '.join(sorted(roles)) or 'none'}", todo)
        else:
            owns = graph.owns(application)
            if owns is False:
                self._exit_status = Refused.exit_status
                todo = "make the admin application's service principal an owner of the application"
                self._add("permission", FAILURE, f"{_OWNED}, but it does not own the application", todo)
            elif owns is None:
                self._add("permission", WARNING, f"{_OWNED}; Graph does not tell who owns the application")
            else:
                self._add("permission", OK, f"{_OWNED}, and it owns the application")

    def _clock(self, application: Application) -> None:
        skew = abs((application.read_at - datetime.now(timezone.utc)).total_seconds())
        level = OK if skew <= LARGEST_SKEW else WARNING
        todo = "" if level == OK else "let the host keep its time (NTP)"
        self._add("clock", level, f"differs from Graph's by {skew:.0f} s", todo)

    def _current(self, entra: Entra, application: Application, secret: str, verify: bool) -> None:
        if not secret:
            self._add("current secret", WARNING, "the record holds none yet")
            return
        look = entra.sign_in(application.client_id, Secret(secret))
        why = look.why
        if look.answer is Answer.TAKEN:
            self._add("current secret", OK, "the vault's secret signs in")
        elif look.answer is not Answer.NEVER:
            self._add("current secret", WARNING, f"the vault's secret does not sign in: {why}", "rotate it")
        else:
            # Neither would a new one.
            self._exit_status = self._exit_status or (Refused.exit_status if verify else 0)
            todo = "remove the cause, or set verify to false if it cannot sign in from this host"
            self._add("current secret", FAILURE if verify else WARNING, f"the application cannot sign in: {why}", todo)


def dry_run(prepare: Callable[[], Task], http: Http, budget: Budget, log: Log, check: bool) -> Outcome:
    """Look at everything, and plan: what stands in the way of a rotation ends it. With ``check`` also say what would be
    done, and how."""
    doctor = Doctor(budget, log)
    outcome = doctor.examine(prepare, http)
    if not outcome.exit_status:
        planned = perform(prepare, http, budget, log, check=True)
        if check or planned.exit_status:
            planned.facts.update(doctor.facts())
            return planned
        doctor.foresee(planned)
        outcome = doctor.outcome()
    log.say(outcome.message)
    return outcome


def packages() -> str:
    """Return the runtime packages with their versions."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (version unknown)")
    return ", ".join(found)
