# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The survey for programs: JSON, and a table that a spreadsheet opens without running anything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

# Of the module's result, what is about the survey and not about the run.
_SURVEY = (
    "read_at",
    "worst",
    "buckets",
    "states",
    "applications",
    "records",
    "left_out",
    "sources",
    "problems",
    "portal",
    "vault",
    "credentials",
)
_COLUMNS = (
    "bucket",
    "days_left",
    "application",
    "client_id",
    "object_id",
    "state",
    "kind",
    "of",
    "key_id",
    "name",
    "start",
    "end",
    "records",
    "record_titles",
    "flags",
    "until",
    "reason",
    "todo",
    "owners",
)
# What begins like this is a formula for one spreadsheet or another, also in full width:
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def as_json(survey: Mapping[str, Any]) -> str:
    """Return the survey as JSON text."""
    return json.dumps({name: survey[name] for name in _SURVEY if name in survey}, indent=1) + "\n"


def as_csv(survey: Mapping[str, Any]) -> str:
    """Return the credentials as a table with a header, in the form of RFC 4180."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for one in survey["credentials"]:
        row = {
            **one,
            "records": " ".join(record["uid"] for record in one["records"]),
            "record_titles": "; ".join(record["title"] for record in one["records"]),
            "flags": " ".join(one["flags"]),
            "owners": "; ".join(one.get("owners") or ()),
        }
        writer.writerow([_cell(row[name]) for name in _COLUMNS])
    return text.getvalue()


def _cell(value: Any) -> str:
    """Return a cell that is text for every spreadsheet, unless it is a number."""
    if value is None or isinstance(value, int):
        return "" if value is None else str(value)
    text = str(value)
    return "'" + text if text.lstrip(" ").startswith(_FORMULA) else text
