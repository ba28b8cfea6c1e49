# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Certificates that are attached to Keeper records: downloaded and decrypted into memory, never written."""

from __future__ import annotations

import base64
import contextlib
import functools
from typing import Any

from ..base.errors import Refused
from .credentials import Certificate
from .http import Http, Unanswered, busy
from .vault import VaultRecord

with contextlib.suppress(ImportError):  # vault.KSM_PROBLEM tells
    from keeper_secrets_manager_core.crypto import CryptoUtils

_ENDINGS = (".pem", ".pfx", ".p12")
_LARGEST_ATTACHMENT = 65536


def certificates_of(record: VaultRecord, http: Http) -> list[Certificate]:
    """Return the files of the record that are certificates by their names. None is downloaded yet."""
    found = []
    for file in record.sdk.files or []:
        name = str(file.name or "")
        if name.lower().endswith(_ENDINGS) and int(file.size or 0) <= _LARGEST_ATTACHMENT:
            words = f"the certificate in the file {name} of the record {record.title!r} ({record.uid})"
            found.append(Certificate(words, functools.partial(_download, file, words, http)))
    return found


def _download(file: Any, words: str, http: Http) -> bytes:
    """Return the content of an attachment. Raises Refused. The SDK's own call has no timeouts."""
    try:
        reply = http.call("GET", str(file.f.get("url")), name="download", retry=busy)
    except Unanswered as problem:
        raise Refused(f"{words} was not downloaded", str(problem), problem.todo) from None
    try:
        wrapped = base64.b64decode(file.f["fileKey"].translate(str.maketrans("-_", "+/")) + "==")
        key = CryptoUtils.decrypt_aes(wrapped, file.record_key_bytes)
        content: bytes = CryptoUtils.decrypt_aes(reply.body, key)
    except Exception as problem:  # an error page, or half a file
        why = f"HTTP {reply.status}, and what came is not the file ({type(problem).__name__})"
        todo = "run it again later; attach the file anew if it stays"
        raise Refused(f"{words} was not downloaded", why, todo) from None
    return content
