# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tenant with one application to rotate, and the two forms of the rotation as processes against it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from sandbox import Sandbox
from sandbox.directory import Application, Credential
from sandbox.vault import VaultRecord

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = CHECKOUT / "playbooks" / "files" / "rotate_azure_app.py"
MODULES = "ansible_collections.keeperpam.azure.plugins.modules."
# Longer than a run may take.
TIMEOUT = 520


@dataclass
class World:
    """A sandbox with an admin application, and an application `app` whose secret `old` is in `record`.

    A run is of `record`; `seen_from` is the same world for whoever runs another one.
    """

    sandbox: Sandbox
    admin: Application
    admin_secret: Credential
    configuration: VaultRecord
    app: Application
    old: Credential
    record: VaultRecord

    def published(self) -> bool:
        """Whether the secret that the vault shows signs in at every replica at this moment."""
        return self.sandbox.directory.signs_in(self.app.client_id, self.record.value("client_secret") or "")

    def alive(self) -> bool:
        """Whether the secret that the vault shows signs in at some replica at this moment."""
        return any(self.sandbox.directory.takes(self.app.client_id, self.record.value("client_secret") or ""))

    def live(self) -> set[str]:
        """Return the key ids of the application's secrets."""
        return {one.key_id for one in self.app.live_secrets()}

    def shows(self) -> str:
        """Return the key id that the record names."""
        return self.record.value("client_secret_id") or ""

    def seen_from(self, record: VaultRecord, app: Application | None = None) -> World:
        """Return the same world with another record, of another application where it is given."""
        return replace(self, record=record, app=app or self.app)

    def add_record(self, title: str, secret: Credential | None, by: str = "object_id", **fields: str) -> VaultRecord:
        """Put another record that names the application into the vault, by its object id or its client id.

        It shows `secret`, where there is one.
        """
        vault = self.sandbox.vault
        shown = _shown(secret) if secret else {}
        named = {"application_object_id": getattr(self.app, by), "retire_after": "0", **shown, **fields}
        return vault.pam_user(title, folder=vault.folder_uid, **named)

    def publish(self, record: VaultRecord, secret: Credential) -> None:
        """Let the record show this secret, as if it had done so for long."""
        with self.sandbox.state.lock:
            for label, value in _shown(secret).items():
                record.edit(label, value)

    def add_marked(self, record: VaultRecord | str, hours: float = 24.0) -> Credential:
        """Give the application a secret as a rotation of that record would have made it so many hours ago."""
        uid = record if isinstance(record, str) else record.uid
        start = datetime.now(timezone.utc) - timedelta(hours=hours)
        return self.app.add_secret(f"keeper/{uid}/{uuid.uuid4().hex}", start=start)

    def agrees(self) -> bool:
        """Whether Entra holds exactly one secret beside those that other records show, and the vault shows that one."""
        records = [one for one in self.sandbox.vault.records.values() if one.uid != self.record.uid]
        elsewhere = {one.value("client_secret") for one in records}
        live = [(one.key_id, one.text) for one in self.app.live_secrets() if one.text not in elsewhere]
        return live == [(self.record.value("client_secret_id"), self.record.value("client_secret"))]

    def untouched(self) -> bool:
        """Whether Entra and the vault are as they were made."""
        live = [one.key_id for one in self.app.live_secrets()]
        return live == [self.old.key_id] and self.record.value("client_secret") == self.old.text

    def secrets(self) -> list[str]:
        """Return every value that may appear nowhere outside."""
        held = [one.text for app in (self.app, self.admin) for one in app.live_secrets()]
        config = self.sandbox.client_config()
        return [*held, self.old.text, self.admin_secret.text, config["privateKey"], config["appKey"]]

    def sign_ins(self) -> int:
        """Return how often a secret of the application has been tried, whatever the answer."""
        return sum(entry.op == "token" and self.app.client_id in entry.detail for entry in self.sandbox.log)

    def operations(self) -> list[str]:
        """Return the names of the requests that were served."""
        return [entry.op for entry in self.sandbox.log]


@contextmanager
def make_world(**fields: Any) -> Iterator[World]:
    """Start a sandbox with a world in it; `fields` add to the application's record, None leaves one out.

    Nothing is waited for before old secrets are removed, unless `retire_after` is given; None for the default.
    """
    with Sandbox() as sandbox:
        directory, vault = sandbox.directory, sandbox.vault
        admin = directory.add_application("keeper-rotator", roles=["Application.ReadWrite.OwnedBy"])
        admin_secret = admin.add_secret("rotator", days=180)
        configuration = vault.azure_configuration(admin.client_id, admin_secret.text, sandbox.tenant_id)
        app = directory.add_application("billing-api", owners=[admin.client_id])
        old = app.add_secret("first", days=20)
        values = {
            "application_object_id": app.object_id,
            **_shown(old),
            "retire_after": "0",
            **fields,
        }
        given = {label: value for label, value in values.items() if value is not None}
        record = vault.pam_user("billing-api", folder=vault.folder_uid, **given)
        yield World(sandbox, admin, admin_secret, configuration, app, old, record)


def _shown(secret: Credential) -> dict[str, str]:
    """The fields of a record that shows this secret."""
    expires = secret.end.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"client_secret_id": secret.key_id, "client_secret": secret.text, "expires": expires}


@dataclass
class Result:
    """How one run ended, whichever form it had. `output` is its line of JSON, empty where it wrote none."""

    returncode: int
    status: str
    failed: bool
    changed: bool
    message: str
    output: dict[str, Any]
    stdout: str
    stderr: str
    argv: list[str] = field(default_factory=list)

    def said(self) -> str:
        """Return everything that it has written."""
        return self.stdout + self.stderr

    def words(self) -> str:
        """Return what it has said to people: the verdict, and its steps."""
        return "\n".join([self.message, self.stderr, *(self.output.get("steps") or [])])

    def kept(self) -> dict[str, str]:
        """Return why each secret that it has kept stays, by key id."""
        return {item["key_id"]: item["reason"] for item in self.output.get("kept") or []}


def run_script(
    world: World,
    *arguments: str,
    stdin: str | None = None,
    environ: dict[str, str | None] | None = None,
    python: str = sys.executable,
    watch: Callable[[int], None] | None = None,
    script: Path = SCRIPT,
    **shape: Any,
) -> Result:
    """Run the PAM Script as the Gateway does; `shape` goes to the sandbox Gateway's `stdin_for`."""
    line = world.sandbox.gateway.stdin_for(world.record.uid, **shape) + "\n" if stdin is None else stdin
    command = [python, str(script), *arguments]
    stdout, stderr, code = _run(world, command, line, world.sandbox.environ(**(environ or {})), watch)
    lines = stdout.splitlines()
    output = json.loads(lines[0]) if len(lines) == 1 else {}
    return Result(
        code,
        output.get("status", ""),
        code != 0,
        output.get("changed", False),
        output.get("message", ""),
        output,
        stdout,
        stderr,
        command,
    )


def run_module(
    world: World,
    check: bool = False,
    diff: bool = False,
    environ: dict[str, str | None] | None = None,
    python: str = sys.executable,
    watch: Callable[[int], None] | None = None,
    module: str = "app_secret",
    **options: Any,
) -> Result:
    """Run a module as Ansible does, in a process of its own; None takes an option away."""
    values = {
        "record": world.record.uid,
        "pam_config": world.configuration.uid,
        "keeper_config": json.dumps(world.sandbox.client_config()),
        **options,
    }
    arguments = {key: value for key, value in values.items() if value is not None}
    arguments.update(_ansible_check_mode=check, _ansible_diff=diff, _ansible_verbosity=4)
    line = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
    root = os.environ["ANSIBLE_COLLECTIONS_PATH"]
    environment = world.sandbox.environ(
        **{
            "PYTHONPATH": root,
            "PYTHONDONTWRITEBYTECODE": "1",
            "GATEWAY_CONFIG": None,
            "COVERAGE_PROCESS_CONFIG": os.environ.get("MODULE_COVERAGE"),
            **(environ or {}),
        }
    )
    command = [python, "-m", MODULES + module]
    stdout, stderr, code = _run(world, command, line, environment, watch)
    try:
        output = json.loads(stdout)
    except ValueError:
        output = {}
    return Result(
        code,
        output.get("status", ""),
        output.get("failed", code != 0),
        output.get("changed", False),
        output.get("msg", ""),
        output,
        stdout,
        stderr,
        command,
    )


FORMS: dict[str, Callable[..., Result]] = {"script": run_script, "module": run_module}


def _run(
    world: World, command: list[str], line: str, environ: dict[str, str], watch: Callable[[int], None] | None
) -> tuple[str, str, int]:
    # No working directory of its own, no HOME: nothing may depend on them.
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        cwd="/",
        text=True,
    ) as process:
        world.sandbox.client_pid = process.pid
        try:
            if watch:
                watch(process.pid)
            stdout, stderr = process.communicate(line, timeout=TIMEOUT)
        except BaseException:
            process.send_signal(signal.SIGKILL)
            raise
    return stdout, stderr, process.returncode
