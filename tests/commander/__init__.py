# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the servers that Keeper Commander talks to: Keeper's API and the router, over the sandbox's vault.

Commander itself is the real one. It is led here by its own configuration file and by `KROUTER_URL`; of its code only
the table of server public keys is replaced, by a start-up file of the test's environment. What it encrypts is decrypted
and checked, and is what Keeper Secrets Manager hands out of the same vault: the client of a Gateway that Commander has
made can ask for the records.

    from commander import KeeperServer
    from sandbox import Sandbox

    with Sandbox() as sandbox, KeeperServer(sandbox, commander_python) as keeper:
        keeper.account.folders                              # what the user's vault holds
        run(environ=keeper.environ(home), config=keeper.write_config(home / "config.json"))
        [entry.op for entry in sandbox.log]                 # start_login, account_summary, sync_down, ...

Every request has a name in the log and in the fault plan: the last part of its path, the command for commands of the
old API, and for the router `router/` with the last part of its path.
"""

from __future__ import annotations

from .server import KeeperServer

__all__ = ["KeeperServer"]
