#!/usr/bin/python
# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Every Python that a supported ansible-core may hand this file to must be able to read it: see _python.py.

DOCUMENTATION = r"""
module: app_secret
short_description: Rotate the client secret of an Entra application and publish it in Keeper
version_added: 0.1.0
author:
  - keeperpam.azure contributors (@keeperpam)
description:
  - Makes a new client secret for a Microsoft Entra ID (Azure AD) application, proves that it signs in, publishes it in
    the application's Keeper record, reads it back, and only then removes the old secrets.
  - At every moment the vault shows a secret that signs in. A rotation that cannot be completed is undone, and what it
    could not undo is named.
  - The record is a PAM User record, or any other, with the custom fields C(application_object_id) (object id or client
    id), C(client_secret_id), C(client_secret) and C(expires). The last three are created where they are missing.
options:
  record:
    description:
      - The uid of the Keeper record that publishes the application's secret.
      - One of O(record) and O(records) is needed.
    type: str
    aliases: [uid]
  records:
    description:
      - The uids of the records of many applications, which are rotated side by side in one process. One that is named
        twice counts once.
      - Each is rotated as with O(record), and none stops or delays another. They are read in one request, and all of
        them together keep to the limits of Keeper and of Microsoft Graph.
      - Where two of them name the same application, both are refused before anything is changed, unless one adopts the
        other, see O(adopt).
      - A record whose secret others sign in with, such as that of O(admin_record), is rotated when the others have
        ended.
    type: list
    elements: str
  application:
    description:
      - The object id or the client id of the application.
      - Without it, the record's field C(application_object_id) counts.
    type: str
  rotate:
    description:
      - With V(always), every run makes a new secret.
      - With V(expiring), only a secret that is about to expire, see O(min_days_left), that Entra does not know, or that
        is missing in the record, is rotated. What an interrupted run has left behind is removed in any case.
    type: str
    choices: [always, expiring]
    default: always
  min_days_left:
    description: The number of days before its end from which a secret is rotated with O(rotate=expiring).
    type: int
    default: 30
  lifetime_days:
    description:
      - The number of days that the new secret is valid.
      - Without it, the record's field of this name counts, else 365.
      - Policies of the tenant may limit it. A value that is too high is refused before anything is changed.
    type: int
  keep_previous:
    description:
      - The number of old secrets that stay, the newest first, for consumers that need time to follow.
      - Without it, the record's field of this name counts, else 0.
    type: int
  retire:
    description:
      - Which old secrets are removed once the new one is published.
      - Without it, the record's field of this name counts, else V(all).
      - V(all) is what Keeper's documentation describes; V(managed) removes only those that were made for this record or
        that the record names; V(none) leaves them to expire.
      - Never removed are secrets that were made after the run began, those that another record or option holds as far
        as this run has read it, and those that were made for another record, see O(adopt). While the record names a
        secret that the application does not list, only those that were made for this record are removed.
      - Always removed is what interrupted runs left and nobody can know.
    type: str
    choices: [all, managed, none]
  retire_after:
    description:
      - How long an old secret goes on signing in after something took its place, V(0) or a number with C(s), C(m), C(h)
        or C(d), up to V(90d).
      - A run waits for what becomes due within two minutes. The rest stays, is named in RV(kept), and is removed by the
        first run after its time. What O(keep_previous) keeps stays besides.
      - With V(0) whatever still uses the old secret fails at once.
      - Without it, the record's field of this name counts, else V(30s).
    type: str
  adopt:
    description:
      - The uids of other records whose secrets count as old ones of this record, as far as those records do not show
        them. Set it where a record takes over from another one, and for records that exist no more.
      - Without it, the record's field of this name counts, else there are none.
    type: list
    elements: str
  verify:
    description:
      - Whether the new secret must sign in before it is published.
      - Set it to V(false) only for applications that cannot sign in from the host that runs the module.
      - Without it, the record's field of this name counts, else V(true).
    type: bool
  verify_timeout:
    description:
      - The number of seconds, 900 at the most, to wait until the new secret signs in.
      - It takes Entra seconds, at times minutes.
      - Without it, the record's field of this name counts, else 120.
    type: int
  concurrency:
    description:
      - With O(records), how many new secrets may be made and not yet published at a time, 64 at the most.
      - It is the number of secrets that are removed again when the run is ended early. For hundreds of records choose
        32 or more.
    type: int
    default: 8
  canary:
    description:
      - With O(records), so many of them are rotated first, in the order in which they are named. The others begin only
        when all of these are complete.
      - With O(rotate=expiring) they are taken from those that need a new secret, as their records say, where there are
        as many. The record that holds the admin application's own secret is never among them.
    type: int
    default: 0
  max_failures:
    description:
      - With O(records), where more of them than this have failed, no other is begun. Without it, there is no limit.
    type: int
extends_documentation_fragment:
  - keeperpam.azure._attributes
  - keeperpam.azure._keeper
  - keeperpam.azure._entra
attributes:
  check_mode:
    support: full
    details:
      - Signs in as the admin application and reads the application and the record.
  diff_mode:
    support: full
    details:
      - Shows key ids and dates, never a secret.
      - With O(records) it has a part for each record in which something changes, as many as an event of the Automation
        Platform has room for, and says how many are left out.
  idempotent:
    support: partial
    details:
      - With O(rotate=expiring). With O(rotate=always), every run makes a new secret.
notes:
  - The module runs where Graph and Keeper can be reached and the Python packages are installed, usually on the
    controller. For C(localhost) set C(ansible_python_interpreter) to C({{ ansible_playbook_python }}).
  - A task runs once for each host of its play, and each run is a rotation. Put it into a play of its own on
    C(localhost), as the playbook C(keeperpam.azure.rotate) does. Within a play over other hosts, C(run_once) together
    with C(delegate_to) set to C(localhost) rotates once for each batch (C(serial)), and with the strategy C(free) once
    for each host.
  - With O(records), a signal ends the run with every application either old or new, and a result for each. A thousand
    applications take some minutes. Keeper allows 100 calls of a kind in a row, and then wants a silence of 10 seconds.
    Other programs that use the same Keeper configuration meanwhile share that limit.
  - With O(records), where the module runs on the controller as the user of the play and not with C(async), a line for
    each application is shown on stderr as it ends.
  - With the defaults, a run for one O(record) takes 480 seconds at the most, whatever the services do. A longer
    O(verify_timeout) or O(retire_after) adds to it.
seealso:
  - name: Keeper's page on rotating Azure application secrets
    description: The record's fields, the permissions, and Keeper's own script, which this collection replaces.
    link: https://docs.keeper.io/en/keeperpam/privileged-access-manager/password-rotation/rotation-use-cases/azure/azure-app-secret-rotation
  - name: Application addPassword
    description: The call of Microsoft Graph that makes a secret, with the permissions it needs.
    link: https://learn.microsoft.com/graph/api/application-addpassword
"""

EXAMPLES = r"""
- name: Rotate an application with the admin application of the Azure PAM configuration
  keeperpam.azure.app_secret:
    record: "{{ billing_record_uid }}"
    pam_config: "{{ pam_configuration_uid }}"
    keeper_config_file: /etc/keeper/ksm-config.json

- name: Rotate only what expires within two weeks, and keep one old secret
  keeperpam.azure.app_secret:
    record: "{{ billing_record_uid }}"
    admin_record: "{{ rotator_record_uid }}"
    rotate: expiring
    min_days_left: 14
    lifetime_days: 180
    keep_previous: 1
    keeper_config: "{{ ksm_config }}"

- name: Rotate once, however many hosts the play has
  keeperpam.azure.app_secret:
    record: "{{ billing_record_uid }}"
    pam_config: "{{ pam_configuration_uid }}"
    keeper_config_file: /etc/keeper/ksm-config.json
  delegate_to: localhost
  run_once: true

- name: Rotate hundreds of applications, a few of them first, and stop where something is wrong
  keeperpam.azure.app_secret:
    records: "{{ application_record_uids }}"
    pam_config: "{{ pam_configuration_uid }}"
    rotate: expiring
    concurrency: 32
    canary: 3
    max_failures: 5
    keeper_config_file: /etc/keeper/ksm-config.json

- name: Let the admin application rotate its own secret, from its own record
  keeperpam.azure.app_secret:
    record: "{{ rotator_record_uid }}"
    keeper_config: "{{ ksm_config }}"

- name: Rotate in the US Government cloud with a certificate
  keeperpam.azure.app_secret:
    record: "{{ billing_record_uid }}"
    tenant_id: contoso.onmicrosoft.us
    client_id: "{{ rotator_client_id }}"
    certificate_path: /etc/keeper/rotator.pem
    cloud_environment: AzureUSGovernment
    keeper_config: "{{ ksm_config }}"

- name: Rotate with the managed identity of this Azure VM
  keeperpam.azure.app_secret:
    record: "{{ billing_record_uid }}"
    managed_identity: true
    tenant_id: contoso.onmicrosoft.com
    keeper_config_file: /etc/keeper/ksm-config.json

- name: Rotate in a pipeline, with the token that it was given
  keeperpam.azure.app_secret:
    record: "{{ billing_record_uid }}"
    tenant_id: contoso.onmicrosoft.com
    client_id: "{{ rotator_client_id }}"
    oidc_token: "{{ lookup('ansible.builtin.env', 'ID_TOKEN') }}"
    keeper_config: "{{ ksm_config }}"
"""

RETURN = r"""
status:
  description:
    - How the rotation ended. With O(records) it is the worst of all ends.
    - V(rotated) and V(unchanged) are complete; V(planned) is what check mode says of a rotation that would be made.
    - V(bad_input) and V(refused) have changed nothing; with V(rolled_back) a new secret was made and removed again.
    - With V(incomplete) the new secret is published and valid, but old ones remain; with V(orphan) a new secret may
      have been left in Entra, see RV(orphans). The next run completes both.
  type: str
  returned: always
  sample: rotated
msg:
  description: What happened, why, and what to do next, in one line.
  type: str
  returned: always
  sample: >-
    ROTATED 'billing-api' (ZmpJl4qCXJEi0ohFKzzQaA): billing-api was rotated: its secret
    f0b0b335-1d71-4883-8f98-567911bfdca6 is valid until 2027-09-09T19:50:29.3086381Z. 1 old removed.
counts:
  description: How many records have ended in which way, by status.
  type: dict
  returned: with O(records)
  sample: {rotated: 198, refused: 2}
results:
  description:
    - How the rotation of each record ended, in the order of O(records). An entry holds what is listed here and, as far
      as there is something to name, RV(application), RV(key_id), RV(expires), RV(previous_key_id), RV(verified),
      RV(removed), RV(kept), RV(would_remove), RV(remaining), RV(orphans), RV(marker) and RV(unlisted).
    - Where all entries together are too large for an event of the Automation Platform, they hold what is listed here,
      RV(key_id), RV(expires), RV(remaining), RV(orphans) and RV(marker), and messages are cut.
  type: list
  elements: dict
  returned: with O(records), when the records could be read
  contains:
    record:
      description: The uid of the record.
      type: str
      sample: ZmpJl4qCXJEi0ohFKzzQaA
    title:
      description: The title of the record. Empty where it was not found.
      type: str
      sample: billing-api
    status:
      description: How it ended, as RV(status). V(refused) also where it was not begun.
      type: str
      sample: rotated
    changed:
      description: Whether anything was changed.
      type: bool
      sample: true
    failed:
      description: Whether it failed.
      type: bool
      sample: false
    msg:
      description: What happened, why, and what to do next.
      type: str
      sample: >-
        ROTATED 'billing-api' (ZmpJl4qCXJEi0ohFKzzQaA): billing-api was rotated: its secret
        f0b0b335-1d71-4883-8f98-567911bfdca6 is valid until 2027-09-09T19:50:29.3086381Z. 1 old removed.
record:
  description: The uid of the record.
  type: str
  returned: when the record was read
  sample: ZmpJl4qCXJEi0ohFKzzQaA
application:
  description: The application.
  type: dict
  returned: when the application was found
  contains:
    display_name:
      description: Its display name.
      type: str
      sample: billing-api
    object_id:
      description: Its object id.
      type: str
      sample: ec64d6ec-23f2-4391-ac66-58e4b52472f2
    client_id:
      description: Its application (client) id.
      type: str
      sample: ebfbb457-8935-4c3f-802b-d6a2d24478de
key_id:
  description: The key id of the secret that the vault shows.
  type: str
  returned: when a secret is published
  sample: f0b0b335-1d71-4883-8f98-567911bfdca6
previous_key_id:
  description: The key id that the record named before. Empty where it named none.
  type: str
  returned: when the application was found
  sample: 99dcc009-52ac-471c-9be3-d5e9585e3ce2
expires:
  description: When the secret ends, as Entra says it (UTC, ISO 8601). In check mode, when a new one would.
  type: str
  returned: when a secret is published, and in check mode
  sample: "2027-09-09T19:50:29.3086381Z"
verified:
  description: Whether the new secret was seen to sign in.
  type: bool
  returned: when a secret was made
  sample: true
previous_expires:
  description: When the secret that the record named before ends, as the record says it.
  type: str
  returned: when the application was found, with O(record)
  sample: "2026-12-01T16:00:22Z"
secrets_before:
  description: The ends of the application's secrets before the run, by key id.
  type: dict
  returned: when the application was found, with O(record)
  sample: {99dcc009-52ac-471c-9be3-d5e9585e3ce2: "2026-12-01T16:00:22.3926920Z"}
removed:
  description: The key ids of the secrets that were removed.
  type: list
  elements: str
  returned: when a secret is published
  sample: [99dcc009-52ac-471c-9be3-d5e9585e3ce2]
would_remove:
  description: The key ids of the secrets that would be removed.
  type: list
  elements: str
  returned: in check mode
  sample: [99dcc009-52ac-471c-9be3-d5e9585e3ce2]
kept:
  description: The old secrets that stay.
  type: list
  elements: dict
  returned: when the old secrets were looked at
  contains:
    key_id:
      description: The key id.
      type: str
      sample: a11ac555-f1c0-4fd4-be3a-e73cd6d09f53
    reason:
      description: Why it stays.
      type: str
      sample: keep_previous
unlisted:
  description: The key id that the record named and the application does not list.
  type: list
  elements: str
  returned: when there is such a one
  sample: [99dcc009-52ac-471c-9be3-d5e9585e3ce2]
remaining:
  description: The key ids of the old secrets that may be left.
  type: list
  elements: str
  returned: when RV(status=incomplete)
  sample: [99dcc009-52ac-471c-9be3-d5e9585e3ce2]
orphans:
  description: The key ids of new secrets that may be left. Empty where Entra's answer was lost, see RV(marker).
  type: list
  elements: str
  returned: when RV(status=orphan)
  sample: [f0b0b335-1d71-4883-8f98-567911bfdca6]
marker:
  description: The display name by which such a secret is found in Entra.
  type: str
  returned: when RV(status=orphan)
  sample: keeper/ZmpJl4qCXJEi0ohFKzzQaA/4c1a3c2f0b0e4c58a6e1f7f0b3c9d2aa
checks:
  description: What was looked at, and what it has shown.
  type: list
  elements: dict
  returned: in check mode, with O(record)
  contains:
    name:
      description: What was looked at.
      type: str
      sample: permission
    level:
      description: V(ok), V(warning) or V(failure).
      type: str
      sample: ok
    text:
      description: What was found.
      type: str
      sample: Application.ReadWrite.OwnedBy, and it owns the application
    todo:
      description: The next step. Empty where none is needed.
      type: str
      sample: ""
steps:
  description: What was done, step by step.
  type: list
  elements: str
  returned: always
  sample: ["the secret signs in"]
"""

from ..module_utils._python import require_python

OPTIONS = {
    "record": {"type": "str", "aliases": ["uid"]},
    "records": {"type": "list", "elements": "str"},
    "application": {"type": "str"},
    "rotate": {"type": "str", "choices": ["always", "expiring"], "default": "always"},
    "min_days_left": {"type": "int", "default": 30},
    "lifetime_days": {"type": "int"},
    "keep_previous": {"type": "int"},
    "retire": {"type": "str", "choices": ["all", "managed", "none"]},
    "retire_after": {"type": "str"},
    "adopt": {"type": "list", "elements": "str"},
    "verify": {"type": "bool"},
    "verify_timeout": {"type": "int"},
    "concurrency": {"type": "int", "default": 8},
    "canary": {"type": "int", "default": 0},
    "max_failures": {"type": "int"},
}


def main():  # type: () -> None
    require_python()
    from ..module_utils._app_secret import run

    run(OPTIONS)


if __name__ == "__main__":
    main()
