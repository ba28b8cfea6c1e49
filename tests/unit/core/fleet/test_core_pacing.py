# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pace of a fleet as pure logic: the clock is the test's."""

from __future__ import annotations

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.counters import Quota, Series
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.pacing import Pacer, Turn
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.graph import REMOVE
from core_samples import Clock, reply

KEEPER = "https://keepersecurity.com/api/rest/sm/v1/"
GRAPH = "https://graph.microsoft.com/v1.0/applications/x/addPassword"


def ask(series, now):
    """Count a call that is sent at once, as far as it may be."""
    return series.book(now) or series.send(now)


def quota_ask(quota, now, calls=1):
    """Count calls, as far as they may be sent."""
    seconds = quota.full(now, calls)
    if not seconds:
        quota.count(now, calls)
    return seconds


def test_a_burst_is_followed_by_a_silence():
    series = Series(3, 11.0)
    assert [ask(series, now) for now in (0.0, 1.0, 2.0)] == [0.0, 0.0, 0.0]
    for now in (1.0, 2.0, 4.0):
        series.answered(now)
    # It begins with the last answer, not with the last request.
    assert ask(series, 5.0) == 10.0
    assert ask(series, 14.9) == pytest.approx(0.5)
    assert ask(series, 15.0) == 0.0


def test_there_is_no_silence_while_an_answer_is_to_come():
    series = Series(1, 11.0)
    assert ask(series, 0.0) == 0.0
    assert ask(series, 60.0) > 0
    series.answered(61.0)
    assert ask(series, 71.9) > 0
    assert ask(series, 72.0) == 0.0


def test_a_silence_within_a_burst_begins_a_new_one():
    series = Series(2, 11.0)
    assert ask(series, 0.0) == 0.0
    series.answered(1.0)
    assert [ask(series, 12.0), ask(series, 12.0)] == [0.0, 0.0]
    assert ask(series, 12.0) > 0


def test_a_refusal_silences_all_and_is_news_once():
    series = Series(90, 11.0)
    assert [ask(series, 0.0), ask(series, 0.0)] == [0.0, 0.0]
    assert series.throttled(1.0, None)
    assert not series.throttled(2.0, 30.0)
    assert ask(series, 31.0) == 1.0
    assert ask(series, 32.0) == 0.0


def test_a_quota_counts_what_was_sent_within_its_time():
    quota = Quota(4, 60.0)
    assert [quota_ask(quota, 0.0, 2), quota_ask(quota, 10.0, 2)] == [0.0, 0.0]
    assert quota_ask(quota, 20.0) == 40.0
    assert quota_ask(quota, 20.0, 3) == 50.0
    assert quota_ask(quota, 60.0, 2) == 0.0
    assert quota.silence(61.0, 5.0)
    assert quota_ask(quota, 62.0) == 4.0


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
    assert [pace.pacer.ask_turn(2, True) for _number in range(27)] == [0.0] * 27
    assert pace.pacer.ask_turn(2, True) == 60.0
    assert pace.pacer.ask_turn(2, False) == 0.0


def test_a_rotation_takes_as_many_places_of_it_as_it_writes():
    pace = Pace()
    assert [pace.pacer.ask_turn(4, True) for _number in range(13)] == [0.0] * 13
    assert pace.pacer.ask_turn(4, True) == 60.0
    assert pace.pacer.ask_turn(2, True) == 0.0


def test_a_rotation_begins_to_write_when_there_is_room_for_all_of_it_and_no_silence():
    pace = Pace()
    for _number in range(2798):
        assert pace.pacer.ask("POST", GRAPH) == 0.0
        pace.clock.now += 0.01
    assert pace.pacer.ask_turn(2, False) == 0.0
    assert pace.pacer.ask_turn(3, False) > 0.0
    pace.pacer.answered("POST", GRAPH, reply(429, {}, Retry_After="200"))
    assert pace.pacer.ask_turn(1, False) == pace.pacer.silent() == 200.0


def test_a_short_wait_that_keeper_asks_for_is_a_silence_all_the_same():
    """Its counter begins anew only then."""
    pace = Pace()
    pace.pacer.ask("POST", KEEPER + "update_secret")
    pace.pacer.answered("POST", KEEPER + "update_secret", reply(429, {"error": "throttled", "retry_after": 1}))
    assert pace.pacer.ask("POST", KEEPER + "update_secret") == 11.0


class TestWhatIsBooked:
    SAVE = "update_secret"

    def fill(self, pacer, number=90):
        """Use up so many places of a burst."""
        for _number in range(number):
            assert pacer.ask("POST", KEEPER + self.SAVE) == 0.0
            pacer.answered("POST", KEEPER + self.SAVE, reply(200))

    @pytest.fixture
    def pacer(self, clock):
        return Pacer(print, clock.monotonic)

    def test_is_not_waited_for_again(self, clock, pacer):
        turn, budget = Turn(pacer), Budget()
        self.fill(pacer, 89)
        turn.book(self.SAVE, budget)
        turn.book(self.SAVE, budget)
        clock.now += 7.0
        turn.wait("POST", KEEPER + self.SAVE, budget)
        turn.answered("POST", KEEPER + self.SAVE, reply(200))
        assert clock.slept == []
        turn.book(self.SAVE, budget)
        assert sum(clock.slept) == pytest.approx(11.0)

    def test_is_in_nobodys_way_where_it_is_not_sent(self, clock, pacer):
        Turn(pacer).book(self.SAVE, Budget())
        clock.now += 11.0
        self.fill(pacer)

    def test_is_asked_for_again_where_it_is_old(self, clock, pacer):
        turn, budget = Turn(pacer), Budget()
        turn.book(self.SAVE, budget)
        clock.now += 8.0
        self.fill(pacer, 89)
        turn.wait("POST", KEEPER + self.SAVE, budget)
        assert sum(clock.slept) == pytest.approx(11.0)

    def test_is_asked_for_again_after_a_silence(self, clock, pacer):
        turn, budget = Turn(pacer), Budget()
        turn.book(self.SAVE, budget)
        pacer.answered("POST", KEEPER + self.SAVE, reply(429, {"error": "throttled"}))
        turn.wait("POST", KEEPER + self.SAVE, budget)
        assert sum(clock.slept) == pytest.approx(11.0)

    def test_may_be_a_removal(self, clock, pacer):
        turn, budget = Turn(pacer), Budget()
        url = GRAPH.replace("addPassword", REMOVE)
        pacer.answered("GET", GRAPH, reply(429, {}, Retry_After="5"))
        turn.book(REMOVE, budget)
        assert sum(clock.slept) == pytest.approx(5.0)
        turn.wait("POST", url, budget)
        assert sum(clock.slept) == pytest.approx(5.0)


def test_a_write_that_has_to_wait_takes_no_place():
    pace = Pace()
    pace.pacer.answered("POST", GRAPH, reply(429, {}, Retry_After="5"))
    for _number in range(5000):
        assert pace.pacer.ask("POST", GRAPH) == 5.0
    pace.clock.now += 5.0
    assert pace.pacer.ask("POST", GRAPH) == 0.0
