# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record types that matter here, as the service describes them to its clients."""

from __future__ import annotations

from typing import Any


def _field(kind: str, label: str = "", required: bool = False) -> dict[str, Any]:
    one: dict[str, Any] = {"$ref": kind}
    if label:
        one["label"] = label
    if required:
        one["required"] = True
    return one


_COMMON = [
    _field("pamResources", required=True),
    _field("fileRef"),
    _field("script", "rotationScripts"),
    _field("multiline", "portMapping"),
    _field("schedule", "defaultRotationSchedule", required=True),
    _field("text", "identityProviderUid"),
]

USER = {
    "$id": "pamUser",
    "categories": ["pam"],
    "fields": [
        _field("login", required=True),
        _field("password"),
        _field("script", "rotationScripts"),
        _field("secret", "privatePEMKey"),
        _field("text", "distinguishedName"),
        _field("text", "connectDatabase"),
        _field("checkbox", "managed"),
        _field("fileRef"),
        _field("oneTimeCode"),
    ],
}
AZURE = {
    "$id": "pamAzureConfiguration",
    "categories": ["pam"],
    "fields": [
        _field("text", "azureId", required=True),
        # The service does not ask for these two any more; its description still says so.
        _field("secret", "clientId", required=True),
        _field("secret", "clientSecret", required=True),
        _field("secret", "subscriptionId", required=True),
        _field("secret", "tenantId", required=True),
        _field("multiline", "resourceGroups"),
        *_COMMON,
    ],
}
NETWORK = {
    "$id": "pamNetworkConfiguration",
    "categories": ["pam"],
    "fields": [_field("text", "networkId"), _field("text", "networkCIDR"), *_COMMON],
}
LOGIN = {"$id": "login", "categories": ["login"], "fields": [_field("login"), _field("password"), _field("url")]}
#: By scope: the standard ones, those of PAM, the PAM configurations.
TYPES = {"RT_STANDARD": [LOGIN], "RT_PAM": [USER], "RT_PAM_CONFIGURATION": [AZURE, NETWORK]}
