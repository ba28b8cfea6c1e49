# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the virtual environment of the checkout, keeps it as the requirements want it, and mends it.

Usage: venv.py DIRECTORY REQUIREMENTS

Where it was left half-made, was moved, or its Python is gone, it is made anew. Python 3.6 can run this, so that an old
one can say that it is too old.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import typing

NEEDED = (3, 11)
# In the environment: that it is being made or filled, and what has been put in.
UNFINISHED = ".unfinished"
INSTALLED = ".installed.json"


class Trouble(Exception):
    """What is said in one line, with the next step."""


def ensure(folder: str, requirements: str, own: bool) -> None:
    """Bring the environment into the wanted state; ``own`` tells that it may be removed whatever it looks like."""
    folder = os.path.abspath(folder)
    os.makedirs(folder, exist_ok=True)
    with locked(os.path.dirname(folder)):
        why = what_is_wrong(folder)
        if why:
            make(folder, why, own)
        wanted, inner = closure(requirements)
        if wanted not in installed(folder):
            install(folder, requirements, [wanted, *inner])


@contextlib.contextmanager
def locked(folder: str) -> typing.Iterator[None]:
    """Let one at a time into the block."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def what_is_wrong(folder: str) -> str:
    """Return why the environment cannot be used; empty where it can."""
    if not os.listdir(folder):
        return "it is not there"
    if os.path.exists(os.path.join(folder, UNFINISHED)):
        return "it was left half-made"
    code = f"import sys, pip; sys.exit(sys.version_info[:2] < {NEEDED})"
    try:
        done = subprocess.run(
            [python_of(folder), "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )
    except OSError:
        return "its Python is gone"
    if done.returncode:
        return "its Python is too old, or has no pip"
    return "" if is_in_place(folder) else "it was moved"


def is_in_place(folder: str) -> bool:
    """Whether its programs start its own Python: they name it by its path."""
    try:
        with open(os.path.join(folder, "bin", "pip"), errors="replace") as script:
            lines = script.read(1024).split("\n")
        # A path that is long or has a space in it stands in the second line, in quotes.
        python = lines[1].split('"')[1] if lines[0] == "#!/bin/sh" else lines[0][2:].strip()
        return os.path.samefile(os.path.dirname(python), os.path.join(folder, "bin"))
    except (OSError, IndexError):
        return False


def make(folder: str, why: str, own: bool) -> None:
    """Make it with the Python that runs this, in place of what is there."""
    if os.listdir(folder):
        if not own and not os.path.exists(os.path.join(folder, INSTALLED)):
            raise Trouble(
                f"{folder} cannot be used as a virtual environment: {why}. It was not made here. "
                "Next: remove it, or name another one with VENV=..."
            )
        print(f"Making {folder} anew: {why}", flush=True)
        shutil.rmtree(folder)
        os.mkdir(folder)
    open(os.path.join(folder, UNFINISHED), "w").close()
    # Not the Python of the very environment that is being replaced, should that be the one that runs this.
    python = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run([python, "-m", "venv", folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        said = " ".join(done.stdout.decode(errors="replace").split())
        raise Trouble(
            f"{python} cannot make a virtual environment: {said[:400]}. "
            "Next: on Debian and Ubuntu install python3-venv; elsewhere name a complete Python with PYTHON=..."
        )
    os.remove(os.path.join(folder, UNFINISHED))


def install(folder: str, requirements: str, digests: "list[str]") -> None:
    """Install the requirements."""
    print(f"Installing {os.path.basename(requirements)} into {folder}", flush=True)
    mark = os.path.join(folder, UNFINISHED)
    open(mark, "w").close()
    command = [python_of(folder), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r", requirements]
    if subprocess.run(command, check=False).returncode:
        raise Trouble(
            f"the packages of {os.path.basename(requirements)} could not be installed, see above. "
            "Next: check the network, the proxy and pip's index"
        )
    with open(os.path.join(folder, INSTALLED), "w") as file:
        json.dump(digests, file)
    os.remove(mark)


def installed(folder: str) -> "list[str]":
    """Return the digests of the requirements that are in it."""
    with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, INSTALLED)) as file:
        return json.load(file)
    return []


def closure(requirements: str) -> "tuple[str, list[str]]":
    """Return the digest of a file of requirements with all that it includes, and those of the included ones."""
    with open(requirements, "rb") as file:
        text = file.read()
    digest, inner = hashlib.sha256(text), []
    for line in text.decode().splitlines():
        if line.startswith("-r "):
            path = os.path.join(os.path.dirname(requirements), line[3:].strip())
            first, more = closure(path)
            digest.update(first.encode())
            inner += [first, *more]
    return digest.hexdigest(), inner


def python_of(folder: str) -> str:
    """Return the path of its Python."""
    return os.path.join(folder, "bin", "python")


def main() -> None:
    """Be the program."""
    if sys.version_info[:2] < NEEDED:
        raise Trouble(
            f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}, which is too old. "
            f"Next: name Python {NEEDED[0]}.{NEEDED[1]} or newer with PYTHON=..."
        )
    folder, requirements = sys.argv[1:]
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    ensure(folder, requirements, own=os.path.abspath(folder) == os.path.join(checkout, ".venv"))


if __name__ == "__main__":
    try:
        main()
    except Trouble as trouble:
        sys.exit(str(trouble))
    except KeyboardInterrupt:
        sys.exit("stopped. Next: the same again; what is half-made is made anew.")
