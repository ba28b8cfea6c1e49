# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The only part between the core and Ansible. PRIVATE to the collection: it may change at any time."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule

from ._core.base.errors import BadInput, Refused, RotationError, Stopped, out_of_memory
from ._core.base.redact import Log, printable, remember, scrub, scrub_all
from ._core.base.timing import Budget, catch_signals
from ._core.rotation.identity import CREDENTIALS, VARIABLES, identity_in, in_environment
from ._core.script.pam_script import missing_libraries
from ._core.services.configuration import read_configuration
from ._core.services.credentials import Identity
from ._core.services.entra import CLOUDS, Cloud, custom_cloud
from ._core.services.http import Http
from ._core.services.vault import parse_configuration
from ._showing import secrets_in, shown

# Corresponds to plugins/doc_fragments/_keeper.py
KEEPER_OPTIONS: dict[str, dict[str, Any]] = {
    "keeper_config": {"type": "jsonarg", "no_log": True},
    "keeper_config_file": {"type": "path"},
}
# Corresponds to plugins/doc_fragments/_entra.py
ENTRA_OPTIONS: dict[str, dict[str, Any]] = {
    "admin_record": {"type": "str"},
    "pam_config": {"type": "str"},
    "tenant_id": {"type": "str", "aliases": ["tenant"]},
    "client_id": {"type": "str"},
    "client_secret": {"type": "str", "no_log": True, "aliases": ["secret"]},
    "certificate_path": {"type": "path", "aliases": ["x509_certificate_path"]},
    "certificate_passphrase": {"type": "str", "no_log": True},
    "managed_identity": {"type": "bool", "default": False},
    "oidc_token": {"type": "str", "no_log": True},
    "oidc_token_file_path": {"type": "path", "no_log": False},
    "cloud_environment": {"type": "raw"},
}
KEEPER_EXCLUSIVE = [("keeper_config", "keeper_config_file")]
EXCLUSIVE = [*KEEPER_EXCLUSIVE, CREDENTIALS]


class _Secrets(set[str]):
    """The values that AnsibleModule masks: ours, and no others.

    It would add every leaf of a mapping that an option for secrets has received, and mask each 7 in every date for the
    number of a key. Up to ansible-core 2.18 it masks in whatever order a set has: what is part of something longer
    would leave the rest of it readable.
    """

    def update(self, *others: Iterable[str]) -> None:
        del others

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__(), key=len, reverse=True))


class Module(AnsibleModule):
    """An AnsibleModule for which an empty option is one that was not given, that shows no secret of its arguments,
    and whose every result has a ``status``.

    ``keep_empty`` names the options for which an empty text has a meaning of its own, ``names`` those that hold what
    people have called something, which may be shown although it has none of the forms of what is plain.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        keep_empty: Collection[str] = (),
        names: Collection[str] = (),
        **rules: Any,
    ) -> None:
        self._keep_empty = keep_empty
        self._names = names
        self._given: dict[str, Any] = {}
        self._ready = False
        super().__init__(dict(options), supports_check_mode=True, **rules)
        self._ready = True

    def _load_params(self) -> None:
        # Of AnsibleModule, which has it for modules that look at their arguments before they are checked.
        super()._load_params()
        self.params = {name: value for name, value in self.params.items() if not self._is_empty(name, value)}
        self._given = {name: value for name, value in self.params.items() if not name.startswith("_ansible_")}
        secrets = secrets_in(self._given, self.argument_spec, self._names)
        self.no_log_values = _Secrets(secrets)
        for value in secrets:
            remember(value)

    def _is_empty(self, name: str, value: Any) -> bool:
        """Whether it is what a survey passes for an answer that was left out."""
        return value is None or (isinstance(value, str) and not value.strip() and name not in self._keep_empty)

    def exit_json(self, **result: Any) -> NoReturn:
        """End the module well. Without a ``status`` of its own, the result gets changed, planned or unchanged."""
        changed = "planned" if self.check_mode else "changed"
        result.setdefault("status", changed if result.get("changed") else "unchanged")
        super().exit_json(**self._presentable(result))

    def fail_json(self, msg: str, **result: Any) -> NoReturn:
        """End the module as failed."""
        if not self._ready:  # AnsibleModule itself has found an argument that is wrong
            msg = msg.rstrip(".") + f". Next: correct the options; ansible-doc {self._name} lists them."
        result.setdefault("status", "error" if self._ready else BadInput.status)
        result.setdefault("changed", False)
        super().fail_json(scrub(msg), **self._presentable(result))

    def _presentable(self, result: dict[str, Any]) -> dict[str, Any]:
        diff = result.pop("diff", None)
        presentable: dict[str, Any] = scrub_all(result)
        if diff is not None:
            presentable["diff"] = _in_lines(diff)
        arguments = shown({**self._given, **self.params}, self.argument_spec, self._names)
        presentable["invocation"] = {"module_args": arguments}
        return presentable


def conclude(module: Module, work: Callable[[Module, Http, Budget, Log], dict[str, Any]]) -> NoReturn:
    """Do the work of a module that needs the packages of requirements.txt, and end the module as ``end`` does."""

    def with_libraries(budget: Budget, log: Log) -> dict[str, Any]:
        _require_libraries()
        return work(module, Http(budget, log), budget, log)

    end(module, with_libraries)


def end(module: Module, work: Callable[[Budget, Log], dict[str, Any]]) -> NoReturn:
    """Do the work of a module and end the module with its result, which is a failure where ``failed`` is in it."""
    log = Log(lambda line: None)
    try:
        budget = Budget()
        catch_signals(budget)
        result = work(budget, log)
        budget.shield()
    except RotationError as problem:
        result = {"failed": True, "msg": problem.message, "status": problem.status, **problem.facts}
    except Stopped as stop:  # outside of a rotation's phases: nothing has begun
        result = {"failed": True, "msg": f"Nothing was changed: {stop}. Next: run it again.", "status": Refused.status}
    except MemoryError:
        end_of_it = out_of_memory()
        result = {"failed": True, "msg": end_of_it.message, "status": end_of_it.status}
    except Exception as bug:
        result = {"failed": True, "msg": f"a bug: {type(bug).__name__}: {bug}. Next: report it.", "status": "error"}
    # Not within the except clauses: AnsibleModule would add a traceback, which shows what the lines of the code say.
    diff = result.pop("diff", None)
    if module._diff and diff:
        result["diff"] = diff
    result["steps"] = log.steps
    for text in result.pop("warnings", ()):
        module.warn(text)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


def _in_lines(diff: Any) -> Any:
    """Return a diff fit to be shown: scrubbed as a whole, printable line by line."""
    if isinstance(diff, dict):
        return {key: _in_lines(value) for key, value in diff.items()}
    if isinstance(diff, list):
        return [_in_lines(value) for value in diff]
    return "\n".join(map(printable, scrub(diff).split("\n"))) if isinstance(diff, str) else diff


def _require_libraries() -> None:
    missing = missing_libraries()
    if missing:
        raise BadInput(
            "Python packages are missing: " + ", ".join(missing),
            "; ".join(missing.values()),
            f"{shlex.join([sys.executable, '-m', 'pip', 'install', *missing])}, or let ansible_python_interpreter name "
            "a Python that has them",
        )


def keeper_configuration(params: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the Keeper configuration of the options, else of the environment. Raises BadInput.

    The environment is read here and not by ``fallback`` in the argument spec: there, a variable for one option would
    win over, or clash with, another option that the task sets.
    """
    text, path = params["keeper_config"], params["keeper_config_file"]
    source = "keeper_config"
    if not text and not path:
        text, source = environ.get("KSM_CONFIG", "").strip(), "the environment variable KSM_CONFIG"
        path = "" if text else environ.get("KSM_CONFIG_FILE", "").strip()
    if text:
        return parse_configuration(text, source)
    if path:
        return parse_configuration(read_configuration(path), path)
    raise BadInput(
        "no Keeper configuration was given", todo="set keeper_config or keeper_config_file, or the variable KSM_CONFIG"
    )


def identities(params: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Identity | None, Identity | None]:
    """Return the admin identity that the options give, and the one that the environment gives. Raises BadInput.

    Where an option is set, the environment fills what is left open.
    """
    outside, managed = in_environment(environ), params["managed_identity"]
    if not managed and not any(params[name] for name in VARIABLES):
        return None, identity_in(outside, "the environment")
    source = "the task's options"
    values = {name: params[name] or outside[name] for name in VARIABLES}
    given = [name for name in CREDENTIALS if params[name]]
    if managed and given:
        raise BadInput(f"managed_identity is set together with {given[0]}", todo="leave one of the two")
    if given:
        values.update({name: "" for name in CREDENTIALS if name not in given})
    needed = ("tenant_id",) if managed else ("tenant_id", "client_id")
    missing = [name for name in needed if not values[name]]
    if not managed and not any(values[name] for name in CREDENTIALS):
        missing.append(f"{', '.join(CREDENTIALS)} or managed_identity")
    if missing:
        raise BadInput(
            "the admin identity in the options lacks " + " and ".join(missing),
            todo="set them, or use pam_config or admin_record",
        )
    if managed:
        return Identity(values["client_id"], values["tenant_id"], source, managed=True), None
    return identity_in(values, source), None


def cloud(value: Any, where: str) -> Cloud | None:
    """Return the cloud of a name or of a pair of endpoints, None for nothing. Raises BadInput."""
    if not value:
        return None
    if isinstance(value, dict):
        authority, graph = value.get("authority"), value.get("graph")
        if set(value) - {"authority", "graph"} or not isinstance(authority, str) or not isinstance(graph, str):
            raise BadInput(f"{where} is no pair of authority and graph", todo="give both endpoints as text")
        return custom_cloud(authority, graph, where)
    if str(value) in CLOUDS:
        return CLOUDS[str(value)]
    raise BadInput(f"{where} is {value!r}", "it must be " + ", ".join(CLOUDS) + " or a pair of endpoints", "correct it")


def _read(path: str, what: str) -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or "it is no text"
        raise BadInput(f"the {what} {path} cannot be read", why, "check the path and its permissions") from None
