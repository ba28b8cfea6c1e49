# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A look at everything that a rotation needs, without changing anything."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..base.errors import BadInput, Refused, RotationError
from ..base.redact import Log, Secret
from ..base.timing import RESOLVE, SOON, Budget
from ..services.application import Application, format_time, guid
from ..services.certificate import open_certificate
from ..services.entra import Answer
from ..services.graph_words import ALL_APPLICATIONS, OWNED_ONLY
from ..services.http import Http
from ..services.managed_identity import host_service
from .admin import RENEW_DAYS, Admin
from .evidence import published_in
from .outcome import Outcome, verdict
from .plan import read_only
from .publishing import FIELD_APPLICATION, FIELD_EXPIRES, FIELD_KEY_ID, FIELD_SECRET, check_fields
from .subject import Task
from .transaction import perform

OK, WARNING, FAILURE, SKIPPED = "ok", "warning", "failure", "skipped"
PACKAGES = ("requests", "msal", "keeper-secrets-manager-core")
# Entra accepts no more than five minutes; a minute is what a host that keeps time is far below.
LARGEST_SKEW = 60.0
_NOT_LOOKED_AT = "whether a policy of the tenant allows a secret of this lifetime shows only when one is made"


@dataclass(frozen=True)
class Check:
    """What one look has shown; ``todo`` is empty where all is well."""

    name: str
    level: str
    text: str
    todo: str = ""


class Doctor:
    """Looks at one thing after the other. What fails fails under its own name, and ends only the looks that need it."""

    def __init__(self, prepare: Callable[[], Task], http: Http, budget: Budget, log: Log) -> None:
        self._prepare, self._http, self._budget, self._log = prepare, http, budget, log
        self.checks: list[Check] = []
        self._facts: dict[str, Any] = {}
        self._exit_status = 0
        self._task: Task
        self._who: Admin
        self._application: Application

    def examine(self) -> None:
        """Check everything, but for what a rotation would do. It raises none of RotationError."""
        self._add("packages", OK, f"Python {platform.python_version()}, {packages()} ({sys.executable})")
        looks: tuple[tuple[str, tuple[str, ...], Callable[[], None]], ...] = (
            ("Keeper", (), self._keeper),
            ("record", ("Keeper",), self._fields),
            ("edit right", ("Keeper",), self._edit_right),
            ("admin identity", ("Keeper",), self._choose),
            ("certificate", ("admin identity",), self._certificate),
            ("admin", ("admin identity", "certificate"), self._admin),
            ("application", ("record", "admin"), self._find),
            ("permission", ("application",), self._permission),
            ("clock", ("application",), self._clock),
            ("admin secret", ("application",), self._admin_secret),
            ("current secret", ("application",), self._current),
            ("retire_after", ("application",), self._retire_after),
            ("other records", ("application",), self._others),
        )
        failed: set[str] = set()
        with self._budget.phase("look at everything", RESOLVE):
            for name, needs, look in looks:
                missing = [need for need in needs if need in failed]
                if missing:
                    failed.add(name)
                    self._add(name, SKIPPED, f"not looked at, as it needs: {', '.join(missing)}")
                    continue
                try:
                    look()
                except RotationError as problem:
                    failed.add(name)
                    self._fail(name, problem)

    def foresee(self, planned: Outcome) -> None:
        """Say what a rotation would find and leave, as ``planned`` has it."""
        if planned.exit_status:
            self._exit_status = self._exit_status or planned.exit_status
            self._add("room" if planned.facts.get("full") else "rotation", FAILURE, planned.message)
            return
        kept = [f"{one['key_id']} ({one['reason']})" for one in planned.facts.get("kept", [])]
        self._add("room", OK, "there is room for a new secret, or it can be made")
        self._add("old secrets", OK, "all of them go" if not kept else "these stay: " + ", ".join(kept))
        for key_id in planned.facts.get("unlisted", []):
            text = f"the record names {key_id}, which the application does not list"
            self._add("named secret", WARNING, text, "see whether the record names the right application")
        self._add("not looked at", OK, _NOT_LOOKED_AT)

    @property
    def failed(self) -> bool:
        """Whether something stands in the way of a rotation."""
        return bool(self._exit_status)

    def facts(self) -> dict[str, Any]:
        """Return the checks as JSON data."""
        return {**self._facts, "checks": [check.__dict__ for check in self.checks]}

    def outcome(self) -> Outcome:
        """Return what all looks together say."""
        failures = [check for check in self.checks if check.level == FAILURE]
        counts = {name: sum(check.level == name for check in self.checks) for name in (OK, WARNING, FAILURE, SKIPPED)}
        status = {0: "unchanged", BadInput.exit_status: "bad_input"}.get(self._exit_status, "refused")
        what = "; ".join(f"{check.name}: {check.text}" for check in failures)
        why = "checked, nothing was changed: " + ", ".join(f"{number} {name}" for name, number in counts.items())
        todo = next((check.todo for check in failures if check.todo), "")
        text = verdict(status, self._facts, what or "everything that a rotation needs is there", why, todo)
        return Outcome(status, self._exit_status, text, False, self.facts())

    def _add(self, name: str, level: str, text: str, todo: str = "") -> None:
        check = Check(name, level, text, todo)
        self.checks.append(check)
        self._log.say(f"{level}: {name}: {text}" + (f". Next: {todo}" if todo else ""))

    def _fail(self, name: str, problem: RotationError) -> None:
        self._exit_status = self._exit_status or problem.exit_status
        text = problem.what + (f": {problem.why}" if problem.why else "")
        self._add(name, FAILURE, text, problem.todo or "remove the cause")

    # -- the looks, in the order in which they need each other

    def _keeper(self) -> None:
        self._task = self._prepare()
        self._facts.update(record=self._task.record.uid, title=self._task.record.title)
        self._add("Keeper", OK, "the configuration is usable, the vault was read over trusted TLS")

    def _fields(self) -> None:
        record = self._task.record
        check_fields(record, bool(self._task.application))
        missing = [name for name in (FIELD_SECRET, FIELD_KEY_ID, FIELD_EXPIRES) if not record.has(name)]
        note = f"; {', '.join(missing)} will be created" if missing else ""
        if record.shows(FIELD_SECRET):
            note += f"; {FIELD_SECRET} is no Hidden field, everybody who opens the record sees it"
        if record.type != "pamUser":
            note += f"; it is of type {record.type}, which the Gateway does not rotate"
        self._add("record", WARNING if note else OK, f"{record.title!r} ({record.uid}) has usable fields{note}")

    def _edit_right(self) -> None:
        if not self._task.record.editable:
            raise read_only(self._task.record.uid)
        self._add("edit right", OK, "the record may be edited")

    def _choose(self) -> None:
        self._who = Admin(self._task.sources, self._task.company, self._http, self._budget, self._log)
        identity = self._who.identity
        self._add("admin identity", OK, f"{identity.name} from {identity.source}: {identity.why}")

    def _certificate(self) -> None:
        if self._who.identity.certificate:
            end = open_certificate(self._who.identity.certificate).end
            soon = end - datetime.now(timezone.utc) < timedelta(days=RENEW_DAYS)
            todo = "renew it, and give the new one to the application before" if soon else ""
            self._add("certificate", WARNING if soon else OK, f"it is valid until {format_time(end)}", todo)

    def _admin(self) -> None:
        self._who.graph.connect()
        managed, authority = self._who.identity.managed, self._who.cloud.authority
        text = f"{host_service()[0]} gives its tokens" if managed else f"it signs in at {authority}"
        self._add("admin", OK, text)

    def _find(self) -> None:
        identifier = self._task.application or self._task.record.value(FIELD_APPLICATION)
        self._application = found = self._who.graph.find(identifier)
        text = f"{found.display_name}, object id {found.object_id}, client id {found.client_id}"
        self._add("application", OK, f"{text}, {len(found.credentials)} secret(s)")

    def _admin_secret(self) -> None:
        """Tell when the admin application's own secret ends, where its record or Graph tells."""
        identity = self._who.identity
        if identity.secret is None:
            self._add("admin secret", OK, "the admin application signs in without a secret")
            return
        end, why = self._who.secret_ends(), "Graph does not list it"
        try:
            own = self._who.graph.find(identity.client_id, client_id_first=True)
            hint = identity.secret.reveal()[:3]
            end = max((item.end for item in own.credentials if item.hint == hint and item.end), default=end)
        except RotationError as problem:
            why = problem.what
        if end is None:
            self._add("admin secret", OK, f"when it ends is not to be seen: {why}")
            return
        days = (end - self._application.read_at).days
        level = OK if days >= RENEW_DAYS else WARNING
        todo = "" if level == OK else f"make a new one, and put it into {identity.source}"
        self._add("admin secret", level, f"it ends in {days} days", todo)

    def _retire_after(self) -> None:
        seconds = self._task.policy.retire_after.total_seconds()
        if not seconds:
            text = "it is 0: what still uses the old secret fails at once"
            self._add("retire_after", WARNING, text, "set it to what your applications need to fetch a new secret")
        elif self._application.two_secrets and seconds > SOON:
            text = "the application holds two secrets at the most: while both are taken it is not rotated"
            self._add("retire_after", WARNING, text, f"let it rotate less often than every {seconds:.0f} s")
        else:
            self._add("retire_after", OK, f"an old secret goes {seconds:.0f} s after it was superseded")

    def _others(self) -> None:
        """Name every other record that names the application, or shows one of its secrets."""
        application = self._application
        ids = {application.object_id, application.client_id}
        found = []
        for other in self._task.vault.read([]).values():
            if other.uid == self._task.record.uid:
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

    def _permission(self) -> None:
        roles, identity = self._who.graph.roles(), self._who.identity
        admin = identity.name if identity.managed else "the admin application"
        if not roles:
            self._add("permission", WARNING, "the token shows no permissions", "make sure of " + OWNED_ONLY)
        elif roles & ALL_APPLICATIONS:
            self._add("permission", OK, ", ".join(sorted(roles & ALL_APPLICATIONS)))
        elif OWNED_ONLY not in roles:
            self._exit_status = Refused.exit_status
            todo = f"grant {OWNED_ONLY} to {admin} and consent to it"
            if identity.managed:
                todo += "; Azure keeps a managed identity's token for up to 24 hours, and what it may do with it"
            self._add("permission", FAILURE, f"the token carries {', '.join(sorted(roles))}", todo)
        else:
            owns = self._who.graph.owns(self._application)
            if owns is False:
                self._exit_status = Refused.exit_status
                todo = f"make the service principal of {admin} an owner of the application"
                self._add("permission", FAILURE, f"{OWNED_ONLY}, but it does not own the application", todo)
            elif owns is None:
                self._add("permission", WARNING, f"{OWNED_ONLY}; Graph does not tell who owns the application")
            else:
                self._add("permission", OK, f"{OWNED_ONLY}, and it owns the application")

    def _clock(self) -> None:
        skew = abs((self._application.read_at - datetime.now(timezone.utc)).total_seconds())
        level = OK if skew <= LARGEST_SKEW else WARNING
        todo = "" if level == OK else "let the host keep its time (NTP)"
        self._add("clock", level, f"differs from Graph's by {skew:.0f} s", todo)

    def _current(self) -> None:
        secret, verify = self._task.record.secret(FIELD_SECRET), self._task.policy.verify
        if not secret:
            self._add("current secret", WARNING, "the record holds none yet")
            return
        look = self._who.entra.sign_in(self._application.client_id, Secret(secret))
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
    done, and how. It raises none of RotationError."""
    doctor = Doctor(prepare, http, budget, log)
    doctor.examine()
    planned = None if doctor.failed else perform(prepare, http, budget, log, check=True)
    if planned is not None:
        doctor.foresee(planned)
    if check and planned is not None and not planned.exit_status:
        planned.facts.update(doctor.facts())
        outcome = planned
    else:
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
