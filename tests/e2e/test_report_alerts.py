# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The alert rules and the dashboard, held to Prometheus' own promtool and to the metrics that the report writes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.keeperpam.azure.plugins.module_utils._reporting.metrics import metrics
from harness import CHECKOUT

import needed
from report_samples import NOW, believable, row, survey

RULES = CHECKOUT / "examples" / "prometheus" / "keeperpam_azure.rules.yml"
DASHBOARD = CHECKOUT / "examples" / "grafana" / "keeperpam_azure.json"


def promtool(*arguments: str, text: str = "") -> None:
    """Run it; what it finds wrong fails the test."""
    command = [needed.program("promtool", "prometheus"), *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> list[str]:
    """Return the expressions of the dashboard, with its variables filled in."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [target["expr"].replace("$days", "90") for panel in panels for target in panel["targets"]]


def test_promtool_accepts_metrics_rules_and_the_dashboards_expressions(tmp_path: Path) -> None:
    promtool("check", "metrics", text=metrics(believable(), ""))
    promtool("check", "rules", str(RULES))
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    (tmp_path / "dashboard.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(tmp_path / "dashboard.yml"))


def test_the_rules_fire_for_what_they_are_about(tmp_path: Path) -> None:
    offset = NOW.timestamp()  # promtool begins at the epoch
    result = survey(
        [row(1, days=3), row(2, "attention", days=3, flags=["expiring", "successor"]), row(4, "critical", days=-1)],
        sources=[{"name": "keeper", "up": True}, {"name": "applications", "up": False}],
    )
    samples = [line.rsplit(" ", 1) for line in metrics(result, "").splitlines() if not line.startswith("#")]
    series = []
    for name, value in samples:
        number = float(value) - offset if "timestamp" in name else float(value)
        series.append({"series": name, "values": f"{number:.0f}x600"})
    first, expired = (result["credentials"][number] for number in (0, 2))
    alerts = [
        alert("EntraSecretFails", {"bucket": "critical"}, "critical"),
        alert("EntraSecretExpired", labels_of(samples, expired["key_id"]), "critical"),
        alert("EntraCredentialExpires", labels_of(samples, first["key_id"]), "warning"),
        alert("EntraReportIncomplete", {"source": "applications"}, "warning"),
        alert("EntraReportSilent", {}, "warning"),
    ]
    test = {"interval": "1m", "input_series": series, "alert_rule_test": [each(tmp_path) for each in alerts]}
    content = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(content))
    promtool("test", "rules", str(tmp_path / "test.yml"))


def alert(name: str, labels: dict[str, str], severity: str) -> Any:
    """Return what promtool is to expect after seven hours: exactly this one, with the words of the rule filled in."""
    (rule,) = [one for one in yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"] if one["alert"] == name]
    values = {"$value": "1", '$value | printf "%.0f"': "3", **{f"$labels.{key}": text for key, text in labels.items()}}
    texts = {
        key: re.sub(r"{{ (.*?) }}", lambda match: values[match[1]], text) for key, text in rule["annotations"].items()
    }
    expected = {"exp_labels": {**labels, "severity": severity}, "exp_annotations": texts}
    return lambda folder: {"eval_time": "7h", "alertname": name, "exp_alerts": [expected]}


def labels_of(samples: list[list[str]], key_id: str) -> dict[str, str]:
    """Return the labels of the sample with this key id."""
    (name,) = [name for name, _value in samples if f'key_id="{key_id}"' in name]
    return dict(re.findall(r'(\w+)="([^"]*)"', name))


def test_rules_and_dashboard_ask_for_what_is_written() -> None:
    written = {line.split()[2] for line in metrics(believable(), "").splitlines() if line.startswith("# TYPE")}
    asked = set(re.findall(r"keeperpam_azure_\w+", " ".join([RULES.read_text("utf-8"), *expressions()])))
    assert asked == {*written, *asked & {"keeperpam_azure"}}


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)
    taken = [(x, y) for panel in panels for x, y in cells(panel["gridPos"])]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _y in taken) < 24


def cells(place: dict[str, int]) -> list[tuple[int, int]]:
    """Return the cells of the grid that a panel covers."""
    return [(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])]
