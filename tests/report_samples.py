# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Surveys as the module returns them, and the page that the playbook's template makes of one."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ansible_collections.keeperpam.azure.plugins.filter._report import report

PLAYBOOKS = Path(__file__).resolve().parents[1] / "playbooks"
NOW = datetime(2026, 11, 25, 6, 0, tzinfo=timezone.utc)
NAMES = ("billing", "orders", "crm", "payroll", "search", "warehouse", "invoicing", "mobile", "reporting", "identity")
PARTS = ("api", "worker", "sync", "portal", "export", "gateway")
TODO = {"critical": "rotate the record: whoever reads it cannot sign in", "expiring": "rotate the record"}


def stamp(days: float) -> str:
    """Return the time so many days from now, as results have it."""
    return (NOW + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def row(number: int, bucket: str = "healthy", state: str = "current", days: int = 200, **more: Any) -> dict[str, Any]:
    """Return a credential; the same number gives the same ids."""
    ids = random.Random(number)
    name = f"{NAMES[number % 10]}-{PARTS[number // 10 % 6]}" + (f"-{number // 60:02}" if number >= 60 else "")
    uid = "".join(ids.choices("ABCDEFGHabcdefgh0123456789", k=22))
    guids = [str(uuid.UUID(int=ids.getrandbits(128), version=4)) for _each in range(3)]
    found = {
        "application": name,
        "client_id": guids[0],
        "object_id": guids[1],
        "bucket": bucket,
        "state": state,
        "flags": [],
        "kind": "secret",
        "of": "application",
        "key_id": guids[2],
        "name": f"keeper/{uid}/{ids.getrandbits(128):032x}" if state in ("current", "previous", "orphan") else "",
        "start": stamp(days - 365),
        "end": stamp(days),
        "days_left": days,
        "records": [{"uid": uid, "title": name}] if state in ("current", "previous", "orphan", "missing") else [],
        "until": "",
        "reason": "",
        "todo": TODO.get(bucket, ""),
    }
    return {**found, **more}


def survey(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return the result of the module with these credentials."""
    buckets = Counter(one["bucket"] for one in rows)
    order = ("critical", "expiring", "attention", "healthy")
    found = {
        "credentials": rows,
        "left_out": 0,
        "worst": next((name for name in order if buckets[name]), "healthy"),
        "buckets": {name: buckets[name] for name in order},
        "states": dict(Counter(one["state"] for one in rows)),
        "applications": len({one["object_id"] for one in rows}),
        "records": len({record["uid"] for one in rows for record in one["records"]}),
        "problems": [],
        "sources": [{"name": name, "up": True, "problem": ""} for name in ("keeper", "applications")],
        "read_at": stamp(0),
        "portal": "https://portal.azure.com",
        "vault": "https://keepersecurity.com",
        "msg": f"{len(rows)} credentials",
    }
    return {**found, **more}


def believable() -> dict[str, Any]:
    """Return the survey of a small tenant with a bit of everything."""
    soon = {"flags": ["expiring"]}
    rows = [
        row(0, state="admin", days=161, application="keeper-rotator", name="rotator", reason="from the record 'Azure'"),
        row(1, "critical", days=-2, flags=["expired"]),
        row(2, "critical", "missing", 88, reason="the application does not have it"),
        row(3, "expiring", days=4, **soon),
        row(
            14, "expiring", "unknown", 9, name="set by hand", todo="renew it, or give the application a record", **soon
        ),
        row(5, "expiring", "certificate", 12, kind="certificate", name="CN=search", todo="renew it", **soon),
        row(6, "attention", "orphan", 364, todo="run the rotation, which removes it"),
        row(7, "attention", "other_record", 120, todo="set adopt for that record, or remove it in Entra"),
        row(8, "attention", "foreign", 47, name="vendor", todo="find who uses it: the next rotation removes it"),
        row(
            9,
            "attention",
            days=300,
            flags=["several_records"],
            todo="leave one record for the application, or set adopt",
        ),
        row(17, "attention", "unknown", -40, flags=["expired", "successor"], name="old", todo="remove it in Entra"),
        row(18, "healthy", "previous", 31, until=stamp(0.5), reason="it is old"),
        *(row(20 + number, days=40 + 11 * number) for number in range(22)),
    ]
    problems = [
        {"record": "A" * 22, "title": "legacy-app", "problem": "application_object_id of the record is no GUID."}
    ]
    return survey(rows, problems=problems)


def page_of(result: dict[str, Any]) -> str:
    """Return the page, as the module ansible.builtin.template sets Jinja up."""
    import jinja2

    script = (PLAYBOOKS / "files" / "report.js").read_text("utf-8").rstrip()
    loader = jinja2.FileSystemLoader(PLAYBOOKS / "templates")
    environment = jinja2.Environment(loader=loader, trim_blocks=True, keep_trailing_newline=True)
    text: str = environment.get_template("report.html.j2").render(page=report(result, "page", script=script))
    return text
