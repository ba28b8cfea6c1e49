# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the Gateway passes on stdin is read back; anything else is bad input and never another exception."""

from __future__ import annotations

import base64
import io
import json
from contextlib import suppress

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.labels import normalise
from ansible_collections.keeperpam.azure.plugins.module_utils._core.script import gateway
from ansible_collections.keeperpam.azure.plugins.module_utils._core.script.gateway import (
    Request,
    find_configuration,
    read_request,
)
from core_samples import base64_of
from hypothesis import given, settings
from hypothesis import strategies as st

RECORDS = [
    {"uid": "CONFIG", "title": "Azure", "clientId": "c", "clientSecret": "s"},
    {"uid": "USER", "title": "billing-api", "login": "x", "application_object_id": "o"},
    {"uid": "ADMIN", "title": "rotator", "application_client_id": "a"},
]
UID = st.text("ABCDEFabcdef0123456789-_", min_size=1, max_size=22)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


def message(**changes) -> dict:
    """What the Gateway writes, as Keeper's page shows it; a value of ... takes the key away."""
    whole = {
        "providerRecordUid": "CONFIG",
        "resourceRecordUid": "",
        "userRecordUid": "USER",
        "newPassword": "n",
        "oldPassword": "o",
        "user": "x",
        "records": base64_of(RECORDS).decode(),
        **changes,
    }
    return {key: value for key, value in whole.items() if value is not ...}


def read(line: bytes) -> Request:
    return read_request(io.BytesIO(line))


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\nmore\n"])
@pytest.mark.parametrize("start", [b"", b"\n", b"\r\n \n", b"\xef\xbb\xbf"])
def test_the_gateways_line_is_read(start, end):
    request = read(start + base64_of(message()) + end)
    assert (request.user_uid, request.provider_uid) == ("USER", "CONFIG")
    assert [record.uid for record in request.records] == ["CONFIG", "USER", "ADMIN"]
    assert [record.title for record in request.records] == ["Azure", "billing-api", "rotator"]


def test_configuration_and_attached_records_are_told_apart():
    request = read(base64_of(message()))
    configuration = request.configuration()
    assert configuration is not None
    assert configuration.get("clientId") == "c"
    assert [record.uid for record in request.attached()] == ["ADMIN"]


@pytest.mark.parametrize("provider", [None, "", ..., "ELSEWHERE"])
def test_a_configuration_that_was_not_passed_is_none(provider):
    assert read(base64_of(message(providerRecordUid=provider))).configuration() is None


@pytest.mark.parametrize("provider", ["", "CONFIG"])
def test_a_record_without_uid_is_neither_configuration_nor_attached(provider):
    records = base64_of([{"title": "?", "application_client_id": "a"}]).decode()
    request = read(base64_of(message(providerRecordUid=provider, records=records)))
    assert request.configuration() is None
    assert request.attached() == ()


@pytest.mark.parametrize("alphabet", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padded", [True, False])
def test_every_base64_is_read(alphabet, padded):
    for filler in ("", "x", "xx", "?>~"):
        line = alphabet(json.dumps(message(user=filler)).encode())
        assert read(line if padded else line.rstrip(b"=")).user_uid == "USER"


def test_neither_password_is_kept():
    request = read(base64_of(message(newPassword="top-secret-1", oldPassword="top-secret-2")))
    assert "top-secret" not in repr(request)
    assert "top-secret" not in str(vars(request))


@pytest.mark.parametrize("records", ["", " "])
def test_no_records_at_all_are_no_error(records):
    assert read(base64_of(message(records=records))).records == ()


@settings(max_examples=60)
@given(
    user=UID,
    provider=UID,
    records=st.lists(
        st.dictionaries(
            st.text("abcdefghij", min_size=1, max_size=9).filter(lambda label: label not in ("uid", "title")),
            st.text(min_size=1, max_size=20).filter(str.strip),
            max_size=4,
        ),
        max_size=4,
    ),
    lists=st.booleans(),
)
def test_what_the_gateway_writes_is_read_back(user, provider, records, lists):
    items = [
        {"uid": f"uid{index}", "title": "t", **{key: [value] if lists else value for key, value in item.items()}}
        for index, item in enumerate(records)
    ]
    line = base64_of(message(userRecordUid=user, providerRecordUid=provider, records=base64_of(items).decode()))
    request = read(line + b"\n")
    assert (request.user_uid, request.provider_uid) == (user, provider)
    assert len(request.records) == len(records)
    for view, values in zip(request.records, records):
        for label, value in values.items():
            assert view.get(label) == value.strip()
            assert view.get(normalise(label).upper()) == value.strip()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "stdin is empty"),
        (b"\n \n", "stdin is empty"),
        (b"!!!", "no base64"),
        (b"QUJD RA==", "no base64"),
        (base64.b64encode(b"\xff\xfe"), "not of JSON"),
        (base64.b64encode(b"{"), "not of JSON"),
        (base64.b64encode(b"[" * 100_000), "not of JSON"),
        (base64_of([]), "no JSON object"),
        (base64_of("text"), "no JSON object"),
        (base64_of({}), "userRecordUid and records"),
        (base64_of(message(userRecordUid=...)), "userRecordUid"),
        (base64_of(message(userRecordUid="  ")), "userRecordUid"),
        (base64_of(message(userRecordUid=7)), "userRecordUid"),
        (base64_of(message(userRecordUid=None)), "userRecordUid"),
        (base64_of(message(providerRecordUid=7)), "providerRecordUid"),
        (base64_of(message(records=...)), "records"),
        (base64_of(message(records=RECORDS)), "records"),
        (base64_of(message(records=None)), "records"),
        (base64_of(message(records="***")), "records on stdin is no base64"),
        (base64_of(message(records=base64_of({}).decode())), "JSON array"),
        (base64_of(message(records=base64_of([1]).decode())), "JSON array"),
    ],
)
def test_bad_input_is_named(line, says):
    with pytest.raises(BadInput, match=says) as caught:
        read(line)
    assert "Next: " in caught.value.message


LINE = base64_of(message()).decode()
WRAPPED = "\n".join(LINE[at : at + 76] for at in range(0, len(LINE), 76))


@pytest.mark.parametrize(
    ("line", "why", "todo"),
    [
        (WRAPPED.encode(), "wrapped over lines", "base64 -w0"),
        (WRAPPED.replace("\n", "\r\n").encode(), "wrapped over lines", "base64 -w0"),
        (LINE.encode("utf-16"), "UTF-16", "UTF-8"),
        (LINE.encode("utf-16-le"), "UTF-16", "UTF-8"),
        (base64.b64encode(json.dumps(message()).encode("utf-16-le")), "UTF-16", "UTF-8"),
        (json.dumps(message()).encode(), "JSON itself", "base64"),
        (f'"{LINE}"'.encode(), "quotes", "without the quotes"),
        (base64.b64encode(LINE.encode()), "base64 twice", "once"),
        (LINE[:-40].encode(), "cut off", "whole"),
    ],
    ids=["wrapped", "wrapped on Windows", "UTF-16", "no mark", "within", "JSON", "quotes", "twice", "cut off"],
)
def test_what_is_wrong_with_the_line_is_told_by_name(line, why, todo):
    with pytest.raises(BadInput, match="stdin") as caught:
        read(line + b"\n")
    assert why in caught.value.what + caught.value.why
    assert todo in caught.value.todo


def test_bad_input_quotes_nothing_of_stdin():
    with pytest.raises(BadInput) as caught:
        read(base64.b64encode(b'{"newPassword": "top-secret", '))
    assert "top-secret" not in caught.value.message
    assert caught.value.__cause__ is None


def reads_or_is_bad_input(line: bytes) -> None:
    with suppress(BadInput):
        assert isinstance(read(line), Request)


@settings(max_examples=80)
@given(st.binary())
def test_any_bytes_are_a_request_or_bad_input(line):
    reads_or_is_bad_input(line)
    reads_or_is_bad_input(base64.b64encode(line))


@settings(max_examples=80)
@given(JSON, JSON, JSON, JSON)
def test_any_json_is_a_request_or_bad_input(whole, user, provider, records):
    reads_or_is_bad_input(base64_of(whole))
    reads_or_is_bad_input(base64_of(message(userRecordUid=user, providerRecordUid=provider, records=records)))
    reads_or_is_bad_input(base64_of(message(records=base64_of(records).decode())))
    reads_or_is_bad_input(base64_of(message(records=base64_of([{"uid": whole, "a": records}]).decode())))


def test_half_a_surrogate_pair_is_bad_input():
    with pytest.raises(BadInput):
        read(base64_of(message(records="\ud83d")))


# -- the Gateway's configuration

ALL = {
    "GATEWAY_CONFIG": "text-1",
    "GATEWAY_CONFIG_PATH": "/path-2",
    "KSM_CONFIG": "text-3",
    "KSM_CONFIG_FILE": "/path-4",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The two well-known places, empty."""
    places = (str(tmp_path / "etc.json"), str(tmp_path / "home.json"))
    monkeypatch.setattr(gateway, "_FILES", places)
    return tmp_path


@pytest.mark.parametrize(("skipped", "text"), [(0, "text-1"), (1, "of /path-2"), (2, "text-3"), (3, "of /path-4")])
def test_the_first_variable_that_is_there_counts(files, skipped, text):
    (files / "etc.json").write_text("of a file")
    names = list(ALL)[skipped:]
    found, source = find_configuration({name: ALL[name] for name in reversed(names)}, lambda path: "of " + path)
    assert found == text
    assert names[0] in source


def test_the_files_come_last_and_in_order(files):
    (files / "home.json").write_text("home")
    assert find_configuration({}) == ("home", str(files / "home.json"))
    (files / "etc.json").write_text("\ufeffetc")
    assert find_configuration({}) == ("etc", str(files / "etc.json"))


def test_the_well_known_files_are_those_of_the_gateway():
    assert gateway._FILES == ("/etc/keeper-gateway/gateway-config.json", "~/.keeper/gateway-config.json")


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_variable_is_not_there(files, blank):
    assert find_configuration({"GATEWAY_CONFIG": blank, "KSM_CONFIG": " x \n"})[0] == "x"


def test_nothing_there_names_every_place(files):
    with pytest.raises(BadInput) as caught:
        find_configuration({})
    for name in (*ALL, "etc.json", "home.json"):
        assert name in caught.value.message


@pytest.mark.parametrize("content", [None, b"\xff\xff", "a directory"])
def test_a_file_that_is_named_but_unreadable_is_an_error_and_no_reason_to_go_on(files, content):
    (files / "etc.json").write_text("would do")
    path = files / "named.json"
    if content == "a directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=r"named\.json cannot be read"):
        find_configuration({"GATEWAY_CONFIG_PATH": str(path), "KSM_CONFIG": "would do"})


def test_a_file_in_a_closed_folder_is_there(files, monkeypatch):
    def denied(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(gateway.os, "stat", denied)
    with pytest.raises(BadInput, match=r"etc\.json cannot be read"):
        find_configuration({})


def test_the_configuration_is_never_opened_for_writing(files):
    path = files / "etc.json"
    path.write_text("{}")
    path.chmod(0o400)
    before = path.stat()
    assert find_configuration({})[0] == "{}"
    after = path.stat()
    assert (before.st_mtime_ns, before.st_ino, before.st_size) == (after.st_mtime_ns, after.st_ino, after.st_size)
