# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OData queries that lists of applications take here: $filter, $select, $top and what pages by it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from .application import Application
from .graph_forms import UNSHOWN

PAGE = 100
PAGE_MAX = 999

_FILTER = re.compile(
    r"\s*(?:(?P<name>appId|id|displayName) eq '(?P<equal>(?:[^']|'')*)'"
    r"|startswith\(displayName,\s*'(?P<start>(?:[^']|'')*)'\))\s*",
    re.IGNORECASE,
)


class BadQuery(Exception):
    """The query cannot be answered: a code of Graph's and a message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def selected(query: Mapping[str, str]) -> list[str]:
    """The names in $select; none: all that are shown by default."""
    return [name for name in query.get("$select", "").split(",") if name]


def select(form: Mapping[str, Any], names: list[str], kind: str = "application") -> dict[str, Any]:
    """The properties that were asked for, or those that are shown without asking."""
    unknown = [name for name in names if name not in form]
    if unknown:
        text = f"Could not find a property named '{unknown[0]}' on type 'microsoft.graph.{kind}'."
        raise BadQuery("BadRequest", f"Parsing OData Select and Expand failed: {text}")
    return {name: value for name, value in form.items() if (name in names if names else name not in UNSHOWN)}


def matching(applications: Iterable[Application], text: str) -> list[Application]:
    """The applications that pass this $filter; an empty one lets all pass. Letter case does not count."""
    if not text:
        return list(applications)
    match = _FILTER.fullmatch(text)
    if match is None:
        raise BadQuery("Request_UnsupportedQuery", f"Unsupported or invalid query filter clause: {text}")
    wanted = (match["equal"] if match["start"] is None else match["start"]).replace("''", "'").casefold()
    if match["start"] is not None:
        return [one for one in applications if one.display_name.casefold().startswith(wanted)]
    attribute = {"appid": "client_id", "id": "object_id", "displayname": "display_name"}[match["name"].casefold()]
    return [one for one in applications if getattr(one, attribute).casefold() == wanted]


def page(found: list[Application], query: Mapping[str, str], url: str) -> tuple[list[Application], str | None]:
    """The part of a list that this request gets, and the address of the next one if there is more."""
    top, skip = query.get("$top", str(PAGE)), query.get("$skiptoken", "0")
    if not (top.isdigit() and 1 <= int(top) <= PAGE_MAX) or not skip.isdigit():
        text = f"Invalid page size specified: '{top}'. Must be between 1 and {PAGE_MAX} inclusive."
        raise BadQuery("Request_UnsupportedQuery", text)
    end = int(skip) + int(top)
    if end >= len(found):
        return found[int(skip) :], None
    rest = {**query, "$skiptoken": str(end)}
    return found[int(skip) : end], url + "?" + "&".join(f"{name}={quote(value)}" for name, value in rest.items())
