# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A record that Keeper shows several times, because it lies in several folders."""

from __future__ import annotations

import json
from typing import Any


def without_read_only_copies(answer: bytes) -> bytes:
    """Return Keeper's answer, decrypted, without the read-only copies of records that it also gives to be edited.

    Which of them an SDK keeps is a matter of its version. What is no such answer is returned as it is.
    """
    try:
        body = json.loads(answer)
    except (ValueError, RecursionError):
        return answer
    lists = _lists(body)
    records = [one for holder in lists for one in holder["records"] if isinstance(one, dict)]
    editable = {one.get("recordUid") for one in records if one.get("isEditable") is True}
    copies = [one for one in records if one.get("isEditable") is False and one.get("recordUid") in editable]
    if not copies:
        return answer
    dropped = {id(one) for one in copies}
    for holder in lists:
        holder["records"] = [one for one in holder["records"] if id(one) not in dropped]
    return json.dumps(body).encode()


def _lists(body: Any) -> list[dict[str, Any]]:
    """Return what has a list of records: the answer itself, and its folders."""
    folders = body.get("folders") if isinstance(body, dict) else None
    holders = [body, *(folders if isinstance(folders, list) else [])]
    return [one for one in holders if isinstance(one, dict) and isinstance(one.get("records"), list)]
