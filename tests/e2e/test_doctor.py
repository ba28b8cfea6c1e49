# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The doctor: everything is checked, nothing is changed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from harness import Result, World, make_world, run_module, run_script


def levels(result: Result) -> dict[str, str]:
    """Return the level of each check by its name."""
    return {check["name"]: check["level"] for check in result.output["checks"]}


def examine(form: str, world: World) -> Result:
    return run_script(world, "--doctor") if form == "script" else run_module(world, check=True)


def test_all_is_well(form: str) -> None:
    with make_world(retire_after=None) as world:
        result = examine(form, world)
        assert result.returncode == 0
        assert set(levels(result).values()) == {"ok"}
        assert set(levels(result)) >= {"packages", "Keeper", "record", "admin", "permission", "clock", "room"}
        assert world.untouched()
        assert not set(world.operations()) & {"addPassword", "removePassword", "update_secret"}


def test_a_failure_has_its_own_name_and_what_does_not_need_it_goes_on(world: World) -> None:
    world.record.editable = False
    world.record.edit("application_object_id", "")
    result = run_script(world, "--doctor")
    found = levels(result)
    assert (found["record"], found["edit right"], found["admin"]) == ("failure", "failure", "ok")
    assert found["application"] == found["permission"] == found["other records"] == "skipped"
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith(result.message)


def test_the_admin_application_that_cannot_sign_in_is_named(world: World) -> None:
    world.configuration.edit("clientSecret", "not-a-secret-of-the-admin-application")
    result = run_script(world, "--doctor")
    found = levels(result)
    assert (found["record"], found["admin"], found["application"]) == ("ok", "failure", "skipped")
    assert result.returncode == 3


def test_a_secret_of_the_admin_application_that_ends_soon_is_a_warning() -> None:
    with make_world() as world:
        world.admin_secret.end = world.sandbox.directory.now() + timedelta(days=28, hours=12)
        result = run_script(world, "--doctor")
        assert levels(result)["admin secret"] == "warning"
        assert "28 days" in result.stderr
        assert result.returncode == 0


def test_retire_after_0_is_a_warning(world: World, form: str) -> None:
    assert levels(examine(form, world))["retire_after"] == "warning"


def test_other_records_of_the_application_are_named(world: World) -> None:
    vault = world.sandbox.vault
    names = vault.pam_user("names it", folder=vault.folder_uid, application_object_id=world.app.client_id)
    shows = vault.pam_user("shows its secret", folder=vault.folder_uid, client_secret_id=world.old.key_id)
    vault.pam_user("neither", folder=vault.folder_uid, application_object_id=world.admin.client_id)
    result = run_script(world, "--doctor")
    (found,) = [check for check in result.output["checks"] if check["name"] == "other records"]
    assert found["level"] == "warning"
    assert names.uid in found["text"]
    assert shows.uid in found["text"]
    assert "neither" not in found["text"]


def test_a_named_secret_that_is_not_listed_is_said(world: World) -> None:
    world.record.edit("client_secret_id", "a11ac555-f1c0-4fd4-be3a-e73cd6d09f53")
    result = run_script(world, "--doctor")
    assert levels(result)["named secret"] == "warning"
    assert "a11ac555-f1c0-4fd4-be3a-e73cd6d09f53" in result.stderr


def test_the_record_may_be_named_in_place_of_stdin(world: World) -> None:
    arguments = ["--doctor", "--record=" + world.record.uid, "--provider=" + world.configuration.uid]
    result = run_script(world, *arguments, stdin="")
    assert result.returncode == 0
    assert levels(result)["current secret"] == "ok"


@pytest.mark.parametrize("arguments", [["--record=x"], ["--doctor", "--provider=x"]])
def test_record_belongs_to_doctor(world: World, arguments: list[str]) -> None:
    result = run_script(world, *arguments, stdin="")
    assert result.returncode == 2
    assert "--record goes with --doctor" in result.stderr


def test_a_missing_permission(world: World, form: str) -> None:
    world.admin.roles[:] = ["Application.Read.All"]
    result = examine(form, world)
    assert levels(result)["permission"] == "failure"
    assert "Application.ReadWrite.OwnedBy" in result.said()
    assert (result.returncode, result.status) == ((3, "refused") if form == "script" else (1, "refused"))


def test_ownership_that_is_missing_although_the_application_can_be_read(world: World) -> None:
    world.admin.roles[:] = ["Application.ReadWrite.OwnedBy", "Application.Read.All"]
    world.app.owners.clear()
    result = run_script(world, "--doctor")
    assert levels(result)["permission"] == "failure"
    assert "owner of the application" in result.stderr
    assert result.returncode == 3


def test_fields_that_will_be_created_are_a_warning() -> None:
    with make_world(client_secret=None, client_secret_id=None, expires=None) as world:
        result = run_script(world, "--doctor")
        assert levels(result)["record"] == levels(result)["current secret"] == "warning"
        assert "client_secret, client_secret_id, expires will be created" in result.stderr
        assert result.returncode == 0


def test_a_secret_in_the_vault_that_is_dead_is_a_warning(world: World) -> None:
    world.record.edit("client_secret", "not-a-secret-of-this-application")
    result = run_script(world, "--doctor")
    assert levels(result)["current secret"] == "warning"
    assert result.returncode == 0


def test_no_room_and_a_read_only_record_are_failures() -> None:
    with make_world(retire="managed") as world:
        world.app.audience = "PersonalMicrosoftAccount"
        world.app.add_secret("of somebody else", start=datetime.now(timezone.utc) - timedelta(days=1))
        result = run_script(world, "--doctor")
        assert result.returncode == 3
        assert levels(result)["room"] == "failure"
        assert "no room" in result.message
        world.record.editable = False
        result = run_script(world, "--doctor")
        assert result.returncode == 3
        assert levels(result)["edit right"] == "failure"
        assert "read-only" in result.message


def test_bad_input_keeps_its_status(world: World) -> None:
    result = run_script(world, "--doctor", stdin="?")
    assert (result.returncode, result.status) == (2, "bad_input")
    assert levels(result)["packages"] == "ok"
