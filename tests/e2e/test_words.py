# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run says: nothing secret, whichever field it was typed into, and nothing that a terminal would obey."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from harness import FORMS, Result, World, make_world, run_script

from sandbox import Fault

#: As Entra makes them; small and capital letters, and a piece that is long enough to be known by.
TYPED = "kR28Q~bR2xVt9-LwZ.mC4pYh8sNfD3gJ5aTq7Wz"
LENGTH = 16
FIELDS = (
    "application_object_id",
    "client_secret_id",
    "expires",
    "lifetime_days",
    "keep_previous",
    "verify_timeout",
    "verify",
    "retire",
    "retire_after",
    "adopt",
    "tenant_id",
    "application_client_id",
)
CONFIGURATION = ("pamazureclientid", "pamazuretenantid", "Azure Authority FQDN", "Azure Graph Endpoint")


def pieces(text: str, secret: str = TYPED) -> list[str]:
    """Return what of the secret is in the text, in whatever case."""
    found = [secret[at : at + LENGTH] for at in range(len(secret) - LENGTH + 1)]
    return [piece for piece in found if piece.lower() in text.lower()]


def said(world: World, *arguments: str, **options: Any) -> Result:
    """Run the script so that it says as much as it can."""
    result = run_script(world, "--debug", *arguments, **options)
    assert result.stderr
    assert "a bug" not in result.said()
    return result


def test_a_secret_that_was_typed_into_another_field_is_not_said() -> None:
    def check(field: str) -> list[str]:
        with make_world(**{field: TYPED}) as world:
            return [f"{field}: {piece}" for piece in pieces(said(world).said())]

    with ThreadPoolExecutor(2) as pool:
        assert not [one for found in pool.map(check, FIELDS) for one in found]


@pytest.mark.parametrize("field", ["lifetime_days", "retire", "client_secret_id"])
def test_the_module_does_not_say_it_either(field: str) -> None:
    with make_world(**{field: TYPED}) as world:
        assert pieces(FORMS["module"](world).said()) == []


def test_nor_is_one_that_was_typed_into_a_field_of_the_configuration() -> None:
    def check(field: str) -> list[str]:
        with make_world() as world:
            labels = [item.get("label") or item["type"] for item in world.configuration.data["fields"]]
            label = next(
                (one for one in labels if one.lower().replace(" ", "") == field.lower().replace(" ", "")), field
            )
            world.configuration.edit(label, TYPED)
            return [f"{field}: {piece}" for piece in pieces(said(world).said())]

    with ThreadPoolExecutor(2) as pool:
        assert not [one for found in pool.map(check, CONFIGURATION) for one in found]


@pytest.mark.parametrize("value", ["pending", "secret", "rotation", "the"])
def test_a_word_in_place_of_a_secret_garbles_nothing(value: str) -> None:
    with make_world(client_secret=value, client_secret_id=None, note=value) as world:
        result = said(world)
        assert result.returncode == 0
        assert "***" not in result.message
        assert "***" not in result.stderr.splitlines()[-1]


def test_other_hidden_fields_are_known_before_anything_is_said(world: World) -> None:
    """Here a service that echoes one, in a piece."""
    world.record.data["custom"].append({"type": "secret", "label": "of another system", "value": [TYPED]})
    world.record.revision += 1
    body = {"error": {"code": "Odd", "message": f"what is {TYPED[3:-3]}?"}}
    world.sandbox.faults.add(Fault("get_application", status=400, body=body, times=None))
    result = said(world)
    assert "what is ***?" in result.message
    assert pieces(result.said()) == []


def test_the_passwords_that_the_gateway_passes_are_known(world: World) -> None:
    line = json.loads(base64.b64decode(world.sandbox.gateway.stdin_for(world.record.uid)))
    line.update(newPassword=TYPED, oldPassword=TYPED[::-1])
    body = {"error": {"code": "Odd", "message": f"{TYPED} {TYPED[::-1]}"}}
    world.sandbox.faults.add(Fault("get_application", status=400, body=body, times=None))
    result = said(world, stdin=base64.b64encode(json.dumps(line).encode()).decode())
    assert pieces(result.said()) == []
    assert pieces(result.said(), TYPED[::-1]) == []


@pytest.mark.parametrize("key", ["userRecordUid", "providerRecordUid"])
def test_what_is_no_uid_is_not_said(world: World, key: str) -> None:
    line = json.loads(base64.b64decode(world.sandbox.gateway.stdin_for(world.record.uid)))
    line.update({key: TYPED, "records": ""})
    result = said(world, stdin=base64.b64encode(json.dumps(line).encode()).decode())
    assert result.returncode in (2, 3)
    assert pieces(result.said()) == []


FOREIGN = "\x1b]0;title\x07 \u202egnp.exe\u2066 \x9b31m \x00 " + "the end " * 4000
SHOWN = r"\x1b]0;title\x07 \u202egnp.exe\u2066 \x9b31m \x00"


@pytest.mark.parametrize("op", ["get_secret", "token", "get_application", "addPassword"])
def test_foreign_text_is_bounded_and_shows_its_control_characters(world: World, op: str) -> None:
    echoed = world.admin_secret.text
    text = FOREIGN[:40] + echoed + FOREIGN[40:]
    body: dict[str, Any] = {"error": "invalid_client", "error_description": text, "error_codes": [4711]}
    if op == "get_secret":
        body = {"error": "odd", "message": text}
    elif op != "token":
        body = {"error": {"code": "Odd", "message": text}}
    world.sandbox.faults.add(Fault(op, status=400, body=body, times=None))
    result = said(world)
    assert result.status == "refused"
    assert pieces(result.said(), echoed) == []
    assert r"\x1b]0;title\x07" in result.message
    assert len(result.message) < 2500
    assert max(len(line) for line in result.stderr.splitlines()) < 3000
    assert result.message.isprintable()
    assert all(line.isprintable() for line in result.stderr.splitlines())


def test_titles_and_names_show_their_control_characters(world: World) -> None:
    world.record.data["title"] = "a\x1b[2J\u202eb"
    world.record.revision += 1
    world.app.display_name = "c\x1b[2J\u202ed"
    result = said(world)
    assert result.returncode == 0
    assert r"a\x1b[2J\u202eb" in result.message
    assert all(line.isprintable() for line in result.stderr.splitlines())
    assert result.output["application"]["display_name"] == r"c\x1b[2J\u202ed"
