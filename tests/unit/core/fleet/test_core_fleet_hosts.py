# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of the records of applications, and how their secrets stand."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.hosts import (
    STATES,
    entries_of,
    paths_of,
    state_of,
    variables_of,
    within,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.plan import ROTATE, plan
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import Policy
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.application import format_time
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.vault import Folder, VaultRecord
from core_samples import NOW, OBJECT_ID, RECORD, credential, key
from hypothesis import given
from hypothesis import strategies as st
from rotation_samples import know, shows

SECRET = "wk~8Q~aVerySecretValueOfSorts.0123456789"
FOLDERS = {
    "shared": Folder("shared", "PAM Users", ""),
    "below": Folder("below", "Billing", "shared"),
    "lowest": Folder("lowest", "Old", "below"),
    "other": Folder("other", "Billing (test)", ""),
}


def record(folder="below", kind="pamUser", title="billing-api", uid=RECORD, also=(), **fields):
    values = {
        "application_object_id": OBJECT_ID,
        "client_secret_id": key("current"),
        "client_secret": SECRET,
        "expires": format_time(NOW + timedelta(days=100)),
        **fields,
    }
    custom = [{"type": "text", "label": label, "value": [text]} for label, text in [*values.items(), *also]]
    data = {"type": kind, "title": title, "custom": custom}
    where = SimpleNamespace(folder_uid="shared", inner_folder_uid=folder)
    return VaultRecord(uid, title, kind, 1, True, data, where)


def entry(**fields):
    return entries_of([record(**fields)], FOLDERS)[0]


def test_an_entry_has_what_may_be_said_and_nothing_else():
    found = entry(lifetime_days="180", verify="no", adopt=f"{RECORD} {RECORD[::-1]}", retire_after="12h")
    assert found == {
        "uid": RECORD,
        "title": "billing-api",
        "folder_uid": "below",
        "folder": "PAM Users/Billing",
        "above": ["below", "shared"],
        "fields": {
            "application_object_id": OBJECT_ID,
            "client_secret_id": key("current"),
            "expires": "2026-09-23T12:00:00Z",
            "lifetime_days": 180,
            "adopt": [RECORD, RECORD[::-1]],
            "verify": False,
            "retire_after": "12h",
        },
        "holds": True,
        "problem": "",
    }
    assert json.loads(json.dumps(found)) == found


def test_only_users_that_name_an_application_are_there_by_title():
    records = [
        record(title="b", uid="b" * 22),
        record(title="A", uid="a" * 22),
        record(title="no user", kind="login"),
        record(title="no application", application_object_id=""),
    ]
    assert [one["title"] for one in entries_of(records, FOLDERS)] == ["A", "b"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"application_object_id": "billing-api"}, "application_object_id is no GUID"),
        ({"expires": "next summer"}, "expires is no date"),
        ({"lifetime_days": "soon"}, "a whole number is needed"),
        ({"retire": "some"}, "it must be all or managed or none"),
        ({"also": [("expires", "2027-01-01T00:00:00Z")]}, "match expires equally well"),
    ],
)
def test_a_record_that_cannot_be_used_says_why(fields, words):
    found = entry(**fields)
    assert words in found["problem"]
    assert state_of(found, NOW, 30)[0] == "broken"


@pytest.mark.parametrize(
    "label", ["application_object_id", "client_secret_id", "expires", "lifetime_days", "retire", "adopt", "title"]
)
def test_a_secret_in_the_field_beside_is_not_said(label):
    from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.secrecy import learn

    one = record(**{label: SECRET})
    learn((item["label"], item["type"], item["value"]) for item in one.data["custom"])
    assert SECRET[:12] not in json.dumps(entries_of([one], FOLDERS))


def days_from_now(days, **fields):
    return entry(expires=format_time(NOW + timedelta(days=days)), **fields)


@pytest.mark.parametrize(
    ("days", "state", "left"),
    [
        (-0.5, "expired", -1),
        (0, "expired", 0),
        (0.5, "expiring", 0),
        (29.9, "expiring", 29),
        (30, "healthy", 30),
        (400, "healthy", 400),
    ],
)
def test_how_a_secret_stands(days, state, left):
    assert state_of(days_from_now(days), NOW, 30) == (state, left)


@pytest.mark.parametrize(
    "fields", [{"client_secret": ""}, {"client_secret": "pending"}, {"client_secret_id": ""}, {"expires": ""}]
)
def test_what_no_rotation_has_written_was_never_rotated(fields):
    assert state_of(entry(**fields), NOW, 30)[0] == "never_rotated"


@given(st.integers(-50 * 86400, 800 * 86400), st.integers(0, 90))
def test_expiring_is_what_a_run_would_rotate(seconds, least):
    days = seconds / 86400
    state, _left = state_of(days_from_now(days), NOW, least)
    current = credential("current", days=days, hint=SECRET[:3])
    policy = Policy(rotate="expiring", min_days_left=least)
    wanted = plan(know([current], policy, shows("current", SECRET[:3]), new=None)).action == ROTATE
    assert (state != "healthy") is (wanted or days <= 0)
    assert state in STATES


def test_variables_have_names_of_their_own_and_only_what_there_is():
    found = variables_of(days_from_now(9.5), NOW, 30)
    assert found == {
        "keeper_title": "billing-api",
        "keeper_folder": "PAM Users/Billing",
        "keeper_folder_uid": "below",
        "keeper_application_object_id": OBJECT_ID,
        "keeper_client_secret_id": key("current"),
        "keeper_expires": "2026-06-25T00:00:00Z",
        "keeper_record": RECORD,
        "keeper_state": "expiring",
        "keeper_days_left": 9,
    }
    bare = variables_of(entry(client_secret="", client_secret_id="", expires="", folder=""), NOW, 30)
    assert {"keeper_days_left", "keeper_expires", "keeper_problem"}.isdisjoint(bare)


@pytest.mark.parametrize(
    ("wanted", "titles"),
    [
        ([], ["low", "mid", "else", "single"]),
        (["shared"], ["low", "mid"]),
        (["PAM Users"], ["low", "mid"]),
        (["/PAM Users/Billing/"], ["low", "mid"]),
        (["Billing"], ["low", "mid"]),
        (["lowest", "other"], ["low", "else"]),
        (["empty"], []),
    ],
)
def test_folders(wanted, titles):
    places = {"low": "lowest", "mid": "below", "else": "other", "single": ""}
    records = [record(folder=uid, title=title, uid=title) for title, uid in places.items()]
    records[-1].sdk.folder_uid = ""
    folders = {**FOLDERS, "empty": Folder("empty", "", "")}
    found = within(entries_of(records, folders), paths_of(folders), wanted)
    assert sorted(one["title"] for one in found) == sorted(titles)


def test_a_folder_that_is_not_there_is_refused():
    with pytest.raises(BadInput, match=r"no folder 'Biling'.*'PAM Users/Billing'"):
        within([entry()], paths_of(FOLDERS), ["Billing", "Biling"])


def test_folders_that_lie_in_each_other_end():
    folders = {"a": Folder("a", "A", "b"), "b": Folder("b", "B", "a")}
    assert paths_of(folders) == {"a": "B/A", "b": "A/B"}
