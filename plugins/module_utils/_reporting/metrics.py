# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The survey for Prometheus: a file for the textfile collector of its node exporter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

_PREFIX = "keeperpam_azure_"
_END = _PREFIX + "credential_end_timestamp_seconds"
_EARLIEST = _PREFIX + "application_earliest_end_timestamp_seconds"
_CREDENTIALS = _PREFIX + "credentials"
_UP = _PREFIX + "source_up"
_SUCCESS = _PREFIX + "report_last_success_timestamp_seconds"
_HELP = {
    _END: "When a credential ends.",
    _EARLIEST: "When the first of an application's credentials ends in whose place there is none.",
    _CREDENTIALS: "The number of credentials in a bucket.",
    _UP: "Whether a source was read in full.",
    _SUCCESS: "When all sources were last read in full.",
}
_SAMPLE = re.compile(r"(?P<name>\w+)(?:\{.*\})? (?P<value>\S+)")
# Of what these are, the end is nobody's concern: it is old, or was never there.
_PAST = ("previous", "orphan", "other_record", "empty")


def metrics(survey: Mapping[str, Any], previous: str) -> str:
    """Return the metrics of a survey, of one that failed as well. ``previous`` is the file as it was, empty for none.

    Where a survey failed, what was known before stays, and the sources are down. The last success stays as long as some
    source is down.
    """
    sources = survey.get("sources") or [{"name": name, "up": False} for name in ("keeper", "applications")]
    samples = _of(survey) if "credentials" in survey else _kept(previous)
    samples[_UP] = [(_labels(source=one["name"]), float(bool(one["up"]))) for one in sources]
    before = [value for _label, value in _kept(previous)[_SUCCESS]]
    now = _seconds(survey.get("read_at")) if all(one["up"] for one in sources) else None
    samples[_SUCCESS] = [("", value) for value in ([now] if now is not None else before[:1])]
    lines: list[str] = []
    for name, found in samples.items():
        if found:
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge"]
            lines += [f"{name}{labels} {value:.0f}" for labels, value in dict(found).items()]
    return "\n".join(lines) + "\n"


def _of(survey: Mapping[str, Any]) -> dict[str, list[tuple[str, float]]]:
    ends: list[tuple[str, float]] = []
    earliest: dict[str, float] = {}
    for one in survey["credentials"]:
        end = _seconds(one["end"])
        if end is None:
            continue
        successor = str("successor" in one["flags"]).lower()
        of = {"application": one["application"] or one["object_id"], "client_id": one["client_id"]}
        more = {"key_id": one["key_id"], "kind": one["kind"], "of": one["of"], "state": one["state"]}
        record = next((record["uid"] for record in one["records"]), "")
        ends.append((_labels(**of, **more, record=record, successor=successor), end))
        if successor == "false" and one["state"] not in _PAST and one["client_id"]:
            name = _labels(**of)
            earliest[name] = min(end, earliest.get(name, end))
    buckets = [(_labels(bucket=bucket), float(number)) for bucket, number in survey["buckets"].items()]
    return {_END: ends, _EARLIEST: list(earliest.items()), _CREDENTIALS: buckets}


def _kept(previous: str) -> dict[str, list[tuple[str, float]]]:
    """Return the samples of the file as it was, as far as it is ours."""
    found: dict[str, list[tuple[str, float]]] = {name: [] for name in _HELP}
    for line in previous.split("\n"):
        match = _SAMPLE.fullmatch(line)
        if match is not None and match["name"] in found:
            labels = line[len(match["name"]) : -len(match["value"]) - 1]
            try:
                found[match["name"]].append((labels, float(match["value"])))
            except ValueError:
                continue
    return found


def _labels(**labels: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: Iterable[str]) -> str:
    return "".join({"\\": "\\\\", '"': '\\"', "\n": "\\n"}.get(each, each) for each in text)


def _seconds(text: Any) -> float | None:
    """Return a time of a survey in seconds since the epoch, rounded down; None for none."""
    try:
        moment = datetime.strptime(str(text)[:19], "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return None
    return moment.replace(tzinfo=timezone.utc).timestamp()
