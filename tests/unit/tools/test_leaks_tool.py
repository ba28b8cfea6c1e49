# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The search for leaks finds pieces of secrets, in every form in which they get out."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest

from leaks import PIECE, pieces_in

SECRET = "Zq8~[6g]@+:. &=%/\\\"'s3-and-more-of-it"
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "in JSON": lambda text: json.dumps({"a": text}),
    "in an address": lambda text: f"https://example/?s={quote(text, safe='')}&x",
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "in the base64 of more": lambda text: base64.b64encode(f"user:{text}, and more".encode()).decode(),
    "in the base64 of yet more": lambda text: base64.b64encode(f"users:{text}, and more".encode()).decode(),
    "in base64 for addresses": lambda text: base64.urlsafe_b64encode(f"x{text}".encode()).decode(),
    "in part": lambda text: text[5 : 5 + PIECE],
}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_piece_is_found(form: str) -> None:
    assert pieces_in(f"it said {FORMS[form](SECRET)} and ended", [SECRET, "another-secret-value"]) == ["Zq8~[6..."]


def test_less_than_a_piece_is_none() -> None:
    assert pieces_in(f"it said {SECRET[: PIECE - 1]} and ended", [SECRET]) == []


def test_a_short_secret_counts_as_a_whole() -> None:
    assert pieces_in("it said s3cret! and ended", ["s3cret!"]) == ["s3cret..."]
    assert pieces_in("it said s3cret and ended", ["s3cret!"]) == []
