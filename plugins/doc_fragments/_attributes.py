# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This doc fragment is PRIVATE to the keeperpam.azure collection. It may change at any time.

from __future__ import annotations


class ModuleDocFragment:
    # What every module of the collection says about itself.
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)) in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled/queried by the module has not changed in a relevant way.
  action_group:
    description: Use C(group/keeperpam.azure.azure) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - keeperpam.azure.azure
notes:
  - An option that is empty or null counts as not given, as AWX passes the optional answers of a survey that were left
    empty.
  - Secrets are in no result, and of the arguments only what is plainly no secret. Set C(ansible_pipelining) to V(true)
    for the play, as the playbooks of this collection do. Without it, Ansible writes the arguments of a task to a file,
    which stays when the run is killed.
"""
