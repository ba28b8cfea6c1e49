# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which hosts the playbook provision_gateway_host runs on."""

from __future__ import annotations

import subprocess

import pytest

INVENTORY = """
[gateways]
gw-1
gw-2

[others]
web-1
"""


def hosts(
    tmp_path_factory: pytest.TempPathFactory, *arguments: str, inventory: str = INVENTORY
) -> tuple[int, str, set[str]]:
    """Return how the playbook ends, what it says, and the hosts on which it looks at the role's options."""
    path = tmp_path_factory.mktemp("inventory") / "hosts"
    path.write_text(inventory, encoding="utf-8")
    # An option that the role refuses ends it before it asks any host.
    wrong = ["-e", "gateway_host_flavour=none"]
    command = ["ansible-playbook", "keeperpam.azure.provision_gateway_host", "-i", str(path), *wrong, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    reached = {host for host in ("gw-1", "gw-2", "web-1", "localhost") if f"fatal: [{host}]" in said}
    return done.returncode, said, reached


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {"gw-1", "gw-2"}),
        (("-e", "provision_hosts="), {"gw-1", "gw-2"}),
        (("-e", "provision_hosts=others"), {"web-1"}),
        (("-e", "provision_hosts=gw-2,others"), {"gw-2", "web-1"}),
        (("-e", "provision_hosts=all"), {"gw-1", "gw-2", "web-1"}),
        (("--limit", "gw-2"), {"gw-2"}),
    ],
)
def test_it_runs_on_the_gateways_or_on_what_is_named(
    tmp_path_factory: pytest.TempPathFactory, arguments: tuple[str, ...], expected: set[str]
) -> None:
    code, said, reached = hosts(tmp_path_factory, *arguments)
    assert code != 0
    assert "No host to prepare" not in said
    assert "gateway_host_flavour" in said
    assert reached == expected


@pytest.mark.parametrize(
    ("arguments", "inventory"),
    [
        ((), "web-1\n"),
        ((), ""),
        (("-e", "provision_hosts=gw-3"), INVENTORY),
        (("--limit", "web-1"), INVENTORY),
        (("-e", "provision_hosts=others", "--limit", "gw-1"), INVENTORY),
    ],
)
def test_it_fails_where_nothing_matches(
    tmp_path_factory: pytest.TempPathFactory, arguments: tuple[str, ...], inventory: str
) -> None:
    code, said, reached = hosts(tmp_path_factory, *arguments, inventory=inventory)
    assert code != 0
    assert "No host to prepare matches" in said
    assert "in provision_hosts" in said
    assert len(reached) == 1  # the one that says so


@pytest.mark.parametrize(
    ("name", "meant"),
    [("gateway_host_install_gatway", "gateway_host_install_gateway"), ("provision_host", "provision_hosts")],
)
def test_a_variable_that_is_nearly_one_of_ours_is_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, meant: str
) -> None:
    code, said, reached = hosts(tmp_path_factory, "-e", f"{name}=x", "-e", "gateway_host_flavour=native")
    assert code != 0
    assert f"{name} (did you mean {meant}?)" in said
    assert reached


def test_a_variable_of_somebody_else_does_no_harm(tmp_path_factory: pytest.TempPathFactory) -> None:
    _code, said, _reached = hosts(tmp_path_factory, "-e", "gateway_host_backup_dir=/x", "-e", "provision_logs=/y")
    assert "did you mean" not in said
    assert "gateway_host_flavour" in said
