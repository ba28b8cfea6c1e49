# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The script as a process: signals, output that nobody reads, input that does not come, what a crash would leave."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from harness import SCRIPT, World, run_script

from sandbox import Fault

#: Far longer than an undisturbed run takes.
LONG = 90
#: Sends a signal when Python has nearly finished: its handlers have gone by then.
LATE = """
import os, signal, sys

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, NUMBER)

sys.a_last_object = Last()
"""


def start(world: World, *before: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start the script as the Gateway does; ``before`` is put before the command."""
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    process = subprocess.Popen([*before, sys.executable, str(SCRIPT)], env=world.sandbox.environ(), cwd="/", **given)
    world.sandbox.client_pid = process.pid
    return process


def line(world: World) -> bytes:
    """Return what the Gateway writes."""
    return world.sandbox.gateway.stdin_for(world.record.uid).encode() + b"\n"


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Leave no process behind."""
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("refused", [False, True])
def test_a_signal_at_the_very_end_changes_nothing(
    world: World, tmp_path: Path, number: signal.Signals, refused: bool
) -> None:
    (tmp_path / "sitecustomize.py").write_text(LATE.replace("NUMBER", str(int(number))))
    if refused:
        world.record.editable = False
    result = run_script(world, environ={"PYTHONPATH": str(tmp_path)})
    assert (result.returncode, result.status) == ((3, "refused") if refused else (0, "rotated"))


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM"])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(world: World, name: str) -> None:
    number = signal.Signals["SIG" + name]
    world.sandbox.faults.add(Fault("addPassword", moment="after", kind="kill", signal=number, then="answer", seconds=0))
    with ended(start(world, "sh", "-c", f'trap "" {name}; exec "$@"', "ignore")) as process:
        stdout, stderr = process.communicate(line(world), timeout=LONG)
    assert world.sandbox.faults.fired
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["status"] == "rotated"
    assert world.agrees()


def stopped_up() -> tuple[int, int]:
    """Return the ends of a pipe that is full."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    fcntl.fcntl(writer, fcntl.F_SETFL, 0)
    return reader, writer


@pytest.mark.parametrize("which", [("stderr",), ("stdout",), ("stdout", "stderr")])
def test_output_that_nobody_reads_does_not_hold_the_run(world: World, which: tuple[str, ...]) -> None:
    reader, writer = stopped_up()
    try:
        with ended(start(world, **dict.fromkeys(which, writer))) as process:
            process.communicate(line(world), timeout=LONG)
        assert process.returncode == 0
        assert world.agrees()
    finally:
        os.close(reader)
        os.close(writer)


def test_output_that_is_read_late_is_read(world: World) -> None:
    """The reader begins when the script already waits for it."""
    reader, writer = stopped_up()
    with ended(start(world, stderr=writer)) as process:
        os.close(writer)
        assert process.stdin is not None
        process.stdin.write(line(world))
        process.stdin.close()
        while not any(entry.op == "get_secret" for entry in world.sandbox.log):
            time.sleep(0.01)
        with os.fdopen(reader, "rb") as stream:
            said = stream.read().lstrip(b"x").decode()
        assert process.wait(LONG) == 0
    assert "keeperpam.azure" in said.splitlines()[0]
    assert "ROTATED" in said.splitlines()[-1]


def test_a_pipe_that_does_not_block_gets_everything(world: World) -> None:
    """Some runtimes hand their children such pipes."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    with ended(start(world, stdout=writer, stderr=writer)) as process:
        os.close(writer)
        assert process.stdin is not None
        process.stdin.write(line(world))
        process.stdin.close()
        with os.fdopen(reader, "rb") as stream:
            lines = stream.read().decode().splitlines()
        assert process.wait(LONG) == 0
    assert "ROTATED" in lines[-2]
    assert json.loads(lines[-1])["status"] == "rotated"


def test_input_that_never_comes_is_said(world: World) -> None:
    with ended(start(world)) as process:
        stdout, stderr = b"", b""
        with suppress(subprocess.TimeoutExpired):
            assert process.stdin is not None
            process.stdin.write(line(world)[:100])
            process.stdin.flush()
            process.wait(LONG)
        assert process.returncode == 2
        assert process.stdout is not None
        assert process.stderr is not None
        stdout, stderr = process.stdout.read(), process.stderr.read()
    outcome = json.loads(stdout)
    assert outcome["status"] == "bad_input"
    assert "no complete line came on stdin" in outcome["message"]
    assert "Next: " in outcome["message"]
    assert len(stderr.splitlines()) == 1


def test_a_crash_leaves_no_core(world: World) -> None:
    with ended(start(world)) as process:
        limits = ""
        for _attempt in range(1000):
            limits = next(one for one in Path(f"/proc/{process.pid}/limits").read_text().splitlines() if "core" in one)
            if limits.split()[4:6] == ["0", "0"]:
                break
            time.sleep(0.02)
        process.communicate(line(world), timeout=LONG)
    assert limits.split()[4:6] == ["0", "0"], limits
    assert process.returncode == 0


def test_what_memory_does_not_hold_is_no_bug(world: World, tmp_path: Path) -> None:
    """Here while the record is read; the vault and the directory are as before."""
    text = "import base64\n\ndef none_left(*data, **more):\n    raise MemoryError\n\nbase64.b64encode = none_left\n"
    (tmp_path / "sitecustomize.py").write_text(text)
    result = run_script(world, "--debug", environ={"PYTHONPATH": str(tmp_path)})
    assert (result.returncode, result.status) == (3, "refused")
    assert "memory" in result.message
    assert "a bug" not in result.said()
    assert world.untouched()


@pytest.mark.parametrize("shape", ["wrapped", "UTF-16"])
def test_input_that_is_not_the_gateways_line_is_told_by_name(world: World, shape: str) -> None:
    text = line(world).decode().strip()
    wrapped = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    data = wrapped.encode() if shape == "wrapped" else text.encode("utf-16")
    with ended(start(world)) as process:
        stdout, _stderr = process.communicate(data + b"\n", timeout=LONG)
    assert process.returncode == 2
    assert shape in json.loads(stdout)["message"]
    assert world.untouched()


def test_a_configuration_of_another_kind_is_told_by_name(world: World, tmp_path: Path) -> None:
    config = json.dumps(world.sandbox.client_config())
    (tmp_path / "config.json").write_bytes(config.encode("utf-16"))
    for environ, word in (
        ({"GATEWAY_CONFIG": f"'{config}'"}, "quotes"),
        ({"GATEWAY_CONFIG": None, "GATEWAY_CONFIG_PATH": str(tmp_path)}, "folder"),
        ({"GATEWAY_CONFIG": None, "GATEWAY_CONFIG_PATH": str(tmp_path / "config.json")}, "UTF-16"),
    ):
        result = run_script(world, environ=environ)
        assert (result.returncode, result.status) == (2, "bad_input")
        assert word in result.message
        assert world.sandbox.client_config()["privateKey"] not in result.said()
