# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Graph's answers look like: applications, secrets, moments, headers, as they were recorded from the real one."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any

from .application import Application, Credential, Key, new_guid
from .exchange import Request

JSON_TYPE = "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8"
# What can be selected although an answer does not have it by itself.
UNSHOWN = ("createdByAppId", "isDisabled", "uniqueName")

_MOMENT = re.compile(r"(\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,12}))?(Z|[+-]\d\d:\d\d)")


def application_form(application: Application, secrets: list[Credential], domain: str) -> dict[str, Any]:
    """An application with all properties that a read without $select gives, and those that have to be asked for."""
    personal = application.audience != "AzureADMyOrg" and application.audience != "AzureADMultipleOrgs"
    return {
        "deletedDateTime": None,
        "applicationTemplateId": None,
        "disabledByMicrosoftStatus": None,
        "createdDateTime": stamp(application.created, 0),
        "description": None,
        "groupMembershipClaims": None,
        "identifierUris": [],
        "isDeviceOnlyAuthSupported": None,
        "isFallbackPublicClient": None,
        "notes": None,
        "publisherDomain": domain,
        "serviceManagementReference": None,
        "tags": [],
        "tokenEncryptionKeyId": None,
        "samlMetadataUrl": None,
        "defaultRedirectUri": None,
        "certification": None,
        "optionalClaims": None,
        "servicePrincipalLockConfiguration": None,
        "requestSignatureVerification": None,
        "addIns": [],
        "api": {
            "acceptMappedClaims": None,
            "knownClientApplications": [],
            "requestedAccessTokenVersion": 2 if personal else None,
            "oauth2PermissionScopes": [],
            "preAuthorizedApplications": [],
        },
        "appRoles": [],
        "info": dict.fromkeys(
            ("logoUrl", "marketingUrl", "privacyStatementUrl", "supportUrl", "termsOfServiceUrl"), None
        ),
        "keyCredentials": [key_form(one) for one in application.keys],
        "parentalControlSettings": {"countriesBlockedForMinors": [], "legalAgeGroupRule": "Allow"},
        "publicClient": {"redirectUris": []},
        "requiredResourceAccess": [],
        "verifiedPublisher": dict.fromkeys(("displayName", "verifiedPublisherId", "addedDateTime"), None),
        "web": {
            "homePageUrl": None,
            "logoutUrl": None,
            "redirectUris": [],
            "implicitGrantSettings": {"enableAccessTokenIssuance": False, "enableIdTokenIssuance": False},
            "redirectUriSettings": [],
        },
        "spa": {"redirectUris": []},
        "id": application.object_id,
        "appId": application.client_id,
        "displayName": application.display_name,
        "signInAudience": application.audience,
        "passwordCredentials": [secret_form(one) for one in secrets],
        "createdByAppId": None,
        "isDisabled": application.disabled or None,
        "uniqueName": None,
    }


def secret_form(credential: Credential) -> dict[str, Any]:
    """A passwordCredential as every GET shows it: without its text."""
    start_tick, end_tick = credential.ticks
    return {
        "customKeyIdentifier": None,
        "displayName": credential.display_name,
        "endDateTime": stamp(credential.end, credential.fraction_digits, end_tick),
        "hint": credential.hint,
        "keyId": credential.key_id,
        "secretText": None,
        "startDateTime": stamp(credential.start, credential.fraction_digits, start_tick),
    }


def key_form(key: Key) -> dict[str, Any]:
    """A keyCredential, a certificate, as lists show it: without the certificate itself."""
    return {
        "customKeyIdentifier": None,
        "displayName": key.display_name,
        "endDateTime": stamp(key.end, 0),
        "key": None,
        "keyId": key.key_id,
        "startDateTime": stamp(key.start, 0),
        "type": "AsymmetricX509Cert",
        "usage": "Verify",
    }


def principal_form(application: Application) -> dict[str, Any]:
    """An application's service principal, as far as it is asked for."""
    return {
        "id": application.principal_id,
        "appId": application.client_id,
        "displayName": application.display_name,
        "servicePrincipalType": "Application",
        "keyCredentials": [],
        "passwordCredentials": [secret_form(one) for one in application.principal_credentials],
    }


def owner_forms(application: Application, others: list[Application], names: list[str]) -> list[dict[str, Any]]:
    """The owners of an application: service principals, and users, whose names only some callers may read."""
    found = [
        {"@odata.type": "#microsoft.graph.servicePrincipal", "id": one.principal_id, "displayName": one.display_name}
        for one in others
        if one.client_id in application.owners
    ]
    found += [
        {"@odata.type": "#microsoft.graph.user", "id": user_id, "displayName": name}
        for user_id, name in application.users.items()
    ]
    return [{key: each[key] for key in each if key.startswith("@") or not names or key in names} for each in found]


def stamp(moment: datetime, digits: int, tick: int = 0) -> str:
    """Graph's writing of a time: UTC, Z, at most so many digits of a second, no zeros at the end of the fraction.

    `tick` is the seventh digit, which a datetime cannot hold.
    """
    fraction = f"{moment.microsecond:06d}{tick}"[:digits].rstrip("0")
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S") + (f".{fraction}" if fraction else "") + "Z"


def moment_of(text: Any) -> tuple[datetime, int] | None:
    """An Edm.DateTimeOffset as an aware datetime, cut to microseconds, and its seventh digit; None: it is none."""
    match = _MOMENT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    whole, fraction, zone = match.groups()
    digits = (fraction or "").ljust(7, "0")
    moment = datetime.fromisoformat(f"{whole}.{digits[:6]}{'+00:00' if zone == 'Z' else zone}")
    return moment.astimezone(timezone.utc), int(digits[6])


def headers(request: Request, now: datetime, units: int) -> dict[str, str]:
    """What every answer carries. `now` is the clock of the front end, `units` the cost in resource units."""
    return {
        "Cache-Control": "no-cache",
        "Strict-Transport-Security": "max-age=31536000",
        "request-id": new_guid(),
        "client-request-id": request.headers.get("client-request-id") or new_guid(),
        "x-ms-ags-diagnostic": json.dumps(
            {
                "ServerInfo": {
                    "DataCenter": "Loopback",
                    "Slice": "E",
                    "Ring": "1",
                    "ScaleUnit": "000",
                    "RoleInstance": "LO",
                }
            }
        ),
        "x-ms-resource-unit": str(units),
        "Date": format_datetime(now, usegmt=True),
    }
