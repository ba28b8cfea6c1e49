# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeper's protocol buffers, and the few parts of its cryptography that Secrets Manager does not use."""

from __future__ import annotations

import base64
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from sandbox.crypto import PrivateKey, Undecipherable, unb64, url_b64


class Messages:
    """The generated modules of Commander's own package, of the very version that is tested.

    They are imported from Commander's environment, which has the same Python as this process; nothing else of it is.
    """

    def __init__(self, site_packages: Path) -> None:
        # Last on the path: it only gives what this environment lacks, which is protobuf and the messages.
        if str(site_packages) not in sys.path:
            sys.path.append(str(site_packages))
        self.api = self._load("APIRequest_pb2")
        self.summary = self._load("AccountSummary_pb2")
        self.breachwatch = self._load("breachwatch_pb2")
        self.enterprise = self._load("enterprise_pb2")
        self.folder = self._load("folder_pb2")
        self.graph = self._load("GraphSync_pb2")
        self.pam = self._load("pam_pb2")
        self.record = self._load("record_pb2")
        self.router = self._load("router_pb2")
        self.sync = self._load("SyncDown_pb2")

    @staticmethod
    def _load(name: str) -> ModuleType:
        return importlib.import_module(f"keepercommander.proto.{name}")


def parsed(kind: Any, data: bytes) -> Any:
    """A message of this kind from its bytes."""
    message = kind()
    message.ParseFromString(data)
    return message


def to_bytes(uid: str) -> bytes:
    """The 16 bytes of a uid as people see it."""
    return unb64(uid)


def to_uid(data: bytes) -> str:
    """A uid as people see it."""
    return url_b64(data)


def url_unb64(text: str) -> bytes:
    """The bytes of a value in a command of the old API."""
    return base64.urlsafe_b64decode(text + "==")


def unseal_cbc(data: bytes, key: bytes) -> bytes:
    """Undo AES-256-CBC with PKCS7, as keys and names of folders are encrypted."""
    decryptor = Cipher(AES(key), CBC(data[:16])).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    try:
        return unpadder.update(decryptor.update(data[16:]) + decryptor.finalize()) + unpadder.finalize()
    except ValueError as error:
        raise Undecipherable("wrong key or damaged data") from error


def raw_private(key: PrivateKey) -> bytes:
    """The private value alone, 32 bytes, as Commander keeps it."""
    return key.private_numbers().private_value.to_bytes(32, "big")


def rsa_private_der(key: Any) -> bytes:
    """An RSA key in PKCS1, as an account's old key pair is kept."""
    der: bytes = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return der
