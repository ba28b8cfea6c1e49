# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Keeper Gateway's way of running a PAM Script: records from the vault on one line of stdin, a process, its end."""

from __future__ import annotations

import base64
import contextlib
import copy
import importlib
import json
import random
import secrets
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import Sandbox

# What becomes of the Gateway's own staged save where the script has saved in between. No source says which it is.
OURS_WINS, STAGED_WINS = STAGINGS = ("ours wins", "staged wins")
OMITTED_TYPES = ("script", "fileRef")
ORDERS = ("config-first", "user-first", "shuffled")


@dataclass(frozen=True)
class Run:
    """How a script ended: what the Gateway keeps of it and shows to whoever asks for the job."""

    returncode: int
    stdout: str
    stderr: str
    name: str


class Gateway:
    """Runs PAM Scripts on this host with the "Run PAM scripts only" rotation method.

    It reads with the real SDK, through a device of its own whose requests are neither logged nor met by faults, so
    that the log holds what the script did. What the sources leave open is settable: `duplicate_key` writes the key of
    the n-th field (from 2) of one name, `empty` is the value of a field without any.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.duplicate_key = "{key}{n}"
        self.empty: Any = ""

    def rotate(
        self,
        record_uid: str,
        provider_uid: str | None = None,
        extra_environ: Mapping[str, str | None] | None = None,
        stdin_override: str | None = None,
        order: str = "config-first",
        include: Sequence[str] = ("config", "user", "attached"),
        command: str | None = None,
        timeout: float = 330,
        rotates_password: bool = False,
        staged: str | None = None,
    ) -> Run:
        """Run the script attached to a PAM User record and return how it ended.

        `command` replaces the one of the script field. `rotates_password`: the Gateway also writes a new password into
        the record, while the script holds what it read before. The rest is as for `run`.
        """
        record = self._read([record_uid])[record_uid]
        entry = self._script(record)
        file = next(one for one in record.files if one.f["fileUid"] == entry["fileRef"])
        content = file.get_file_data(verify_ssl_certs=self._sandbox.ca_file)
        argv = shlex.split(entry.get("command") or "") if command is None else shlex.split(command)
        if stdin_override is None and rotates_password:
            stdin_override = self.stdin_for(record_uid, provider_uid, order=order, include=include)
        if rotates_password:
            self._sandbox.vault.records[record_uid].edit("password", _new_password())
        with tempfile.TemporaryDirectory(prefix="gateway-") as folder:  # made with mode 0700
            path = Path(folder) / file.name
            path.write_bytes(content)
            path.chmod(0o700)
            return self.run(
                [*argv, str(path)],
                record_uid,
                provider_uid,
                extra_environ,
                stdin_override,
                order=order,
                include=include,
                timeout=timeout,
                staged=staged,
            )

    def run(
        self,
        argv: Sequence[str],
        record_uid: str,
        provider_uid: str | None = None,
        extra_environ: Mapping[str, str | None] | None = None,
        stdin_override: str | None = None,
        order: str = "config-first",
        include: Sequence[str] = ("config", "user", "attached"),
        timeout: float = 330,
        staged: str | None = None,
    ) -> Run:
        """Run a command as if it were the script of a PAM User record, and return how it ended.

        `provider_uid`: the PAM configuration, by default the vault's only one. `order` and `include` shape the array
        of records on stdin, `stdin_override` replaces the whole line. After `timeout` seconds the script is killed.
        `staged`: as for `staging`, which is around the run.
        """
        password = _new_password()
        line = stdin_override
        if line is None:
            line = self.stdin_for(record_uid, provider_uid, order=order, include=include, new_password=password)
        with self.staging(record_uid, staged, password) if staged else contextlib.nullcontext():
            return self._run(list(argv), line, dict(extra_environ or {}), timeout, Path(argv[-1]).name)

    @contextlib.contextmanager
    def staging(self, record_uid: str, staged: str, password: str | None = None) -> Iterator[None]:
        """What the Gateway may do around a script: stage the record with a new password before, finalise it after.

        The staged data are the record as it was before the script. Where the script has saved meanwhile, "ours wins"
        drops them, and with "staged wins" they replace what the script saved.
        """
        if staged not in STAGINGS:
            raise ValueError(f"staged is one of {STAGINGS}")
        vault = self._sandbox.vault
        record = vault.records[record_uid]
        with vault.outside("stage", record_uid):
            record.stage(_with_password(record.data, password or _new_password()))
        try:
            yield
        finally:
            with vault.outside("finalize", record_uid):
                record.finalize(staged == STAGED_WINS)

    def stdin_for(
        self,
        record_uid: str,
        provider_uid: str | None = None,
        order: str = "config-first",
        include: Sequence[str] = ("config", "user", "attached"),
        new_password: str | None = None,
    ) -> str:
        """The line that the Gateway writes to the script's stdin: base64 of JSON, without a line end."""
        if order not in ORDERS:
            raise ValueError(f"order is one of {ORDERS}")
        provider = self._only_configuration() if provider_uid is None else provider_uid
        user = self._read([record_uid])[record_uid]
        attached = self._script(user, required=False).get("recordRef") or []
        found = self._read([uid for uid in [record_uid, provider, *attached] if uid])
        groups = {"config": [provider], "attached": attached, "user": [record_uid]}
        names = ["config", "attached", "user"] if order == "config-first" else ["user", "attached", "config"]
        uids = [uid for name in names if name in include for uid in groups[name] if uid in found]
        uids = list(dict.fromkeys(uids))
        if order == "shuffled":
            random.shuffle(uids)
        records = [self._flat(found[uid]) for uid in uids]
        login = self._first(user, "login")
        return _encoded(
            {
                "providerRecordUid": provider,
                "resourceRecordUid": "",
                "userRecordUid": record_uid,
                "newPassword": new_password or _new_password(),
                "oldPassword": self._first(user, "password"),
                "user": login,
                "records": _encoded(records),
            }
        )

    def _run(self, argv: list[str], line: str, extra: dict[str, str | None], timeout: float, name: str) -> Run:
        environ = self._sandbox.environ(**extra)
        with subprocess.Popen(
            argv, cwd="/", env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            self._sandbox.client_pid = process.pid
            try:
                out, err = process.communicate(line.encode() + b"\n", timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
            finally:
                self._sandbox.client_pid = None
        return Run(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"), name)

    def _read(self, uids: list[str]) -> dict[str, Any]:
        """Records by uid, by the SDK; the ones that it cannot decrypt by itself are tried with their folder's key."""
        sdk: Any = importlib.import_module("keeper_secrets_manager_core")  # untyped, and slow to import
        dtos: Any = importlib.import_module("keeper_secrets_manager_core.dto.dtos")
        storage: Any = importlib.import_module("keeper_secrets_manager_core.storage")
        config = storage.InMemoryKeyValueStorage(self._sandbox.vault.client_config(unseen=True))
        manager = sdk.SecretsManager(config=config, verify_ssl_certs=self._sandbox.ca_file)
        answer = manager.get_secrets(uids, full_response=True)
        keys = {folder.uid: folder.key for folder in answer.folders}
        found = list(answer.records)
        found += [dtos.Record(bad["r"], keys[bad["r"]["innerFolderUid"]]) for bad in answer.bad_records]
        return {record.uid: record for record in found}

    def _only_configuration(self) -> str:
        kinds = {uid: record.data["type"] for uid, record in self._sandbox.vault.records.items()}
        found = [uid for uid, kind in kinds.items() if kind.startswith("pam") and kind.endswith("Configuration")]
        return found[0] if found else ""

    def _flat(self, record: Any) -> dict[str, Any]:
        """A record as scripts get it: a key for each field, by its label or else its type, with scalar values."""
        flat: dict[str, Any] = {"uid": record.uid, "title": record.title}
        for one in record.dict["fields"] + (record.dict.get("custom") or []):
            if one.get("type") in OMITTED_TYPES:
                continue
            name = key = one.get("label") or one.get("type") or "field"
            number = 1
            while key in flat:
                number += 1
                key = self.duplicate_key.format(key=name, n=number)
            values = one.get("value") or []
            flat[key] = values[0] if len(values) == 1 else values or self.empty
        return flat

    @staticmethod
    def _script(record: Any, required: bool = True) -> dict[str, Any]:
        """The first entry of the record's script field, which is known by its type: its label varies."""
        for one in record.dict["fields"] + (record.dict.get("custom") or []):
            if one.get("type") == "script" and one.get("value"):
                entry: dict[str, Any] = one["value"][0]
                return entry
        if required:
            raise LookupError(f"no PAM Script is attached to {record.uid}")
        return {}

    @staticmethod
    def _first(record: Any, kind: str) -> str:
        return next(
            (one["value"][0] for one in record.dict["fields"] if one.get("type") == kind and one.get("value")), ""
        )


def _encoded(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def _with_password(data: dict[str, Any], password: str) -> dict[str, Any]:
    """A copy of a record's data with this in its password field."""
    data = copy.deepcopy(data)
    found = next((one for one in data["fields"] if one.get("type") == "password"), None)
    if found is None:
        found = {"type": "password"}
        data["fields"].append(found)
    found["value"] = [password]
    return data


def _new_password() -> str:
    return secrets.token_urlsafe(20)
