# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No secret, token or key gets out: not by output, arguments, environment or files, whatever disturbs the run."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness import FORMS, World, make_world
from judge import Judge
from matrix import Case, all_cases

from leaks import pieces_in

POLL_SECONDS = 0.05
#: Writes down every file that Python opens for writing, and every program that it starts.
AUDIT = """
import os, sys

def note(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if not (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or path == LOG or path == os.devnull:
            return
    elif event not in ("subprocess.Popen", "os.exec", "os.fork", "os.posix_spawn", "os.system"):
        return
    handle = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, (event + " " + repr(arguments) + chr(10)).encode())
    os.close(handle)

LOG = os.environ["AUDIT_LOG"]
sys.addaudithook(note)
"""
#: A spread over requests, forms and ways to end.
NAMES = (
    "script/discovery/after/truncate",
    "script/token (admin)/after/502 html",
    "script/get_application (resolve)/after/truncate",
    "script/addPassword/after/truncate",
    "script/addPassword/after/SIGTERM",
    "script/token (proof)/after/truncate",
    "script/update_secret/before/out of sync",
    "script/update_secret/after/SIGTERM",
    "script/get_secret (read-back)/after/truncate",
    "script/removePassword (last)/after/SIGTERM",
    "script/every save is refused/lasting",
    "script/no answer to the proof/lasting",
    "module/get_secret (record)/after/truncate",
    "module/token (admin)/after/truncate",
    "module/addPassword/after/truncate",
    "module/addPassword/before/SIGTERM",
    "module/token (proof)/after/SIGTERM",
    "module/update_secret/after/truncate",
    "module/update_secret/before/SIGTERM",
    "module/get_secret (read-back)/after/SIGTERM",
    "module/removePassword (first)/after/truncate",
    "module/every addPassword is forbidden/lasting",
    "module/every save is refused/lasting",
    "module/no answer to the proof/lasting",
)


def the_cases() -> list[Case]:
    """The cases. What the others write to their output is looked at by the judge of the matrix."""
    return [case for case in all_cases() if case.name in NAMES]


@dataclass
class Spy:
    """Looks at a process and all that it starts, and at the files in its directories, again and again."""

    home: Path
    given: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    processes: set[int] = field(default_factory=set)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Look until the block ends."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(POLL_SECONDS):
                self.look()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.look()

    def look(self) -> None:
        """Note arguments and environments (but for what was given to the first process) and contents of files."""
        for pid in self._family():
            with suppress(OSError):
                self.seen.add(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))
                environ = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
                self.seen.update(entry for entry in environ if entry not in self.given)
        for folder, _folders, files in os.walk(self.home):  # it does not mind what goes while it looks
            for path in (Path(folder, name) for name in files):
                self.seen.add(str(path))
                with suppress(OSError):
                    if path.is_file():  # to read a FIFO would be to wait for it
                        self.seen.add(path.read_bytes().decode(errors="replace"))

    def _family(self) -> Iterable[int]:
        family = set(self.processes)
        parents: dict[int, int] = {}
        for entry in os.listdir("/proc"):
            with suppress(OSError, ValueError):
                text = Path(f"/proc/{int(entry)}/stat").read_text()
                parents[int(entry)] = int(text.rpartition(")")[2].split()[1])
        grown = True
        while grown:
            children = {pid for pid, parent in parents.items() if parent in family}
            grown = not children <= family
            family |= children
        return family


def run_under_watch(case: Case, folder: Path) -> list[str]:
    """Run the case in its form and return what is wrong."""
    home = folder / "home"
    (home / "tmp").mkdir(parents=True)
    (folder / "lib").mkdir()
    (folder / "lib" / "sitecustomize.py").write_text(AUDIT)
    audit = folder / "audit.log"
    script = case.form == "script"
    with make_world(**({key: str(value) for key, value in case.policy.items()} if script else {})) as world:
        world.app.add_secret("second", days=100)
        if case.shape:
            case.shape(world)
        judge = Judge(world, case.name)
        config = world.sandbox.client_config()
        environ: dict[str, str | None] = {
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "AUDIT_LOG": str(audit),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": f"{folder / 'lib'}:{os.environ['ANSIBLE_COLLECTIONS_PATH']}",
            "COVERAGE_PROCESS_CONFIG": None,  # it writes a file
        }
        encoded = base64.b64encode(json.dumps(config).encode()).decode()
        options: dict[str, Any] = {} if script else {**case.policy, "keeper_config": config}
        if script:
            environ["GATEWAY_CONFIG"] = encoded
        spy = Spy(home, given={f"{name}={value}" for name, value in world.sandbox.environ(**environ).items()})
        for fault in case.faults():
            world.sandbox.faults.add(fault)
        with spy.on():
            arguments = ("--debug",) if script else ()
            result = FORMS[case.form](world, *arguments, environ=environ, watch=spy.processes.add, **options)
        judge.look()
        secrets = {*judge.secrets, *world.secrets(), *world.sandbox.issued_tokens()}
        secrets |= {config["privateKey"], config["appKey"], config["clientId"], encoded}
        problems = [f"{text} is in the output" for text in pieces_in(result.said(), secrets)]
        problems += [f"{text} was seen from outside" for one in spy.seen for text in pieces_in(one, secrets)]
        problems += [f"it did: {line}" for line in audit.read_text().splitlines()] if audit.exists() else []
        problems += [f"it left {path}" for path in home.rglob("*") if path.name != "tmp"]
        assert len(spy.seen) > 1, "the spy has seen nothing"
    return [f"{case.name}: {problem}" for problem in problems]


def test_nothing_gets_out(tmp_path: Path) -> None:
    cases = the_cases()
    assert {case.name for case in cases} >= set(NAMES)
    folders = [tmp_path / str(index) for index in range(len(cases))]
    with ThreadPoolExecutor(4) as pool:
        problems = [one for found in pool.map(run_under_watch, cases, folders) for one in found]
    assert not problems, "\n".join(problems)


def test_the_watch_bites(tmp_path: Path) -> None:
    """It sees arguments, environment, programs that are started and files that are written."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "sitecustomize.py").write_text(AUDIT)
    inner = "import time; open('out', 'w').write('in-a-file'); time.sleep(0.5)"
    code = (
        "import subprocess, sys; environ = {'NAME': 'in-the-environment'};"
        f"subprocess.run([sys.executable, '-c', {inner!r}, 'in-the-arguments'], env=environ)"
    )
    home = tmp_path / "home"
    home.mkdir()
    environ = {"PYTHONPATH": str(tmp_path / "lib"), "AUDIT_LOG": str(tmp_path / "audit.log")}
    spy = Spy(home)
    with subprocess.Popen([sys.executable, "-c", code], cwd=home, env=environ) as process, spy.on():
        spy.processes.add(process.pid)
        process.wait()
    seen = "\n".join(spy.seen)
    assert all(text in seen for text in ("in-a-file", "in-the-environment", "in-the-arguments"))
    assert "subprocess.Popen" in (tmp_path / "audit.log").read_text()


@pytest.mark.parametrize("fails", [False, True])
def test_ansible_playbook_prints_and_leaves_nothing(world: World, tmp_path: Path, fails: bool) -> None:
    home = tmp_path / "home"
    home.mkdir()
    config = world.sandbox.client_config()
    environ = world.sandbox.environ(
        GATEWAY_CONFIG=None,
        HOME=str(home),
        TMPDIR=str(home),
        ANSIBLE_HOME=str(home / ".ansible"),
        ANSIBLE_REMOTE_TEMP=str(home / "remote"),  # by default below the home of the user database
        LC_ALL="C.UTF-8",
        **{name: os.environ[name] for name in ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "ANSIBLE_NOCOLOR")},
    )
    judge = Judge(world, "playbook")
    if fails:
        world.app.blocked_by_conditional_access = True
        judge.verdict.problems.clear()
    variables = {
        "rotate_records": [world.record.uid],
        "rotate_pam_config": world.configuration.uid,
        "rotate_keeper_config": config,
    }
    file = tmp_path / "variables.json"  # what stands in an argument, -vvvv prints
    file.write_text(json.dumps(variables))
    file.chmod(0o600)
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "keeperpam.azure.rotate", "-vvvv", "--diff", "-e", f"@{file}"]
    spy = Spy(home, given={f"{name}={value}" for name, value in environ.items()})
    with (
        subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
        spy.on(),
    ):
        spy.processes.add(process.pid)
        stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode == 0) is not fails, stdout + stderr
    assert world.agrees() is not fails or fails
    judge.look()
    secrets = {*judge.secrets, *world.secrets(), *world.sandbox.issued_tokens()}
    secrets |= {config["privateKey"], config["appKey"], config["clientId"]}
    assert pieces_in(stdout + stderr, secrets) == []
    assert [text for one in spy.seen for text in pieces_in(one, secrets)] == []
    assert any("app_secret_payload" in one for one in spy.seen), "the spy has not seen the module"
