# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run a program as the Gateway's user, with the environment of its running service: as the Gateway runs a PAM Script.

As root: as_gateway.py [--user USER] [--service SERVICE | --pid PID] PROGRAM [ARGUMENT ...]
What is in that environment, the Gateway's configuration for one, goes from process to process and nowhere else.
"""

from __future__ import annotations

import argparse
import os
import pwd
import subprocess
import sys
from pathlib import Path


def ask(service: str, name: str) -> str:
    """Return a property of a service, empty where systemd does not know it."""
    command = ["systemctl", "show", f"{service}.service", f"--property={name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip().partition("=")[2]


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="surrogateescape")
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)


def become(user: pwd.struct_passwd) -> None:
    """Give up root's rights for that user's, for good."""
    os.chdir("/")
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def main() -> None:
    """Become the Gateway's user, and then the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--user", default="")
    parser.add_argument("--service", default="keeper-gateway")
    parser.add_argument("--pid", type=int, default=-1)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("This needs root: run it with sudo.")
    pid = int(ask(options.service, "MainPID") or 0) if options.pid < 0 else options.pid
    name = options.user or ask(options.service, "User") or "keeper-gw"
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        sys.exit(
            f"There is no user {name}: install the Gateway (gateway_host_install_gateway, gateway_host_token), or name "
            "its user in gateway_host_user. Without a Gateway, set gateway_host_checks to []."
        )
    if not pid:
        print(f"The service {options.service} does not run: its environment is not known here.", file=sys.stderr)
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", **environment_of(pid)}
    environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
    command = options.command
    become(user)
    try:
        os.execve(command[0], command, environ)  # noqa: S606
    except OSError as error:
        sys.exit(f"{name} cannot run {command[0]}: {error.strerror}. Every directory above it must be open to all.")


if __name__ == "__main__":
    main()
