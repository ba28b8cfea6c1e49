# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Refuse a place for the environments that belongs to somebody else, or where no program would run. Changes nothing.

The role hands this file to the Python that runs Ansible's modules on stdin, with a call of `main` at its end. That one
may be as old as 3.6 (RHEL 8).
"""

import json
import os
import pwd
import stat
import sys
from pathlib import Path


def refusal(venv: str) -> str:
    """Return why no environment may be made there, or nothing."""
    link = Path(venv)
    venvs = Path(venv + "s")
    there = [folder for folder in (venvs, *link.parents) if folder.is_dir()]
    reals = [folder.resolve() for folder in there]
    homes = {os.path.realpath(user.pw_dir): user.pw_name for user in reversed(pwd.getpwall()) if user.pw_dir}
    elsewhere = "Choose another gateway_host_venv, such as /opt/keeper-azure-rotation/venv."
    for folder in sorted({above for real in reals for above in (real, *real.parents)}):
        state = folder.stat()
        if str(folder) in homes and folder != Path("/"):
            return f"{folder}, above gateway_host_venv, is the home of {homes[str(folder)]}. {elsewhere}"
        if state.st_uid != 0:
            return f"{folder}, above gateway_host_venv, does not belong to root. {elsewhere}"
        if state.st_mode & stat.S_IWOTH or (state.st_mode & stat.S_IWGRP and state.st_gid != 0):
            return f"{folder}, above gateway_host_venv, may be written by others than root. {elsewhere}"
    if os.statvfs(str(there[0])).f_flag & os.ST_NOEXEC:
        return f"The file system of {there[0]} is mounted noexec: no program can run from there. {elsewhere}"
    if os.path.lexists(venv) and not link.is_symlink() and not (link / "pyvenv.cfg").is_file():
        return f"{venv} is there and is no virtual environment. Remove it, or choose another gateway_host_venv."
    return ""


def main(text: str) -> None:
    """End with the refusal of `venv`, of the settings in `text`, JSON, if there is one."""
    sys.exit(refusal(json.loads(text)["venv"]) or 0)
