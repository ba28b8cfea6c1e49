# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook that reports: its files, what they never hold, and when it fails."""

from __future__ import annotations

import csv
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import World

from leaks import pieces_in
from sandbox import Fault

# What people may call things: markup, formulas, templates, quotes.
NASTY = '=cmd|\'/C calc\'!A0 <script>alert("x")</script> {{ lookup("env", "HOME") }} "\\ &amp; \u202egpj'


def play(world: World, home: Path, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the playbook by its name; it writes all of its files into ``home``."""
    environ = world.sandbox.environ(
        GATEWAY_CONFIG=None,
        KSM_CONFIG=json.dumps(world.sandbox.client_config()),
        HOME=str(home),
        LC_ALL="C.UTF-8",
        **{name: os.environ[name] for name in ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "ANSIBLE_NOCOLOR")},
    )
    given = {
        "report_html": f"{home}/report.html",
        "report_json": f"{home}/report.json",
        "report_csv": f"{home}/report.csv",
        "report_textfile": f"{home}/report.prom",
        "report_pam_config": world.configuration.uid,
        **variables,
    }
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "keeperpam.azure.report", "-e", json.dumps(given), *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def written(home: Path) -> dict[str, str]:
    """Return what the playbook has written, by the endings of the files."""
    return {path.suffix[1:]: path.read_bytes().decode() for path in home.glob("report.*")}


def test_it_writes_everything_and_no_secret(world: World, tmp_path: Path) -> None:
    world.app.display_name = NASTY
    world.record.data["title"] = NASTY
    nasty = world.app.add_secret("@SUM(1+1)*cmd", days=300)
    world.app.add_secret(world.old.text, days=200)  # a value in the field for the name
    done = play(world, tmp_path, "-vvvv", "--diff", report_owners=True, report_service_principals=True)
    assert done.returncode == 0, done.stdout
    files = written(tmp_path)
    assert set(files) == {"html", "json", "csv", "prom"}
    for text in (*files.values(), done.stdout, done.stderr):
        assert pieces_in(text, world.secrets()) == []
        assert not any(f'"{one.hint}"' in text for one in world.app.live_secrets())
    data = json.loads(files["json"])
    assert {one["key_id"] for one in data["credentials"]} >= {nasty.key_id, world.old.key_id}
    assert {"invocation", "failed", "steps"}.isdisjoint(data)
    rows = list(csv.DictReader(files["csv"].splitlines()))
    assert len(rows) == len(data["credentials"])
    cells = [cell for row in rows for cell in row.values()]
    assert not [
        cell for cell in cells if cell.startswith(("=", "+", "@")) or (cell[:1] == "-" and not cell[1:].isdigit())
    ]
    assert "'@SUM(1+1)*cmd" in cells
    assert "<script>alert" not in files["html"]
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in files["html"]
    assert "{{ lookup(&#34;env&#34;, &#34;HOME&#34;) }}" in files["html"]
    assert "\u202e" not in files["html"]
    assert stat.S_IMODE((tmp_path / "report.prom").stat().st_mode) == 0o644


def test_it_fails_from_a_bucket_on_also_in_a_rehearsal_that_writes_nothing(world: World, tmp_path: Path) -> None:
    # The secret of the world ends within 30 days.
    done = play(world, tmp_path, "--check", report_fail_on="expiring")
    assert done.returncode == 2
    assert f"expiring billing-api: current {world.old.key_id}" in done.stdout
    assert "Next: rotate the record" in done.stdout
    assert written(tmp_path) == {}
    assert "report_fail_on must be" in play(world, tmp_path, report_fail_on="warning").stdout


@pytest.mark.parametrize("name", ["html", "json", "csv", "textfile"])
def test_a_file_that_cannot_be_written_costs_no_other_and_is_named(world: World, tmp_path: Path, name: str) -> None:
    suffix = "prom" if name == "textfile" else name
    lost = f"{tmp_path}/missing/report.{suffix}"
    done = play(world, tmp_path, report_fail_on="never", **{f"report_{name}": lost})
    assert done.returncode == 2
    assert set(written(tmp_path)) == {"html", "json", "csv", "prom"} - {suffix}
    said = done.stdout[done.stdout.rindex("TASK [") :]
    assert f"Not written: {lost}" in said
    assert "missing does not exist" in said
    assert " credentials: " in said


def test_metrics_that_cannot_be_put_in_their_place_cost_no_other_and_are_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "report.prom" / "report.prom.new" / "full").mkdir(parents=True)
    done = play(world, tmp_path, report_fail_on="never")
    assert done.returncode == 2
    assert {path.suffix for path in tmp_path.glob("report.*") if path.is_file()} >= {".html", ".json", ".csv"}
    said = done.stdout[done.stdout.rindex("TASK [") :]
    assert "Not written: mv: " in said


def test_a_source_that_is_down_shows_and_the_last_success_stays(world: World, tmp_path: Path) -> None:
    success = "keeperpam_azure_report_last_success_timestamp_seconds 1795617986"
    (tmp_path / "report.prom").write_text(success + "\n")
    world.sandbox.faults.add(Fault("list_applications", kind="status", status=403, times=None))
    world.sandbox.faults.add(Fault("batch", kind="status", status=403, times=None))
    assert play(world, tmp_path, report_fail_on="never").returncode == 0
    after = written(tmp_path)["prom"]
    assert 'source_up{source="keeper"} 1' in after
    assert 'source_up{source="applications"} 0' in after
    assert success in after
    assert "Not read in full" in written(tmp_path)["html"]
    page = written(tmp_path)["html"]
    world.sandbox.faults.add(Fault("get_secret", kind="status", status=403, times=None))
    done = play(world, tmp_path, report_fail_on="never")
    assert done.returncode == 2
    assert "could not be read" in done.stdout
    down = written(tmp_path)
    assert 'source_up{source="keeper"} 0' in down["prom"]
    assert success in down["prom"]
    assert [line for line in down["prom"].splitlines() if "credential_end" in line] == [
        line for line in after.splitlines() if "credential_end" in line
    ]
    assert down["html"] == page
