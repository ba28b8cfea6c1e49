# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measures rotations of many applications on the sandbox, both services' limits enforced; keeps the figures as JSON.

Usage: bench.py [--output FILE] [CASE ...]; without a case all of CASES but those that take long are measured, each in a
process of its own. A table and ratios are written to stdout. It fails where a limit is exceeded.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi
from fleets import FleetWorld, make_fleet
from harness import SCRIPT, run_module, run_script

from sandbox import graph

TESTS = Path(__file__).resolve().parents[1]
LATENCY = 0.05


@dataclass(frozen=True)
class Case:
    """So many applications, rotated by a loop over tasks, in one call, by the playbook on the inventory, or one by one
    by a script, or looked at (``way``), with these options. Both services and the client count ``scale`` times as fast
    as they do."""

    way: str
    number: int
    retire_after: str = "0"
    concurrency: int = 8
    long: bool = False
    scale: int = 1


CASES = {
    "reference-5": Case("reference", 5),
    "script-5": Case("script", 5),
    "loop-20": Case("loop", 20),
    "records-20": Case("records", 20),
    "records-200": Case("records", 200, concurrency=64),
    "records-200-default": Case("records", 200, retire_after="30s"),
    "records-1000-default": Case("records", 1000, retire_after="30s", concurrency=64),
    "inventory-200": Case("inventory", 200, retire_after="30s", concurrency=64),
    "survey-1000": Case("survey", 1000),
    "report-1000": Case("report", 1000),
    "inventory-1000": Case("inventory", 1000, retire_after="30s", concurrency=64, long=True),
    "loop-200": Case("loop", 200, long=True),
    "records-1000-default-8": Case("records", 1000, retire_after="30s", long=True),
    "growth-200": Case("records", 200, retire_after="30s", concurrency=64, long=True, scale=10),
    "growth-1000": Case("records", 1000, retire_after="30s", concurrency=64, long=True, scale=10),
    "growth-5000": Case("records", 5000, retire_after="30s", concurrency=64, long=True, scale=10),
}


#: What no case of rotations in one call may exceed, and what some may not.
LIMITS = {"cpu_each": 0.06, "requests_each": 9.2, "peak_memory": 120, "throttled": 0}
LIMITS_OF = {"records-1000-default": {"wall": 200.0}}
#: What is told of two cases of one run: how many times the first takes of what the second takes, and the most of it.
RATIOS = (
    ("script-5", "reference-5", "cpu_each", None),
    ("records-20", "loop-20", "wall", None),
    ("records-200", "loop-200", "wall", 1 / 15),
    ("growth-1000", "growth-200", "cpu_each", 1.5),
    ("growth-5000", "growth-1000", "cpu_each", 1.5),
    ("growth-5000", "growth-1000", "peak_memory", None),
)


def by_loop(fleet: FleetWorld, case: Case, home: Path) -> int:
    """Rotate one after the other, as a task with a loop does; return the exit status."""
    task = {
        "keeperpam.azure.app_secret": {
            "record": "{{ item }}",
            "pam_config": fleet.first.configuration.uid,
            "keeper_config": json.dumps(fleet.first.sandbox.client_config()),
            "retire_after": case.retire_after,
        },
        "loop": fleet.uids(),
        "ignore_errors": True,
    }
    variables = {"ansible_python_interpreter": sys.executable, "ansible_pipelining": True}
    book = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": [task]}]
    (home / "play.json").write_text(json.dumps(book), "utf-8")
    return play(fleet, home, str(home / "play.json"))


def by_inventory(fleet: FleetWorld, case: Case, home: Path) -> int:
    """Rotate all hosts of the inventory in one wave, as the shipped playbook does; return the exit status."""
    (home / "all.app_records.yml").write_text("plugin: keeperpam.azure.app_records\n", "utf-8")
    given = {
        "rotate_hosts": "all",
        "rotate_pam_config": fleet.first.configuration.uid,
        "rotate_retire_after": case.retire_after,
        "rotate_concurrency": case.concurrency,
    }
    arguments = ("-i", str(home / "all.app_records.yml"), "-e", json.dumps(given))
    return play(fleet, home, "keeperpam.azure.rotate", *arguments)


def by_survey(fleet: FleetWorld, case: Case, home: Path) -> int:
    """Look at all applications, without owners and service principals; return the exit status."""
    del case, home
    environ: dict[str, str | None] = {"REQUESTS_CA_BUNDLE": os.environ["BENCH_BUNDLE"]}
    return run_module(fleet.first, module="app_secret_info", environ=environ, record=None).returncode


def by_report(fleet: FleetWorld, case: Case, home: Path) -> int:
    """Write the report of all applications in all of its forms; return the exit status."""
    del case
    given = {
        **{f"report_{name}": f"{home}/report.{name}" for name in ("html", "json", "csv")},
        "report_textfile": f"{home}/report.prom",
        "report_pam_config": fleet.first.configuration.uid,
    }
    return play(fleet, home, "keeperpam.azure.report", "-e", json.dumps(given))


def play(fleet: FleetWorld, home: Path, *arguments: str) -> int:
    """Run ansible-playbook; return its exit status."""
    sandbox = fleet.first.sandbox
    environ = {
        **sandbox.environ(GATEWAY_CONFIG=None, HOME=str(home), LC_ALL="C.UTF-8"),
        "KSM_CONFIG": json.dumps(sandbox.client_config()),
        "REQUESTS_CA_BUNDLE": os.environ["BENCH_BUNDLE"],
        "ANSIBLE_COLLECTIONS_PATH": os.environ["ANSIBLE_COLLECTIONS_PATH"],
    }
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return subprocess.run([program, *arguments], env=environ, stdout=subprocess.DEVNULL, check=False).returncode


def by_records(fleet: FleetWorld, case: Case, home: Path) -> int:
    """Rotate all of them in one call of the module; return the exit status."""
    del home
    environ: dict[str, str | None] = {"REQUESTS_CA_BUNDLE": os.environ["BENCH_BUNDLE"]}
    if case.scale > 1:
        scaled = Path(__file__).with_name("scaled")
        environ["PYTHONPATH"] = f"{os.environ['ANSIBLE_COLLECTIONS_PATH']}{os.pathsep}{scaled}"
        environ["BENCH_SCALE"] = str(case.scale)
    options = {"retire_after": case.retire_after, "concurrency": case.concurrency}
    return fleet.run(environ=environ, **options).returncode


def by_script(fleet: FleetWorld, case: Case, home: Path) -> int:
    """Let the PAM Script, or what it is measured against, rotate one after the other; return the worst exit status."""
    del home
    script = Path(__file__).with_name("reference.py") if case.way == "reference" else SCRIPT
    environ: dict[str, str | None] = {"REQUESTS_CA_BUNDLE": os.environ["BENCH_BUNDLE"]}
    return max(run_script(world, script=script, environ=environ).returncode for world in fleet.worlds)


WAYS = {
    "loop": by_loop,
    "records": by_records,
    "inventory": by_inventory,
    "script": by_script,
    "reference": by_script,
    "survey": by_survey,
    "report": by_report,
}


def measure(name: str) -> dict[str, Any]:
    """Do one case; return its figures. Seconds, MB."""
    case = CASES[name]
    with make_fleet(case.number) as fleet, tempfile.TemporaryDirectory() as home:
        sandbox = fleet.first.sandbox
        bundle = Path(home) / "bundle.pem"
        bundle.write_bytes(Path(certifi.where()).read_bytes() + Path(sandbox.ca_file).read_bytes())
        os.environ["BENCH_BUNDLE"] = str(bundle)
        sandbox.vault.throttle = sandbox.directory.throttle = True
        sandbox.vault.throttle_silence /= case.scale
        graph.WRITES = {personal: (most, seconds / case.scale) for personal, (most, seconds) in graph.WRITES.items()}
        sandbox.faults.latency = lambda op: LATENCY / 2
        began = time.monotonic()
        status = WAYS[case.way](fleet, case, Path(home))
        wall = time.monotonic() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        log = list(sandbox.log)
        operations = Counter(entry.op for entry in log)
        sign_ins = operations["token"]
        return {
            "case": name,
            "applications": case.number,
            "scale": case.scale,
            "concurrency": case.concurrency if case.way in ("records", "inventory") else 1,
            "retire_after": case.retire_after,
            "exit_status": status,
            "complete": sum(world.agrees() for world in fleet.worlds),
            "wall": round(wall, 1),
            "cpu_each": round((used.ru_utime + used.ru_stime) / case.number, 4),
            "peak_memory": used.ru_maxrss // 1024,
            "requests_each": round((len(log) - sign_ins) / case.number, 2),
            "sign_ins_each": round(sign_ins / case.number, 2),
            "throttled": sum(entry.status == 429 for entry in log),
            "requests": dict(operations),
        }


COLUMNS = {
    "case": "case",
    "complete": "complete",
    "concurrency": "concurrency",
    "wall": "wall, s",
    "cpu_each": "CPU each, s",
    "peak_memory": "peak, MB",
    "requests_each": "requests each",
    "sign_ins_each": "sign-ins each",
    "throttled": "throttled",
}


def table(results: list[dict[str, Any]]) -> str:
    """Return the figures as a table of reStructuredText."""
    rows = [list(COLUMNS.values()), *([str(one[name]) for name in COLUMNS] for one in results)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def exceeded(results: list[dict[str, Any]]) -> list[str]:
    """Return which limits were exceeded, and which cases did not complete."""
    found = []
    for one in results:
        if one["complete"] < one["applications"]:
            found.append(f"{one['case']}: {one['complete']} of {one['applications']} are complete")
        limits = LIMITS if CASES[one["case"]].way == "records" and one["scale"] == 1 else {}
        for name, most in {**limits, **LIMITS_OF.get(one["case"], {})}.items():
            if one[name] > most:
                found.append(f"{one['case']}: {name} is {one[name]}, more than {most}")
    return found


def ratios(results: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Return what is told of the cases that were measured in this run, and which of that is too much."""
    measured = {one["case"]: one for one in results}
    told, much = [], []
    for case, other, name, most in RATIOS:
        if case in measured and other in measured:
            ratio = measured[case][name] / measured[other][name]
            told.append(f"{case} takes {ratio:.3g} times the {name} of {other}")
            if most is not None and ratio > most:
                much.append(f"{told[-1]}, more than {most:.3g}")
    return told, much


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--output", type=Path, default=TESTS / "output" / "bench.json")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    wanted = given.cases or [name for name, case in CASES.items() if not case.long]
    if unknown := [name for name in wanted if name not in CASES]:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    if given.one:
        print(json.dumps(measure(wanted[0])))
        return
    results = []
    for name in wanted:
        # A process of its own: the peak of its children is the peak of this case.
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        results.append(json.loads(done.stdout))
        print(f"{name}: {results[-1]['wall']} s", file=sys.stderr)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    about = {"python": platform.python_version(), "cores": os.cpu_count(), "latency": LATENCY}
    told, much = ratios(results)
    given.output.write_text(json.dumps({**about, "results": results, "ratios": told}, indent=2) + "\n", "utf-8")
    print("\n".join([table(results), *told]))
    if too_much := exceeded(results) + much:
        sys.exit("\n".join(too_much))


if __name__ == "__main__":
    main()
