#!/usr/bin/python
# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Every Python that a supported ansible-core may hand this file to must be able to read it: see _python.py.

DOCUMENTATION = r"""
module: pam_script
short_description: Attach a PAM Script to a Keeper record through Keeper Secrets Manager
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - Attaches a file to a PAM record as a script that the Keeper Gateway runs when the record is rotated, replaces it
    when its content differs (by SHA-256), or detaches it.
  - The scripts of a record keep their order, and those of other names are never touched.
  - An interrupted run leaves no reference to a file that is not there. What it may leave is an attachment that no
    script refers to. Its title carries its SHA-256; by this the next run knows it as its own, and uses or detaches it.
  - Keeper's own tools tell the vault that such a file is a script, so that it can refuse everybody but the record's
    owner. Keeper Secrets Manager cannot say so. The vault may show the file as an ordinary attachment, and may refuse
    it one day. Hence the playbook C(keeperpam.azure.attach_pam_script) uses Commander unless told otherwise.
options:
  record:
    description: The uid of the Keeper record, of type PAM User, PAM Machine, PAM Database or PAM Directory.
    type: str
    required: true
    aliases: [uid]
  state:
    description: Whether the script is attached.
    type: str
    choices: [present, absent]
    default: present
  src:
    description:
      - The path of the script, on the host that runs the module. At most 1 MiB.
      - Without it, with O(state=present), it is this collection's C(rotate_azure_app.py), which is put there for as
        long as the module runs.
    type: path
  name:
    description:
      - The file name under which the script is attached, and by which it is found. Without it, that of O(src).
      - Should several scripts of the record have this name, the first counts and the others are detached.
    type: str
  command:
    description:
      - The script command, such as the path of the Python that runs the script. Where it is empty, the Gateway runs the
        file itself.
      - Without it, the command of a script that is attached stays as it is.
    type: str
  credentials:
    description:
      - The uids of the records that the Gateway passes to the script ("Rotation Credential").
      - Without it, those of a script that is attached stay as they are.
    type: list
    elements: str
extends_documentation_fragment:
  - keeperpam.azure._attributes
  - keeperpam.azure._keeper
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Shows the text of the script, and its command and credentials.
  idempotent:
    support: full
notes:
  - The Keeper configuration must hold the key of the application's owner (C(appOwnerPublicKey)), and the record must be
    shared with edit permission.
  - The rotation method, its schedule and the PAM configuration cannot be set through Keeper Secrets Manager.
seealso:
  - module: keeperpam.azure.app_record
  - name: Attaching scripts
    description: Keeper's page on PAM Scripts.
    link: https://docs.keeper.io/en/keeperpam/privileged-access-manager/password-rotation/post-rotation-scripts
"""

EXAMPLES = r"""
- name: Attach the rotation script of this collection
  keeperpam.azure.pam_script:
    record: "{{ billing_record_uid }}"
    command: /opt/keeper-azure-rotation/venv/bin/python3
    credentials: ["{{ rotator_record_uid }}"]
    keeper_config_file: /etc/keeper/ksm-config.json

- name: Detach it
  keeperpam.azure.pam_script:
    record: "{{ billing_record_uid }}"
    name: rotate_azure_app.py
    state: absent
    keeper_config_file: /etc/keeper/ksm-config.json
"""

RETURN = r"""
msg:
  description: What happened, in one line; of a failure also why, and what to do next.
  type: str
  returned: always
  sample: rotate_azure_app.py is attached to billing-api.
status:
  description:
    - How it ended. V(planned) is what check mode says of a change that would be made.
    - V(changed) and V(unchanged) are complete; V(bad_input) and V(refused) have changed nothing.
    - With V(incomplete) an attachment without use may be left on the record; the next run takes care of it.
  type: str
  returned: always
  sample: changed
record:
  description: The uid of the record.
  type: str
  returned: success
  sample: ZmpJl4qCXJEi0ohFKzzQaA
name:
  description: The file name of the script.
  type: str
  returned: success
  sample: rotate_azure_app.py
sha256:
  description: The SHA-256 of the script. Empty with O(state=absent).
  type: str
  returned: success
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
file_uid:
  description: The uid of the attached file. Empty where there is none, and in check mode where it would be uploaded.
  type: str
  returned: success
  sample: 3Xq5gkYp0sZb1nT7cJx2Vw
command:
  description: The script command.
  type: str
  returned: success
  sample: /opt/keeper-azure-rotation/venv/bin/python3
credentials:
  description: The uids of the records that are passed to the script.
  type: list
  elements: str
  returned: success
  sample: [DpR8i4oUY7LfnmYeumxFaw]
detached:
  description: The uids of the files that were detached, or would be in check mode.
  type: list
  elements: str
  returned: success
  sample: [m2hQb1V9rTqO0KxWc8sLZg]
steps:
  description: What was done, step by step.
  type: list
  elements: str
  returned: always
  sample: ["uploading rotate_azure_app.py", "saving the record"]
"""

from ..module_utils._python import require_python

OPTIONS = {
    "record": {"type": "str", "required": True, "aliases": ["uid"]},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "src": {"type": "path"},
    "name": {"type": "str"},
    "command": {"type": "str"},
    "credentials": {"type": "list", "elements": "str", "no_log": False},
}


def main():  # type: () -> None
    require_python()
    from ..module_utils._pam_script import run

    run(OPTIONS)


if __name__ == "__main__":
    main()
