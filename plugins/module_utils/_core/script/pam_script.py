# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The PAM Script: what the Keeper Gateway runs when it rotates the record of an application."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress

from ..base.errors import BadInput, OutOfTime, Refused, Stopped, out_of_memory
from ..base.labels import Labelled
from ..base.output import Outlet
from ..base.redact import Log, foreign, scrub
from ..base.timing import Budget, catch_signals
from ..base.version import VERSION
from ..rotation.doctor import dry_run
from ..rotation.identity import AUTHORITY_VARIABLE, Sources, identity_in, in_environment
from ..rotation.outcome import Outcome, ended, verdict
from ..rotation.policy import policy_of
from ..rotation.subject import Task
from ..rotation.transaction import perform
from ..services.connection import REQUESTS_PROBLEM
from ..services.credentials import Certificate
from ..services.entra import MSAL_PROBLEM
from ..services.files import certificates_of
from ..services.http import Http
from ..services.vault import KSM_PROBLEM, Vault, parse_configuration
from .gateway import RUN_BY_GATEWAY, Request, find_configuration, read_request

_HELP = """Rotates the client secret of a Microsoft Entra application and publishes it in its Keeper record.
The Keeper Gateway runs it as a PAM Script (rotation method "Run PAM scripts only") and passes it the record on
stdin: one line, base64 of a JSON object with userRecordUid, providerRecordUid and records, which is base64 of a JSON
array. It writes its steps to stderr and one line of JSON to stdout."""
_EPILOG = """exit status: 0 rotated, 1 bug, 2 bad input, 3 refused, 4 rolled back, 5 incomplete (new secret valid, old
ones remain), 6 orphan (a new secret could not be removed)"""

# The Gateway writes its line as soon as it has started the script.
_STDIN_SECONDS = 20.0


def missing_libraries() -> dict[str, str]:
    """Return the packages that cannot be imported, by their names on the package index, with the reason."""
    problems = {"requests": REQUESTS_PROBLEM, "msal": MSAL_PROBLEM, "keeper-secrets-manager-core": KSM_PROBLEM}
    return {name: problem for name, problem in problems.items() if problem}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script form; return the exit status."""
    parser = argparse.ArgumentParser(prog="rotate_azure_app.py", description=_HELP, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("--doctor", action="store_true", help="change nothing, check everything that a rotation needs")
    parser.add_argument("--check", action="store_true", help="the same, and say what would be done")
    parser.add_argument("--record", metavar="UID", default="", help="with these: the record, in place of stdin")
    parser.add_argument("--provider", metavar="UID", default="", help="with --record: the PAM configuration")
    parser.add_argument("--debug", action="store_true", help="write every call, and a traceback for a bug, to stderr")
    options = parser.parse_args(arguments)
    dry = options.doctor or options.check
    if (options.record and not dry) or (options.provider and not options.record):
        parser.error("--record goes with --doctor or --check, --provider with --record")
    if not options.record and sys.stdin is not None and sys.stdin.isatty():
        parser.print_help(sys.stderr)
        return BadInput.exit_status
    _leave_no_core()
    outlet = Outlet()
    log = Log(lambda line: outlet.write(sys.stderr, line), options.debug)
    outcome = _run(log, options, os.environ)
    with suppress(OSError, ValueError):  # nobody reads: the exit status still tells
        outlet.write(sys.stdout, json.dumps({"version": VERSION, **outcome.as_dict()}) + "\n")
    return outcome.exit_status


def _leave_no_core() -> None:
    """A crash of a library would write what is in memory to a file."""
    with suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _run(log: Log, options: argparse.Namespace, environ: Mapping[str, str]) -> Outcome:
    try:
        dry = options.doctor or options.check
        missing = missing_libraries()
        if missing:
            raise BadInput(
                "Python packages are missing: " + ", ".join(missing),
                "; ".join(missing.values()),
                f"{sys.executable} -m pip install {' '.join(missing)}, or let the script command name another Python",
            )
        budget = Budget()
        catch_signals(budget)
        http = Http(budget, log)

        requests: list[Request] = []

        def task() -> Task:
            if not requests:
                named = Request(options.record, options.provider, ()) if options.record else None
                requests.append(named or _request(budget))
            return prepare(requests[0], http, budget, log, environ)

        outcome = dry_run(task, http, budget, log, options.check) if dry else perform(task, http, budget, log)
        budget.shield()
        return outcome
    except BadInput as problem:
        return ended(problem, {}, log)
    except Stopped as stop:
        # Only outside of a rotation's phases, where nothing has begun or everything has ended.
        return ended(Refused("the run was stopped", str(stop), "run it again"), {}, log)
    except MemoryError:
        return ended(out_of_memory(), {}, log)
    except Exception as bug:
        what = f"a bug: {type(bug).__name__}: {foreign(bug)}"
        text = verdict("error", {}, what, "", "run it with --debug and report it")
        log.say(text)
        if options.debug:
            for line in traceback.format_exc().splitlines():
                log.detail(foreign(line))
        return Outcome("error", 1, scrub(text), False)


def _request(budget: Budget) -> Request:
    if sys.stdin is None:
        raise BadInput("stdin is closed", todo=RUN_BY_GATEWAY)
    try:
        with budget.phase("read the Gateway's line", _STDIN_SECONDS):
            return read_request(sys.stdin.buffer)
    except OutOfTime as end:
        raise BadInput("no complete line came on stdin", str(end), RUN_BY_GATEWAY) from None


def prepare(request: Request, http: Http, budget: Budget, log: Log, environ: Mapping[str, str]) -> Task:
    """Read the Gateway's configuration and the records. Raises BadInput, Refused."""
    text, source = find_configuration(environ)
    vault = Vault(parse_configuration(text, source), http, budget, log)
    configuration = request.configuration()
    uids = [request.user_uid]
    if configuration is None and request.provider_uid:
        uids.append(request.provider_uid)
    found = vault.read(uids)
    record = found.get(request.user_uid)
    if record is None:
        raise BadInput(
            f"the record {request.user_uid} was not found",
            f"it is not shared with the KSM application of {source}, or does not exist",
            "share the record's folder with the Gateway's application, with edit permission",
        )
    if configuration is None and request.provider_uid in found:
        configuration = found[request.provider_uid].view()
    own = record.view()
    advice = "fill in the PAM configuration's client id and secret, or attach the admin application's record"
    if not request.provider_uid:
        advice = "attach the admin application's record to the script, or name the PAM configuration (--provider)"
    elif configuration is None:
        advice = f"share the folder of the PAM configuration {request.provider_uid} with the Gateway's application"

    def files(uid: str) -> Sequence[Certificate]:
        if uid not in found:
            found.update(vault.read([uid]))
        return certificates_of(found[uid], http) if uid in found else ()

    def afresh(uid: str) -> Labelled | None:
        read = vault.read([uid]).get(uid)
        return read.view() if read else None

    sources = Sources(
        advice=advice,
        attached=request.attached(),
        own=own,
        configuration=configuration,
        fallback=identity_in(in_environment(environ), "the environment"),
        authority=environ.get(AUTHORITY_VARIABLE, ""),
        files=files,
        afresh=afresh,
    )
    return Task(vault, record, sources, policy_of(own))


if __name__ == "__main__":
    raise SystemExit(main())
