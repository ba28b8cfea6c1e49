# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people have called something is shown; a secret that was typed in its place is not."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._showing import HIDDEN, is_name, secrets_in, shown

OPTIONS: dict[str, dict[str, Any]] = {
    "folder": {"type": "str"},
    "command": {"type": "str"},
    "records": {
        "type": "list",
        "elements": "dict",
        "options": {"title": {"type": "str"}, "client_secret": {"type": "str", "no_log": True}},
    },
}
NAMES = ("folder", "title", "client_secret")
ENTRA = "abc8Q~VeryLongAndSecretClientSecretValue0"
KEY = "k3+0vYQxk2Wf7c1bJm8d0aUuR9sT4pLzXe6hGiNoQwE="


@pytest.mark.parametrize(
    "name", ["Azure applications (production)", "billing-api / secrets, 2026", ["one of the titles", "another title"]]
)
def test_words_are_a_name(name: Any) -> None:
    assert is_name(name)


@pytest.mark.parametrize("secret", [ENTRA, KEY, f"the folder {KEY}", ["a title", ENTRA], {"a": "mapping"}, 7])
def test_what_has_a_long_word_or_is_no_text_is_none(secret: Any) -> None:
    assert not is_name(secret)


def test_names_are_shown_and_secrets_in_their_place_are_not() -> None:
    given = {"folder": "Azure applications", "command": "what has no known form at all"}
    assert shown(given, OPTIONS, NAMES) == {"folder": "Azure applications", "command": HIDDEN}
    assert secrets_in(given, OPTIONS, NAMES) == {"what has no known form at all", "whathasnoknownformatall"}
    assert shown({"folder": ENTRA}, OPTIONS, NAMES) == {"folder": HIDDEN}
    assert ENTRA in secrets_in({"folder": ENTRA}, OPTIONS, NAMES)


def test_mappings_are_shown_by_their_own_options() -> None:
    record = {"title": "the billing of everything", "client_secret": "the first value", "tytle": ENTRA}
    expected = {"title": "the billing of everything", "client_secret": HIDDEN, "tytle": HIDDEN}
    assert shown({"records": [record]}, OPTIONS, NAMES) == {"records": [expected]}
    assert secrets_in({"records": [record]}, OPTIONS, NAMES) >= {"the first value", ENTRA}
    assert shown({"records": "no list"}, OPTIONS, NAMES) == {"records": "no list"}
