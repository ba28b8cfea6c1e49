# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be done so that the vault is as wanted, and why it cannot be. Pure.

Everything that can be refused is refused before the first step: nothing is made that would be of no use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from .._core.base.errors import BadInput, Refused
from .._core.records.app_fields import value_of
from .model import Plan, Seen, Step, Uids, Wanted
from .plan_records import RecordPlanner, pam_resource

# The stages: what one needs is there after those before it.
FOLDERS, SHARES, CONFIGS = 1, 2, 3
CONFIG_TYPES = {"azure": "pamAzureConfiguration", "local": "pamNetworkConfiguration"}
#: What Keeper asks for in a new Azure configuration.
REQUIRED = ("tenantId", "subscriptionId")
# Other labels of the same fields, by what made the configuration: Keeper's templates, its SaaS plug-in.
_ALIASES = {label: (f"pamazure{label}",) for label in ("clientId", "tenantId", "subscriptionId")}
_COMPARED = ("tenantId", "clientId", "subscriptionId")


def plan(wanted: Wanted, seen: Seen) -> Plan:
    """Return what is there and the steps to the rest. Raises BadInput and Refused."""
    if not wanted.present:
        records = RecordPlanner(wanted, seen, Uids())
        return Plan(Uids(records=records.uids), tuple(records.detach()))
    uids = shared_uids(wanted, seen)
    steps = [*_folder(wanted, uids), *_application(wanted, uids), *_grant(wanted, seen, uids)]
    steps += _gateway(wanted, seen, uids)
    steps += _config(wanted, seen, uids)
    records = RecordPlanner(wanted, seen, uids)
    records.check()
    steps += records.steps()
    return Plan(Uids(uids.folder, uids.application, uids.gateway, uids.config, records.uids), tuple(steps))


def shared_uids(wanted: Wanted, seen: Seen) -> Uids:
    """Return the uids of what the records share, by name or uid. Raises BadInput where a name is not enough."""
    configs = {uid: one.title for uid, one in seen.records.items() if one.type.endswith("Configuration")}
    return Uids(
        _only("shared folder", wanted.folder, seen.folders),
        _only("Secrets Manager application", wanted.application, seen.applications),
        _only("Gateway", wanted.gateway, {one.uid: one.name for one in seen.gateways}),
        _only("PAM configuration", wanted.config.title, configs),
    )


def _only(what: str, name: str, known: Mapping[str, str]) -> str:
    """Return the uid of the thing of this name, or with this uid; empty where there is none."""
    if name in known:
        return name
    found = [uid for uid, title in known.items() if title == name]
    if len(found) > 1:
        raise BadInput(
            f"several {what}s have the name {name}", ", ".join(found), "rename all but one, or give the uid of the one"
        )
    return found[0] if found else ""


def _folder(wanted: Wanted, uids: Uids) -> list[Step]:
    if uids.folder:
        return []
    return [Step("folder", wanted.folder, FOLDERS, f"shared folder {wanted.folder}", value=wanted.folder)]


def _application(wanted: Wanted, uids: Uids) -> list[Step]:
    if uids.application:
        return []
    what = f"Secrets Manager application {wanted.application}"
    return [Step("application", wanted.application, FOLDERS, what, value=wanted.application)]


def _grant(wanted: Wanted, seen: Seen, uids: Uids) -> list[Step]:
    if seen.grants.get(uids.folder):
        return []
    there = uids.folder in seen.grants
    what = f"{wanted.folder} is shared to {wanted.application}"
    return [
        Step(
            "grant",
            wanted.folder,
            SHARES,
            f"{what}, may edit",
            f"{what}, read-only" if there else "",
            value=(uids.application, uids.folder, there),
        )
    ]


def _gateway(wanted: Wanted, seen: Seen, uids: Uids) -> list[Step]:
    found = next((one for one in seen.gateways if one.uid == uids.gateway), None)
    if found is not None and found.application != uids.application:
        owner = seen.applications.get(found.application, "one that you cannot see")
        raise BadInput(
            f"the Gateway {wanted.gateway} belongs to another Secrets Manager application",
            owner,
            "name that application, or another Gateway",
        )
    if found is not None:
        if not seen.keys.unbound or seen.keys.client not in seen.clients:
            return []
        what = f"configuration of the Gateway {wanted.gateway} in {wanted.keys_file}"
        return [Step("gateway", wanted.gateway, SHARES, what, value=(uids.application, True))]
    if not wanted.keys_file:
        raise BadInput(
            f"there is no Gateway {wanted.gateway}",
            "Keeper lists a Gateway once it has been started",
            "install it, or set gateway_config_file, where the configuration of a new one is to be kept",
        )
    if seen.keys.problem:
        raise BadInput(f"the configuration of a new Gateway cannot be kept in {wanted.keys_file}", seen.keys.problem)
    if "gateways" in seen.forbidden:
        raise Refused(
            f"the Gateway {wanted.gateway} cannot be made",
            "the rules of your role do not let you manage Gateways",
            "ask for the permission allow_pam_gateway",
        )
    what = f"Gateway {wanted.gateway}, its configuration in {wanted.keys_file}"
    announced = seen.keys.unbound and seen.keys.client in seen.clients
    return [Step("gateway", wanted.gateway, SHARES, what, value=(uids.application, announced))]


def _config(wanted: Wanted, seen: Seen, uids: Uids) -> list[Step]:
    config, title = seen.records.get(uids.config), wanted.config.title
    if config is None:
        return _new_config(wanted, uids)
    resource = pam_resource(config)
    gateway = str(resource.get("controllerUid") or "")
    others = {one for one in (gateway, seen.controller) if one and one != uids.gateway}
    if others:
        names = [one.name for one in seen.gateways if one.uid in others] or sorted(others)
        _differs(title, f"it belongs to another Gateway, {names[0]}")
    if resource.get("folderUid") not in (None, "", uids.folder):
        folder = resource["folderUid"]
        _differs(title, f"it belongs to another folder, {seen.folders.get(folder, folder)}")
    if wanted.config.environment and config.type != CONFIG_TYPES[wanted.config.environment]:
        _differs(title, f"it is of type {config.type}")
    for label in _COMPARED:
        if wanted.config.values.get(label) and _value(config.data, label) not in ("", wanted.config.values[label]):
            _differs(title, f"its {label} is another")
    if seen.allowed is False:
        raise Refused(
            f"rotation is switched off in the PAM configuration {title}",
            "it would be switched on for everything in it",
            "switch it on in the vault",
        )
    steps = []
    if uids.folder not in config.folders:
        what = f"PAM configuration {title} in {wanted.folder}"
        steps.append(Step("config place", title, CONFIGS, what, value=(uids.config, uids.folder)))
    if gateway != uids.gateway or not gateway:
        what = f"PAM configuration {title} names the Gateway {wanted.gateway}"
        steps.append(Step("config gateway", title, CONFIGS, what, value=(uids.config, uids.gateway, uids.folder)))
    if seen.controller != uids.gateway or not seen.controller:
        what = f"PAM configuration {title} is run by the Gateway {wanted.gateway}"
        steps.append(Step("config controller", title, CONFIGS, what, value=(uids.config, uids.gateway)))
    if not seen.graph:
        what = f"rotation is switched on in the PAM configuration {title}"
        steps.append(Step("config rotation", title, CONFIGS, what, value=uids.config))
    return steps


def _new_config(wanted: Wanted, uids: Uids) -> list[Step]:
    config = wanted.config
    if not config.environment:
        raise BadInput(
            f"there is no PAM configuration {config.title}",
            todo="correct the title, or give its environment",
        )
    missing = [label for label in REQUIRED if config.environment == "azure" and not config.values.get(label)]
    if missing:
        names = " and ".join(label.replace("Id", "_id") for label in missing)
        raise BadInput(
            f"the PAM configuration {config.title} cannot be made without {names}",
            "Keeper requires them for the environment azure",
            "give them: az account show prints both",
        )
    value = (config, CONFIG_TYPES[config.environment], uids.gateway, uids.folder)
    return [Step("config", config.title, CONFIGS, f"PAM configuration {config.title}", value=value)]


def _value(data: Mapping[str, Any], label: str) -> str:
    """Return the value of a field of a PAM configuration, under whichever of its labels."""
    return next(filter(None, (value_of(data, name) for name in (label, *_ALIASES.get(label, ())))), "")


def _differs(title: str, why: str) -> NoReturn:
    raise BadInput(
        f"the PAM configuration {title} is not the one that is wanted",
        why,
        "change it in the vault, or name another title",
    )
