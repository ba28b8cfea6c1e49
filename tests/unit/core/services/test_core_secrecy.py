# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of a record may be said: a value that is what its label says, and nothing that is a secret."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import MASK, scrub
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.secrecy import learn

GUID = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
UIDS = "ZmpJl4qCXJEi0ohFKzzQaB, ZmpJl4qCXJEi0ohFKzzQaC"
COUNT = iter(range(10_000))


def typed() -> str:
    """A secret that no other test has."""
    return "Zq8~" + hashlib.sha256(str(next(COUNT)).encode()).hexdigest()[:32]


OURS = {
    "record uid": UIDS[:22],
    "application_object_id": GUID,
    "application_client_id": "{" + GUID.upper() + "}",
    "client_secret_id": GUID,
    "tenant_id": "contoso.onmicrosoft.com",
    "pamazuretenantid": GUID,
    "client id": GUID,
    "Client Secret": GUID,
    "expires": "2031-01-02T03:04:05.1234567Z",
    "lifetime_days": "365000000000",
    "keep-previous": "0",
    "Verify Timeout": "120",
    "retire": "managed",
    "verify": "true",
    "retire_after": "36h",
    "adopt": UIDS,
    "Azure Authority FQDN": "https://login.partner.microsoftonline.cn/",
    "Azure Graph Endpoint": "localhost:8443",
}


@pytest.mark.parametrize("kind", ["text", "secret"])
@pytest.mark.parametrize(("label", "value"), OURS.items())
def test_what_is_as_its_label_says_may_be_said(label, value, kind):
    learn([(label, kind, [value])])
    assert scrub(f"{label} is {value}.") == f"{label} is {value}."


@pytest.mark.parametrize("label", [*OURS, "client_secret"])
def test_what_is_not_as_its_label_says_may_not(label):
    value = typed()
    learn([(label, "text", value)])
    assert scrub(f"{label} is {value}.") == f"{label} is {MASK}."


@pytest.mark.parametrize("label", ["tenant_id", "azure authority fqdn"])
@pytest.mark.parametrize("value", ["Zq8~x-{}.bR2xVt9LwZ", "Zq8x-{}-bR2xVt9 LwZ", "a{}:b@host.example", "..{}.."])
def test_what_is_no_host_may_not(label, value):
    value = value.format(typed())
    learn([(label, "text", [value])])
    assert value not in scrub(f"{label} is {value}.")


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("", "secret"),
        ("of another system", "secret"),
        ("", "password"),
        ("of another system", "password"),
        ("", "oneTimeCode"),
        ("", "pinCode"),
        ("keys", "keyPair"),
        ("newPassword", "newPassword"),
        ("DB password", "text"),
        ("API-Token", ""),
    ],
)
@pytest.mark.parametrize("shape", [lambda each: each, lambda each: [each], lambda each: [{"privateKey": [each]}]])
def test_a_secret_may_not(label, kind, shape):
    value = typed()
    learn([(label, kind, shape(value))])
    assert scrub(value) == MASK


def test_other_fields_are_left_alone():
    value = typed()
    learn([("login", "login", [value]), ("url", "url", [value]), ("note", "text", [value, None, 7, True])])
    assert scrub(value) == value
