# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entra's token endpoint, by msal and by bare requests."""

from __future__ import annotations

import datetime
import time
from typing import Callable

import msal
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sandbox import Sandbox
from sandbox.directory import Application
from sandbox.seed import Seeded

SignIn = Callable[..., requests.Response]


def client(sb: Sandbox, app: Application, credential: object) -> msal.ConfidentialClientApplication:
    return msal.ConfidentialClientApplication(
        app.client_id, credential, instance_discovery=False, authority=f"https://{sb.authority}/{sb.tenant_id}"
    )


def test_msal_gets_a_token_in_two_requests(sb: Sandbox, seeded: Seeded) -> None:
    answer = client(sb, seeded.admin, seeded.admin_secret.text).acquire_token_for_client([f"{sb.graph_url}/.default"])
    assert answer["access_token"].startswith("eyJ")
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3599)
    assert [entry.op for entry in sb.log] == ["discovery", "token"]


def test_msal_signs_in_with_a_registered_certificate_only(sb: Sandbox, seeded: Seeded) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rotator")])
    today = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today)
        .not_valid_after(today + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    both = {"private_key": private, "public_certificate": pem}
    by_thumbprint = {"private_key": private, "thumbprint": certificate.fingerprint(hashes.SHA1()).hex()}
    scope = [f"{sb.graph_url}/.default"]
    refused = client(sb, seeded.admin, both).acquire_token_for_client(scope)
    assert refused["error_codes"] == [700027]
    seeded.admin.add_certificate(pem)
    for credential in (both, by_thumbprint):
        assert "access_token" in client(sb, seeded.admin, credential).acquire_token_for_client(scope)


def test_an_unknown_tenant_is_refused_at_discovery_and_at_the_token_endpoint(sb: Sandbox, sign_in: SignIn) -> None:
    answer = requests.get(f"https://{sb.authority}/elsewhere/v2.0/.well-known/openid-configuration", timeout=20)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_tenant")
    answer = sign_in("x", "y", tenant="elsewhere")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert answer.json()["error_codes"] == [90002]


def test_the_domain_names_the_tenant_too(sb: Sandbox, seeded: Seeded, sign_in: SignIn) -> None:
    assert sign_in(seeded.admin.client_id, seeded.admin_secret.text, tenant="contoso.example").ok


def spoil_nothing(app: Application) -> None:
    """The secret alone is wrong."""


def expire(app: Application) -> None:
    app.credentials.clear()
    app.add_secret(days=-3)


def disable(app: Application) -> None:
    app.disabled = True


def orphan(app: Application) -> None:
    app.service_principal = False


@pytest.mark.parametrize(
    ("spoil", "secret", "status", "error", "number"),
    [
        (spoil_nothing, "wrong", 401, "invalid_client", 7000215),
        (spoil_nothing, "", 401, "invalid_client", 7000216),
        (expire, "wrong", 401, "invalid_client", 7000222),
        (disable, "right", 400, "unauthorized_client", 7000112),
        (orphan, "right", 400, "unauthorized_client", 700016),
    ],
)
def test_refusals_have_their_number_status_and_error(
    seeded: Seeded,
    sign_in: SignIn,
    status: int,
    error: str,
    spoil: Callable[[Application], None],
    secret: str,
    number: int,
) -> None:
    text = seeded.admin_secret.text if secret == "right" else secret
    spoil(seeded.admin)
    answer = sign_in(seeded.admin.client_id, text)
    body = answer.json()
    assert (answer.status_code, body["error"], body["error_codes"]) == (status, error, [number])
    assert body["error_description"].startswith(f"AADSTS{number}: ")
    assert "\r\nTrace ID: " + body["trace_id"] in body["error_description"]


def test_conditional_access_blocks_after_the_secret_was_right(seeded: Seeded, sign_in: SignIn) -> None:
    seeded.admin.blocked_by_conditional_access = True
    assert sign_in(seeded.admin.client_id, seeded.admin_secret.text).json()["error_codes"] == [53003]
    assert sign_in(seeded.admin.client_id, "wrong").json()["error_codes"] == [7000215]


@pytest.mark.parametrize(
    ("form", "number"),
    [
        ({"scope": "https://graph.microsoft.us/.default"}, 500011),
        ({"scope": "openid"}, 70011),
        ({"grant_type": "password"}, 70003),
        ({"client_id": "nobody"}, 700016),
    ],
)
def test_requests_for_something_else_are_refused(
    seeded: Seeded, sign_in: SignIn, form: dict[str, str], number: int
) -> None:
    answer = sign_in(seeded.admin.client_id, seeded.admin_secret.text, **form)
    assert answer.json()["error_codes"] == [number]


def test_the_status_of_a_refusal_is_a_switch(sb: Sandbox, seeded: Seeded, sign_in: SignIn) -> None:
    seeded.admin.disabled = True
    sb.directory.sign_in_status[7000112] = 401
    assert sign_in(seeded.admin.client_id, seeded.admin_secret.text).status_code == 401


def test_the_truth_agrees_with_the_endpoint_over_a_secrets_life(sb: Sandbox, seeded: Seeded, sign_in: SignIn) -> None:
    app = seeded.applications["billing-api"]
    sb.directory.usable_after, sb.directory.lingers_for = 0.4, 0.4
    with sb.state.lock:
        secret = sb.directory.create(app, None, *(app.created + datetime.timedelta(days=days) for days in (-1, 9)))

    def both() -> set[bool]:
        return {sb.directory.signs_in(app.client_id, secret.text), sign_in(app.client_id, secret.text).ok}

    assert both() == {False}
    time.sleep(0.45)
    assert both() == {True}
    with sb.state.lock:
        sb.directory.remove(app, secret)
    assert both() == {True}
    time.sleep(0.45)
    assert both() == {False}
    assert secret not in app.live_secrets()


def test_a_secret_of_the_future_does_not_sign_in(sb: Sandbox, seeded: Seeded) -> None:
    app = seeded.applications["billing-api"]
    future = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    assert not sb.directory.signs_in(app.client_id, app.add_secret(start=future).text)
    assert not sb.directory.signs_in("nobody", "x")
