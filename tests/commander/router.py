# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The router: rotation settings, and the graph of who belongs to which PAM configuration."""

from __future__ import annotations

import base64
import json
from typing import Any, Callable

from sandbox.exchange import Response

from .account import Account, Rotation
from .protocol import Messages, parsed, to_bytes, to_uid

JsonDict = dict[str, Any]


class Router:
    """The endpoints by name: those that answer with a message, and those that answer with JSON.

    A graph is a stream of edges; the stream of an edge is the PAM configuration that its head belongs to.
    """

    def __init__(self, account: Account, messages: Messages) -> None:
        self.account = account
        self.m = messages
        self.edges: list[tuple[str, JsonDict]] = []
        self.messages: dict[str, Callable[[bytes], Any]] = {
            "set_record_rotation": self._set_rotation,
            "configure_network_graph": self._configure,
            "get_leafs of pam": self._pam_leafs,
        }
        self.plain: dict[str, Callable[[JsonDict], Any]] = {
            "sync": self._sync,
            "add_data": self._add,
            "get_leafs": self._leafs,
        }

    def linked(self, configuration: str, user: str) -> JsonDict:
        """What the graph says of a PAM user and a PAM configuration: the content of the newest edge between them."""
        found: JsonDict = {}
        for stream, edge in self.edges:
            head = (edge.get("parentRef") or {}).get("value")
            if stream == configuration and edge["ref"]["value"] == user and head == configuration:
                found = _content(edge) if edge["type"] == "acl" else {}
        return found

    def settings(self, configuration: str) -> JsonDict:
        """What is switched on for a PAM configuration."""
        found: JsonDict = {}
        for stream, edge in self.edges:
            if stream == configuration and edge["type"] == "data" and edge.get("path") == "meta":
                found = _content(edge).get("allowedSettings", {})
        return found

    def set_settings(self, configuration: str, **settings: bool) -> None:
        """Somebody switches something on or off for a PAM configuration."""
        content = json.dumps({"allowedSettings": {**self.settings(configuration), **settings}}).encode()
        self.edges.append(
            (
                configuration,
                {
                    "type": "data",
                    "content": base64.b64encode(content).decode(),
                    "ref": {"type": "pam_network", "value": configuration, "name": None},
                    "parentRef": {"type": "pam_network", "value": configuration, "name": None},
                    "path": "meta",
                },
            )
        )

    # -- rotations -------------------------------------------------------------------------------------------------

    def _set_rotation(self, data: bytes) -> Any:
        request = parsed(self.m.router.RouterRecordRotationRequest, data)
        uid, configuration = to_uid(request.recordUid), to_uid(request.configurationUid)
        before = self.account.rotations.get(uid)
        if uid not in self.account.vault.records or configuration not in self.account.vault.records:
            return self._no("RRC_BAD_REQUEST", "no such record")
        if request.revision != (before.revision if before else 0):
            return self._no("RRC_BAD_REQUEST", "mismatched_revision_blocking_update")
        if request.noop and request.resourceUid:
            return self._no("RRC_BAD_REQUEST", "noop and resource cannot both be set")
        if request.schedule and not isinstance(json.loads(request.schedule), list):
            return self._no("RRC_BAD_REQUEST", "the schedule is no list")
        self.account.rotations[uid] = Rotation(
            configuration,
            request.schedule,
            request.disabled,
            to_uid(request.resourceUid) if request.resourceUid else "",
            request.pwdComplexity,
            self.account.vault.next_revision(),
        )
        return None

    def _configure(self, data: bytes) -> Any:
        request = parsed(self.m.router.PAMNetworkConfigurationRequest, data)
        settings = json.loads(request.networkSettings.allowedSettings)
        self.set_settings(to_uid(request.recordUid), **settings)

    def _no(self, code: str, message: str) -> Any:
        return self.m.router.RouterResponse(
            responseCode=self.m.router.RouterResponseCode.Value(code), errorMessage=message
        )

    # -- the graph -------------------------------------------------------------------------------------------------

    def _stream_of(self, uid: str) -> str:
        record = self.account.vault.records.get(uid)
        if record is not None and record.data["type"].endswith("Configuration"):
            return uid
        return next((stream for stream, edge in self.edges if edge["ref"]["value"] == uid), "")

    def _sync(self, query: JsonDict) -> JsonDict:
        stream, since = query["streamId"], query.get("syncPoint") or 0
        found = [
            (number, edge)
            for number, (one, edge) in enumerate(self.edges, 1)
            if one == stream and number > since and (query.get("graphId") or 0) == 0
        ]
        return {
            "syncPoint": found[-1][0] if found else 0,
            "data": [{**edge, "deletion": False} for _number, edge in found],
            "hasMore": False,
        }

    def _add(self, payload: JsonDict) -> JsonDict:
        for edge in payload["dataList"]:
            head = (edge.get("parentRef") or {}).get("value") or edge["ref"]["value"]
            self.edges.append((self._stream_of(head), edge))
        return {}

    def _leafs(self, query: JsonDict) -> list[JsonDict]:
        stream = self._stream_of(query["vertex"])
        return [{"type": "rec", "value": stream, "name": None}] if stream else []

    def _pam_leafs(self, data: bytes) -> Any:
        response = self.m.graph.GraphSyncRefsResult()
        for uid in parsed(self.m.graph.GraphSyncLeafsQuery, data).vertices:
            stream = self._stream_of(to_uid(uid))
            if stream:
                response.refs.add(value=to_bytes(stream))
        return response


def _content(edge: JsonDict) -> JsonDict:
    text = edge.get("content") or ""
    content: JsonDict = json.loads(base64.b64decode(text + "=" * (-len(text) % 4)) or b"{}")
    return content


def refusal(status: int, message: str) -> Response:
    """An error of the router: text."""
    return Response.of(status, message, {"Content-Type": "text/plain"}, detail=message)
