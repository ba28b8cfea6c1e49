# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module takes for given, what it shows of it, and that every result says how it ended."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base import redact
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import Refused
from ansible_collections.keeperpam.azure.plugins.module_utils._module import (
    KEEPER_EXCLUSIVE,
    KEEPER_OPTIONS,
    Module,
    conclude,
)

from leaks import pieces_in

OPTIONS: dict[str, dict[str, Any]] = {
    "record": {"type": "str", "required": True, "aliases": ["uid"]},
    "days": {"type": "int"},
    "client_id": {"type": "str"},
    "client_secret": {"type": "str", "no_log": True, "aliases": ["secret"]},
    "verify": {"type": "bool"},
    "retire": {"type": "str", "choices": ["all", "none"], "default": "all"},
    "command": {"type": "str"},
}
PRIVATE = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg1/7ymYg1brQu5jHDMFz6Q+v6+opQqqJG/7PVaxkbU85KhRANC"
APP = "k3+0vYQxk2Wf7c1bJm8d0aUuR9sT4pLzXe6hGiNoQwE="
CONFIG = {
    "hostname": "keepersecurity.example",
    "serverPublicKeyId": "7",
    "clientId": "FMXcoFZxZObUxcMTdZSJCVgV7huTRDQ1/RsjMgvN1PXQZ2dDpzWQ9MRK+hTdB63n",
    "privateKey": PRIVATE,
    "appKey": APP,
    "letter": "A",
}
SECRETS = [CONFIG["clientId"], PRIVATE, APP]
UID = "ZmpJl4qCXJEi0ohFKzzQaA"
ENTRA = "abc8Q~VeryLongAndSecretClientSecretValue0"


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module is a process of its own: what one has learned is not for the next."""
    monkeypatch.setattr(redact, "_known", set())
    monkeypatch.setattr(redact, "_blocks", {})


def run(
    capsys: pytest.CaptureFixture[str], arguments: dict[str, Any], work: Any = None, **internal: Any
) -> dict[str, Any]:
    """Return the result of a module with these arguments."""
    settings = {f"_ansible_{name}": value for name, value in {"verbosity": 4, **internal}.items()}

    def be_a_module() -> None:
        rules = {"mutually_exclusive": KEEPER_EXCLUSIVE}
        module = Module({**OPTIONS, **KEEPER_OPTIONS}, keep_empty=("command",), **rules)
        conclude(module, work or (lambda module, http, budget, log: {"changed": False, "msg": "done"}))

    with patch_module_args({**arguments, **settings}), pytest.raises(SystemExit):
        be_a_module()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


FORMS = {
    "a mapping": CONFIG,
    "JSON": json.dumps(CONFIG),
    "JSON in lines": json.dumps(CONFIG, indent=2),
    "base64": base64.b64encode(json.dumps(CONFIG).encode()).decode(),
    "base64 of JSON in lines": base64.encodebytes(json.dumps(CONFIG, indent=4).encode()).decode(),
}


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("option", ["keeper_config", "keeper_config_file", "record", "client_id", "keeper_confg"])
def test_no_piece_of_a_configuration_is_shown_wherever_it_was_put(
    capsys: pytest.CaptureFixture[str], form: str, option: str
) -> None:
    def say(module: Module, http: Any, budget: Any, log: Any) -> dict[str, Any]:
        log.say(f"looking at {module.params[option]} with {PRIVATE}")
        raise Refused(f"{module.params[option]} was refused", repr(CONFIG), "do it again")

    result = run(capsys, {"record": UID, option: FORMS[form]}, say)
    base = base64.b64encode(json.dumps(CONFIG).encode()).decode()
    assert pieces_in(json.dumps(result), [*SECRETS, base, base64.b64encode(PRIVATE.encode()).decode()]) == []
    assert result["status"] == ("bad_input" if option == "keeper_confg" else "refused")


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_configuration_garbles_no_result(capsys: pytest.CaptureFixture[str], form: str) -> None:
    text = "valid until 2027-07-17T17:07:27Z at keepersecurity.example, A and 7"
    said = run(capsys, {"record": UID, "keeper_config": FORMS[form]}, lambda *_: {"changed": True, "msg": text})
    assert said["msg"] == text


@pytest.mark.parametrize(
    "option", ["client_secret", "secret", "client_id", "days", "record", "kleint_secret", "retire"]
)
def test_no_piece_of_a_client_secret_is_shown_wherever_it_was_put(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    def say(module: Module, http: Any, budget: Any, log: Any) -> dict[str, Any]:
        return {"changed": False, "msg": f"with {ENTRA}"}

    assert pieces_in(json.dumps(run(capsys, {"record": UID, option: ENTRA}, say)), [ENTRA]) == []


def test_short_words_are_not_taken_for_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a secret is pending, and 7 others are"
    result = run(capsys, {"record": UID, "client_secret": "pending"}, lambda *_: {"changed": False, "msg": text})
    assert result["msg"] == text
    assert result["invocation"]["module_args"]["client_secret"] != "pending"


def test_the_invocation_shows_what_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    given = {
        "record": UID,
        "client_id": "ec64d6ec-23f2-4391-ac66-58e4b52472f2",
        "days": 30,
        "verify": False,
        "keeper_config_file": "/etc/keeper/ksm config.json",
        "command": "/opt/keeper-azure-rotation/venv/bin/python3",
    }
    shown = run(capsys, given)["invocation"]["module_args"]
    assert {name: shown[name] for name in given} == given


@pytest.mark.parametrize("empty", ["", "  ", None])
@pytest.mark.parametrize("option", ["days", "client_id", "verify", "retire", "keeper_config", "keeper_config_file"])
def test_an_empty_option_counts_as_not_given(capsys: pytest.CaptureFixture[str], option: str, empty: Any) -> None:
    def say(module: Module, http: Any, budget: Any, log: Any) -> dict[str, Any]:
        return {"changed": False, "msg": "", "seen": [module.params[option]]}

    given = {"record": UID, "keeper_config_file": "/x"} if option == "keeper_config" else {"record": UID}
    result = run(capsys, {**given, option: empty}, say)
    assert result.get("seen") == ["all" if option == "retire" else None], result["msg"]


def test_zero_and_false_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    def say(module: Module, http: Any, budget: Any, log: Any) -> dict[str, Any]:
        return {"changed": False, "msg": "", "seen": [module.params["days"], module.params["verify"]]}

    assert run(capsys, {"record": UID, "days": 0, "verify": False}, say)["seen"] == [0, False]


def test_an_option_for_which_empty_means_something_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    def say(module: Module, http: Any, budget: Any, log: Any) -> dict[str, Any]:
        return {"changed": False, "msg": "", "seen": [module.params["command"]]}

    assert run(capsys, {"record": UID, "command": ""}, say)["seen"] == [""]
    assert run(capsys, {"record": UID, "command": None}, say)["seen"] == [None]


ARGUMENTS: dict[str, dict[str, Any]] = {
    "missing": {},
    "empty": {"record": ""},
    "unknown": {"record": UID, "rekord": UID},
    "of another type": {"record": UID, "days": "soon"},
    "not a choice": {"record": UID, "retire": "some"},
    "a configuration that is a number": {"record": UID, "keeper_config": 7},
    "exclusive": {"record": UID, "keeper_config": "{}", "keeper_config_file": "/x"},
}


@pytest.mark.parametrize("case", sorted(ARGUMENTS))
def test_an_argument_error_has_a_status_and_a_next_step(capsys: pytest.CaptureFixture[str], case: str) -> None:
    result = run(capsys, ARGUMENTS[case])
    assert (result["failed"], result["changed"], result["status"]) == (True, False, "bad_input")
    assert "Next: " in result["msg"]


@pytest.mark.parametrize(
    ("changed", "check", "status"),
    [(False, False, "unchanged"), (False, True, "unchanged"), (True, False, "changed"), (True, True, "planned")],
)
def test_a_success_has_a_status(capsys: pytest.CaptureFixture[str], changed: bool, check: bool, status: str) -> None:
    result = run(capsys, {"record": UID}, lambda *_: {"changed": changed, "msg": "done"}, check_mode=check)
    assert result["status"] == status


def test_a_status_of_the_work_itself_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, {"record": UID}, lambda *_: {"changed": True, "status": "rotated"})["status"] == "rotated"


def test_a_host_without_memory_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    def none_left(*_: Any) -> dict[str, Any]:
        raise MemoryError

    result = run(capsys, {"record": UID}, none_left)
    assert (result["failed"], result["changed"], result["status"]) == (True, False, "refused")
    assert "no memory left" in result["msg"]
    assert "a bug" not in result["msg"]
    assert " Next: " in result["msg"]


def test_a_bug_has_a_status_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    def break_down(*_: Any) -> dict[str, Any]:
        raise RuntimeError(f"what is {PRIVATE}?")

    result = run(capsys, {"record": UID, "keeper_config": CONFIG}, break_down)
    assert (result["failed"], result["status"]) == (True, "error")
    assert "a bug: RuntimeError" in result["msg"]
    assert pieces_in(json.dumps(result), SECRETS) == []
