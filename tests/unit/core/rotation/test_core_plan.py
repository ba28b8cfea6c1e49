# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When to rotate, what is refused before anything changes, and what makes room."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput, Refused
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import SOON
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.deciding import (
    Fate,
    Kept,
    Published,
    sort_out,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.plan import (
    KEEP,
    ROTATE,
    no_room,
    plan,
    room,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import Policy
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.application import Credential, format_time
from core_samples import NOW, OURS, RECORD, credential, key
from hypothesis import given, settings
from rotation_samples import (
    AT_ONCE,
    CURRENT,
    EMPTY,
    NAMES,
    NEW,
    OTHER,
    RUN,
    THEIRS,
    WAIT,
    all_of,
    holds,
    know,
    scenes,
    shows,
)

EXPIRING = Policy(rotate="expiring")


# -- when


def test_by_default_every_run_rotates():
    todo = plan(know([CURRENT], Policy(lifetime_days=90), new=None))
    assert (todo.action, todo.reason, todo.end) == (ROTATE, "every run rotates", NOW + timedelta(days=90))
    assert todo.outlook.due(NOW) == []
    assert todo.outlook.due(NOW + WAIT) == [CURRENT]


@pytest.mark.parametrize(
    ("days", "action"), [(31, KEEP), (30, KEEP), (30 - 1e-9, ROTATE), (29, ROTATE), (0, ROTATE), (-5, ROTATE)]
)
def test_expiring_rotates_from_the_boundary_on(days, action):
    shown = credential("current", 5, OURS + "x", days=days, hint="cur")
    assert plan(know([shown], EXPIRING, new=None)).action == action


@pytest.mark.parametrize("text", ["current", "the id of the secret", "{}", "0"])
def test_a_key_id_that_is_no_guid_names_nothing(text):
    named = Published(RECORD, text, "cur")
    assert plan(know([CURRENT], EXPIRING, named, new=None)).reason == "the record holds no secret yet"


def test_with_no_days_left_only_what_has_expired_is_rotated():
    never = Policy(rotate="expiring", min_days_left=0)
    assert plan(know([credential("current", days=0.1, hint="cur")], never, new=None)).action == KEEP
    assert plan(know([credential("current", days=-0.1, hint="cur")], never, new=None)).action == ROTATE


@pytest.mark.parametrize(
    ("published", "shown", "reason"),
    [
        (EMPTY, credential("current"), "no secret yet"),
        (shows(hint=""), credential("current"), "no secret yet"),
        (shows(""), credential("current"), "no secret yet"),
        (shows(), credential("another"), "has no secret " + key("current")),
        (shows(), credential("current", hint="oth"), "not the one it names"),
        (shows(), Credential(key("current"), "", NOW, None, "", "cur"), "an unknown time"),
    ],
)
def test_expiring_rotates_what_is_missing_or_wrong(published, shown, reason):
    todo = plan(know([shown], EXPIRING, published, new=None))
    assert todo.action == ROTATE
    assert reason in todo.reason


@pytest.mark.parametrize("hint", ["cur", ""])
def test_a_matching_or_unknown_hint_is_no_reason_to_rotate(hint):
    assert plan(know([credential("current", hint=hint)], EXPIRING, new=None)).action == KEEP


def test_a_key_id_is_compared_without_case():
    named = Published(RECORD, " {" + key("current").upper() + "} ", "cur")
    assert plan(know([CURRENT], EXPIRING, named, new=None)).action == KEEP


def test_what_is_so_young_that_it_may_not_be_listed_yet_is_no_reason_to_rotate():
    young = shows(expires=format_time(NOW + timedelta(days=365, minutes=-1)))
    todo = plan(know([credential("old", 900)], EXPIRING, young, new=None))
    assert (todo.action, [item.key_id for item in todo.outlook.due(NOW)]) == (KEEP, [key("old")])


def test_what_an_earlier_run_left_goes_without_a_new_secret():
    todo = plan(know([CURRENT, credential("old", 500, "by hand")], EXPIRING, new=None))
    assert (todo.action, todo.outlook.due(NOW)) == (KEEP, [credential("old", 500, "by hand")])


def test_a_run_that_needs_no_new_secret_removes_neither_the_shown_one_nor_what_came_after_it():
    todo = plan(know([CURRENT, credential("hand", 1, "by hand")], EXPIRING, new=None))
    assert todo.outlook.due(NOW + timedelta(days=900)) == []
    assert [one.key_id for one in todo.outlook.stays(NOW)] == [key("hand")]


def test_what_the_policy_keeps_is_named():
    shown = [CURRENT, credential("old", 500, "by hand")]
    todo = plan(know(shown, Policy(rotate="expiring", keep_previous=1), new=None))
    assert (todo.action, todo.outlook.stays(NOW)) == (KEEP, [Kept(key("old"), "keep_previous")])


# -- refusals before anything changes


@pytest.mark.parametrize("policy", [Policy(), EXPIRING])
def test_a_read_only_record_is_refused(policy):
    with pytest.raises(Refused, match="read-only") as caught:
        plan(know([CURRENT], policy, shows(editable=False), new=None))
    assert RECORD in caught.value.message


@pytest.mark.parametrize("policy", [Policy(keep_previous=2), Policy(retire="none"), Policy(keep_previous=9)])
def test_a_policy_that_never_fits_two_secrets_is_refused(policy):
    with pytest.raises(Refused, match="can never be rotated with"):
        plan(know([CURRENT], policy, two_secrets=True, new=None))
    plan(know([CURRENT], policy, new=None))


@pytest.mark.parametrize("policy", [Policy(), Policy(keep_previous=1), Policy(retire="managed")])
def test_other_policies_fit(policy):
    assert plan(know([CURRENT], policy, two_secrets=True, new=None)).action == ROTATE


def test_a_lifetime_beyond_the_calendar_is_bad_input():
    far = replace(know([CURRENT], new=None), now=NOW.replace(year=9999))
    with pytest.raises(BadInput, match="lifetime_days"):
        plan(far)


# -- room on an application that is full


def make_room(*listed: Credential, **more: Any) -> str:
    known = know(listed, more.pop("policy", Policy()), more.pop("published", None), None, two_secrets=True, **more)
    decision, until = room(known, listed)
    name = next(name for name in NAMES if key(name) == decision.credential.key_id)
    return name if until is None else f"{name} in {(until - NOW).total_seconds():.0f} s"


def test_a_left_over_goes_first():
    orphan, expired = credential("orphan", 1, OURS + "dead"), credential("current", 9000, days=-1, hint="cur")
    assert make_room(CURRENT, orphan) == "orphan"
    assert make_room(expired, orphan) == "orphan"
    assert make_room(CURRENT, orphan, policy=Policy(keep_previous=1, retire_after=timedelta(days=90))) == "orphan"
    assert make_room(credential("hand", 900), orphan, published=EMPTY) == "orphan"


@pytest.mark.parametrize("title", ["by hand", OURS + "x", THEIRS + "x"])
def test_then_what_has_expired_whichever_it_is(title):
    ended = credential("other", 9000, title, days=-1)
    assert make_room(CURRENT, ended) == "other"
    assert make_room(CURRENT, ended, held=(holds("other"),), policy=Policy(retire="managed")) == "other"


def test_also_the_shown_one_where_it_has_expired():
    assert make_room(credential("current", 9000, days=-1, hint="cur"), credential("hand", 1, "by hand")) == "current"


def test_of_two_that_have_expired_the_shown_one_stays():
    assert make_room(credential("current", 9000, days=-1), credential("old", 99, days=-1)) == "old"


@pytest.mark.parametrize("title", ["by hand", OURS + "x"])
def test_then_an_old_one_that_is_due(title):
    assert make_room(CURRENT, credential("old", 6, title)) == "old"
    assert make_room(CURRENT, credential("old", 6, title), policy=Policy(keep_previous=1)) == "old"


def test_what_is_due_within_two_minutes_is_waited_for():
    young = credential("current", 10 / 3600, OURS + "published", hint="cur")
    assert make_room(young, credential("old", 5, OURS + "x")) == "old in 20 s"
    assert make_room(young, credential("old", 5, OURS + "x"), policy=Policy(retire_after=AT_ONCE)) == "old"
    patient = Policy(retire_after=timedelta(seconds=130))
    assert make_room(young, credential("old", 5, OURS + "x"), policy=patient) == "old in 120 s"


def no_room_for(*listed: Credential, **more: Any) -> str:
    with pytest.raises(Refused, match="has no room for a new secret") as caught:
        make_room(*listed, **more)
    message = caught.value.message
    assert all(item.key_id in message for item in listed)
    assert "Next: " in message
    return message


def test_what_is_due_later_is_refused_with_the_time():
    shown = credential("current", 24, OURS + "x", hint="cur")
    listed = [shown, credential("old", 48, OURS + "y")]
    message = no_room_for(*listed, policy=Policy(retire_after=timedelta(days=7)))
    fits = format_time(NOW + timedelta(days=6))
    assert f"a new one fits from {fits} on" in message
    assert f"Next: run it again after {fits}, or lower retire_after." in message
    assert "the record shows it" in message
    assert "retire_after" in message


def test_on_the_first_night_after_it_it_fits():
    shown = credential("current", 7 * 24 + 1, OURS + "x", hint="cur")
    assert make_room(shown, credential("old", 900), policy=Policy(retire_after=timedelta(days=7))) == "old"


def test_an_empty_record_is_refused_with_the_way_out():
    message = no_room_for(credential("a", 9), credential("b", 5), published=EMPTY)
    assert "enter the one that is in use into the record" in message


def test_a_record_that_names_what_is_not_listed_is_refused_with_the_way_out():
    message = no_room_for(credential("a", 9), credential("b", 5), published=shows("gone"), bound=False)
    assert "enter the one that is in use into the record" in message


@pytest.mark.parametrize(
    ("title", "more", "why"),
    [
        ("by hand", {"policy": Policy(retire="managed")}, "it was not made for this record"),
        (THEIRS + "x", {}, f"it was made for the record {OTHER}"),
        ("by hand", {"held": (holds("other"),)}, "the PAM configuration holds it"),
    ],
)
def test_what_stays_in_any_case_makes_no_room(title, more, why):
    message = no_room_for(CURRENT, credential("other", 9, title), **more)
    assert why in message
    assert "Next: remove the one that is not in use in Entra." in message


def test_what_is_newer_than_the_shown_one_is_superseded_by_this_run():
    newer = credential("hand", 1, "by hand")
    began = {"published_at": NOW - timedelta(seconds=10)}
    assert make_room(CURRENT, newer, **began) == "hand in 20 s"
    assert make_room(CURRENT, newer, policy=Policy(retire_after=AT_ONCE), **began) == "hand"


def test_where_that_takes_longer_there_is_no_time_from_which_on_it_fits():
    message = no_room_for(CURRENT, credential("hand", 1, "by hand"), policy=Policy(retire_after=timedelta(days=7)))
    assert "it is newer than what the record shows" in message
    assert "fits from" not in message
    assert "Next: remove the one that is not in use in Entra." in message


def test_where_nothing_is_listed_it_says_so():
    assert "Graph does not list them yet" in no_room(know([], new=None), [], None).message


# -- any set of secrets


@settings(max_examples=200)
@given(scenes())
def test_what_check_mode_says_is_what_is_done_when_nobody_interferes(scene):
    known, listed = scene
    before = [item for item in listed if item.display_name != RUN and item.key_id != key("new")]
    policy = replace(known.policy, rotate="always")
    then = know(before, policy, known.published, None, held=known.held, others=known.others, bound=known.bound)
    planned = plan(then).outlook
    done = sort_out(replace(then, new=NEW, published_at=NOW), [*before, NEW])
    assert planned == done


@settings(max_examples=200)
@given(scenes())
def test_nor_does_it_say_anything_else_where_no_new_secret_is_needed(scene):
    known, listed = scene
    before = [item for item in listed if item.display_name != RUN]
    policy = replace(known.policy, rotate="expiring")
    then = know(before, policy, known.published, None, held=known.held, others=known.others, bound=known.bound)
    todo = plan(then)
    if todo.action == KEEP:
        assert todo.outlook == sort_out(replace(then, new=then.shown), before)
        assert then.shown not in all_of(todo.outlook)


@settings(max_examples=200)
@given(scenes())
def test_room_is_made_by_what_may_go_or_refused(scene):
    known, listed = scene
    full = replace(known, new=None, published_at=None)
    try:
        decision, until = room(full, listed)
    except Refused:
        return
    item = decision.credential
    if known.expired(item) or decision.fate is Fate.LEFT_OVER:
        assert until is None
        return
    assert item is not full.shown
    assert full.shown is not None
    assert decision.fate is Fate.OLD
    assert decision.due <= (until or NOW)
    assert until is None or NOW < until <= NOW + timedelta(seconds=SOON)
