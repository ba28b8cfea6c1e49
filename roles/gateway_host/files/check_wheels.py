# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell whether a directory of wheels has one of each locked package for a container's Python.

The role hands this file to the Python that runs Ansible's modules on stdin, with a call of `main` at its end. That one
may be as old as 3.6 (RHEL 8). Which platforms are meant is for pip to say; a wheel of Linux or of none will do here.
"""

# ruff: noqa: UP006, UP035

import json
import re
import sys
from typing import List


def canonical(name: str) -> str:
    """Return a package's name as all its spellings have it."""
    return re.sub("[-_.]+", "-", name).lower()


def fits(wheel: str, python: str) -> bool:
    """Whether a wheel is for that Python (such as 3.12) on Linux."""
    pythons, abis, platforms = (part.split(".") for part in wheel[: -len(".whl")].split("-")[-3:])
    minor = int(python.split(".")[1])
    own = f"cp3{minor}"
    older = [f"cp3{number}" for number in range(2, minor + 1)]
    pure = {"py3", *(f"py3{number}" for number in range(minor + 1))}
    for_python = (
        (own in pythons and (own in abis or "none" in abis))
        or ("abi3" in abis and bool(set(older) & set(pythons)))
        or ("none" in abis and bool(pure & set(pythons)))
    )
    return for_python and any(platform == "any" or "linux" in platform for platform in platforms)


def missing(names: List[str], pins: List[str], python: str) -> List[str]:
    """Return the pins, as name==version, that no wheel among these file names serves."""
    wanting = []
    for pin in pins:
        name, version = pin.split("==")
        there = [one for one in names if one.count("-") >= 4]
        own = [one for one in there if canonical(one.split("-")[0]) == canonical(name) and one.split("-")[1] == version]
        if not any(fits(one, python) for one in own):
            wanting.append(pin)
    return wanting


def main(text: str) -> None:
    """End with what is missing, if anything is: `names`, `pins` and `python` are in `text`, JSON."""
    settings = json.loads(text)
    wanting = missing(settings["names"], settings["pins"], settings["python"])
    if wanting:
        sys.exit(
            f"gateway_host_wheels has no wheel of {', '.join(wanting)} for the image's Python {settings['python']}: "
            "fetch them for that version, or set gateway_host_docker_python to the image's."
        )
