# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Graph's JSON batching: up to 20 requests in one, each with an answer of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .exchange import Refusal, Request, Response

if TYPE_CHECKING:
    from .graph import Graph

MAX = 20
ROOT = "/v1.0"


def answer(graph: Graph, request: Request, body: Mapping[str, Any]) -> Response:
    """Answer a batch: 200 with an answer for each request, whatever that is, in no order that counts.

    The first `throttled_in_batch` of the directory's requests are throttled, each by itself.
    """
    wanted = body.get("requests")
    if not isinstance(wanted, list) or not 1 <= len(wanted) <= MAX:
        text = f"Number of batch request steps exceeds the maximum value of {MAX}."
        return graph.error(request, 400, "BadRequest", text)
    ids = [one.get("id") for one in wanted]
    if len(set(ids)) != len(ids) or not all(isinstance(one, str) and one for one in ids):
        return graph.error(request, 400, "BadRequest", "Batch requests need unique ids.")
    responses = [{"id": one["id"], **_single(graph, request, one)} for one in wanted]
    return Response.of(
        200,
        {"responses": responses[::-1]},
        {**graph.batch_headers(request), "Content-Type": "application/json"},
        streamed=True,
        detail=f"{len(wanted)} requests",
    )


def _single(graph: Graph, request: Request, wanted: Mapping[str, Any]) -> dict[str, Any]:
    split = urlsplit(ROOT + "/" + str(wanted.get("url", "")).lstrip("/"))
    query = dict(parse_qsl(split.query, keep_blank_values=True))
    inner = replace(request, method=str(wanted.get("method")), path=unquote(split.path), query=query, body=b"")
    directory = graph.directory
    if directory.throttled_in_batch > 0:
        directory.throttled_in_batch -= 1
        response = graph.error(inner, 429, "TooManyRequests", "Too many requests.")
        response.headers["Retry-After"] = "0.2"
    else:
        try:
            response = graph.operation(inner).perform()
        except Refusal as refusal:
            response = refusal.response
    # Of the headers, a batch's answers carry few.
    kept = {name: value for name, value in response.headers.items() if name in ("Retry-After", "Cache-Control")}
    headers = {**kept, "Content-Type": "application/json"}
    return {"status": response.status, "headers": headers, "body": json.loads(response.body or b"null")}
