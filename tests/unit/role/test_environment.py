# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The environments of a host: what is built, what is switched to, what stays and what goes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from programs import FILES, load

environment = load("environment")
LOCK = "idna==3.20 \\\n    --hash=sha256:00\n"


class Host:
    """A place for environments, and a stand-in for what builds them: one works if its program ends with 0."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.link = home / "venv"
        self.venvs = home / "venvs"
        self.monkeypatch = monkeypatch
        self.builds("exit 0")

    def builds(self, *script: str) -> None:
        """Have the next environments be such a program each."""

        def build(_python: Any, folder: Path) -> None:
            make(folder, *script)

        self.monkeypatch.setattr(environment.Environments, "_build", build)

    def environments(self, **settings: Any) -> Any:
        """Return what the program works with."""
        given = {
            "venv": str(self.link),
            "python": {"path": sys.executable, "version": "3.11"},
            "lock": LOCK,
            "pins": ["idna==3.20"],
            "probe": "",
            "user": "root",
            "wheels": "",
            "index_url": "",
            "ca_file": "",
            "proxy": "",
        }
        return environment.Environments({**given, **settings})

    def renew(self, **settings: Any) -> dict[str, Any]:
        """Do what the role does."""
        found: dict[str, Any] = self.environments(**settings).renew()
        return found

    def names(self) -> list[str]:
        """Return the names of the environments."""
        return sorted(path.name for path in self.venvs.iterdir() if not path.is_symlink())


def make(folder: Path, *script: str) -> None:
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "python3"
    program.write_text("#!/bin/sh\ncat > /dev/null\n" + "\n".join(script) + "\n", encoding="utf-8")
    program.chmod(0o755)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    # As root, the tests' own directory is closed to everybody else.
    monkeypatch.setattr(environment.os, "geteuid", lambda: 1000)
    return Host(tmp_path / "home", monkeypatch)


def test_one_is_built_once(host: Host) -> None:
    first = host.renew()
    assert first["reason"] == "there is none"
    assert first["changed"]
    assert os.readlink(host.link) == f"venvs/{host.names()[0]}"
    assert host.renew() == {"changed": False, "reason": "", "left": []}
    assert host.environments().look() == {"changed": False, "reason": "", "left": []}


def test_another_lock_is_another_environment_and_the_one_before_stays(host: Host) -> None:
    for lock in ("a", "b", "c"):
        host.renew(lock=lock)
    assert len(host.names()) == 2
    assert os.readlink(host.venvs / "previous") in host.names()
    assert host.renew(lock="c")["changed"] is False


def test_a_broken_one_is_built_anew_and_is_not_gone_back_to(host: Host) -> None:
    host.renew(lock="a")
    host.renew(lock="b")
    before = os.readlink(host.venvs / "previous")
    (host.link / "bin" / "python3").write_text("#!/bin/sh\necho 'idna is missing' >&2; exit 1\n", encoding="utf-8")
    assert host.renew(lock="b")["reason"] == "the present one is broken: idna is missing"
    assert os.readlink(host.venvs / "previous") == before
    assert len(host.names()) == 2


def test_one_that_does_not_work_is_not_switched_to(host: Host) -> None:
    host.renew(lock="a")
    before = os.readlink(host.link), host.names()
    host.builds("echo 'msal cannot be imported' >&2; exit 1")
    with pytest.raises(environment.Fault, match="It was built and does not work: msal cannot be imported"):
        host.renew(lock="b")
    assert (os.readlink(host.link), host.names()) == before


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_switch_that_fails_is_undone(host: Host, by_hand: bool) -> None:
    """At its very last step: it works where it was built, and not through the link."""
    if by_hand:
        make(host.link, "exit 0")
        (host.link / "pyvenv.cfg").touch()
        host.venvs.mkdir()
    else:
        host.renew(lock="a")
        host.renew(lock="b")

    def state() -> tuple[Any, ...]:
        links = [os.readlink(path) for path in (host.link, host.venvs / "previous") if path.is_symlink()]
        return links, host.names(), host.link.is_dir(), sorted(path.name for path in host.link.parent.iterdir())

    before = state()
    host.builds(f'test "$0" != {host.link}/bin/python3')
    with pytest.raises(environment.Fault, match="It works, and not as"):
        host.renew(lock="c")
    assert state() == before


@pytest.mark.parametrize("step", range(4))
def test_a_step_of_the_switch_that_fails_is_undone(host: Host, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    host.renew(lock="a")
    host.renew(lock="b")
    before = os.readlink(host.link), os.readlink(host.venvs / "previous"), host.names()
    steps = iter(range(100))

    def fail(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def replacement(*arguments: Any, **options: Any) -> Any:
            if next(steps) == step:
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        return replacement

    for name in ("symlink", "replace"):
        monkeypatch.setattr(environment.os, name, fail(name))
    with pytest.raises(OSError, match="No space left"):
        host.renew(lock="c")
    assert (os.readlink(host.link), os.readlink(host.venvs / "previous"), host.names()) == before
    assert [path.name for path in host.link.parent.iterdir() if path.name.startswith(".")] == []


def test_one_made_by_hand_is_moved_aside(host: Host) -> None:
    make(host.link, "exit 0")
    (host.link / "pyvenv.cfg").touch()
    assert host.renew()["reason"] == "the present one was not made by this role"
    assert os.readlink(host.venvs / "previous").startswith("by-hand-")
    assert (host.venvs / "previous" / "pyvenv.cfg").is_file()


def test_a_link_of_an_admins_to_elsewhere_stays(host: Host) -> None:
    elsewhere = host.link.parent / "elsewhere"
    make(elsewhere, "exit 0")
    host.link.symlink_to(elsewhere)
    assert host.renew()["changed"] is False
    (elsewhere / "bin" / "python3").write_text(
        "#!/bin/sh\necho 'idna is 3.10, not 3.20' >&2; exit 1\n", encoding="utf-8"
    )
    with pytest.raises(environment.Fault, match=r"which is not the role's, and idna is 3\.10, not 3\.20"):
        host.renew()
    assert os.readlink(host.link) == str(elsewhere)


def test_what_a_link_of_an_admins_leads_to_stays(host: Host) -> None:
    host.renew(lock="a")
    (host.link.parent / "the-good-one").symlink_to(f"venvs/{host.names()[0]}")
    for lock in ("b", "c", "d"):
        host.renew(lock=lock)
    assert len(host.names()) == 3
    assert (host.link.parent / "the-good-one" / "bin").is_dir()


def test_nothing_goes_that_the_role_has_not_made(host: Host) -> None:
    host.renew()
    for name in ("0123456789abcdef-cut-off", "by-hand-0123456789abcdef-1"):
        make(host.venvs / name)
    (host.venvs / "somebodys").mkdir()
    (host.venvs / "README").touch()
    (host.link.parent / ".venv-4711").symlink_to("venvs/0123456789abcdef-cut-off")
    found = host.environments().look()["left"]
    assert found == [".venv-4711", "0123456789abcdef-cut-off", "by-hand-0123456789abcdef-1"]
    assert host.renew() == {"changed": True, "reason": "", "left": found}
    assert {"README", "somebodys"} < set(host.names())
    assert len(host.names()) == 3


def test_it_may_lie_on_another_disk(host: Host, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    host.link.parent.mkdir()
    host.venvs.symlink_to(tmp_path / "disk")
    for lock in ("a", "b", "c"):
        host.renew(lock=lock)
    assert host.venvs.is_symlink()
    assert len(list((tmp_path / "disk").glob("*-*"))) == 2


def test_a_run_waits_for_the_one_before(host: Host) -> None:
    host.renew(lock="a")
    settings = json.dumps(json.dumps({**host.environments(lock="a").settings, "check": False}))
    # Not as root: see above.
    program = (FILES / "environment.py").read_text("utf-8") + f"\nos.geteuid = lambda: 1000\nmain({settings})"
    descriptor = os.open(host.venvs, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with subprocess.Popen([sys.executable, "-I", "-c", program], stdout=subprocess.PIPE, text=True) as process:
        waiting = re.compile(rf"-> FLOCK .* {process.pid} ")
        while not waiting.search(Path("/proc/locks").read_text("utf-8")):
            assert process.poll() is None
            time.sleep(0.02)
        os.close(descriptor)
        assert json.loads(process.communicate(timeout=60)[0])["changed"] is False


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "A package is not the one"),
        ("ERROR: In --require-hashes mode, all requirements must have their versions", "lacks a version or a hash"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "gateway_host_ca_file"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "Make room"),
        ("ERROR: 407 Client Error: Proxy Authentication Required", "wants credentials"),
        ("NewConnectionError: Failed to establish a new connection: [Errno 111] Connection refused", "was not reached"),
        ("ERROR: No matching distribution found for msal==1.39.0", "lacks a wheel"),
    ],
)
def test_what_pip_says_is_followed_by_what_to_do(said: str, advice: str) -> None:
    retry = "WARNING: Retrying (Retry(total=4, connect=None, read=None)) after connection broken\n"
    told = environment.explain(f"Looking in indexes\n{retry}{said}\n")
    assert advice in told
    assert said in told
    assert "None" not in told
    assert "\n" not in told


def test_credentials_are_not_repeated() -> None:
    settings = {"index_url": "https://me:hunter2@index.example/simple", "proxy": "http://you:secret@proxy.example:3128"}
    told = environment.scrub("at https://me:hunter2@index.example via secret, http://other:word@x/", settings)
    assert told == "at https://***@index.example via ***, http://***@x/"
