# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory of a vault's applications, as Ansible itself reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.utils.display import Display
from harness import CHECKOUT

from leaks import pieces_in
from sandbox import Sandbox
from sandbox.keeper_records import Records
from sandbox.vault import VaultRecord

STATES = ("expired", "expiring", "healthy", "never_rotated", "broken")
APPLICATION = "11111111-2222-4333-8444-{:012}"
KEY = "aaaaaaaa-bbbb-4ccc-8ddd-{:012}"
SECRET = "qV8Q~{:05}.kLmNoPqRsTuVwXyZ0123456789_-ab"


class Tenant:
    """A vault with records of applications; nobody asks whether those are there."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.vault = sandbox.vault
        self.number = 0
        self.secrets: list[str] = []

    def add(self, title: str, days: float | None = 100, folder: str | None = "", **fields: Any) -> VaultRecord:
        """Add a record whose secret ends in so many days, half an hour later; None for one that was never rotated."""
        self.number += 1
        self.secrets.append(SECRET.format(self.number))
        shown: dict[str, Any] = {}
        if days is not None:
            end = datetime.now(timezone.utc) + timedelta(days=days, minutes=30)
            shown = {"client_secret_id": KEY.format(self.number), "expires": end.strftime("%Y-%m-%dT%H:%M:%SZ")}
            shown["client_secret"] = self.secrets[-1]
        values = {"application_object_id": APPLICATION.format(self.number), **shown, **fields}
        where = self.vault.folder_uid if folder == "" else folder
        return self.vault.pam_user(title, folder=where, **values)

    def requests(self) -> list[str]:
        """The names of the requests since the last time."""
        found = [entry.op for entry in self.sandbox.log]
        self.sandbox.log.clear()
        return found


@pytest.fixture
def tenant(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tenant]:
    with Sandbox() as sandbox:
        environ = sandbox.environ(GATEWAY_CONFIG=None, KSM_CONFIG=json.dumps(sandbox.client_config()))
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        yield Tenant(sandbox)


@contextmanager
def warnings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Give the warnings that are shown meanwhile."""
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Display, "warning", lambda self, msg, *more, **others: said.append(str(msg)))
        patch.setattr(Display, "error_as_warning", lambda self, msg, exception: said.append(str(exception)))
        yield said


def read(folder: Path, kept: bool = True, **options: Any) -> InventoryManager:
    """Return the inventory that the plugin makes with these options."""
    path = folder / "x.app_records.yml"
    path.write_text(json.dumps({"plugin": "keeperpam.azure.app_records", **options}), "utf-8")
    return InventoryManager(DataLoader(), [str(path)], cache=kept)


def undecipherable(monkeypatch: pytest.MonkeyPatch, uid: str) -> None:
    """Let the record come with a key that is none of its own."""
    answer = Records._record

    def spoiled(self: Records, call: Any, record: VaultRecord) -> dict[str, Any]:
        found = answer(self, call, record)
        return {**found, "recordKey": found["data"]} if record.uid == uid else found

    monkeypatch.setattr(Records, "_record", spoiled)


def groups_of(inventory: InventoryManager) -> dict[str, list[str]]:
    """Return the titles of the hosts of each group but Ansible's own."""
    return {
        name: sorted(host.vars["keeper_title"] for host in group.get_hosts())
        for name, group in inventory.groups.items()
        if name not in ("all", "ungrouped")
    }


def host(inventory: InventoryManager, title: str) -> dict[str, Any]:
    """Return the variables of the host of that record, with its name."""
    found = next(one for one in inventory.get_hosts() if one.vars["keeper_title"] == title)
    return {**found.vars, "name": found.name}


def test_each_record_of_an_application_is_a_host_in_the_group_of_its_state(tenant: Tenant, tmp_path: Path) -> None:
    records = {"late": tenant.add("late", -3), "soon": tenant.add("soon", 9), "well": tenant.add("well", 90)}
    tenant.add("new", None)
    tenant.add("inner", 400, inner_folder=True)
    tenant.add("alone", 400, folder=None, lifetime_days="90", verify="false")
    tenant.vault.pam_user("no application", folder=tenant.vault.folder_uid)
    tenant.vault.azure_configuration("x", "y", "z")
    found = read(tmp_path)
    assert tenant.requests() == ["get_secret", "get_folders"]
    assert groups_of(found) == {
        "expired": ["late"],
        "expiring": ["soon"],
        "healthy": ["alone", "inner", "well"],
        "never_rotated": ["new"],
        "broken": [],
    }
    assert {host(found, title)["name"] for title in records} == {one.uid for one in records.values()}
    soon = host(found, "soon")
    assert soon["keeper_days_left"] == 9
    assert soon["keeper_application_object_id"] == APPLICATION.format(2)
    assert soon["keeper_client_secret_id"] == KEY.format(2)
    assert soon["keeper_expires"] == records["soon"].value("expires")
    assert soon["keeper_folder"] == "PAM Users"
    alone = host(found, "alone")
    assert (alone["keeper_lifetime_days"], alone["keeper_verify"], alone["keeper_folder"]) == (90, False, "")
    assert pieces_in(repr([one.vars for one in found.get_hosts()]), tenant.secrets) == []


def test_a_vault_without_applications_is_an_inventory_without_hosts(tenant: Tenant, tmp_path: Path) -> None:
    assert groups_of(read(tmp_path)) == {name: [] for name in STATES}


def test_folders_with_what_is_below(tenant: Tenant, tmp_path: Path) -> None:
    vault = tenant.vault
    billing = vault.add_folder("Billing", vault.folder_uid)
    places = {"top": "", "billing": billing, "old": vault.add_folder("Old", billing), "else": vault.add_folder("Else")}
    for title, folder in places.items():
        tenant.add(title, folder=folder)
    found = read(tmp_path, folders=["PAM Users/Billing", places["else"]])
    assert groups_of(found)["healthy"] == ["billing", "else", "old"]
    assert host(found, "old")["keeper_folder"] == "PAM Users/Billing/Old"
    assert tenant.requests() == ["get_secret", "get_folders"]


def test_what_is_broken_is_named_and_does_not_hide_the_rest(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant.add("well")
    beside = SECRET.format(77777)
    bad = tenant.add("bad", lifetime_days=beside)
    lost = tenant.add("lost")
    lost.edit("expires", "next summer")
    unreadable = tenant.add("unreadable", folder=None)
    undecipherable(monkeypatch, unreadable.uid)
    with warnings(monkeypatch) as said:
        found = read(tmp_path)
    assert groups_of(found)["broken"] == ["bad", "lost"]
    assert groups_of(found)["healthy"] == ["well"]
    text = "\n".join(said)
    for words in (bad.uid, "lifetime_days", lost.uid, "no date", unreadable.uid, "could not be decrypted"):
        assert words in text
    assert "lifetime_days" in host(found, "bad")["keeper_problem"]
    assert pieces_in(text + repr([one.vars for one in found.get_hosts()]), [*tenant.secrets, beside]) == []


def test_names_groups_and_variables_of_ones_own(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant.add("billing api: {{ 6 * 7 }}", 2)
    twins = {tenant.add("twin").uid, tenant.add("twin").uid}
    named = tenant.add("expired")
    with warnings(monkeypatch) as said:
        found = read(
            tmp_path,
            hostnames=["keeper_title"],
            compose={"ansible_connection": "'local'", "shown": "keeper_title ~ '!'"},
            groups={"urgent": "keeper_days_left < 3"},
            keyed_groups=[{"key": "keeper_folder", "prefix": "folder"}],
            strict=True,
        )
    names = {one.name for one in found.get_hosts()}
    assert names == {"billing_api_____6___7___", *twins, named.uid}
    assert all(uid in "\n".join(said) for uid in (*twins, named.uid))
    found_groups = groups_of(found)
    assert found_groups["urgent"] == ["billing api: {{ 6 * 7 }}"]
    assert len(found_groups["folder_PAM_Users"]) == 4
    variables = host(found, "billing api: {{ 6 * 7 }}")
    assert (variables["ansible_connection"], variables["shown"]) == ("local", "billing api: {{ 6 * 7 }}!")


def test_hosts_are_called_by_the_first_name_that_there_is(tenant: Tenant, tmp_path: Path) -> None:
    tenant.add("a", retire="managed")
    plain = tenant.add("b")
    found = read(
        tmp_path, hostnames=["keeper_retire", "keeper_nothing", "keeper_record | upper | lower", "keeper_title"]
    )
    assert {one.name for one in found.get_hosts()} == {"managed", plain.uid.lower()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folders": ["Bilingue"]}, "no folder 'Bilingue'"),
        ({"keeper_config": "{broken"}, "neither JSON nor base64"),
        ({"keeper_config": "x", "keeper_config_file": "y"}, "both set"),
        ({"keeper_config_file": "/nowhere/config.json"}, "/nowhere/config.json cannot be read"),
        ({"strict": True, "groups": {"x": "keeper_nothing > 1"}}, "group x"),
        ({"strict": True, "hostnames": ["keeper_nothing"]}, "the host name 'keeper_nothing'"),
    ],
)
def test_what_cannot_be_is_said(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: str
) -> None:
    tenant.add("well")
    with warnings(monkeypatch) as said:
        found = read(tmp_path, **options)
    assert found.get_hosts() == [] or "strict" in options
    assert words in "\n".join(said)


def test_a_vault_that_says_no(tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant.vault.devices.clear()
    with warnings(monkeypatch) as said:
        assert read(tmp_path).get_hosts() == []
    assert "Keeper refused to read the records" in "\n".join(said)


@pytest.mark.parametrize("form", ["mapping", "text", "lookup", "file"])
def test_the_configuration_in_every_form(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    config = json.loads(os.environ["KSM_CONFIG"])
    monkeypatch.delenv("KSM_CONFIG")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), "utf-8")
    given: dict[str, Any] = {
        "mapping": {"keeper_config": config},
        "text": {"keeper_config": json.dumps(config)},
        "lookup": {"keeper_config": f"{{{{ lookup('ansible.builtin.file', '{path}') }}}}"},
        "file": {"keeper_config_file": str(path)},
    }[form]
    tenant.add("well")
    assert groups_of(read(tmp_path, **given))["healthy"] == ["well"]


def test_the_cache_holds_what_was_read_and_no_secret(tenant: Tenant, tmp_path: Path) -> None:
    record = tenant.add("well", 40)
    tenant.add("bad", verify=SECRET.format(77777))
    options = {
        "cache": True,
        "cache_plugin": "jsonfile",
        "cache_connection": str(tmp_path / "cache"),
    }
    assert groups_of(read(tmp_path, **options))["healthy"] == ["well"]
    record.edit("expires", "2001-01-01T00:00:00Z")
    tenant.requests()
    kept = read(tmp_path, min_days_left=50, **options)
    assert tenant.requests() == []
    assert (groups_of(kept)["expiring"], groups_of(kept)["broken"]) == (["well"], ["bad"])
    text = "".join(path.read_text("utf-8") for path in (tmp_path / "cache").iterdir())
    config = json.loads(os.environ["KSM_CONFIG"])
    assert "well" in text
    keys = [config[name] for name in ("clientId", "privateKey", "appKey")]
    assert pieces_in(text, [*tenant.secrets, SECRET.format(77777), *keys]) == []
    assert groups_of(read(tmp_path, kept=False, **options))["expired"] == ["well"]


def test_a_cache_in_another_form_is_read_anew(tenant: Tenant, tmp_path: Path) -> None:
    tenant.add("well")
    options = {"cache": True, "cache_plugin": "jsonfile", "cache_connection": str(tmp_path / "cache")}
    read(tmp_path, **options)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_text(json.dumps([{"title": "of another version"}]))
    assert groups_of(read(tmp_path, **options))["healthy"] == ["well"]


def test_a_thousand_records_take_two_requests(tenant: Tenant, tmp_path: Path) -> None:
    for number in range(1000):
        tenant.add(f"app {number}", number - 100)
    found = read(tmp_path, keyed_groups=[{"key": "keeper_folder"}])
    assert tenant.requests() == ["get_secret", "get_folders"]
    assert {name: len(members) for name, members in groups_of(found).items()} == {
        "expired": 100,
        "expiring": 30,
        "healthy": 870,
        "never_rotated": 0,
        "broken": 0,
        "_PAM_Users": 1000,
    }


def test_the_slices_of_the_guide_share_out_all_hosts(tenant: Tenant, tmp_path: Path) -> None:
    guide = (CHECKOUT / "docs" / "docsite" / "rst" / "awx.rst").read_text("utf-8")
    key = guide[guide.index("- key: ") + len("- key: ") :].split("\n")[0]
    titles = {tenant.add(f"app {number}").data["title"] for number in range(40)}
    found = groups_of(read(tmp_path, keyed_groups=[{"key": key, "prefix": "slice"}], strict=True))
    assert {name for name in found if name.startswith("slice_")} == {"slice_0", "slice_1"}
    assert sorted(titles) == sorted(found["slice_0"] + found["slice_1"])
