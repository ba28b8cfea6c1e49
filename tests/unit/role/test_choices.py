# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role gateway_host chooses on systems that cannot be booted here, rendered with their facts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
# Distribution, major version and family as Ansible's facts have them; the distribution's Python; what is installed.
SYSTEMS = {
    "Debian 12": ("Debian", "12", "Debian", "python3", ["python3", "python3-venv"]),
    "Debian 13": ("Debian", "13", "Debian", "python3", ["python3", "python3-venv"]),
    "Ubuntu 22.04": ("Ubuntu", "22", "Debian", "python3", ["python3", "python3-venv"]),
    "Ubuntu 24.04": ("Ubuntu", "24", "Debian", "python3", ["python3", "python3-venv"]),
    "RHEL 8": ("RedHat", "8", "RedHat", "python3.11", ["python3.11"]),
    "Rocky 8": ("Rocky", "8", "RedHat", "python3.11", ["python3.11"]),
    "Alma 9": ("AlmaLinux", "9", "RedHat", "python3", ["python3"]),
    "Rocky 9": ("Rocky", "9", "RedHat", "python3", ["python3"]),
    "RHEL 10": ("RedHat", "10", "RedHat", "python3", ["python3"]),
    "Amazon Linux 2023": ("Amazon", "2023", "RedHat", "python3.11", ["python3.11"]),
}
UNKNOWN = {
    "Ubuntu 20.04": ("Ubuntu", "20", "Debian"),
    "SLES 15": ("SLES", "15", "Suse"),
    "Amazon Linux 2": ("Amazon", "2", "RedHat"),
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one run of the role's own tasks has chosen for all of them."""
    names = ("distribution", "distribution_major_version", "os_family")
    facts = {name: dict(zip(names, values)) for name, values in [*SYSTEMS.items(), *UNKNOWN.items()]}
    path = tmp_path_factory.mktemp("choices") / "result.json"
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
    # Its own comes first; whatever else is there will do, the newest first.
    assert chosen["look_for"][0] == python
    assert chosen["look_for"][1:] == ["python3", "python3.13", "python3.12", "python3.11", "python3.10", "python3.9"]


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_system_is_refused_with_what_to_do(result: dict[str, Any], name: str) -> None:
    message = result["chosen"][name]["refused"]
    distribution, major = UNKNOWN[name][:2]
    assert f"does not know which package of {distribution} {major} has one" in message
    assert "name it in gateway_host_python" in message


def test_the_image_has_the_locked_packages_and_no_credentials(result: dict[str, Any]) -> None:
    lines = result["image"]["dockerfile"].splitlines()
    assert "FROM keeper/gateway:latest" in lines
    assert "RUN dnf -y install python3.12 && dnf clean all" in lines
    assert lines[-1] == "USER gateway"
    text = " ".join(line.rstrip("\\") for line in lines)
    assert "--require-hashes --only-binary :all: --no-index --find-links /tmp/wheels --requirement" in text
    assert "--mount=type=secret,id=pip_conf,target=/etc/pip.conf,required=true" in text
    assert "python3.12 -m venv /opt/keeper-azure-rotation/venv" in text
    # No instruction is cut in two: each line that is not the last of its instruction says so.
    instructions = [line for before, line in zip(["", *lines], lines) if not before.endswith("\\")]
    assert {line.split()[0] for line in instructions} == {"#", "FROM", "USER", "RUN"}
    assert "hunter2" not in json.dumps(result["image"])


def test_the_override_builds_the_image(result: dict[str, Any]) -> None:
    compose = result["image"]["compose"]
    assert compose["services"] == {
        "keeper-gateway": {
            "image": "keeper-gateway-azure-rotation:latest",
            "pull_policy": "build",
            "build": {"context": "/opt/keeper-azure-rotation/docker", "secrets": ["pip_conf"]},
        }
    }
    assert compose["secrets"] == {"pip_conf": {"file": "/opt/keeper-azure-rotation/docker/pip.conf"}}
