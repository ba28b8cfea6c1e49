# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Graph's applications: addresses, permissions, the life of a secret, refusals."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta, timezone
from typing import Any, Callable

import pytest
import requests

from sandbox import Sandbox
from sandbox.seed import Seeded

SELECT = "id,appId,displayName,signInAudience,passwordCredentials"
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z")


def addresses(app: Any) -> list[str]:
    return [f"/{app.object_id}", f"(appId='{app.client_id}')"]


def code(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_both_addresses_read_add_and_remove(seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["billing-api"]
    for address in addresses(app):
        assert graph.get(address).json()["id"] == app.object_id
        made = graph.add(address, displayName="mine").json()
        assert made["keyId"] in [one.key_id for one in app.live_secrets()]
        gone = graph.remove(address, made["keyId"])
        assert (gone.status_code, gone.content) == (204, b"")
        assert made["keyId"] not in [one.key_id for one in app.live_secrets()]


def test_select_gives_what_was_asked_for(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["billing-api"]
    body = graph.get(addresses(app)[1], **{"$select": SELECT}).json()
    assert set(body) == {*SELECT.split(","), "@odata.context"}
    assert body["signInAudience"] == "AzureADMyOrg"
    assert body["@odata.context"] == f"{sb.graph_url}/v1.0/$metadata#applications({SELECT})/$entity"
    assert graph.get(addresses(app)[0], **{"$select": "nonsense"}).status_code == 400


def test_a_read_shows_hint_and_no_text_newest_first(seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["orders-worker"]
    shown = graph.get(addresses(app)[0]).json()["passwordCredentials"]
    assert len(shown) == 4
    assert {one["secretText"] for one in shown} == {None}
    assert [one["hint"] for one in shown] == [one.text[:3] for one in reversed(app.credentials)]
    assert all(STAMP.fullmatch(one["endDateTime"]) and STAMP.fullmatch(one["startDateTime"]) for one in shown)


def test_the_directory_may_write_fewer_digits(seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["crm-sync"]
    start = datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=timezone.utc)
    for digits, pattern in ((0, r"\d\dZ"), (3, r"\d\d\.\d{3}Z")):
        app.credentials.clear()
        app.add_secret(start=start, fraction_digits=digits)
        end = graph.get(addresses(app)[0]).json()["passwordCredentials"][0]["endDateTime"]
        assert re.search(rf":{pattern}$", end)


def test_a_new_secret_is_what_was_wished_for(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["billing-api"]
    made = graph.add(addresses(app)[0], displayName="keeper/x", endDateTime="2099-01-02T03:04:05+01:00").json()
    assert made["endDateTime"] == "2099-01-02T02:04:05Z"
    assert made["displayName"] == "keeper/x"
    assert 16 <= len(made["secretText"]) <= 64
    assert made["hint"] == made["secretText"][:3]
    assert sb.directory.signs_in(app.client_id, made["secretText"])


def test_fractions_of_a_second_come_back_without_zeros_at_their_end(seeded: Seeded, graph: Any) -> None:
    address = addresses(seeded.applications["billing-api"])[0]
    for sent, back in (
        ("2099-01-02T03:04:05.0000000Z", "2099-01-02T03:04:05Z"),
        ("2099-01-02T03:04:05.1200000Z", "2099-01-02T03:04:05.12Z"),
        ("2099-01-02T03:04:05.1234567Z", "2099-01-02T03:04:05.1234567Z"),
    ):
        made = graph.add(address, endDateTime=sent).json()
        assert made["endDateTime"] == graph.get(address).json()["passwordCredentials"][0]["endDateTime"] == back
        assert STAMP.fullmatch(made["startDateTime"])


def test_without_an_end_a_secret_lasts_two_years(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["billing-api"]
    graph.add(addresses(app)[0])
    made = app.credentials[-1]
    assert made.end - made.start == timedelta(days=730)


def test_every_answer_names_the_request(seeded: Seeded, graph: Any) -> None:
    graph.session.headers["client-request-id"] = "11111111-2222-3333-4444-555555555555"
    for answer in (graph.get(addresses(seeded.admin)[0]), graph.get(addresses(seeded.applications["crm-sync"])[0])):
        assert answer.headers["client-request-id"] == "11111111-2222-3333-4444-555555555555"
        assert {"Date", "request-id"} <= set(answer.headers)
        if not answer.ok:
            inner = answer.json()["error"]["innerError"]
            assert inner["request-id"] == answer.headers["request-id"]


def test_wrong_ids(seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["billing-api"]
    assert code(graph.get("/not-a-guid")) == (400, "Request_BadRequest")
    assert code(graph.get("(appId='not-a-guid')")) == (400, "Request_BadRequest")
    assert code(graph.get(f"/{app.client_id}")) == (404, "Request_ResourceNotFound")
    assert code(graph.get(f"(appId='{app.object_id}')")) == (404, "Request_ResourceNotFound")


def test_repeated_slashes_count_as_one(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["billing-api"]
    for url in (f"{sb.graph_url}//v1.0/applications/{app.object_id}", f"{graph.root}//applications//{app.object_id}"):
        assert graph.session.get(url, timeout=20).json()["id"] == app.object_id


def test_owned_by_reads_everything_and_manages_what_it_owns(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    other = sb.directory.add_application("other")
    other.add_secret()
    address = addresses(other)[0]
    assert graph.get(address).ok
    assert len(graph.get("").json()["value"]) == 5
    for answer in (graph.add(address), graph.remove(address, other.object_id)):
        assert code(answer) == (403, "Authorization_RequestDenied")
    assert len(other.live_secrets()) == 1
    other.owners.append(seeded.admin.client_id)
    assert graph.add(address).ok


def test_older_tenants_let_owned_by_read_what_it_owns_alone(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    sb.directory.owned_by_reads_all = False
    denied = (403, "Authorization_RequestDenied")
    assert code(graph.get(addresses(sb.directory.add_application("other"))[0])) == denied
    assert code(graph.get("", **{"$filter": f"appId eq '{seeded.admin.client_id}'"})) == denied
    assert graph.get(addresses(seeded.applications["billing-api"])[0]).ok


def test_an_application_reads_itself_without_any_permission(sb: Sandbox, graph_as: Callable[[str, str], Any]) -> None:
    caller = sb.directory.add_application("caller")
    graph = graph_as(caller.client_id, caller.add_secret().text)
    for address in addresses(caller):
        assert graph.get(address).json()["displayName"] == "caller"
    denied = (403, "Authorization_RequestDenied")
    assert code(graph.add(addresses(caller)[0])) == denied
    assert code(graph.get("")) == denied


@pytest.mark.parametrize(
    ("roles", "reads", "writes"),
    [
        ([], False, False),
        (["Application.Read.All"], True, False),
        (["Application.ReadWrite.All"], True, True),
        (["Directory.ReadWrite.All"], True, True),
        (["Application.ReadWrite.OwnedBy"], True, False),
    ],
)
def test_permissions_of_a_caller_that_owns_nothing(
    sb: Sandbox, graph_as: Callable[[str, str], Any], roles: list[str], reads: bool, writes: bool
) -> None:
    caller, target = sb.directory.add_application("caller", roles=roles), sb.directory.add_application("target")
    graph = graph_as(caller.client_id, caller.add_secret().text)
    assert graph.get(addresses(target)[0]).ok is reads
    assert graph.add(addresses(target)[0]).ok is writes
    listing = graph.get("", **{"$filter": f"appId eq '{target.client_id}'"})
    assert listing.ok is reads
    if reads:
        assert [one["id"] for one in listing.json()["value"]] == [target.object_id]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("displayName eq 'crm-sync'", ["crm-sync"]),
        ("displayName eq 'it''s'", ["it's"]),
        ("startswith(displayName,'KEEPER')", ["keeper-rotator"]),
        ("startswith(displayName, '')", ["keeper-rotator", "billing-api", "orders-worker", "crm-sync", "it's"]),
        ("id eq '00000000-0000-0000-0000-000000000000'", []),
    ],
)
def test_lists_are_filtered(sb: Sandbox, seeded: Seeded, graph: Any, text: str, names: list[str]) -> None:
    sb.directory.add_application("it's")
    answer = graph.get("", **{"$filter": text, "$select": "displayName"})
    assert answer.json()["value"] == [{"displayName": name} for name in names]
    assert answer.json()["@odata.context"] == f"{sb.graph_url}/v1.0/$metadata#applications(displayName)"


@pytest.mark.parametrize(("top", "expected"), [(3, [3, 1]), (2, [2, 2])])
def test_lists_come_in_pages(seeded: Seeded, graph: Any, top: int, expected: list[int]) -> None:
    url, names, sizes = f"{graph.root}/applications?$top={top}&$select=displayName", [], []
    while url:
        body = graph.session.get(url, timeout=20).json()
        names += [one["displayName"] for one in body["value"]]
        sizes.append(len(body["value"]))
        url = body.get("@odata.nextLink")
    assert (len(set(names)), sizes) == (4, expected)
    assert "@odata.nextLink" not in graph.get("", **{"$top": "999"}).json()


@pytest.mark.parametrize(
    "query", [{"$filter": "appId ne 'x'"}, {"$top": "0"}, {"$top": "1000"}, {"$top": "x"}, {"$select": "nonsense"}]
)
def test_queries_that_cannot_be_answered(graph: Any, query: dict[str, str]) -> None:
    assert code(graph.get("", **query))[0] == 400


def test_roles_are_those_of_the_time_the_token_was_issued(seeded: Seeded, graph: Any) -> None:
    seeded.admin.roles.clear()
    assert graph.get(addresses(seeded.applications["billing-api"])[0]).ok


def test_bearer_tokens_that_do_not_do(sb: Sandbox, seeded: Seeded, sign_in: Callable[..., Any], graph: Any) -> None:
    url = f"{sb.graph_url}/v1.0/applications/{seeded.applications['billing-api'].object_id}"
    pair = seeded.admin.client_id, seeded.admin_secret.text
    sb.directory.token_lifetime = 0
    expired = sign_in(*pair).json()["access_token"]
    sb.directory.token_lifetime = 3599
    elsewhere = sign_in(*pair, scope="https://graph.microsoft.com/.default").json()["access_token"]
    for token, text in (
        (None, "empty"),
        ("eyJx", "validation failure"),
        (expired, "expired"),
        (elsewhere, "Invalid audience"),
    ):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = requests.get(url, headers=headers, timeout=20)
        assert code(answer) == (401, "InvalidAuthenticationToken")
        assert text in answer.json()["error"]["message"]


def test_an_unknown_key_id_is_a_bad_request_with_words_of_its_own(seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["billing-api"]
    answer = graph.remove(addresses(app)[0], app.object_id)
    assert answer.status_code == 400
    assert "No password credential found with keyId" in answer.json()["error"]["message"]
    assert graph.remove(addresses(app)[0], "nonsense").status_code == 400


@pytest.mark.parametrize(
    "credential", [{"endDateTime": "soon"}, {"endDateTime": "2001-01-01T00:00:00Z"}, {"secretText": "mine"}]
)
def test_wishes_that_cannot_be_met(seeded: Seeded, graph: Any, credential: dict[str, str]) -> None:
    app = seeded.applications["billing-api"]
    assert graph.add(addresses(app)[0], **credential).status_code == 400
    assert len(app.live_secrets()) == 1


@pytest.mark.parametrize("audience", ["AzureADandPersonalMicrosoftAccount", "PersonalMicrosoftAccount"])
def test_personal_audiences_have_room_for_two(sb: Sandbox, seeded: Seeded, graph: Any, audience: str) -> None:
    app = sb.directory.add_application("personal", audience, owners=[seeded.admin.client_id])
    answers = [graph.add(addresses(app)[0]) for _number in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 400]
    assert code(answers[2]) == (400, "TooManyAppPasswords")


def test_policies(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["billing-api"]
    sb.directory.policy_max_days = 90
    error = graph.add(addresses(app)[0]).json()["error"]
    assert error["code"] == "CredentialInvalidLifetimeAsPerAppPolicy"
    assert error["message"] == (
        f"Credential lifetime exceeds the max value allowed as per assigned policy '{sb.directory.policy_id}'."
    )
    assert error["details"][0]["target"] == "EndDate"
    near = (datetime.now(timezone.utc) + timedelta(days=89)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert graph.add(addresses(app)[0], endDateTime=near).ok
    sb.directory.policy_blocks_passwords = True
    assert code(graph.add(addresses(app)[0], endDateTime=near)) == (400, "CredentialTypeNotAllowedAsPerAppPolicy")


def test_a_new_secret_is_seen_and_removable_after_its_delay(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["billing-api"]
    address = addresses(app)[0]
    sb.directory.visible_after = 0.4
    key_id = graph.add(address).json()["keyId"]
    assert len(app.live_secrets()) == 2
    assert len(graph.get(address).json()["passwordCredentials"]) == 1
    assert "No password credential found" in graph.remove(address, key_id).json()["error"]["message"]
    time.sleep(0.45)
    assert len(graph.get(address).json()["passwordCredentials"]) == 2
    assert graph.remove(address, key_id).status_code == 204


def test_replicas_disagree_for_a_while(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    address = addresses(seeded.applications["billing-api"])[0]
    sb.directory.replicas, sb.directory.visible_after = 2, 1.5
    graph.add(address)
    time.sleep(0.8)
    counts = [len(graph.get(address).json()["passwordCredentials"]) for _number in range(4)]
    assert sorted(counts) == [1, 1, 2, 2]
    assert counts[0] != counts[1] != counts[2]
    time.sleep(0.8)
    assert {len(graph.get(address).json()["passwordCredentials"]) for _number in range(4)} == {2}


def test_what_is_not_there(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    address = addresses(seeded.applications["billing-api"])[0]
    assert graph.get(f"{address}/nonsense").status_code == 400
    assert graph.session.get(f"{sb.graph_url}/v1.0/users", timeout=20).status_code == 404
    bare = graph.session.post(f"{graph.root}/applications{address}/addPassword", data=b"{}", timeout=20)
    assert bare.status_code == 400


def test_writes_are_counted_where_that_is_wanted(
    sb: Sandbox, seeded: Seeded, graph: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.graph.WRITES", {False: (3, 150.0), True: (1, 60.0)})
    app = seeded.applications["billing-api"]
    assert [graph.add("/" + app.object_id).status_code for _number in range(4)] == [200] * 4
    sb.directory.throttle = True
    assert graph.add("/" + app.object_id).status_code == 200
    app.audience = "AzureADandPersonalMicrosoftAccount"
    for credential in list(app.live_secrets())[1:]:
        app.credentials.remove(credential)
    assert graph.add("/" + app.object_id).status_code == 200
    refused = graph.add("/" + app.object_id)
    assert code(refused) == (429, "TooManyRequests")
    assert 59 < float(refused.headers["Retry-After"]) <= 60
    assert graph.get("/" + app.object_id).status_code == 200
