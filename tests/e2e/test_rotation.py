# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What both forms do where nothing goes wrong."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from harness import FORMS, SCRIPT, World, make_world, run_module, run_script
from judge import Judge

UTC_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ .+")


def test_leaves_exactly_one_secret_which_the_vault_shows(world: World, form: str) -> None:
    for days in (5, -3, 300):
        world.app.add_secret(f"left over {days}", days=days)
    result = FORMS[form](world)
    assert (result.returncode, result.status, result.changed, result.failed) == (0, "rotated", True, False)
    assert world.agrees()
    assert world.published()
    assert len(result.output["removed"]) == 4


def test_needs_nine_requests_two_more_sign_ins_and_one_for_each_secret_removed(world: World, form: str) -> None:
    world.app.add_secret("another")
    assert FORMS[form](world).returncode == 0
    assert Counter(world.operations()) == {
        "get_secret": 2,
        "discovery": 1,
        "token": 4,
        "get_application": 2,
        "addPassword": 1,
        "update_secret": 1,
        "removePassword": 2,
    }
    assert world.sign_ins() == 3


def test_with_the_default_wait_it_signs_in_six_to_eight_times(form: str) -> None:
    with make_world(retire_after=None) as world:
        judge = Judge(world, form)
        result = judge.disturbed(lambda: FORMS[form](world))
        assert result is not None
        assert result.status == "rotated", result.said()
        assert not judge.verdict.problems, judge.verdict.problems
        assert world.agrees()
        assert 6 <= world.sign_ins() <= 8
        others = [op for op in world.operations() if op != "token"]
        assert len(others) <= 8


def test_can_be_repeated(world: World, form: str) -> None:
    for _attempt in range(3):
        before = world.record.value("client_secret_id")
        assert FORMS[form](world).returncode == 0
        assert world.agrees()
        assert world.record.value("client_secret_id") != before


def test_expires_is_what_entra_says(world: World, form: str) -> None:
    assert FORMS[form](world).returncode == 0
    text = world.record.value("expires")
    (secret,) = world.app.live_secrets()
    assert datetime.fromisoformat(text[:19] + "+00:00") == secret.end.replace(microsecond=0)
    assert text.endswith("Z")
    assert timedelta(days=364) < secret.end - datetime.now(timezone.utc) <= timedelta(days=365)


def test_the_new_secret_is_marked_with_the_record(world: World, form: str) -> None:
    assert FORMS[form](world).returncode == 0
    (secret,) = world.app.live_secrets()
    assert re.fullmatch(f"keeper/{re.escape(world.record.uid)}/[0-9a-f]{{32}}", secret.display_name or "")


@pytest.mark.parametrize("as_people_write_it", [str.lower, str.upper, lambda text: f" {{{text}}} "])
def test_the_record_may_hold_the_client_id(form: str, as_people_write_it) -> None:
    with make_world() as world:
        world.record.edit("application_object_id", as_people_write_it(world.app.client_id))
        assert FORMS[form](world).returncode == 0
        assert world.agrees()


@pytest.mark.parametrize("missing", ["client_secret", "client_secret_id", "expires"])
def test_a_missing_field_is_created_with_its_type(form: str, missing: str) -> None:
    with make_world(**{missing: None}) as world:
        assert FORMS[form](world).returncode == 0
        created = [item for item in world.record.data["custom"] if item["label"] == missing]
        assert [item["type"] for item in created] == ["secret" if missing == "client_secret" else "text"]
        assert world.agrees()


def test_custom_fields_may_be_null(world: World, form: str) -> None:
    world.record.data["fields"] += world.record.data["custom"]
    world.record.data["custom"] = None
    assert FORMS[form](world).returncode == 0
    assert world.agrees()


def test_other_fields_and_odd_ones_survive(world: World, form: str) -> None:
    odd = [{"type": "text", "value": ["no label"]}, {"label": "no type", "value": [1, {"a": None}]}, {"type": "note"}]
    world.record.data["custom"][:0] = odd
    world.record.data["x-unknown"] = {"kept": True}
    fields, title = json.dumps(world.record.data["fields"]), world.record.data["title"]
    assert FORMS[form](world).returncode == 0
    assert world.record.data["custom"][:3] == odd
    assert world.record.data["x-unknown"] == {"kept": True}
    assert (json.dumps(world.record.data["fields"]), world.record.data["title"]) == (fields, title)


def test_an_edit_made_meanwhile_survives(world: World, form: str) -> None:
    def edit(sandbox, entry) -> None:
        if entry.op == "addPassword":
            world.record.edit("notes for operators", "written during the rotation")

    world.sandbox.watch(edit)
    assert FORMS[form](world).returncode == 0
    assert world.record.value("notes for operators") == "written during the rotation"
    assert world.agrees()


def test_labels_are_matched_without_case_and_punctuation(form: str) -> None:
    with make_world() as world:
        for item in world.record.data["custom"]:
            item["label"] = item["label"].replace("_", " ").title()
        assert FORMS[form](world).returncode == 0
        assert len(world.record.data["custom"]) == 5
        values = {item["label"]: item["value"][0] for item in world.record.data["custom"]}
        (secret,) = world.app.live_secrets()
        assert (values["Client Secret"], values["Client Secret Id"]) == (secret.text, secret.key_id)


def test_a_record_in_an_inner_folder_is_rotated(form: str) -> None:
    with make_world() as world:
        world.record.inner_folder = True
        assert FORMS[form](world).returncode == 0
        assert world.agrees()


@pytest.mark.parametrize("labels", ["commander", "saas", "helper", "old"])
def test_every_spelling_of_the_pam_configuration(form: str, labels: str) -> None:
    with make_world() as world:
        world.sandbox.vault.remove(world.configuration.uid)
        world.configuration = world.sandbox.vault.azure_configuration(
            world.admin.client_id, world.admin_secret.text, world.sandbox.tenant_id, labels=labels
        )
        assert FORMS[form](world).returncode == 0
        assert world.agrees()


def test_a_new_secret_that_takes_its_time_is_waited_for(world: World, form: str) -> None:
    world.sandbox.directory.usable_after = 1.5
    world.sandbox.directory.visible_after = 1.0
    world.sandbox.directory.replicas = 3
    assert FORMS[form](world).returncode == 0
    assert world.agrees()


def test_the_admin_application_rotates_itself_from_its_own_record(form: str) -> None:
    with make_world() as world:
        own = world.sandbox.vault.pam_user(
            "keeper-rotator",
            application_object_id=world.admin.client_id,
            application_client_id=world.admin.client_id,
            tenant_id=world.sandbox.tenant_id,
            client_secret=world.admin_secret.text,
            client_secret_id=world.admin_secret.key_id,
            retire_after="0",
        )
        world.admin.owners.append(world.admin.client_id)
        world.app, world.record = world.admin, own
        result = FORMS[form](world)
        assert result.returncode == 0
        # The PAM configuration holds the same secret: without it, whatever it rotates would fail from now on.
        assert [item["key_id"] for item in result.output["kept"]] == [world.admin_secret.key_id]
        assert world.published()
        world.configuration.edit("clientId", "")
        world.configuration.edit("clientSecret", "")
        for _attempt in range(2):
            assert FORMS[form](world).returncode == 0
            assert world.agrees()


def test_the_secret_that_the_pam_configuration_signs_in_with_is_kept(form: str) -> None:
    with make_world() as world:
        world.admin.owners.append(world.admin.client_id)
        world.admin.add_secret("of nobody")
        mine = world.admin.add_secret("of its own record")
        world.app = world.admin
        world.record = world.sandbox.vault.pam_user(
            "rotator",
            application_object_id=world.admin.object_id,
            application_client_id=world.admin.client_id,
            tenant_id=world.sandbox.tenant_id,
            client_secret=mine.text,
            client_secret_id=mine.key_id,
            retire_after="0",
        )
        result = FORMS[form](world)
        assert result.returncode == 0
        assert [item["key_id"] for item in result.output["kept"]] == [world.admin_secret.key_id]
        assert f"({world.configuration.uid}) holds it" in result.kept()[world.admin_secret.key_id]
        assert {one.key_id for one in world.admin.live_secrets()} == {
            world.admin_secret.key_id,
            world.record.value("client_secret_id"),
        }
        assert FORMS[form](world).returncode == 0


def test_check_changes_nothing(world: World, form: str) -> None:
    result = run_script(world, "--check") if form == "script" else run_module(world, check=True)
    assert (result.returncode, result.status, result.changed) == (0, "planned", True)
    assert result.output["would_remove"] == [world.old.key_id]
    assert world.untouched()
    assert not set(world.operations()) & {"addPassword", "removePassword", "update_secret"}


@pytest.mark.parametrize(
    ("policy", "kept"),
    [({"keep_previous": 1}, 1), ({"keep_previous": 2}, 2), ({"retire": "none"}, 3), ({"retire": "managed"}, 2)],
)
def test_old_secrets_are_kept_as_asked(form: str, policy: dict, kept: int) -> None:
    fields = {name: str(value) for name, value in policy.items()} if form == "script" else {}
    options = policy if form == "module" else {}
    with make_world(**fields) as world:
        world.app.add_secret("of somebody else", start=datetime.now(timezone.utc) - timedelta(days=9))
        world.app.add_secret("of yet another", start=datetime.now(timezone.utc) - timedelta(days=8))
        assert FORMS[form](world, **options).returncode == 0
        assert len(world.app.live_secrets()) == kept + 1
        if "keep_previous" in policy:
            assert world.old.key_id in {one.key_id for one in world.app.live_secrets()}


def test_without_verify_an_application_that_cannot_sign_in_is_rotated(form: str) -> None:
    with make_world(**({"verify": "no"} if form == "script" else {})) as world:
        world.app.blocked_by_conditional_access = True
        result = FORMS[form](world, **({"verify": False} if form == "module" else {}))
        assert result.returncode == 0
        assert result.output["verified"] is False
        assert world.agrees()


def test_a_netrc_entry_for_the_hosts_does_no_harm(world: World, form: str, tmp_path) -> None:
    (tmp_path / ".netrc").write_text("machine localhost login somebody password else\n")
    result = FORMS[form](world, environ={"HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc")})
    assert result.returncode == 0
    assert world.agrees()


def test_the_configuration_file_is_left_as_it_is(world: World, form: str, tmp_path) -> None:
    file = tmp_path / "gateway-config.json"
    file.write_text(json.dumps(world.sandbox.client_config(), indent=1) + "\n")
    file.chmod(0o400)
    before = hashlib.sha256(file.read_bytes()).digest(), file.stat().st_mtime_ns
    if form == "script":
        result = run_script(world, environ={"GATEWAY_CONFIG": None, "GATEWAY_CONFIG_PATH": str(file)})
    else:
        result = run_module(world, keeper_config=None, keeper_config_file=str(file))
    assert result.returncode == 0
    assert (hashlib.sha256(file.read_bytes()).digest(), file.stat().st_mtime_ns) == before
    assert [path.name for path in tmp_path.iterdir()] == ["gateway-config.json"]


class TestScript:
    """What only the script form does."""

    @pytest.mark.parametrize("order", ["config-first", "user-first", "shuffled"])
    def test_the_order_of_records_does_not_count(self, world: World, order: str) -> None:
        assert run_script(world, order=order).returncode == 0
        assert world.agrees()

    def test_one_line_of_json_and_a_line_per_step_with_utc_time(self, world: World) -> None:
        result = run_script(world)
        assert result.stdout.count("\n") == 1
        assert json.loads(result.stdout)["status"] == "rotated"
        assert all(UTC_LINE.fullmatch(line) for line in result.stderr.splitlines())

    def test_an_attached_record_comes_before_the_pam_configuration(self, world: World) -> None:
        other = world.sandbox.directory.add_application("other-admin", roles=["Application.ReadWrite.All"])
        attached = world.sandbox.vault.pam_user(
            "other admin",
            application_client_id=other.client_id,
            client_secret=other.add_secret().text,
            tenant_id=world.sandbox.tenant_id,
        )
        world.sandbox.vault.attach_script(world.record, SCRIPT, credentials=[attached.uid])
        result = run_script(world, order="config-first")
        assert result.returncode == 0
        assert f"admin identity {other.client_id}" in result.stderr

    def test_the_pam_configuration_is_read_where_it_is_not_passed(self, world: World) -> None:
        result = run_script(world, include=("user",), provider_uid=world.configuration.uid)
        assert result.returncode == 0
        assert world.agrees()

    def test_the_gateway_runs_the_attached_script(self, world: World) -> None:
        import sys

        world.sandbox.vault.attach_script(world.record, SCRIPT, command=sys.executable)
        run = world.sandbox.gateway.rotate(world.record.uid, rotates_password=True)
        assert run.returncode == 0
        assert world.agrees()

    def test_the_gateway_has_staged_a_password_of_its_own_and_what_the_script_saves_wins(self, world: World) -> None:
        judge = Judge(world, "staged")
        password = world.record.value("password")
        with world.sandbox.gateway.staging(world.record.uid, "ours wins"):
            result = run_script(world)
        assert result.status == "rotated", result.said()
        assert world.agrees()
        assert world.record.value("password") == password
        assert not judge.verdict.problems, judge.verdict.problems

    def test_where_what_the_gateway_has_staged_wins_the_previous_secret_saves_the_day(self) -> None:
        with make_world(keep_previous="1") as world:
            judge = Judge(world, "staged")
            with world.sandbox.gateway.staging(world.record.uid, "staged wins"):
                assert run_script(world).status == "rotated"
            assert world.shows() == world.old.key_id
            assert world.published()
            result = run_script(world)
            assert result.status == "rotated", result.said()
            assert world.live() == {world.old.key_id, world.shows()}
            assert world.shows() != world.old.key_id
            assert not judge.verdict.problems, judge.verdict.problems

    def test_tuning_fields_of_the_record(self) -> None:
        with make_world(lifetime_days=" 90 ", verify_timeout="60") as world:
            assert run_script(world).returncode == 0
            (secret,) = world.app.live_secrets()
            assert timedelta(days=89) < secret.end - datetime.now(timezone.utc) <= timedelta(days=90)

    def test_a_closed_stdout_and_stderr_do_not_stop_it(self, world: World) -> None:
        import subprocess
        import sys

        line = world.sandbox.gateway.stdin_for(world.record.uid)
        command = f"exec {sys.executable} {SCRIPT} >&- 2>&-"
        done = subprocess.run(
            ["/bin/sh", "-c", command], input=line, text=True, env=world.sandbox.environ(), check=False
        )
        assert done.returncode == 0
        assert world.agrees()


class TestModule:
    """What only the module does."""

    def test_expiring_does_nothing_before_it_is_time(self, world: World) -> None:
        result = run_module(world, rotate="expiring", min_days_left=10)
        assert (result.status, result.changed) == ("unchanged", False)
        assert world.untouched()

    def test_expiring_rotates_in_time_and_then_rests(self, world: World) -> None:
        assert run_module(world, rotate="expiring").status == "rotated"
        assert world.agrees()
        again = run_module(world, rotate="expiring")
        assert (again.status, again.changed) == ("unchanged", False)
        assert world.agrees()

    def test_expiring_finishes_what_an_interrupted_run_left(self, world: World) -> None:
        world.app.add_secret("older", start=datetime.now(timezone.utc) - timedelta(days=9))
        result = run_module(world, rotate="expiring", min_days_left=1)
        assert (result.status, result.changed) == ("rotated", True)
        assert world.untouched()

    def test_diff_shows_ids_and_dates_alone(self, world: World) -> None:
        result = run_module(world, diff=True)
        new = world.record.value("client_secret_id")
        diff = result.output["diff"]
        assert diff["before"]["record"]["client_secret_id"] == world.old.key_id
        assert diff["after"]["record"]["client_secret_id"] == new
        assert set(diff["before"]["secrets"]) == {world.old.key_id}
        assert set(diff["after"]["secrets"]) == {new}

    def test_an_admin_record(self, world: World) -> None:
        other = world.sandbox.directory.add_application("other-admin", roles=["Application.ReadWrite.All"])
        admin = world.sandbox.vault.pam_user(
            "other admin",
            application_client_id=other.client_id,
            client_secret=other.add_secret().text,
            tenant_id=world.sandbox.tenant_id,
        )
        result = run_module(world, admin_record=admin.uid)
        assert result.returncode == 0
        assert any(f"admin identity {other.client_id}" in step for step in result.output["steps"])

    def test_identity_and_cloud_from_options(self, world: World) -> None:
        endpoints = {"authority": world.sandbox.authority, "graph": world.sandbox.graph_url}
        result = run_module(
            world,
            pam_config=None,
            tenant=world.sandbox.tenant_id,
            client_id=world.admin.client_id,
            secret=world.admin_secret.text,
            cloud_environment=endpoints,
        )
        assert result.returncode == 0
        assert world.agrees()

    def test_identity_from_the_environment(self, world: World) -> None:
        endpoints = {"authority": world.sandbox.authority, "graph": world.sandbox.graph_url}
        environ = {
            "AZURE_TENANT": world.sandbox.tenant_id,
            "AZURE_CLIENT_ID": world.admin.client_id,
            "AZURE_SECRET": world.admin_secret.text,
            "KSM_CONFIG": json.dumps(world.sandbox.client_config()),
        }
        result = run_module(world, pam_config=None, keeper_config=None, cloud_environment=endpoints, environ=environ)
        assert result.returncode == 0
        assert world.agrees()

    def test_a_certificate(self, world: World, tmp_path) -> None:
        from certificates import self_signed

        file = tmp_path / "rotator.pem"
        file.write_text(self_signed())
        world.admin.add_certificate(file.read_text())
        result = run_module(
            world,
            tenant_id=world.sandbox.tenant_id,
            client_id=world.admin.client_id,
            certificate_path=str(file),
        )
        assert result.returncode == 0
        assert world.agrees()

    def test_the_application_option_comes_before_the_field(self, world: World) -> None:
        world.record.edit("application_object_id", "pending")
        result = run_module(world, application=world.app.client_id)
        assert result.returncode == 0
        assert world.agrees()
