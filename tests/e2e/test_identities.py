# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The admin application signs in without a secret in the vault: by its host, by another provider, by a certificate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from certificates import self_signed
from harness import FORMS, Result, World, make_world, run_module, run_script
from identities import (
    OWNED,
    PASSPHRASE,
    SUBJECT,
    WAYS,
    Way,
    admin_record,
    arc_host,
    attach,
    by_arc,
    in_app_service,
    moved,
    on_a_vm,
    on_a_vm_by_client_id,
    trust,
    why_no_namespaces,
    with_a_certificate_at_a_path,
    with_a_certificate_of_the_environment,
    with_a_token_file,
    with_an_attached_pfx,
    without_secret,
)
from judge import Judge, Verdict

from leaks import pieces_in
from sandbox import Fault
from sandbox.identity_assertions import FederatedCredential
from sandbox.identity_hosts import ARC_KEYS, managed_identity

NO_NAMESPACES = why_no_namespaces()
ARC_NEEDS = pytest.mark.skipif(NO_NAMESPACES != "", reason=NO_NAMESPACES)


def kinds(names: Iterable[str]) -> list[Any]:
    """Return these as parameters; what a host does not allow is skipped there."""
    return [pytest.param(name, marks=[ARC_NEEDS] if name == "Arc" else []) for name in names]


#: One for each kind of credential.
SAMPLES = ["VM", "token file", "certificate at a path", "attached PFX"]


def prepared(world: World, name: str, folder: Path) -> Way:
    """Return the way of this name, prepared in the world."""
    return WAYS[name][0](world, folder)


def assert_nothing_leaked(world: World, way: Way, result: Result) -> None:
    """Nothing that signs in is in what was said: neither secrets and tokens, nor keys and passphrases."""
    hidden = [*world.secrets(), *world.sandbox.issued_tokens(), *way.secrets]
    assert pieces_in(result.said(), hidden) == []
    assert "eyJ" not in result.said()  # as every token and every assertion begins
    assert "PRIVATE KEY" not in result.said()
    assert "no_log" not in result.said()  # as Ansible warns of options that it takes for secrets


@pytest.mark.parametrize("name", kinds(WAYS))
def test_a_rotation_without_a_secret_of_the_admin_application(world: World, form: str, name: str, tmp_path) -> None:
    way = prepared(world, name, tmp_path)
    assert world.configuration.value("clientSecret") == "" or "attached" in name
    result = FORMS[form](world, **way.options(form))
    assert (result.status, result.returncode) == ("rotated", 0), result.said()
    assert world.agrees()
    steps = result.stderr.splitlines() if form == "script" else result.output["steps"]
    assert "admin identity " in steps[1]
    assert WAYS[name][1] in steps[1]
    assert_nothing_leaked(world, way, result)
    # The secret of the admin application is not what has signed in.
    signed_in = [entry for entry in world.sandbox.log if entry.op == "token" and world.admin.client_id in entry.detail]
    assert bool(signed_in) == (way.op == "token")


@pytest.mark.parametrize("name", SAMPLES)
def test_the_doctor_names_the_identity_and_says_why_it_is_used(world: World, name: str, tmp_path) -> None:
    way = prepared(world, name, tmp_path)
    result = run_script(world, "--doctor", "--debug", **way.options("script"))
    assert result.returncode == 0, result.said()
    checks = {check["name"]: check for check in result.output["checks"]}
    assert WAYS[name][1] in checks["admin identity"]["text"]
    assert checks["admin"]["level"] == "ok"
    assert (way.host is None) == ("signs in at" in checks["admin"]["text"])
    assert checks["permission"]["text"] == "Application.ReadWrite.OwnedBy, and it owns the application"
    assert world.untouched()
    assert_nothing_leaked(world, way, result)


# -- the module's own options


def test_options_name_a_managed_identity(world: World, tmp_path) -> None:
    way = on_a_vm_by_client_id(world, tmp_path)
    assert way.host is not None
    named = {"managed_identity": True, "tenant_id": world.sandbox.tenant_id, "cloud_environment": endpoints(world)}
    system = way.host.system = managed_identity(world.sandbox.entra, "the host's own", OWNED)
    world.app.owners.append(system.client_id)
    for more in ({"client_id": way.host.users[0].client_id}, {}):
        result = run_module(world, environ=way.environ, pam_config=None, **named, **more)
        assert result.status == "rotated", result.said()
    assert [entry.detail.split()[0] for entry in world.sandbox.log if entry.op == "imds_token"] == [
        way.host.users[0].client_id,
        "issued",
    ]


def endpoints(world: World) -> dict[str, str]:
    """Return the sandbox as a custom pair of endpoints."""
    return {"authority": world.sandbox.authority, "graph": world.sandbox.graph_url}


@pytest.mark.parametrize("option", ["oidc_token", "oidc_token_file_path", "certificate_path"])
def test_options_name_a_token_or_a_certificate(world: World, tmp_path, option: str) -> None:
    way = (with_a_certificate_of_the_environment if "cert" in option else with_a_token_file)(world, tmp_path)
    value = {
        "oidc_token": (tmp_path / "token").read_text,
        "oidc_token_file_path": lambda: str(tmp_path / "token"),
        "certificate_path": lambda: str(tmp_path / "rotator.pfx"),
    }[option]()
    named = {option: value, "client_id": world.admin.client_id, "tenant_id": world.sandbox.tenant_id}
    if "cert" in option:
        named["certificate_passphrase"] = PASSPHRASE
    result = run_module(world, cloud_environment=endpoints(world), **named)
    assert result.status == "rotated", result.said()
    assert "the task's options" in result.output["steps"][1]
    assert_nothing_leaked(world, way, result)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"managed_identity": True, "client_secret": "s"}, "managed_identity is set together with client_secret"),
        ({"oidc_token": "s", "certificate_path": "/x"}, "mutually exclusive"),
        ({"managed_identity": True}, "lacks tenant_id"),
        ({"oidc_token_file_path": "/x"}, "lacks tenant_id and client_id"),
        ({"tenant_id": "t", "client_id": "c"}, "managed_identity"),
    ],
)
def test_options_that_do_not_go_together(world: World, options: dict[str, Any], said: str) -> None:
    result = run_module(world, **options)
    assert (result.status, said in result.message) == ("bad_input", True), result.message
    assert world.operations() == []


# -- what is there and dead is never passed over


def dead_secret(world: World, folder: Path) -> list[str]:
    world.configuration.edit("clientSecret", "abc8Q~" + "x" * 34)
    return ["the client secret is not valid", "Azure"]


def expired_token(world: World, folder: Path) -> list[str]:
    without_secret(world, client_id=True)
    (folder / "old").write_text(trust(world).token(SUBJECT, since=-7200))
    world.configuration.edit("oidc_token_file_path", str(folder / "old"))
    return ["has expired, it was valid until 20", str(folder / "old")]


def absent_token(world: World, folder: Path) -> list[str]:
    without_secret(world, client_id=True)
    world.configuration.edit("oidc_token_file_path", str(folder / "absent"))
    return ["cannot be read", str(folder / "absent")]


def other_certificate(world: World, folder: Path) -> list[str]:
    without_secret(world, client_id=True)
    (folder / "other.pem").write_text(self_signed())
    world.configuration.edit("certificate_path", str(folder / "other.pem"))
    return ["not registered on the application", "other.pem"]


def damaged_certificate(world: World, folder: Path) -> list[str]:
    without_secret(world, client_id=True)
    (folder / "x.pem").write_text("no certificate at all: 4711")
    world.configuration.edit("certificate_path", str(folder / "x.pem"))
    return ["x.pem cannot be used"]


def attached_without_its_passphrase(world: World, folder: Path) -> list[str]:
    record = admin_record(world, certificate_passphrase="another one")
    attach(record, "rotator.pfx", b"\x30\x82" + b"x" * 300)
    return ["rotator.pfx of the record 'keeper-rotator'", "cannot be used"]


DEAD = [
    dead_secret,
    expired_token,
    absent_token,
    other_certificate,
    damaged_certificate,
    attached_without_its_passphrase,
]


@pytest.mark.parametrize("kill", DEAD)
def test_what_is_there_and_dead_is_said_and_no_other_identity_is_tried(
    world: World, tmp_path, kill: Callable[[World, Path], list[str]]
) -> None:
    environ = {}
    for way in (on_a_vm, with_a_certificate_of_the_environment):
        environ.update(way(world, tmp_path).environ)
    world.configuration.edit("clientId", world.admin.client_id)
    said = kill(world, tmp_path)
    result = run_script(world, "--debug", environ=environ)
    assert result.returncode in (2, 3)
    for part in said:
        assert part in result.message
    assert " Next: " in result.message
    assert "4711" not in result.said()
    assert world.untouched()
    assert "imds_token" not in world.operations()
    assert len({entry.status for entry in world.sandbox.log if entry.op == "token"} - {401}) == 0


def test_a_dead_managed_identity_is_not_passed_over_either(world: World, tmp_path) -> None:
    way = in_app_service(world, tmp_path)
    assert way.host is not None
    way.host.system = None
    result = run_script(world, environ=way.environ)
    assert result.status == "refused"
    assert "No User Assigned or Delegated Managed Identity found" in result.message
    assert "give this host a managed identity" in result.message


# -- who names what


@pytest.mark.parametrize("place", ["attached", "own"])
@pytest.mark.parametrize("label", ["certificate_path", "oidc_token_file_path", "managed_identity"])
def test_the_record_of_an_application_makes_the_host_read_and_hand_over_nothing(
    world: World, tmp_path, place: str, label: str
) -> None:
    environ = on_a_vm(world, tmp_path).environ
    (tmp_path / "private").write_text("the host's own business: 4711")
    value = "true" if label == "managed_identity" else str(tmp_path / "private")
    if place == "attached":
        admin_record(world, **{label: value})
    else:
        for name, text in (("application_client_id", world.admin.client_id), ("tenant_id", world.sandbox.tenant_id)):
            world.record.edit(name, text)
        world.record.edit(label, value)
    result = run_script(world, "--debug", environ=environ)
    assert result.status == "bad_input"
    assert f"has the field {label}" in result.message
    assert "4711" not in result.said()
    assert set(world.operations()) <= {"get_secret"}


def test_a_token_of_the_host_is_not_sent_to_an_authority_that_a_record_alone_names(world: World, tmp_path) -> None:
    way = with_a_token_file(world, tmp_path)
    environ = {**way.environ, "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/"}
    result = run_script(world, environ=environ)
    assert result.status == "bad_input"
    assert f"is not sent to https://{world.sandbox.authority}" in result.message
    assert "AZURE_AUTHORITY_HOST" in result.message
    assert set(world.operations()) <= {"get_secret"}


# -- the times of tokens and certificates, and what is read anew


def test_a_token_that_is_replaced_meanwhile_is_read_anew(world: World, form: str, tmp_path) -> None:
    way = with_a_token_file(world, tmp_path)
    assert way.issuer is not None

    def replace(sandbox: Any, entry: Any) -> None:
        if entry.op == "addPassword":  # the cluster writes a new token; the old one and its grant are worth nothing
            world.admin.federated[:] = [FederatedCredential(way.issuer.url, "renamed")]  # type: ignore[union-attr]
            (tmp_path / "token").write_text(way.issuer.token("renamed"))  # type: ignore[union-attr]
            world.sandbox.entra.revoke()

    world.sandbox.watch(replace)
    result = FORMS[form](world, **way.options(form))
    assert result.status == "rotated", result.said()
    assert sum(entry.op == "token" and world.admin.client_id in entry.detail for entry in world.sandbox.log) == 2


@pytest.mark.parametrize(
    ("moment", "status"), [("update_secret", "incomplete"), ("addPassword", "orphan")], ids=["published", "made"]
)
def test_a_token_that_is_gone_when_it_is_needed_again_is_no_bad_input_any_more(
    world: World, tmp_path, moment: str, status: str
) -> None:
    way = with_a_token_file(world, tmp_path)

    def remove(sandbox: Any, entry: Any) -> None:
        if entry.op == moment:
            (tmp_path / "token").unlink()
            world.sandbox.entra.revoke()
            world.app.blocked_by_conditional_access = moment == "addPassword"  # the new secret is to go again

    world.sandbox.watch(remove)
    result = run_script(world, **way.options("script"))
    assert result.status == status, result.said()
    assert str(tmp_path / "token") in result.said()
    assert_nothing_leaked(world, way, result)


@pytest.mark.parametrize(
    ("subject", "audience", "said"),
    [
        ("system:serviceaccount:keeper:other", "", "names the subject of the token (AADSTS700213)"),
        (SUBJECT.upper(), "", "upper and lower case differ (AADSTS7002138)"),
        (SUBJECT, "https://kubernetes.default.svc", "names the audience of the token (AADSTS700212)"),
    ],
)
def test_a_token_that_the_application_does_not_trust(
    world: World, tmp_path, subject: str, audience: str, said: str
) -> None:
    way = with_a_token_file(world, tmp_path)
    assert way.issuer is not None
    token = way.issuer.token(subject, *([audience] if audience else []))
    (tmp_path / "token").write_text(token)
    result = run_script(world, environ=way.environ)
    assert result.status == "refused"
    assert said in result.message
    assert "compare issuer, subject and audience" in result.message
    assert world.admin.client_id in result.message
    assert subject not in result.said()
    assert token not in result.said()


def test_a_token_of_an_issuer_that_is_not_trusted(world: World, tmp_path) -> None:
    way = with_a_token_file(world, tmp_path)
    world.admin.federated.clear()
    assert "names the issuer of the token (AADSTS700211)" in run_script(world, environ=way.environ).message


@pytest.mark.parametrize(("prepare", "hours"), [(with_a_token_file, -2.0), (with_a_certificate_at_a_path, 2.0)])
def test_a_clock_that_is_wrong_is_said(world: World, tmp_path, prepare: Callable[..., Way], hours: float) -> None:
    # Of an assertion that a certificate signs, the library says until when it is valid, and not from when on.
    way = prepare(world, tmp_path)
    with moved(world, hours):
        result = run_script(world, environ=way.environ)
    assert result.status == "refused"
    assert "this host's clock differs from Entra's by 7" in result.message
    assert "NTP" in result.message
    assert world.untouched()


def test_a_certificate_that_has_ended(world: World, tmp_path) -> None:
    with_a_certificate_at_a_path(world, tmp_path)
    with moved(world, 100 * 24.0):
        result = run_script(world, "--doctor")
    assert result.returncode == 3
    checks = {check["name"]: check for check in result.output["checks"]}
    assert checks["certificate"]["level"] == "warning"
    assert checks["admin"]["level"] == "failure"


# -- metadata services that do not work


def test_a_host_without_a_managed_identity(world: World, form: str, tmp_path) -> None:
    way = on_a_vm(world, tmp_path)
    nobody = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9"}
    result = FORMS[form](world, **{**way.options(form), "environ": nobody})
    assert result.status == "refused"
    for part in ("no managed identity was found", "http://127.0.0.1:9", "IDENTITY_ENDPOINT", "himds", "'Azure'"):
        assert part in result.message
    assert world.untouched()


def test_a_redirection_by_the_metadata_service_is_refused(world: World, tmp_path) -> None:
    way = on_a_vm(world, tmp_path)
    location = {"Location": f"https://{world.sandbox.authority}/{world.sandbox.tenant_id}/oauth2/v2.0/token"}
    world.sandbox.faults.add(Fault("imds_token", status=302, headers=location, body=""))
    result = run_script(world, environ=way.environ)
    assert result.status == "refused"
    assert "redirects elsewhere (HTTP 302), which is not followed" in result.message
    assert "discovery" not in world.operations()


@pytest.mark.parametrize("prepare", [on_a_vm, in_app_service])
def test_no_proxy_is_asked_for_the_metadata_service(world: World, tmp_path, prepare: Any) -> None:
    way = prepare(world, tmp_path)
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")
    result = run_script(world, environ={**way.environ, **proxies, "NO_PROXY": None, "no_proxy": None})
    assert result.status == "rotated", result.said()


@ARC_NEEDS
def test_a_key_of_arc_s_agent_that_the_user_of_the_gateway_may_not_read(world: World, tmp_path) -> None:
    way = by_arc(world, tmp_path)
    python = arc_host(tmp_path, tmp_path / "keys", readable=False)
    result = run_script(world, "--doctor", environ=way.environ, python=python)
    assert result.returncode == 3, result.said()
    check = {check["name"]: check for check in result.output["checks"]}["admin"]
    assert check["level"] == "failure"
    assert ARC_KEYS in check["text"]
    assert "member of the group himds" in check["todo"]
    assert world.untouched()


def test_an_identity_that_the_vm_does_not_have(world: World, tmp_path) -> None:
    way = on_a_vm_by_client_id(world, tmp_path)
    assert way.host is not None
    way.host.users = ()
    result = run_script(world, environ=way.environ)
    assert result.status == "refused"
    assert "Identity not found" in result.message
    assert "assign that identity to this host" in result.message


def test_a_permission_that_the_identity_lacks_is_named_with_what_azure_keeps(world: World, tmp_path) -> None:
    way = on_a_vm(world, tmp_path)
    assert way.host is not None
    assert way.host.system is not None
    way.host.system.roles[:] = ["Application.Read.All"]
    result = run_script(world, "--doctor", environ=way.environ)
    check = {check["name"]: check for check in result.output["checks"]}["permission"]
    assert "this host's managed identity" in check["todo"]
    assert "24 hours" in check["todo"]


# -- the fault matrix of each identity's sign-in

MATRIX_WAYS: dict[str, Callable[[World, Path], Way]] = {
    "VM": on_a_vm,
    "App Service": in_app_service,
    "Arc": by_arc,
    "token file": with_a_token_file,
    "certificate at a path": with_a_certificate_at_a_path,
    "attached PFX": with_an_attached_pfx,
}
#: What disturbs the sign-in, with the status that a run then has.
FAULTS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "500": ({"kind": "status", "status": 500}, {"rotated"}),
    "502 html": ({"kind": "html502"}, {"rotated"}),
    "429": ({"kind": "status", "status": 429, "headers": {"Retry-After": "1"}}, {"rotated"}),
    "drop": ({"kind": "drop"}, {"rotated"}),
    "truncate": ({"kind": "truncate"}, {"rotated", "refused"}),
    "503 for ever": ({"kind": "status", "status": 503, "headers": {"Retry-After": "600"}, "times": None}, {"refused"}),
    "400": ({"kind": "status", "status": 400, "body": {"error": "invalid_request"}}, {"refused"}),
    "a page": ({"kind": "status", "status": 200, "body": "<html><title>Wi-Fi</title>"}, {"rotated", "refused"}),
    "SIGTERM": ({"kind": "kill", "signal": 15}, {"refused"}),
    "SIGKILL": ({"kind": "kill", "signal": 9}, {"killed"}),
}


def disturbed(way_name: str, column: str, form: str, folder: Path) -> Verdict:
    """Run one case of the matrix: the first sign-in of the admin application meets the fault."""
    folder.mkdir()
    shape, expected = FAULTS[column]
    with make_world() as world:
        way = MATRIX_WAYS[way_name](world, folder)
        judge = Judge(world, f"{form}/{way_name}/{column}")
        judge.secrets.update(way.secrets)
        fault = world.sandbox.faults.add(Fault(way.op, **shape))
        arguments = ["--debug"] if form == "script" else []
        judge.disturbed(lambda: FORMS[form](world, *arguments, **way.options(form)))
        judge.reached(fault in world.sandbox.faults.fired)
        if judge.verdict.status not in expected:
            judge.verdict.blame("wrong", f"it ended as {judge.verdict.status}, not as {expected}")
        if judge.verdict.status != "rotated":
            world.sandbox.faults.clear()
            judge.recovery(lambda: FORMS[form](world, *arguments, **way.options(form)))
        return judge.verdict


@pytest.mark.parametrize("way", kinds(MATRIX_WAYS))
def test_a_disturbed_sign_in(way: str, tmp_path) -> None:
    cases = [
        (way, column, form, tmp_path / str(number))
        for number, (column, form) in enumerate(zip(FAULTS, 5 * sorted(FORMS)))
    ]
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(lambda case: disturbed(*case), cases))
    red = [verdict for verdict in verdicts if verdict.red]
    assert not red, json.dumps([(each.name, each.problems, each.said) for each in red], indent=1)
