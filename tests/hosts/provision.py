# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the playbook on the machines, against the sandbox and an installer that is served beside it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from machines import CHECKOUT, STATE, WHEELS, Machine, write_inventory

sys.path.insert(0, str(CHECKOUT / "tests" / "e2e"))
sys.path.insert(0, str(CHECKOUT / "tests" / "cores"))

from harness import SCRIPT, World

from cores import CORES

__all__ = ["ENDS", "OLD_IDNA", "PASSWORD", "ROLE", "SCRIPT", "Provision", "Result", "Shop", "make_core", "make_wheels"]

HERE = Path(__file__).resolve().parent
ROLE = CHECKOUT / "roles" / "gateway_host"
LOCKS = ROLE / "files"
PYTHONS = {"gw-bookworm": "3.11", "gw-trixie": "3.13"}
#: A password that is given for an index or a proxy.
PASSWORD = "hunter2-is-no-password"
#: The oldest and the newest ansible-core, each on the Pythons that are tried.
ENDS = {
    "oldest": [core for core in CORES if core.version == CORES[0].version],
    "newest": [core for core in reversed(CORES) if core.version == CORES[-1].version],
}
#: A version that no lock file has any more.
OLD_IDNA = "3.10"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


@dataclass
class Result:
    """How a run of a playbook ended."""

    ok: bool
    said: str
    changed: dict[str, int] = field(default_factory=dict)

    def message(self, host: str) -> str:
        """Return what was said when the last task failed there, a list as lines."""
        said = re.findall(rf"fatal: \[{host}\]: FAILED! => (\{{.*?^\}})", self.said, re.MULTILINE | re.DOTALL)
        message = json.loads(said[-1])["msg"] if said else ""
        return "\n".join(message) if isinstance(message, list) else str(message)


@dataclass
class Running:
    """A run of a playbook that was begun."""

    process: subprocess.Popen[bytes]
    output: Path

    def result(self) -> Result:
        """Wait for its end."""
        code = self.process.wait(600)
        said = self.output.read_text(encoding="utf-8", errors="replace")
        changed = {name: int(number) for name, number in re.findall(r"^(gw-\S+)\s.*?changed=(\d+)", said, re.MULTILINE)}
        return Result(code == 0, said, changed)


@dataclass
class Provision:
    """The machines, and what their playbook is given.

    `machines` are those that every run without `unlike` is about. `cores` has the ansible-playbook of the oldest and
    of the newest ansible-core, empty where it cannot be had: then the tests' own does its part.
    """

    machines: dict[str, Machine]
    unlike: Machine
    cores: dict[str, str]
    world: World
    shop: Shop
    tokens: dict[str, str] = field(default_factory=dict)
    announced: str = ""

    def __post_init__(self) -> None:
        self.inventory = write_inventory({**self.machines, self.unlike.name: self.unlike})
        self.new_tokens()

    def new_tokens(self) -> None:
        """Have the vault make a one-time token for each Gateway."""
        self.tokens = {name: self.shop.issue() for name in [*self.machines, self.unlike.name]}

    def everywhere(self, script: str) -> dict[str, str]:
        """Return what a shell script prints on each machine."""
        return {name: machine.says(script) for name, machine in self.machines.items()}

    def run(self, *arguments: str, **wishes: Any) -> Result:
        """Run the collection's playbook, as `begin` does."""
        return self.begin(*arguments, **wishes).result()

    def begin(
        self,
        *arguments: str,
        core: str = "",
        unlike: bool = False,
        install: bool = False,
        lock: str = "",
        wheels: str = "",
        spend_tokens: bool = False,
        each: dict[str, dict[str, Any]] | None = None,
        **extra: Any,
    ) -> Running:
        """Begin a run of the collection's playbook.

        `core`: the oldest or the newest; `wheels`: where they are, on the "controller" or on the "host"; `each`: what
        one host alone is given.
        """
        sandbox = self.world.sandbox
        values: dict[str, Any] = {
            "gateway_host_entra_url": f"https://{sandbox.authority}",
            "gateway_host_graph_url": sandbox.graph_url,
            "gateway_host_service_ca_file": "/usr/local/share/sandbox-ca.pem",
            # Long enough for a service that ends after one second.
            "_gateway_host_watch": 3,
            # What is given on a command line is text.
            "gateway_host_manage_service": "true",
            "gateway_host_reinstall_gateway": "false",
            "gateway_host_start_service": "false",
            "gateway_host_wheels_remote_src": "true" if wheels == "host" else "false",
        }
        if unlike:
            values["provision_hosts"] = self.unlike.name
        if install:
            values["gateway_host_install_gateway"] = "true"
            values["gateway_host_installer_url"] = f"{self.shop.url}/install"
            values["gateway_host_installer_checksum"] = f"sha256:{hashlib.sha256(self.shop.installer()).hexdigest()}"
            values["tokens"] = {} if spend_tokens else self.tokens
            values["gateway_host_token"] = "{{ tokens[inventory_hostname] | default('') }}"
        if lock:
            values["gateway_host_lock"] = f"{STATE}/lock-{lock}-{{{{ inventory_hostname }}}}.txt"
        if wheels:
            here = wheels == "controller"
            values["gateway_host_wheels"] = f"{STATE}/wheels-{{{{ inventory_hostname }}}}" if here else WHEELS
            values["gateway_host_index_url"] = "http://127.0.0.1:9/simple"
        values.update(extra)
        names = {name for own in (each or {}).values() for name in own}
        for name in names:
            values[f"each_{name}"] = {host: own[name] for host, own in (each or {}).items() if name in own}
            values[name] = f"{{{{ each_{name}[inventory_hostname] | default({values.get(name, '')!r}) }}}}"
        return self._begin("keeperpam.azure.provision_gateway_host", *arguments, core=core, **values)

    def begin_playbook(self, name: str, *arguments: str, core: str = "", **values: Any) -> Running:
        """Begin a run of a playbook of the tests."""
        return self._begin(str(HERE / name), *arguments, core=core, **values)

    def _begin(self, playbook: str, *arguments: str, core: str, **values: Any) -> Running:
        folder = Path(tempfile.mkdtemp(dir=STATE))
        given, output = folder / "values.json", folder / "output"
        given.write_text(json.dumps(values), encoding="utf-8")
        environ = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_CALLBACK_FORMAT_PRETTY": "1"}
        program = self.cores.get(core) or "ansible-playbook"
        command = [program, playbook, "-i", str(self.inventory), "-e", f"@{given}", *arguments]
        with output.open("wb") as file:
            process = subprocess.Popen(
                command, cwd="/", env=environ, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
        return Running(process, output)


class Shop:
    """Serves the installer and an index that never answers; redeems one-time tokens, each once, for a configuration."""

    def __init__(self, world: World) -> None:
        shop, self.world, self.unused = self, world, set[str]()
        #: How many have asked the index that never answers.
        self.waiting = threading.Semaphore(0)
        self.closed = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/install":
                    self.answer(shop.installer())
                elif self.path == "/ca.pem":
                    self.answer(Path(world.sandbox.ca_file).read_bytes())
                elif self.path.startswith("/slow/"):
                    shop.waiting.release()
                    shop.closed.wait()
                else:
                    self.answer(b"")

            def do_POST(self) -> None:
                token = self.rfile.read(int(self.headers["Content-Length"])).decode().strip()
                config = b"" if token not in shop.unused else json.dumps(world.sandbox.client_config()).encode()
                shop.unused.discard(token)
                self.answer(config)

            def answer(self, body: bytes) -> None:
                self.send_response(200 if body else 403)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Be silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def issue(self) -> str:
        """Return a new one-time token."""
        token = f"XX:{secrets.token_urlsafe(32)}"
        self.unused.add(token)
        return token

    def installer(self) -> bytes:
        """Return the installer."""
        return (HERE / "installer.sh").read_text(encoding="utf-8").replace("@URL@", self.url).encode()


def make_core(end: str) -> str:
    """Return the ansible-playbook of that ansible-core, or nothing where there is no Python for it."""
    folder = next(filter(None, (core.folder() for core in ENDS[end])), None)
    return str(folder / "ansible-playbook") if folder else ""


def make_wheels() -> None:
    """Download the wheels that the lock files name, and derive from these an older lock file and a broken one."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(_make_wheels, PYTHONS, PYTHONS.values()))


def _make_wheels(host: str, python: str) -> None:
    text = (LOCKS / f"requirements-{python}.txt").read_text(encoding="utf-8")
    wheels, old = STATE / f"wheels-{host}", STATE / f"old-{host}"
    stamp = old / "made"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != text:
        for folder in (wheels, old):
            folder.mkdir(parents=True, exist_ok=True)  # and stays the one that the machine has mounted
            for path in folder.iterdir():
                path.unlink()
        download = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps"]
        download += ["--only-binary", ":all:", f"--python-version={python}"]
        download += [f"--platform={platform}" for platform in PLATFORMS]
        lock = str(LOCKS / f"requirements-{python}.txt")
        subprocess.run([*download, "--dest", str(wheels), "--require-hashes", "-r", lock], check=True)
        subprocess.run([*download, "--dest", str(old), f"idna=={OLD_IDNA}"], check=True)
        stamp.write_text(text, encoding="utf-8")
    digest = hashlib.sha256(next(old.glob("idna-*.whl")).read_bytes()).hexdigest()
    for name, value in (("old", digest), ("broken", "0" * 64)):
        entry = f"idna=={OLD_IDNA} \\\\\n    --hash=sha256:{value}"
        derived = re.sub(r"(?m)^idna==.*(?:\n    --hash=.*)+", entry, text)
        (STATE / f"lock-{name}-{host}.txt").write_text(derived, encoding="utf-8")
