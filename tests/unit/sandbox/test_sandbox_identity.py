# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Identities without a secret, against Microsoft's own clients, recorded answers, and everything that may be wrong."""

from __future__ import annotations

import base64
import re
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable

import jwt
import msal
import pytest
import requests
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from sandbox import Sandbox
from sandbox.application import Application
from sandbox.identity_assertions import AUDIENCE, FederatedCredential, Issuer
from sandbox.identity_hosts import ARC_KEYS, AppService, ArcServer, VirtualMachine, managed_identity
from sandbox.seed import Seeded

RECORDED: Any = yaml.safe_load(
    (Path(__file__).resolve().parent / "data" / "recorded_identity.yml").read_text(encoding="utf-8")
)
ISSUER, SUBJECT = "https://oidc.cluster.example/7a1c/", "system:serviceaccount:keeper:gateway"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def form(value: Any) -> Any:
    """Names in their order, and types."""
    return [(name, type(one).__name__) for name, one in value.items()]


# -- hosts


@pytest.fixture
def identity(sb: Sandbox) -> Application:
    return managed_identity(sb.entra, "gateway", ["Application.ReadWrite.OwnedBy"])


@pytest.fixture
def assigned(sb: Sandbox) -> Application:
    return managed_identity(sb.entra, "assigned")


@pytest.fixture
def msal_token(sb: Sandbox) -> Callable[..., dict[str, Any]]:
    """What msal's client for managed identities returns."""

    def get(client_id: str = "", resource: str = "") -> dict[str, Any]:
        who = (
            msal.UserAssignedManagedIdentity(client_id=client_id) if client_id else msal.SystemAssignedManagedIdentity()
        )
        with requests.Session() as session:
            client = msal.ManagedIdentityClient(who, http_client=session)
            found: dict[str, Any] = client.acquire_token_for_client(resource=resource or sb.graph_url)
            return found

    return get


@pytest.mark.parametrize("kind", [VirtualMachine, AppService])
def test_msal_gets_a_token_that_graph_takes(
    sb: Sandbox, identity: Application, assigned: Application, msal_token: Any, kind: Any, monkeypatch: Any
) -> None:
    host = kind(sb.entra, identity, [assigned])
    sb.serve(host)
    for name, value in host.environ().items():
        monkeypatch.setenv(name, value)
    app = sb.directory.add_application("billing-api", owners=[identity.client_id])
    token = msal_token()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.get(f"{sb.graph_url}/v1.0/applications/{app.object_id}", headers=headers, timeout=20).ok
    grant = sb.entra.grant(msal_token(assigned.client_id)["access_token"])
    assert grant is not None
    assert grant.client_id == assigned.client_id
    for wrong in (msal_token("9eba17f1-9f15-4d3a-a7a1-1f6a0c2f3a51"), msal_token(resource="https://elsewhere.example")):
        assert "access_token" not in wrong
        assert "error" in wrong
    assert not requests.get(f"{sb.graph_url}/v1.0/applications/{identity.object_id}", headers=headers, timeout=20).ok


@pytest.mark.parametrize("confirms", [True, False])
def test_msal_proves_to_arc_that_it_is_on_the_host(
    sb: Sandbox,
    identity: Application,
    assigned: Application,
    msal_token: Any,
    tmp_path: Path,
    monkeypatch: Any,
    confirms: bool,
) -> None:
    monkeypatch.setattr(msal.managed_identity, "_supported_arc_platforms_and_their_prefixes", {"linux": str(tmp_path)})
    host = ArcServer(sb.entra, tmp_path, identity, [assigned])
    host.confirms = confirms
    sb.serve(host)
    for name, value in host.environ().items():
        monkeypatch.setenv(name, value or "")
    assert msal_token()["token_type"] == "Bearer"
    assert len(host.made) == len(list(tmp_path.iterdir())) == 1
    if confirms:
        assert msal_token(assigned.client_id)["token_type"] == "Bearer"
    else:
        with pytest.raises(msal.ManagedIdentityError, match="did not confirm"):
            msal_token(assigned.client_id)


def test_arc_takes_no_key_but_its_own(sb: Sandbox, identity: Application, tmp_path: Path) -> None:
    host = ArcServer(sb.entra, tmp_path, identity)
    sb.serve(host)
    query, headers = {"api-version": "2020-06-01", "resource": sb.graph_url}, {"Metadata": "true"}
    challenge = requests.get(host.url + host.path, params=query, headers=headers, timeout=20)
    assert challenge.status_code == 401
    assert re.fullmatch(rf"Basic realm={ARC_KEYS}/[0-9a-f-]+\.key", challenge.headers["WWW-Authenticate"])
    for key, status in (("guessed", 401), (host.made[0], 200)):
        named = {**headers, "Authorization": f"Basic {key}"}
        assert requests.get(host.url + host.path, params=query, headers=named, timeout=20).status_code == status
    assert requests.get(host.url + host.path, params=query, timeout=20).status_code == 400


def test_the_answers_of_a_vm_are_as_recorded(sb: Sandbox, identity: Application) -> None:
    host = VirtualMachine(sb.entra, identity)
    sb.serve(host)
    query, headers = {"api-version": "2018-02-01", "resource": sb.graph_url}, {"Metadata": "true"}

    def ask(more: dict[str, str] | None = None, **changed: str) -> requests.Response:
        named = {**headers, **(more or {})}
        return requests.get(host.url + host.path, params={**query, **changed}, headers=named, timeout=20)

    answer = ask()
    assert (answer.status_code, form(answer.json())) == (200, form(RECORDED["imds"]["granted"]))
    answer = ask(client_id="9eba17f1-9f15-4d3a-a7a1-1f6a0c2f3a51")
    assert (answer.status_code, answer.json()) == (400, RECORDED["imds"]["no_identity"])
    for refused in (
        ask({"Metadata": "false"}),
        ask({"X-Forwarded-For": "x"}),
        ask(resource=""),
        ask(**{"api-version": "1"}),
    ):
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")
    assert ask(resource="https://elsewhere.example").json()["error"] == "invalid_resource"
    assert requests.post(host.url + host.path, headers=headers, timeout=20).status_code == 404


def test_the_answers_of_app_service_are_as_recorded(sb: Sandbox, identity: Application) -> None:
    host = AppService(sb.entra, identity)
    sb.serve(host)
    query = {"api-version": "2019-08-01", "resource": sb.graph_url}

    def ask(header: str = host.header, **changed: str) -> requests.Response:
        named = {"X-IDENTITY-HEADER": header}
        return requests.get(host.url + host.path, params={**query, **changed}, headers=named, timeout=20)

    answer = ask()
    assert (answer.status_code, form(answer.json())) == (200, form(RECORDED["appservice"]["granted"]))
    answer = ask(client_id="9eba17f1-9f15-4d3a-a7a1-1f6a0c2f3a51")
    assert (answer.status_code, answer.json()) == (400, RECORDED["appservice"]["no_identity"])
    assert ask(header="guessed").status_code == 401
    assert ask(**{"api-version": "2017-09-01"}).status_code == 400


def test_a_metadata_service_is_disturbed_and_logged_as_any_other(sb: Sandbox, identity: Application) -> None:
    from sandbox import Fault

    host = VirtualMachine(sb.entra, identity)
    sb.serve(host)
    sb.faults.add(Fault("imds_token", status=429))
    query, headers = {"api-version": "2018-02-01", "resource": sb.graph_url}, {"Metadata": "true"}
    found = [requests.get(host.url + host.path, params=query, headers=headers, timeout=20) for _number in range(2)]
    assert [answer.status_code for answer in found] == [429, 200]
    assert [(entry.service, entry.op) for entry in sb.log] == [("imds", "imds_token")] * 2


# -- client assertions


@pytest.fixture
def issuer(sb: Sandbox, seeded: Seeded) -> Issuer:
    seeded.admin.federated.append(FederatedCredential(ISSUER, SUBJECT))
    return sb.entra.assertions.add(Issuer(ISSUER))


@pytest.fixture
def assert_as(sb: Sandbox, seeded: Seeded) -> Callable[[str], requests.Response]:
    """One bare token request of the admin application with this assertion."""

    def post(assertion: str) -> requests.Response:
        body = {
            "client_id": seeded.admin.client_id,
            "client_assertion": assertion,
            "client_assertion_type": JWT_BEARER,
            "grant_type": "client_credentials",
            "scope": f"{sb.graph_url}/.default",
        }
        return requests.post(f"https://{sb.authority}/{sb.tenant_id}/oauth2/v2.0/token", data=body, timeout=20)

    return post


def number(answer: requests.Response) -> int:
    return answer.json()["error_codes"][0] if not answer.ok else 0


def test_a_token_of_another_provider_is_checked(sb: Sandbox, seeded: Seeded, issuer: Issuer, assert_as: Any) -> None:
    others = Issuer(ISSUER)
    expected = {
        issuer.token(SUBJECT): 0,
        issuer.token(SUBJECT, seconds=86400): 0,
        issuer.token(SUBJECT + "x"): 700213,
        issuer.token(SUBJECT.upper()): 7002138,
        issuer.token(SUBJECT, audience="https://kubernetes.default.svc"): 700212,
        Issuer(ISSUER.rstrip("/")).token(SUBJECT): 700211,
        issuer.token(SUBJECT, since=-7200): 700024,
        issuer.token(SUBJECT, since=7200): 700024,
        issuer.token(SUBJECT, seconds=2 * 86400): 70023,
        others.token(SUBJECT): 50013,
        "no.token.at-all": 50027,
        "nonsense": 50027,
    }
    for assertion, refused in expected.items():
        assert number(assert_as(assertion)) == refused
    sb.entra.assertions.issuers.clear()
    assert number(assert_as(issuer.token(SUBJECT))) == 50166


@pytest.mark.parametrize("code", [700024, 700027, 700211, 700212, 700213])
def test_refused_assertions_are_worded_as_recorded(seeded: Seeded, issuer: Issuer, assert_as: Any, code: int) -> None:
    assertion = {
        700024: lambda: issuer.token(SUBJECT, since=-7200),
        700027: lambda: sign(seeded.admin.client_id, make()[0], {"x5t": "AAAA"}),
        700211: lambda: Issuer("https://other.example/").token(SUBJECT),
        700212: lambda: issuer.token(SUBJECT, audience="x"),
        700213: lambda: issuer.token("x"),
    }[code]()
    body = assert_as(assertion).json()
    assert list(body) == RECORDED["assertions"]["members"]
    first = body["error_description"].split("\r\n")[0]
    assert re.fullmatch(RECORDED["assertions"][code], first), first


def make(days: float = 30, since: float = 1) -> tuple[Any, x509.Certificate]:
    """A key and its certificate, which is valid from so many days before now until so many after."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "keeper-rotator")])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=since))
    return key, builder.not_valid_after(now + timedelta(days=days)).sign(key, hashes.SHA256())


def sign(client_id: str, key: Any, headers: dict[str, Any], algorithm: str = "RS256", **changed: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": "x",
        "iat": now,
        "nbf": now,
        "exp": now + 600,
        "jti": "1",
        **changed,
    }
    return jwt.encode({name: one for name, one in claims.items() if one is not None}, key, algorithm, headers)


def thumbprint(certificate: x509.Certificate, kind: hashes.HashAlgorithm) -> str:
    return base64.urlsafe_b64encode(certificate.fingerprint(kind)).decode().rstrip("=")


def test_an_assertion_that_a_certificate_signs_is_checked(sb: Sandbox, seeded: Seeded, assert_as: Any) -> None:
    client_id, endpoint = seeded.admin.client_id, f"https://{sb.authority}/{sb.tenant_id}/oauth2/v2.0/token"
    (key, certificate), (other_key, other), (old_key, old), (young_key, young) = (
        make(),
        make(),
        make(days=-1, since=30),
        make(since=-1),
    )
    for one in (certificate, old, young):
        seeded.admin.add_certificate(one.public_bytes(Encoding.PEM))
    sha1 = {"x5t": thumbprint(certificate, hashes.SHA1())}
    sha256 = {"x5t#S256": thumbprint(certificate, hashes.SHA256())}
    chain = [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in (certificate, other)]

    def refused(key: Any, headers: dict[str, Any], algorithm: str = "RS256", **changed: Any) -> int:
        return number(assert_as(sign(client_id, key, headers, algorithm, **{"aud": endpoint, **changed})))

    assert refused(key, sha1) == 0
    assert refused(key, sha256, "PS256") == 0
    assert refused(key, {**sha256, "x5c": chain}, "PS256") == 0
    assert refused(key, {**sha256, "x5c": chain[1:]}) == 700027
    assert refused(key, {}) == 700027
    assert refused(other_key, {"x5t": thumbprint(other, hashes.SHA1())}) == 700027
    assert refused(other_key, sha1) == 700027
    assert refused(old_key, {"x5t": thumbprint(old, hashes.SHA1())}) == 700027
    assert refused(young_key, {"x5t": thumbprint(young, hashes.SHA1())}) == 700027
    assert refused(key, sha1, aud="https://elsewhere.example") == 700023
    assert refused(key, sha1, sub="someone-else") == 700021
    assert refused(key, sha1, nbf=None) == 0
    assert refused(key, sha1, exp=int(time.time()) - 3600) == 700024
    assert refused(key, sha1, exp=None) == 700024
    sb.directory.clock = -3600.0
    assert refused(key, sha1) == 700024
    sb.directory.clock = -200.0
    assert refused(key, sha1) == 0


# -- azure-identity, as it is


@pytest.fixture
def azure_identity(sb: Sandbox, seeded: Seeded) -> Callable[..., str]:
    """The access token that a credential of azure-identity gets: (name of its class, **its options)."""
    module = pytest.importorskip("azure.identity", reason="azure-identity is not installed")

    def get(name: str, **options: Any) -> str:
        common = {"authority": f"https://{sb.authority}", "disable_instance_discovery": True, "retry_total": 0}
        who = {"tenant_id": sb.tenant_id, "client_id": seeded.admin.client_id}
        with getattr(module, name)(**who, **common, **options) as credential:
            token: str = credential.get_token(f"{sb.graph_url}/.default").token
            return token

    return get


def test_azure_identity_signs_in_by_federation(
    sb: Sandbox, seeded: Seeded, issuer: Issuer, azure_identity: Any, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(issuer.token(SUBJECT))
    tokens = [
        azure_identity("WorkloadIdentityCredential", token_file_path=str(tmp_path / "token")),
        azure_identity("ClientAssertionCredential", func=lambda: issuer.token(SUBJECT)),
    ]
    for token in tokens:
        grant = sb.entra.grant(token)
        assert grant is not None
        assert grant.client_id == seeded.admin.client_id
    from azure.core.exceptions import ClientAuthenticationError

    with pytest.raises(ClientAuthenticationError, match="AADSTS700213"):
        azure_identity("ClientAssertionCredential", func=lambda: issuer.token("other"))


def test_azure_identity_signs_in_with_a_certificate(
    sb: Sandbox, seeded: Seeded, azure_identity: Any, tmp_path: Path
) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    key, certificate = make()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    pfx = pkcs12.serialize_key_and_certificates(b"x", key, certificate, None, BestAvailableEncryption(b"open sesame"))
    (tmp_path / "x.pem").write_bytes(pem)
    ways: list[dict[str, Any]] = [
        {"certificate_path": str(tmp_path / "x.pem")},
        {"certificate_path": str(tmp_path / "x.pem"), "send_certificate_chain": True},
        {"certificate_data": pfx, "password": "open sesame"},
    ]
    with pytest.raises(ClientAuthenticationError, match="AADSTS700027"):
        azure_identity("CertificateCredential", **ways[0])
    seeded.admin.add_certificate(certificate.public_bytes(Encoding.PEM))
    for way in ways:
        assert sb.entra.grant(azure_identity("CertificateCredential", **way)) is not None


def test_what_a_federated_credential_is_made_for_by_default() -> None:
    assert FederatedCredential(ISSUER, SUBJECT).audience == AUDIENCE == "api://AzureADTokenExchange"
