# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role on real systems, from a fresh installation to the PAM Script that rotates there.

The tests are one story and run in the order in which they are written; each begins where the one before has ended. The
oldest and the newest ansible-core take turns, so that each does what the role is for.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time

import pytest
from identities import by_arc
from machines import ADMIN, ARC_KEYS, Machine, arc_folder
from provision import ENDS, OLD_IDNA, PASSWORD, ROLE, SCRIPT, Provision

HOME = "/opt/keeper-azure-rotation"
VENV = f"{HOME}/venv"
LINK = f"readlink {VENV}"
ENVIRONMENTS = f"ls -A {VENV}s/"
WORKS = f"{VENV}/bin/python3 -c 'import msal, requests, keeper_secrets_manager_core'"
IDNA = f"{VENV}/bin/python3 -c 'import idna; print(idna.__version__)'"
# What a run could leave: the role's directories, packages, users, temporary directories, other modes.
TRACES = (
    "dpkg-query -W; cat /etc/passwd; ls -A /root; "
    "find /home /mnt /opt /root /srv /tmp /var/tmp -maxdepth 1 -printf '%p %u %m\\n'"
)
LEFT = "ls -A /tmp | grep gateway_host || true"
UNIT = "/etc/systemd/system/keeper-gateway.service"
CONFIG = "/etc/keeper-gateway/gateway-config.json"
# What an installer would have made anew.
GATEWAY = f"stat -c '%n %i %Y' {UNIT} /usr/local/bin/gateway; cat {CONFIG} || true"
PARTS = "gateway_host_python,gateway_host_environment,gateway_host_gateway"


def drop_in(name: str, *lines: str) -> str:
    """Return a shell script that adds settings to the Gateway's unit, as an admin does."""
    text = shlex.quote("[Service]\n" + "\n".join(lines) + "\n")
    return f"mkdir -p {UNIT}.d; printf %s {text} > {UNIT}.d/{name}.conf; systemctl daemon-reload"


def test_check_mode_says_what_would_be_done_and_does_nothing(provision: Provision) -> None:
    # What an admin has made stays as it is: a link to another disk, a mode of his own.
    provision.machines["gw-bookworm"].run(f"install -d -m 755 /srv/rotation; ln -s /srv/rotation {HOME}")
    provision.machines["gw-trixie"].run(f"install -d -m 711 {HOME}")
    before = provision.everywhere(TRACES)
    result = provision.run("--check", core="newest", install=True)
    assert result.ok, result.said
    assert set(result.changed.values()) == {4}, result.said  # the checks are put there, too
    for part in (
        "Would install python3, python3-venv",
        "Would build an environment",
        "Would install the Keeper Gateway",
    ):
        assert part in result.said
    assert provision.everywhere(TRACES) == before


def test_what_cannot_be_is_refused_before_anything_is_changed(provision: Provision) -> None:
    before = provision.everywhere(TRACES)
    wheels = provision.inventory.parent / "wheels-gw-bookworm"  # of Python 3.11
    refusals = {
        "spaces": (
            {"gateway_host_venv": "/opt/keeper azure/venv"},
            "The Gateway splits a script command at its spaces",
        ),
        "anybody's": ({"gateway_host_venv": "/tmp/x"}, "/tmp, above gateway_host_venv, may be written by others"),
        "token-missing": ({"gateway_host_install_gateway": True}, "Make a one-time access token"),
        "token-option": (
            {"gateway_host_install_gateway": True, "gateway_host_token": "--help"},
            "no one-time access token",
        ),
        "lock": ({"gateway_host_lock": "/nowhere/lock.txt"}, "is not a file on the controller"),
        "wheels": ({"gateway_host_wheels": "/nowhere"}, "is not a directory on the controller"),
        "python": ({"gateway_host_python": "/usr/bin/perl"}, "/usr/bin/perl, which cannot be used"),
        "python-incomplete": ({"gateway_host_python": "/usr/bin/python3"}, "cannot make virtual environments"),
        "two-lines": (
            {"gateway_host_service_proxy": "http://a\nX=1"},
            "HTTPS_PROXY, HTTP_PROXY in the service's environment",
        ),
        "foreign": (
            {"gateway_host_flavour": "docker", "gateway_host_wheels": str(wheels)},
            "for the image's Python 3.12",
        ),
    }
    # Each on one of the machines: they are alike in this.
    halves = zip(provision.machines, (dict(list(refusals.items())[half::2]) for half in range(2)))
    running = {
        name: provision.begin_playbook(
            "refusals.yml",
            f"--limit={name}",
            core="oldest",
            refusals={key: wish for key, (wish, _message) in half.items()},
        )
        for name, half in halves
    }
    results = [one.result() for one in running.values()]
    assert all(result.ok for result in results), results
    for name, (_wish, message) in refusals.items():
        (said,) = re.findall(rf"\b{name} was refused: (.*)", "".join(result.said for result in results))
        assert message in said
        assert "None" not in said
        assert "\\n" not in said
    for machine in provision.machines.values():
        described = machine.says("cd /root/docker; stat -c '%n %a' pip.env; cat *.yml image/*")
        assert "pip.env 600" in described
        assert "something" not in described
        machine.run("rm -r /root/docker")
    assert provision.everywhere(TRACES) == before


@pytest.mark.parametrize(
    ("venv", "message"),
    [
        ("/root/x/venv", "/root, above gateway_host_venv, is the home of root"),
        (f"/home/{ADMIN}/venv", f"/home/{ADMIN}, above gateway_host_venv, is the home of {ADMIN}"),
        ("/var/mail/x/venv", "/var/mail, above gateway_host_venv, is the home of mail"),
        ("/srv/theirs/x/venv", "/srv/theirs, above gateway_host_venv, does not belong to root"),
        ("/srv/there/venv", "/tmp, above gateway_host_venv, may be written by others than root"),
        ("/mnt/noexec/x/venv", "The file system of /mnt/noexec is mounted noexec"),
        ("/usr/share", "/usr/share is there and is no virtual environment"),
        ("/opt/keeper-azure-rotation/venv", ""),
        ("/srv/new/x/venv", ""),
    ],
)
def test_a_place_that_is_not_the_roles(provision: Provision, venv: str, message: str) -> None:
    program = (ROLE / "files" / "check_place.py").read_text(
        "utf-8"
    ) + f"\nmain({json.dumps(json.dumps({'venv': venv}))})"
    machine = provision.machines["gw-bookworm"]
    made = (
        "mkdir /mnt/noexec; mount -t tmpfs -o mode=755,noexec none /mnt/noexec; "
        "mkdir /srv/theirs; chown nobody /srv/theirs; ln -s /tmp /srv/there; "
    )
    gone = "umount /mnt/noexec; rm -r /mnt/noexec /srv/theirs /srv/there"
    done = machine.run(f"{made} python3 -I -B -; code=$?; {gone}; exit $code", stdin=program, check=False)
    assert message in done.stderr
    assert (done.returncode == 0) is (message == "")


def test_the_first_run_makes_the_host_ready(provision: Provision) -> None:
    """While another run makes the environment at the same time, and a third a host with the Python to come."""
    unlike = provision.begin(core="newest", unlike=True, install=True)
    # -vvv, so that whatever may be shown is.
    running = provision.begin("-vvv", core="oldest", install=True, lock="old")
    other = provision.begin("--tags=gateway_host_python,gateway_host_environment", core="newest", lock="old")
    result = running.result()
    assert result.ok, result.said
    assert min(result.changed.values()) > 0
    assert other.result().ok, other.result().said
    for machine in provision.machines.values():
        assert machine.says(IDNA) == OLD_IDNA
        assert len(machine.says(ENVIRONMENTS).split()) == 1
        assert (
            machine.says("systemctl is-active keeper-gateway; systemctl is-enabled keeper-gateway") == "active\nenabled"
        )
        assert machine.says("systemctl show -P User keeper-gateway") == "keeper-gw"
        assert machine.says(f"stat -Lc '%U %a' {VENV}") == "root 755"
        token = provision.tokens[machine.name]
        assert token not in machine.says("cat /var/tmp/installer.cmdline; journalctl --no-pager -o cat")
        assert token not in result.said
        assert machine.says(LEFT) == ""
    assert provision.machines["gw-bookworm"].says(f"readlink {HOME}") == "/srv/rotation"
    assert provision.machines["gw-trixie"].says(f"stat -c %a {HOME}") == "711"
    assert f"Script command to enter in the vault: {VENV}/bin/python3" in result.said
    assert unlike.result().ok, unlike.result().said
    assert "Python: 3.14, " in unlike.result().said


def test_the_second_run_changes_nothing(provision: Provision) -> None:
    for core, arguments in (("newest", ()), ("oldest", ("--check",))):
        result = provision.run(*arguments, core=core, install=True, lock="old", spend_tokens=True)
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
    result = provision.run("--tags=gateway_host_environment", core="newest", wheels="controller")
    assert result.ok, result.said
    for machine in provision.machines.values():
        assert machine.says(IDNA) != OLD_IDNA
        assert f"venvs/{machine.says(f'readlink {VENV}s/previous')}" == before[machine.name]
        assert len(machine.says(ENVIRONMENTS).split()) == 3  # the one in use, the one before, and the link to that


def test_a_run_that_fails_half_way_leaves_the_environment_in_use(provision: Provision) -> None:
    state = f"{LINK}; {ENVIRONMENTS}; {LEFT}"
    before = provision.everywhere(state)
    address = f"http://me:{PASSWORD}@127.0.0.1:9"
    secretive = {"gateway_host_index_url": f"{address}/simple", "gateway_host_proxy": address}
    result = provision.run("-vvv", lock="broken", core="oldest", each={"gw-trixie": secretive})
    assert not result.ok
    assert "A package is not the one that the lock file names" in result.message("gw-bookworm")
    assert "The package index was not reached" in result.message("gw-trixie")
    for name, machine in provision.machines.items():
        assert "the one in use, if any, is as it was" in result.message(name)
        assert "None" not in result.message(name)
        assert PASSWORD not in machine.says("journalctl --no-pager -o cat")
    assert provision.everywhere(state) == before

    # One that works for root alone, and a disk that is too small.
    provision.machines["gw-bookworm"].run(f"chmod 700 {VENV}s/")
    provision.machines["gw-trixie"].run("mkdir /mnt/full; mount -t tmpfs -o mode=755,size=8m none /mnt/full")
    places = {"gw-bookworm": {"gateway_host_venv": VENV}, "gw-trixie": {"gateway_host_venv": "/mnt/full/x/venv"}}
    result = provision.run("--tags=gateway_host_environment", wheels="host", each=places)
    assert "keeper-gw cannot run" in result.message("gw-bookworm")
    assert "Make room on the file system" in result.message("gw-trixie")
    provision.machines["gw-bookworm"].run(f"chmod 755 {VENV}s/")
    provision.machines["gw-trixie"].run("umount /mnt/full; rmdir /mnt/full")
    assert provision.everywhere(state) == before
    provision.everywhere(WORKS)


def test_a_run_that_is_interrupted_leaves_no_credential_and_ends(provision: Provision) -> None:
    state = f"{LINK}; {ENVIRONMENTS}; {LEFT}"
    before = provision.everywhere(state)
    index = f"{provision.shop.url.replace('://', f'://me:{PASSWORD}@')}/slow/"
    running = provision.begin(
        "--tags=gateway_host_environment", lock="old", gateway_host_index_url=index, _gateway_host_limit=8
    )
    for _machine in provision.machines:
        assert provision.shop.waiting.acquire(timeout=120), running.result().said
    running.process.send_signal(signal.SIGINT)
    assert not running.result().ok
    pip = "pgrep -f '[p]ip install' || true"
    assert all(provision.everywhere(pip).values())
    # Whatever is there now, also what Ansible itself keeps.
    places = "/etc /home /opt /root /run /srv /tmp /var"
    for machine in provision.machines.values():
        # What is looked for goes by stdin: sudo writes down every command.
        assert machine.run(f"grep -rlsF -f - {places}", stdin=PASSWORD, check=False).stdout == ""
    deadline = time.monotonic() + 60
    while any(provision.everywhere(pip).values()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert provision.everywhere(f"{pip}; {state}") == before


def test_a_broken_environment_is_repaired(provision: Provision) -> None:
    """By two runs at once, of which one has nothing to do."""
    bookworm, trixie = provision.machines["gw-bookworm"], provision.machines["gw-trixie"]
    bookworm.run(f"rm -r {VENV}/lib/python3*/site-packages/msal; umask 077; mkdir {VENV}s/0123456789abcdef-cut-off")
    trixie.run(f"ln -s $(realpath {VENV}s/previous) {HOME}/kept")
    trixie.run(f"rm {VENV}; /usr/bin/python3 -m venv --without-pip {VENV}")
    both = [provision.begin(f"--tags={PARTS}", core=core, wheels="host") for core in ENDS]
    results = [one.result() for one in both]
    assert all(one.ok for one in results), results[0].said + results[1].said
    provision.everywhere(WORKS)
    # The one before is that of the old lock still, not the broken one; what a cut-off run has left is gone.
    assert len(bookworm.says(ENVIRONMENTS).split()) == 3
    assert bookworm.says(f"{VENV}s/previous/bin/python3 -c 'import idna; print(idna.__version__)'") == OLD_IDNA
    assert trixie.says(f"readlink {VENV}s/previous").startswith("by-hand-")
    # An admin's link keeps what it leads to.
    trixie.run(f"test -x {HOME}/kept/bin/python3")


def test_a_gateway_that_is_there_is_not_installed_over(provision: Provision) -> None:
    """Whatever its state; one that was stopped on purpose stays so, and one that ends again is seen."""
    bookworm, trixie = provision.machines["gw-bookworm"], provision.machines["gw-trixie"]
    start = "ExecStart=/bin/bash -c '/usr/local/bin/gateway start --service --aws-kms-secret-name=gw --log-to-stdout'"
    bookworm.run("mv /etc/keeper-gateway/gateway-config.json /var/tmp/")
    bookworm.run(drop_in("aws", "ExecStart=", start, "ExecStartPre=/bin/sleep 600"))
    bookworm.run("systemctl restart --no-block keeper-gateway")
    trixie.run(f"systemctl disable --now keeper-gateway; chown root {CONFIG}")
    before = provision.everywhere(GATEWAY)
    result = provision.run(
        "--tags=gateway_host_gateway,gateway_host_checks", install=True, gateway_host_manage_service=True
    )
    assert not result.ok
    assert provision.everywhere(GATEWAY) == before
    message = result.message("gw-bookworm")
    assert "service: keeper-gateway is activating" in message
    assert "configuration: the Gateway keeps its configuration in AWS Secrets Manager, as gw" in message
    message = result.message("gw-trixie")
    assert "service: keeper-gateway is disabled, and was left so. Start it" in message
    assert "configuration: keeper-gw may not read /etc/keeper-gateway/gateway-config.json" in message
    assert set(provision.everywhere("systemctl is-enabled keeper-gateway || true").values()) == {"enabled", "disabled"}

    # Again on one, with a token that was used; on the other, what ends after a second.
    bookworm.run(f"rm {UNIT}.d/aws.conf; systemctl daemon-reload")
    trixie.run(f"chown keeper-gw {CONFIG}")
    trixie.run(drop_in("dying", "ExecStart=", "ExecStart=/bin/sleep 1", "Restart=always"))
    used = provision.tokens["gw-bookworm"]
    provision.shop.unused.discard(used)
    wishes = {
        "gw-bookworm": {"gateway_host_reinstall_gateway": True},
        "gw-trixie": {"gateway_host_start_service": True},
    }
    result = provision.run("--tags=gateway_host_gateway,gateway_host_checks", install=True, each=wishes)
    assert not result.ok
    message = result.message("gw-bookworm")
    assert "A one-time access token can be used once" in message
    assert "the one-time token *** is invalid" in message
    assert used not in result.said
    assert "service: keeper-gateway was running and is" in result.message("gw-trixie")
    assert set(provision.everywhere(LEFT).values()) == {""}

    provision.new_tokens()
    # It has been started as often as systemd lets it: that is forgotten first.
    again = "systemctl reset-failed keeper-gateway; systemctl restart keeper-gateway"
    trixie.run(f"rm {UNIT}.d/dying.conf; systemctl daemon-reload; {again}")
    result = provision.run(install=True, wheels="host", each=wishes)
    assert result.ok, result.said
    assert set(provision.everywhere("systemctl is-active keeper-gateway").values()) == {"active"}
    commands = re.findall(r"Script command to enter in the vault: (\S+?)\"", result.said)
    assert set(commands) == {f"{VENV}/bin/python3"}
    provision.announced = commands[0]


@pytest.mark.parametrize("name", ["gw-bookworm", "gw-trixie", "gw-forky"])
def test_the_pam_script_rotates_with_the_announced_command(provision: Provision, name: str) -> None:
    machine, world = {**provision.machines, provision.unlike.name: provision.unlike}[name], provision.world
    # The doctor that the role has left, as root: it finds the CA in the environment of the service.
    doctor = machine.run(f"{HOME}/doctor --record={world.record.uid} --provider={world.configuration.uid}", check=False)
    assert doctor.returncode == 0, doctor.stderr
    assert json.loads(doctor.stdout)["status"] == "unchanged"
    checks = machine.says(
        f"cd {HOME}; venv/bin/python3 as_gateway.py $PWD/venv/bin/python3 $PWD/check_host.py imports vault"
    )
    assert [finding["ok"] for finding in json.loads(checks).values()] == [True, True]

    rotate(provision, machine)


def rotate(provision: Provision, machine: Machine) -> None:
    """Rotate on the machine, with the announced command."""
    world = provision.world
    machine.run("umask 022; cat > /var/tmp/rotate_azure_app.py", stdin=SCRIPT.read_text("utf-8"))
    before = [one.key_id for one in world.app.live_secrets()]
    # As the Gateway does: the record on stdin, the environment of its service, no configuration but its file.
    command = f"{provision.announced} /var/tmp/rotate_azure_app.py"
    script = f"""
        cd /
        pid=$(systemctl show -P MainPID keeper-gateway)
        settings=$(tr '\\0' '\\n' < /proc/$pid/environ | grep -E '^(REQUESTS_CA|IDENTITY_|IMDS_)')
        exec runuser -u keeper-gw -- env -i PATH=/usr/bin:/bin $settings {command}
    """
    line = world.sandbox.gateway.stdin_for(world.record.uid)
    done = machine.run(script, stdin=line + "\n", check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "rotated"
    assert world.agrees()
    assert [one.key_id for one in world.app.live_secrets()] != before


def test_a_server_of_azure_arc_rotates_with_its_managed_identity(provision: Provision) -> None:
    """Once the Gateway's user may read the keys of Arc's agent, which the role sees to."""
    machine, world = provision.machines["gw-bookworm"], provision.world
    way = by_arc(world, arc_folder(machine.name))
    settings = drop_in("arc", *(f"Environment={name}={value}" for name, value in way.environ.items()))
    machine.run(f"groupadd --system himds; chgrp himds {ARC_KEYS}; {settings}; systemctl restart keeper-gateway")
    doctor = f"{HOME}/doctor --record={world.record.uid} --provider={world.configuration.uid}"
    done = machine.run(doctor, check=False)
    assert done.returncode == 3, done.stderr
    (admin,) = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "admin"]
    assert admin["level"] == "failure"
    assert f"may not read the keys of Azure Arc's agent in {ARC_KEYS}" in admin["text"]
    assert "a member of the group himds" in admin["todo"]

    arguments = ("--tags=gateway_host_arc", f"--limit={machine.name}")
    result = provision.run(*arguments, core="oldest", gateway_host_arc=True)
    assert result.ok, result.said
    assert machine.says(f"stat -c '%U %G %a' {ARC_KEYS}") == "root himds 750"
    assert "himds" in machine.says("id -nG keeper-gw").split()
    done = machine.run(doctor, check=False)
    assert done.returncode == 0, done.stderr
    assert "this host's managed identity" in done.stderr
    rotate(provision, machine)
    result = provision.run(*arguments, core="newest", gateway_host_arc=True)
    assert result.ok, result.said
    assert set(result.changed.values()) == {0}, result.said
    assert not any(key in done.stdout + done.stderr for key in way.secrets)


@pytest.mark.parametrize("core", ENDS)
def test_this_ansible_core_has_made_hosts_ready(provision: Provision, core: str) -> None:
    """The tests above have used it, wherever there is a Python for it."""
    program = provision.cores[core]
    if not program:
        pytest.skip(f"there is no Python on this machine for ansible-core {', '.join(map(str, ENDS[core]))}")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert f"[core {ENDS[core][0].version}." in said
