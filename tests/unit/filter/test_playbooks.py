# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the playbooks make of the variables that people give them, and of the results of the modules."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.filter._misnamed import misnamed
from ansible_collections.keeperpam.azure.plugins.filter._shared import shared
from ansible_collections.keeperpam.azure.plugins.filter._uids import uids
from ansible_collections.keeperpam.azure.plugins.filter._unmatched import unmatched
from ansible_collections.keeperpam.azure.plugins.filter._verdicts import verdicts
from ansible_collections.keeperpam.azure.plugins.filter._waves import waves

ROTATE = [
    "rotate_records",
    "rotate_pam_config",
    "rotate_keeper_config",
    "rotate_keeper_config_file",
    "rotate_mode",
    "rotate_min_days_left",
    "rotate_lifetime_days",
    "rotate_keep_previous",
    "rotate_retire",
    "rotate_verify",
]
ATTACH = ["attach_records", "attach_schedule", "attach_script_command", "attach_state"]
GATEWAY = ["gateway_host_install_gateway", "gateway_host_token", "gateway_host_python"]
ONE, TWO, THREE = "ZmpJl4qCXJEi0ohFKzzQaA", "DpR8i4oUY7LfnmYeumxFaw", "WoGYFu4XQpD0bHTnk13PKw"


@pytest.mark.parametrize(
    ("name", "meant", "known", "prefix"),
    [
        ("rotate_record", "rotate_records", ROTATE, "rotate_"),
        ("rotate_lifetime", "rotate_lifetime_days", ROTATE, "rotate_"),
        ("rotate_lifetimedays", "rotate_lifetime_days", ROTATE, "rotate_"),
        ("rotate_keepprevious", "rotate_keep_previous", ROTATE, "rotate_"),
        ("rotate_keper_config", "rotate_keeper_config", ROTATE, "rotate_"),
        ("rotate_Mode", "rotate_mode", ROTATE, "rotate_"),
        ("rotate_min_days", "rotate_min_days_left", ROTATE, "rotate_"),
        ("rotate_verfiy", "rotate_verify", ROTATE, "rotate_"),
        ("attach_shedule", "attach_schedule", ATTACH, "attach_"),
        ("gateway_host_install_gatway", "gateway_host_install_gateway", GATEWAY, "gateway_host_"),
    ],
)
def test_a_near_miss_is_named(name: str, meant: str, known: list[str], prefix: str) -> None:
    assert misnamed([name, *known[:1]], known, prefix) == [f"{name} (did you mean {meant}?)"]


@pytest.mark.parametrize(
    ("name", "known", "prefix"),
    [
        ("rotate_logs_days", ROTATE, "rotate_"),
        ("rotate_backups", ROTATE, "rotate_"),
        ("rotate_", ROTATE, "rotate_"),
        ("rotate_size", ROTATE, "rotate_"),
        ("attach_disks", ATTACH, "attach_"),
        ("attach_volume_script", ATTACH, "attach_"),
        ("gateway_host_backup_dir", GATEWAY, "gateway_host_"),
        ("gateway_hostname", GATEWAY, "gateway_host_"),
        ("other_records", ROTATE, "rotate_"),
    ],
)
def test_what_is_no_near_miss_does_no_harm(name: str, known: list[str], prefix: str) -> None:
    assert misnamed([name, *known], known, prefix) == []


def test_the_names_of_the_variables_themselves_are_right() -> None:
    for known, prefix in ((ROTATE, "rotate_"), (ATTACH, "attach_"), (GATEWAY, "gateway_host_")):
        assert misnamed(known, known, prefix) == []


def test_all_near_misses_are_named_in_order() -> None:
    assert len(misnamed(["rotate_verfiy", "rotate_record"], ROTATE, "rotate_")) == 2


@pytest.mark.parametrize(
    "given",
    [
        [ONE, TWO],
        (ONE, TWO),
        f"{ONE},{TWO}",
        f"{ONE}, {TWO},",
        f"{ONE}\n{TWO}\n",
        f"  {ONE}\r\n\r\n{TWO}",
        f"{ONE} {TWO}",
        f"{ONE};{TWO}",
        [f"{ONE}\n", f" {TWO}"],
        [ONE, TWO, ONE],
        [f"{ONE},{TWO}", None, ""],
        f'["{ONE}", "{TWO}"]',
    ],
)
def test_records_as_people_give_them(given: Any) -> None:
    assert uids(given) == [ONE, TWO]


@pytest.mark.parametrize("given", [ONE, [ONE], f"{ONE}\n"])
def test_one_record(given: Any) -> None:
    assert uids(given) == [ONE]


@pytest.mark.parametrize("given", [None, "", "  ", [], {}, {"a": 1}, ",", 7, True, [None]])
def test_no_records(given: Any) -> None:
    assert uids(given) == []


def host(uid: str, object_id: str | None = "o-1", adopt: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"keeper_record": uid, "keeper_application_object_id": object_id, "keeper_adopt": list(adopt)}


def test_records_with_applications_of_their_own_are_fine() -> None:
    assert shared([host(ONE, "o-1"), host(TWO, "o-2"), host(THREE, None)], []) == {}
    assert shared([], []) == {}


def test_records_that_name_one_application_are_named() -> None:
    found = shared([host(ONE, "o-1"), host(THREE, "o-2"), host(TWO, "O-1")], [])
    assert set(found) == {ONE, TWO}
    assert f"name its application: {ONE} and {TWO}" in found[ONE]
    assert f"name its application: {TWO} and {ONE}" in found[TWO]


def test_all_but_one_of_them_may_be_given_up() -> None:
    hosts = [host(ONE), host(TWO), host(THREE)]
    assert shared(hosts, [TWO, THREE]) == {}
    assert set(shared(hosts, [TWO])) == {ONE, THREE}
    assert set(shared(hosts, ["another"])) == {ONE, TWO, THREE}


def test_a_record_may_say_so_itself_unless_the_option_does() -> None:
    hosts = [host(ONE, adopt=(TWO,)), host(TWO)]
    assert shared(hosts, []) == {}
    assert set(shared(hosts, [THREE])) == {ONE, TWO}
    assert set(shared([*hosts, host(THREE)], [])) == {ONE, TWO, THREE}
    assert shared([*hosts, host(THREE, adopt=(ONE, TWO))], []) == {}


GROUPS = {"all": [ONE, "web1"], "expired": [], "slice_0": [ONE]}


@pytest.mark.parametrize(
    "pattern",
    ["all", "expired,expiring", ONE, "slice_0:&expiring", "all:!broken", "web*", "!web*", "~web.", "all[0:5]"],
)
def test_names_of_hosts_and_groups_are_known(pattern: str) -> None:
    assert unmatched([pattern], GROUPS) == []
    assert unmatched(["all", pattern], GROUPS) == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("expird", "expird"),
        ("all,web2", "web2"),
        ("slice_2:&expiring", "slice_2"),
        ("slice_0:&expird", "expird"),
        ("slice_3[0]", "slice_3"),
        ("expired,all:!broken", "all:!broken"),
        ("all:!elsewhere", "elsewhere"),
        ("a,b", "a nor b"),
    ],
)
def test_other_names_are_named(pattern: str, names: str) -> None:
    assert unmatched([pattern], GROUPS) == [f"there is no host or group {names}. Next: correct rotate_hosts"]


@pytest.mark.parametrize("groups", [{"all": [], "ungrouped": []}, {"all": ["web1"], "web": ["web1"]}])
def test_an_inventory_of_records_has_their_groups(groups: dict[str, list[str]]) -> None:
    (said,) = unmatched(["all"], groups)
    assert "no inventory" in said


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ("1,100%", ["1", "100%"]),
        (" 3, 50% ", ["3", "50%"]),
        ([1, "25%"], ["1", "25%"]),
        (["1,2", 3], ["1", "2", "3"]),
        (7, ["7"]),
        ("", ["100%"]),
        (None, ["100%"]),
        ([], ["100%"]),
    ],
)
def test_sizes_of_waves_as_people_give_them(given: Any, sizes: list[str]) -> None:
    assert waves(given) == sizes


@pytest.mark.parametrize(
    "given", ["one", "50 %", "1.5", 1.5, 0, "0%", "101%", "-1", "1,,2", "1,", True, {"a": 1}, [None]]
)
def test_other_sizes_of_waves_are_none(given: Any) -> None:
    assert waves(given) == []


def result(uid: str, status: str, failed: bool = False) -> dict[str, Any]:
    return {"record": uid, "status": status, "msg": f"the record {uid} is {status}", "failed": failed}


def test_the_counts_come_first_and_the_failures_last() -> None:
    said = verdicts(
        [
            result(ONE, "refused", failed=True),
            result(TWO, "rotated"),
            result(THREE, "unchanged"),
            result("A" * 22, "rotated"),
            result("B" * 22, "incomplete", failed=True),
        ]
    )
    assert said[0] == "5 records: 2 rotated, 1 unchanged, 1 incomplete, 1 refused"
    assert [one.split()[2] for one in said[1:]] == [TWO, THREE, "A" * 22, ONE, "B" * 22]


def test_one_record_is_one() -> None:
    assert verdicts([result(ONE, "planned")])[0] == "1 record: 1 planned"
