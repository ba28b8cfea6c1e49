# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every reason for which a run does not complete, each with the next step that its verdict names.

The step is chosen by who has answered and with which code. One row is one reason, and one run of the core in this
process against a sandbox of its own.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.outcome import Outcome
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.transaction import perform
from ansible_collections.keeperpam.azure.plugins.module_utils._core.script.gateway import read_request
from ansible_collections.keeperpam.azure.plugins.module_utils._core.script.pam_script import prepare
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.http import Http
from harness import SCRIPT, World, make_world, run_script

from sandbox import Fault

Told = tuple[Outcome, list[str]]


class Hasty(Budget):
    """A budget that waits for nothing: what is to be seen here is what is said."""

    def pause(self, seconds: float) -> None:
        """Look at the time, and go on."""
        super().pause(min(seconds, 0.01))


def run(world: World, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], line: str | None) -> Told:
    """Rotate in this process, as the script does; return the outcome and the steps."""
    settings = {**world.sandbox.environ(), **environ}
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", settings["REQUESTS_CA_BUNDLE"])
    given = (world.sandbox.gateway.stdin_for(world.record.uid) if line is None else line).encode()
    said: list[str] = []
    budget, log = Hasty(), Log(said.append)
    http = Http(budget, log)
    outcome = perform(lambda: prepare(read_request(io.BytesIO(given)), http, budget, log, settings), http, budget, log)
    http.close()
    return outcome, said


@dataclass(frozen=True)
class Row:
    """What is in the way, the status, what the verdict says why, what it says next, and what it does not say.

    ``arrange`` brings the world about; what it returns is set in the environment, as ``line`` it replaces stdin.
    """

    arrange: Callable[[World], dict[str, str] | None]
    status: str
    why: str
    todo: str
    never: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


def answers(
    op: str, status: int, body: Any = None, times: int | None = None, **headers: str
) -> Callable[[World], None]:
    """Let a service answer so, for ever unless ``times`` says how often."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def arrange(world: World) -> None:
        world.sandbox.faults.add(Fault(op, status=status, body=body, times=times, headers=named))

    return arrange


def graph(op: str, status: int, code: str, message: str = "Some words.", **headers: str) -> Callable[[World], None]:
    """Let Graph answer with an error of its own."""
    return answers(op, status, {"error": {"code": code, "message": message}}, **headers)


def sign_in(status: int, number: int, error: str, **more: Any) -> Callable[[World], None]:
    """Let the token endpoint refuse the admin application."""
    body = {"error": error, "error_description": f"AADSTS{number}: Some words.", "error_codes": [number], **more}
    return answers("token", status, body)


def roles(*names: str) -> Callable[[World], None]:
    """Give the admin application these permissions and no others, and no application to own."""

    def arrange(world: World) -> None:
        world.admin.roles = list(names)
        world.app.owners = []

    return arrange


def beside(*arranged: Callable[[World], None]) -> Callable[[World], None]:
    """Arrange several things."""

    def arrange(world: World) -> None:
        for one in arranged:
            one(world)

    return arrange


def throttled(op: str) -> Callable[[World], None]:
    """Let Keeper throttle an endpoint for as long as the run lasts."""
    return answers(op, 429, {"error": "throttled", "message": "Some words.", "retry_after": 0.01})


def keeper(op: str, status: int, code: str, message: str) -> Callable[[World], None]:
    """Let Keeper answer with an error of its own."""
    return answers(op, status, {"error": code, "message": message})


def configuration(change: Callable[[str], str]) -> Callable[[World], dict[str, str]]:
    """Give this in place of the Gateway's configuration; ``change`` gets its JSON."""
    return lambda world: {"GATEWAY_CONFIG": change(json.dumps(world.sandbox.client_config()))}


def coded(text: str, encoding: str = "utf-8") -> str:
    """Return base64 of the text."""
    return base64.b64encode(text.encode(encoding)).decode()


def wrapped(world: World) -> dict[str, str]:
    """The Gateway's line, broken where ``base64`` breaks it."""
    line = world.sandbox.gateway.stdin_for(world.record.uid)
    return {"line": "\n".join(line[at : at + 76] for at in range(0, len(line), 76))}


def two_secrets(world: World) -> None:
    """Both places of an application for personal accounts are taken, one by a secret of others."""
    world.app.audience = "AzureADandPersonalMicrosoftAccount"
    world.app.add_secret("of somebody else", start=datetime.now(timezone.utc) + timedelta(minutes=1))


OWNED = "Application.ReadWrite.OwnedBy"
CHALLENGE = 'Bearer realm="", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ=="'
CLAIMS = '{"access_token":{"capolids":{"essential":true,"values":["30c3a5f8"]}}}'
PAGE = "<!DOCTYPE html><html><head><title>Blocked</title></head></html>"
LATER, PASS, CHECK = "run it again later", "let what stands in between", "check the record"

ROWS: dict[str, Row] = {
    # Entra, of the admin application
    "a secret that is wrong": Row(sign_in(401, 7000215, "invalid_client"), "refused", "not valid", "put the current"),
    "a secret that has ended": Row(sign_in(401, 7000222, "invalid_client"), "refused", "has expired", "by hand"),
    "Conditional Access": Row(
        sign_in(400, 53003, "access_denied"), "refused", "Conditional Access", "exempt the admin application"
    ),
    "Conditional Access with claims": Row(
        sign_in(400, 530099, "interaction_required", claims=CLAIMS),
        "refused",
        "Conditional Access",
        "exempt the admin application",
        CHECK,
    ),
    "tenant restrictions": Row(
        sign_in(403, 5000211, "access_denied"), "refused", "tenant restrictions", "allow the tenant", CHECK
    ),
    "tenant restrictions of a proxy": Row(
        sign_in(400, 500021, "invalid_request"), "refused", "tenant restrictions", "allow the tenant", CHECK
    ),
    "a sign-in that is busy": Row(
        sign_in(400, 50196, "invalid_grant", retry_after="0"), "refused", "too many", LATER, CHECK
    ),
    "a sign-in that is throttled": Row(
        answers("token", 429, {"error": "temporarily_unavailable"}, Retry_After="0"),
        "refused",
        "HTTP 429",
        LATER,
        CHECK,
    ),
    "a web filter before the sign-in": Row(answers("token", 403, PAGE), "refused", "'Blocked'", PASS),
    # Graph
    "consent given minutes ago": Row(roles(), "refused", "carries no permission", "minutes ago"),
    "a permission that does not do": Row(
        roles("Application.Read.All"), "refused", "the token carries Application.Read.All", f"grant {OWNED}"
    ),
    "no owner": Row(roles(OWNED), "refused", "does not own", "an owner of the application", "grant "),
    "all applications, and refused": Row(
        beside(roles("Application.ReadWrite.All"), graph("addPassword", 403, "Authorization_RequestDenied")),
        "refused",
        "Some words",
        "see in Entra what keeps",
        "grant ",
    ),
    "a policy's lifetime": Row(
        graph("addPassword", 400, "CredentialInvalidLifetimeAsPerAppPolicy"), "refused", "", "lower lifetime_days"
    ),
    "a policy's 403": Row(
        graph("addPassword", 403, "CredentialTypeNotAllowedAsPerAppPolicy"), "refused", "", "exempt the app", "grant "
    ),
    "a quota's 403": Row(
        graph("addPassword", 403, "Directory_QuotaExceeded"), "refused", "QuotaExceeded", "quota", "grant "
    ),
    "an application that is full": Row(
        graph("addPassword", 403, "Directory_ResourceSizeExceeded"), "refused", "", "remove secrets", "grant "
    ),
    "two secrets": Row(
        two_secrets,
        "refused",
        "holds as many as it may",
        "remove the one that is not in use",
        fields={"retire_after": "1d"},
    ),
    "a web filter's page": Row(answers("get_application", 403, PAGE), "refused", "'Blocked'", PASS, "grant "),
    "a web filter's JSON": Row(
        answers("get_application", 403, {"message": "blocked by category"}), "refused", "not Graph's", PASS, "grant "
    ),
    "claims that Graph asks for": Row(
        graph("get_application", 401, "InvalidAuthenticationToken", WWW_Authenticate=CHALLENGE),
        "refused",
        "Conditional Access",
        "exempt the admin application",
        "same cloud",
    ),
    "Graph throttles to the end": Row(
        graph("get_application", 429, "TooManyRequests", Retry_After="0"), "refused", "TooManyRequests", LATER
    ),
    # Keeper
    "Keeper throttles to the end": Row(throttled("get_secret"), "refused", "throttled", LATER, "expired"),
    "a device that is refused": Row(
        keeper("get_secret", 403, "access_denied", "Signature is invalid"), "refused", "Signature", "device"
    ),
    "a save that is throttled to the end": Row(
        throttled("update_secret"), "rolled_back", "throttled", LATER, "changes all the time"
    ),
    "a save that is too large": Row(
        keeper("update_secret", 413, "bad_inputs", "Record is too large"), "rolled_back", "too large", "smaller", "edit"
    ),
    "a save that is not allowed": Row(
        keeper("update_secret", 403, "access_denied", "No"), "rolled_back", "access_denied", "edit permission"
    ),
    # The configuration, and what people give in its place
    "base64 of UTF-16": Row(configuration(lambda text: coded(text, "utf-16-le")), "bad_input", "UTF-16", "UTF-8"),
    "quotes around it": Row(configuration(lambda text: f"'{text}'"), "bad_input", "quotes", "without the quotes"),
    "keeper.ini": Row(configuration(lambda _: "[_default]\nclientid = x\n"), "bad_input", "keeper.ini", "export"),
    "Kubernetes": Row(
        configuration(lambda text: f"apiVersion: v1\ndata:\n  config: {coded(text)}\n"),
        "bad_input",
        "Kubernetes",
        "data",
    ),
    "base64 twice": Row(configuration(lambda text: coded(coded(text))), "bad_input", "twice", "base64 -d"),
    "a one-time token": Row(configuration(lambda _: "US:" + 43 * "x"), "bad_input", "one-time token", "initialised"),
    "a folder": Row(
        lambda _: {"GATEWAY_CONFIG": "", "GATEWAY_CONFIG_PATH": "/"}, "bad_input", "folder", "a file in it"
    ),
    # stdin; one that never comes is in test_time.py, as it takes its time
    "stdin that is wrapped": Row(wrapped, "bad_input", "wrapped over lines", "one line"),
    "stdin that is empty": Row(lambda _: {"line": ""}, "bad_input", "stdin is empty", "let the Gateway run"),
}


@pytest.mark.parametrize("reason", ROWS)
def test_the_next_step_of(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    row = ROWS[reason]
    with make_world(**row.fields) as world:
        given = row.arrange(world) or {}
        outcome, _said = run(world, monkeypatch, {k: v for k, v in given.items() if k != "line"}, given.get("line"))
        assert world.untouched() or reason == "two secrets"
    assert outcome.status == row.status, outcome.message
    before, _next, todo = outcome.message.partition(" Next: ")
    assert row.why in before, outcome.message
    assert row.todo in todo, outcome.message
    assert not row.never or row.never not in before + todo, outcome.message


# -- what a run puts right by itself, or says beside


def admin_record(world: World, **more: str) -> Any:
    """Keep the admin application's credential in a record that is attached to the script."""
    fields = {"application_client_id": world.admin.client_id, "tenant_id": world.sandbox.tenant_id, **more}
    vault = world.sandbox.vault
    record = vault.pam_user("rotator", folder=vault.folder_uid, client_secret=world.admin_secret.text, **fields)
    vault.attach_script(world.record, SCRIPT, credentials=[record.uid])
    return record


@pytest.mark.parametrize("kind", ["replaced", "expired", "configuration"])
def test_an_admin_secret_that_was_rotated_since_the_gateway_read_it(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    with make_world() as world:
        record, label = (world.configuration, "clientSecret") if kind == "configuration" else (None, "client_secret")
        record = record or admin_record(world)
        line = world.sandbox.gateway.stdin_for(world.record.uid)
        record.edit(label, world.admin.add_secret("newer", days=180).text)
        before = world.admin_secret
        if kind == "expired":
            before.end = world.sandbox.directory.now() - timedelta(minutes=1)
        else:
            world.sandbox.directory.remove(world.admin, before)
        outcome, said = run(world, monkeypatch, {}, line)
        assert outcome.status == "rotated", outcome.message
        assert any("holds another secret by now" in step for step in said)
        assert before.text not in outcome.message + "".join(said)


@pytest.mark.parametrize("kind", ["the same", "another application", "not seen"])
def test_what_the_record_holds_by_now_is_tried_once_and_only_where_it_is_another(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with make_world() as world:
        record = admin_record(world)
        line = world.sandbox.gateway.stdin_for(world.record.uid)
        if kind == "another application":
            record.edit("client_secret", world.old.text)
            record.edit("application_client_id", world.app.client_id)
        elif kind == "not seen":
            world.sandbox.vault.remove(record.uid)
        world.sandbox.directory.remove(world.admin, world.admin_secret)
        outcome, said = run(world, monkeypatch, {}, line)
        assert (outcome.status, world.untouched()) == ("refused", True)
        assert "put the current secret's value into the record 'rotator'" in outcome.message
        assert not any("by now" in step for step in said)
        assert world.operations().count("get_secret") == 2


@pytest.mark.parametrize(("days", "words"), [(12.5, "ends in 12 days"), (-1.0, "has ended"), (40.0, ""), (None, "")])
def test_a_rotation_says_that_the_admin_secret_ends_soon_from_what_it_has_read(
    monkeypatch: pytest.MonkeyPatch, days: float | None, words: str
) -> None:
    with make_world() as world:
        end = world.sandbox.directory.now() + timedelta(days=days or 0)
        admin_record(world, expires=end.strftime("%Y-%m-%dT%H:%M:%SZ") if days else "some day")
        outcome, said = run(world, monkeypatch, {}, None)
        assert outcome.status == "rotated", outcome.message
        warned = [step for step in said if "warning: the admin application's own secret" in step]
        assert len(warned) == bool(words)
        assert ("the admin application's own secret" in outcome.message) == bool(words)
        assert words in outcome.message
        assert "put it into the record 'rotator'" in outcome.message or not words
        assert world.operations().count("get_secret") + world.operations().count("get_application") <= 5


def test_the_doctor_takes_the_record_s_word_where_graph_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    with make_world() as world:
        end = world.sandbox.directory.now() + timedelta(days=12, hours=12)
        admin_record(world, expires=end.strftime("%Y-%m-%dT%H:%M:%SZ"))
        world.sandbox.faults.add(Fault("get_application", about=world.admin.client_id, status=403, times=None))
        result = run_script(world, "--doctor")
        found = {one["name"]: one for one in result.output["checks"]}["admin secret"]
        assert (found["level"], found["text"]) == ("warning", "it ends in 12 days")
