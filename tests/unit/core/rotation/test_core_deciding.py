# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which secrets go, when, and which stay."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import SOON
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.deciding import (
    YOUNG,
    Fate,
    Kept,
    Published,
    Situation,
    contradicts,
    decide,
    hint_of,
    is_left_over,
    marked_by,
    marker,
    other_records,
    sort_out,
    superseded,
    unlisted,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import Policy, is_record_uid
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.application import Credential, format_time
from core_samples import CLIENT_ID, NOW, OBJECT_ID, OURS, RECORD, application, credential, key
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rotation_samples import (
    AT_ONCE,
    CURRENT,
    EMPTY,
    NEW,
    OTHER,
    RUN,
    THEIRS,
    all_of,
    holds,
    know,
    made_before,
    scenes,
    shows,
    sorted_out,
)

# -- names


def test_a_marker_names_the_record_and_the_run():
    assert marker(RECORD, "run") == OURS + "run"
    assert marked_by(credential("x", title=marker(RECORD, "run"))) == RECORD


@pytest.mark.parametrize(
    ("title", "uid"),
    [
        ("", None),
        ("by hand", None),
        ("keeper", None),
        ("keeper/" + RECORD, None),
        ("Keeper/" + RECORD + "/x", None),
        (" " + OURS + "x", None),
        (THEIRS + "x", OTHER),
        (THEIRS, OTHER),
        ("keeper//x", ""),
        ("keeper/no uid/x", "no uid"),
        ("keeper/a/b/c", "a"),
    ],
)
def test_whose_secret_it_is(title, uid):
    assert marked_by(credential("x", title=title)) == uid


def test_only_what_looks_like_a_uid_is_read():
    titles = ["by hand", OURS + "x", THEIRS + "x", THEIRS + "y", "keeper//x", "keeper/no uid/x", f"keeper/{OTHER}x/y"]
    listed = [credential(str(number), title=title) for number, title in enumerate(titles)]
    assert other_records(listed, RECORD) == [OTHER]
    assert [is_record_uid(text) for text in (OTHER, OTHER[:-1], OTHER + "x", "", "a/b" + OTHER[3:])] == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_words_that_hold_a_secrets_place_have_no_hint():
    assert [hint_of(text) for text in ("", "none yet", "x" * 15, "abc8Q~" + "x" * 10)] == ["", "", "", "abc"]


@pytest.mark.parametrize(
    ("key_id", "hint", "item", "answer"),
    [
        ("current", "cur", CURRENT, True),
        ("current", "xyz", CURRENT, True),
        ("other", "cur", CURRENT, False),
        ("", "cur", CURRENT, True),
        ("", "xyz", CURRENT, False),
        ("", "cur", credential("?"), True),
        ("", "", CURRENT, False),
    ],
)
def test_what_a_record_shows(key_id, hint, item, answer):
    assert shows(key_id, hint).shows(item) is answer


@pytest.mark.parametrize("text", ["current", "the id of the secret", "{}", "0"])
def test_a_key_id_that_is_no_guid_names_nothing(text):
    named = Published(RECORD, text, "cur")
    assert named.shows(CURRENT)
    assert not named.shows(credential("another", hint="ano"))


def test_what_stays_says_why_and_until_when():
    assert Kept("a", "a reason").as_dict() == {"key_id": "a", "reason": "a reason"}
    until = {"key_id": "a", "reason": "retire_after", "until": "2026-06-15T12:00:00Z"}
    assert Kept("a", "retire_after", NOW).as_dict() == until
    assert str(Kept("a", "why", NOW)) == "a (why, until 2026-06-15T12:00:00Z)"


# -- which go and which stay


def test_by_default_all_but_the_new_one_go_the_oldest_first_and_the_shown_one_last():
    listed = [credential("b", 4), NEW, CURRENT, credential("a", 900, "by hand")]
    found = sorted_out(listed)
    assert (found.due, found.kept) == (["a", "b", "current"], {})


@pytest.mark.parametrize(
    ("hours_ago", "title", "stays"),
    [
        (-0.001, "by hand", True),
        (0, "by hand", True),
        (0.3, "by hand", True),
        (0.34, "by hand", False),
        (-0.001, OURS + "another-run", True),
        (0.3, OURS + "another-run", True),
        (0.34, OURS + "another-run", False),
        (0.34, THEIRS + "x", True),
    ],
)
def test_what_was_not_seen_before_stays_unless_it_is_surely_older(hours_ago, title, stays):
    listed = [NEW, CURRENT, credential("late", hours_ago, title)]
    found = sorted_out(listed, first=["current"])
    assert ("late" in found.kept, "late" in found.due) == (stays, not stays)


def test_what_was_seen_before_goes_whatever_its_start_says():
    listed = [NEW, CURRENT, credential("a", -3, "of another clock"), credential("b", start=None)]
    assert sorted(sorted_out(listed).due) == ["a", "b", "current"]


def test_what_the_record_named_was_seen_before():
    assert sorted_out([NEW, CURRENT], first=[]).due == ["current"]


def test_without_a_start_nothing_that_is_unknown_goes():
    assert sorted_out([NEW, credential("late", start=None)], first=[]).due == []
    unknown = credential("new", title=RUN, start=None)
    assert sorted_out([unknown, credential("late", 900)], new=unknown, first=[]).due == []


@pytest.mark.parametrize("policy", [Policy(), Policy(retire="none"), Policy(keep_previous=9)])
@pytest.mark.parametrize("hours", [-0.001, 0, 0.001])
def test_what_the_same_run_lost_on_the_way_goes_at_once(hours, policy):
    found = sorted_out([NEW, credential("lost", hours, RUN)], policy, first=[])
    assert (found.left_overs, found.due) == (["lost"], ["lost"])


@pytest.mark.parametrize(
    ("count", "kept"),
    [(0, []), (1, ["current"]), (2, ["current", "c"]), (3, ["b", "current", "c"]), (9, ["a", "b", "c", "current"])],
)
def test_keep_previous_keeps_the_newest_and_the_shown_one_is_that(count, kept):
    listed = [credential("b", 2), credential("c", 1), credential("a", 3), NEW, CURRENT]
    found = sorted_out(listed, Policy(keep_previous=count, retire_after=AT_ONCE))
    assert set(found.kept) == set(kept)
    assert found.due == [name for name in ("a", "b", "c", "current") if name not in kept]


def test_an_expired_one_is_no_previous_secret():
    listed = [NEW, CURRENT, credential("a", 9), credential("b", 1, days=-0.1)]
    found = sorted_out(listed, Policy(keep_previous=2))
    assert (found.due, set(found.kept)) == (["b"], {"a", "current"})


def test_a_left_over_is_no_previous_secret():
    listed = [credential("old", 9), CURRENT, credential("orphan", 1, OURS + "dead"), NEW]
    found = sorted_out(listed, Policy(keep_previous=1))
    assert (found.left_overs, found.due, list(found.kept)) == (["orphan"], ["orphan", "old"], ["current"])


@pytest.mark.parametrize("policy", [Policy(keep_previous=1), Policy(retire="none")], ids=["keep_previous", "none"])
def test_the_left_over_of_an_interrupted_first_run_goes(policy):
    listed = [credential("hand", 900, "by hand"), credential("orphan", 1, OURS + "dead"), NEW]
    found = sorted_out(listed, policy, EMPTY)
    assert (found.due, list(found.kept)) == (["orphan"], ["hand"])


@pytest.mark.parametrize(
    ("retire", "gone"), [("all", ["hand", "ours", "current"]), ("managed", ["ours", "current"]), ("none", [])]
)
def test_which_old_ones_go(retire, gone):
    current = credential("current", 5, "by hand")
    listed = [credential("hand", 9, "by hand"), credential("ours", 7, OURS + "x"), current, NEW]
    found = sorted_out(listed, Policy(retire=retire, retire_after=AT_ONCE))
    assert found.due == gone
    assert set(found.kept) == {"hand", "ours", "current"} - set(gone)


@pytest.mark.parametrize("retire", ["all", "managed", "none"])
@pytest.mark.parametrize("bound", [True, False])
def test_left_overs_go_under_every_policy_and_at_once(retire, bound):
    policy = Policy(retire=retire, retire_after=timedelta(days=90), keep_previous=1)
    listed = [CURRENT, credential("orphan", 1, OURS + "dead"), NEW]
    assert sorted_out(listed, policy, bound=bound).due == ["orphan"]


# -- what interrupted runs have left


@pytest.mark.parametrize(
    ("item", "answer"),
    [
        (credential("x", 1, OURS + "b"), True),
        (credential("x", 5, OURS + "b"), True),
        (credential("x", 5.001, OURS + "b"), False),
        (credential("x", 1, THEIRS + "b"), False),
        (credential("x", 1, "by hand"), False),
        (credential("x", 1, "keeper/" + RECORD), False),
        (credential("x", 1, OURS.upper() + "b"), False),
        (credential("current", 1, OURS + "b"), False),
    ],
)
def test_a_left_over_bears_our_marker_and_is_newer_than_what_the_record_shows(item, answer):
    assert is_left_over(item, know([CURRENT, item])) is answer


@pytest.mark.parametrize(
    ("published", "item", "answer"),
    [
        (EMPTY, credential("x", 900, OURS + "b"), True),
        (EMPTY, credential("x", 900, "by hand"), False),
        (shows("", "abc"), credential("x", 900, OURS + "b", hint="abc"), False),
        (shows("", "abc"), credential("x", 900, OURS + "b", hint="xyz"), True),
        (shows("", "abc"), credential("x", 900, OURS + "b"), False),
    ],
)
def test_where_the_record_names_nothing_every_secret_with_its_marker_is_one(published, item, answer):
    assert is_left_over(item, know([item], published=published)) is answer


@pytest.mark.parametrize(
    ("item", "answer"),
    [
        (credential("x", 9, OURS + "b"), True),
        (credential("x", 10, OURS + "b"), False),
        (credential("x", 11, OURS + "b"), False),
        (credential("x", 9, THEIRS + "b"), False),
        (credential("x", start=None, title=OURS + "b"), False),
    ],
)
def test_where_what_it_names_is_not_listed_the_end_tells_when_that_was_made(item, answer):
    gone = shows(expires=format_time(NOW + timedelta(days=365, hours=-10)))
    assert is_left_over(item, know([item], published=gone)) is answer


@pytest.mark.parametrize("expires", ["", "never", "0001-01-01T00:00:00Z"])
def test_an_end_that_tells_nothing_makes_no_left_over(expires):
    item = credential("x", 1, OURS + "b")
    assert not is_left_over(item, know([item], published=shows(expires=expires)))


# -- is it the record's own application?


@pytest.mark.parametrize(
    ("published", "listed", "answer"),
    [
        (shows(), [CURRENT], False),
        (EMPTY, [credential("hand")], False),
        (shows("", "abc"), [credential("hand", hint="abc")], True),
        (shows(), [credential("hand")], True),
        (shows(expires=made_before(19)), [credential("hand")], False),
        (shows(expires=made_before(21)), [credential("hand")], True),
        (shows(expires="?"), [credential("hand")], True),
        (shows(hint=""), [credential("hand")], True),
    ],
)
def test_a_record_contradicts_an_application_that_lacks_what_it_names(published, listed, answer):
    assert contradicts(Policy(), published, application(*listed), NOW) is answer


@pytest.mark.parametrize("days", [366, 730])
def test_an_end_that_no_run_of_this_policy_would_have_given_does_not_make_a_secret_young(days):
    """The lifetime was lowered, say: the end less the lifetime is a time to come."""
    published = shows(expires=made_before(0, days))
    assert contradicts(Policy(), published, application(credential("hand")), NOW)


def test_while_it_contradicts_only_what_was_made_for_the_record_goes():
    listed = [NEW, credential("hand", 900, "by hand"), credential("ours", 901, OURS + "x")]
    found = sorted_out(listed, published=shows("gone"), bound=False)
    assert (found.due, list(found.kept)) == (["ours"], ["hand"])
    assert "another application" in found.kept["hand"]
    assert sorted_out(listed, published=shows("gone")).due == ["ours", "hand"]


def test_adopting_does_not_help_while_it_contradicts():
    listed = [NEW, credential("theirs", 900, THEIRS + "x")]
    policy = Policy(adopt=(OTHER,), retire_after=AT_ONCE)
    assert sorted_out(listed, policy, shows("gone"), bound=False).due == []
    assert sorted_out(listed, policy, shows("gone")).due == ["theirs"]


def test_a_young_one_that_is_not_listed_stands_for_itself():
    app = application(credential("hand", 900))
    (found,) = unlisted(Policy(), shows(expires=made_before(1)), app, NOW)
    assert (found.key_id, found.start) == (key("current"), NOW - timedelta(minutes=1))
    assert unlisted(Policy(), shows(expires=made_before(1)), application(CURRENT), NOW) == ()
    assert unlisted(Policy(), shows("", expires=made_before(1)), app, NOW) == ()


# -- what others hold


@pytest.mark.parametrize(
    ("holding", "stays"),
    [
        (holds("a"), ["a"]),
        (holds("a", "bbb", CLIENT_ID), ["a"]),
        (holds("", "aaa", CLIENT_ID), ["a", "b"]),
        (holds("", "aaa", OBJECT_ID), ["a", "b"]),
        (holds("", "aaa", "another application"), []),
        (holds("", "aaa"), []),
        (holds("", "", CLIENT_ID), []),
        (holds("", "cur", CLIENT_ID), ["b", "current"]),
    ],
)
def test_what_something_else_holds_stays(holding, stays):
    listed = [credential("a", 9, hint="aaa"), credential("b", 8), CURRENT, NEW]
    found = sorted_out(listed, held=(holding,))
    assert sorted(found.kept) == stays
    assert all("the PAM configuration holds it" in reason for reason in found.kept.values())


def test_what_something_else_holds_does_not_use_up_keep_previous():
    listed = [credential("a", 1, hint="adm"), credential("b", 2, hint="b"), credential("c", 3, hint="c"), NEW]
    found = sorted_out(
        listed, Policy(keep_previous=1, retire_after=AT_ONCE), EMPTY, held=(holds("", "adm", CLIENT_ID),)
    )
    assert (found.due, sorted(found.kept)) == (["c"], ["a", "b"])


def test_a_left_over_is_held_only_where_its_first_characters_say_so():
    listed = [CURRENT, credential("orphan", 1, OURS + "dead"), credential("lost", 1, OURS + "dead", hint="adm"), NEW]
    found = sorted_out(listed, held=(holds("", "adm", CLIENT_ID),))
    assert (found.left_overs, list(found.kept)) == (["orphan"], ["lost"])


# -- what was made for other records


@pytest.mark.parametrize(
    ("adopt", "other", "stays"),
    [
        ((), None, "cannot be seen: adopt that record"),
        ((), shows("current"), "does not show it: adopt that record"),
        ((), shows("theirs"), f"the record {OTHER} shows it"),
        ((OTHER,), None, ""),
        ((OTHER,), shows("current"), ""),
        ((OTHER,), EMPTY, ""),
        ((OTHER,), shows("theirs"), f"the record {OTHER} shows it"),
        ((OTHER,), shows("", "the"), f"the record {OTHER} shows it"),
        ((RECORD,), None, "cannot be seen"),
    ],
)
@pytest.mark.parametrize("retire", ["all", "managed"])
def test_what_was_made_for_another_record(adopt, other, stays, retire):
    listed = [credential("theirs", 900, THEIRS + "x", hint="the"), CURRENT, NEW]
    policy = Policy(adopt=adopt, retire=retire, retire_after=AT_ONCE)
    found = sorted_out(listed, policy, others={OTHER: other})
    assert ("theirs" in found.due) is (not stays)
    assert stays in found.kept.get("theirs", "")


def test_adopting_does_not_help_where_nothing_is_retired():
    listed = [credential("theirs", 900, THEIRS + "x"), CURRENT, NEW]
    assert sorted_out(listed, Policy(adopt=(OTHER,), retire="none")).due == []


@pytest.mark.parametrize("middle", ["", "no uid", OTHER + "x", "a/b"])
def test_a_marker_of_no_record_is_that_of_one_that_cannot_be_seen(middle):
    found = sorted_out([credential("theirs", 900, f"keeper/{middle}/x"), CURRENT, NEW])
    assert "cannot be seen" in found.kept["theirs"]


def test_another_records_secret_does_not_use_up_keep_previous():
    listed = [credential("theirs", 1, THEIRS + "x"), CURRENT, credential("old", 9), NEW]
    found = sorted_out(listed, Policy(keep_previous=1, retire_after=AT_ONCE))
    assert (found.due, sorted(found.kept)) == (["old"], ["current", "theirs"])


# -- from when on


def due_of(name: str, known: Situation, listed: Sequence[Credential]) -> timedelta | None:
    """How long before NOW the secret was superseded."""
    item = next(item for item in listed if item.key_id == key(name))
    decision = decide(item, known, listed)
    return None if decision.due is None else NOW - decision.due + known.policy.retire_after


def test_when_something_took_a_secrets_place():
    listed = [
        credential("a", 50, OURS + "x"),
        credential("b", 40, "by hand"),
        credential("c", 30, OURS + "y"),
        CURRENT,
        credential("hand", 1, "by hand"),
        NEW,
    ]
    known = know(listed, Policy(retire_after=timedelta(days=7)), published_at=NOW - timedelta(seconds=9))
    hours = {name: due_of(name, known, listed) for name in ("a", "b", "c", "current", "hand")}
    assert hours == {
        "a": timedelta(hours=30),
        "b": timedelta(hours=30),
        "c": timedelta(hours=5),
        "current": timedelta(seconds=9),
        "hand": timedelta(seconds=9),
    }


def test_what_is_due():
    listed = [credential("a", 50, OURS + "x"), credential("b", 30, OURS + "y"), CURRENT, NEW]
    found = sorted_out(listed, Policy(retire_after=timedelta(hours=25)))
    assert found.due == ["a"]
    assert found.waits == {"b": NOW + timedelta(hours=20), "current": NOW + timedelta(hours=25)}
    assert sorted_out(listed, Policy(retire_after=timedelta(hours=5))).due == ["a", "b"]
    assert sorted_out(listed, Policy(retire_after=AT_ONCE)).due == ["a", "b", "current"]


def test_an_expired_one_is_due_at_once():
    listed = [credential("a", 6, days=-0.001), credential("b", 1, days=-0.001), CURRENT, NEW]
    found = sorted_out(listed, Policy(retire_after=timedelta(days=90)))
    assert found.due == ["a", "b"]


def test_a_shown_one_that_has_expired_is_due_at_once():
    listed = [credential("current", 9000, days=-0.001), NEW]
    assert sorted_out(listed, Policy(retire_after=timedelta(days=90))).due == ["current"]


def test_the_wait_is_for_the_last_of_what_is_due_soon():
    def until(retire_after: float) -> Any:
        listed = [CURRENT, NEW, credential("a", 50, OURS + "x")]
        known = know(listed, Policy(retire_after=timedelta(seconds=retire_after)))
        return sort_out(known, listed).wait_until(NOW)

    assert until(0) is None
    assert until(30) == NOW + timedelta(seconds=30)
    assert until(SOON) == NOW + timedelta(seconds=SOON)
    assert until(SOON + 1) is None
    assert until(5 * 3600 + 60) == NOW + timedelta(seconds=60), "what is superseded since five hours"


def test_keep_previous_and_retire_after_add_up():
    listed = [credential("a", 50, OURS + "x"), credential("b", 30, OURS + "y"), CURRENT, NEW]
    found = sorted_out(listed, Policy(retire_after=timedelta(hours=25), keep_previous=1))
    assert (found.due, list(found.kept), list(found.waits)) == (["a"], ["current"], ["b"])


@settings(max_examples=100)
@given(st.integers(0, 90 * 24))
def test_the_longer_the_wait_the_less_is_due(hours):
    listed = [credential(name, 100 * number, OURS + name) for number, name in enumerate("abcdefg", 1)]
    listed += [CURRENT, NEW]
    shorter = sorted_out(listed, Policy(retire_after=timedelta(hours=hours))).due
    longer = sorted_out(listed, Policy(retire_after=timedelta(hours=min(90 * 24, hours + 50)))).due
    assert set(longer) <= set(shorter)


# -- a run that needs no new secret


def test_it_keeps_what_is_not_surely_older_than_the_shown_one():
    listed = [
        CURRENT,
        credential("a", 5.3, "by hand"),
        credential("b", 5.34, "by hand"),
        credential("c", 5.001, OURS + "x"),
        credential("d", 4, "by hand"),
        credential("orphan", 4, OURS + "dead"),
    ]
    found = sorted_out(listed, new=CURRENT)
    assert sorted(found.due) == ["b", "c", "orphan"]
    assert found.left_overs == ["orphan"]
    assert sorted(found.kept) == ["a", "d"]


def test_it_goes_by_the_key_id_and_not_by_the_object():
    again = credential("current", 5, OURS + "published", hint="cur")
    found = sorted_out([again, credential("orphan", 1, OURS + "dead")], new=CURRENT)
    assert (found.due, found.kept) == (["orphan"], {})


def test_it_leaves_alone_what_was_made_after_its_first_list():
    found = sorted_out([CURRENT, credential("orphan", 0.1, OURS + "alive")], new=CURRENT, first=["current"])
    assert (found.due, list(found.kept)) == ([], ["orphan"])


# -- any set of secrets


@settings(max_examples=200)
@given(scenes())
def test_the_one_that_stays_stays_and_the_rest_is_partitioned(scene):
    known, listed = scene
    found = sort_out(known, listed)
    gone, stay = [item.key_id for item in all_of(found)], [one.key_id for one in found.kept]
    assert known.new.key_id not in gone
    assert sorted(gone + stay) == sorted({item.key_id for item in listed} - {known.new.key_id})
    assert all(one.reason for one in (*found.kept, *found.left_overs, *found.old))


@settings(max_examples=200)
@given(scenes())
def test_nothing_that_may_have_been_made_later_goes(scene):
    known, listed = scene
    for item in all_of(sort_out(known, listed)):
        surely_before = item.start is not None and known.new.start is not None and item.start < known.new.start - YOUNG
        named = item.key_id == known.published.key_id
        assert item.key_id in known.first or named or surely_before or item.display_name == RUN


@settings(max_examples=200)
@given(scenes())
def test_what_is_held_or_of_another_record_never_goes(scene):
    known, listed = scene
    for item in all_of(sort_out(known, listed)):
        assert item.display_name != "keeper//c"
        if item.display_name == RUN:
            continue
        assert item.display_name != THEIRS + "b" or (known.policy.adopt and known.bound)
        shown = known.others.get(OTHER)
        assert item.display_name != THEIRS + "b" or shown is None or not shown.shows(item)
        for holding in known.held:
            assert not holding.holds(item, known.application) or (is_left_over(item, known) and not item.hint)


@settings(max_examples=200)
@given(scenes())
def test_of_the_previous_ones_the_newest_stay(scene):
    known, listed = scene
    found = sort_out(known, listed)
    by_id = {item.key_id: item for item in listed}
    kept = [by_id[one.key_id] for one in found.kept if one.reason == "keep_previous"]
    previous = [one.credential for one in found.old if not known.expired(one.credential)]
    number = known.policy.keep_previous
    assert len(kept) <= number
    assert len(kept) == number or not previous
    assert not number or known.shown not in previous
    long_ago = NOW - timedelta(days=9999)
    for stays in kept:
        if stays is not known.shown:
            assert all((goes.start or long_ago) <= (stays.start or long_ago) for goes in previous)


@settings(max_examples=200)
@given(scenes())
def test_nothing_goes_before_it_is_superseded_and_as_much_time_has_passed(scene):
    known, listed = scene
    found = sort_out(known, listed)
    for one in found.old:
        assert one.due is not None
        if one.due <= NOW and not known.expired(one.credential):
            assert superseded(one.credential, known, listed) <= NOW - known.policy.retire_after
    assert all(one.due is None and one.fate is Fate.LEFT_OVER for one in found.left_overs)


@settings(max_examples=200)
@given(scenes(), st.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(scene, randomness):
    known, listed = scene
    first = sort_out(known, listed)
    shuffled = list(listed)
    randomness.shuffle(shuffled)
    second = sort_out(known, shuffled)
    assert (first.left_overs, first.old) == (second.left_overs, second.old)
    assert set(first.kept) == set(second.kept)


@settings(max_examples=200)
@given(scenes())
@example((know([credential("a", 1), NEW]), [credential("a", 1), NEW]))
def test_a_secret_that_is_listed_twice_is_one(scene):
    known, listed = scene
    assert sort_out(known, [*listed, *listed]) == sort_out(known, listed)
