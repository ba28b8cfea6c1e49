# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be done to an application: when to rotate, what is refused, which secrets go and which stay."""

from __future__ import annotations

from datetime import timedelta

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput, Refused
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import CREATE, PUBLISH
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.plan import (
    FINISH,
    IN_FLIGHT,
    NOTHING,
    ROTATE,
    Policy,
    Published,
    is_orphan,
    marker,
    plan,
    policy_of,
    sort_out,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.application import Credential
from core_samples import NOW, OURS, RECORD, application, credential, labelled
from hypothesis import example, given, settings
from hypothesis import strategies as st

EXPIRING = Policy(rotate="expiring")
SHOWS_CURRENT = Published(RECORD, "current", "cur")
EMPTY = Published(RECORD, "", "")
OTHER_RECORD = "keeper/AnotherRecordsUid00000/"
NEW = credential("new", 0, OURS + "this-run")


def ids(credentials) -> list[str]:
    return [each.key_id for each in credentials]


def sorted_out(
    listed, policy=None, published=SHOWS_CURRENT, new: Credential | None = NEW, before=None, admin=(), now=NOW
) -> tuple[list[str], dict[str, str]]:
    """The key ids to remove, and those to keep with the reasons; by default all but the new one were seen before."""
    seen = [each.key_id for each in listed if each is not new] if before is None else before
    retire, keep = sort_out(policy or Policy(), published, listed, new, seen, admin, now)
    return ids(retire), {each.key_id: each.reason for each in keep}


# -- the policy


def test_the_defaults_are_those_of_the_design():
    assert Policy() == Policy("always", 30, 365, 0, "all", True, 120)


@pytest.mark.parametrize(
    "option",
    [
        {"lifetime_days": 0},
        {"lifetime_days": 36501},
        {"keep_previous": -1},
        {"keep_previous": 1001},
        {"verify_timeout": 0},
        {"verify_timeout": 3601},
        {"min_days_left": -1},
        {"retire": "some"},
        {"retire": ""},
        {"rotate": "never"},
    ],
)
def test_a_policy_out_of_range_is_bad_input_that_names_the_option(option):
    with pytest.raises(BadInput, match=next(iter(option))):
        Policy(**option)


@pytest.mark.parametrize(
    ("values", "policy"),
    [
        ({}, Policy()),
        ({"lifetime_days": "90"}, Policy(lifetime_days=90)),
        ({"Lifetime Days": " 90 "}, Policy(lifetime_days=90)),
        ({"lifetime_days": 90}, Policy(lifetime_days=90)),
        ({"lifetime_days": ["90"]}, Policy(lifetime_days=90)),
        ({"keep_previous": "1", "verify_timeout": "300"}, Policy(keep_previous=1, verify_timeout=300)),
        ({"retire": "Managed"}, Policy(retire="managed")),
        ({"verify": "No"}, Policy(verify=False)),
        ({"verify": "0"}, Policy(verify=False)),
        ({"verify": False}, Policy(verify=False)),
        ({"verify": "TRUE"}, Policy()),
        ({"lifetime_days": "", "keep_previous": " ", "retire": [], "verify": None, "verify_timeout": [""]}, Policy()),
        ({"rotate": "expiring", "min_days_left": "1"}, Policy()),
    ],
)
def test_the_policy_of_a_record(values, policy):
    assert policy_of(labelled(**values)) == policy


@pytest.mark.parametrize("name", ["lifetime_days", "keep_previous", "verify_timeout"])
@pytest.mark.parametrize("text", ["ten", "1.5", "-1", "+5", "1_0", "٣", "²", "1e2", "0x10", "365 days", "9" * 10, True])
def test_a_number_that_cannot_be_read_is_no_default(name, text):
    with pytest.raises(BadInput) as caught:
        policy_of(labelled(**{name: text}))
    assert name in caught.value.message
    assert RECORD in caught.value.message


@pytest.mark.parametrize(
    ("name", "text"),
    [("verify", "maybe"), ("verify", "2"), ("retire", "some"), ("lifetime_days", "0"), ("verify_timeout", "9999")],
)
def test_a_value_that_cannot_be_read_is_no_default(name, text):
    with pytest.raises(BadInput) as caught:
        policy_of(labelled(**{name: text}))
    assert name in caught.value.message
    assert RECORD in caught.value.message


@settings(max_examples=80)
@given(st.dictionaries(st.sampled_from(["lifetime_days", "keep_previous", "verify", "retire"]), st.text(max_size=6)))
def test_any_record_has_a_policy_or_is_bad_input(values):
    try:
        policy = policy_of(labelled(**values))
    except BadInput:
        return
    for name, text in values.items():
        assert (
            str(getattr(policy, name)).lower() == text.strip().lower()
            or not text.strip()
            or name == "verify"
            or (getattr(policy, name) == int(text))
        )


# -- when


def test_by_default_every_run_rotates():
    todo = plan(Policy(lifetime_days=90), SHOWS_CURRENT, application(credential("current", 5, hint="cur")))
    assert (todo.action, ids(todo.retire), todo.make_room) == (ROTATE, ["current"], ())
    assert todo.end == NOW + timedelta(days=90)


@pytest.mark.parametrize(
    ("days", "action"),
    [(31, NOTHING), (30, NOTHING), (30 - 1e-9, ROTATE), (29, ROTATE), (0, ROTATE), (-5, ROTATE)],
)
def test_expiring_rotates_from_the_boundary_on(days, action):
    shown = application(credential("current", 5, OURS + "x", days=days, hint="cur"))
    assert plan(EXPIRING, SHOWS_CURRENT, shown).action == action


def test_with_no_days_left_only_what_has_expired_is_rotated():
    never = Policy(rotate="expiring", min_days_left=0)
    assert plan(never, SHOWS_CURRENT, application(credential("current", days=0.1, hint="cur"))).action == NOTHING
    assert plan(never, SHOWS_CURRENT, application(credential("current", days=-0.1, hint="cur"))).action == ROTATE


@pytest.mark.parametrize(
    ("published", "shown", "reason"),
    [
        (EMPTY, credential("current"), "no secret yet"),
        (Published(RECORD, "current", ""), credential("current"), "no secret yet"),
        (Published(RECORD, "", "cur"), credential("current"), "no secret yet"),
        (SHOWS_CURRENT, credential("another"), "has no secret current"),
        (SHOWS_CURRENT, credential("current", hint="oth"), "not the one it names"),
        (SHOWS_CURRENT, Credential("current", "", NOW, None, "", "cur"), "an unknown time"),
    ],
)
def test_expiring_rotates_what_is_missing_or_wrong(published, shown, reason):
    todo = plan(EXPIRING, published, application(shown))
    assert todo.action == ROTATE
    assert reason in todo.reason


@pytest.mark.parametrize("hint", ["cur", ""])
def test_a_matching_or_unknown_hint_is_no_reason_to_rotate(hint):
    assert plan(EXPIRING, SHOWS_CURRENT, application(credential("current", hint=hint))).action == NOTHING


def test_a_key_id_is_compared_without_case():
    assert plan(EXPIRING, Published(RECORD, "CURRENT ", "cur"), application(credential("current"))).action == NOTHING


def test_what_an_earlier_run_left_is_finished_without_a_new_secret():
    shown = application(credential("current", 5, OURS + "x"), credential("old", 500, "by hand"))
    todo = plan(EXPIRING, SHOWS_CURRENT, shown)
    assert (todo.action, ids(todo.retire)) == (FINISH, ["old"])


def test_what_the_policy_keeps_is_no_reason_to_finish():
    shown = application(credential("current", 5, OURS + "x"), credential("old", 500, "by hand"))
    todo = plan(Policy(rotate="expiring", keep_previous=1), SHOWS_CURRENT, shown)
    assert (todo.action, [each.key_id for each in todo.keep]) == (NOTHING, ["old"])


# -- refusals before anything changes


@pytest.mark.parametrize("policy", [Policy(), EXPIRING])
def test_a_read_only_record_is_refused(policy):
    with pytest.raises(Refused, match="read-only") as caught:
        plan(policy, Published(RECORD, "current", "cur", editable=False), application(credential("current")))
    assert RECORD in caught.value.message


@pytest.mark.parametrize("count", [0, 1])
def test_two_secrets_are_room_enough_for_one_more(count):
    shown = application(*[credential(f"k{index}", 5) for index in range(count)], two_secrets=True)
    assert plan(Policy(), SHOWS_CURRENT, shown).make_room == ()


def test_an_application_that_is_full_is_refused():
    shown = application(credential("current", 5), credential("other", 3), two_secrets=True)
    with pytest.raises(Refused, match="no room") as caught:
        plan(Policy(), SHOWS_CURRENT, shown)
    assert "interrupted" not in caught.value.message


def test_a_full_application_is_not_refused_when_nothing_is_due():
    shown = application(credential("current", 5), credential("other", 3, "by hand"), two_secrets=True)
    assert plan(EXPIRING, SHOWS_CURRENT, shown).action == NOTHING


def test_a_stale_orphan_makes_room():
    shown = application(credential("current", 5), credential("orphan", 1, OURS + "dead"), two_secrets=True)
    todo = plan(Policy(), SHOWS_CURRENT, shown)
    assert ids(todo.make_room) == ["orphan"]
    assert ids(todo.retire) == ["current", "orphan"]


def test_an_orphan_of_a_moment_ago_may_still_be_published():
    shown = application(credential("current", 5), credential("orphan", 0.1, OURS + "alive"), two_secrets=True)
    with pytest.raises(Refused, match="a later run removes it by itself"):
        plan(Policy(), SHOWS_CURRENT, shown)


@pytest.mark.parametrize("name", ["", "by hand", OTHER_RECORD + "x", "keeper/" + RECORD, OURS.upper() + "x"])
def test_room_is_never_made_by_removing_what_is_not_ours(name):
    shown = application(credential("current", 5), credential("other", 1, name), two_secrets=True)
    with pytest.raises(Refused, match="no room"):
        plan(Policy(), SHOWS_CURRENT, shown)


@pytest.mark.parametrize("other", [credential("older", 9, OURS + "x"), credential("?", name=OURS + "x", start=None)])
def test_room_is_never_made_by_removing_what_may_have_been_published(other):
    with pytest.raises(Refused, match="no room"):
        plan(Policy(), SHOWS_CURRENT, application(credential("current", 5), other, two_secrets=True))


def test_the_orphan_of_an_interrupted_first_run_makes_room():
    shown = application(credential("hand", 900, "by hand"), credential("orphan", 1, OURS + "dead"), two_secrets=True)
    assert ids(plan(Policy(), EMPTY, shown).make_room) == ["orphan"]


# -- which go and which stay


def test_by_default_all_but_the_new_one_go_the_oldest_first():
    listed = [credential("b", 20), NEW, credential("current", 5), credential("a", 900, "by hand", days=-3)]
    assert sorted_out(listed) == (["a", "b", "current"], {})


def test_before_it_is_made_the_plan_is_the_same():
    listed = [credential("b", 20), credential("current", 5)]
    assert sorted_out(listed, new=None) == (["b", "current"], {})


@pytest.mark.parametrize(
    ("hours_ago", "name", "stays"),
    [
        (-0.001, "by hand", True),
        (0, "by hand", True),
        (0.1, "by hand", True),
        (1, "by hand", False),
        (-0.001, OURS + "another-run", True),
        (0, OURS + "another-run", True),
        (0.001, OURS + "another-run", False),
        (-0.001, OTHER_RECORD + "x", True),
        (0.1, OTHER_RECORD + "x", True),
    ],
)
def test_what_was_not_seen_before_stays_unless_it_is_surely_older(hours_ago, name, stays):
    listed = [NEW, credential("current", 5), credential("late", hours_ago, name)]
    retire, keep = sorted_out(listed, before=["current"])
    assert ("late" in keep, "late" in retire) == (stays, not stays)


def test_what_was_seen_before_goes_whatever_its_start_says():
    listed = [NEW, credential("current", 5), credential("ahead", -3, "of another clock"), credential("?", start=None)]
    assert sorted(sorted_out(listed)[0]) == ["?", "ahead", "current"]


def test_without_a_start_nothing_that_is_unknown_goes():
    assert sorted_out([NEW, credential("late", start=None)], before=[])[0] == []
    unknown = credential("new", name=OURS + "this-run", start=None)
    assert sorted_out([unknown, credential("late", 900)], new=unknown, before=[])[0] == []


def test_what_the_same_run_lost_on_the_way_goes_at_once():
    for hours in (-0.001, 0, 0.001):
        listed = [NEW, credential("lost", hours, NEW.display_name)]
        for policy in (Policy(), Policy(retire="none"), Policy(keep_previous=9)):
            assert sorted_out(listed, policy, before=[]) == (["lost"], {})


@pytest.mark.parametrize(
    ("count", "kept"), [(0, []), (1, ["c"]), (2, ["c", "b"]), (3, ["c", "b", "a"]), (9, ["c", "b", "a"])]
)
def test_keep_previous_keeps_the_newest(count, kept):
    listed = [credential("b", 2), credential("c", 1), credential("a", 3), NEW]
    retire, keep = sorted_out(listed, Policy(keep_previous=count))
    assert list(keep) == kept
    assert retire == [key for key in "abc" if key not in kept]


def test_an_orphan_is_no_previous_secret():
    listed = [credential("older", 9), credential("current", 5), credential("orphan", 1, OURS + "dead"), NEW]
    retire, keep = sorted_out(listed, Policy(keep_previous=1))
    assert (retire, list(keep)) == (["older", "orphan"], ["current"])


@pytest.mark.parametrize("policy", [Policy(keep_previous=1), Policy(retire="none")], ids=["keep_previous", "none"])
def test_the_orphan_of_an_interrupted_first_run_goes(policy):
    listed = [credential("in use", 900, "by hand"), credential("orphan", 1, OURS + "dead"), NEW]
    retire, keep = sorted_out(listed, policy, EMPTY)
    assert (retire, list(keep)) == (["orphan"], ["in use"])


@pytest.mark.parametrize(
    ("retire", "gone"),
    [
        ("all", ["theirs", "other", "ours", "current"]),
        ("managed", ["ours", "current"]),
        ("none", []),
    ],
)
def test_which_old_ones_go(retire, gone):
    listed = [
        credential("theirs", 9, "by hand"),
        credential("other", 8, OTHER_RECORD + "x"),
        credential("ours", 7, OURS + "x"),
        credential("current", 5, "by hand"),
        NEW,
    ]
    removed, keep = sorted_out(listed, Policy(retire=retire))
    assert removed == gone
    assert set(keep) == {"theirs", "other", "ours", "current"} - set(gone)


@pytest.mark.parametrize("retire", ["all", "managed", "none"])
def test_orphans_go_under_every_policy(retire):
    listed = [credential("current", 5), credential("orphan", 1, OURS + "dead"), NEW]
    assert "orphan" in sorted_out(listed, Policy(retire=retire))[0]


def test_an_orphan_is_ours_newer_than_what_the_record_shows_and_not_that():
    current = credential("current", 5, OURS + "a")
    assert is_orphan(credential("x", 1, OURS + "b"), SHOWS_CURRENT, current)
    assert is_orphan(credential("x", 5, OURS + "b"), SHOWS_CURRENT, current)
    assert not is_orphan(credential("x", 6, OURS + "b"), SHOWS_CURRENT, current)
    assert not is_orphan(credential("x", 1, OTHER_RECORD), SHOWS_CURRENT, current)
    assert not is_orphan(current, SHOWS_CURRENT, current)
    assert marker(RECORD, "run") == OURS + "run"


@pytest.mark.parametrize(
    ("admin", "stays"),
    [
        ((), []),
        (("adm",), ["admins", "unknown"]),
        (("cur", "adm"), ["admins", "current", "unknown"]),
        (("xyz",), ["unknown"]),
    ],
)
def test_the_secret_that_the_admin_application_signs_in_with_stays(admin, stays):
    listed = [
        credential("admins", 9, hint="adm"),
        credential("unknown", 8),
        credential("current", 5, hint="cur"),
        credential("orphan", 1, OURS + "dead", hint="orp"),
        NEW,
    ]
    retire, keep = sorted_out(listed, admin=admin)
    assert sorted(keep) == stays
    assert "orphan" in retire


def test_the_admins_secret_does_not_use_up_keep_previous():
    listed = [credential("admins", 1, hint="adm"), credential("b", 2, hint="b"), credential("a", 3, hint="a"), NEW]
    retire, keep = sorted_out(listed, Policy(keep_previous=1), admin=("adm",))
    assert (retire, sorted(keep)) == (["a"], ["admins", "b"])


def test_equal_starts_are_ordered_by_key_id_and_prove_nothing():
    listed = [credential("b", 1), credential("a", 1), credential("c", 1), NEW]
    assert sorted_out(listed, Policy(keep_previous=1)) == (["a", "b"], {"c": "keep_previous"})
    assert sorted_out([NEW, credential("same", 0, OURS + "another-run")], before=[])[0] == []


# -- finishing what an earlier run left

CURRENT = credential("current", 5, OURS + "published", hint="cur")
MINUTES = IN_FLIGHT.total_seconds() / 60


@pytest.mark.parametrize(("minutes", "goes"), [(MINUTES + 1, True), (MINUTES, False), (1, False), (-1, False)])
def test_finishing_leaves_alone_what_another_run_may_be_about_to_publish(minutes, goes):
    listed = [CURRENT, credential("orphan", minutes / 60, OURS + "dead")]
    retire, keep = sorted_out(listed, new=CURRENT, before=[])
    assert (retire, list(keep)) == ((["orphan"], []) if goes else ([], ["orphan"]))


def test_finishing_goes_by_the_key_id_and_not_by_the_object():
    read_again = credential("current", 5, OURS + "published", hint="cur")
    listed = [CURRENT, read_again, credential("orphan", 1, OURS + "dead")]
    assert sorted_out(listed, new=CURRENT, before=[]) == (["orphan"], {})


def test_finishing_removes_old_ones_and_nothing_that_came_later():
    listed = [CURRENT, credential("old", 9, "by hand"), credential("later", 4, "by hand"), credential("close", 5.1)]
    retire, keep = sorted_out(listed, new=CURRENT, before=[])
    assert (retire, sorted(keep)) == (["old"], ["close", "later"])


@pytest.mark.parametrize("seconds", [600, 3600])
def test_finishing_leaves_alone_what_a_patient_run_may_still_publish(seconds):
    try:
        patient = Policy(verify_timeout=seconds)
    except BadInput:
        return
    made, proven = CREATE, seconds
    listed = [CURRENT, credential("in flight", (made + proven + PUBLISH - 1) / 3600, OURS + "patient")]
    assert sorted_out(listed, patient, new=CURRENT, before=[])[0] == []


# -- any set of secrets

NAMES = st.sampled_from(["", "by hand", OURS + "a", OURS + "this-run", OTHER_RECORD + "b"])
STARTS = st.none() | st.integers(-2000, 2000).map(lambda seconds: NOW + timedelta(seconds=seconds))


@st.composite
def scenes(draw):
    """Secrets of an application with the new one among them, and everything else that the decision depends on."""
    keys = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=7))
    others = [
        Credential(key, draw(NAMES), draw(STARTS), None, "", draw(st.sampled_from(["", "adm", "cur"]))) for key in keys
    ]
    new = Credential("new", OURS + "this-run", draw(STARTS), None, "", "new")
    current = draw(st.sampled_from(["", "gone", *keys]))
    policy = Policy(
        keep_previous=draw(st.integers(0, 4)),
        retire=draw(st.sampled_from(["all", "managed", "none"])),
    )
    seen = draw(st.lists(st.sampled_from(keys), unique=True)) if keys else []
    admin = draw(st.sampled_from([(), ("adm",), ("cur", "adm")]))
    return policy, Published(RECORD, current, "cur"), others, new, seen, admin


@settings(max_examples=200)
@given(scenes())
def test_the_new_one_stays_and_the_rest_is_partitioned(scene):
    policy, published, others, new, seen, admin = scene
    retire, keep = sort_out(policy, published, [*others, new], new, seen, admin, NOW)
    gone, stay = ids(retire), [each.key_id for each in keep]
    assert "new" not in gone
    assert sorted(gone + stay) == sorted(ids(others))
    assert all(each.reason for each in keep)


@settings(max_examples=200)
@given(scenes())
def test_nothing_that_may_have_been_made_later_goes(scene):
    policy, published, others, new, seen, admin = scene
    retire, _keep = sort_out(policy, published, [*others, new], new, seen, admin, NOW)
    for item in retire:
        surely_before = item.start is not None and new.start is not None and item.start < new.start
        assert item.key_id in seen or surely_before or item.display_name == new.display_name


@settings(max_examples=200)
@given(scenes())
def test_the_admins_secret_never_goes(scene):
    policy, published, others, new, seen, _admin = scene
    retire, _keep = sort_out(policy, published, [*others, new], new, seen, ("adm",), NOW)
    assert not [item for item in retire if item.hint == "adm" and item.display_name != new.display_name]


@settings(max_examples=200)
@given(scenes())
def test_of_the_previous_ones_the_newest_stay(scene):
    policy, published, others, new, seen, admin = scene
    retire, keep = sort_out(policy, published, [*others, new], new, seen, admin, NOW)
    by_id = {item.key_id: item for item in others}
    kept = [by_id[each.key_id] for each in keep if each.reason == "keep_previous"]
    current = by_id.get(published.key_id)
    previous = [
        item for item in retire if item.display_name != new.display_name and not is_orphan(item, published, current)
    ]
    assert len(kept) <= policy.keep_previous
    assert len(kept) == policy.keep_previous or not previous
    long_ago = NOW - timedelta(days=9999)
    for stays in kept:
        assert all((goes.start or long_ago) <= (stays.start or long_ago) for goes in previous)


@settings(max_examples=200)
@given(scenes(), st.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(scene, randomness):
    policy, published, others, new, seen, admin = scene
    listed = [*others, new]
    first = sort_out(policy, published, listed, new, seen, admin, NOW)
    randomness.shuffle(listed)
    second = sort_out(policy, published, listed, new, reversed(seen), admin, NOW)
    assert first[0] == second[0]
    assert set(first[1]) == set(second[1])


@settings(max_examples=200)
@given(scenes())
@example((Policy(), Published(RECORD, "a", "cur"), [credential("a", 1)], NEW, ["a"], ()))
def test_a_secret_that_is_listed_twice_is_one(scene):
    policy, published, others, new, seen, admin = scene
    once = sort_out(policy, published, [*others, new], new, seen, admin, NOW)
    assert sort_out(policy, published, [*others, new, *others, new], new, seen, admin, NOW) == once


@settings(max_examples=200)
@given(scenes())
def test_what_check_mode_says_is_what_is_done_when_nobody_interferes(scene):
    policy, published, others, _new, _seen, admin = scene
    everything = [item for item in others if item.display_name != NEW.display_name]
    known = ids(everything)
    planned = sort_out(policy, published, everything, None, known, admin, NOW)
    assert planned == sort_out(policy, published, [*everything, NEW], NEW, known, admin, NOW)
