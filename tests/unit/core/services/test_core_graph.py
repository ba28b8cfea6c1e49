# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How Graph's answers are read, and what they prove."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput, Refused
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log, Secret
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services import graph
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.graph import Graph, NotDone
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.http import Reply, Unanswered
from core_samples import CLIENT_ID, OBJECT_ID, application, key, reply

KEY = "f0b0b335-1d71-4883-8f98-567911bfdca6"
WHOLE = "2026-09-09T19:50:29"
MOMENT = datetime(2026, 9, 9, 19, 50, 29, tzinfo=timezone.utc)


def test_the_time_of_a_read_is_the_servers():
    assert graph.server_time(reply(Date="Wed, 09 Sep 2026 19:50:29 GMT")) == MOMENT


@pytest.mark.parametrize("date", ["", "soon", "Wed, 99 Sep 2026 19:50:29 GMT"])
def test_without_a_readable_date_it_is_this_hosts(date):
    before = datetime.now(timezone.utc)
    assert before <= graph.server_time(reply(Date=date)) <= datetime.now(timezone.utc)


def test_a_date_at_the_end_of_the_calendar_is_unreadable():
    assert graph.server_time(reply(Date="Fri, 31 Dec 9999 23:59:59 -2300")).year < 9999


class Answers:
    """In place of Http: these answers, one after the other; the repetitions are Http's own."""

    def __init__(self, *answers: Reply | Unanswered) -> None:
        self._answers = list(answers)
        self.budget = Budget()
        self.calls: list[tuple[str, str]] = []
        self.more: list[dict[str, Any]] = []

    def call(self, method: str, url: str, **more: Any) -> Reply:
        """Answer."""
        self.calls.append((method, url.removeprefix("https://graph.example/v1.0/applications")))
        self.more.append(more)
        answer = self._answers.pop(0)
        if isinstance(answer, Unanswered):
            raise answer
        return answer


def graph_of(*answers: Reply | Unanswered) -> tuple[Graph, Answers]:
    http = Answers(*answers)
    log = Log(lambda line: None)
    return Graph(http, "https://graph.example", "ADMIN-ID", lambda: Secret("a-token"), log), http  # type: ignore[arg-type]


def body(*credentials: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": OBJECT_ID,
        "appId": CLIENT_ID,
        "displayName": "billing-api",
        **more,
        "passwordCredentials": credentials,
    }


def error(status: int, code: str, message: str = "a message", **headers: str) -> Reply:
    return reply(status, {"error": {"code": code, "message": message}}, **headers)


def refusal(status: int, code: str, message: str = "a message", **headers: str) -> NotDone:
    return graph_of()[0].problem(error(status, code, message, **headers))


@pytest.mark.parametrize(
    ("status", "code", "certain", "busy"),
    [
        (400, "Request_BadRequest", True, False),
        (400, "CredentialInvalidLifetimeAsPerAppPolicy", True, False),
        (401, "InvalidAuthenticationToken", True, False),
        (403, "Authorization_RequestDenied", True, False),
        (404, "Request_ResourceNotFound", True, False),
        (408, "", False, False),
        (409, "Directory_ConcurrencyViolation", False, True),
        (409, "Error_MsaAppDoesNotExist", False, False),
        (409, "AnyOther_Code", False, False),
        (409, "", False, False),
        (424, "", False, False),
        (429, "TooManyRequests", False, True),
        (500, "InternalServerError", False, False),
        (503, "Directory_ConcurrencyViolation", False, True),
        (503, "ServiceUnavailable", False, False),
        (504, "", False, False),
    ],
)
def test_only_a_refusal_proves_that_nothing_was_made(status, code, certain, busy):
    problem = refusal(status, code)
    assert (problem.certain, problem.busy, problem.status, problem.full) == (certain, busy, status, False)


def test_that_an_application_is_full_is_told_apart():
    problem = refusal(400, "TooManyAppPasswords", "Not allowed to add 3 passwords.")
    assert (problem.full, problem.certain, problem.status) == (True, True, 400)
    assert not refusal(400, "Request_BadRequest", "TooManyAppPasswords").full


def test_the_wait_that_graph_asks_for_comes_along():
    assert refusal(429, "TooManyRequests", Retry_After="2.128").wait == 2.128
    assert refusal(429, "TooManyRequests").wait is None


# -- an application

KNOWN = application()
LISTED = {"keyId": KEY, "displayName": None, "hint": None, "startDateTime": WHOLE + "Z", "endDateTime": WHOLE + "Z"}


def test_an_application_is_read_over_a_connection_of_its_own():
    graph_, http = graph_of(reply(200, body(LISTED), Date="Wed, 09 Sep 2026 19:50:29 GMT"))
    found = graph_.read(KNOWN)
    assert (found.object_id, found.client_id, found.two_secrets, found.read_at) == (OBJECT_ID, CLIENT_ID, False, MOMENT)
    assert [item.key_id for item in found.credentials] == [KEY]
    assert http.calls == [("GET", f"/{OBJECT_ID}")]
    assert http.more[0]["fresh"] is True


@pytest.mark.parametrize("audience", ["AzureADandPersonalMicrosoftAccount", "PersonalMicrosoftAccount"])
def test_personal_accounts_make_it_two_secrets(audience):
    assert graph_of(reply(200, body(signInAudience=audience)))[0].read(KNOWN).two_secrets
    assert not graph_of(reply(200, body(signInAudience="AzureADMyOrg")))[0].read(KNOWN).two_secrets


GARBLED = [
    b"",
    b"<html>",
    b"[]",
    {"id": OBJECT_ID, "appId": CLIENT_ID, "displayName": "billing-api"},
    {"id": OBJECT_ID, "appId": CLIENT_ID, "passwordCredentials": None},
    {"id": OBJECT_ID, "appId": CLIENT_ID, "passwordCredentials": {}},
    {"appId": CLIENT_ID, "passwordCredentials": []},
    {"id": OBJECT_ID, "passwordCredentials": []},
    {"id": "me", "appId": CLIENT_ID, "passwordCredentials": []},
]


@pytest.mark.parametrize("content", GARBLED)
def test_what_is_no_application_with_a_list_is_no_list_without_secrets(content):
    graph_, _http = graph_of(reply(200, content))
    with pytest.raises(NotDone) as caught:
        graph_.read(KNOWN)
    assert not caught.value.certain


@pytest.mark.parametrize("content", [*GARBLED[:6], b'{"passwordCredentials": [}'])
def test_a_list_that_is_garbled_is_asked_for_again(content):
    graph_, http = graph_of(reply(200, body()))
    graph_.read(KNOWN)
    assert http.more[0]["retry"](reply(200, content))
    assert not http.more[0]["retry"](reply(200, body(LISTED)))
    assert not http.more[0]["retry"](reply(200, body()))


@pytest.mark.parametrize("status", [408, 409, 424, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again_where_that_is_safe(status):
    graph_, http = graph_of(reply(200, body()), reply(204), reply(200, {"keyId": KEY, "secretText": "x"}))
    graph_.read(KNOWN)
    graph_.remove_password(KNOWN, KEY)
    graph_.add_password(KNOWN, "a name", MOMENT)
    assert [more["retry"] is None for more in http.more] == [False, False, True]
    for more in http.more[:2]:
        assert more["retry"](error(status, "AnyCode"))
        assert not more["retry"](error(400, "AnyCode"))
        assert not more["retry"](error(404, "AnyCode"))


CALLS = {
    "read": lambda graph_: graph_.read(KNOWN),
    "add": lambda graph_: graph_.add_password(KNOWN, "a name", MOMENT),
    "remove": lambda graph_: graph_.remove_password(KNOWN, KEY),
}


@pytest.mark.parametrize("call", CALLS)
def test_not_found_means_later_for_an_application_that_was_read(call):
    with pytest.raises(NotDone) as caught:
        CALLS[call](graph_of(error(404, "Request_ResourceNotFound"))[0])
    assert (caught.value.certain, caught.value.busy, caught.value.status) == (False, True, 404)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [400, 403, 404, 503])
@pytest.mark.parametrize("content", [b"", b"<html>"])
def test_what_something_in_between_has_answered_proves_nothing(call, status, content):
    with pytest.raises(NotDone) as caught:
        CALLS[call](graph_of(reply(status, content))[0])
    assert not caught.value.certain


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("code", ["Directory_ConcurrencyViolation", "Error_MsaAppDoesNotExist", "AnyOther_Code", ""])
def test_a_conflict_means_later_whatever_its_code(call, code):
    with pytest.raises(NotDone) as caught:
        CALLS[call](graph_of(error(409, code))[0])
    assert not caught.value.certain


@pytest.mark.parametrize(("sent", "certain"), [(True, False), (False, True)])
@pytest.mark.parametrize("call", CALLS)
def test_no_answer_proves_nothing_unless_nothing_was_sent(call, sent, certain):
    with pytest.raises(NotDone, match="Graph did not answer: cut") as caught:
        CALLS[call](graph_of(Unanswered("cut", sent=sent))[0])
    assert (caught.value.certain, caught.value.status) == (certain, 0)


def test_it_is_found_by_either_id_whichever_the_record_names():
    missing = error(404, "Request_ResourceNotFound")
    graph_, http = graph_of(missing, reply(200, body()))
    assert graph_.find(CLIENT_ID).object_id == OBJECT_ID
    assert http.calls == [("GET", f"/{CLIENT_ID}"), ("GET", f"(appId='{CLIENT_ID}')")]
    with pytest.raises(Refused, match="was not found"):
        graph_of(missing, missing)[0].find(CLIENT_ID)
    with pytest.raises(Refused, match="could not be read"):
        graph_of(missing, error(403, "Authorization_RequestDenied"))[0].find(CLIENT_ID)
    with pytest.raises(BadInput):
        graph_of()[0].find("billing-api")


# -- its secrets


@pytest.mark.parametrize(
    "message",
    ["No password credential found with keyId.", f"no PASSWORD credential found with keyId {KEY} in the application"],
)
def test_a_replica_that_does_not_know_a_secret_says_so(message):
    assert graph_of(error(400, "Request_BadRequest", message))[0].remove_password(KNOWN, KEY) is False


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Invalid object identifier."),
        (403, "No password credential found with keyId"),
        (500, "No password credential"),
    ],
)
def test_any_other_answer_to_a_removal_is_not_that(status, message):
    with pytest.raises(NotDone):
        graph_of(error(status, "Request_BadRequest", message))[0].remove_password(KNOWN, KEY)


def test_a_removal_is_one_request():
    graph_, http = graph_of(reply(204))
    assert graph_.remove_password(KNOWN, KEY) is True
    assert http.calls == [("POST", f"/{OBJECT_ID}/removePassword")]
    assert json.loads(http.more[0]["body"]) == {"keyId": KEY}


def test_a_secret_is_made_with_an_end_and_no_start():
    graph_, http = graph_of(reply(200, {**LISTED, "secretText": "the value", "displayName": "a name"}))
    made, secret = graph_.add_password(KNOWN, "a name", MOMENT)
    assert (made.key_id, made.display_name, secret.reveal()) == (KEY, "a name", "the value")
    assert json.loads(http.more[0]["body"]) == {
        "passwordCredential": {"displayName": "a name", "endDateTime": "2026-09-09T19:50:29Z"}
    }


def test_an_end_that_graph_leaves_out_is_the_one_that_was_sent():
    made, _secret = graph_of(reply(200, {"keyId": KEY, "secretText": "x"}))[0].add_password(KNOWN, "a name", MOMENT)
    assert (made.end, made.end_text) == (MOMENT, "2026-09-09T19:50:29Z")


@pytest.mark.parametrize("content", [b"", {}, {"keyId": KEY}, {"keyId": KEY, "secretText": ""}, {"secretText": "x"}])
def test_an_answer_without_the_secret_leaves_open_whether_it_was_made(content):
    with pytest.raises(NotDone, match="could not be read") as caught:
        graph_of(reply(200, content))[0].add_password(KNOWN, "a name", MOMENT)
    assert not caught.value.certain


def test_a_sign_in_is_not_bound_by_what_a_removal_goes_by():
    seconds = []
    http = Answers(reply(401), reply(204))

    def sign_in() -> Secret:
        seconds.append(http.budget.sending())
        return Secret("a-token")

    found = Graph(http, "https://graph.example", "ADMIN-ID", sign_in, Log(lambda line: None))  # type: ignore[arg-type]
    with http.budget.good_until(http.budget.awake()):
        found.remove_password(application(), key("a"))
    assert seconds == [float("inf")] * 2


def test_a_token_that_is_not_accepted_is_replaced_once():
    graph_, http = graph_of(error(401, "InvalidAuthenticationToken"), reply(200, body()))
    graph_.read(KNOWN)
    assert len(http.calls) == 2
    graph_, http = graph_of(*[error(401, "InvalidAuthenticationToken")] * 2)
    with pytest.raises(NotDone) as caught:
        graph_.read(KNOWN)
    assert (caught.value.certain, caught.value.status) == (True, 401)


@pytest.mark.parametrize(
    ("status", "code", "message", "todo"),
    [
        (403, "Authorization_RequestDenied", "", "Application.ReadWrite.OwnedBy"),
        (403, "Authorization_RequestDenied", "", "ADMIN-ID"),
        (403, "Authorization_RequestDenied", "", "owner"),
        (400, "CredentialInvalidLifetimeAsPerAppPolicy", "", "lifetime_days"),
        (400, "CredentialTypeNotAllowedAsPerAppPolicy", "", "certificate"),
        (400, "Request_BadRequest", "The size of the object has exceeded its limit. Please", "remove secrets"),
        (401, "InvalidAuthenticationToken", "", "same cloud"),
    ],
)
def test_a_refusal_says_what_to_do(status, code, message, todo):
    assert todo in refusal(status, code, message).todo


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"error": 5}', b'{"error": {"code": null}}'])
def test_an_unreadable_refusal_still_has_a_reason(content):
    assert "400" in graph_of()[0].problem(reply(400, content)).why
