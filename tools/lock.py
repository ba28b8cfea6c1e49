# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the lock files that the role gateway_host installs: one for each supported Python, with hashes.

Usage: lock.py [--upgrade]

What is locked stays as it is as long as it satisfies requirements.txt; --upgrade takes the newest of everything.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
REQUIREMENTS = CHECKOUT / "requirements.txt"
LOCKS = CHECKOUT / "roles" / "gateway_host" / "files"
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
#: The oldest C library of a supported system: that of RHEL 8. Only versions that have a wheel for it are taken, since
#: a package that is built on the host would bring in build tools which no hash covers.
PLATFORM = "x86_64-manylinux_2_28"
HEAD = """\
# What the role gateway_host installs for Python {python}. Written by `make lock` from requirements.txt; do not edit.
"""


def lock(python: str, upgrade: bool) -> None:
    """Write the lock file for one Python."""
    path = LOCKS / f"requirements-{python}.txt"
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    command = ["uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
    command += ["--python-version", python, "--python-platform", PLATFORM, "--only-binary", ":all:"]
    command += ["--native-tls", "--no-config", "--output-file", str(path)]
    command += ["--upgrade"] * upgrade
    subprocess.run([*command, str(REQUIREMENTS)], check=True, cwd=CHECKOUT)
    path.write_text(HEAD.format(python=python) + without_head(path.read_text(encoding="utf-8")), encoding="utf-8")
    changed = path.read_text(encoding="utf-8") != before
    print(f"{path.relative_to(CHECKOUT)}: {'written' if changed else 'as it was'}")


def without_head(text: str) -> str:
    """Return the text without the comments that it begins with."""
    lines = text.splitlines(keepends=True)
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    return "".join(lines)


if __name__ == "__main__":
    if not set(sys.argv[1:]) <= {"--upgrade"}:
        sys.exit(__doc__)
    # A bundle that is named to the other tools holds for this one, too.
    if "PIP_CERT" in os.environ:
        os.environ.setdefault("SSL_CERT_FILE", os.environ["PIP_CERT"])
    for version in PYTHONS:
        lock(version, "--upgrade" in sys.argv[1:])
