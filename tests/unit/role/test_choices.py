# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role gateway_host chooses on systems that cannot be booted here, rendered with their facts."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).resolve().parent
ROLE = HERE.parents[2] / "roles" / "gateway_host"
OWN = ("python3", ["python3", "python3-venv"])
# Distribution, major version and family as Ansible's facts have them; the Python looked for first; what is installed.
SYSTEMS = {
    "Debian 12": ("Debian", "12", "Debian", *OWN),
    "Debian 13": ("Debian", "13", "Debian", *OWN),
    "Ubuntu 22.04": ("Ubuntu", "22", "Debian", *OWN),
    "Ubuntu 24.04": ("Ubuntu", "24", "Debian", *OWN),
    "Ubuntu 26.04": ("Ubuntu", "26", "Debian", *OWN),
    "RHEL 8": ("RedHat", "8", "RedHat", "python3.12", ["python3.12"]),
    "Rocky 8": ("Rocky", "8", "RedHat", "python3.12", ["python3.12"]),
    "Alma 9": ("AlmaLinux", "9", "RedHat", "python3.14", ["python3.12"]),
    "Rocky 9": ("Rocky", "9", "RedHat", "python3.14", ["python3.12"]),
    "RHEL 10": ("RedHat", "10", "RedHat", "python3", ["python3"]),
    "Alma 10": ("AlmaLinux", "10", "RedHat", "python3", ["python3"]),
    "Amazon Linux 2023": ("Amazon", "2023", "RedHat", "python3.14", ["python3.12"]),
}
#: Their own is 3.9.
OLD = ("Alma 9", "Rocky 9", "Amazon Linux 2023")
NEWEST_FIRST = ["python3.14", "python3.13", "python3.12", "python3.11", "python3.10"]
UNKNOWN = {
    "Ubuntu 20.04": ("Ubuntu", "20", "Debian"),
    "SLES 15": ("SLES", "15", "Suse"),
    "Amazon Linux 2": ("Amazon", "2", "RedHat"),
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one run of the role's own tasks has chosen for all of them: one for all of pytest's processes."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path = shared / f"choices-{os.environ.get('PYTEST_XDIST_TESTRUNUID', '')}.json"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            path.write_text(json.dumps(choose(base / "choices.json")), encoding="utf-8")
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def choose(path: Path) -> dict[str, Any]:
    """Run them, which write to the path; return that, and what was said."""
    names = ("distribution", "distribution_major_version", "os_family")
    facts = {name: dict(zip(names, values)) for name, values in [*SYSTEMS.items(), *UNKNOWN.items()]}
    command = ["ansible-playbook", "--check", "-i", "localhost,", str(HERE / "choices.yml")]
    extra = json.dumps({"systems": facts, "result": str(path)})
    done = subprocess.run([*command, "-e", extra], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    read["said"] = done.stdout
    return read


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_supported_system_gets_its_own_python(result: dict[str, Any], name: str) -> None:
    python, packages = SYSTEMS[name][3:]
    chosen = result["chosen"][name]
    assert chosen["packages"] == packages
    assert f"Would install {', '.join(packages)}." in result["said"]
    if name in OLD:
        assert chosen["look_for"] == NEWEST_FIRST
        assert chosen["look_for_last"] == [*NEWEST_FIRST, "python3", "python3.9"]
    else:
        # Its own comes first; whatever else is there will do, the newest first.
        others = ["python3", *NEWEST_FIRST, "python3.9"]
        assert chosen["look_for"] == list(dict.fromkeys([python, *others]))


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_system_is_refused_with_what_to_do(result: dict[str, Any], name: str) -> None:
    message = result["chosen"][name]["refused"]
    distribution, major = UNKNOWN[name][:2]
    assert f"does not know which package of {distribution} {major} has one" in message
    assert "name it in gateway_host_python" in message


def test_keepers_image_installs_the_locked_packages(result: dict[str, Any]) -> None:
    pins = result["container"]["helm"]["pipPackages"].split(" ")
    lock = (ROLE / "files" / "requirements-3.12.txt").read_text("utf-8")
    assert pins == re.findall(r"(?m)^[a-z0-9-]+==[^ ]+", lock)
    service = result["container"]["compose"]["services"]["keeper-gateway"]
    assert service["environment"] == {"GATEWAY_PIP_PACKAGES": " ".join(pins)}
    assert service["env_file"] == ["/opt/keeper-azure-rotation/docker/pip.env"]
    # A secret of the admin's, made of that file.
    assert result["container"]["helm"]["extraEnvFrom"] == [{"secretRef": {"name": "keeper-azure-rotation-pip"}}]
    secret = result["container"].pop("secret")
    assert secret.splitlines() == [
        "PIP_INDEX_URL=https://me:hunter2@index.example/simple",
        "PIP_PROXY=http://me:hunter2@proxy.example:3128",
    ]
    assert "hunter2" not in json.dumps(result["container"])


def test_the_override_is_one_for_docker_compose(result: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="the schema of compose files is in check-jsonschema")
    path = tmp_path / "compose.override.yml"
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    for compose, good in ((result["container"]["compose"], True), ({"services": {"x": {"enviroment": {}}}}, False)):
        path.write_text(yaml.safe_dump(compose), encoding="utf-8")
        done = subprocess.run(check, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is good, done.stdout + done.stderr


def test_a_derived_image_keeps_the_user(result: dict[str, Any]) -> None:
    lines = result["container"]["dockerfile"].splitlines()
    # No instruction is cut in two: each line that is not the last of its instruction says so.
    instructions = [line for before, line in zip(["", *lines], lines) if not before.endswith("\\")]
    assert [line.split()[0] for line in instructions if not line.startswith("#")] == ["FROM", "COPY", "COPY", "RUN"]
    assert "FROM keeper/gateway:latest" in lines
    text = " ".join(line.rstrip("\\") for line in lines)
    assert "--require-hashes --only-binary :all:" in text
    assert "--no-index --find-links /tmp/wheels --requirement" in text
    assert "== '3.12', sys.version" in text
