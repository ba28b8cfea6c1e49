# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pace of a fleet as pure logic: the clock is the test's."""

from __future__ import annotations

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.counters import Quota, Series
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.pacing import Pacer, Turn
from core_samples import Clock, reply

KEEPER = "https://keepersecurity.com/api/rest/sm/v1/"
GRAPH = "https://graph.microsoft.com/v1.0/applications/x/addPassword"


def test_a_burst_is_followed_by_a_silence():
    series = Series(3, 11.0)
    assert [series.ask(now) for now in (0.0, 1.0, 2.0)] == [0.0, 0.0, 0.0]
    for now in (1.0, 2.0, 4.0):
        series.answered(now)
    # It begins with the last answer, not with the last request.
    assert series.ask(5.0) == 10.0
    assert series.ask(14.9) == pytest.approx(0.5)
    assert series.ask(15.0) == 0.0


def test_there_is_no_silence_while_an_answer_is_to_come():
    series = Series(1, 11.0)
    assert series.ask(0.0) == 0.0
    assert series.ask(60.0) > 0
    series.answered(61.0)
    assert series.ask(71.9) > 0
    assert series.ask(72.0) == 0.0


def test_a_silence_within_a_burst_begins_a_new_one():
    series = Series(2, 11.0)
    assert series.ask(0.0) == 0.0
    series.answered(1.0)
    assert [series.ask(12.0), series.ask(12.0)] == [0.0, 0.0]
    assert series.ask(12.0) > 0


def test_a_refusal_silences_all_and_is_news_once():
    series = Series(90, 11.0)
    assert [series.ask(0.0), series.ask(0.0)] == [0.0, 0.0]
    assert series.throttled(1.0, None)
    assert not series.throttled(2.0, 30.0)
    assert series.ask(31.0) == 1.0
    assert series.ask(32.0) == 0.0


def test_a_quota_counts_what_was_sent_within_its_time():
    quota = Quota(4, 60.0)
    assert [quota.ask(0.0, 2), quota.ask(10.0, 2)] == [0.0, 0.0]
    assert quota.ask(20.0) == 40.0
    assert quota.ask(20.0, 3) == 50.0
    assert quota.ask(60.0, 2) == 0.0
    assert quota.silence(61.0, 5.0)
    assert quota.ask(62.0) == 4.0


class Pace:
    """A pacer on the test's clock, and what it has said."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.said: list[str] = []
        self.pacer = Pacer(self.said.append, self.clock.monotonic)


def test_each_endpoint_of_keeper_has_a_counter_of_its_own():
    pace = Pace()
    assert [pace.pacer.ask("POST", KEEPER + "update_secret") for _number in range(90)] == [0.0] * 90
    assert pace.pacer.ask("POST", KEEPER + "update_secret") > 0
    assert pace.pacer.ask("POST", KEEPER + "get_secret") == 0.0
    assert pace.pacer.ask("POST", "https://login.microsoftonline.com/t/oauth2/v2.0/token") == 0.0


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (reply(429, {"error": "throttled"}), 11.0),
        (reply(429, {}, Retry_After="20"), 20.0),
        (reply(403, {"error": "throttled", "retry_after": 15}), 15.0),
        (reply(403, {"result_code": "throttled"}), 11.0),
        (reply(403, {"error": "access_denied"}), 0.0),
        (reply(500), 0.0),
        (None, 0.0),
    ],
)
def test_what_keeper_throttles_is_silent_for_all(answer, seconds):
    pace = Pace()
    assert pace.pacer.ask("POST", KEEPER + "update_secret") == 0.0
    pace.pacer.answered("POST", KEEPER + "update_secret", answer)
    assert pace.pacer.ask("POST", KEEPER + "update_secret") == seconds
    assert (len(pace.said), pace.pacer.throttled) == ((1, 1) if seconds else (0, 0))


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (reply(429, {}, Retry_After="2.128"), 2.128),
        (reply(429), 10.0),
        (reply(200, {}, x_ms_throttle_limit_percentage="0.9"), 2.0),
        (reply(200, {}), 0.0),
        (reply(503), 0.0),
    ],
)
def test_what_graph_throttles_is_silent_for_all(answer, seconds):
    pace = Pace()
    pace.pacer.answered("POST", GRAPH, answer)
    assert pace.pacer.ask("GET", GRAPH) == pytest.approx(seconds)


def test_applications_of_personal_accounts_have_a_quota_of_their_own():
    pace = Pace()
    assert [pace.pacer.ask_personal() for _number in range(27)] == [0.0] * 27
    assert pace.pacer.ask_personal() == 60.0


def test_what_is_booked_is_not_waited_for_again_and_is_given_back(clock):
    said: list[str] = []
    pacer, budget = Pacer(said.append, clock.monotonic), Budget()
    turn = Turn(pacer)
    for _number in range(89):
        pacer.ask("POST", KEEPER + "update_secret")
        pacer.answered("POST", KEEPER + "update_secret", reply(200))
    turn.book("update_secret", budget)
    turn.book("update_secret", budget)
    assert clock.slept == []
    turn.wait("POST", KEEPER + "update_secret", budget)
    turn.answered("POST", KEEPER + "update_secret", reply(200))
    assert clock.slept == []
    turn.book("update_secret", budget)
    assert sum(clock.slept) == pytest.approx(11.0)
    turn.close()
    clock.now += 11.0
    assert [pacer.ask("POST", KEEPER + "update_secret") for _number in range(90)] == [0.0] * 90
