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


def test_all_is_well(world: World, form: str) -> None:
    result = examine(form, world)
    assert result.returncode == 0
    assert set(levels(result).values()) == {"ok"}
    assert set(levels(result)) >= {"packages", "Keeper", "record", "admin", "permission", "clock", "room"}
    assert world.untouched()
    assert not set(world.operations()) & {"addPassword", "removePassword", "update_secret"}


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


def test_no_room_and_a_read_only_record_are_failures(world: World) -> None:
    world.app.audience = "PersonalMicrosoftAccount"
    world.app.add_secret("of somebody else", start=datetime.now(timezone.utc) - timedelta(days=1))
    result = run_script(world, "--doctor")
    assert result.returncode == 3
    assert "no room" in result.stderr
    world.record.editable = False
    result = run_script(world, "--doctor")
    assert result.returncode == 3
    assert "read-only" in result.stderr


def test_bad_input_keeps_its_status(world: World) -> None:
    result = run_script(world, "--doctor", stdin="?")
    assert (result.returncode, result.status) == (2, "bad_input")
    assert levels(result)["packages"] == "ok"
