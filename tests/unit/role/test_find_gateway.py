# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a Gateway is there, in whatever state, and how somebody has seen to it that it does not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from programs import load

find_gateway = load("find_gateway")
SETTINGS = {"service": "keeper-gateway", "user": "", "config": "", "watch": 0, "invocation": ""}
START = "{ path=/bin/bash ; argv[]=/bin/bash -c %s ; ignore_errors=no ; start_time=[n/a] }"
RUNNING = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "Result": "success",
    "User": "keeper-gw",
    "MainPID": "4711",
    "InvocationID": "a1",
    "ExecStart": START % "/usr/local/bin/gateway start --service --config-file /etc/keeper-gateway/gateway-config.json",
    "ActiveEnterTimestampMonotonic": "1000000",
}


class Systemd:
    """Stands in for systemctl: gives one unit after the other, the last one for ever."""

    def __init__(self, *units: dict[str, str]) -> None:
        self.units = list(units)

    def __call__(self, _unit: str) -> dict[str, str]:
        return self.units.pop(0) if len(self.units) > 1 else self.units[0]


@pytest.fixture
def find(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that finds a Gateway, given its unit's properties in turn."""
    monkeypatch.setattr(find_gateway, "PROGRAMS", ("/nowhere/gateway",))
    monkeypatch.setattr(find_gateway, "running", lambda: None)

    def found(*units: dict[str, str], watch: float = 0, **settings: Any) -> dict[str, Any]:
        monkeypatch.setattr(find_gateway, "show", Systemd(*units))
        given = {**SETTINGS, **settings}
        answer: dict[str, Any] = find_gateway.watch(given, watch) if watch else find_gateway.find(given)
        return answer

    return found


def test_one_that_runs(find: Any) -> None:
    found = find(RUNNING)
    assert found["there"] == "the service keeper-gateway"
    assert (found["pid"], found["user"], found["up"], found["stopped"]) == (4711, "keeper-gw", True, "")
    assert found["config"] == "/etc/keeper-gateway/gateway-config.json"
    assert found["state"] == "active (running)"


@pytest.mark.parametrize(
    "unit",
    [
        {"ActiveState": "activating", "SubState": "auto-restart"},
        {"ActiveState": "failed", "SubState": "failed"},
        {"ActiveState": "inactive", "SubState": "dead"},
        {"LoadState": "masked", "UnitFileState": "masked"},
        {"LoadState": "bad-setting"},
        {"LoadState": "error"},
    ],
)
def test_a_unit_counts_whatever_its_state(find: Any, unit: dict[str, str]) -> None:
    assert find({**RUNNING, **unit})["there"] == "the service keeper-gateway"


def test_a_program_counts(find: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "keeper-gateway"
    program.touch()
    assert find({"LoadState": "not-found"})["there"] == ""
    assert find({})["there"] == ""
    monkeypatch.setattr(find_gateway, "PROGRAMS", (str(program),))
    assert find({"LoadState": "not-found"})["there"] == f"the program {program}"


def test_one_that_was_started_by_hand_counts(find: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    process = {"pid": 42, "user": "ada", "command": "gateway start -c /home/ada/gw.json"}
    monkeypatch.setattr(find_gateway, "running", lambda: process)
    found = find({"LoadState": "not-found"})
    assert (found["there"], found["pid"], found["user"]) == ("a process of ada", 42, "ada")
    assert found["config"] == "/home/ada/gw.json"


@pytest.mark.parametrize(
    ("command", "config", "aws_secret"),
    [
        ("/usr/local/bin/gateway start --service --config-file=/a/b.json", "/a/b.json", ""),
        ("/usr/local/bin/gateway start --service -c '/a/b.json'", "/a/b.json", ""),
        ("/usr/local/bin/gateway start --service", "", ""),
        ('/usr/local/bin/gateway start --aws-kms-secret-name="GW-1" --log-to-stdout', "", "GW-1"),
    ],
)
def test_where_its_configuration_is(find: Any, command: str, config: str, aws_secret: str) -> None:
    found = find({**RUNNING, "ExecStart": START % command})
    assert (found["config"], found["aws_secret"]) == (config, aws_secret)


@pytest.mark.parametrize(
    ("unit", "stopped"),
    [
        ({"LoadState": "masked", "UnitFileState": "masked", "ActiveState": "inactive"}, "masked"),
        ({"UnitFileState": "disabled", "ActiveState": "inactive"}, "disabled"),
        ({"ActiveState": "inactive"}, "stopped"),
        ({"ActiveState": "inactive", "ActiveEnterTimestampMonotonic": "0"}, ""),
        ({"ActiveState": "inactive", "Result": "oom-kill"}, ""),
        ({"ActiveState": "failed", "Result": "exit-code"}, ""),
        ({"ActiveState": "activating"}, ""),
        ({}, ""),
    ],
)
def test_whether_it_was_stopped_on_purpose(find: Any, unit: dict[str, str], stopped: str) -> None:
    assert find({**RUNNING, **unit})["stopped"] == stopped


@pytest.mark.parametrize(
    ("later", "fault"),
    [
        ({}, ""),
        (
            {"InvocationID": "a2"},
            "was running and is running anew. Look at journalctl -u keeper-gateway.",
        ),
        ({"ActiveState": "failed", "SubState": "failed"}, "keeper-gateway was running and is failed (failed). Look"),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, "was running and is activating (auto-restart)"),
    ],
)
def test_one_that_ends_again_is_seen(
    find: Any, monkeypatch: pytest.MonkeyPatch, later: dict[str, str], fault: str
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(find_gateway.time, "monotonic", lambda: 3.0)
    monkeypatch.setattr(find_gateway.time, "sleep", slept.append)
    # It has come up two seconds ago.
    found = find(RUNNING, RUNNING, {**RUNNING, **later}, watch=10)["fault"]
    assert slept == [8.0]
    assert fault in found
    assert bool(found) is bool(fault)
    # It was seen before.
    assert find({**RUNNING, **later}, watch=1, invocation="a1")["fault"] == found


@pytest.mark.parametrize(
    ("unit", "fault"),
    [
        ({"LoadState": "not-found"}, "there is none named keeper-gateway. Install the Gateway"),
        ({"ActiveState": "inactive"}, "keeper-gateway is stopped, and was left so. Start it"),
        ({"ActiveState": "failed", "SubState": "failed"}, "keeper-gateway is failed (failed). Look at journalctl"),
    ],
)
def test_one_that_does_not_run_is_told(find: Any, unit: dict[str, str], fault: str) -> None:
    assert fault in find({**RUNNING, **unit}, watch=1)["fault"]


def test_there_may_be_no_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gateway.show("keeper-gateway") == {}


def test_it_prints_a_line_of_json(find: Any, capsys: pytest.CaptureFixture[str]) -> None:
    find(RUNNING)
    find_gateway.main(json.dumps(SETTINGS))
    assert json.loads(capsys.readouterr().out)["pid"] == 4711
