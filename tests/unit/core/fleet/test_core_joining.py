# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Credentials of Entra joined with records of Keeper: what each is, how urgent, and that nothing is left out."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.joining import Held, Known, Row, State, join
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.judging import (
    BUCKETS,
    Judged,
    Limits,
    counts,
    judge,
    reaches,
    worst,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.listing import Listed
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.deciding import Published
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import Policy
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.application import Credential, format_time
from core_samples import CLIENT_ID, NOW, OBJECT_ID, OURS, RECORD, application, credential, key
from hypothesis import given
from hypothesis import strategies as st
from rotation_samples import CURRENT, ENDS, HINTS, OTHER, STARTS, THEIRS, TITLES, holds, made_before

ELSEWHERE = "99999999-1d71-4883-8f98-567911bfdca6"


def held(name: str = "current", hint: str = "cur", uid: str = RECORD, **more: Any) -> Held:
    """A record that shows the secret of this name."""
    expires, identifier = more.pop("expires", ""), more.pop("identifier", OBJECT_ID)
    published = Published(uid, key(name) if name else "", hint, expires=expires)
    return Held(uid, f"record {uid[:4]}", identifier, published, more.pop("policy", Policy(rotate="expiring")))


def known(*credentials: Credential, records: tuple[Held, ...] = (), **more: Any) -> Known:
    """What was read: one application with these secrets, and the records."""
    listed = more.pop("listed", [Listed(application(*credentials))])
    elsewhere = {record.uid: record.published for record in records}
    return Known(listed, records, NOW, elsewhere={**elsewhere, **more.pop("elsewhere", {})}, **more)


def one(*credentials: Credential, name: str = "x", records: tuple[Held, ...] = (), **more: Any) -> Row:
    """The row of the secret of this name."""
    (row,) = [row for row in join(known(*credentials, records=records, **more)) if row.credential.key_id == key(name)]
    return row


def judged(row: Row, **limits: int) -> Judged:
    """The row judged."""
    return judge([row], NOW, Limits(**limits))[0]


def test_what_a_record_shows_is_current():
    row = one(CURRENT, name="current", records=(held(),))
    assert (row.state, row.records) == (State.CURRENT, ((RECORD, "record ZmpJ"),))
    assert judged(row).bucket == "healthy"


def test_a_record_may_name_the_client_id():
    assert one(CURRENT, name="current", records=(held(identifier=CLIENT_ID),)).state is State.CURRENT


def test_a_record_that_names_no_key_id_shows_what_has_its_hint():
    mine, other = credential("x", 5, hint="abc"), credential("y", 5, hint="xyz")
    record = held("", "abc")
    assert one(mine, other, records=(record,)).state is State.CURRENT
    assert one(mine, other, name="y", records=(record,)).state is State.FOREIGN


def test_a_record_that_names_no_key_id_is_not_judged_where_no_hint_is_told():
    rows = join(known(credential("x", 5), records=(held("", "abc"),)))
    assert [row.state for row in rows] == [State.FOREIGN, State.UNVERIFIED]


def test_what_another_record_shows_is_current_though_it_names_another_application():
    stray = held("x", "abc", uid=OTHER, identifier=ELSEWHERE)
    rows = {row.state: row for row in join(known(credential("x", 5), CURRENT, records=(stray,)))}
    assert set(rows) == {State.MISSING, State.CURRENT, State.OTHER_RECORD}
    assert rows[State.CURRENT].records[0][0] == OTHER


def test_an_old_secret_of_the_record_has_its_time():
    before = credential("x", 50, OURS + "old")
    record = held(policy=Policy(rotate="expiring", retire_after=timedelta(hours=12)))
    row = one(before, CURRENT, records=(record,))
    assert (row.state, row.until) == (State.PREVIOUS, NOW - timedelta(hours=5) + timedelta(hours=12))
    assert judged(row).bucket == "healthy"
    late = judged(one(before, CURRENT, records=(held(),)))
    assert (late.bucket, late.flags) == ("attention", ("due",))
    assert "removes it" in late.todo


def test_what_the_policy_keeps_has_no_time():
    row = one(
        credential("x", 50, OURS + "old"),
        CURRENT,
        records=(held(policy=Policy(rotate="expiring", keep_previous=1)),),
    )
    assert (row.state, row.until, row.reason) == (State.PREVIOUS, None, "keep_previous")


def test_what_no_run_has_published_is_an_orphan():
    row = one(credential("x", 1, OURS + "later"), CURRENT, records=(held(),))
    assert (row.state, judged(row).bucket) == (State.ORPHAN, "attention")


@pytest.mark.parametrize("seen", [True, False])
def test_what_was_made_for_another_record_is_its(seen: bool):
    elsewhere = {OTHER: Published(OTHER, key("y"), "abc")} if seen else {}
    row = one(credential("x", 50, THEIRS + "a"), CURRENT, records=(held(),), elsewhere=elsewhere)
    assert row.state is State.OTHER_RECORD
    assert ("does not show it" if seen else "is not seen") in row.reason


def test_what_somebody_else_made_is_foreign_and_the_next_rotation_takes_it():
    row = one(credential("x", 50, "by hand"), CURRENT, records=(held(),))
    assert row.state is State.FOREIGN
    assert row.until is not None
    assert row.reason == "a rotation of the record removes it"
    kept = one(credential("x", 50), CURRENT, records=(held(policy=Policy(rotate="expiring", retire="none")),))
    assert (kept.state, kept.until, kept.reason) == (State.FOREIGN, None, "")


def test_an_application_without_record_is_unknown():
    assert one(credential("x", 50)).state is State.UNKNOWN
    assert judged(one(credential("x", 50))).bucket == "healthy"
    assert judged(one(credential("x", 50, days=5))).bucket == "expiring"
    both = (credential("x", 50, days=5), credential("y", 5))
    assert judged(one(*both)).flags == ("expiring", "successor")
    assert judged(one(*both)).bucket == "attention"


def test_what_the_admin_signs_in_with_is_told():
    held_elsewhere = holds("", "adm", CLIENT_ID)
    row = one(credential("x", 50, hint="adm"), holdings=(held_elsewhere,))
    assert (row.state, row.reason) == (State.ADMIN, "the PAM configuration holds it")


def test_a_record_that_holds_another_value_than_it_names_is_told():
    row = one(CURRENT, name="current", records=(held(hint="xyz"),))
    assert (judged(row).flags, judged(row).bucket) == (("other_value",), "critical")
    spare = credential("y", 9, hint="xyz")
    row = one(CURRENT, spare, name="current", records=(held(hint="xyz"),))
    assert (judged(row).flags, judged(row).bucket) == (("other_value",), "attention")
    assert judged(row).todo == "rotate the record"
    nothing = one(CURRENT, name="current", records=(held(hint=""),))
    assert (nothing.reason, judged(nothing).bucket) == ("the record holds no value", "critical")
    unknown = credential("current", 5)
    assert judged(one(unknown, name="current", records=(held(hint="xyz"),))).flags == ()


def test_what_a_record_shows_and_entra_has_not_is_missing():
    (row,) = join(known(records=(held(expires=made_before(900)),)))
    assert (row.state, judged(row).bucket) == (State.MISSING, "critical")
    assert row.credential.end_text == made_before(900)


def test_what_was_made_minutes_ago_may_not_be_listed_yet():
    (row,) = join(known(records=(held(expires=made_before(3)),)))
    assert row.state is State.UNVERIFIED


def test_an_application_that_is_not_there_is_missing_only_where_that_is_sure():
    stray = held(identifier=ELSEWHERE)
    assert [row.state for row in join(known(records=(stray,)))] == [State.MISSING]
    assert [row.state for row in join(known(records=(stray,), complete=False))] == [State.UNVERIFIED]
    gone = frozenset((ELSEWHERE,))
    assert [row.state for row in join(known(records=(stray,), complete=False, gone=gone))] == [State.MISSING]


def test_a_record_that_shows_nothing_is_empty():
    assert [row.state for row in join(known(records=(held("", ""),)))] == [State.EMPTY]


def test_without_the_vault_nothing_is_said_of_who_holds_what():
    assert one(credential("x", 50, OURS + "a"), keeper=False).state is State.UNVERIFIED


def test_several_records_are_told_and_have_no_successor():
    soon = credential("x", 50, days=5)
    row = one(soon, CURRENT, records=(held(), held("x", "abc", uid=OTHER)))
    assert judged(row).flags == ("expiring", "several_records")
    assert judged(row).bucket == "expiring"


def test_records_of_which_one_adopts_the_other_are_meant_so():
    records = (held(policy=Policy(rotate="expiring", adopt=(OTHER,))), held("x", "abc", uid=OTHER))
    assert judged(one(CURRENT, credential("x", 9), name="current", records=records)).flags == ()


@pytest.mark.parametrize(
    ("days", "bucket"), [(-1, "critical"), (0.5, "expiring"), (29.9, "expiring"), (30, "healthy"), (None, "healthy")]
)
def test_the_end_of_what_a_record_shows_decides(days: float | None, bucket: str):
    item = credential("current", 5, days=days or 0)
    item = item if days is not None else Credential(item.key_id, start=item.start)
    assert judged(one(item, name="current", records=(held(),))).bucket == bucket


def test_days_left_are_whole_days():
    assert [judged(one(credential("x", 50, days=days))).days_left for days in (-0.1, 0.9, 1.0)] == [-1, 0, 1]


def test_age_counts_while_it_is_valid():
    old = credential("current", 24 * 400, days=100)
    assert judged(one(old, name="current", records=(held(),))).flags == ("over_age",)
    assert judged(one(old, name="current", records=(held(),)), max_age_days=401).bucket == "healthy"
    assert "over_age" not in judged(one(credential("x", 24 * 400, days=-1))).flags


def test_certificates_and_service_principals_are_listed():
    certificate, spare, held_there = (
        credential("x", 5, days=3),
        credential("y", 5, days=300),
        credential("z", 5, days=3),
    )
    listed = Listed(application(CURRENT), (certificate, spare), (held_there,), ("Pat",))
    rows = {row.credential.key_id: row for row in join(known(listed=[listed], records=(held(),)))}
    assert rows[key("x")].state is State.CERTIFICATE
    assert rows[key("x")].successor
    assert not rows[key("y")].successor
    assert (rows[key("z")].state, rows[key("z")].of) == (State.FOREIGN, "service_principal")
    assert judged(rows[key("z")]).as_dict()["owners"] == ["Pat"]


def test_the_admins_own_comes_first_then_the_worst():
    rows = [
        one(credential("x", 5)),
        one(credential("x", 5, days=3)),
        one(credential("x", 5, days=-3), records=(held("x"),)),
        one(credential("x", 5, hint="adm"), holdings=(holds("", "adm", CLIENT_ID),)),
    ]
    assert [each.bucket for each in judge(rows, NOW, Limits())] == ["healthy", "critical", "expiring", "healthy"]
    assert worst(judge(rows, NOW, Limits())) == "critical"
    assert worst([]) == "healthy"


def test_a_threshold_is_reached_by_what_is_worse():
    assert [reaches(bucket, "expiring") for bucket in BUCKETS] == [True, True, False, False]
    assert not any(reaches(bucket, "never") for bucket in BUCKETS)


# -- whatever there is


@st.composite
def tenants(draw) -> Known:
    """An application with any secrets, any records that name it or another one, and any of the sides incomplete."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=6))
    secrets = [
        Credential(key(name), draw(TITLES), draw(STARTS), end, format_time(end) if end else "", draw(HINTS))
        for name in names
        for end in [draw(ENDS)]
    ]
    split = draw(st.integers(0, len(secrets)))
    listed = Listed(application(*secrets[:split]), of_principal=tuple(secrets[split:]))
    records = tuple(
        held(
            draw(st.sampled_from(["", "gone", *"abcdefgh"])),
            draw(st.sampled_from(["", "cur", "adm"])),
            uid,
            identifier=draw(st.sampled_from([OBJECT_ID, CLIENT_ID, ELSEWHERE])),
            expires=draw(st.sampled_from(["", made_before(1), made_before(900)])),
            policy=Policy(
                rotate="expiring",
                retire=draw(st.sampled_from(["all", "managed", "none"])),
                keep_previous=draw(st.integers(0, 2)),
            ),
        )
        for uid in draw(st.lists(st.sampled_from([RECORD, OTHER, "A" * 22]), unique=True))
    )
    return known(
        listed=[listed],
        records=records,
        complete=draw(st.booleans()),
        keeper=draw(st.booleans()),
        holdings=draw(st.sampled_from([(), (holds("", "adm", CLIENT_ID),), (holds("a"),)])),
    )


@given(tenants(), st.randoms(use_true_random=False))
def test_each_credential_is_told_once_and_no_record_is_forgotten(tenant: Known, random: Any):
    rows = join(tenant)
    (listed,) = tenant.listed
    real = [item.key_id for item in (*listed.application.credentials, *listed.of_principal)]
    absent = (State.MISSING, State.EMPTY)
    told = Counter(row.credential.key_id for row in rows if row.application and row.state not in absent)
    assert all(told[key_id] >= 1 for key_id in real)
    secrets = [row for row in rows if row.credential in (*listed.application.credentials, *listed.of_principal)]
    assert sorted(row.credential.key_id for row in secrets) == sorted(real)
    for record in tenant.held:
        assert any(record.uid in [uid for uid, _title in row.records] for row in rows)
    for row in secrets:
        shows = [record for record in tenant.held if record.published.key_id == row.credential.key_id]
        assert not shows or row.state is State.CURRENT
        # What a run would remove is nothing that anybody shows.
        assert row.until is None or row.state in (State.PREVIOUS, State.FOREIGN)
    every = judge(rows, NOW, Limits())
    assert sum(counts(every)["buckets"].values()) == len(rows)
    said = json.dumps([each.as_dict() for each in every])
    assert '"hint"' not in said
    shuffled = list(tenant.held)
    random.shuffle(shuffled)
    again = judge(join(Known(**{**vars(tenant), "held": shuffled})), NOW, Limits())
    assert sorted(map(repr, again)) == sorted(map(repr, every))
