# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How Graph's answers are read."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services import graph
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.graph import NotDone
from core_samples import reply

KEY = "f0b0b335-1d71-4883-8f98-567911bfdca6"
WHOLE = "2026-09-09T19:50:29"
MOMENT = datetime(2026, 9, 9, 19, 50, 29, tzinfo=timezone.utc)


def test_the_time_of_a_read_is_the_servers():
    assert graph._server_time(reply(Date="Wed, 09 Sep 2026 19:50:29 GMT")) == MOMENT


@pytest.mark.parametrize("date", ["", "soon", "Wed, 99 Sep 2026 19:50:29 GMT"])
def test_without_a_readable_date_it_is_this_hosts(date):
    before = datetime.now(timezone.utc)
    assert before <= graph._server_time(reply(Date=date)) <= datetime.now(timezone.utc)


def test_a_date_at_the_end_of_the_calendar_is_unreadable():
    assert graph._server_time(reply(Date="Fri, 31 Dec 9999 23:59:59 -2300")).year < 9999


def refusal(status: int, code: str, message: str = "a message", **headers: str) -> NotDone:
    graph_ = graph.Graph(None, "https://graph.example", "ADMIN-ID", None, None)
    return graph_._problem(reply(status, {"error": {"code": code, "message": message}}, **headers))


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
    assert (problem.certain, problem.busy, problem.status) == (certain, busy, status)


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


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": 5}', b'{"error": {"code": null}}'])
def test_an_unreadable_refusal_still_has_a_reason(body):
    graph_ = graph.Graph(None, "https://graph.example", "ADMIN-ID", None, None)
    assert "400" in graph_._problem(reply(400, body)).why
