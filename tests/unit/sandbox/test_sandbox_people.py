# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people do to Entra and to the vault beside the product, and how a judge can tell it from the product's deeds."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox import Entry, Sandbox
from sandbox.seed import Seeded


@pytest.fixture
def seen(sb: Sandbox, seeded: Seeded) -> list[Entry]:
    entries: list[Entry] = []
    sb.watch(lambda sb, entry: entries.append(entry))
    return entries


def test_people_add_and_remove_secrets(sb: Sandbox, seeded: Seeded, seen: list[Entry]) -> None:
    app = seeded.applications["billing-api"]
    (old,) = app.live_secrets()
    new = app.add_secret("by hand")
    assert app.remove_secret(old.key_id) is old
    assert (old.removed_by, new.removed_by) == ("outside", None)
    assert app.live_secrets() == [new]
    assert [(entry.service, entry.op) for entry in seen] == [("outside", "add_secret"), ("outside", "remove_secret")]
    assert [entry.detail.rsplit(" ", 1)[1] for entry in seen] == [new.key_id, old.key_id]
    with pytest.raises(KeyError):
        app.remove_secret(old.key_id)


def test_a_removal_by_a_request_is_told_from_one_by_people(seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["billing-api"]
    (old,) = app.live_secrets()
    assert graph.remove(f"/{app.object_id}", old.key_id).status_code == 204
    assert old.removed_by == "graph"


def test_people_reset_an_application(sb: Sandbox, seeded: Seeded, seen: list[Entry]) -> None:
    app = seeded.applications["orders-worker"]
    before = app.live_secrets()
    new = app.reset("rbac", days=30)
    assert len(before) == 4
    assert {one.removed_by for one in before} == {"outside"}
    assert app.live_secrets() == [new]
    assert (new.display_name, round((new.end - new.start).days)) == ("rbac", 30)
    assert [entry.op for entry in seen] == ["reset"]


def test_people_restore_an_earlier_version_of_a_record(sb: Sandbox, seeded: Seeded, seen: list[Entry]) -> None:
    record = seeded.records["billing-api"]
    earlier, revision = sb.vault.snapshot()[record.uid], record.revision
    record.edit("client_secret", "other")
    record.restore(earlier)
    assert record.data == earlier
    assert record.data is not earlier
    assert record.revision > revision + 1
    assert [entry.op for entry in seen] == ["edit", "restore"]


def test_people_copy_a_record(sb: Sandbox, seeded: Seeded, seen: list[Entry], ksm: Any) -> None:
    record = seeded.records["billing-api"]
    twin = sb.vault.copy(record.uid)
    assert twin.uid != record.uid
    twin.edit("client_secret", "other")
    assert record.value("client_secret") != "other"
    assert [entry.op for entry in seen] == ["copy", "edit"]
    found = {
        one.uid: one.custom_field("client_secret", single=True) for one in ksm().get_secrets([twin.uid, record.uid])
    }
    assert (found[twin.uid], found[record.uid]) == ("other", record.value("client_secret"))
