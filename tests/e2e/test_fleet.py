# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many rotations in one process: what is said of each is so, one does not keep another, and who goes first."""

from __future__ import annotations

import uuid
from collections import Counter

import pytest
from fleets import FleetJudge, FleetWorld, make_fleet
from harness import Result

from leaks import pieces_in
from sandbox import Fault


def statuses(result: Result) -> list[str]:
    """Return the statuses of the records, in order."""
    return [entry["status"] for entry in result.output["results"]]


def test_all_of_them_are_rotated_and_each_has_its_result():
    with make_fleet(12) as fleet:
        judge = FleetJudge(fleet)
        result = fleet.run()
        judge.judge(result)
        judge.complete()
        assert judge.verdict.problems == []
        assert (result.status, result.changed, result.output["counts"]) == ("rotated", True, {"rotated": 12})
        assert result.message == "ROTATED 12 records: 12 rotated."
        assert [entry["title"] for entry in result.output["results"]] == [
            world.record.data["title"] for world in fleet.worlds
        ]
        # One sign-in of the admin application, one read at the start; what was published is read back in bulk.
        operations = Counter(fleet.first.operations())
        admin = [
            entry
            for entry in fleet.first.sandbox.log
            if entry.op == "token" and fleet.first.admin.client_id in entry.detail
        ]
        assert len(admin) == 1
        assert operations["get_secret"] <= 5


def test_check_mode_changes_nothing_and_says_what_would_be():
    with make_fleet(6) as fleet:
        judge = FleetJudge(fleet)
        result = fleet.run(check=True)
        judge.judge(result)
        assert judge.verdict.problems == []
        assert statuses(result) == ["planned"] * 6
        assert result.message == "PLANNED 6 records: 6 planned."
        assert not {"addPassword", "update_secret", "removePassword"} & set(fleet.first.operations())
        assert all(
            entry["would_remove"] == [world.old.key_id] for world, entry in zip(fleet.worlds, result.output["results"])
        )


@pytest.mark.parametrize("check", [True, False])
def test_the_diff_of_each_shows_ids_and_dates_alone(check: bool):
    with make_fleet(3) as fleet:
        pasted = fleet.worlds[1]
        pasted.record.data["title"] = f"orders\n{pasted.old.text}"
        before = [{"client_secret_id": world.old.key_id} for world in fleet.worlds]
        result = fleet.run(check=check, diff=True, retire_after="0s")
        diffs = result.output["diff"]
        assert [one["before"]["record"].items() >= was.items() for one, was in zip(diffs, before)] == [True] * 3
        for world, one in zip(fleet.worlds, diffs):
            new = "(a new one)" if check else world.record.value("client_secret_id")
            assert world.record.uid in one["before_header"]
            assert one["before_header"] == one["after_header"]
            assert "\n" not in one["before_header"]
            assert one["after"]["record"]["client_secret_id"] == new
            assert (set(one["before"]["secrets"]), set(one["after"]["secrets"])) == ({world.old.key_id}, {new})
        assert pieces_in(result.said(), [*fleet.secrets(), pasted.old.text]) == []
        assert "diff" not in fleet.run(check=True).output
        assert "diff" not in fleet.run(check=True, diff=True, rotate="expiring", min_days_left=1).output


def test_what_is_wrong_with_one_record_keeps_no_other():
    with make_fleet(8) as fleet:
        judge = FleetJudge(fleet)
        fleet.worlds[1].record.edit("application_object_id", "none of them")
        fleet.worlds[2].record.edit("application_object_id", str(uuid.uuid4()))
        fleet.worlds[3].record.edit("retire_after", "soon")
        fleet.first.sandbox.faults.add(
            Fault("addPassword", about=fleet.worlds[4].app.object_id, status=403, times=None)
        )
        missing = "AAAAAAAAAAAAAAAAAAAAAA"
        result = fleet.run(records=[missing, *fleet.uids()])
        judge.leaks(result)
        expected = ["bad_input", "rotated", "bad_input", "refused", "bad_input", "refused", *["rotated"] * 3]
        assert statuses(result) == expected
        assert judge.verdict.problems == []
        assert result.failed
        assert result.message.startswith("REFUSED 9 records: 4 rotated, 3 bad_input, 2 refused. ")
        assert result.message.index(missing) < result.message.index(fleet.worlds[4].record.uid)
        assert all(fleet.worlds[number].untouched() for number in (2, 4))


def test_two_records_of_one_application_are_refused_before_anything():
    with make_fleet(4) as fleet:
        second = fleet.worlds[1].add_record("second", None, by="client_id")
        result = fleet.run(records=[*fleet.uids(), second.uid])
        assert statuses(result) == ["rotated", "refused", "rotated", "rotated", "refused"]
        for entry in (result.output["results"][1], result.output["results"][4]):
            assert fleet.worlds[1].record.uid in entry["msg"]
            assert second.uid in entry["msg"]
        assert fleet.worlds[1].untouched()


def test_two_records_of_one_application_are_rotated_where_one_adopts_the_other():
    with make_fleet(2) as fleet:
        world = fleet.worlds[1]
        second = world.add_record("second", None, by="client_id", adopt=world.record.uid)
        result = fleet.run(records=[*fleet.uids(), second.uid])
        assert statuses(result) == ["rotated"] * 3
        assert world.alive()
        assert world.seen_from(second).alive()


def test_the_others_begin_only_when_the_first_ones_are_complete():
    with make_fleet(6) as fleet:
        fault = Fault("removePassword", about=fleet.worlds[1].app.object_id, status=403, times=None)
        fleet.first.sandbox.faults.add(fault)
        result = fleet.run(canary=2)
        assert statuses(result) == ["rotated", "incomplete", *["refused"] * 4]
        assert "canary" in result.output["results"][5]["msg"]
        assert all(world.untouched() for world in fleet.worlds[2:])


def test_where_too_many_have_failed_no_other_begins():
    with make_fleet(8) as fleet:
        fleet.first.sandbox.faults.add(Fault("addPassword", status=403, times=None))
        result = fleet.run(max_failures=1, concurrency=1)
        begun = [entry for entry in result.output["results"] if "not begun" not in entry["msg"]]
        assert len(begun) == 2
        assert result.message.startswith("REFUSED 8 records: 8 refused. ")
        assert "max_failures is 1" in result.output["results"][7]["msg"]


def test_the_admin_application_s_own_record_is_rotated_when_the_others_have_ended():
    with make_fleet(4) as fleet:
        first = fleet.first
        first.admin.owners.append(first.admin.client_id)
        record = first.sandbox.vault.pam_user(
            "rotator",
            folder=first.sandbox.vault.folder_uid,
            application_object_id=first.admin.object_id,
            application_client_id=first.admin.client_id,
            client_secret=first.admin_secret.text,
            client_secret_id=first.admin_secret.key_id,
            tenant_id=first.sandbox.tenant_id,
            retire_after="0",
        )
        result = fleet.run(
            records=[record.uid, *fleet.uids()],
            admin_record=record.uid,
            pam_config=None,
            cloud_environment={"authority": "https://" + first.sandbox.authority, "graph": first.sandbox.graph_url},
        )
        assert statuses(result) == ["rotated"] * 5, result.message
        made = [entry.detail for entry in first.sandbox.log if entry.op == "addPassword"]
        assert first.admin.object_id in made[-1]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"records": ["too short"]}, "records names"),
        ({"concurrency": 65}, "from 1 to 64"),
        ({"canary": -1}, "0 or more"),
        ({"application": "x"}, "mutually exclusive"),
        ({"records": None}, "record, records"),
    ],
)
def test_options_that_cannot_be_are_refused(options, why):
    with make_fleet(1) as fleet:
        result = fleet.run(**options)
        assert (result.status, result.failed) == ("bad_input", True)
        assert why in result.message


def test_no_record_is_success():
    with make_fleet(1) as fleet:
        result = fleet.run(records=[])
        assert (result.status, result.failed, result.output["results"]) == ("unchanged", False, [])


def test_an_answer_that_drips_in_keeps_its_own_rotation_alone():
    with make_fleet(3) as fleet:
        slow = fleet.worlds[1]
        drip = Fault("token", about=slow.app.client_id, kind="drip", seconds=2.0, times=None)
        fleet.first.sandbox.faults.add(drip)
        result = fleet.run(verify_timeout=10)
        assert statuses(result) == ["rotated", "rolled_back", "rotated"]
        assert slow.untouched()


def test_what_somebody_does_to_a_record_meanwhile_is_seen_by_its_rotation():
    with make_fleet(3) as fleet:
        judge = FleetJudge(fleet)
        touched: list[FleetWorld] = []

        def touch(sandbox, entry):
            if entry.op == "addPassword" and fleet.worlds[1].app.object_id in entry.detail and not touched:
                touched.append(fleet)
                fleet.worlds[1].record.edit("notes", "hello")

        fleet.first.sandbox.watch(touch)
        result = fleet.run()
        judge.judge(result)
        judge.complete()
        assert judge.verdict.problems == []
        assert statuses(result) == ["rotated"] * 3
        assert touched
        assert fleet.worlds[1].record.value("notes") == "hello"


def test_applications_of_personal_accounts_are_within_their_own_limit():
    with make_fleet(8) as fleet:
        judge = FleetJudge(fleet)
        fleet.first.sandbox.directory.throttle = True
        for world in fleet.worlds:
            world.app.audience = "AzureADandPersonalMicrosoftAccount"
        result = fleet.run()
        judge.judge(result)
        judge.complete()
        assert judge.verdict.problems == []
        assert statuses(result) == ["rotated"] * 8
