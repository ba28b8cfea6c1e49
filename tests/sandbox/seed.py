# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small believable tenant: what the demo and the end-to-end tests start from."""

from __future__ import annotations

from dataclasses import dataclass

from .directory import Application, Credential
from .vault import VaultRecord
from .world import Sandbox


@dataclass(frozen=True)
class Seeded:
    """What was put in: by name, the applications and the PAM User records that publish their secrets."""

    admin: Application
    admin_secret: Credential
    configuration: VaultRecord
    applications: dict[str, Application]
    records: dict[str, VaultRecord]


def seed(sandbox: Sandbox) -> Seeded:
    """Fill a started sandbox.

    An admin application with Application.ReadWrite.OwnedBy owns `billing-api` (its secret ends in 9 days),
    `orders-worker` (four old secrets, one of them expired) and `crm-sync` (its record holds the client id). The Azure
    PAM configuration holds the admin's secret and this sandbox's endpoints.
    """
    directory, vault = sandbox.directory, sandbox.vault
    admin = directory.add_application("keeper-rotator", roles=["Application.ReadWrite.OwnedBy"])
    admin_secret = admin.add_secret("rotator", days=180)
    configuration = vault.azure_configuration(
        admin.client_id, admin_secret.text, sandbox.tenant_id, title="Azure (contoso)"
    )
    applications = {
        name: directory.add_application(name, owners=[admin.client_id])
        for name in ("billing-api", "orders-worker", "crm-sync")
    }
    for days in (-30, 12, 45):
        applications["orders-worker"].add_secret("set by hand", days=days)
    published = {
        "billing-api": applications["billing-api"].add_secret("first", days=9),
        "orders-worker": applications["orders-worker"].add_secret("in use", days=120),
        "crm-sync": applications["crm-sync"].add_secret("first", days=60),
    }
    records = {}
    for name, application in applications.items():
        address = application.client_id if name == "crm-sync" else application.object_id
        secret = published[name]
        records[name] = vault.pam_user(
            name,
            folder=vault.folder_uid,
            application_object_id=address,
            client_secret_id=secret.key_id,
            client_secret=secret.text,
            expires=secret.end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
    return Seeded(admin, admin_secret, configuration, applications, records)
