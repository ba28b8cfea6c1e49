# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module app_secret with ``records``: what came of each, bounded, and the verdict over all.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import json
import select
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._core.base.errors import BadInput
from ._core.base.redact import Log, scrub, scrub_all
from ._core.base.timing import Budget
from ._core.fleet.running import MOST_AT_ONCE, Order, Run
from ._core.rotation.outcome import Outcome
from ._core.rotation.policy import is_record_uid
from ._diff import bounded, of_record
from ._module import Module
from ._progress import Progress
from ._setting import Setting

# From the best to the worst.
_ORDER = ("unchanged", "planned", "rotated", "bad_input", "refused", "rolled_back", "incomplete", "orphan", "error")
_ALWAYS = ("record", "title", "status", "changed", "failed", "msg")
_FACTS = (
    *("application", "key_id", "expires", "previous_key_id", "verified", "removed", "kept", "would_remove"),
    *("remaining", "orphans", "marker", "unlisted"),
)
_SHORT = ("key_id", "expires", "remaining", "orphans", "marker")
_UNTOLD = Outcome("error", 1, "ERROR what came of it was not told. Next: report it, and run it again.", True, {})
# An event of AWX holds about 1 MB; Ansible adds to what the module returns.
_LARGEST = 600_000
# An event of AWX on a diff holds it twice, once as the text that is shown.
_LARGEST_DIFF = 250_000
_LONGEST_MESSAGE, _LONGEST_TITLE = 2000, 200
_NAMED_FAILURES = 20


def rotate_all(module: Module, setting: Setting, budget: Budget, log: Log) -> dict[str, Any]:
    """Rotate the records of the options; return the result of the module."""
    params = module.params
    uids = list(dict.fromkeys(uid.strip() for uid in params["records"]))
    _check(uids, params)
    if not uids:
        return {"status": "unchanged", "msg": "UNCHANGED 0 records", "results": [], "counts": {}, "changed": False}
    entries: dict[str, dict[str, Any]] = {}
    diffs: dict[str, dict[str, Any]] = {}
    progress = Progress(module._tmpdir, len(uids))

    def tell(uid: str, outcome: Outcome) -> None:
        entries[uid] = entry = _entry(uid, outcome)
        diffs[uid] = of_record(uid, entry["title"], outcome)
        progress.ended(entry["msg"], entry["failed"])

    order = Order(
        uids=uids,
        beside=setting.beside(),
        keeper=setting.keeper,
        about=setting.about,
        concurrency=params["concurrency"],
        canary=params["canary"],
        max_failures=params["max_failures"],
        check=module.check_mode,
    )
    began = time.monotonic()
    run = Run(order, budget, log, tell, is_heard)
    try:
        run.run()
    finally:
        progress.close()
    budget.shield()
    log.say(f"{len(uids)} records in {time.monotonic() - began:.0f} s; {run.throttled} requests were throttled")
    told = [entries.get(uid) or _entry(uid, _UNTOLD) for uid in uids]
    return summary(told, [diffs[uid] for uid in uids if uid in diffs])


def is_heard(stream: int = 1) -> bool:
    """Whether somebody reads what is written to that file descriptor, stdout by default.

    Where ansible-playbook is ended, the processes between it and the module may end before they pass the signal on.
    """
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(stream, 0)  # whether it has come to its end is told without asking
    return not poll.poll(0)


def _check(uids: Iterable[str], params: Mapping[str, Any]) -> None:
    for uid in uids:
        if not is_record_uid(uid):
            raise BadInput(f"records names {uid!r}", "it must be the uids of records, 22 characters each", "correct it")
    limits = {"concurrency": (1, MOST_AT_ONCE), "canary": (0, None), "max_failures": (0, None)}
    for name, (least, most) in limits.items():
        value = params[name]
        if value is not None and (value < least or (most is not None and value > most)):
            allowed = f"from {least} to {most}" if most else f"{least} or more"
            raise BadInput(f"{name} is {value}", f"it must be {allowed}", "correct it")


def _entry(uid: str, outcome: Outcome) -> dict[str, Any]:
    facts = outcome.facts
    entry: dict[str, Any] = {
        "record": uid,
        "title": scrub(str(facts.get("title") or ""))[:_LONGEST_TITLE],
        "status": outcome.status,
        "changed": outcome.changed,
        "failed": outcome.exit_status != 0,
        "msg": _cut(scrub(outcome.message), _LONGEST_MESSAGE),
    }
    entry.update({name: facts[name] for name in _FACTS if facts.get(name)})
    scrubbed: dict[str, Any] = scrub_all(entry)
    return scrubbed


def summary(entries: list[dict[str, Any]], diffs: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return the result of the module for the entries of all records and their diffs, in an order of theirs."""
    statuses = Counter(entry["status"] for entry in entries)
    ordered = sorted(statuses, key=_ORDER.index)
    failed = [entry for entry in entries if entry["failed"]]
    counts = ", ".join(f"{statuses[status]} {status}" for status in ordered)
    parts = [f"{ordered[-1].upper()} {len(entries)} records: {counts}", *(_cut(one["msg"], 400) for one in failed)]
    if len(failed) > _NAMED_FAILURES:
        parts[_NAMED_FAILURES + 1 :] = [f"{len(failed) - _NAMED_FAILURES} more have failed, see results"]
    message = " ".join(part if part.endswith((".", "...")) else part + "." for part in parts)
    if failed and "Next: " not in message:
        message += " Next: see results."
    results = bounded_results(entries)
    return {
        "status": ordered[-1],
        "msg": message,
        "changed": any(entry["changed"] for entry in entries),
        "failed": bool(failed),
        "counts": {status: statuses[status] for status in ordered},
        "results": results,
        "diff": bounded(diffs, min(_LARGEST_DIFF, _LARGEST - _size(results))),
    }


def bounded_results(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries, with fewer fields and shorter messages where all of them together are too large."""
    if _size(entries) <= _LARGEST:
        return entries
    short = [{name: one[name] for name in (*_ALWAYS, *_SHORT) if name in one} for one in entries]
    for length in (_LONGEST_MESSAGE, 400, 200, 100):
        short = [{**one, "msg": _cut(one["msg"], length)} for one in short]
        if _size(short) <= _LARGEST:
            break
    return short


def _size(entries: list[dict[str, Any]]) -> int:
    return len(json.dumps(entries))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
