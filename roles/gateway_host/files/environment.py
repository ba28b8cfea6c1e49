# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Give a host the virtual environment of the PAM Script: look, build, try, switch and clean up, one run at a time.

The role hands this file to the host's Python on stdin, with a call of `main` at its end: nothing of it is left there,
and what is secret in the settings is in no command line and in no file.

`venv` is a link into `venvs`, since an environment stays where it is built. Each is built under a name of its own,
tried as the Gateway's user, and only then is the link moved, in one step.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

#: What this role makes in `venvs`: nothing else there is ever removed.
OURS = re.compile(r"([0-9a-f]{16}|by-hand)-")
BROKEN = "the present one is broken"
#: Of a file system, in bytes: what is less is taken for none.
SMALL = 4 << 20
#: What to do about what pip says. The first that matches counts.
ADVICE = (
    (
        "DO NOT MATCH THE HASHES",
        "A package is not the one that the lock file names. Find out why before anything else: a mirror that rebuilds "
        "packages, or an index that was tampered with. The lock file is right unless somebody has edited it.",
    ),
    (
        "require-hashes mode|Hashes are required",
        "The lock file lacks a version or a hash. Make it with hashes, as `make lock` does.",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED|SSLError|Could not find a suitable TLS CA",
        "The index's certificate is not trusted. If your organisation has a CA of its own, name a file with it in "
        "gateway_host_ca_file.",
    ),
    ("No space left|Disk quota", "Make room on the file system of gateway_host_venv."),
    (
        "40[137] Client Error|40[137] .*Auth|User for",
        "The index or the proxy wants credentials. Put them into gateway_host_index_url or gateway_host_proxy.",
    ),
    (
        "NewConnectionError|ConnectTimeout|ProxyError|Connection (refused|reset|to .* timed out)|name resolution|"
        "timed out|Network is unreachable",
        "The package index was not reached. Set gateway_host_index_url or gateway_host_proxy, or copy the wheels and "
        "set gateway_host_wheels.",
    ),
    (
        "No matching distribution|Could not find a version",
        "The index or the directory of wheels lacks a wheel of the locked version for this Python and this kind of "
        "machine. Add it there, or use an index that has it.",
    ),
)


class Fault(Exception):
    """What is wrong, and what to do. The environment in use is as it was."""


class Environments:
    """The environments of one `gateway_host_venv`, and the link to the one in use.

    The settings: `venv`, a path; `python`, its `path` and `version`; `lock`, the text of the lock file; `pins`, what of
    it holds on every host, as name==version; `probe`, the text of the program that tries an environment; `user`, the
    Gateway's; `wheels`, a directory, `index_url`, `ca_file`
    and `proxy` for pip, each empty where there is none.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.link = Path(settings["venv"])
        self.venvs = Path(f"{self.link}s")
        self.previous = self.venvs / "previous"
        python = settings["python"]
        named = settings["lock"] + python["path"] + python["version"]
        #: What the name of an environment with this Python and these packages begins with.
        self.digest = hashlib.sha256(named.encode()).hexdigest()[:16]
        self._held: tuple[int, ...] = ()

    def look(self) -> dict[str, Any]:
        """Return why an environment must be built (`reason`), and what lies about (`left`). Nothing is changed."""
        return {"changed": False, "reason": self.reason(), "left": [path.name for path in self.left()]}

    def renew(self) -> dict[str, Any]:
        """Build an environment if need be, switch to it, remove what is left: return what was found and removed."""
        self.venvs.mkdir(parents=True, exist_ok=True)
        with self._alone():
            # Whatever was seen before, another run may have been here since.
            reason = self.reason()
            if reason:
                self._replace(worth_keeping=not reason.startswith(BROKEN))
            left = self.left()
            for path in left:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        return {"changed": bool(reason or left), "reason": reason, "left": [path.name for path in left]}

    def reason(self) -> str:
        """Return why an environment must be built, or nothing; raise Fault if that is not for the role to do."""
        if not os.path.lexists(self.link):
            return "there is none"
        if not self.link.is_symlink():
            return "the present one was not made by this role"
        current = self._target(self.link)
        if current and not current.startswith(self.digest):
            return "the lock or the Python is another"
        wrong = self.wrong(self.link)
        if wrong and not current:
            raise Fault(
                f"{self.link} is a link to {os.readlink(self.link)}, which is not the role's, and {wrong}. Mend it "
                "there, or remove the link."
            )
        return f"{BROKEN}: {wrong}" if wrong else ""

    def wrong(self, folder: Path) -> str:
        """Return what is wrong with an environment, tried as the Gateway's user, or nothing."""
        python = str(folder / "bin" / "python3")
        user, identity = self.settings["user"], dict[str, Any]()
        if os.geteuid() == 0:
            try:
                entry = pwd.getpwnam(user)
            except KeyError:  # the Gateway is still to be installed
                entry = pwd.getpwnam("nobody")
            user = entry.pw_name
            groups = os.getgrouplist(user, entry.pw_gid)
            identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}
        try:
            done = subprocess.run(
                [python, "-I", "-B", "-", *self.settings["pins"]],
                input=self.settings["probe"],
                capture_output=True,
                text=True,
                cwd="/",
                timeout=120,
                check=False,
                **identity,
            )
        except PermissionError:
            return f"{user} cannot run {python}: every directory above it, and above its Python, must be open to all"
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{python} cannot be run: {getattr(error, 'strerror', None) or error}"
        return (done.stderr.strip().splitlines() or [f"it ends with {done.returncode}"])[-1] if done.returncode else ""

    def left(self) -> list[Path]:
        """Return what runs of this role have left and no link leads to."""
        if not self.venvs.is_dir():
            return []
        places = (self.link.parent, self.venvs)
        links = [path for place in places for path in place.iterdir() if path.is_symlink()]
        # A run that was killed was about to put these in place.
        halves = [path for path in links if path.name.startswith((f".{self.link.name}-", f".{self.previous.name}-"))]
        kept = {self._target(link) for link in links if link not in halves}
        made = [path for path in self.venvs.iterdir() if OURS.match(path.name) and not path.is_symlink()]
        return sorted(halves) + sorted(path for path in made if path.name not in kept)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other run is at work here, and keep others waiting."""
        descriptor = os.open(self.venvs, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # A pip that outlives this process still keeps others waiting.
            self._held = (descriptor,)
            yield
        finally:
            os.close(descriptor)

    def _replace(self, worth_keeping: bool) -> None:
        name = f"{self.digest}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S%f}"
        folder = self.venvs / name
        try:
            self._build(folder)
            wrong = self.wrong(folder)
            if wrong:
                raise Fault(f"It was built and does not work: {wrong}.")
            self._switch(folder, worth_keeping)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _build(self, folder: Path) -> None:
        settings = self.settings
        temporary = folder / "tmp"  # /tmp may be full, or mounted noexec
        temporary.mkdir(parents=True)
        environ = {**os.environ, "TMPDIR": str(temporary)}
        self._run("making it", environ, settings["python"]["path"], "-I", "-m", "venv", str(folder))
        lock = folder / "requirements.txt"
        lock.write_text(settings["lock"] + "\n", encoding="utf-8")
        # Wheels alone: what is built here would bring in build tools that no hash covers.
        pip = ["pip", "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--progress-bar", "off"]
        pip += ["--require-hashes", "--only-binary", ":all:", "--requirement", str(lock)]
        pip += ["--no-index", "--find-links", settings["wheels"]] if settings["wheels"] else []
        given = {"PIP_INDEX_URL": "index_url", "PIP_CERT": "ca_file", "PIP_PROXY": "proxy"}
        environ.update({variable: settings[name] for variable, name in given.items() if settings[name]})
        self._run("installing the packages", environ, str(folder / "bin" / "python3"), "-I", "-m", *pip)
        shutil.rmtree(temporary)

    def _run(self, step: str, environ: dict[str, str], *command: str) -> None:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=self._held,
            check=False,
        )
        if done.returncode:
            state = os.statvfs(self.venvs)
            # Not all of them tell when there is none.
            full = "No space left. " if state.f_bavail * state.f_frsize < SMALL else ""
            raise Fault(f"It failed at {step}: {explain(full + done.stdout)}")

    def _switch(self, folder: Path, worth_keeping: bool) -> None:
        with ExitStack() as undo:
            before = self._target(self.link)
            if os.path.lexists(self.link) and not self.link.is_symlink():
                # Since it does not know that it is moved, it still serves as it did.
                aside = self.venvs / f"by-hand-{folder.name}"
                os.rename(self.link, aside)
                undo.callback(os.rename, aside, self.link)
                before = aside.name
            self._point(self.link, f"{self.venvs.name}/{folder.name}", undo)
            if before and worth_keeping:
                self._point(self.previous, before, undo)
            wrong = self.wrong(self.link)
            if wrong:
                raise Fault(f"It works, and not as {self.link}: {wrong}.")
            undo.pop_all()

    def _point(self, link: Path, target: str, undo: ExitStack) -> None:
        """Have a link point there, in one step; `undo` learns what it was."""
        before = os.readlink(link) if link.is_symlink() else ""
        aside = link.with_name(f".{link.name}-{os.getpid()}")
        aside.unlink(missing_ok=True)
        aside.symlink_to(target)
        try:
            os.replace(aside, link)
        except OSError:
            aside.unlink()
            raise
        undo.callback(self._point, link, before, ExitStack()) if before else undo.callback(link.unlink)

    def _target(self, link: Path) -> str:
        """Return the name of the environment that a link leads to, empty if it leads to none of the role's."""
        real = Path(os.path.realpath(link))
        ours = link.is_symlink() and real.parent == Path(os.path.realpath(self.venvs)) and OURS.match(real.name)
        return real.name if ours else ""


def explain(output: str) -> str:
    """Return what to do about the output of pip or venv, and its telling lines."""
    advice = next((advice for pattern, advice in ADVICE if re.search(pattern, output)), "")
    # What pip says of each try is said again at the end.
    lines = [line.strip() for line in output.splitlines() if line.strip() and "WARNING: Retrying" not in line]
    telling = [line for line in lines if re.search("(?i)error|failed|hash|expected|got ", line)] or lines or ["nothing"]
    return f"{advice} It said: {' | '.join(dict.fromkeys(telling))[:1500]}".strip()


def scrub(text: str, settings: dict[str, Any]) -> str:
    """Return the text without the credentials of the index and the proxy."""
    for name in ("index_url", "proxy"):
        credentials = settings[name].partition("://")[2].rpartition("@")[0]
        for part in filter(None, [credentials, credentials.partition(":")[2]]):
            text = text.replace(part, "***")
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def _stop(*_: object) -> None:
    # `timeout` sends it to the process and to its group.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Fault("The time for it was over.")


def main(text: str) -> None:
    """Do what the settings in `text`, JSON, say; `check` says to look only. The result is one line of JSON."""
    settings = json.loads(text)
    signal.signal(signal.SIGTERM, _stop)
    # Root's may be anything, and the Gateway's user has to read what is made.
    os.umask(0o022)
    environments = Environments(settings)
    try:
        result = environments.look() if settings["check"] else environments.renew()
    except (Fault, OSError) as error:
        told = str(error) if isinstance(error, Fault) else f"It failed: {explain(str(error))}"
        sys.exit(scrub(told, settings))
    print(json.dumps(result))
