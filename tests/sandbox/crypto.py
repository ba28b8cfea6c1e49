# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeper's cryptography, written from the protocol and not taken from the SDK, so that each checks the other.

AES-256-GCM as nonce(12) || ciphertext || tag; ECIES on P-256 as public point(65) || GCM, with the key
SHA-256(ECDH x-coordinate); AES-256-CBC with PKCS7 as iv(16) || ciphertext for folder data.
"""

from __future__ import annotations

import base64
import hashlib
import os

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

POINT_LENGTH = 65

PrivateKey = ec.EllipticCurvePrivateKey


class Undecipherable(Exception):
    """The bytes were not made with this key."""


def b64(data: bytes) -> str:
    """Standard base64 with padding: what the SDK reads in every place."""
    return base64.b64encode(data).decode()


def url_b64(data: bytes) -> str:
    """URL-safe base64 without padding, as Keeper writes uids, public keys and tokens."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64(text: str) -> bytes:
    """Either alphabet of base64, padded or not."""
    bare = text.rstrip("=").replace("+", "-").replace("/", "_")
    return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))


def new_key() -> bytes:
    """A random AES-256 key."""
    return os.urandom(32)


def new_uid() -> str:
    """A Keeper UID: 16 bytes, URL-safe base64; never with a leading dash, as Keeper's clients make them."""
    return url_b64(bytes([os.urandom(1)[0] & 0x7F]) + os.urandom(15))


def seal(data: bytes, key: bytes) -> bytes:
    """Encrypt with AES-256-GCM."""
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, data, None)


def unseal(data: bytes, key: bytes) -> bytes:
    """Undo `seal`."""
    try:
        return AESGCM(key).decrypt(data[:12], data[12:], None)
    except (InvalidTag, ValueError) as error:
        raise Undecipherable("wrong key or damaged data") from error


def seal_cbc(data: bytes, key: bytes) -> bytes:
    """Encrypt with AES-256-CBC and PKCS7, as folder names and keys of subfolders are."""
    iv, pad = os.urandom(16), padding.PKCS7(128).padder()
    encryptor = Cipher(AES(key), CBC(iv)).encryptor()
    return iv + encryptor.update(pad.update(data) + pad.finalize()) + encryptor.finalize()


def unseal_cbc(data: bytes, key: bytes) -> bytes:
    """Undo `seal_cbc`."""
    try:
        decryptor, unpad = Cipher(AES(key), CBC(data[:16])).decryptor(), padding.PKCS7(128).unpadder()
        return unpad.update(decryptor.update(data[16:]) + decryptor.finalize()) + unpad.finalize()
    except ValueError as error:
        raise Undecipherable("wrong key or damaged data") from error


def new_pair() -> PrivateKey:
    """A P-256 key pair."""
    return ec.generate_private_key(ec.SECP256R1())


def point(key: PrivateKey) -> bytes:
    """The public key as an uncompressed point, 65 bytes."""
    return key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def private_der(key: PrivateKey) -> bytes:
    """The private key as PKCS8 DER."""
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def unseal_for(data: bytes, key: PrivateKey) -> bytes:
    """Undo ECIES with the private key of the receiver."""
    try:
        sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data[:POINT_LENGTH])
    except ValueError as error:
        raise Undecipherable("not a public point") from error
    return unseal(data[POINT_LENGTH:], hashlib.sha256(key.exchange(ec.ECDH(), sender)).digest())


def signed_by(public_point: bytes, signature: bytes, data: bytes) -> bool:
    """Whether ECDSA-P256-SHA256 (DER) verifies."""
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_point)
        public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True
