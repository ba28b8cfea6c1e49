# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sandbox of Microsoft Entra, Microsoft Graph, Keeper Secrets Manager and the Keeper Gateway on the loopback.

Every service speaks its real wire protocol over TLS, so msal, requests and the KSM SDK talk to it unmodified, through
configuration alone. Everything is in memory.

    from sandbox import Fault, Sandbox
    from sandbox.directory import Replica

    with Sandbox() as sb:
        admin = sb.directory.add_application("rotator", roles=["Application.ReadWrite.OwnedBy"])
        app = sb.directory.add_application("billing-api", owners=[admin.client_id])
        old = app.add_secret(days=9)
        sb.vault.azure_configuration(admin.client_id, admin.add_secret().text, sb.tenant_id)
        record = sb.vault.pam_user("billing-api", application_object_id=app.object_id, client_secret=old.text,
                                   client_secret_id=old.key_id, expires=None)
        sb.vault.attach_script(record, "rotate_azure_app.py", command="python3")

        sb.directory.usable_after = 3                           # a new secret signs in after 3 seconds
        sb.directory.sign_in_replicas = [Replica(), Replica(learns_after=30)]   # on one machine; on the other after 30
        sb.directory.clock = 25 * 60                            # Entra's clock is 25 minutes ahead of the host's
        sb.faults.add(Fault("addPassword", moment="after", kind="drop"))    # it is made, but nobody is told
        sb.watch(lambda sb, entry: check(sb, entry))            # after every change of a store, under the lock

        run = sb.gateway.rotate(record.uid)                     # returncode, stdout, stderr
        assert old.removed_by == "graph"                        # not "outside": app.remove_secret, app.reset
        assert all(sb.directory.takes(app.client_id, record.value("client_secret")))    # each replica's truth, or
        assert sb.directory.signs_in(app.client_id, record.value("client_secret"))
        assert [entry.op for entry in sb.log][-1] == "removePassword"

`python -m sandbox` serves a seeded tenant for people to rehearse on.
"""

from __future__ import annotations

from .faults import Fault
from .gateway import Run
from .state import Entry
from .world import Sandbox, SandboxError

__all__ = ["Entry", "Fault", "Run", "Sandbox", "SandboxError"]
