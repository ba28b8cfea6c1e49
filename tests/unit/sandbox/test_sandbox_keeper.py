# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unmodified KSM SDK against the emulated vault."""

from __future__ import annotations

import base64
from typing import Any, Callable

import pytest
import requests
from keeper_secrets_manager_core.dto.dtos import KeeperFileUpload, Record, RecordCreate, RecordField
from keeper_secrets_manager_core.dto.payload import CreateOptions
from keeper_secrets_manager_core.exceptions import KeeperError

from sandbox import Sandbox

Ksm = Callable[..., Any]


def test_a_one_time_token_binds_once_and_then_reads(sb: Sandbox, ksm: Ksm) -> None:
    record = sb.vault.pam_user("billing-api", client_secret="value")
    config = sb.client_config(bound=False)
    from keeper_secrets_manager_core import SecretsManager
    from keeper_secrets_manager_core.storage import InMemoryKeyValueStorage

    first = SecretsManager(config=InMemoryKeyValueStorage(dict(config)))
    assert [one.uid for one in first.get_secrets()] == [record.uid]
    assert [entry.detail for entry in sb.log] == ["bound", "1 records"]
    second = SecretsManager(config=InMemoryKeyValueStorage(dict(config)))
    with pytest.raises(KeeperError, match="Signature is invalid"):
        second.get_secrets()


def test_it_reads_records_of_the_application_and_of_its_folders(sb: Sandbox, ksm: Ksm) -> None:
    alone = sb.vault.pam_user("alone", client_secret="a", client_secret_id=None)
    inside = sb.vault.pam_user("inside", folder=sb.vault.folder_uid, client_secret="b")
    sb.vault.add_record("pamUser", "private", shared=False)
    found = {one.uid: one for one in ksm().get_secrets()}
    assert set(found) == {alone.uid, inside.uid}
    assert found[alone.uid].dict == alone.data
    assert found[alone.uid].revision == alone.revision
    assert found[alone.uid].is_editable is True
    assert found[inside.uid].folder_uid == sb.vault.folder_uid
    assert found[inside.uid].custom_field("client_secret", single=True) == "b"


def test_a_request_for_some_uids_gets_those_that_are_there(sb: Sandbox, ksm: Ksm) -> None:
    one, _other = sb.vault.pam_user("one"), sb.vault.pam_user("other")
    assert [record.uid for record in ksm().get_secrets([one.uid, "unknownunknownunknown1"])] == [one.uid]
    assert ksm().get_secrets(["unknownunknownunknown1"]) == []


def test_a_record_of_an_inner_folder_is_bad_to_the_sdk_until_the_folders_key_is_used(sb: Sandbox, ksm: Ksm) -> None:
    record = sb.vault.pam_user("inner", inner_folder=True, client_secret="deep")
    answer = ksm().get_secrets([record.uid], full_response=True)
    assert answer.records == []
    (bad,) = answer.bad_records
    (folder,) = answer.folders
    assert bad["r"]["innerFolderUid"] == folder.uid
    opened = Record(bad["r"], folder.key, bad["r"]["innerFolderUid"])
    assert opened.custom_field("client_secret", single=True) == "deep"


def test_a_save_is_stored_and_the_next_one_of_the_same_object_is_out_of_sync(sb: Sandbox, ksm: Ksm) -> None:
    record = sb.vault.pam_user("app", client_secret="old")
    manager = ksm()
    (copy,) = manager.get_secrets([record.uid])
    before = record.revision
    copy.custom_field("client_secret", value="new")
    manager.save(copy)
    assert record.value("client_secret") == "new"
    assert record.revision > before
    with pytest.raises(KeeperError, match=rf"Error: access_denied, message=Record {record.uid} is out of sync"):
        manager.save(copy)


def test_an_edit_in_the_vault_makes_a_save_out_of_sync(sb: Sandbox, ksm: Ksm) -> None:
    record = sb.vault.pam_user("app", client_secret="old")
    manager = ksm()
    (copy,) = manager.get_secrets([record.uid])
    record.edit("client_secret", "by hand")
    with pytest.raises(KeeperError, match="out of sync"):
        manager.save(copy)
    assert record.value("client_secret") == "by hand"


def test_the_status_of_out_of_sync_is_a_switch(sb: Sandbox, ksm: Ksm) -> None:
    sb.vault.out_of_sync_status = 409
    manager = ksm()
    (copy,) = manager.get_secrets([sb.vault.pam_user("app").uid])
    manager.save(copy)
    with pytest.raises(KeeperError, match="out of sync"):
        manager.save(copy)
    assert sb.log[-1].status == 409


def test_a_record_that_is_not_editable_refuses(sb: Sandbox, ksm: Ksm) -> None:
    record = sb.vault.pam_user("app", client_secret="old", editable=False)
    manager = ksm()
    (copy,) = manager.get_secrets([record.uid])
    assert copy.is_editable is False
    copy.custom_field("client_secret", value="new")
    with pytest.raises(KeeperError, match="access_denied"):
        manager.save(copy)
    assert record.value("client_secret") == "old"


def test_a_removed_or_moved_record_is_seen_as_such(sb: Sandbox, ksm: Ksm) -> None:
    record = sb.vault.pam_user("app")
    sb.vault.move(record.uid, sb.vault.folder_uid)
    assert ksm().get_secrets([record.uid])[0].folder_uid == sb.vault.folder_uid
    sb.vault.remove(record.uid)
    assert ksm().get_secrets([record.uid]) == []


@pytest.mark.parametrize("kind", ["general", "rotation"])
@pytest.mark.parametrize("rollback", [False, True])
def test_a_save_with_a_transaction_type_waits_for_its_completion(
    sb: Sandbox, ksm: Ksm, kind: str, rollback: bool
) -> None:
    record = sb.vault.pam_user("app", client_secret="old")
    manager = ksm()
    (copy,) = manager.get_secrets([record.uid])
    copy.custom_field("client_secret", value="new")
    manager.save(copy, transaction_type=kind)
    assert record.value("client_secret") == "old"
    manager.complete_transaction(record.uid, rollback=rollback)
    assert record.value("client_secret") == ("old" if rollback else "new")
    assert record.staged is None


def test_files_are_uploaded_downloaded_and_unlinked(sb: Sandbox, ksm: Ksm) -> None:
    record = sb.vault.pam_user("app")
    manager = ksm()
    (copy,) = manager.get_secrets([record.uid])
    content = bytes(range(256)) * 40 + b"\r\n--\r\n"
    uid = manager.upload_file(copy, KeeperFileUpload("a.bin", "A", "application/octet-stream", content))
    assert [entry.op for entry in sb.log][-2:] == ["add_file", "upload"]
    assert record.value("fileRef") == uid
    (again,) = manager.get_secrets([record.uid])
    (file,) = again.files
    assert (file.name, file.title, file.size) == ("a.bin", "A", len(content))
    assert file.get_file_data() == content
    manager.save(again, links_to_remove=[uid])
    assert record.files == []
    assert record.value("fileRef") is None


def test_a_stale_revision_refuses_a_file(sb: Sandbox, ksm: Ksm) -> None:
    record = sb.vault.pam_user("app")
    manager = ksm()
    (copy,) = manager.get_secrets([record.uid])
    record.edit("login", "changed")
    with pytest.raises(KeeperError, match="out of sync"):
        manager.upload_file(copy, KeeperFileUpload("a", "A", "text/plain", b"x"))
    assert record.files == []


def test_a_file_that_was_announced_and_not_uploaded_cannot_be_read(sb: Sandbox, ksm: Ksm) -> None:
    record = sb.vault.pam_user("app")
    file = sb.vault.attach_script(record, b"print()")
    file.content = None
    (copy,) = ksm().get_secrets([record.uid])
    assert requests.get(copy.files[0].f["url"], timeout=20).status_code == 404


def test_records_are_created_in_folders_and_deleted(sb: Sandbox, ksm: Ksm) -> None:
    sub = sb.vault.add_folder("Team", parent=sb.vault.folder_uid)
    manager = ksm()
    names = {one.folder_uid: (one.name, one.parent_uid) for one in manager.get_folders()}
    assert names == {sb.vault.folder_uid: ("PAM Users", ""), sub: ("Team", sb.vault.folder_uid)}
    new = RecordCreate("pamUser", "made")
    new.fields = [RecordField("login", "me")]
    uid = manager.create_secret(sb.vault.folder_uid, new)
    assert sb.vault.records[uid].value("login") == "me"
    assert manager.get_secrets([uid])[0].title == "made"
    assert manager.delete_secret([uid, "unknown"])[0] == {"recordUid": uid, "responseCode": "ok"}
    assert uid not in sb.vault.records


def test_a_record_of_a_sub_folder_is_read_and_saved_by_the_sdk_alone(sb: Sandbox, ksm: Ksm) -> None:
    deep = sb.vault.add_folder("Deep", parent=sb.vault.add_folder("Team", parent=sb.vault.folder_uid))
    record = sb.vault.pam_user("below", folder=deep, client_secret="old")
    manager = ksm()
    (copy,) = manager.get_secrets([record.uid])
    assert (copy.folder_uid, copy.inner_folder_uid) == (sb.vault.folder_uid, deep)
    copy.custom_field("client_secret", value="new")
    manager.save(copy)
    assert record.value("client_secret") == "new"


def test_folders_are_made_renamed_and_deleted(sb: Sandbox, ksm: Ksm) -> None:
    manager, shared = ksm(), sb.vault.folder_uid
    team = manager.create_folder(CreateOptions(shared, None), "Team")
    deep = manager.create_folder(CreateOptions(shared, team), "Deep")
    manager.update_folder(deep, "Deeper")
    names = {one.folder_uid: (one.name, one.parent_uid) for one in manager.get_folders()}
    assert names == {shared: ("PAM Users", ""), team: ("Team", shared), deep: ("Deeper", team)}
    new = RecordCreate("pamUser", "made")
    new.fields = [RecordField("login", "me")]
    uid = manager.create_secret_with_options(CreateOptions(shared, deep), new)
    assert manager.get_secrets([uid])[0].inner_folder_uid == deep
    assert manager.delete_folder([team])[0]["responseCode"] == "access_denied", "it is not empty"
    assert manager.delete_folder([team, "unknown"], force_deletion=True) == [
        {"folderUid": team, "responseCode": "ok"},
        {"folderUid": "unknown", "responseCode": "ok"},
    ]
    assert (list(sb.vault.folders), uid in sb.vault.records) == ([shared], False)


def test_folders_and_records_are_made_where_they_belong(sb: Sandbox, ksm: Ksm) -> None:
    manager, other = ksm(), sb.vault.add_folder("Other")
    team = sb.vault.add_folder("Team", parent=sb.vault.folder_uid)
    new = RecordCreate("pamUser", "made")
    new.fields = [RecordField("login", "me")]
    for refused in (
        lambda: manager.create_folder(CreateOptions(other, team), "astray"),
        lambda: manager.create_folder(CreateOptions(team, None), "astray"),
        lambda: manager.create_secret_with_options(CreateOptions(other, team), new),
        lambda: manager.create_secret_with_options(CreateOptions(team, None), new),
    ):
        with pytest.raises(KeeperError, match="access_denied"):
            refused()


@pytest.mark.parametrize("wins", [True, False])
def test_which_save_wins_over_a_staged_one_is_a_switch(sb: Sandbox, ksm: Ksm, wins: bool) -> None:
    sb.vault.staged_wins = wins
    record = sb.vault.pam_user("app", client_secret="old")
    manager = ksm()
    (staged,), (plain,) = manager.get_secrets([record.uid]), manager.get_secrets([record.uid])
    staged.custom_field("client_secret", value="staged")
    manager.save(staged, transaction_type="rotation")
    plain.custom_field("client_secret", value="plain")
    manager.save(plain)
    manager.complete_transaction(record.uid)
    assert record.value("client_secret") == ("staged" if wins else "plain")


# -- the counter


def read(manager: Any, times: int) -> list[str]:
    """Read so many times; the errors, "" for none."""
    found = []
    for _number in range(times):
        try:
            manager.get_secrets()
            found.append("")
        except KeeperError as error:
            found.append(str(error))
    return found


def test_keeper_counts_the_calls_of_a_device_at_an_endpoint(sb: Sandbox, ksm: Ksm) -> None:
    sb.vault.throttle = True
    manager = ksm()
    found = read(manager, 101)
    assert found[:99] == [""] * 99
    assert all("throttled" in text for text in found[99:])
    assert sb.log[-1].status == 429
    assert manager.get_folders(), "another endpoint"
    assert read(ksm(), 1) == [""], "another device"


def test_every_call_prolongs_the_count_and_silence_ends_it(sb: Sandbox, ksm: Ksm) -> None:
    sb.vault.throttle, sb.vault.throttle_requests = True, 3
    manager = ksm()
    assert read(manager, 2) == ["", ""]
    assert all("throttled" in text for text in read(manager, 5))
    sb.vault.throttle_silence = 0
    assert read(manager, 5) == [""] * 5


def test_keeper_does_not_count_unless_asked_to(sb: Sandbox, ksm: Ksm) -> None:
    sb.vault.throttle_requests = 1
    assert read(ksm(), 3) == [""] * 3


def test_another_key_id_is_asked_for_and_then_used(sb: Sandbox, ksm: Ksm) -> None:
    manager = ksm()
    sb.vault.pam_user("app")
    sb.vault.server_key_id = "1001"
    assert len(manager.get_secrets()) == 1
    assert [(entry.status, entry.detail) for entry in sb.log] == [(401, "key"), (200, "1 records")]


def test_bytes_that_are_no_request_are_refused_in_keepers_shape(sb: Sandbox) -> None:
    key = base64.b64encode(b"y" * 125).decode()
    headers = {"PublicKeyId": "999", "TransmissionKey": key, "Authorization": "Signature AA"}
    url = f"https://{sb.keeper_host}/api/rest/sm/v1/get_secret"
    answer = requests.post(url, data=b"x" * 40, headers=headers, timeout=20)
    assert answer.status_code == 400
    assert set(answer.json()) == {"path", "additional_info", "location", "error", "message"}
    assert requests.get(f"https://{sb.keeper_host}/nowhere", timeout=20).status_code == 404


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ("commander", ("clientId", "clientSecret", "tenantId")),
        ("saas", ("pamazureclientid", "pamazureclientsecret", "pamazuretenantid")),
        ("helper", ("Client Id", "Client Secret", "Tenant Id")),
        ("old", ("Client ID", "Client Secret", "Tenant Id")),
    ],
)
def test_azure_configurations_carry_the_labels_of_their_creators(
    sb: Sandbox, ksm: Ksm, labels: str, names: tuple[str, str, str]
) -> None:
    record = sb.vault.azure_configuration("id", "secret", "tenant", labels=labels)
    (copy,) = ksm().get_secrets([record.uid])
    assert [copy.get_standard_field_value(name, single=True) for name in names] == ["id", "secret", "tenant"]
    assert copy.get_custom_field_value("Azure Authority FQDN", single=True) == sb.authority
    assert copy.get_custom_field_value("Azure Graph Endpoint", single=True) == sb.graph_url
