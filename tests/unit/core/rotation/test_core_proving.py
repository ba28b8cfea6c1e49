# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many sign-ins prove a secret, and how long that takes. No test sleeps: the clock is the test's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import OutOfTime
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log, Secret
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.proving import NotProven, Proving, Row
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra import Answer, SignIn
from core_samples import CLIENT_ID, Clock, application

TAKEN, REFUSED, LATER, NEVER = Answer.TAKEN, Answer.REFUSED, Answer.LATER, Answer.NEVER


# -- a row


def row(*sign_ins: tuple[float, Answer]) -> Row:
    """The row of a secret that was made at second 100, after these sign-ins."""
    made = Row(100.0)
    for after, answer in sign_ins:
        made.add(answer, 100.0 + after)
    return made


@pytest.mark.parametrize(
    ("sign_ins", "length", "enough_after"),
    [
        ([], 0, 0),
        ([(0, TAKEN)], 1, 0),
        ([(0, TAKEN), (1, TAKEN), (2, TAKEN)], 3, 0),
        ([(0, REFUSED)], 0, 20),
        ([(0, REFUSED), (1, TAKEN)], 1, 20),
        ([(0, REFUSED), (9, REFUSED), (10, TAKEN)], 1, 20),
        ([(0, REFUSED), (14, REFUSED), (15, TAKEN)], 1, 29),
        ([(0, REFUSED), (40, REFUSED), (41, TAKEN)], 1, 71),
        ([(0, REFUSED), (90, REFUSED), (91, TAKEN)], 1, 121),
        ([(0, TAKEN), (1, TAKEN), (2, REFUSED), (3, TAKEN)], 1, 20),
        ([(0, TAKEN), (1, TAKEN), (25, REFUSED), (26, TAKEN)], 1, 51),
        ([(0, REFUSED), (1, TAKEN), (5, TAKEN), (12, REFUSED), (13, TAKEN), (14, TAKEN)], 2, 25),
        ([(0, TAKEN), (1, LATER), (2, TAKEN), (3, NEVER), (4, TAKEN)], 3, 0),
        ([(0, LATER), (30, LATER), (31, TAKEN)], 1, 0),
        ([(0, REFUSED), (5, LATER), (11, TAKEN)], 1, 20),
    ],
)
def test_when_a_row_is_enough(sign_ins, length, enough_after):
    made = row(*sign_ins)
    assert (made.length, made.enough_at() - 100.0) == (length, enough_after)


@pytest.mark.parametrize(
    ("sign_ins", "now", "enough"),
    [
        ([(0, TAKEN), (1, TAKEN)], 2, False),
        ([(0, TAKEN), (1, TAKEN), (2, TAKEN)], 2, True),
        ([(0, REFUSED), (1, TAKEN), (2, TAKEN), (3, TAKEN)], 3, False),
        ([(0, REFUSED), (1, TAKEN), (2, TAKEN), (3, TAKEN)], 20, True),
        ([(0, REFUSED), (15, REFUSED), (16, TAKEN), (20, TAKEN)], 40, False),
        ([(0, REFUSED), (15, REFUSED), (16, TAKEN), (20, TAKEN), (24, TAKEN)], 30.9, False),
        ([(0, REFUSED), (15, REFUSED), (16, TAKEN), (20, TAKEN), (24, TAKEN)], 31, True),
    ],
)
def test_three_in_a_row_and_long_enough(sign_ins, now, enough):
    assert row(*sign_ins).is_enough(100.0 + now) is enough


def test_the_pauses_grow_and_end_with_the_row():
    assert row((0, TAKEN)).pause(100.0) == 0.6
    assert row((0, TAKEN), (1, TAKEN)).pause(101.0) == 1.2
    long = row((0, REFUSED), (1, TAKEN), (2, TAKEN), (3, TAKEN))
    assert [long.pause(100.0 + now) for now in (3, 15, 17, 19.9)] == [4.0, 4.0, 3.0, 0.6]


# -- the sign-ins


class FakeEntra:
    """Answers by what ``answer`` says of the seconds since the secret was made; each answer takes a tenth of one."""

    def __init__(self, clock: Clock, answer: Callable[[float], SignIn]) -> None:
        self._clock, self._answer = clock, answer
        self.began = self.asked_at = clock.now
        self.at: list[float] = []

    def sign_in(self, client_id: str, secret: Secret) -> SignIn:
        """Sign in once."""
        assert (client_id, secret.reveal()) == (CLIENT_ID, "the-secret")
        self.at.append(round(self._clock.now - self.began, 3))
        self.asked_at = self._clock.now
        found = self._answer(self._clock.now - self.began)
        self._clock.now += 0.1
        return found


def taken_from(seconds: float) -> Callable[[float], SignIn]:
    """The secret is refused before so many seconds have passed."""
    return lambda now: SignIn(TAKEN) if now >= seconds else SignIn(REFUSED, "not known")


def in_turn(*answers: SignIn) -> Callable[[float], SignIn]:
    """These answers, the last one for ever."""
    left: list[SignIn] = list(answers)
    return lambda now: left.pop(0) if len(left) > 1 else left[0]


def proving(clock: Clock, answer: Callable[[float], SignIn], verify: bool = True) -> tuple[Proving, FakeEntra]:
    entra = FakeEntra(clock, answer)
    log = Log(lambda line: None)
    return Proving(entra, application(), Secret("the-secret"), verify, Budget(), log), entra  # type: ignore[arg-type]


def test_where_all_is_taken_it_is_three_sign_ins_and_less_than_two_seconds(clock):
    proof, entra = proving(clock, taken_from(0))
    proof.prove(120)
    assert entra.at == [0.0, 0.7, 2.0]
    assert clock.slept == [0.6, 1.2]


@pytest.mark.parametrize(
    ("refused_for", "least", "most"),
    [(0.05, 20, 21), (4, 20, 21), (9, 20, 21), (15, 27, 36), (18, 33, 42), (40, 67, 78), (80, 107, 117)],
)
def test_what_is_refused_at_first_is_tried_for_as_long_again(clock, refused_for, least, most):
    proof, entra = proving(clock, taken_from(refused_for))
    proof.prove(120)
    assert least <= entra.at[-1] <= most
    assert len([at for at in entra.at if at >= refused_for]) >= 3
    assert max(clock.slept) <= 4.0


def test_a_replica_that_has_not_heard_of_it_begins_the_row_anew(clock):
    yes, no = SignIn(TAKEN), SignIn(REFUSED, "not known")
    proof, entra = proving(clock, in_turn(yes, yes, no, yes, no, yes))
    proof.prove(120)
    assert entra.at[-1] >= 20
    assert len(entra.at) >= 5 + 3


def test_a_wait_that_entra_asks_for_is_waited_for_and_the_row_goes_on(clock):
    yes, busy = SignIn(TAKEN), SignIn(LATER, "busy", 60.0)
    proof, entra = proving(clock, in_turn(yes, busy, yes, yes))
    proof.prove(120)
    assert clock.slept == [0.6, 60.0, 1.2]
    assert len(entra.at) == 4


def test_what_is_neither_yes_nor_no_is_asked_again(clock):
    proof, entra = proving(clock, in_turn(SignIn(LATER, "no answer"), SignIn(LATER, "no answer"), SignIn(TAKEN)))
    proof.prove(10)
    assert len(entra.at) == 5


def test_what_waiting_cannot_change_ends_it_at_once(clock):
    proof, entra = proving(clock, in_turn(SignIn(TAKEN), SignIn(NEVER, "the application is disabled"), SignIn(TAKEN)))
    with pytest.raises(NotProven, match="the application is disabled") as caught:
        proof.prove(120)
    assert (caught.value.answer, len(entra.at)) == (NEVER, 2)


@pytest.mark.parametrize(("limit", "patient"), [(29, True), (10, True), (120, False)])
def test_where_there_is_no_time_or_no_reason_to_wait_a_refusal_ends_it(clock, limit, patient):
    proof, entra = proving(clock, taken_from(1))
    with pytest.raises(NotProven, match="not known") as caught:
        proof.prove(limit, patient)
    assert (caught.value.answer, len(entra.at), clock.slept) == (REFUSED, 1, [])


@pytest.mark.parametrize("limit", [30, 120, 900])
def test_what_is_never_taken_ends_with_the_last_reason_in_time(clock, limit):
    proof, entra = proving(clock, taken_from(float("inf")))
    with pytest.raises(NotProven, match="not known") as caught:
        proof.prove(limit)
    assert (caught.value.answer, caught.value.limit) == (REFUSED, limit)
    assert limit - 1 <= entra.at[-1] <= limit, "the last attempt is made shortly before the end"


def test_a_wait_longer_than_the_limit_ends_it(clock):
    proof, _entra = proving(clock, in_turn(SignIn(LATER, "busy", 60.0)))
    with pytest.raises(NotProven, match="busy") as caught:
        proof.prove(30)
    assert (caught.value.answer, clock.slept) == (LATER, [])


def test_an_outer_phase_ends_it_too(clock):
    proof, _entra = proving(clock, taken_from(float("inf")))
    with pytest.raises((NotProven, OutOfTime)), Budget().phase("outer", 5):
        proof.prove(120)


@pytest.mark.parametrize(
    ("answers", "after", "seconds", "fresh"),
    [
        ([TAKEN], 0, 10, True),
        ([TAKEN], 9.8, 10, True),
        ([TAKEN], 10.1, 10, False),
        ([REFUSED], 0, 10, False),
        ([TAKEN, REFUSED], 0, 10, False),
        ([TAKEN, LATER], 0, 10, False),
        ([], 0, 10, False),
    ],
)
def test_how_old_the_last_sign_in_is(clock, answers, after, seconds, fresh):
    proof, _entra = proving(clock, in_turn(*[SignIn(answer) for answer in answers], SignIn(LATER)))
    for _answer in answers:
        proof.sign_in()
    clock.now += after
    assert proof.taken_within(seconds) is fresh
    proof.forget()
    assert not proof.taken_within(seconds)


def test_without_sign_ins_nothing_is_held_against_it(clock):
    proof, entra = proving(clock, taken_from(float("inf")), verify=False)
    proof.forget()
    assert proof.taken_within(10)
    assert entra.at == []


def test_a_row_of_any_answers_is_of_those_after_the_last_refusal(clock):
    answers: Sequence[Answer] = [TAKEN, LATER, REFUSED, TAKEN, NEVER, TAKEN, TAKEN, LATER]
    made = row(*[(float(number), answer) for number, answer in enumerate(answers)])
    assert (made.length, made.began, made.refused_at) == (3, 103.0, 102.0)
