# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The requests that a plain script makes to rotate one secret, in the order of Keeper's page, with the same libraries.

A yardstick for the PAM Script. It proves nothing, waits for nothing and undoes nothing.

It takes what the Gateway passes on stdin, and the Gateway's configuration from GATEWAY_CONFIG.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import msal
import requests
from keeper_secrets_manager_core import SecretsManager
from keeper_secrets_manager_core.storage import InMemoryKeyValueStorage

TIMEOUT = 30


def main() -> None:
    """Rotate the secret of the record."""
    given = json.loads(base64.b64decode(sys.stdin.read()))
    places = next(one for one in json.loads(base64.b64decode(given["records"])) if "clientId" in one)
    vault = SecretsManager(config=InMemoryKeyValueStorage(os.environ["GATEWAY_CONFIG"]))
    record = vault.get_secrets([given["userRecordUid"]])[0]
    graph = places["Azure Graph Endpoint"].rstrip("/")
    client = msal.ConfidentialClientApplication(
        places["clientId"],
        client_credential=places["clientSecret"],
        authority=f"https://{places['Azure Authority FQDN']}/{places['tenantId']}",
        instance_discovery=False,
    )
    token = client.acquire_token_for_client([graph + "/.default"])["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    address = f"{graph}/v1.0/applications/{record.custom_field('application_object_id', single=True)}"
    end = (datetime.now(timezone.utc) + timedelta(days=365)).strftime("%Y-%m-%dT%H:%M:%SZ")
    wanted = {"passwordCredential": {"displayName": "rotated", "endDateTime": end}}
    made = post(address + "/addPassword", headers, wanted).json()
    listed = requests.get(address, headers=headers, timeout=TIMEOUT).json()["passwordCredentials"]
    for item in listed:
        if item["keyId"] != made["keyId"]:
            post(address + "/removePassword", headers, {"keyId": item["keyId"]})
    record.custom_field("client_secret", made["secretText"])
    record.custom_field("client_secret_id", made["keyId"])
    record.custom_field("expires", end)
    vault.save(record)


def post(address: str, headers: dict[str, str], body: dict[str, Any]) -> requests.Response:
    """Send a request to Graph."""
    answer = requests.post(address, headers=headers, json=body, timeout=TIMEOUT)
    answer.raise_for_status()
    return answer


if __name__ == "__main__":
    main()
