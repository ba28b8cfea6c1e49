# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Download Keeper's installer and run it with the one-time access token, which stays in memory.

The role hands this file to the Python that runs Ansible's modules on stdin, with a call of `main` at its end. That one
may be as old as 3.6 (RHEL 8).
"""

# ruff: noqa: UP006, UP035

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from typing import Any, Dict, List

#: As `curl ... | bash -s -- --token ...` does, except that the token goes by stdin and not by the command line.
RUN = 'read -r token && . "$0" --token "$token" "$@"'
#: Of an answer, in seconds.
TIMEOUT = 60


def download(settings: Dict[str, Any]) -> bytes:
    """Return the installer, which is what the checksum says, if there is one."""
    proxy, checksum = settings["proxy"], settings["checksum"]
    handlers: List[Any] = [urllib.request.ProxyHandler({"http": proxy, "https": proxy})] if proxy else []
    try:
        with urllib.request.build_opener(*handlers).open(settings["url"], timeout=TIMEOUT) as answer:
            program: bytes = answer.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SystemExit(
            f"The installer could not be downloaded: {reason}. See gateway_host_installer_url and gateway_host_proxy."
        ) from None
    if checksum:
        kind, _colon, wanted = checksum.partition(":")
        if kind not in hashlib.algorithms_available:
            raise SystemExit("gateway_host_installer_checksum must be like sha256:..., and is " + checksum)
        found = hashlib.new(kind, program).hexdigest()
        if found != wanted.lower():
            raise SystemExit(
                f"The installer is another one: its checksum is {kind}:{found}. Read it before you change "
                "gateway_host_installer_checksum."
            )
    return program


def install(settings: Dict[str, Any]) -> None:
    """Run the installer, unless another run has done it meanwhile; end with what it said where it fails."""
    program = download(settings)
    with open(settings["lock"], "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not any(map(os.path.lexists, settings["unless"])):
            run(program, settings)


def run(program: bytes, settings: Dict[str, Any]) -> None:
    """Run the installer; end with what it said where it fails."""
    environ = dict(os.environ)
    if settings["proxy"]:
        names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        environ.update(dict.fromkeys(names, settings["proxy"]))
    folder = tempfile.mkdtemp(prefix="gateway_host.")
    try:
        path = os.path.join(folder, "install")
        with open(path, "wb") as file:
            file.write(program)
        done = subprocess.run(
            ["/bin/bash", "-c", RUN, path] + settings["arguments"],
            input=(settings["token"] + "\n").encode(),
            stdout=subprocess.PIPE,
            check=False,
            stderr=subprocess.STDOUT,
            env=environ,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if done.returncode:
        lines = [line.strip() for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
        raise SystemExit(
            f"Keeper's installer ended with {done.returncode}. A one-time access token can be used once and for a "
            "limited time: if it says so, make a new one for the Gateway in the vault. It said: "
            f"{' | '.join(lines[-8:]) or 'nothing'}"
        )


def scrub(text: str, settings: Dict[str, Any]) -> str:
    """Return the text without the token and the proxy's credentials."""
    credentials = settings["proxy"].partition("://")[2].rpartition("@")[0]
    for secret in filter(None, (settings["token"], credentials, credentials.partition(":")[2])):
        text = text.replace(secret, "***")
    return text


def stop(*_: object) -> None:
    """End, as after a fault: the time for it is over."""
    # `timeout` sends it to the process and to its group.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit("The time for it was over.")


def main(text: str) -> None:
    """Install the Gateway as the settings in `text`, JSON, say."""
    settings = json.loads(text)
    signal.signal(signal.SIGTERM, stop)
    try:
        install(settings)
    except (SystemExit, OSError) as error:
        sys.exit(scrub(str(error), settings))
