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
      - In place of the secret, a file C(*.pem), C(*.pfx) or C(*.p12) with a certificate and its private key may be
        attached to the record; its passphrase is then in the field C(certificate_passphrase).
      - The admin application's identity is taken from the first of these that is there - O(client_id) and what belongs
        to it, O(admin_record), the application's own record where it has the field C(application_client_id),
        O(pam_config) where it names a client id or a credential, the environment variables, and at last the managed
        identity of the host, where O(pam_config) names none.
      - What is there, but does not sign in, is an error. No other identity is then tried.
    type: str
  pam_config:
    description:
      - The uid of an Azure PAM configuration, whose client id, client secret and tenant id are used.
      - In place of the client secret it may have one of the custom fields C(certificate_path) (with
        C(certificate_passphrase)), C(oidc_token_file_path), C(oidc_token) and C(managed_identity), which mean the same
        as the options of these names, or an attached certificate as for O(admin_record).
      - Without client id and client secret, the environment variables count, and then the managed identity of the host
        that runs the module, as with O(managed_identity).
      - Its custom fields C(Azure Authority FQDN) and C(Azure Graph Endpoint) name the endpoints of another cloud.
    type: str
  tenant_id:
    description:
      - The directory (tenant) id, or a domain of the tenant.
      - Without any of these options, and without an identity in a record, the environment variables E(AZURE_TENANT) or
        E(AZURE_TENANT_ID) are used.
    type: str
    aliases: [tenant]
  client_id:
    description:
      - The application (client) id of the admin application, or of a user-assigned managed identity.
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
      - The path of a PEM or PFX file with the private key and the certificate of the admin application, on the host
        that runs the module. It takes the place of O(client_secret).
      - The environment variables are E(AZURE_X509_CERTIFICATE_PATH) and E(AZURE_CLIENT_CERTIFICATE_PATH).
    type: path
    aliases: [x509_certificate_path]
  certificate_passphrase:
    description:
      - The passphrase of the private key in O(certificate_path).
      - The environment variable is E(AZURE_CLIENT_CERTIFICATE_PASSWORD).
    type: str
  managed_identity:
    description:
      - Sign in as the managed identity of the host that runs the module - an Azure VM, App Service, or any host that
        Azure Arc's agent runs on. It takes the place of O(client_secret).
      - With O(client_id) it is the user-assigned identity with that client id, otherwise the host's own.
      - Where no such service is reached, that is said within three seconds. One that is busy is asked for 30 seconds.
    type: bool
    default: false
  oidc_token:
    description:
      - A token of another identity provider (OpenID Connect) that a federated credential of the admin application
        trusts. It takes the place of O(client_secret).
      - The environment variable is E(AZURE_FEDERATED_TOKEN).
    type: str
  oidc_token_file_path:
    description:
      - The path of a file with such a token, on the host that runs the module. It is read anew at each sign-in.
      - The environment variable is E(AZURE_FEDERATED_TOKEN_FILE).
    type: path
  cloud_environment:
    description:
      - The cloud that the tenant lives in, V(AzureCloud), V(AzureUSGovernment) or V(AzureChinaCloud).
      - For any other, a dictionary of the two endpoints, C(authority) and C(graph).
      - Without it, the endpoints that the record of the admin application names count, then those of O(pam_config),
        then the environment variables E(AZURE_CLOUD_ENVIRONMENT) and E(AZURE_AUTHORITY_HOST), then V(AzureCloud).
      - A token that comes from the options or the environment is sent to an authority that is none of Microsoft's only
        where the options or the environment name that authority, too.
    type: raw
requirements:
  - msal >= 1.32.0
  - requests >= 2.32.4
"""
