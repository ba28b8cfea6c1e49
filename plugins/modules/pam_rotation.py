#!/usr/bin/python
# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Every Python that a supported ansible-core may hand this file to must be able to read it: see _python.py.

DOCUMENTATION = r"""
module: pam_rotation
short_description: Set up the rotation of Entra applications in Keeper, with Keeper Commander
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - Ensures everything in the vault that the rotation of an application by a PAM Script needs. A shared folder, a
    Secrets Manager application that may edit it, a Gateway, a PAM configuration that the Gateway runs, and for each
    application a PAM User record with its fields, the rotation method "Run PAM scripts only" with a schedule, and the
    script with its command and credentials.
  - Does it in one session of Keeper Commander, whatever the number of records. Looks first, refuses what cannot work
    before anything is made, changes only what differs, and believes only what it reads back.
  - An interrupted run is completed by the next one.
options:
  state:
    description:
      - Whether the rotation is set up.
      - With V(absent), the script is detached from the records, and all else stays.
    type: str
    choices: [present, absent]
    default: present
  records:
    description: The PAM User records, one for each application.
    type: list
    elements: dict
    required: true
    suboptions:
      uid:
        description: The uid of the record. Without it, it is found by O(records[].title).
        type: str
      title:
        description: The title of the record. Where no PAM User has it, the record is made.
        type: str
      application_object_id:
        description: The object id or the client id of the application. Required where the record does not have it.
        type: str
      login:
        description: Free text, for a record that is made. The title without it.
        type: str
      client_secret:
        description: The present secret, for an admin application that rotates itself. Only written where there is none.
        type: str
      client_secret_id:
        description: The key id of O(records[].client_secret). Only written where there is none.
        type: str
      expires:
        description: When O(records[].client_secret) ends. Only written where there is none.
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
        description: As the option of M(keeperpam.azure.app_secret), for the PAM Script.
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
  script:
    description: The path of the script, on the host that runs the module. With O(state=absent) its file name counts.
    type: path
    required: true
  script_command:
    description:
      - The script command, such as the path of the Python that runs the script on the Gateway's host.
      - Without it, the command of a script that is attached stays as it is.
    type: str
  credentials:
    description:
      - The uids of the records that the Gateway passes to the script ("Rotation Credential"). The admin application's
        record, where the PAM configuration does not hold its credential.
      - Without it, those of a script that is attached stay as they are.
    type: list
    elements: str
  schedule:
    description:
      - V(on-demand), or six fields of cron with seconds, in UTC, as in V(0 0 4 * * ?).
      - Or V(daily), V(weekly) or V(monthly). Then each record gets a time of its own, by a hash of its uid, so that a
        Gateway has 60 rotations in an hour at the most. A record that is rotated as often already keeps its time.
      - Without it, a schedule that is there stays, and a new rotation is on demand.
    type: str
  folder:
    description: The name, or the uid, of the shared folder. Required with O(state=present).
    type: str
  application:
    description:
      - The name, or the uid, of the Secrets Manager application to which the Gateway belongs. Required with
        O(state=present).
    type: str
  gateway:
    description: The name, or the uid, of the Gateway. Required with O(state=present).
    type: str
  gateway_config_file:
    description:
      - Where the configuration of a new Gateway is kept, on the host that runs the module. It cannot be had again.
      - The file must not be there. It is written with mode V(0600), before the Gateway is made, as base64.
      - Without it, a Gateway that is not there is an error.
    type: path
  pam_config:
    description: The PAM configuration. Required with O(state=present).
    type: dict
    suboptions:
      title:
        description: Its title, or its uid.
        type: str
        required: true
      environment:
        description: What it is made for, where no PAM configuration has the title. Required then.
        type: str
        choices: [azure, local]
      tenant_id:
        description: For V(azure). Required for a new one.
        type: str
      subscription_id:
        description: For V(azure). Required for a new one.
        type: str
      azure_id:
        description: A name for the Entra tenant, for V(azure). The title without it.
        type: str
      client_id:
        description:
          - The admin application, for V(azure). Without it and O(pam_config.client_secret), the Gateway signs in with
            its managed identity.
        type: str
      client_secret:
        description: The admin application's secret, for V(azure). Only used for a new PAM configuration.
        type: str
      resource_groups:
        description: For V(azure).
        type: list
        elements: str
      network_id:
        description: A name for the network, for V(local). The title without it.
        type: str
      network_cidr:
        description: For V(local).
        type: str
  commander_config:
    description:
      - The path of Commander's configuration file, with persistent login, on the host that runs the module.
      - Without it, the environment variable E(KEEPER_CONFIG_FILE) counts, and then Commander's own default.
    type: path
  keeper_command:
    description:
      - The command C(keeper), by which Commander's Python is found where the module does not run under it. Looked for
        on the C(PATH) by default.
    type: str
extends_documentation_fragment:
  - keeperpam.azure._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows everything that is made or changed, from the folder to the SHA-256 of the script, and no secret.
  idempotent:
    support: full
requirements:
  - keepercommander >= 18.1.8, logged in with persistent login as the owner of the records
notes:
  - It must run under Commander's own Python. It goes there by itself; where its options are long it cannot, and says
    what to set as C(ansible_python_interpreter). The playbook C(keeperpam.azure.attach_pam_script) does.
  - Commander asks for nothing on the way. Where Keeper wants a person, for a second factor, the master password or the
    approval of the device, the module fails and says so.
  - A file that was attached through Secrets Manager, as by M(keeperpam.azure.pam_script), is replaced.
seealso:
  - module: keeperpam.azure.pam_script
  - module: keeperpam.azure.app_record
  - name: Azure application secrets
    description: Keeper's page on what this sets up.
    link: https://docs.keeper.io/en/keeperpam/privileged-access-manager/password-rotation/rotation-use-cases/azure/azure-app-secret-rotation
"""

EXAMPLES = r"""
- name: Set up the rotation of two applications
  keeperpam.azure.pam_rotation:
    folder: Azure applications
    application: Azure rotation
    gateway: gateway-1
    gateway_config_file: /root/gateway-1.b64
    pam_config:
      title: Azure production
      environment: azure
      tenant_id: 7e1c5f4f-9a0a-4d1c-8a38-2f0f3c4b9d11
      subscription_id: 0b7f6f0a-54f7-4a6f-9d8e-7f1f0a2f5c33
      client_id: 2d0c9d5c-1f0f-4f5e-8c39-5f0a7e6f1b22
      client_secret: "{{ rotator_secret }}"
    records:
      - title: billing-api
        application_object_id: ec64d6ec-23f2-4391-ac66-58e4b52472f2
      - title: orders-worker
        application_object_id: 5f2d6c0b-3b1a-4f6e-9c55-0d4a9a3b7e44
        lifetime_days: 180
    script: /usr/share/keeper/rotate_azure_app.py
    script_command: /opt/keeper-azure-rotation/venv/bin/python3
    schedule: monthly
  vars:
    ansible_python_interpreter: /opt/pipx/venvs/keepercommander/bin/python

- name: Detach the script again
  keeperpam.azure.pam_rotation:
    state: absent
    records:
      - title: billing-api
    script: rotate_azure_app.py
"""

RETURN = r"""
msg:
  description: What happened, in one line; of a failure also why, and what to do next.
  type: str
  returned: always
  sample: The rotation of 2 records is set up.
status:
  description:
    - How it ended. V(planned) is what check mode says of changes that would be made.
    - V(changed) and V(unchanged) are complete; V(bad_input) and V(refused) have changed nothing.
    - With V(incomplete) something was done and stays; the next run completes it.
  type: str
  returned: always
  sample: changed
folder:
  description: The uid of the shared folder. Empty in check mode where it would be made, as with all that follow.
  type: str
  returned: success
  sample: U9ZrGgRdG78LwtfeifCHgw
application:
  description: The uid of the Secrets Manager application.
  type: str
  returned: success
  sample: oV3VrG8PXea5gXUzeEZKUg
gateway:
  description: The uid of the Gateway.
  type: str
  returned: success
  sample: duzMKAuH1wsvlIU6cjIcAQ
pam_config:
  description: The uid of the PAM configuration.
  type: str
  returned: success
  sample: WDrU-RNYulNPc5f6t8chBA
records:
  description: The records, in the order of the option.
  type: list
  elements: dict
  returned: success, and where something was tried
  contains:
    uid:
      description: The uid of the record.
      type: str
      sample: ZmpJl4qCXJEi0ohFKzzQaA
    title:
      description: Its title.
      type: str
      sample: billing-api
    changed:
      description: Whether something of it was, or would be, changed.
      type: bool
      sample: true
    schedule:
      description: Six fields of cron, or V(on-demand). Empty where there is no rotation.
      type: str
      sample: 0 17 3 12 * ?
    problem:
      description: Why it is not as wanted; empty where it is.
      type: str
      sample: ""
steps:
  description: What was done, step by step.
  type: list
  elements: str
  returned: always
  sample: ["logging in to Keeper as admin@example.com", "shared folder Azure applications"]
"""

from ..module_utils._python import require_python

RECORD = {
    "uid": {"type": "str"},
    "title": {"type": "str"},
    "application_object_id": {"type": "str"},
    "login": {"type": "str"},
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
PAM_CONFIG = {
    "title": {"type": "str", "required": True},
    "environment": {"type": "str", "choices": ["azure", "local"]},
    "tenant_id": {"type": "str"},
    "subscription_id": {"type": "str"},
    "azure_id": {"type": "str"},
    "client_id": {"type": "str"},
    "client_secret": {"type": "str", "no_log": True},
    "resource_groups": {"type": "list", "elements": "str"},
    "network_id": {"type": "str"},
    "network_cidr": {"type": "str"},
}
OPTIONS = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "records": {"type": "list", "elements": "dict", "required": True, "options": RECORD},
    "script": {"type": "path", "required": True},
    "script_command": {"type": "str"},
    "credentials": {"type": "list", "elements": "str", "no_log": False},
    "schedule": {"type": "str"},
    "folder": {"type": "str"},
    "application": {"type": "str"},
    "gateway": {"type": "str"},
    "gateway_config_file": {"type": "path"},
    "pam_config": {"type": "dict", "options": PAM_CONFIG},
    "commander_config": {"type": "path"},
    "keeper_command": {"type": "str"},
}


def main():  # type: () -> None
    require_python()
    from ..module_utils._pam_rotation import run

    run(OPTIONS)


if __name__ == "__main__":
    main()
