# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rotates three applications of a made-up tenant on this machine: one as the Keeper Gateway does, two with Ansible.

Entra, Graph, Keeper and the Gateway are the sandbox's, on the loopback; the protocols and the SDKs are the real ones.
Exits with 0 only if the vault and Entra agree on every application afterwards.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from sandbox import Sandbox
from sandbox.seed import Seeded, seed

SCRIPT = Path(__file__).resolve().parents[1] / "playbooks" / "files" / "rotate_azure_app.py"
BY_GATEWAY, BY_ANSIBLE = "billing-api", ("orders-worker", "crm-sync")


def heading(text: str) -> None:
    """Say what comes next."""
    print(f"\n== {text}", flush=True)


def rotate_with_gateway(sandbox: Sandbox, tenant: Seeded) -> bool:
    """Attach the PAM Script to a record and let the Gateway run it."""
    record = tenant.records[BY_GATEWAY]
    sandbox.vault.attach_script(record, SCRIPT, command=shlex.quote(sys.executable))
    run = sandbox.gateway.rotate(record.uid)
    print(run.stderr, end="", flush=True)
    print(f"exit status {run.returncode}", flush=True)
    return run.returncode == 0


def rotate_with_ansible(sandbox: Sandbox, tenant: Seeded) -> bool:
    """Run the collection's playbook for the others."""
    variables = {
        "rotate_records": [tenant.records[name].uid for name in BY_ANSIBLE],
        "rotate_pam_config": tenant.configuration.uid,
    }
    environment = sandbox.environ(
        KSM_CONFIG=base64.b64encode(json.dumps(sandbox.client_config()).encode()).decode(),
        ANSIBLE_COLLECTIONS_PATH=os.environ["ANSIBLE_COLLECTIONS_PATH"],
        ANSIBLE_CONFIG=str(Path(__file__).with_name("ansible.cfg")),
        ANSIBLE_LOCALHOST_WARNING="0",
        ANSIBLE_INVENTORY_UNPARSED_WARNING="0",
        ANSIBLE_LOCAL_TEMP=str(Path(sandbox.ca_file).with_name("ansible")),
        ANSIBLE_REMOTE_TEMP=str(Path(sandbox.ca_file).with_name("ansible")),
        HOME=str(Path(sandbox.ca_file).parent),
        LC_ALL="C.UTF-8",
    )
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "keeperpam.azure.rotate"]
    finished = subprocess.run([*command, "-e", json.dumps(variables)], env=environment, check=False)
    return finished.returncode == 0


def table(sandbox: Sandbox, tenant: Seeded, before: dict[str, tuple[str, int]]) -> bool:
    """Print what has become of every application; return whether the vault and Entra agree."""
    rows = [("application", "old secret id", "new secret id", "expires", "removed", "signed in with the new one")]
    agree = True
    for name, application in tenant.applications.items():
        record = tenant.records[name]
        live = application.live_secrets()
        old_id, old_count = before[name]
        new_id, secret = record.value("client_secret_id") or "", record.value("client_secret") or ""
        signs_in = sandbox.directory.signs_in(application.client_id, secret)
        removed = old_count - sum(1 for each in live if each.key_id != new_id)
        agree = agree and signs_in and new_id != old_id and [each.key_id for each in live] == [new_id]
        agree = agree and [each.text for each in live] == [secret]
        expires = (record.value("expires") or "")[:10]
        rows.append((name, old_id, new_id, expires, str(removed), "yes" if signs_in else "NO"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return agree


def main() -> int:
    """Run the demonstration."""
    started = datetime.now(timezone.utc)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a terminal may not have every letter of a name
    # Everything is on the loopback, which not every proxy is told to leave alone.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "localhost,127.0.0.1,::1"
    with Sandbox() as sandbox:
        tenant = seed(sandbox)
        for record in tenant.records.values():
            record.edit("retire_after", "0")
        print("Here the old secrets go at once (retire_after is 0); by default they sign in for 30 s more.", flush=True)
        before = {
            name: (tenant.records[name].value("client_secret_id") or "", len(application.live_secrets()))
            for name, application in tenant.applications.items()
        }
        heading(f"The Keeper Gateway runs the PAM Script attached to {BY_GATEWAY}")
        good = rotate_with_gateway(sandbox, tenant)
        heading(f"ansible-playbook keeperpam.azure.rotate, for {' and '.join(BY_ANSIBLE)}")
        good = rotate_with_ansible(sandbox, tenant) and good
        heading("What the vault and Entra hold now")
        agree = table(sandbox, tenant, before)
        shutil.rmtree(Path(sandbox.ca_file).with_name("ansible"), ignore_errors=True)
    seconds = (datetime.now(timezone.utc) - started).total_seconds()
    print(f"\nThe vault and Entra {'agree' if agree else 'DO NOT AGREE'}, after {seconds:.0f} s.")
    return 0 if good and agree else 1


if __name__ == "__main__":
    sys.exit(main())
