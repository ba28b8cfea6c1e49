# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Base64 as people and programs write it, and what they give in its place."""

from __future__ import annotations

import base64
import binascii
import codecs
import json

_QUOTES = ("'", '"', "\u2018", "\u2019", "\u201c", "\u201d")
_BEGINNINGS = (b"{", b"[")
# Reasons, each with the next step.
IS_JSON = "it is JSON itself", "pass base64 of it"
CUT_OFF = "it is cut off or damaged", "give the whole of it"


def decode(data: bytes) -> bytes:
    """Return what the base64 holds, of either alphabet, padded or not. Raises ValueError."""
    compact = data.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)


def is_utf_16(data: bytes) -> bool:
    """Whether it is text in UTF-16, as Windows writes it: every second byte of such a text is mostly zero."""
    return data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 3 * data.count(0) > len(data) > 0


def mistake(data: bytes) -> tuple[str, str]:
    """Return what was given where JSON or base64 of JSON should be, and the next step; empty texts for no idea."""
    text = data.strip()
    if is_utf_16(data):
        return "it is UTF-16 text", "write it as UTF-8, in PowerShell with -Encoding utf8"
    if text.decode("utf-8", "replace").startswith(_QUOTES):
        return "there are quotes around it", "give it without the quotes"
    if text.startswith(_BEGINNINGS):
        return IS_JSON if _is_json(text) else CUT_OFF
    try:
        inner = decode(b"".join(text.split())).strip()
    except (ValueError, binascii.Error):
        return "", ""
    if is_utf_16(inner):
        return "it is base64 of UTF-16 text", "encode UTF-8 text"
    if inner.startswith(_BEGINNINGS):
        return CUT_OFF
    try:
        twice = _is_json(decode(b"".join(inner.split())))
    except (ValueError, binascii.Error):
        return "", ""
    return ("it is base64 twice", "decode it once, as with base64 -d") if twice else ("", "")


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
