# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds secrets in what was said, also a part of one: whoever has half of a key needs not guess for long."""

from __future__ import annotations

import base64
import functools
import html
import json
from collections.abc import Iterable
from urllib.parse import quote

#: As many characters of a secret in a row are a leak.
PIECE = 16


@functools.lru_cache(maxsize=4096)
def _forms(secret: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the pieces of a secret, in all forms in which it may get out, and the forms that are shorter than one."""
    data = secret.encode()
    # Where base64 begins within a text to be encoded decides how it looks: there are three ways.
    shifted = {base64.b64encode(b"\0" * shift + data).decode()[4 if shift else 0 :].rstrip("=") for shift in range(3)}
    urlsafe = {text.translate(str.maketrans("+/", "-_")) for text in shifted}
    forms = {secret, quote(secret, safe=""), html.escape(secret), json.dumps(secret)[1:-1], *shifted, *urlsafe}
    return frozenset().union(*map(_windows, forms)), frozenset(form for form in forms if len(form) < PIECE)


def _windows(text: str) -> set[str]:
    return {text[start : start + PIECE] for start in range(len(text) - PIECE + 1)}


def pieces_in(text: str, secrets: Iterable[str]) -> list[str]:
    """Return the secrets of which ``text`` holds a piece in some form, by their first characters.

    A secret that is shorter than a piece counts as a whole.
    """
    windows, found = _windows(text), []
    for secret in secrets:
        pieces, short = _forms(secret)
        if not pieces.isdisjoint(windows) or any(form in text for form in short):
            found.append(secret[:6] + "...")
    return found
