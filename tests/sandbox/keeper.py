# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeper Secrets Manager's wire protocol on one vault, for SDK 17.3.0: the API and the file store beside it."""

from __future__ import annotations

import re
from typing import Any, Callable

from .exchange import Operation, Refusal, Request, Response
from .keeper_envelope import Call
from .keeper_files import Files
from .keeper_folders import Folders
from .vault import Vault

API = "/api/rest/sm/v1/"
FILE = re.compile(r"/(files|upload)/([\w-]+)(/unseen)?")


class Keeper(Files, Folders):
    """KSM for the devices of one application."""

    def __init__(self, vault: Vault) -> None:
        super().__init__(vault)
        self._calls: dict[str, Callable[[Request, Call], Response]] = {
            "get_secret": self._get,
            "update_secret": self._update,
            "finalize_secret_update": self._finalize,
            "rollback_secret_update": self._rollback,
            "create_secret": self._create,
            "delete_secret": self._delete,
            "add_file": self._add_file,
            "get_folders": self._get_folders,
            "create_folder": self._create_folder,
            "update_folder": self._update_folder,
            "delete_folder": self._delete_folder,
        }

    def operation(self, request: Request) -> Operation:
        """An API call, whose subject is the uids it is about, or a file's upload or download."""
        file = FILE.fullmatch(request.path)
        if file and (file[1], request.method) in (("files", "GET"), ("upload", "POST")):
            name, take = ("download", self._download) if file[1] == "files" else ("upload", self._upload)
            return Operation(name, file[2], request, lambda: take(request, file[2]), silent=bool(file[3]))
        name = request.path[len(API) :] if request.path.startswith(API) else ""
        if name not in self._calls or request.method != "POST":
            return Operation("unknown", request.path, request, lambda: self.error(request, 404, "not_found"))
        try:
            call = self._open(request)
        except Refusal as refusal:
            response = refusal.response
            return Operation(name, "", request, lambda: response)

        def perform() -> Response:
            if self.vault.throttle and not call.device.unseen:
                self._count(request, call, name)
            return self._calls[name](request, call)

        return Operation(name, _subject(call.payload), request, perform, silent=call.device.unseen)


def _subject(payload: dict[str, Any]) -> str:
    uids = payload.get("requestedRecords") or payload.get("recordUids") or []
    return payload.get("recordUid") or payload.get("ownerRecordUid") or " ".join(uids)
