# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: app_records
short_description: The Keeper records of Entra ID applications as hosts
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - Makes a host of each PAM User record with an C(application_object_id) that the Keeper Secrets Manager application
    sees, and puts it into the group that says how its secret stands.
  - All records are read in one request, the names of folders in another. Nothing is asked of Entra, and nothing is
    changed.
  - The groups C(expired), C(expiring), C(healthy), C(never_rotated) and C(broken) are always there, and each host is in
    one of them. C(broken) are records whose rotation would be refused, or whose C(expires) cannot be read; each is
    named in a warning. So is a record that cannot be decrypted, which is no host.
  - The groups of O(groups) are always there as well; those of O(keyed_groups) are where they have a host.
  - A secret is in no variable, no cache and no message.
  - The variables of a host are C(keeper_record) (its uid), C(keeper_title), C(keeper_folder) (its path),
    C(keeper_folder_uid), C(keeper_state) (the group), C(keeper_days_left), C(keeper_problem) (of a broken one), and
    what the record holds of C(keeper_application_object_id), C(keeper_application_client_id),
    C(keeper_client_secret_id), C(keeper_expires), C(keeper_lifetime_days), C(keeper_keep_previous),
    C(keeper_retire), C(keeper_retire_after), C(keeper_adopt), C(keeper_verify) and C(keeper_verify_timeout).
  - With O(cache), what was read is kept. Days and groups are computed anew each time.
  - The name of the file must end in C(app_records.yml) or C(app_records.yaml).
extends_documentation_fragment:
  - keeperpam.azure._keeper.plugins
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices:
      - keeperpam.azure.app_records
  folders:
    description:
      - The folders whose records count, with all that is below them, each by its uid, its path as in
        C(PAM Users/Billing), or a part of it. Without it, all records count.
      - A folder that is not there is an error.
    type: list
    elements: str
    default: []
  min_days_left:
    description:
      - With less than so many days left, a secret is C(expiring).
      - Give O(keeperpam.azure.app_secret#module:min_days_left) the same number.
    type: int
    default: 30
  hostnames:
    description:
      - How a host is called, in order of preference. Each is a variable of the host, or an expression over them, and
        the first that gives a text is taken.
      - What is no letter, digit, C(.), C(-) or C(_) becomes C(_).
      - A name that several records, a group or the local host have is not taken; such a host is called by its uid.
    type: list
    elements: str
    default:
      - keeper_record
notes:
  - Where the Keeper configuration is not set here, each job reads it from the environment, as the modules do.
seealso:
  - module: keeperpam.azure.app_secret
"""

EXAMPLES = r"""
---
# all.app_records.yml: everything, with the Keeper configuration of KSM_CONFIG or KSM_CONFIG_FILE.
plugin: keeperpam.azure.app_records

---
# billing.app_records.yml
plugin: keeperpam.azure.app_records
keeper_config_file: /etc/keeper/ksm-config.json
folders:
  - PAM Users/Billing
min_days_left: 14
# Hosts are called as the records, for people.
hostnames:
  - keeper_title
groups:
  urgent: keeper_days_left is defined and keeper_days_left < 3
keyed_groups:
  - key: keeper_folder
    prefix: folder
# For tasks and ad-hoc commands on these hosts.
compose:
  ansible_connection: "'local'"
  ansible_python_interpreter: ansible_playbook_python
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: /var/cache/ansible/keeper
cache_timeout: 600
"""

import json
import os
import re
from collections import Counter
from datetime import datetime, timezone
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ..module_utils._core.base.errors import BadInput, RotationError, Stopped
from ..module_utils._core.base.redact import Log, scrub
from ..module_utils._core.base.timing import Budget
from ..module_utils._core.fleet.hosts import FORM, STATES, entries_of, paths_of, variables_of, within
from ..module_utils._core.script.pam_script import missing_libraries
from ..module_utils._core.services.http import Http
from ..module_utils._core.services.vault import Vault, undecipherable
from ..module_utils._module import keeper_configuration
from ..plugin_utils._unsafe import untrusted

# Seconds: Keeper may ask twice to be left alone for a while.
_READING = 120.0
_NOT_IN_NAMES = re.compile(r"[^\w.-]")
_TAKEN = ("all", "ungrouped", "localhost", "127.0.0.1")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """A host for each record of an application."""

    NAME = "keeperpam.azure.app_records"

    def verify_file(self, path: str) -> bool:
        """Whether the file is one for this plugin, by its name."""
        return super().verify_file(path) and path.endswith(("app_records.yml", "app_records.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Put the hosts into the inventory."""
        super().parse(inventory, loader, path, cache)
        self._into: Any = inventory
        self._read_config_data(path)
        try:
            known = self._known(path, cache)
            entries = within(known["entries"], known["folders"], self.get_option("folders"))
        except RotationError as problem:
            raise AnsibleParserError(scrub(problem.message)) from None
        except Stopped as stop:
            raise AnsibleParserError(f"the records were not read: {stop}. Next: run it again.") from None
        for text in known["warnings"]:
            self.display.warning(text)
        for name in (*STATES, *(self.get_option("groups") or ())):
            self._into.add_group(self._sanitize_group_name(name))
        now = datetime.now(timezone.utc)
        facts = [untrusted(variables_of(one, now, self.get_option("min_days_left"))) for one in entries]
        for name, variables in zip(self._names(facts), facts):
            self._add(name, variables)

    def _add(self, name: str, variables: dict[str, Any]) -> None:
        strict = self.get_option("strict")
        self._into.add_host(name, group=str(variables["keeper_state"]))
        for key, value in variables.items():
            self._into.set_variable(name, key, value)
        self._set_composite_vars(self.get_option("compose"), variables, name, strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict)
        if "keeper_problem" in variables:
            title, uid = variables["keeper_title"], variables["keeper_record"]
            self.display.warning(f"the record {title!r} ({uid}) cannot be used as it is: {variables['keeper_problem']}")

    def _names(self, facts: list[dict[str, Any]]) -> list[str]:
        names = [self._name(variables) for variables in facts]
        counts = Counter(names)
        taken = {*_TAKEN, *self._into.groups}
        found = []
        for name, variables in zip(names, facts):
            uid = str(variables["keeper_record"])
            if name != uid and (not name or name in taken or counts[name] > 1):
                self.display.warning(
                    f"the record {variables['keeper_title']!r} is called {uid}: its name is taken or empty"
                )
                name = uid
            found.append(name)
        return found

    def _name(self, variables: dict[str, Any]) -> str:
        for wanted in self.get_option("hostnames"):
            try:
                value = variables[wanted] if wanted in variables else self._compose(wanted, variables)
            except Exception as problem:  # whatever a template may raise
                if self.get_option("strict"):
                    raise AnsibleParserError(f"the host name {wanted!r} cannot be computed: {problem}") from None
                continue
            if value not in (None, ""):
                return _NOT_IN_NAMES.sub("_", str(value))
        return ""

    def _known(self, path: str, cache: bool) -> dict[str, Any]:
        """Return what was read: entries, the paths of folders by uid, and warnings about what could not be read."""
        key = self.get_cache_key(path)
        kept = self.get_option("cache")
        if kept and cache:
            try:
                known = self._cache[key]
                if known["form"] == FORM:
                    return known
            except (KeyError, TypeError):
                pass  # never kept, outdated, or by another version
        known = self._read()
        if kept:
            self._cache[key] = known
        return known

    def _read(self) -> dict[str, Any]:
        missing = missing_libraries()
        if missing:
            names = " ".join(missing)
            raise BadInput(
                f"Python packages are missing: {names}", "", f"install them into the Python of Ansible: {names}"
            )
        options = {"keeper_config": self._text("keeper_config"), "keeper_config_file": self._text("keeper_config_file")}
        if options["keeper_config"] and options["keeper_config_file"]:
            raise BadInput("keeper_config and keeper_config_file are both set", todo="leave one of the two")
        budget, log = Budget(), Log(self.display.vvv)
        with budget.phase("read the records", _READING):
            vault = Vault(keeper_configuration(options, os.environ), Http(budget, log), budget, log)
            records, lost = vault.find([])
            folders = vault.folders()
        warnings = [undecipherable(uid).message for uid in lost]
        entries = entries_of(records.values(), folders)
        return {"form": FORM, "entries": entries, "folders": paths_of(folders), "warnings": warnings}

    def _text(self, option: str) -> str:
        """Return an option as text, whether it was given as such, as a mapping, as a template or encrypted."""
        value = self.get_option(option)
        if isinstance(value, str) and self.templar.is_template(value):
            self.templar.available_variables = self._vars or {}
            value = self.templar.template(value)
        if isinstance(value, dict):
            return json.dumps(value, default=str)
        return "" if value is None else str(value)
