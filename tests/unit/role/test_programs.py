# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The smaller programs that the role gateway_host runs on a host."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from programs import FILES, load

install_gateway, write_files, check_wheels, as_gateway = map(
    load, ("install_gateway", "write_files", "check_wheels", "as_gateway")
)
TOKEN = "US:not-a-token-of-anybody"
INSTALLER = b"""
echo "$@" > "$SEEN/arguments"
tr '\\0' ' ' < /proc/$$/cmdline > "$SEEN/cmdline"
env > "$SEEN/environ"
readlink -f "$0" > "$SEEN/path"
if [ -e "$SEEN/fail" ]; then echo "the one-time token $2 was used before" >&2; exit 3; fi
"""


@pytest.fixture
def shop() -> Iterator[str]:
    """Serve an installer, as a proxy too, and return its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(INSTALLER)

        def log_message(self, *arguments: object) -> None:
            """Be silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def install(tmp_path: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run the installation as the role does."""
    given = {"checksum": "", "proxy": "", "token": TOKEN, "arguments": ["--autoupdate"], **settings}
    given = {"lock": str(tmp_path / "lock"), "unless": [str(tmp_path / "arguments")], **given}
    program = (FILES / "install_gateway.py").read_text("utf-8") + f"\nmain({json.dumps(json.dumps(given))})"
    environ = {"PATH": os.environ["PATH"], "SEEN": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir(exist_ok=True)
    command = [sys.executable, "-I", "-B", "-"]
    return subprocess.run(command, input=program, capture_output=True, text=True, env=environ, check=False)


def test_the_installer_gets_the_token_on_no_command_line(shop: str, tmp_path: Path) -> None:
    checksum = f"sha256:{hashlib.sha256(INSTALLER).hexdigest()}"
    done = install(tmp_path, url=f"http://{shop}/install", checksum=checksum)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "arguments").read_text("utf-8") == f"--token {TOKEN} --autoupdate\n"
    assert TOKEN not in (tmp_path / "cmdline").read_text("utf-8")
    assert TOKEN not in (tmp_path / "environ").read_text("utf-8")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_gateway_that_another_run_has_installed_is_not_installed_over(shop: str, tmp_path: Path) -> None:
    (tmp_path / "arguments").touch()
    done = install(tmp_path, url=f"http://{shop}/install")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "cmdline").exists()


def test_the_installer_comes_through_the_proxy(shop: str, tmp_path: Path) -> None:
    proxy = f"http://me:hunter2@{shop}"
    done = install(tmp_path, url="http://somewhere.invalid/install", proxy=proxy)
    assert done.returncode == 0, done.stderr
    assert f"https_proxy={proxy}\n" in (tmp_path / "environ").read_text("utf-8")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://127.0.0.1:9/install"}, "The installer could not be downloaded: [Errno 111]"),
        ({"url": "nonsense"}, "The installer could not be downloaded: unknown url type"),
        ({"checksum": "sha256:00"}, "The installer is another one: its checksum is sha256:"),
        ({"checksum": "00"}, "must be like sha256:..., and is 00"),
        ({"url": "http://x.invalid/", "proxy": "http://me:hunter2@127.0.0.1:9"}, "could not be downloaded"),
    ],
)
def test_an_installer_that_cannot_be_run_is_told(
    shop: str, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    done = install(tmp_path, **{"url": f"http://{shop}/install", **settings})
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr
    assert not (tmp_path / "arguments").exists()


def test_what_the_installer_says_is_told_without_the_token(shop: str, tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    done = install(tmp_path, url=f"http://{shop}/install")
    assert done.returncode == 1
    assert "ended with 3" in done.stderr
    assert "the one-time token *** was used before" in done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []


def write(*files: dict[str, Any], check: bool = False, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Write files and return those that were not as they should be."""
    write_files.main(json.dumps({"files": files, "check": check}))
    found = json.loads(capsys.readouterr().out)
    assert found["changed"] is bool(found["files"])
    changed: list[str] = found["files"]
    return changed


def test_files_are_written_where_they_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "unit.d" / "secret.env"
    wanted = {"path": str(path), "content": "A=1", "mode": "0600"}
    assert write(wanted, check=True, capsys=capsys) == [str(path)]
    assert not path.exists()
    assert write(wanted, capsys=capsys) == [str(path)]
    assert path.read_text("utf-8") == "A=1\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert write(wanted, capsys=capsys) == []
    path.chmod(0o644)
    assert write(wanted, capsys=capsys) == [str(path)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["secret.env"]


def test_a_file_without_content_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "secret.env"
    wanted = {"path": str(path), "content": "", "mode": "0600"}
    assert write(wanted, capsys=capsys) == []
    path.write_text("A=1\n", encoding="utf-8")
    assert write(wanted, capsys=capsys) == [str(path)]
    assert not path.exists()


@pytest.mark.parametrize(
    ("wheel", "python", "fits"),
    [
        ("msal-1.39.0-py3-none-any.whl", "3.12", True),
        ("six-1.17.0-py2.py3-none-any.whl", "3.9", True),
        ("cffi-2.1.1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "3.12", True),
        ("cffi-2.1.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "3.12", False),
        ("cffi-2.1.1-cp313-cp313t-manylinux_2_17_x86_64.whl", "3.13", False),
        ("cryptography-50.0.2-cp39-abi3-manylinux_2_28_x86_64.whl", "3.12", True),
        ("cryptography-50.0.2-cp314-abi3-manylinux_2_28_x86_64.whl", "3.12", False),
        ("cryptography-50.0.2-cp39-abi3-macosx_10_12_universal2.whl", "3.12", False),
        ("cryptography-50.0.2-cp39-abi3-win_amd64.whl", "3.12", False),
    ],
)
def test_whether_a_wheel_is_for_a_python(wheel: str, python: str, fits: bool) -> None:
    assert check_wheels.fits(wheel, python) is fits


def test_the_wheels_that_are_missing_are_named() -> None:
    names = ["PyJWT-2.15.1-py3-none-any.whl", "keeper_secrets_manager_core-17.3.0-py3-none-any.whl", "x.txt"]
    pins = ["pyjwt==2.15.1", "keeper-secrets-manager-core==17.3.0", "idna==3.20", "pyjwt==2.0"]
    assert check_wheels.missing(names, pins, "3.12") == ["idna==3.20", "pyjwt==2.0"]
    with pytest.raises(SystemExit, match=r"no wheel of idna==3\.20, pyjwt==2\.0 for the image's Python 3\.12"):
        check_wheels.main(json.dumps({"names": names, "pins": pins, "python": "3.12"}))


def test_the_environment_of_the_service_goes_by_no_command_line() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    with subprocess.Popen(["sleep", "60"], env={"GATEWAY_CONFIG": "a=b\nc", "HOME": "/root"}) as service:
        command = [sys.executable, "-I", str(FILES / "as_gateway.py"), "--user", "nobody", "--pid", str(service.pid)]
        own = shutil.which("python3", path="/usr/bin") or pytest.skip("the Python of these tests may be root's alone")
        told = "import os; print([os.environ['GATEWAY_CONFIG'], os.getuid(), os.getgroups(), os.getcwd()])"
        done = subprocess.run([*command, own, "-c", told], capture_output=True, text=True, check=False)
        service.send_signal(signal.SIGTERM)
    assert done.returncode == 0, done.stderr
    nobody = pwd.getpwnam("nobody")
    assert ast.literal_eval(done.stdout) == ["a=b\nc", nobody.pw_uid, [nobody.pw_gid], "/"]


def test_a_user_that_is_not_there() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    command = [sys.executable, str(FILES / "as_gateway.py"), "--user", "nobody-of-that-name", "--pid", "0", "/bin/true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "There is no user nobody-of-that-name: install the Gateway" in done.stderr


def test_another_than_root_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_gateway.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["as_gateway.py", "/bin/true"])
    with pytest.raises(SystemExit, match="needs root: run it with sudo"):
        as_gateway.main()


@pytest.mark.parametrize("name", ["check_place", "check_wheels", "find_gateway", "install_gateway", "write_files"])
def test_what_comes_before_a_python_is_installed_is_understood_by_3_6(name: str) -> None:
    text = (FILES / f"{name}.py").read_text("utf-8")
    ast.parse(text, feature_version=(3, 6))
    assert "from __future__ import annotations" not in text
