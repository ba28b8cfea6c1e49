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
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from machines import CHECKOUT, STATE, WHEELS, Machine, write_inventory

sys.path.insert(0, str(CHECKOUT / "tests" / "e2e"))

from harness import SCRIPT, World

__all__ = ["OLD_IDNA", "SCRIPT", "Provision", "Result", "Shop", "make_wheels"]

HERE = Path(__file__).resolve().parent
LOCKS = CHECKOUT / "roles" / "gateway_host" / "files"
PYTHONS = {"gw-bookworm": "3.11", "gw-trixie": "3.13"}
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
        """Return what was said when the last task failed there."""
        said = re.findall(rf"fatal: \[{host}\]: FAILED! => (\{{.*?^\}})", self.said, re.MULTILINE | re.DOTALL)
        return str(json.loads(said[-1])["msg"]) if said else ""


@dataclass
class Provision:
    """The machines, and what their playbook is given."""

    machines: dict[str, Machine]
    world: World
    shop: Shop
    tokens: dict[str, str] = field(default_factory=dict)
    announced: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inventory = write_inventory(self.machines)
        self.new_tokens()

    def new_tokens(self) -> None:
        """Have the vault make a one-time token for each Gateway."""
        self.tokens = {name: self.shop.issue() for name in self.machines}

    def everywhere(self, script: str) -> dict[str, str]:
        """Return what a shell script prints on each machine."""
        return {name: machine.says(script) for name, machine in self.machines.items()}

    def run(
        self,
        *arguments: str,
        install: bool = False,
        lock: str = "",
        wheels: str = "",
        dead_index: str = "",
        spend_tokens: bool = False,
        extra: dict[str, Any] | None = None,
    ) -> Result:
        """Run the collection's playbook.

        `wheels`: where they are, on the "controller" or on the "host"; `dead_index`: the host whose index is not there.
        """
        sandbox = self.world.sandbox
        values: dict[str, Any] = {
            "gateway_host_entra_url": f"https://{sandbox.authority}",
            "gateway_host_graph_url": sandbox.graph_url,
        }
        if install:
            values["gateway_host_install_gateway"] = True
            values["gateway_host_installer_url"] = f"{self.shop.url}/install"
            values["gateway_host_installer_checksum"] = f"sha256:{hashlib.sha256(self.shop.installer()).hexdigest()}"
            values["tokens"] = {} if spend_tokens else self.tokens
            values["gateway_host_token"] = "{{ tokens[inventory_hostname] | default('') }}"
        if lock:
            values["gateway_host_lock"] = f"{STATE}/lock-{lock}-{{{{ inventory_hostname }}}}.txt"
        if wheels:
            here = wheels == "controller"
            values["gateway_host_wheels"] = f"{STATE}/wheels-{{{{ inventory_hostname }}}}" if here else WHEELS
            values["gateway_host_wheels_remote_src"] = not here
            values["gateway_host_index_url"] = "http://127.0.0.1:9/simple"
        if dead_index:
            index = "http://me:hunter2@127.0.0.1:9/simple"
            values["gateway_host_index_url"] = f"{{{{ '{index}' if inventory_hostname == '{dead_index}' else '' }}}}"
        return self._ansible("keeperpam.azure.provision_gateway_host", *arguments, **values, **(extra or {}))

    def playbook(self, name: str, **values: Any) -> Result:
        """Run a playbook of the tests."""
        return self._ansible(str(HERE / name), **values)

    def _ansible(self, playbook: str, *arguments: str, **values: Any) -> Result:
        given = STATE / "values.json"
        given.write_text(json.dumps(values), encoding="utf-8")
        environ = {
            **os.environ,
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_CALLBACK_FORMAT_PRETTY": "1",
        }
        done = subprocess.run(
            ["ansible-playbook", playbook, "-i", str(self.inventory), "-e", f"@{given}", *arguments],
            cwd="/",
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        changed = {name: int(number) for name, number in re.findall(r"^(gw-\S+)\s.*?changed=(\d+)", said, re.MULTILINE)}
        command = re.findall(r"Script command to enter in the vault: (\S+?)\"?$", done.stdout, re.MULTILINE)
        if done.returncode == 0 and command:
            self.announced = dict.fromkeys(self.machines, command[-1])
        return Result(done.returncode == 0, said, changed)


class Shop:
    """Serves the installer, and redeems one-time tokens, each once, for the configuration of a Gateway."""

    def __init__(self, world: World) -> None:
        shop, self.world, self.unused = self, world, set[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/install":
                    self.answer(shop.installer())
                elif self.path == "/ca.pem":
                    self.answer(Path(world.sandbox.ca_file).read_bytes())
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
            folder.mkdir(exist_ok=True)  # and stays the one that the machine has mounted
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
