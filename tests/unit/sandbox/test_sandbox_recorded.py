# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's answers against the recorded forms of the real ones: names, nulls, orders, formats and headers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable

import pytest
import requests
import yaml
from keeper_secrets_manager_core.exceptions import KeeperError

from sandbox import Sandbox
from sandbox.crypto import unb64, unseal
from sandbox.directory import Application
from sandbox.seed import Seeded

RECORDED: Any = yaml.safe_load((Path(__file__).resolve().parent / "data" / "recorded.yml").read_text(encoding="utf-8"))
GRAPH, ENTRA, KSM = RECORDED["graph"], RECORDED["entra"], RECORDED["ksm"]
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,6}[1-9])?Z")
NOT_RECORDED = "appData"  # the recording is of an older server
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def form(value: Any) -> Any:
    """What a value is, without which one it is: names in their order, nulls, types, formats of times and ids."""
    if isinstance(value, dict):
        return [(name, form(one)) for name, one in value.items()]
    if isinstance(value, list):
        return [form(one) for one in value]
    if isinstance(value, str):
        return "moment" if STAMP.fullmatch(value) else "guid" if GUID.fullmatch(value) else "text"
    return value if value is None or isinstance(value, bool) else type(value).__name__


def assert_headers(answer: requests.Response, expected: list[str]) -> None:
    for line in expected:
        name, _colon, value = line.partition(": ")
        assert name in answer.headers
        assert value in ("", answer.headers[name])


@pytest.fixture
def personal(sb: Sandbox, seeded: Seeded) -> Application:
    audience = GRAPH["application"]["signInAudience"]
    return sb.directory.add_application("billing-api", audience, owners=[seeded.admin.client_id])


def test_a_read_gives_the_recorded_properties_in_their_order(personal: Application, graph: Any) -> None:
    personal.add_secret("first")
    graph.add(f"/{personal.object_id}", displayName="newest first", endDateTime="2090-05-07T06:52:43Z")
    answer = graph.get(f"/{personal.object_id}")
    body, recorded = answer.json(), GRAPH["application"]
    assert answer.headers["Content-Type"] == GRAPH["content_type"]["success"]
    assert list(body) == list(recorded)
    own = {"@odata.context", "createdDateTime", "publisherDomain", "id", "appId", "passwordCredentials"}
    assert {name: one for name, one in body.items() if name not in own} == {
        name: one for name, one in recorded.items() if name not in own
    }
    assert [one["displayName"] for one in body["passwordCredentials"]] == ["newest first", "first"]
    assert form(body["passwordCredentials"][0]) == form(recorded["passwordCredentials"][0])
    assert body["passwordCredentials"][0]["endDateTime"] == "2090-05-07T06:52:43Z"
    assert re.fullmatch(r".*\.\d{6}[1-9]Z", body["passwordCredentials"][1]["endDateTime"])


def test_a_secret_is_made_as_recorded(sb: Sandbox, personal: Application, graph: Any) -> None:
    recorded = GRAPH["added"]
    answer = graph.add(f"/{personal.object_id}", displayName="x", endDateTime="2090-05-07T06:52:43Z")
    assert (answer.status_code, answer.headers["location"]) == (200, sb.graph_url)
    assert answer.headers["Content-Type"] == GRAPH["content_type"]["success"]
    assert form(answer.json()) == form(recorded["body"])


def test_a_removal_has_no_body_and_does_not_say_so(personal: Application, graph: Any) -> None:
    answer = graph.remove(f"/{personal.object_id}", personal.add_secret().key_id)
    assert answer.status_code == 204
    for absent in [*GRAPH["removed"]["absent_headers"], "Transfer-Encoding", "odata-version", "Vary"]:
        assert absent not in answer.headers


def test_refusals_are_worded_as_recorded(sb: Sandbox, seeded: Seeded, personal: Application, graph: Any) -> None:
    address = f"/{personal.object_id}"
    for _number in range(2):
        graph.add(address)
    other = sb.directory.add_application("other")
    for answer, status, recorded in (
        (graph.add(address), 400, GRAPH["two_secrets"]),
        (graph.add(f"/{other.object_id}"), 403, GRAPH["forbidden"]),
    ):
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, GRAPH["content_type"]["error"])
        error, expected = answer.json()["error"], recorded["error"]
        assert list(error) == list(expected)
        assert (error["code"], error["message"]) == (expected["code"], expected["message"])
        assert list(error["innerError"]) == list(expected["innerError"])


def test_every_answer_of_graph_has_the_recorded_headers(sb: Sandbox, personal: Application, graph: Any) -> None:
    address = f"/{personal.object_id}"
    with_body = [graph.get(address), graph.get(""), graph.add(address), graph.get("/nonsense")]
    for answer in [*with_body, graph.remove(address, personal.credentials[0].key_id)]:
        assert_headers(answer, GRAPH["headers"])
    for answer in with_body:
        assert_headers(answer, GRAPH["headers_unless_204"])
        assert answer.headers["Content-Encoding"] == "gzip"
        assert "Content-Length" not in answer.headers


def test_a_client_that_takes_no_gzip_gets_none(personal: Application, graph: Any) -> None:
    graph.session.headers["Accept-Encoding"] = "identity"
    answer = graph.get(f"/{personal.object_id}")
    assert "Content-Encoding" not in answer.headers
    assert answer.json()["id"] == personal.object_id


def test_a_list_costs_two_units_and_a_selection_one_less(personal: Application, graph: Any) -> None:
    costs = [
        graph.get(address, **query).headers["x-ms-resource-unit"]
        for address in ("", f"/{personal.object_id}")
        for query in ({}, {"$select": "id"})
    ]
    assert costs == ["2", "1", "1", "1"]


def decrypted(ksm: Any) -> Any:
    """What get_secret answered, before the SDK reads it."""
    manager = ksm()
    return json.loads(manager._post_query("get_secret", manager.prepare_get_payload(manager.config, None)))


def names(value: Any) -> Any:
    """The names in a tree of objects, in their order."""
    if isinstance(value, dict):
        return [(name, names(one)) for name, one in value.items() if name != NOT_RECORDED]
    return [names(value[0])] if isinstance(value, list) and value else None


def test_records_come_as_recorded(sb: Sandbox, ksm: Any) -> None:
    sub = sb.vault.add_folder("Team", parent=sb.vault.folder_uid)
    record = sb.vault.pam_user("below", folder=sub)
    sb.vault.attach_script(record, b"print()")
    answer = decrypted(ksm)
    assert names(answer) == names(KSM["get_secret"])
    (folder,) = answer["folders"]
    assert {name: folder[name] for name in ("isEditable", "data")} == {"isEditable": True, "data": None}
    assert {name: answer[name] for name in ("encryptedAppKey", "records", "expiresOn", "warnings")} == {
        name: KSM["get_secret"][name] for name in ("encryptedAppKey", "records", "expiresOn", "warnings")
    }
    (shown,) = folder["records"]
    assert (shown["innerFolderUid"], shown["folderUid"], shown["extra"]) == (sub, None, None)
    key = unseal(unb64(shown["recordKey"]), sb.vault.folders[sb.vault.folder_uid].key)
    text = unseal(unb64(shown["data"]), key)
    assert (len(text) % 16, text[-1:], json.loads(text)) == (0, b" ", record.data)


def test_a_bad_signature_is_refused_as_recorded(sb: Sandbox, ksm: Any) -> None:
    manager, answers = ksm(), []
    post = manager.post_function

    def forged(url: str, key: Any, payload: Any, *rest: Any) -> Any:
        payload.signature = payload.signature[:-1] + bytes([payload.signature[-1] ^ 1])
        answers.append(post(url, key, payload, *rest))
        return answers[-1]

    manager.post_function = forged
    with pytest.raises(KeeperError, match="Signature is invalid"):
        manager.get_secrets()
    body, recorded = json.loads(answers[0].data), KSM["bad_signature"]
    assert (answers[0].status_code, list(body)) == (403, list(recorded))
    assert (body["error"], body["message"]) == (recorded["error"], recorded["message"])


def test_tokens_are_answered_as_recorded(seeded: Seeded, sign_in: Callable[..., requests.Response]) -> None:
    answer = sign_in(seeded.admin.client_id, seeded.admin_secret.text)
    assert list(answer.json()) == ENTRA["body_keys"]
    assert_headers(answer, ENTRA["headers"])
    assert list(answer.cookies.keys()) == ENTRA["cookies"]
    refused = sign_in(seeded.admin.client_id, "wrong")
    assert list(refused.json()) == ENTRA["error_body_keys"]
