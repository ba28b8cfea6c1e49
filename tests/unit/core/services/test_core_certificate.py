# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Certificates in every form in which people have them, and what is said of those that cannot be used."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput, Refused
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log, Secret
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services import entra
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.certificate import open_certificate
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.credentials import Certificate, Identity
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.http import Http
from core_samples import CLIENT_ID
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

PASSPHRASE = "open sésame"
END = datetime(2027, 3, 1, tzinfo=timezone.utc)


def certify(key, name: str = "keeper-rotator"):
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(END - timedelta(days=365))
        .not_valid_after(END)
        .sign(key, hashes.SHA256())
    )


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
OWN, OTHER = certify(KEY), certify(OTHER_KEY, "an authority")
SEALED = BestAvailableEncryption(PASSPHRASE.encode())
OWN_PEM, OTHER_PEM = OWN.public_bytes(Encoding.PEM), OTHER.public_bytes(Encoding.PEM)


def private(form=PrivateFormat.PKCS8, sealed=False, key=KEY) -> bytes:
    return key.private_bytes(Encoding.PEM, form, SEALED if sealed else NoEncryption())


def opened(content: bytes, passphrase: str = ""):
    return open_certificate(
        Certificate("the certificate in x", lambda: content, Secret(passphrase) if passphrase else None)
    )


GOOD = {
    "key first": private() + OWN_PEM,
    "certificate first": OWN_PEM + private(),
    "with others around, out of order": OTHER_PEM + private() + OWN_PEM + OTHER_PEM,
    "PKCS #1": private(PrivateFormat.TraditionalOpenSSL) + OWN_PEM,
    "with Windows line ends": (private() + OWN_PEM).replace(b"\n", b"\r\n"),
    "with words around": b"Bag Attributes\n  name: x\n" + private() + b"subject=CN = x\n" + OWN_PEM,
    "sealed": private(sealed=True) + OWN_PEM,
    "sealed in the old way": private(PrivateFormat.TraditionalOpenSSL, sealed=True) + OWN_PEM,
    "PFX": pkcs12.serialize_key_and_certificates(b"x", KEY, OWN, [OTHER], SEALED),
}


@pytest.mark.parametrize("kind", GOOD)
def test_every_form_is_opened(kind):
    pair = opened(GOOD[kind], PASSPHRASE)
    assert pair.private_key.reveal().encode() == private()
    assert pair.certificate.encode() == OWN_PEM
    assert pair.end == END
    assert "PRIVATE" not in repr(pair)


@pytest.mark.parametrize("passphrase", [b"", None])
def test_a_pfx_without_a_passphrase(passphrase):
    # An empty passphrase is what some tools write; the library itself writes none of those.
    assert opened(pkcs12.serialize_key_and_certificates(b"x", KEY, OWN, None, NoEncryption())).end == END


BAD = {
    "nothing": (b"", "neither PEM nor PFX"),
    "something else": (b"top secret: 4711", "neither PEM nor PFX"),
    "no key": (OWN_PEM, "no private key"),
    "no certificate": (private(), "no certificate that belongs"),
    "another's certificate": (private() + OTHER_PEM, "no certificate that belongs"),
    "two keys": (private() + private(key=OTHER_KEY) + OWN_PEM, "several private keys"),
    "no RSA": (private(key=OTHER_KEY) + OTHER_PEM, "no RSA key"),
    "a damaged key": (private().replace(b"\nMII", b"\nMIX") + OWN_PEM, "damaged"),
    "a damaged certificate": (private() + OWN_PEM.replace(b"\nMII", b"\nMIX"), "damaged"),
    "a PFX without a key": (pkcs12.serialize_key_and_certificates(b"x", None, OWN, None, NoEncryption()), "no private"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_used_is_said_with_the_reason_and_without_quoting_it(kind):
    content, why = BAD[kind]
    with pytest.raises(BadInput, match=f"the certificate in x cannot be used.*{why}") as caught:
        opened(content)
    assert "4711" not in caught.value.message
    assert "MII" not in caught.value.message


@pytest.mark.parametrize("kind", ["sealed", "sealed in the old way", "PFX"])
@pytest.mark.parametrize(("passphrase", "why"), [("", "passphrase"), ("wrong", "passphrase does not open it")])
def test_a_passphrase_that_is_missing_or_wrong(kind, passphrase, why):
    with pytest.raises(BadInput, match=why) as caught:
        opened(GOOD[kind], passphrase)
    assert "wrong" not in caught.value.message


@pytest.mark.parametrize(
    ("version", "named"),
    [("1.32.0", True), ("1.34.2b1", True), ("1.35.0", False), ("1.39.0", False), ("2.0", False), ("1.100.0", False)],
)
def test_an_older_msal_is_told_the_thumbprint(monkeypatch, version, named):
    given: list = []

    def client(client_id, client_credential, **more):
        given.append(client_credential)
        raise ValueError

    monkeypatch.setattr(entra.msal, "__version__", version)
    monkeypatch.setattr(entra.msal, "ConfidentialClientApplication", client)
    budget, log = Budget(), Log(lambda line: None)
    certificate = Certificate("the certificate in x", lambda: GOOD["PFX"], Secret(PASSPHRASE))
    identity = Identity(CLIENT_ID, "contoso.example", "x", certificate=certificate)
    with pytest.raises(Refused):
        entra.Entra(Http(budget, log), entra.CLOUDS["AzureCloud"], "contoso.example", budget, log).token(identity)
    thumbprint = {"thumbprint": OWN.fingerprint(hashes.SHA1()).hex()} if named else {}
    (credential,) = given
    assert credential == {"private_key": private().decode(), "public_certificate": OWN_PEM.decode(), **thumbprint}
