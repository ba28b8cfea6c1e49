# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real Debian systems, each booted with its own systemd and reached over ssh with sudo.

No container engine is needed: mmdebstrap makes the file system, once, and systemd-nspawn boots throw-away copies of it.
The machines share this one's network, so what a test serves on 127.0.0.1 they reach there; each has an address of its
own on the loopback for ssh.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from sandbox.identity_hosts import ARC_KEYS

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = CHECKOUT / ".cache" / "hosts"
#: Debian's releases, each with the address of the machine that runs it; the last is the one to come, for its Python.
RELEASES = {"bookworm": "127.0.1.12", "trixie": "127.0.1.13", "forky": "127.0.1.14"}
TO_COME = "forky"
SSH_PORT = 2222
SSHD = "/etc/ssh/sshd_config.d/test.conf"
#: Where a machine finds the directory of its wheels.
WHEELS = "/srv/wheels"
ADMIN = "azureuser"
TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "ssh": "openssh-client"}
#: What a minimal server installation has; no pip and no venv, as on Debian.
PACKAGES = (
    "systemd-sysv,dbus,libpam-systemd,openssh-server,python3,python3-apt,sudo,ca-certificates,iproute2,"
    "libnss-myhostname"
)
CGROUPS = Path("/sys/fs/cgroup")


def missing() -> str:
    """Return why no machine can be booted here, or nothing."""
    if os.geteuid() != 0:
        return "booting a system takes root"
    if not Path("/etc/apt/sources.list.d").is_dir():
        return "the systems are made from this machine's Debian mirror, and this is not a Debian"
    packages = [package for command, package in TOOLS.items() if shutil.which(command) is None]
    if packages:
        return f"missing: apt-get install {' '.join(packages)}"
    if not any((root / "cgroup.controllers").is_file() for root in (CGROUPS, CGROUPS / "unified")):
        return "there is no cgroup v2 hierarchy"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "mounting is not allowed here"
    return ""


@dataclass
class Machine:
    """A running system."""

    name: str
    release: str
    address: str
    process: subprocess.Popen[bytes]

    def run(self, script: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell script there as root."""
        options = [part for name, value in _ssh_options().items() for part in ("-o", f"{name}={value}")]
        remote = f"sudo -n sh -c {_quoted(script)}"
        done = subprocess.run(
            ["ssh", *options, "-p", str(SSH_PORT), "-i", str(STATE / "id"), f"{ADMIN}@{self.address}", remote],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=360,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {script}\nended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def says(self, script: str) -> str:
        """Return what a shell script that must succeed prints."""
        return self.run(script).stdout.strip()


@contextlib.contextmanager
def running() -> Iterator[dict[str, Machine]]:
    """Boot one machine of each release, and shut them down at the end."""
    STATE.mkdir(parents=True, exist_ok=True)
    if not (STATE / "id").is_file():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(STATE / "id")], check=True)
    with ThreadPoolExecutor() as pool:
        images = dict(zip(RELEASES, pool.map(_image, RELEASES)))
    machines: dict[str, Machine] = {}
    try:
        for release, address in RELEASES.items():
            name = f"gw-{release}"
            machines[name] = Machine(name, release, address, _boot(images[release], name, address))
        for machine in machines.values():
            _await(machine)
        yield machines
    finally:
        for machine in machines.values():
            machine.process.terminate()
        for machine in machines.values():
            try:
                machine.process.wait(20)
            except subprocess.TimeoutExpired:
                machine.process.kill()
                machine.process.wait()
            _tidy(machine.name)


def write_inventory(machines: dict[str, Machine]) -> Path:
    """Write an Ansible inventory of the machines and return its path."""
    common = " ".join(f"-o {name}={value}" for name, value in _ssh_options().items())
    path = STATE / "inventory.yml"
    inventory = {
        "all": {
            "vars": {
                "ansible_user": ADMIN,
                "ansible_port": SSH_PORT,
                "ansible_ssh_private_key_file": str(STATE / "id"),
                "ansible_ssh_common_args": common,
                "ansible_python_interpreter": "/usr/bin/python3",
            },
            "children": {
                "gateways": {
                    "hosts": {machine.name: {} for machine in machines.values() if machine.release != TO_COME}
                },
                "unlike": {"hosts": {machine.name: {} for machine in machines.values() if machine.release == TO_COME}},
            },
            "hosts": {machine.name: {"ansible_host": machine.address} for machine in machines.values()},
        }
    }
    path.write_text(yaml.safe_dump(inventory), encoding="utf-8")
    return path


def _image(release: str) -> Path:
    """Make the file system of a release, or find the one that was made before by the same means."""
    folder, stamp = STATE / release, STATE / f"{release}.made"
    hooks = [
        'rm -f "$1/etc/hostname"; printf "127.0.0.1 localhost\\n" > "$1/etc/hosts"',
        # What this machine needs in order to reach its package index, the systems need too.
        'for file in /usr/local/share/ca-certificates/*.crt; do [ ! -f "$file" ] || cp "$file" "$1$file"; done',
        'chroot "$1" update-ca-certificates > /dev/null',
        '[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$1/etc/pip.conf"',
        f'chroot "$1" useradd --create-home --shell /bin/bash {ADMIN}',
        # Root's umask is as strict as a hardened host has it.
        'echo "Defaults umask=0077,umask_override" > "$1/etc/sudoers.d/umask"',
        f'echo "{ADMIN} ALL=(ALL) NOPASSWD: ALL" > "$1/etc/sudoers.d/{ADMIN}"',
        f'install -d -m 700 "$1/home/{ADMIN}/.ssh"; cp {STATE}/id.pub "$1/home/{ADMIN}/.ssh/authorized_keys"',
        f'chroot "$1" chown -R {ADMIN}: /home/{ADMIN}',
    ]
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--skip=cleanup/apt/lists", f"--include={PACKAGES}"]
    if release == TO_COME:
        # A mirror's copy of it may be older than it vouches for; and the role does not know what to install there.
        command += ["--aptopt=Acquire::Check-Valid-Until false", "--include=python3-venv"]
    command += [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale")]
    command += [f"--customize-hook={hook}" for hook in hooks]
    command += [release, str(folder), *_mirror()]
    key = (STATE / "id.pub").read_text(encoding="utf-8")
    recipe = hashlib.sha256("\n".join([*command, key]).encode()).hexdigest()
    # A stamp that is not this recipe's is of another image: that of a changed test.
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == recipe:
        return folder
    stamp.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"no image of {release}: {done.stderr[-3000:]}")
    stamp.write_text(recipe, encoding="utf-8")
    return folder


def _mirror() -> list[str]:
    """Return the mirror that this machine uses, if its sources name one in the way of the current Debian."""
    for path in sorted(Path("/etc/apt/sources.list.d").glob("debian*.sources")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("URIs:"):
                return [line.split()[1]]
    return []


def _boot(image: Path, name: str, address: str) -> subprocess.Popen[bytes]:
    _tidy(name)
    group = _hierarchy() / f"keeperpam-{name}"
    group.mkdir()
    wheels = STATE / f"wheels-{name}"
    wheels.mkdir(exist_ok=True)
    config = STATE / f"{name}.sshd"
    config.write_text(f"ListenAddress {address}\nPort {SSH_PORT}\nUseDNS no\n", encoding="utf-8")
    # The cgroup file system as systemd expects it is mounted in a name space of the machine's own.
    script = """
        echo $$ > "$1/cgroup.procs"
        shift
        exec unshare --mount --propagation private bash -euc '
            umount --recursive /sys/fs/cgroup
            mount -t cgroup2 none /sys/fs/cgroup
            exec systemd-nspawn --quiet --register=no --keep-unit --boot --console=pipe --volatile=overlay "$@"
        ' boot "$@"
    """
    # Where the stand-in for Azure Arc's agent, which runs here, writes its keys.
    keys = arc_folder(name) / "keys"
    keys.mkdir(parents=True, exist_ok=True)
    os.chown(keys, 0, 0)
    keys.chmod(0o700)
    bound = [f"--bind-ro={config}:{SSHD}", f"--bind-ro={wheels}:{WHEELS}", f"--bind={keys}:{ARC_KEYS}"]
    log = (STATE / f"{name}.log").open("wb")
    with log:
        return subprocess.Popen(
            ["bash", "-euc", script, "boot", str(group), "-D", str(image), "-M", name, *bound],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def arc_folder(name: str) -> Path:
    """Return the folder of this machine whose ``keys`` is that of Azure Arc's agent on the machine with the name."""
    return STATE / f"arc-{name}"


def _await(machine: Machine) -> None:
    deadline = time.monotonic() + 60
    while True:
        done = machine.run("systemctl is-system-running --wait", check=False)
        if done.stdout.strip() == "running":
            return
        if done.returncode != 255 or time.monotonic() > deadline or machine.process.poll() is not None:
            log = (STATE / f"{machine.name}.log").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{machine.name} does not come up: {done.stdout}{done.stderr}\n{log[-3000:]}")
        time.sleep(0.3)


def _hierarchy() -> Path:
    return next(root for root in (CGROUPS / "unified", CGROUPS) if (root / "cgroup.controllers").is_file())


def _tidy(name: str) -> None:
    """Remove what nspawn leaves, and what a run that was killed has left running."""
    group = _hierarchy() / f"keeperpam-{name}"
    with contextlib.suppress(OSError):
        (group / "cgroup.kill").write_text("1", encoding="ascii")
        deadline = time.monotonic() + 10
        while "populated 1" in (group / "cgroup.events").read_text(encoding="ascii") and time.monotonic() < deadline:
            time.sleep(0.1)
    for found in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(found[0])
    with contextlib.suppress(OSError):
        os.rmdir(f"/run/systemd/nspawn/propagate/{name}")


def _ssh_options() -> dict[str, str]:
    return {
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "BatchMode": "yes",
        "ControlMaster": "auto",
        "ControlPersist": "30",
        "ControlPath": "/tmp/keeperpam-%C",
    }


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
