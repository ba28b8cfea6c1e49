# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people give in place of a Keeper configuration: each is told by name, with the step that puts it right."""

from __future__ import annotations

import base64
import codecs
import json

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import scrub
from ansible_collections.keeperpam.azure.plugins.module_utils._core.script.gateway import find_configuration
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.configuration import read_configuration
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.vault import parse_configuration

SECRET = "cHJpdmF0ZS1rZXktb2YtYS10ZXN0LTcx"
CONFIG = json.dumps({"hostname": "keepersecurity.eu", "clientId": "Y2w=", "privateKey": SECRET, "appKey": "YXBw"})
CODED = base64.b64encode(CONFIG.encode()).decode()
TWICE = base64.b64encode(CODED.encode()).decode()
UTF_16 = base64.b64encode(CONFIG.encode("utf-16-le")).decode()
TOKEN = "US:" + "kR28Qbr2xVt9LwZmC4pYh8sNfD3gJ5aTq7Wzxyz0123"
INI = f"[_default]\nclientid = Y2w=\nprivatekey = {SECRET}\n\n[_config]\nactive_profile = _default\n"
YAML = f"apiVersion: v1\ndata:\n  config: {CODED}\nkind: Secret\nmetadata:\n  name: ksm-config\ntype: Opaque\n"

#: What was given; the reason; the next step.
MISTAKES = {
    "double quotes around JSON": (f'"{CONFIG}"', "quotes", "without the quotes"),
    "single quotes around base64": (f"'{CODED}'", "quotes", "without the quotes"),
    "typographic quotes": (f"\u201c{CODED}\u201d", "quotes", "without the quotes"),
    "JSON text within JSON": (json.dumps(CONFIG), "quotes", "without the quotes"),
    "keeper.ini": (INI, "keeper.ini", "ksm profile export"),
    "keeper.ini as base64": (base64.b64encode(INI.encode()).decode(), "keeper.ini", "ksm profile export"),
    "Kubernetes": (YAML, "Kubernetes", "under data"),
    "Kubernetes with a document's beginning": ("---\n" + YAML, "Kubernetes", "under data"),
    "base64 twice": (TWICE, "base64 twice", "base64 -d"),
    "base64 twice, wrapped": ("\n".join(TWICE[at : at + 76] for at in range(0, len(TWICE), 76)), "twice", "base64 -d"),
    "base64 of UTF-16": (UTF_16, "UTF-16", "UTF-8"),
    "base64 of UTF-16 with a mark": (
        base64.b64encode(codecs.BOM_UTF16_LE + CONFIG.encode("utf-16-le")).decode(),
        "UTF-16",
        "UTF-8",
    ),
    "a token": (TOKEN, "one-time token", "initialised"),
    "a token as base64": (base64.b64encode(TOKEN.encode()).decode(), "one-time token", "initialised"),
    "a path": ("/etc/keeper-gateway/gateway-config.json", "path", "the variable or option for a path"),
    "a path from home": ("~/.keeper/gateway-config.json", "path", "the variable or option for a path"),
    "JSON that is cut off": (CONFIG[:40], "cut off", "whole"),
    "base64 that is cut off": (CODED[:60], "cut off", "whole"),
    "anything else": ("a configuration", "neither JSON nor base64 of JSON", "initialised"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_what_is_given_in_its_place_is_told_by_name(case):
    text, why, todo = MISTAKES[case]
    with pytest.raises(BadInput) as caught:
        parse_configuration(text + "\n", "the variable X")
    problem = caught.value
    assert "the variable X" in problem.what
    assert why in problem.what + problem.why
    assert todo in problem.todo
    assert SECRET[:12] not in problem.message
    assert TOKEN[3:12] not in problem.message


#: The file's bytes; the reason; the next step.
FILES = {
    "UTF-16 of Windows": (codecs.BOM_UTF16_LE + CONFIG.encode("utf-16-le"), "UTF-16", "UTF-8"),
    "UTF-16, the other way": (codecs.BOM_UTF16_BE + CONFIG.encode("utf-16-be"), "UTF-16", "UTF-8"),
    "UTF-16 without a mark": (CODED.encode("utf-16-le"), "UTF-16", "UTF-8"),
    "binary": (bytes(range(254, 0, -1)), "no text", "export"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_utf_8_is_told_as_such(tmp_path, case):
    content, why, todo = FILES[case]
    path = tmp_path / "config.json"
    path.write_bytes(content)
    for read in (read_configuration, lambda path: find_configuration({"GATEWAY_CONFIG_PATH": path})):
        with pytest.raises(BadInput, match=r"config\.json") as caught:
            read(str(path))
        assert why in caught.value.why
        assert todo in caught.value.todo


@pytest.mark.parametrize(
    ("shape", "why", "todo"),
    [
        ("{folder}", "folder", "a file in it"),
        ("{folder}/", "folder", "a file in it"),
        ("{folder}/missing.json", "No such file", "correct the path"),
        ('"{folder}/config.json"', "quotes", "without the quotes"),
        ("'{folder}/config.json'", "quotes", "without the quotes"),
        ("{folder}/config.json/x", "Not a directory", "correct the path"),
        ("{folder}/a\0b", "null byte", "correct the path"),
    ],
)
def test_a_path_that_is_none_of_a_file_is_told_as_such(tmp_path, shape, why, todo):
    (tmp_path / "config.json").write_text(CONFIG)
    with pytest.raises(BadInput, match="cannot be read") as caught:
        read_configuration(shape.format(folder=tmp_path))
    assert why in caught.value.why
    assert todo in caught.value.todo
    assert caught.value.message.isprintable()


def test_a_file_is_read_from_home_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.json").write_text("\ufeff" + CONFIG, encoding="utf-8")
    assert read_configuration("~/config.json") == CONFIG


@pytest.mark.parametrize("text", [CONFIG, CODED, json.dumps(json.loads(CONFIG), indent=2)])
def test_a_configuration_in_place_of_its_path_is_not_said(text):
    with pytest.raises(BadInput) as caught:
        read_configuration(text)
    assert "path" in caught.value.what
    assert "itself" in caught.value.why
    assert "for its text" in caught.value.todo
    for part in (SECRET[:12], CODED[40:52]):
        assert part not in caught.value.message
    assert SECRET not in scrub(f"anything else that says {text}")
