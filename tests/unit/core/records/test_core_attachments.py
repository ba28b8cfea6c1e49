# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is decided about the scripts of a record, whatever it looks like."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.records.attachments import (
    File,
    Plan,
    Script,
    Seen,
    cleaning,
    entries,
    plan,
    same,
    with_file,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.vault import VaultRecord
from hypothesis import given
from hypothesis import strategies as st

WANTED = Script("a.py", b"new", "python3", ("c1",))
#: Kinds of files: name, title, content (None: never uploaded).
KINDS = {
    "right": ("a.py", "a.py", b"new"),
    "old": ("a.py", "a.py", b"old"),
    "marked": ("a.py", WANTED.title, b"new"),
    "half": ("a.py", WANTED.title, None),
    "earlier": ("a.py", Script("a.py", b"old", None, None).title, b"old"),
    "foreign": ("b.sh", "b.sh", b"new"),
    "lookalike": ("b.sh", WANTED.title, b"new"),
}


def seen(scripts: list[str], loose: list[str], field: Any = ()) -> Seen:
    """A record with files of these kinds, the first of which are scripts."""
    kinds = {f"{number}-{kind}": kind for number, kind in enumerate(scripts + loose)}
    files = {uid: File(uid, KINDS[kind][0], KINDS[kind][1], 3, None) for uid, kind in kinds.items()}
    uids = list(kinds)
    items = [{"fileRef": uid, "recordRef": [uid], "command": uid} for uid in uids[: len(scripts)]]
    data: dict[str, Any] = {"fields": [{"type": "fileRef", "value": uids[len(scripts) :]}], "custom": list(field)}
    if items:
        data["fields"].insert(0, {"type": "script", "value": items})
    record = VaultRecord("uid", "title", "pamUser", 1, True, data, None)
    return Seen(record, files, {uid: KINDS[kind][2] for uid, kind in kinds.items()})


def applied(before: Seen, done: Plan) -> Seen:
    """The record as it is once the plan is carried out."""
    record = VaultRecord("uid", "title", "pamUser", 2, True, done.data, None)
    return Seen(record, {uid: one for uid, one in before.files.items() if uid not in done.unlink}, before.contents)


kinds = st.lists(st.sampled_from(sorted(KINDS)), max_size=4)


@given(kinds, kinds, st.booleans())
def test_it_settles_in_two_steps_and_touches_nothing_foreign(
    scripts: list[str], loose: list[str], present: bool
) -> None:
    wanted = WANTED if present else Script("a.py", None)
    start = seen(scripts, loose)
    now, first = start, plan(start, wanted)
    if first.upload:
        files = {**now.files, "new": File("new", "a.py", wanted.title, 3, None)}
        record = VaultRecord("uid", "title", "pamUser", 2, True, with_file(now.record.data, "new"), None)
        now = Seen(record, files, {**now.contents, "new": b"new"})
    now = applied(now, plan(now, wanted))
    assert not plan(now, wanted).changed
    ours = [item for item in entries(now.record.data) if now.files[item["fileRef"]].name == "a.py"]
    assert len(ours) == int(present)
    assert all(now.contents[item["fileRef"]] == b"new" for item in ours)
    assert all((item["command"], item["recordRef"]) == ("python3", ["c1"]) for item in ours)

    def foreign(look: Seen) -> list[Any]:
        return [item for item in entries(look.record.data) if look.files[item["fileRef"]].name != "a.py"]

    assert foreign(now) == foreign(start)
    referenced = {item["fileRef"] for item in entries(now.record.data)}
    assert referenced <= set(now.files)
    gone = set(start.files) - set(now.files)
    used = {item["fileRef"] for item in entries(start.record.data)}
    assert all(start.files[uid].name == "a.py" and (uid in used or WANTED.is_ours(start.files[uid])) for uid in gone)
    assert not [uid for uid, file in now.files.items() if wanted.is_ours(file) and uid not in referenced]


@given(kinds, kinds)
def test_cleaning_detaches_only_what_is_provably_ours_and_unused(scripts: list[str], loose: list[str]) -> None:
    start = seen(scripts, loose)
    done = cleaning(start, WANTED)
    proven = {uid for uid in list(start.files)[len(scripts) :] if WANTED.is_ours(start.files[uid])}
    assert set(done.unlink) == proven
    assert entries(done.data) == entries(start.record.data)


def test_the_place_in_the_order_is_kept() -> None:
    start = seen(["foreign", "old", "foreign", "old"], ["marked"])
    done = plan(start, WANTED)
    assert [item["fileRef"] for item in entries(done.data)] == ["0-foreign", "4-marked", "2-foreign"]
    assert done.unlink == ("1-old", "3-old")


@pytest.mark.parametrize("value", [None, {"fileRef": "0-right"}, "missing"])
def test_odd_fields_are_survived(value: Any) -> None:
    start = seen(["right"], [], [{"label": "no type"}, {"type": "note"}])
    (field,) = [one for one in start.record.data["fields"] if one["type"] == "script"]
    if value == "missing":
        del field["value"]
    else:
        field["value"] = value
    done = plan(start, WANTED)
    assert len(entries(done.data)) == 1
    assert done.data["custom"] == [{"label": "no type"}, {"type": "note"}]


def test_a_file_that_is_not_shown_is_refused() -> None:
    start = seen(["right"], [])
    with pytest.raises(BadInput, match="KSM does not show"):
        plan(Seen(start.record, {}, {}), WANTED)


def test_an_empty_list_and_none_are_the_same() -> None:
    assert same({"fields": [{"type": "fileRef"}]}, {"fields": [{"type": "fileRef", "value": []}]})
    assert not same({"fields": [{"type": "text"}]}, {"fields": [{"type": "text", "value": []}]})
