# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the sandbox with its seeded tenant until it is told to stop: python -m sandbox."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import threading

from .seed import seed
from .world import Sandbox


def main() -> None:
    """Serve until SIGTERM or SIGINT; the first line on stdout is JSON with what a user needs."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="Emulate Microsoft Entra, Microsoft Graph and Keeper Secrets Manager on the loopback, with a small "
        "seeded tenant. Prints one line of JSON (environment for clients, record UIDs, endpoints) and "
        "serves until SIGTERM or SIGINT. Everything in it is made up and gone when it stops.",
    )
    parser.add_argument(
        "--export", action="store_true", help="print shell commands that set the variables of a client instead"
    )
    for name in ("entra", "graph", "keeper"):
        parser.add_argument(f"--{name}-port", type=int, default=0, metavar="PORT", help="a fixed port (default: any)")
    parser.add_argument(
        "--usable-after",
        type=float,
        default=0,
        metavar="SECONDS",
        help="how long a new secret takes until it signs in (default: 0)",
    )
    parser.add_argument(
        "--visible-after",
        type=float,
        default=0,
        metavar="SECONDS",
        help="how long a new secret takes until a GET shows it (default: 0)",
    )
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    with Sandbox(options.entra_port, options.graph_port, options.keeper_port) as sandbox:
        sandbox.directory.usable_after = options.usable_after
        sandbox.directory.visible_after = options.visible_after
        seeded = seed(sandbox)
        if options.export:
            environ = {name: value for name, value in sandbox.environ().items() if name != "PATH"}
            environ["KSM_CONFIG"] = environ["GATEWAY_CONFIG"]
            environ["NO_PROXY"] = environ["no_proxy"] = "localhost,127.0.0.1"
            environ["RECORD"] = seeded.records["billing-api"].uid
            environ["PAM_CONFIG"] = seeded.configuration.uid
            for name, value in environ.items():
                print(f"export {name}={shlex.quote(value)}", flush=True)
            stop.wait()
            return
        print(
            json.dumps(
                {
                    "environment": sandbox.environ(),
                    "records": {name: record.uid for name, record in seeded.records.items()},
                    "applications": {name: one.object_id for name, one in seeded.applications.items()},
                    "pam_configuration": seeded.configuration.uid,
                    "tenant_id": sandbox.tenant_id,
                    "authority": sandbox.authority,
                    "graph_url": sandbox.graph_url,
                    "keeper_host": sandbox.keeper_host,
                    "ca_file": sandbox.ca_file,
                }
            ),
            flush=True,
        )
        stop.wait()


if __name__ == "__main__":
    main()
