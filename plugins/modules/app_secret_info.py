#!/usr/bin/python
# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Every Python that a supported ansible-core may hand this file to must be able to read it: see _python.py.

DOCUMENTATION = r"""
module: app_secret_info
short_description: Survey the credentials of Entra applications and the Keeper records that hold them
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - Lists the client secrets and certificates of Microsoft Entra ID (Azure AD) applications, joined with the Keeper
    records that publish them, and says of each what it is, when it ends, and what to do about it.
  - It changes nothing, and reads in few requests. A thousand applications take about five requests to Graph and one to
    Keeper; O(owners) and O(service_principals) add some fifty each.
  - What cannot be read in full is named in RV(sources) and RV(problems), and is no failure as long as one side was
    read.
  - Where the admin application may not list all applications, and records name more than 100, their certificates are
    not read.
  - What a rotation would make of a secret is asked of the rotation's own code.
options:
  records:
    description:
      - The uids of Keeper records. The applications that they name are looked at.
      - Without it, all records that the Keeper Secrets Manager application sees and all applications that the admin
        application may read.
    type: list
    elements: str
  min_days_left:
    description: A credential with fewer days left is expiring.
    type: int
    default: 30
  max_age_days:
    description: A credential that was made more days ago is too old.
    type: int
    default: 365
  owners:
    description:
      - Whether to read who owns the applications, one more request to Graph for each 20 of them.
      - The names of users are shown only where the admin application may read users, else their object ids.
    type: bool
    default: false
  service_principals:
    description:
      - Whether to read the secrets that the applications' service principals hold, too, one more request to Graph for
        each 20 applications.
      - They sign in like those of the application. No rotation of this collection touches them.
    type: bool
    default: false
  limit:
    description:
      - The number of credentials in the result. What is left out is at the end, where nothing is urgent, and
        RV(left_out) counts it.
      - A thousand credentials take about 500 kB.
    type: int
    default: 1000
extends_documentation_fragment:
  - keeperpam.azure._attributes
  - keeperpam.azure._keeper
  - keeperpam.azure._entra
attributes:
  check_mode:
    support: full
    details:
      - It never changes anything.
  diff_mode:
    support: N/A
  idempotent:
    support: N/A
notes:
  - A survey is one look. What was made or removed within the last minutes may not show yet.
  - The admin application needs C(Application.ReadWrite.OwnedBy) or C(Application.Read.All). In older tenants, the
    former does not list all applications. Those that the records name are read then.
seealso:
  - module: keeperpam.azure.app_secret
"""

EXAMPLES = r"""
- name: Look at all applications
  keeperpam.azure.app_secret_info:
    pam_config: "{{ pam_configuration_uid }}"
    keeper_config_file: /etc/keeper/ksm-config.json
  register: survey

- name: Show what fails by now or will soon
  ansible.builtin.debug:
    msg: "{{ item.application }}: {{ item.todo }}"
  loop: "{{ survey.credentials | selectattr('bucket', 'in', ['critical', 'expiring']) }}"
  loop_control:
    label: "{{ item.key_id }}"

- name: Look at the applications of two records, and at who owns them
  keeperpam.azure.app_secret_info:
    records:
      - ZmpJl4qCXJEi0ohFKzzQaA
      - DpR8i4oUY7LfnmYeumxFaw
    owners: true
    admin_record: "{{ rotator_record_uid }}"
    keeper_config: "{{ ksm_config }}"
"""

RETURN = r"""
status:
  description: V(unchanged), or how it failed; V(bad_input) and V(refused) say of it the same as of a rotation.
  type: str
  returned: always
  sample: unchanged
msg:
  description: How many credentials are in which bucket, and what was not read in full.
  type: str
  returned: always
  sample: "1012 credentials: 2 critical, 5 expiring, 30 attention, 975 healthy"
credentials:
  description:
    - The credentials, that of the admin application first, then the worst first.
    - No part of a secret is in it.
  type: list
  elements: dict
  returned: success
  contains:
    application:
      description: The display name of the application. Empty where it was not found.
      type: str
      sample: billing-api
    client_id:
      description: Its application (client) id.
      type: str
      sample: ebfbb457-8935-4c3f-802b-d6a2d24478de
    object_id:
      description: Its object id. Where it was not found, the id that the record names.
      type: str
      sample: ec64d6ec-23f2-4391-ac66-58e4b52472f2
    bucket:
      description:
        - How urgent it is, from V(critical), which fails by now, to V(healthy).
        - V(critical) is a secret that a record shows and that has expired, is not in Entra, or is not what it holds,
          and an admin application that does not sign in; V(expiring) is what ends within O(min_days_left) with nothing
          in its place; V(attention) is what somebody should look at.
      type: str
      sample: expiring
    state:
      description:
        - V(current) is shown by a record; V(previous) was made for a record that shows another one by now, and goes at
          RV(credentials[].until); V(orphan) was left by a run that did not publish it.
        - V(other_record) was made for a record that does not show it; V(foreign) was made by somebody else for an
          application that a record publishes; V(unknown) is of an application that no record names.
        - V(missing) is shown by a record and not in Entra; V(empty) is a record that shows nothing; V(unverified) could
          not be compared, as one of the two sides was not read.
        - V(admin) is what the rotations sign in with; V(certificate) is a certificate.
      type: str
      sample: current
    flags:
      description:
        - V(expired), V(expiring), V(successor) (another one goes on when it ends), V(over_age), V(several_records)
          (name the application), V(due) (the next run removes it), V(no_sign_in), and
          V(other_value) (the record that names it holds a value that is not its own).
      type: list
      elements: str
      sample: [expiring]
    kind:
      description: V(secret) or V(certificate); of the admin application also V(managed_identity) or V(token).
      type: str
      sample: secret
    of:
      description: V(application) or V(service_principal).
      type: str
      sample: application
    key_id:
      description: Its key id.
      type: str
      sample: f0b0b335-1d71-4883-8f98-567911bfdca6
    name:
      description: Its display name.
      type: str
      sample: keeper/ZmpJl4qCXJEi0ohFKzzQaA/4c1a3c2f0b0e4c58a6e1f7f0b3c9d2aa
    start:
      description: From when on it is valid (UTC, ISO 8601).
      type: str
      sample: "2026-09-09T19:50:29Z"
    end:
      description: When it ends, as Entra says it, or where Entra does not, as the record does.
      type: str
      sample: "2027-09-09T19:50:29.3086381Z"
    days_left:
      description: The number of whole days to its end, negative when it is over. Null where its end is not known.
      type: int
      sample: 19
    records:
      description: The records that show it, or that it was made for.
      type: list
      elements: dict
      contains:
        uid:
          description: The uid of the record.
          type: str
          sample: ZmpJl4qCXJEi0ohFKzzQaA
        title:
          description: Its title.
          type: str
          sample: billing-api
    until:
      description: The time from which on a run removes it. Empty where none would.
      type: str
      sample: "2026-09-10T19:50:29Z"
    reason:
      description: Why it is what it is, where that needs saying.
      type: str
      sample: keep_previous
    todo:
      description: The next step. Empty where none is needed.
      type: str
      sample: rotate the record
    owners:
      description: Who owns the application.
      type: list
      elements: str
      returned: when O(owners=true) and they were read
      sample: [Pat Example]
left_out:
  description: How many credentials exceed O(limit).
  type: int
  returned: success
  sample: 0
worst:
  description: The worst bucket of all credentials.
  type: str
  returned: success
  sample: critical
buckets:
  description: The number of credentials, by bucket.
  type: dict
  returned: success
  sample: {critical: 2, expiring: 5, attention: 30, healthy: 975}
states:
  description: The number of credentials, by state.
  type: dict
  returned: success
  sample: {current: 1000, previous: 12}
applications:
  description: The number of applications with credentials.
  type: int
  returned: success
  sample: 1000
records:
  description: The number of records that name applications.
  type: int
  returned: success
  sample: 990
problems:
  description: Records that could not be used, and why.
  type: list
  elements: dict
  returned: success
  contains:
    record:
      description: The uid of the record.
      type: str
      sample: ZmpJl4qCXJEi0ohFKzzQaA
    title:
      description: Its title.
      type: str
      sample: billing-api
    problem:
      description: What is wrong, and the next step.
      type: str
      sample: application_object_id of the record ZmpJl4qCXJEi0ohFKzzQaA is no GUID.
sources:
  description: What was read, and whether in full.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: V(keeper), V(applications), V(owners) or V(service_principals).
      type: str
      sample: applications
    up:
      description: Whether it was read in full.
      type: bool
      sample: true
    problem:
      description: Why it was not.
      type: str
      sample: ""
read_at:
  description: When the applications were read, by Graph's clock (UTC, ISO 8601).
  type: str
  returned: success
  sample: "2026-11-25T14:00:00Z"
portal:
  description: The address of the portal of the cloud that the applications are in.
  type: str
  returned: success
  sample: https://portal.azure.com
vault:
  description: The address of the vault that the records lie in.
  type: str
  returned: success
  sample: https://keepersecurity.com
steps:
  description: What was done, step by step.
  type: list
  elements: str
  returned: always
  sample: ["admin identity ebfbb457-8935-4c3f-802b-d6a2d24478de (with a client secret)"]
"""

from ..module_utils._python import require_python

OPTIONS = {
    "records": {"type": "list", "elements": "str"},
    "min_days_left": {"type": "int", "default": 30},
    "max_age_days": {"type": "int", "default": 365},
    "owners": {"type": "bool", "default": False},
    "service_principals": {"type": "bool", "default": False},
    "limit": {"type": "int", "default": 1000},
}


def main():  # type: () -> None
    require_python()
    from ..module_utils._app_secret_info import run

    run(OPTIONS)


if __name__ == "__main__":
    main()
