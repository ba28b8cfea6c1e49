# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What both forms do where something is wrong from the start: one clear line, the right status, nothing changed."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from harness import FORMS, SCRIPT, Result, World, make_world, run_module, run_script

from sandbox import Fault


def assert_refused(world: World, result: Result, status: str, *words: str) -> None:
    """Check the contract of a run that must not change anything."""
    codes = {"bad_input": 2, "refused": 3}
    assert (result.status, result.failed, result.changed) == (status, True, False), result.said()
    if result.argv[1:2] == [str(SCRIPT)]:
        assert result.returncode == codes[status]
        last = result.stderr.splitlines()[-1]
        assert last.endswith(result.message)
    assert world.untouched()
    assert "Traceback" not in result.said()
    assert "\n" not in result.message
    assert "Next: " in result.message
    for word in words:
        assert word in result.message
    for secret in world.secrets():
        assert secret not in result.said()


def encoded(value: Any) -> str:
    """Return the base64 of the JSON of a value."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def message(world: World) -> dict[str, Any]:
    """Return the JSON object that the Gateway passes."""
    decoded: dict[str, Any] = json.loads(base64.b64decode(world.sandbox.gateway.stdin_for(world.record.uid)))
    return decoded


STDIN: dict[str, tuple[str, str]] = {
    "nothing": ("", "stdin is empty"),
    "an empty line": ("\n\n", "stdin is empty"),
    "no base64": ("{not base64}\n", "stdin is no base64"),
    "half base64": ("QUJ\x00D\n", "stdin is no base64"),
    "no json": (base64.b64encode(b"no json").decode(), "not of JSON"),
    "binary": (base64.b64encode(bytes(range(256))).decode(), "not of JSON"),
    "a list": (encoded([1]), "no JSON object"),
    "a text": (encoded("text"), "no JSON object"),
    "no keys": (encoded({}), "lacks userRecordUid and records"),
    "records a number": (encoded({"userRecordUid": "x", "records": 1}), "records on stdin"),
    "records null": (encoded({"userRecordUid": "x", "records": None}), "records on stdin"),
    "records no base64": (encoded({"userRecordUid": "x", "records": "{}"}), "records on stdin is no base64"),
    "records an object": (encoded({"userRecordUid": "x", "records": encoded({})}), "no JSON array"),
    "records of texts": (encoded({"userRecordUid": "x", "records": encoded(["x"])}), "no JSON array"),
    "a uid that is a number": (encoded({"userRecordUid": 1, "records": encoded([])}), "userRecordUid"),
    "a uid that is blank": (encoded({"userRecordUid": " ", "records": encoded([])}), "userRecordUid"),
    "deeply nested": (base64.b64encode(b"[" * 100_000).decode(), "not of JSON"),
}


@pytest.mark.parametrize("case", sorted(STDIN))
def test_stdin_that_cannot_be_used(world: World, case: str) -> None:
    stdin, words = STDIN[case]
    assert_refused(world, run_script(world, stdin=stdin), "bad_input", words)


@pytest.mark.parametrize("key", ["userRecordUid", "records"])
def test_a_key_that_is_missing_on_stdin(world: World, key: str) -> None:
    given = {name: value for name, value in message(world).items() if name != key}
    assert_refused(world, run_script(world, stdin=encoded(given)), "bad_input", key)


def test_a_line_with_a_byte_order_mark_and_without_padding_is_read(world: World) -> None:
    line = "\ufeff" + world.sandbox.gateway.stdin_for(world.record.uid).rstrip("=")
    assert run_script(world, stdin=line).returncode == 0
    assert world.agrees()


def test_on_a_terminal_it_says_what_it_is() -> None:
    import os
    import pty

    parent, child = pty.openpty()
    done = subprocess.run([sys.executable, str(SCRIPT)], stdin=child, capture_output=True, text=True, check=False)
    os.close(parent)
    os.close(child)
    assert done.returncode == 2
    assert "usage: rotate_azure_app.py" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("--help", 0), ("--no-such", 2)])
def test_arguments(argument: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), argument], input="", capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stdout or done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_package_is_named(world: World, tmp_path) -> None:
    for package in ("requests", "msal", "keeper_secrets_manager_core"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('no such package here')\n")
    environ = {"PYTHONPATH": str(tmp_path)}
    assert_refused(world, run_script(world, environ=environ), "bad_input", "msal", "keeper-secrets-manager-core")


@pytest.mark.parametrize("module", ["app_secret", "app_record", "pam_script"])
def test_a_module_names_all_missing_packages_at_once(world: World, tmp_path, module: str) -> None:
    import os

    for package in ("msal", "keeper_secrets_manager_core"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('no such package here')\n")
    path = os.pathsep.join([str(tmp_path), os.environ["ANSIBLE_COLLECTIONS_PATH"]])
    options = {
        "app_secret": {},
        "app_record": {"pam_config": None, "application_object_id": world.app.object_id},
        "pam_script": {"pam_config": None, "src": str(SCRIPT)},
    }
    result = run_module(world, environ={"PYTHONPATH": path}, module=module, **options[module])
    assert_refused(
        world, result, "bad_input", "msal", f"{sys.executable} -m pip install msal keeper-secrets-manager-core"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"record": None}, "record"),
        ({"rekord": "x"}, "rekord"),
        ({"lifetime_days": "soon"}, "lifetime_days"),
        ({"retire": "some"}, "retire"),
        ({"keeper_config_file": "/nonexistent"}, "keeper_config"),
    ],
)
def test_arguments_that_ansible_refuses(world: World, options: dict[str, Any], words: str) -> None:
    assert_refused(world, run_module(world, **options), "bad_input", words)


CONFIGURATIONS: dict[str, tuple[str, str]] = {
    "no base64": ("?", "neither JSON nor base64"),
    "broken json": ('{"hostname": ', "neither JSON nor base64"),
    "a list": ("[]", "neither JSON nor base64"),
    "an empty object": ("{}", "lacks clientId"),
    "one that was never initialised": ('{"hostname": "localhost", "clientKey": "abc"}', "never initialised"),
    "damaged keys": ('{"hostname": "localhost:1", "clientId": "x", "privateKey": "x", "appKey": "x"}', ""),
}


@pytest.mark.parametrize("case", sorted(CONFIGURATIONS))
def test_a_keeper_configuration_that_cannot_be_used(world: World, form: str, case: str) -> None:
    text, words = CONFIGURATIONS[case]
    if form == "script":
        result = run_script(world, environ={"GATEWAY_CONFIG": text})
    else:
        result = run_module(world, keeper_config=text)
    assert_refused(world, result, "bad_input", "configuration", words)


def test_a_configuration_file_that_is_missing_or_empty(world: World, form: str, tmp_path) -> None:
    (tmp_path / "empty").write_text("")
    for path in (tmp_path / "missing", tmp_path / "empty", tmp_path):
        if form == "script":
            result = run_script(world, environ={"GATEWAY_CONFIG": None, "GATEWAY_CONFIG_PATH": str(path)})
        else:
            result = run_module(world, keeper_config=None, keeper_config_file=str(path))
        assert_refused(world, result, "bad_input", str(path))
    assert (tmp_path / "empty").read_text() == ""
    assert not (tmp_path / "missing").exists()


def test_no_configuration_at_all(world: World, form: str) -> None:
    result = (
        run_script(world, environ={"GATEWAY_CONFIG": None})
        if form == "script"
        else run_module(world, keeper_config=None)
    )
    assert_refused(world, result, "bad_input", "no Keeper configuration was")


def gone(world: World) -> None:
    world.sandbox.directory.applications.remove(world.app)


SITUATIONS: dict[str, tuple[Callable[[World], object], str, list[str]]] = {
    "record read-only": (lambda w: setattr(w.record, "editable", False), "refused", ["read-only", "edit permission"]),
    "no application id": (lambda w: w.record.edit("application_object_id", ""), "bad_input", ["application_object_id"]),
    "application id a name": (
        lambda w: w.record.edit("application_object_id", "billing"),
        "bad_input",
        ["application_object_id"],
    ),
    "application gone": (gone, "refused", ["was not found", "application_object_id"]),
    "admin not an owner": (
        lambda w: w.app.owners.clear(),
        "refused",
        ["Insufficient privileges", "Application.ReadWrite.OwnedBy", "owner"],
    ),
    "admin without permission": (lambda w: w.admin.roles.clear(), "refused", ["Application.ReadWrite.OwnedBy"]),
    "admin secret expired": (
        lambda w: setattr(w.admin_secret, "end", w.admin_secret.start),
        "refused",
        ["expired", "AADSTS7000222"],
    ),
    "admin secret wrong": (
        lambda w: w.configuration.edit("clientSecret", "wrong-but-long-enough"),
        "refused",
        ["not valid", "AADSTS7000215"],
    ),
    "admin disabled": (lambda w: setattr(w.admin, "disabled", True), "refused", ["disabled"]),
    "unknown client id": (
        lambda w: w.configuration.edit("clientId", "2d2c6b0a-0000-4000-8000-000000000000"),
        "refused",
        ["AADSTS700016"],
    ),
    "unknown tenant": (
        lambda w: w.configuration.edit("tenantId", "2d2c6b0a-0000-4000-8000-000000000000"),
        "refused",
        ["tenant", "AADSTS90002"],
    ),
    "tenant no id": (lambda w: w.configuration.edit("tenantId", "my tenant/x"), "bad_input", ["tenant id"]),
    "no admin secret": (lambda w: w.configuration.edit("clientSecret", ""), "bad_input", ["clientSecret"]),
    "no admin at all": (
        lambda w: [w.configuration.edit(label, "") for label in ("clientId", "clientSecret", "tenantId")],
        "bad_input",
        ["no client id and client secret"],
    ),
    "neither an admin nor a managed identity": (
        lambda w: [w.configuration.edit(label, "") for label in ("clientId", "clientSecret")],
        "refused",
        ["no managed identity was found on this host", "Azure"],
    ),
    "authority over http": (
        lambda w: w.configuration.edit("Azure Authority FQDN", "http://localhost:1"),
        "bad_input",
        ["https"],
    ),
    "policy limits the lifetime": (
        lambda w: setattr(w.sandbox.directory, "policy_max_days", 90),
        "refused",
        ["lifetime_days", "exceeds the max value"],
    ),
    "policy forbids secrets": (
        lambda w: setattr(w.sandbox.directory, "policy_blocks_passwords", True),
        "refused",
        ["CredentialTypeNotAllowedAsPerAppPolicy"],
    ),
    "entra not reachable": (
        lambda w: w.configuration.edit("Azure Authority FQDN", "localhost:9"),
        "refused",
        ["was not reached"],
    ),
    "record of another application's admin without a secret": (
        lambda w: w.record.edit("application_client_id", "2d2c6b0a-0000-4000-8000-000000000000"),
        "bad_input",
        ["tenant_id"],
    ),
}


@pytest.mark.parametrize("case", sorted(SITUATIONS))
def test_what_is_wrong_is_named_and_nothing_changes(world: World, form: str, case: str) -> None:
    arrange, status, words = SITUATIONS[case]
    arrange(world)
    assert_refused(world, FORMS[form](world), status, *words)


def test_a_record_that_is_missing(world: World, form: str) -> None:
    line = world.sandbox.gateway.stdin_for(world.record.uid)
    world.sandbox.vault.remove(world.record.uid)
    result = run_script(world, stdin=line) if form == "script" else run_module(world)
    assert (result.status, result.changed) == ("bad_input", False)
    assert f"the record {world.record.uid}" in result.message
    assert "was not found" in result.message
    assert len(world.app.live_secrets()) == 1


def test_a_field_of_a_type_that_holds_no_text(world: World, form: str) -> None:
    world.record.field_named("expires").update(type="date", value=[1])
    assert_refused(world, FORMS[form](world), "bad_input", "expires", "date")


@pytest.mark.parametrize("label", ["application_object_id", "client_secret", "client_secret_id", "expires"])
@pytest.mark.parametrize("section", ["custom", "fields"])
def test_two_fields_of_one_name(world: World, form: str, label: str, section: str) -> None:
    """Nobody can tell which one is read, and which one would keep a dead secret."""
    kind = "secret" if label == "client_secret" else "text"
    value = world.record.value(label)
    world.record.data[section].append({"type": kind, "label": label, "value": [value]})
    before = world.sandbox.vault.snapshot()
    result = FORMS[form](world)
    assert result.status in ("bad_input", "refused"), result.said()
    assert result.message.count(label) >= 1
    assert any(word in result.message for word in ("twice", "two", "both", "several", "2 fields"))
    assert (world.live(), world.sandbox.vault.snapshot()) == ({world.old.key_id}, before)


def test_two_fields_that_match_a_name_equally_well_are_both_named(world: World, form: str) -> None:
    field = world.record.field_named("client_secret")
    assert field is not None
    field["label"] = "Client Secret"
    world.record.data["custom"].append({"type": "secret", "label": "client-secret", "value": ["another"]})
    before = world.sandbox.vault.snapshot()
    result = FORMS[form](world)
    assert result.status == "bad_input", result.said()
    assert "Client Secret" in result.message
    assert "client-secret" in result.message
    assert (world.live(), world.sandbox.vault.snapshot()) == ({world.old.key_id}, before)


def test_the_one_that_matches_exactly_counts(world: World, form: str) -> None:
    world.record.data["custom"].insert(0, {"type": "secret", "label": "Client Secret", "value": ["of something else"]})
    assert FORMS[form](world).returncode == 0
    assert world.agrees()
    assert world.record.value("Client Secret") == "of something else"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lifetime_days", "soon"),
        ("lifetime_days", "0"),
        ("lifetime_days", "12.5"),
        ("lifetime_days", "99999999999"),
        ("keep_previous", "-1"),
        ("retire", "some"),
        ("verify", "perhaps"),
        ("verify_timeout", "2m"),
        ("retire_after", "soon"),
        ("retire_after", "-1"),
        ("retire_after", "91d"),
        ("retire_after", "1.5h"),
    ],
)
def test_a_tuning_field_that_cannot_be_read(name: str, value: str) -> None:
    with make_world(**{name: value}) as world:
        assert_refused(world, run_script(world), "bad_input", name, value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lifetime_days": 0}, "lifetime_days"),
        ({"verify_timeout": 0}, "verify_timeout"),
        ({"cloud_environment": "AzureMoonCloud"}, "AzureMoonCloud"),
        ({"cloud_environment": {"authority": "localhost"}}, "cloud_environment"),
        ({"admin_record": "AAAAAAAAAAAAAAAAAAAAAA"}, "AAAAAAAAAAAAAAAAAAAAAA"),
        ({"pam_config": "AAAAAAAAAAAAAAAAAAAAAA"}, "AAAAAAAAAAAAAAAAAAAAAA"),
        ({"pam_config": None}, "no admin identity"),
        ({"client_id": "x"}, "tenant_id"),
        (
            {"client_id": "x", "tenant_id": "y"},
            "oidc_token_file_path or managed_identity",
        ),
        ({"client_id": "x", "tenant_id": "y", "certificate_path": "/nonexistent"}, "/nonexistent"),
    ],
)
def test_options_that_cannot_be_used(world: World, options: dict[str, Any], words: str) -> None:
    assert_refused(world, run_module(world, **options), "bad_input", words)


def test_a_certificate_that_is_none(world: World, tmp_path) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    options = {"client_id": world.admin.client_id, "tenant_id": world.sandbox.tenant_id}
    result = run_module(world, **options, certificate_path=str(tmp_path / "x.pem"))
    assert_refused(world, result, "bad_input", "certificate")


def test_two_attached_admin_records_are_ambiguous(world: World) -> None:
    attached = [
        world.sandbox.vault.pam_user(
            f"admin {number}", application_client_id=f"id-{number}", client_secret="s3cret-value", tenant_id="t"
        ).uid
        for number in (1, 2)
    ]
    world.sandbox.vault.attach_script(world.record, SCRIPT, credentials=attached)
    assert_refused(world, run_script(world), "bad_input", *attached)


def test_keeper_refuses_the_device(world: World, form: str) -> None:
    body = {"error": "access_denied", "message": "Signature is invalid"}
    world.sandbox.faults.add(Fault("get_secret", kind="status", status=403, body=body, times=None))
    assert_refused(world, FORMS[form](world), "refused", "Signature is invalid")


def test_an_application_that_cannot_sign_in_keeps_its_secrets(world: World, form: str) -> None:
    world.app.blocked_by_conditional_access = True
    result = FORMS[form](world)
    assert (result.status, result.changed, result.failed) == ("rolled_back", False, True)
    assert "Conditional Access" in result.message
    assert [one.key_id for one in world.app.live_secrets()] == [world.old.key_id]


def test_a_record_with_another_admins_credential_is_not_overwritten(form: str) -> None:
    with make_world() as world:
        for label, value in (
            ("application_client_id", world.admin.client_id),
            ("tenant_id", world.sandbox.tenant_id),
            ("client_secret", world.admin_secret.text),
        ):
            world.record.edit(label, value)
        result = FORMS[form](world)
        assert (result.status, result.changed) == ("bad_input", False)
        assert "would be overwritten" in result.message
        assert world.record.value("client_secret") == world.admin_secret.text
        assert len(world.app.live_secrets()) == 1
