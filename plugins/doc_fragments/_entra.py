# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This doc fragment is PRIVATE to the keeperpam.azure collection. It may change at any time.

from __future__ import annotations


class ModuleDocFragment:
    # The admin application. Corresponds to ENTRA_OPTIONS in plugins/module_utils/_module.py
    DOCUMENTATION = r"""
options:
  admin_record:
    description:
      - The uid of a Keeper record that holds the admin application's credential in the fields C(tenant_id),
        C(application_client_id) and C(client_secret).
      - The admin application's identity is taken from the first of these that is there - O(client_id) and what belongs
        to it, O(admin_record), the application's own record where it has the field C(application_client_id),
        O(pam_config), the environment variables.
    type: str
  pam_config:
    description:
      - The uid of an Azure PAM configuration, whose client id, client secret and tenant id are used.
      - Its custom fields C(Azure Authority FQDN) and C(Azure Graph Endpoint) name the endpoints of another cloud.
    type: str
  tenant_id:
    description:
      - The directory (tenant) id, or a domain of the tenant.
      - Without any of O(tenant_id), O(client_id), O(client_secret) and O(certificate_path), and without an identity in
        a record, the environment variables E(AZURE_TENANT) or E(AZURE_TENANT_ID) are used.
    type: str
    aliases: [tenant]
  client_id:
    description:
      - The application (client) id of the admin application.
      - The environment variable is E(AZURE_CLIENT_ID).
    type: str
  client_secret:
    description:
      - The client secret of the admin application. Give it by a variable, a file or a lookup.
      - The environment variables are E(AZURE_SECRET) and E(AZURE_CLIENT_SECRET).
    type: str
    aliases: [secret]
  certificate_path:
    description:
      - The path of a PEM file with the private key and the certificate of the admin application, on the host that runs
        the module. It takes the place of O(client_secret).
      - The environment variables are E(AZURE_X509_CERTIFICATE_PATH) and E(AZURE_CLIENT_CERTIFICATE_PATH).
    type: path
    aliases: [x509_certificate_path]
  cloud_environment:
    description:
      - The cloud that the tenant lives in, V(AzureCloud), V(AzureUSGovernment) or V(AzureChinaCloud).
      - For any other, a dictionary of the two endpoints, C(authority) and C(graph).
      - Without it, the endpoints that the record of the admin application names count, then the environment variable
        E(AZURE_CLOUD_ENVIRONMENT), then V(AzureCloud).
    type: raw
requirements:
  - msal >= 1.32.0
  - requests >= 2.32.4
"""
