# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the modules that sign in to Entra get the admin identity from: options, environment, records.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ._core.base.errors import BadInput
from ._core.base.labels import Labelled
from ._core.rotation.identity import AUTHORITY_VARIABLE, Sources
from ._core.rotation.policy import Policy, policy_of
from ._core.services.files import certificates_of
from ._core.services.http import Http
from ._core.services.vault import Vault, VaultRecord
from ._module import cloud, identities, keeper_configuration


class Setting:
    """What the options and the environment say, of whichever record it is about. Raises BadInput."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params
        self._explicit, self._fallback = identities(params, dict(os.environ))
        self._cloud = cloud(params["cloud_environment"], "cloud_environment")
        where = "the environment variable AZURE_CLOUD_ENVIRONMENT"
        self._default_cloud = cloud(os.environ.get("AZURE_CLOUD_ENVIRONMENT"), where)
        self.keeper = keeper_configuration(params, os.environ)

    def beside(self) -> dict[str, str]:
        """Return the uids of the records that the other options name, by those."""
        return {name: self._params[name] for name in ("admin_record", "pam_config") if self._params[name]}

    def about(
        self,
        record: VaultRecord,
        found: Mapping[str, VaultRecord],
        http: Http,
        vault: Vault | None,
    ) -> tuple[Sources, Policy]:
        """Return where the admin identity comes from, and how to rotate this record; see ``sources``."""
        sources = self.sources(record, found, http, vault)
        names = [field.name for field in fields(Policy)]
        given = {name: self._params[name] for name in names if self._params[name] is not None}
        return sources, policy_of(record.view(), **given)

    def sources(
        self,
        record: VaultRecord | None,
        found: Mapping[str, VaultRecord],
        http: Http,
        vault: Vault | None,
    ) -> Sources:
        """Return where the admin identity comes from, given what else was ``found`` than the record to rotate, if any.

        ``http`` is what files that are attached to records would be fetched with; from ``vault``, where there is one,
        the record of the admin identity would be read once more. Raises BadInput.
        """

        def afresh(uid: str) -> Labelled | None:
            read = vault.read([uid]).get(uid) if vault else None
            return read.view() if read else None

        admin, configuration = self._params["admin_record"], self._params["pam_config"]
        attached: list[Labelled] = []
        if admin and not (record and admin == record.uid):
            attached = [found[admin].view()]
            if not self._explicit and not attached[0].get("application_client_id"):
                raise BadInput(f"the record {admin} lacks application_client_id", todo="fill in the field")
        files = {**found, record.uid: record} if record else found
        return Sources(
            advice="set pam_config or admin_record, or tenant_id, client_id and a credential",
            explicit=self._explicit,
            attached=attached,
            own=record.view() if record else None,
            configuration=found[configuration].view() if configuration else None,
            fallback=self._fallback,
            cloud=self._cloud,
            default_cloud=self._default_cloud,
            authority=os.environ.get(AUTHORITY_VARIABLE, ""),
            files=lambda uid: certificates_of(files[uid], http) if uid in files else (),
            afresh=afresh,
        )
