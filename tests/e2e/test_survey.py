# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The survey of a tenant: what each credential is, how few requests it takes, and what happens where a side is down."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Log
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.timing import Budget
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet import survey as core_survey
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.identity import Sources
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.http import Http
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.vault import Vault
from certificates import self_signed
from cryptography.x509 import load_pem_x509_certificate
from harness import World, run_module

from leaks import pieces_in
from sandbox import Fault
from sandbox.application import Credential, Key
from sandbox.crypto import new_uid

GRAPH = ("list_applications", "batch", "get_application", "get_principal", "owners", "owned_objects")


def survey(world: World, **options: Any) -> dict[str, Any]:
    """Run the module and return its result, in which no secret may be."""
    done = run_module(world, module="app_secret_info", **{"record": None, **options})
    assert pieces_in(done.said(), world.secrets()) == []
    return done.output


def explicit(world: World) -> dict[str, Any]:
    """Return the options of an admin identity that needs no record."""
    return {
        "pam_config": None,
        "tenant_id": world.sandbox.tenant_id,
        "client_id": world.admin.client_id,
        "client_secret": world.admin_secret.text,
        "cloud_environment": {
            "authority": f"https://{world.sandbox.authority}",
            "graph": world.sandbox.graph_url,
        },
    }


def states(result: dict[str, Any]) -> dict[str, str]:
    """Return the state of each credential by its key id; where it has none, by what it is about."""
    return {row["key_id"] or row["object_id"]: row["state"] for row in result["credentials"]}


def row_of(result: dict[str, Any], key_id: str) -> dict[str, Any]:
    """Return the one row with this key id."""
    (row,) = [each for each in result["credentials"] if each["key_id"] == key_id]
    found: dict[str, Any] = row
    return found


def requests(world: World) -> int:
    """Return how many requests Graph has answered."""
    return sum(entry.service == "graph" for entry in world.sandbox.log)


def fill(world: World, number: int) -> None:
    """Put so many applications into the tenant, with a record for most, and two secrets for some."""
    directory, vault = world.sandbox.directory, world.sandbox.vault
    for index in range(number):
        app = directory.add_application(f"app-{index:04}", owners=[world.admin.client_id])
        secret = app.add_secret("in use", days=20 + index % 300)
        if index % 10:
            vault.pam_user(
                app.display_name,
                folder=vault.folder_uid,
                application_object_id=app.object_id,
                client_secret_id=secret.key_id,
                client_secret=secret.text,
                expires=secret.end.strftime("%Y-%m-%dT%H:%M:%SZ"),
            )


def test_every_credential_is_told_what_it_is(world: World) -> None:
    directory, vault = world.sandbox.directory, world.sandbox.vault
    app = world.app
    previous = world.add_marked(world.record, hours=24 * 40)
    world.publish(world.record, world.old)
    orphan = app.add_secret(f"keeper/{world.record.uid}/0123", days=365, start=directory.now() + timedelta(hours=1))
    stranger = world.add_marked(new_uid(), hours=30)
    by_hand = app.add_secret("by hand", start=directory.now() - timedelta(days=3), days=400)
    expired = app.add_secret("of old", days=-20)
    unmanaged = directory.add_application("crm-sync")
    lonely = unmanaged.add_secret("nobody's", days=10)
    overlapped = unmanaged.add_secret("long", days=500)
    aged = unmanaged.add_secret("aged", start=directory.now() - timedelta(days=500), days=900)
    unmanaged.keys.append(Key("CN=crm", directory.now(), directory.now() + timedelta(days=3)))
    gone = directory.add_application("gone")
    lost = Credential("x" * 30, "0f0b0335-1d71-4883-8f98-567911bfdca6", None, directory.now(), directory.now())
    missing = world.add_record("missing", lost)
    missing.edit("application_object_id", gone.object_id)
    nowhere = world.add_record("nowhere", lost)
    nowhere.edit("application_object_id", "99999999-1d71-4883-8f98-567911bfdca6")
    empty = vault.pam_user("empty", folder=vault.folder_uid, application_object_id=unmanaged.client_id)
    empty.edit("application_object_id", gone.client_id)
    broken = vault.pam_user("broken", folder=vault.folder_uid, application_object_id="billing")
    result = survey(world)
    found = states(result)
    assert found[world.admin_secret.key_id] == "admin"
    assert result["credentials"][0]["state"] == "admin"
    assert found[world.old.key_id] == "current"
    assert found[previous.key_id] == "previous"
    assert found[orphan.key_id] == "orphan"
    assert found[stranger.key_id] == "other_record"
    assert found[by_hand.key_id] == found[expired.key_id] == "foreign"
    assert found[lonely.key_id] == found[overlapped.key_id] == found[aged.key_id] == "unknown"
    assert found[unmanaged.keys[0].key_id] == "certificate"
    about = {row["records"][0]["title"]: row for row in result["credentials"] if row["state"] in ("missing", "empty")}
    assert {title: row["state"] for title, row in about.items()} == {
        "missing": "missing",
        "nowhere": "missing",
        "empty": "empty",
    }
    assert about["nowhere"]["reason"] == "Entra has no such application"
    assert [one["record"] for one in result["problems"]] == [broken.uid]
    assert "is no GUID" in result["problems"][0]["problem"]
    assert row_of(result, previous.key_id)["until"]
    assert row_of(result, expired.key_id)["flags"][0] == "expired"
    assert row_of(result, lonely.key_id)["flags"] == ["expiring", "successor"]
    assert "over_age" in row_of(result, aged.key_id)["flags"]
    assert row_of(result, unmanaged.keys[0].key_id)["bucket"] == "expiring"
    assert row_of(result, world.old.key_id)["bucket"] == "expiring"
    assert 18 <= row_of(result, world.old.key_id)["days_left"] <= 20
    assert result["worst"] == "critical"
    order = [row["bucket"] for row in result["credentials"][1:]]
    assert order == sorted(order, key=["critical", "expiring", "attention", "healthy"].index)
    assert sum(result["buckets"].values()) == sum(result["states"].values()) == len(result["credentials"])
    assert not any("hint" in row for row in result["credentials"])
    assert all(one["up"] for one in result["sources"])
    assert not result["changed"]


def test_two_records_of_one_application_are_told(world: World) -> None:
    second = world.app.add_secret("second", days=300)
    twin = world.add_record("twin", second, by="client_id")
    result = survey(world, records=[world.record.uid, twin.uid])
    assert states(result)[second.key_id] == states(result)[world.old.key_id] == "current"
    assert "several_records" in row_of(result, second.key_id)["flags"]
    # What a record shows has no successor: another record's secret helps nobody who reads this one.
    assert row_of(result, world.old.key_id)["flags"] == ["expiring", "several_records"]
    assert {row["object_id"] for row in result["credentials"]} == {world.app.object_id, world.admin.object_id}


def test_it_says_of_an_old_secret_what_the_next_run_does(world: World) -> None:
    world.record.edit("retire_after", "12h")
    mine = world.add_marked(world.record, hours=1)
    world.publish(world.record, mine)
    before = world.add_marked(world.record, hours=40)
    result = survey(world)
    until = row_of(result, before.key_id)["until"]
    started = datetime.strptime(row_of(result, mine.key_id)["start"], "%Y-%m-%dT%H:%M:%SZ")
    assert until == (started + timedelta(hours=12)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert row_of(result, before.key_id)["bucket"] == "healthy"
    run = run_module(world, rotate="expiring")
    assert {one["key_id"]: one.get("until") for one in run.output["kept"]}[before.key_id] == until


@pytest.mark.parametrize(("options", "most"), [({}, 60), ({"owners": True, "service_principals": True}, 150)])
def test_a_thousand_applications_take_few_requests(world: World, options: dict[str, Any], most: int) -> None:
    fill(world, 1000)
    world.app.users["7f0b0335-1d71-4883-8f98-567911bfdca6"] = "Pat Example"
    held = world.app.principal_credentials
    held.append(Credential("principal-secret-of-service", "5f0b0335-1d71-4883-8f98-567911bfdca6", "sp", *span(30)))
    world.sandbox.directory.throttled_in_batch = 3
    world.sandbox.faults.add(Fault("list_applications", kind="graph429", retry_after=0.1))
    world.sandbox.faults.add(Fault("batch", kind="status", status=503))
    result = survey(world, limit=5000, **options)
    assert requests(world) <= most
    assert Counter(entry.op for entry in world.sandbox.log)["get_secret"] == 1
    assert result["applications"] == 1001
    assert result["records"] == 901
    assert result["states"]["current"] == 901
    assert result["states"]["unknown"] == 100
    assert [one["name"] for one in result["sources"]] == ["keeper", "applications", *options]
    assert all(one["up"] for one in result["sources"])
    if options:
        assert row_of(result, world.old.key_id)["owners"] == ["Pat Example", "keeper-rotator"]
        assert row_of(result, held[0].key_id)["of"] == "service_principal"
        assert row_of(result, held[0].key_id)["state"] == "foreign"


def span(days: int) -> tuple[datetime, datetime]:
    """Return now, and so many days later."""
    now = datetime.now(timezone.utc)
    return now, now + timedelta(days=days)


def test_results_are_bounded_and_the_worst_stays(world: World) -> None:
    fill(world, 300)
    world.publish(world.record, world.app.add_secret("over", days=-1))
    result = survey(world, limit=10)
    assert len(result["credentials"]) == 10
    assert result["left_out"] == sum(result["buckets"].values()) - 10
    assert result["credentials"][1]["bucket"] == "critical"
    whole = survey(world, limit=1000)
    assert len(json.dumps(whole["credentials"])) / len(whole["credentials"]) < 750


def test_without_keeper_entra_is_told(world: World) -> None:
    world.sandbox.faults.add(Fault("get_secret", kind="status", status=403, times=9))
    result = survey(world, **explicit(world))
    assert {one["name"]: one["up"] for one in result["sources"]} == {"keeper": False, "applications": True}
    assert states(result)[world.old.key_id] == "unverified"
    assert "keeper not read in full" in result["msg"]


def test_without_entra_the_records_are_told(world: World) -> None:
    world.sandbox.faults.add(Fault("list_applications", kind="status", status=403, times=9))
    world.sandbox.faults.add(Fault("batch", kind="status", status=403, times=9))
    result = survey(world)
    assert {one["name"]: one["up"] for one in result["sources"]} == {"keeper": True, "applications": False}
    row = row_of(result, world.old.key_id)
    assert row["state"] == "unverified"
    assert row["end"] == world.record.value("expires")
    assert result["credentials"][0]["state"] == "admin"


def test_an_admin_that_does_not_sign_in_is_critical(world: World) -> None:
    world.admin.remove_secret(world.admin_secret.key_id)
    result = survey(world)
    first = result["credentials"][0]
    assert (first["state"], first["bucket"], first["flags"]) == ("admin", "critical", ["no_sign_in"])
    assert first["client_id"] == world.admin.client_id
    assert result["worst"] == "critical"
    assert states(result)[world.old.key_id] == "unverified"
    assert "AADSTS7000215" in result["msg"]


def test_a_source_whose_time_is_over_is_named_and_ends_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", world.sandbox.ca_file)
    monkeypatch.setattr(core_survey, "_SOURCE", 0.5)
    world.sandbox.faults.add(Fault("batch", kind="delay", seconds=1.0, times=None))
    budget, log = Budget(), Log(lambda line: None)
    http = Http(budget, log)
    vault = Vault(world.sandbox.client_config(), http, budget, log)
    seen = core_survey.vault_seen(lambda: vault.find(()), budget)
    sources = Sources(configuration=seen.records[world.configuration.uid].view())
    wanted = core_survey.Wanted(owners=True)
    result = core_survey.Survey(seen, sources, wanted, http, budget, log).look()
    assert [one["name"] for one in result["sources"] if not one["up"]] == ["owners"]
    assert states(result)[world.old.key_id] == "current"


def test_without_both_it_fails(world: World) -> None:
    world.sandbox.faults.add(Fault("get_secret", kind="status", status=403, times=9))
    world.sandbox.faults.add(Fault("list_applications", kind="status", status=403, times=9))
    done = run_module(world, module="app_secret_info", record=None, **explicit(world))
    assert (done.failed, done.status) == (True, "refused")
    assert "neither Keeper nor Entra could be read" in done.message


def test_where_the_admin_may_not_list_what_records_name_is_read(world: World) -> None:
    world.sandbox.directory.owned_by_reads_all = False
    result = survey(world)
    assert states(result)[world.old.key_id] == "current"
    (source,) = [one for one in result["sources"] if one["name"] == "applications"]
    assert not source["up"]
    assert "Insufficient privileges" in source["problem"]


def test_where_the_admin_may_not_list_fewer_than_a_hundred_records_are_read_in_full(world: World) -> None:
    """The guide says so, of the alerts that would never end."""
    world.sandbox.directory.owned_by_reads_all = False
    fill(world, 109)
    records = [one.uid for one in world.sandbox.vault.records.values() if one.value("application_object_id")]
    assert len(records) == 99
    up = [{"name": name, "up": True, "problem": ""} for name in ("keeper", "applications")]
    assert survey(world, records=records)["sources"] == up
    (source,) = [one for one in survey(world, records=[*records, another(world)])["sources"] if not one["up"]]
    assert source["name"] == "applications"


def another(world: World) -> str:
    """Add an application with its record; return the uid of the record."""
    app = world.sandbox.directory.add_application("another", owners=[world.admin.client_id])
    return world.add_record("another", app.add_secret("in use"), application_object_id=app.object_id).uid


def test_where_the_admin_may_not_list_the_certificates_of_a_hundred_are_read_and_of_more_are_not(world: World) -> None:
    """The guide and the module's documentation say so."""
    world.sandbox.directory.owned_by_reads_all = False
    world.app.keys.append(Key("CN=billing", *span(300)))
    fill(world, 110)
    assert survey(world)["states"]["certificate"] == 1
    another(world)
    result = survey(world)
    assert result["records"] == 101
    assert result["states"]["certificate"] == 0


@pytest.mark.parametrize("by", ["object_id", "client_id"])
def test_what_a_record_names_and_the_admin_may_not_read_stops_nothing_else(world: World, by: str) -> None:
    world.sandbox.directory.owned_by_reads_all = False
    theirs = world.sandbox.directory.add_application("theirs")
    record = world.add_record("theirs", theirs.add_secret("x"))
    record.edit("application_object_id", getattr(theirs, by))
    result = survey(world, records=[world.record.uid, record.uid], owners=True)
    found = {row["records"][0]["uid"]: row["state"] for row in result["credentials"] if row["records"]}
    assert found == {world.record.uid: "current", record.uid: "unverified"}
    (source,) = [one for one in result["sources"] if not one["up"]]
    assert "1 of " in source["problem"]
    assert "could not be read: the admin application" in source["problem"]
    assert "does not own the application" in source["problem"]
    assert row_of(result, world.old.key_id)["owners"] == ["keeper-rotator"]


def test_a_record_that_cannot_be_read_is_named(world: World) -> None:
    other = world.add_record("broken", None)
    other.data = []  # type: ignore[assignment]
    result = survey(world)
    assert [one["record"] for one in result["problems"]] == [other.uid]
    assert "could not be decrypted" in result["problems"][0]["problem"]
    assert states(result)[world.old.key_id] == "current"


def test_a_list_that_breaks_off_makes_nothing_missing(world: World) -> None:
    fill(world, 300)
    world.sandbox.faults.add(Fault("list_applications", kind="status", status=403, nth=2))
    result = survey(world, limit=2000)
    assert result["states"]["missing"] == 0
    assert result["states"]["unverified"] > 0
    assert "the list ends after 250 of them" in result["msg"]


def test_options_that_make_no_sense_are_refused(world: World) -> None:
    for options in ({"records": ["x"]}, {"limit": 0}, {"min_days_left": -1}):
        done = run_module(world, module="app_secret_info", record=None, **options)
        assert done.status == "bad_input", done.message
    assert world.operations() == []


def test_the_certificate_that_the_admin_signs_in_with_comes_first(world: World, tmp_path: Path) -> None:
    pem = self_signed()
    end = load_pem_x509_certificate(pem[pem.index("-----BEGIN CERT") :].encode()).not_valid_after_utc
    world.admin.add_certificate(pem)
    other = Key("another", end - timedelta(days=900), end - timedelta(days=400))
    own = Key("CN=rotator", end - timedelta(days=30), end)
    world.admin.keys += [other, own]
    (tmp_path / "rotator.pem").write_text(pem)
    options = {**explicit(world), "client_secret": None, "certificate_path": str(tmp_path / "rotator.pem")}
    first = survey(world, **options)["credentials"][0]
    assert (first["state"], first["kind"], first["key_id"]) == ("admin", "certificate", own.key_id)
    assert "with the certificate in the file" in first["reason"]
