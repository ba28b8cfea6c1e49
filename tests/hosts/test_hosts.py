# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role on real systems, from a fresh installation to the PAM Script that rotates there.

The tests are one story and run in the order in which they are written; each begins where the one before has ended.
"""

from __future__ import annotations

import json
import re

import pytest
from provision import OLD_IDNA, SCRIPT, Provision

VENV = "/opt/keeper-azure-rotation/venv"
LINK = f"readlink {VENV}"
ENVIRONMENTS = f"ls {VENV}s"
# What a run could leave: the role's directories, packages, users, temporary directories.
TRACES = "ls /opt /tmp /var/tmp; dpkg-query -W; cat /etc/passwd; ls -A /root"


def test_check_mode_says_what_would_be_done_and_does_nothing(provision: Provision) -> None:
    before = provision.everywhere(TRACES)
    result = provision.run("--check", install=True)
    assert result.ok, result.said
    assert set(result.changed.values()) == {4}, result.said  # the checks are copied, too
    for part in (
        "Would install python3, python3-venv",
        "Would build an environment",
        "Would install the Keeper Gateway",
    ):
        assert part in result.said
    assert provision.everywhere(TRACES) == before


def test_what_cannot_be_is_refused_before_anything_is_changed(provision: Provision) -> None:
    before = provision.everywhere(TRACES)
    refusals = {
        "spaces": (
            {"gateway_host_venv": "/opt/keeper azure/venv"},
            "The Gateway splits a script command at its spaces",
        ),
        "shallow": ({"gateway_host_venv": "/venv"}, "at least two deep"),
        "token-missing": ({"gateway_host_install_gateway": True}, "Make a one-time access token"),
        "token-option": (
            {"gateway_host_install_gateway": True, "gateway_host_token": "--help"},
            "no one-time access token",
        ),
        "lock": ({"gateway_host_lock": "/nowhere/lock.txt"}, "is not a file on the controller"),
        "wheels": ({"gateway_host_wheels": "/nowhere"}, "is not a directory on the controller"),
        "python": ({"gateway_host_python": "/usr/bin/perl"}, "/usr/bin/perl, which cannot be used"),
        "python-incomplete": ({"gateway_host_python": "/usr/bin/python3"}, "cannot make virtual environments"),
    }
    result = provision.playbook(
        "refusals.yml", refusals={name: wish_and_answer[0] for name, wish_and_answer in refusals.items()}
    )
    assert result.ok, result.said
    for name, (wish, message) in refusals.items():
        said = re.findall(rf"{name} was refused: (.*)", result.said)
        assert len(said) == len(provision.machines), (name, wish, result.said)
        assert all(message in one for one in said), said
    for machine in provision.machines.values():
        described = machine.says("cd /root/docker; ls -A; stat -c %a pip.conf; cat Dockerfile compose.override.yml")
        assert "--mount=type=secret,id=pip_conf" in described
        assert "600" in described
        assert "something" not in described
        machine.run("rm -r /root/docker")
    assert provision.everywhere(TRACES) == before


def test_the_first_run_makes_the_host_ready(provision: Provision) -> None:
    # -vvv, so that whatever may be shown is.
    result = provision.run("-vvv", install=True, lock="old")
    assert result.ok, result.said
    assert min(result.changed.values()) > 0
    for machine in provision.machines.values():
        assert machine.says(f"{VENV}/bin/python3 -c 'import idna; print(idna.__version__)'") == OLD_IDNA
        assert (
            machine.says("systemctl is-active keeper-gateway; systemctl is-enabled keeper-gateway") == "active\nenabled"
        )
        assert machine.says("systemctl show -P User keeper-gateway") == "keeper-gw"
        assert machine.says(f"stat -Lc '%U %a' {VENV}") == "root 755"
        token = provision.tokens[machine.name]
        assert token not in machine.says("cat /var/tmp/installer.cmdline; journalctl --no-pager -o cat")
        assert token not in result.said
        assert machine.says("ls -A /tmp | grep gateway_host || true") == ""
    assert f"Script command to enter in the vault: {VENV}/bin/python3" in result.said


def test_the_second_run_changes_nothing(provision: Provision) -> None:
    for arguments in ((), ("--check",)):
        result = provision.run(*arguments, install=True, lock="old", spend_tokens=True)
        assert result.ok, result.said
        assert set(result.changed.values()) == {0}, result.said


def test_the_systems_python_is_as_it_was(provision: Provision) -> None:
    for machine in provision.machines.values():
        assert machine.says("ls /usr/lib/python3*/EXTERNALLY-MANAGED")
        refused = machine.run(
            f"{VENV}/bin/python3 -m pip --python /usr/bin/python3 install --no-index six", check=False
        )
        assert "externally-managed-environment" in refused.stderr
        assert machine.run("/usr/bin/python3 -c 'import msal'", check=False).returncode == 1
        assert machine.says("find /usr/local/lib /usr/lib/python3 /root -iname '*msal*'") == ""


def test_a_new_lock_is_installed_from_wheels_without_network(provision: Provision) -> None:
    before = provision.everywhere(LINK)
    result = provision.run(wheels="controller")
    assert result.ok, result.said
    for machine in provision.machines.values():
        assert machine.says(f"{VENV}/bin/python3 -c 'import idna; print(idna.__version__)'") != OLD_IDNA
        assert f"venvs/{machine.says(f'readlink {VENV}s/previous')}" == before[machine.name]
        assert len(machine.says(ENVIRONMENTS).split()) == 3  # the one in use, the one before, and the link to that


def test_a_run_that_fails_half_way_leaves_the_environment_in_use(provision: Provision) -> None:
    before = provision.everywhere(f"{LINK}; {ENVIRONMENTS}; ls -A /tmp | grep gateway_host || true")
    result = provision.run(lock="broken", dead_index="gw-trixie")
    assert not result.ok
    assert "The environment in use is as it was" in result.said
    assert "A package is not the one that the lock file names" in result.message("gw-bookworm")
    assert "The package index was not reached" in result.message("gw-trixie")
    assert "hunter2" not in result.said
    assert provision.everywhere(f"{LINK}; {ENVIRONMENTS}; ls -A /tmp | grep gateway_host || true") == before
    for machine in provision.machines.values():
        machine.run(f"{VENV}/bin/python3 -c 'import msal, requests, keeper_secrets_manager_core'")


def test_a_broken_environment_is_repaired(provision: Provision) -> None:
    bookworm, trixie = provision.machines["gw-bookworm"], provision.machines["gw-trixie"]
    bookworm.run(f"rm -r {VENV}/lib/python3*/site-packages/msal; umask 077; mkdir {VENV}s/0123456789abcdef-cut-off")
    trixie.run(f"rm {VENV}; /usr/bin/python3 -m venv --without-pip {VENV}")
    result = provision.run(wheels="host")
    assert result.ok, result.said
    for machine in provision.machines.values():
        machine.run(f"{VENV}/bin/python3 -c 'import msal, requests, keeper_secrets_manager_core'")
    # The one before is that of the old lock still, not the broken one; what a cut-off run has left is gone.
    assert len(bookworm.says(ENVIRONMENTS).split()) == 3
    assert bookworm.says(f"{VENV}s/previous/bin/python3 -c 'import idna; print(idna.__version__)'") == OLD_IDNA
    assert trixie.says(f"readlink {VENV}s/previous").startswith("by-hand-")


def test_a_gateway_that_cannot_be_installed_is_told_and_tried_again(provision: Provision) -> None:
    """With a token that was used, and then with a good one; and one host whose service is stopped is only told."""
    bookworm, trixie = provision.machines["gw-bookworm"], provision.machines["gw-trixie"]
    bookworm.run("systemctl stop keeper-gateway; rm /etc/keeper-gateway/gateway-config.json")
    trixie.run("systemctl disable --now keeper-gateway")
    result = provision.run(install=True, wheels="host", extra={"gateway_host_manage_service": False})
    assert not result.ok
    message = result.message("gw-bookworm")
    assert "A one-time access token can be used once" in message
    assert "the one-time token *** is invalid" in message
    assert provision.tokens["gw-bookworm"] not in result.said
    assert "The service keeper-gateway is inactive" in result.message("gw-trixie")
    assert bookworm.says("ls -A /tmp | grep gateway_host || true") == ""

    provision.new_tokens()
    result = provision.run(install=True, wheels="host")
    assert result.ok, result.said
    assert min(result.changed.values()) > 0
    assert set(provision.everywhere("systemctl is-active keeper-gateway").values()) == {"active"}


@pytest.mark.parametrize("name", ["gw-bookworm", "gw-trixie"])
def test_the_pam_script_rotates_with_the_announced_command(provision: Provision, name: str) -> None:
    machine, world = provision.machines[name], provision.world
    command = provision.announced[name]
    machine.run("umask 022; cat > /var/tmp/rotate_azure_app.py", stdin=SCRIPT.read_text("utf-8"))
    before = [one.key_id for one in world.app.live_secrets()]
    # As the Gateway does: the record on stdin, the environment of its service, no configuration but its file.
    script = f"""
        cd /
        pid=$(systemctl show -P MainPID keeper-gateway)
        bundle=$(tr '\\0' '\\n' < /proc/$pid/environ | grep ^REQUESTS_CA)
        exec runuser -u keeper-gw -- env -i PATH=/usr/bin:/bin "$bundle" {command} /var/tmp/rotate_azure_app.py
    """
    line = world.sandbox.gateway.stdin_for(world.record.uid)
    done = machine.run(script, stdin=line + "\n", check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "rotated"
    assert world.agrees()
    assert [one.key_id for one in world.app.live_secrets()] != before
