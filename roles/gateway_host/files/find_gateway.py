# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the Keeper Gateway on a host: whether it is there, as whom it runs, where its configuration is. Changes nothing.

The role hands this file to the Python that runs Ansible's modules on stdin, with a call of `main` at its end. That one
may be as old as 3.6 (RHEL 8).
"""

# ruff: noqa: FA100, UP006, UP035

import json
import os
import pwd
import re
import subprocess
import time
from typing import Any, Dict, List, Optional

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "Result",
    "User",
    "MainPID",
    "InvocationID",
    "ExecStart",
    "ActiveEnterTimestampMonotonic",
)
#: Where Keeper's installer puts the program.
PROGRAMS = ("/usr/local/bin/keeper-gateway", "/usr/local/bin/gateway", "/usr/bin/keeper-gateway")
DEFAULT_USER = "keeper-gw"


def find(settings: Dict[str, Any]) -> Dict[str, Any]:
    """Return what there is of the Gateway.

    `there` says what of it was found, empty if nothing was; `state` is for people; `up` whether the service runs or is
    about to, `pid` 0 where it does not run; `stopped` how somebody has seen to that; `config` is empty where neither
    the role's options nor its command line name a file.
    """
    unit = show(settings["service"])
    has_service = unit.get("LoadState", "not-found") != "not-found"
    active = unit.get("ActiveState") == "active"
    pid = int(unit.get("MainPID") or 0) if active else 0
    user = unit.get("User") or ("root" if unit.get("LoadState") == "loaded" else "")
    command = unit.get("ExecStart", "")
    there = "the service " + settings["service"] if has_service else ""
    if not has_service:
        program = next((path for path in PROGRAMS if os.path.exists(path)), "")
        process = running()
        if process:
            pid, user, command = process["pid"], process["user"], process["command"]
            there = "a process of " + user
        elif program:
            there = "the program " + program
    return {
        "service": settings["service"],
        "there": there,
        "has_service": has_service,
        "state": "{} ({})".format(unit.get("ActiveState", "unknown"), unit.get("SubState", "unknown")),
        "pid": pid,
        "up": unit.get("ActiveState") in ("active", "activating", "reloading"),
        "invocation": unit.get("InvocationID", "") if active else "",
        "user": settings["user"] or user or DEFAULT_USER,
        "config": settings["config"] or option(command, "--config-file", "-c"),
        "aws_secret": option(command, "--aws-kms-secret-name"),
        "stopped": stopped(unit) if has_service else "",
    }


def watch(settings: Dict[str, Any], seconds: float) -> Dict[str, Any]:
    """Look twice at a service that has come up within the last `seconds`; say in `fault` why it does not run.

    `settings["invocation"]`, if any, is the one that was seen before.
    """
    first = find(settings)
    seen = settings["invocation"] or first["invocation"]
    age = time.monotonic() - int(show(settings["service"]).get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    if first["invocation"] and age < seconds:
        time.sleep(seconds - age)
    second = find(settings)
    service, state, invocation, how = (second[key] for key in ("service", "state", "invocation", "stopped"))
    second["fault"] = ""
    if not second["has_service"]:
        second["fault"] = (
            f"there is none named {service}. Install the Gateway (gateway_host_install_gateway, gateway_host_token), "
            "name its service in gateway_host_service, or leave this check out of gateway_host_checks."
        )
    elif seen and invocation != seen:
        now = "running anew" if invocation else state
        second["fault"] = f"{service} was running and is {now}. Look at journalctl -u {service}."
    elif how:
        second["fault"] = f"{service} is {how}, and was left so. Start it, or set gateway_host_start_service."
    elif not second["pid"]:
        second["fault"] = f"{service} is {state}. Look at journalctl -u {service} and start it."
    return second


def show(service: str) -> Dict[str, str]:
    """Return what systemd says of a service, empty where there is no systemd."""
    command = ["systemctl", "show", service + ".service"] + ["--property=" + name for name in PROPERTIES]
    try:
        text = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode(errors="replace")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def stopped(unit: Dict[str, str]) -> str:
    """Return how somebody has seen to it that a service does not run, or nothing."""
    if unit.get("UnitFileState", "").startswith("masked") or unit.get("LoadState") == "masked":
        return "masked"
    if unit.get("ActiveState") != "inactive":
        return ""
    if unit.get("UnitFileState") == "disabled":
        return "disabled"
    # One that has never run since the host has started was not stopped.
    ran = int(unit.get("ActiveEnterTimestampMonotonic") or 0) > 0
    return "stopped" if ran and unit.get("Result") == "success" else ""


def option(command: str, *names: str) -> str:
    """Return the value of an option of the Gateway in a command line, or nothing."""
    # Before it stands what starts the Gateway, such as a shell with a -c of its own.
    own = re.split(r"\bstart\b", command, maxsplit=1)[-1]
    pattern = r"\s(?:{})[= ]+[\"']?([^\s;\"']+)".format("|".join(map(re.escape, names)))
    found = re.search(pattern, own)
    return found.group(1) if found else ""


def running() -> Optional[Dict[str, Any]]:
    """Return the process of a Gateway that somebody has started by hand, in user mode, outside containers."""
    for name in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        try:
            with open("/proc/" + name + "/cmdline", "rb") as file:
                words: List[str] = file.read().decode(errors="replace").split("\0")
            owner = pwd.getpwuid(os.stat("/proc/" + name).st_uid).pw_name
            contained = os.readlink("/proc/" + name + "/ns/pid") != os.readlink("/proc/self/ns/pid")
        except (OSError, KeyError):
            continue
        programs = [os.path.basename(word) for word in words[:2]]
        if not contained and "start" in words and {"gateway", "keeper-gateway"} & set(programs):
            return {"pid": int(name), "user": owner, "command": " ".join(words)}
    return None


def main(text: str) -> None:
    """Print what was found as a line of JSON; the settings in `text` are JSON, `watch` says for how long to look."""
    settings = json.loads(text)
    print(json.dumps(watch(settings, float(settings["watch"])) if settings["watch"] else find(settings)))
