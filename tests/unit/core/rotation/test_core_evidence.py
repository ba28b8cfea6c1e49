# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was seen last grows old and is taken again. The clock is the test's."""

from __future__ import annotations

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log, Secret
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.deciding import marker
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.evidence import Evidence
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.proving import FRESH, Proving
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra import Answer, SignIn
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.vault import VaultRecord
from core_samples import Clock, application, credential

OWN, OTHER, GONE = "RecordOfThisRun0000001", "RecordOfAnother0000002", "RecordThatIsGone000003"


def record(uid: str, revision: int = 1) -> VaultRecord:
    return VaultRecord(uid, "billing-api", "pamUser", revision, True, {"fields": [], "custom": []}, None)


class Services:
    """The vault, Graph and the sign-in: they count what they are asked."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.reads: list[list[str]] = []
        self.lists = self.sign_ins = 0
        self.answer = SignIn(Answer.TAKEN)
        self.records = {uid: record(uid) for uid in (OWN, OTHER)}
        self.application = application(credential("shown", 24))
        budget = Budget()
        self.evidence = Evidence(self, record(OWN), self, application(credential("shown", 24)), budget)  # type: ignore[arg-type]
        self.proving = Proving(self, application(), Secret("the-secret"), True, budget, Log(print))  # type: ignore[arg-type]

    @property
    def asked_at(self):
        return self.clock.now

    def read(self, what):
        if not isinstance(what, list):
            self.lists += 1
            return self.application
        self.reads.append(what)
        return {uid: self.records[uid] for uid in what if uid in self.records}

    def sign_in(self, client_id, secret):
        self.sign_ins += 1
        return self.answer


@pytest.fixture
def services(clock: Clock) -> Services:
    return Services(clock)


def test_the_list_that_began_the_run_does_not_count(services: Services) -> None:
    services.evidence.listed()
    services.evidence.record()
    assert (services.lists, services.reads) == (1, [[OWN]])
    assert services.evidence.list_is_new()
    assert not services.evidence.list_is_new()


@pytest.mark.parametrize(("seconds", "again"), [(FRESH, 0), (FRESH + 0.1, 1)])
def test_each_look_is_taken_again_when_it_is_old(services: Services, seconds: float, again: int) -> None:
    services.evidence.record()
    services.evidence.listed()
    services.proving.sign_in()
    services.clock.now += seconds
    services.evidence.record()
    services.evidence.listed()
    assert services.evidence.taken(services.proving) is Answer.TAKEN
    assert (len(services.reads), services.lists, services.sign_ins) == (1 + again,) * 3


def test_a_list_is_new_to_whoever_asks_first(services: Services) -> None:
    services.evidence.forget()
    services.evidence.listed()
    assert [services.evidence.list_is_new() for _time in range(2)] == [True, False]


def test_a_list_that_names_further_records_has_them_read_with_this_one(services: Services) -> None:
    services.evidence.record()
    services.application = application(
        credential("shown", 24), credential("theirs", 1, marker(OTHER, "a")), credential("lost", 1, marker(GONE, "b"))
    )
    services.evidence.forget_list()
    services.evidence.listed()
    services.evidence.record()
    assert services.reads == [[OWN], [OWN, OTHER, GONE]]
    assert services.evidence.others[GONE] is None
    shown = services.evidence.others[OTHER]
    assert shown is not None
    assert shown.record_uid == OTHER
    services.evidence.forget_list()
    services.evidence.listed()
    services.evidence.record()
    assert len(services.reads) == 2, "what was read a moment ago is not read again"


def test_what_is_forgotten_is_looked_at_again(services: Services) -> None:
    services.evidence.record()
    services.evidence.forget()
    services.evidence.record()
    services.evidence.listed()
    assert (len(services.reads), services.lists) == (2, 1)


def test_a_record_that_has_gone_is_named(services: Services) -> None:
    del services.records[OWN]
    with pytest.raises(BadInput, match=OWN):
        services.evidence.record()


@pytest.mark.parametrize("answer", [Answer.REFUSED, Answer.LATER, Answer.NEVER])
def test_an_answer_that_is_no_yes_is_handed_on(services: Services, answer: Answer) -> None:
    services.answer = SignIn(answer, "why")
    assert services.evidence.taken(services.proving) is answer
