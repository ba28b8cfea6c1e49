# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The only part between the core and Ansible. PRIVATE to the collection: it may change at any time."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ._core.base.errors import BadInput, RotationError, Stopped
from ._core.base.redact import Log, Secret, scrub, scrub_all
from ._core.base.timing import Budget, catch_signals
from ._core.script.pam_script import missing_libraries
from ._core.services.entra import CLOUDS, Cloud, Identity, custom_cloud
from ._core.services.http import Http
from ._core.services.vault import parse_configuration

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
    "cloud_environment": {"type": "raw"},
}
EXCLUSIVE = [("keeper_config", "keeper_config_file"), ("client_secret", "certificate_path")]

# The names that azure.azcollection reads, and those of Microsoft's own libraries.
_VARIABLES = {
    "tenant_id": ("AZURE_TENANT", "AZURE_TENANT_ID"),
    "client_id": ("AZURE_CLIENT_ID",),
    "client_secret": ("AZURE_SECRET", "AZURE_CLIENT_SECRET"),
    "certificate_path": ("AZURE_X509_CERTIFICATE_PATH", "AZURE_CLIENT_CERTIFICATE_PATH"),
}


def require_libraries(module: AnsibleModule) -> None:
    """Fail with Ansible's usual message where a package of requirements.txt cannot be imported."""
    for name, problem in missing_libraries().items():
        module.fail_json(msg=missing_required_lib(name), exception=problem)


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
        return parse_configuration(_read(path, "Keeper configuration"), path)
    raise BadInput(
        "no Keeper configuration was given", todo="set keeper_config or keeper_config_file, or the variable KSM_CONFIG"
    )


def identities(params: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Identity | None, Identity | None]:
    """Return the admin identity that the options give, and the one that the environment gives. Raises BadInput.

    Where an option is set, the environment fills what is left open.
    """
    outside = {name: next((environ[key] for key in keys if environ.get(key)), "") for name, keys in _VARIABLES.items()}
    if not any(params[name] for name in _VARIABLES):
        complete = outside["tenant_id"] and outside["client_id"]
        usable = complete and (outside["client_secret"] or outside["certificate_path"])
        return None, _identity(outside, "the environment") if usable else None
    values = {name: params[name] or outside[name] for name in _VARIABLES}
    if params["certificate_path"]:
        values["client_secret"] = ""
    missing = [name for name in ("tenant_id", "client_id") if not values[name]]
    if not values["client_secret"] and not values["certificate_path"]:
        missing.append("client_secret or certificate_path")
    if missing:
        raise BadInput(
            "the admin identity in the options lacks " + " and ".join(missing),
            todo="set them, or use pam_config or admin_record",
        )
    return _identity(values, "the task's options"), None


def _identity(values: Mapping[str, str], source: str) -> Identity:
    secret = Secret(values["client_secret"]) if values["client_secret"] else None
    certificate = None if secret else Secret(_read(values["certificate_path"], "certificate"))
    return Identity(values["client_id"], values["tenant_id"], source, secret=secret, certificate=certificate)


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


def has_package(name: str) -> bool:
    """Whether this Python has a package; it is not imported."""
    return importlib.util.find_spec(name) is not None


def edit_record(module: AnsibleModule, work: Callable[[Http, Budget, Log], dict[str, Any]]) -> NoReturn:
    """Do the work of a module that edits one record, and end the module with its result or its error."""
    require_libraries(module)
    end(module, lambda budget, log: work(Http(budget, log), budget, log))


def end(module: AnsibleModule, work: Callable[[Budget, Log], dict[str, Any]]) -> NoReturn:
    """Do the work, and end the module with its result or its error."""
    log = Log(lambda line: None)
    budget = Budget()
    catch_signals(budget)
    try:
        result = work(budget, log)
    except RotationError as problem:
        facts = scrub_all(problem.facts)
        module.fail_json(msg=scrub(problem.message), status=problem.status, steps=log.steps, **facts)
    except Stopped as stop:
        module.fail_json(msg=f"Nothing was changed: {stop}. Next: run it again.", status="refused", steps=log.steps)
    except Exception as bug:
        module.fail_json(msg=scrub(f"a bug: {type(bug).__name__}: {bug}"), status="error", steps=log.steps)
    diff = result.pop("diff", None)
    if module._diff and diff:
        result["diff"] = diff
    module.exit_json(**scrub_all(result), steps=log.steps)
