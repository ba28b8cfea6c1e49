#!/usr/bin/python
# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Every Python that a supported ansible-core may hand this file to must be able to read it: see _python.py.

DOCUMENTATION = r"""
module: app_record
short_description: Give a Keeper record the fields that the rotation of an Entra application needs
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - Ensures that a PAM User record has the custom fields by which M(keeperpam.azure.app_secret) and the PAM Script find
    an application, each with its right type. What is not named here stays as it is.
  - The fields C(client_secret), C(client_secret_id) and C(expires), which the rotation writes, are made where they are
    missing.
options:
  record:
    description: The uid of the PAM User record.
    type: str
    required: true
    aliases: [uid]
  application_object_id:
    description: The object id or the client id of the application.
    type: str
    required: true
  client_secret:
    description:
      - The application's present secret. It is only written where the record has none.
      - A record of an application that is yet to be rotated for the first time needs none, unless it is the admin
        application's own.
    type: str
  client_secret_id:
    description: The key id of O(client_secret). It is only written where the record has none.
    type: str
  expires:
    description: When O(client_secret) ends. It is only written where the record has none.
    type: str
  tenant_id:
    description: The tenant, for the record of an admin application.
    type: str
  application_client_id:
    description: The client id of the admin application, for its own record.
    type: str
  lifetime_days:
    description: As the option of M(keeperpam.azure.app_secret), for the PAM Script.
    type: int
  keep_previous:
    description: As the option of M(keeperpam.azure.app_secret), for the PAM Script.
    type: int
  retire:
    description: As the option of M(keeperpam.azure.app_secret), for the PAM Script.
    type: str
    choices: [all, managed, none]
  retire_after:
    description:
      - As the option of M(keeperpam.azure.app_secret), for the PAM Script.
      - A warning says what it means for an application that holds two secrets at the most.
    type: str
  adopt:
    description: As the option of M(keeperpam.azure.app_secret), for the PAM Script.
    type: list
    elements: str
  verify:
    description: As the option of M(keeperpam.azure.app_secret), for the PAM Script.
    type: bool
  verify_timeout:
    description: As the option of M(keeperpam.azure.app_secret), for the PAM Script.
    type: int
extends_documentation_fragment:
  - keeperpam.azure._attributes
  - keeperpam.azure._keeper
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows whether the secret is set, never its value.
  idempotent:
    support: full
notes:
  - The record must be there. The playbook C(keeperpam.azure.attach_pam_script) makes it with Commander, and
    C(playbooks/files) has templates for Keeper's import.
seealso:
  - module: keeperpam.azure.pam_script
  - module: keeperpam.azure.app_secret
"""

EXAMPLES = r"""
- name: Prepare the record of an application
  keeperpam.azure.app_record:
    record: "{{ billing_record_uid }}"
    application_object_id: ec64d6ec-23f2-4391-ac66-58e4b52472f2
    lifetime_days: 180
    keeper_config_file: /etc/keeper/ksm-config.json

- name: Prepare the record of the admin application
  keeperpam.azure.app_record:
    record: "{{ rotator_record_uid }}"
    application_object_id: "{{ rotator_object_id }}"
    application_client_id: "{{ rotator_client_id }}"
    tenant_id: "{{ tenant_id }}"
    client_secret: "{{ rotator_secret }}"
    keeper_config_file: /etc/keeper/ksm-config.json
"""

RETURN = r"""
msg:
  description: What happened, in one line; of a failure also why, and what to do next.
  type: str
  returned: always
  sample: billing-api has the fields.
status:
  description:
    - How it ended. V(planned) is what check mode says of a change that would be made.
    - V(changed) and V(unchanged) are complete; V(bad_input) and V(refused) have changed nothing.
  type: str
  returned: always
  sample: changed
record:
  description: The uid of the record.
  type: str
  returned: success
  sample: ZmpJl4qCXJEi0ohFKzzQaA
steps:
  description: What was done, step by step.
  type: list
  elements: str
  returned: always
  sample: ["saving the record"]
"""

from ..module_utils._python import require_python

OPTIONS = {
    "record": {"type": "str", "required": True, "aliases": ["uid"]},
    "application_object_id": {"type": "str", "required": True},
    "client_secret": {"type": "str", "no_log": True},
    "client_secret_id": {"type": "str", "no_log": False},
    "expires": {"type": "str"},
    "tenant_id": {"type": "str"},
    "application_client_id": {"type": "str"},
    "lifetime_days": {"type": "int"},
    "keep_previous": {"type": "int"},
    "retire": {"type": "str", "choices": ["all", "managed", "none"]},
    "retire_after": {"type": "str"},
    "adopt": {"type": "list", "elements": "str"},
    "verify": {"type": "bool"},
    "verify_timeout": {"type": "int"},
}


def main():  # type: () -> None
    require_python()
    from ..module_utils._app_record import run

    run(OPTIONS)


if __name__ == "__main__":
    main()
