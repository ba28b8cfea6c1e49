# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This doc fragment is PRIVATE to the keeperpam.azure collection. It may change at any time.

from __future__ import annotations


class ModuleDocFragment:
    # Access to Keeper Secrets Manager. Corresponds to KEEPER_OPTIONS in plugins/module_utils/_module.py
    DOCUMENTATION = r"""
options:
  keeper_config:
    description:
      - The client configuration of a Keeper Secrets Manager device, as a mapping, as JSON or as base64 of it.
      - Give it by a variable, a file or a lookup. What is written literally in a task, Ansible itself may print - from
        ansible-core 2.19 on the lines of a task that fails, and with C(-vvvv) the arguments of its command line.
      - The device must have been initialised. A one-time token is not accepted.
      - Without it and O(keeper_config_file), the environment variables E(KSM_CONFIG) and E(KSM_CONFIG_FILE) are used,
        in this order.
    type: jsonarg
  keeper_config_file:
    description:
      - The path of a file with what O(keeper_config) would hold, on the host that runs the module.
      - The file is read once and never written.
    type: path
requirements:
  - keeper-secrets-manager-core >= 17.3.0
"""

    # The same for plugins, which run on the controller.
    PLUGINS = r"""
options:
  keeper_config:
    description:
      - The client configuration of a Keeper Secrets Manager device, as a mapping, as JSON or as base64 of it.
      - It may be a template, as one with a lookup, or encrypted with Ansible Vault.
      - The device must have been initialised. A one-time token is not accepted.
      - Without it and O(keeper_config_file), the environment variables E(KSM_CONFIG) and E(KSM_CONFIG_FILE) are used,
        in this order.
    type: raw
  keeper_config_file:
    description:
      - The path of a file with what O(keeper_config) would hold. It may be a template.
      - The file is read once and never written.
    type: str
requirements:
  - keeper-secrets-manager-core >= 17.3.0
"""
