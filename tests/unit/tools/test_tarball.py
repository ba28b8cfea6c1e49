# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may be in a built collection, and what lies about in a checkout and must not be."""

from __future__ import annotations

import importlib.util
import subprocess
import tarfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
_spec = importlib.util.spec_from_file_location("tarball_tool", CHECKOUT / "tests" / "tools" / "tarball.py")
assert _spec
assert _spec.loader
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)

#: What people, editors and the README's own commands leave.
LITTER = (
    ".ansible/collections/x.yml",
    ".cache/coverage",
    ".envrc",
    ".idea/workspace.xml",
    ".venv/bin/python",
    ".venv-old/x.py",
    "client-config.json",
    "keeper.ini",
    "keeperpam-azure-0.0.1.tar.gz",
    "nohup.out",
    "rotation.yml",
    "sandbox.env",
    "playbooks/rotate.retry",
    "playbooks/files/client-config.json",
    "plugins/modules/__pycache__/app_secret.cpython-311.pyc",
    "rotator.pem",
    "tests/output/matrix.md",
    "tests/tools/__pycache__/venv.cpython-311.pyc",
)


@pytest.mark.parametrize("name", [*LITTER, "roles/gateway_host/files/token.txt", "tests/unit/secret.txt", "core"])
def test_litter_is_seen(name: str) -> None:
    assert tool.strangers([name]) == [name]


def test_a_collection_that_is_built_in_a_littered_checkout_holds_none_of_it(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    subprocess.run([str(CHECKOUT / "tests" / "tools" / "clean_copy.sh"), str(checkout)], check=True)
    for name in LITTER:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("a secret")
    command = ["ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as tarball:
        names = [member.name for member in tarball.getmembers() if not member.isdir()]
    assert len(names) > 100
    assert tool.strangers(names) == []
