# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock files that the role gateway_host installs: whether `make lock` is due, and whether pip can use them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).resolve().parents[3]
ROLE = CHECKOUT / "roles" / "gateway_host"
LOCKS = sorted((ROLE / "files").glob("requirements-*.txt"))
VARS: dict[str, Any] = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))


def test_there_is_one_for_each_supported_python() -> None:
    assert sorted(f"requirements-{version}.txt" for version in VARS["_gateway_host_supported"]) == [
        path.name for path in LOCKS
    ]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_package_is_pinned_and_has_hashes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    entries = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    entry = re.compile(r"[a-z0-9-]+==[0-9][^ ]*( +--hash=sha256:[0-9a-f]{64})+")
    assert [line for line in entries if not entry.fullmatch(line)] == []
    assert len(entries) >= 10
    # As the role finds them, to compare with what is installed.
    assert re.findall(VARS["_gateway_host_pin_pattern"], text) == [line.split()[0] for line in entries]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_it_satisfies_the_requirements(path: Path) -> None:
    pins = dict(re.findall(r"(?m)^([a-z0-9-]+)==([^ ]+)", path.read_text(encoding="utf-8")))
    for line in (CHECKOUT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            wanted = Requirement(line)
            assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), f"{line}: run `make lock`"


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_it_names_no_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    assert "index" not in text
