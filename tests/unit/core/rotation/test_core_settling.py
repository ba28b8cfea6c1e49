# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The wait between publishing and the first removal. No test sleeps: the clock is the test's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log, Secret
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import SETTLE, Budget, drive
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.proving import Proving
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.settling import Settling
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra import Answer, SignIn
from core_samples import Clock, application

YES, NO = SignIn(Answer.TAKEN), SignIn(Answer.REFUSED, "not known")


class Wait:
    """One wait of so many seconds, begun two seconds after the secret was made: when what was asked, and its end."""

    def __init__(
        self,
        clock: Clock,
        seconds: float,
        answer: Callable[[float], SignIn] = lambda now: YES,
        listed: bool | None = True,
        verify: bool = True,
        early: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock, self._answer, self._listed = clock, answer, listed
        self.began = clock.now + 2.0
        self.asked: list[float] = []
        self.looked: list[float] = []
        budget, log = Budget(), Log(lambda line: None)
        proving = Proving(self, application(), Secret("the-secret"), verify, budget, log)  # type: ignore[arg-type]
        clock.now = self.began
        drive(Settling(proving, self.look, budget, log).steps(seconds, early), budget)
        self.lasted = round(clock.now - self.began, 3)

    def sign_in(self, client_id: str, secret: Secret) -> SignIn:
        """In place of Entra's."""
        self.asked.append(round(self._clock.now - self.began, 3))
        self.asked_at = self._clock.now
        return self._answer(self.asked[-1])

    def look(self) -> bool | None:
        """In place of the list."""
        self.looked.append(round(self._clock.now - self.began, 3))
        return self._listed


@pytest.mark.parametrize("seconds", [30, 60, 120])
def test_undisturbed_it_signs_in_three_times_the_last_time_at_the_end(clock, seconds):
    wait = Wait(clock, seconds)
    assert wait.asked == [seconds / 3, seconds * 2 / 3, seconds]
    assert (wait.lasted, wait.looked) == (seconds, [])


def test_without_a_wait_it_only_does_what_goes_early(clock):
    done: list[bool] = []
    wait = Wait(clock, 0, early=lambda: done.append(True))
    assert (wait.lasted, wait.asked, done) == (0, [], [True])


@pytest.mark.parametrize(
    ("early", "asked"), [(0, [10, 20, 30]), (12, [18, 24, 30]), (29, [30, 31, 32]), (40, [41, 42, 43])]
)
def test_what_goes_early_takes_of_the_wait_and_no_sign_in_is_saved(clock, early, asked):
    wait = Wait(clock, 30, early=lambda: clock.sleep(early))
    assert wait.asked == asked
    assert wait.lasted == asked[-1]


def test_what_is_raised_early_ends_the_wait(clock):
    def fail() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        Wait(clock, 30, early=fail)


@pytest.mark.parametrize("listed", [True, None])
@pytest.mark.parametrize(("refused_until", "lasts"), [(5, 30), (12, 30), (25, 44), (45, 92)])
def test_a_refusal_makes_it_last_twice_as_long_as_the_secret_was_old(clock, listed, refused_until, lasts):
    """The list is looked at for each refusal; the last of them counts, from when the secret was made."""
    wait = Wait(clock, 30, lambda now: NO if now < refused_until else YES, listed)
    refused = [at for at in wait.asked if at < refused_until]
    assert wait.looked == refused
    least = max(30.0, 2 * (refused[-1] + 2) - 2) if refused else 30.0
    assert wait.lasted == pytest.approx(least)
    assert wait.lasted <= lasts
    assert wait.asked[-1] == wait.lasted


def test_what_is_refused_and_not_listed_ends_it_at_once(clock):
    wait = Wait(clock, 30, lambda now: NO, listed=False)
    assert (wait.lasted, wait.asked, wait.looked) == (10, [10], [10])


def test_it_has_an_end_although_it_is_refused_for_ever(clock):
    wait = Wait(clock, 30, lambda now: NO)
    assert SETTLE - 10 <= wait.lasted <= SETTLE


@pytest.mark.parametrize("asked_for", [None, 60.0])
def test_what_is_neither_yes_nor_no_neither_ends_nor_restarts_it(clock, asked_for):
    busy = SignIn(Answer.LATER, "busy", asked_for)
    wait = Wait(clock, 30, lambda now: busy if 15 < now < 22 else YES)
    assert wait.looked == []
    assert wait.asked == ([10, 20, 25, 30] if asked_for is None else [10, 20, 80])


def test_a_last_sign_in_has_to_be_taken(clock):
    wait = Wait(clock, 30, lambda now: SignIn(Answer.LATER, "no answer") if now < 47 else YES)
    assert wait.lasted == wait.asked[-1] >= 47


def test_without_sign_ins_it_only_waits(clock):
    wait = Wait(clock, 30, verify=False)
    assert (wait.lasted, wait.asked, wait.looked) == (30, [], [])
