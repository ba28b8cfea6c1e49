# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Certificates to sign in with, opened in memory: PEM and PFX (PKCS #12), with or without a passphrase."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..base.errors import BadInput
from ..base.redact import Secret
from .credentials import Certificate

_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True)
class KeyPair:
    """A private key and its certificate, both PEM, with the certificate's SHA-1 thumbprint (hex) and its end."""

    private_key: Secret
    certificate: str
    thumbprint: str
    end: datetime


class _Unusable(Exception):
    """The text says why, and quotes nothing."""


def open_certificate(source: Certificate) -> KeyPair:
    """Return the RSA key of a file, and the certificate that belongs to it. Raises BadInput, and what reading does."""
    content = source.read()
    # It comes with msal. Most runs need none of it, and it takes long to load.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA1

    passphrase = source.passphrase.reveal().encode() if source.passphrase else None
    try:
        key, certificates = (_pem if b"-----BEGIN" in content else _pfx)(content, passphrase)
        if not isinstance(key, RSAPrivateKey):
            raise _Unusable("its key is no RSA key, and Entra takes no other")
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        wanted = key.public_key().public_bytes(*form)
        own = next((each for each in certificates if each.public_key().public_bytes(*form) == wanted), None)
        if own is None:
            raise _Unusable("it holds no certificate that belongs to its private key")
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        thumbprint = own.fingerprint(SHA1()).hex()  # noqa: S303 - RFC 7515 names a certificate by it, as "x5t"
        end: datetime = own.not_valid_after_utc
        return KeyPair(Secret(private.decode()), own.public_bytes(serialization.Encoding.PEM).decode(), thumbprint, end)
    except _Unusable as problem:
        why = str(problem)
    except Exception as problem:  # whatever is in the file; the texts of these errors may quote it
        why = f"it is damaged, or of a kind that this host's cryptography cannot open ({type(problem).__name__})"
    todo = "give a PEM or PFX file with the private key and its certificate, and its passphrase where it has one"
    raise BadInput(f"{source.name} cannot be used", why, todo)


def _pem(content: bytes, passphrase: bytes | None) -> tuple[Any, list[Any]]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    blocks = [(match[1], match[0]) for match in _PEM_BLOCK.finditer(content)]
    keys = [block for kind, block in blocks if kind.endswith(b"PRIVATE KEY")]
    if len(keys) != 1:
        raise _Unusable("it holds no private key" if not keys else "it holds several private keys")
    sealed = b"ENCRYPTED" in keys[0]
    if sealed and passphrase is None:
        raise _Unusable("its private key needs a passphrase")
    try:
        key = load_pem_private_key(keys[0] + b"\n", passphrase if sealed else None)
    except ValueError:
        raise _Unusable("the passphrase does not open it" if sealed else "its private key is damaged") from None
    return key, [x509.load_pem_x509_certificate(block) for kind, block in blocks if kind == b"CERTIFICATE"]


def _pfx(content: bytes, passphrase: bytes | None) -> tuple[Any, list[Any]]:
    from cryptography.hazmat.primitives.serialization import pkcs12

    # With no passphrase some tools write an empty one.
    for each in (passphrase,) if passphrase is not None else (None, b""):
        try:
            key, own, others = pkcs12.load_key_and_certificates(content, each)
        except ValueError:
            continue
        if key is None:
            raise _Unusable("it holds no private key")
        return key, [certificate for certificate in (own, *others) if certificate is not None]
    why = "the passphrase does not open it" if passphrase is not None else "it needs a passphrase"
    raise _Unusable(f"{why}, or it is neither PEM nor PFX")
