# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The admin identity: the first source that is there, in whatever order the records come."""

from __future__ import annotations

from itertools import permutations

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Secret
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.identity import (
    CREDENTIALS,
    VARIABLES,
    Sources,
    choose,
    holder,
    holdings,
    identity_in,
    in_environment,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.credentials import (
    Certificate,
    Identity,
    certificate_at,
    token_at,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra import CLOUDS, Cloud
from core_samples import CLIENT_ID, OBJECT_ID, labelled
from hypothesis import given, settings
from hypothesis import strategies as st

TENANT = "contoso.example"
OTHER_ID = "a11ac555-f1c0-4fd4-be3a-e73cd6d09f53"


def admin(uid: str, client_id: str = CLIENT_ID, **more: str):
    """A PAM User record of an admin application."""
    values = {"application_client_id": client_id, "client_secret": f"secret-of-{uid}", "tenant_id": TENANT, **more}
    return labelled(uid, f"title {uid}", **values)


def configuration(**more: str):
    """An Azure PAM configuration."""
    values = {"clientId": CLIENT_ID, "clientSecret": "secret-of-CONFIG", "tenantId": TENANT, **more}
    return labelled("CONFIG", "Azure", **values)


EXPLICIT = Identity(OTHER_ID, TENANT, "the options", secret=Secret("secret-of-options"))
FALLBACK = Identity(OTHER_ID, TENANT, "the environment", secret=Secret("secret-of-environment"))
ATTACHED = [labelled("MACHINE", "a machine", login="x"), admin("ADMIN")]
OWN = admin("OWN", application_object_id=OBJECT_ID)
# In the order of section 5 of the design; each with the uid of the record that is then taken.
PRECEDENCE = [
    ({"explicit": EXPLICIT}, ""),
    ({"attached": ATTACHED}, "ADMIN"),
    ({"own": OWN}, "OWN"),
    ({"configuration": configuration()}, "CONFIG"),
]


@pytest.mark.parametrize("place", range(len(PRECEDENCE)))
def test_a_source_counts_before_those_after_it(place):
    for later in range(place, len(PRECEDENCE)):
        sources: dict = {}
        for given_, _uid in reversed(PRECEDENCE[place : later + 1]):
            sources.update(given_)
        identity, cloud = choose(Sources(**sources))
        assert identity.record_uid == PRECEDENCE[place][1]
        assert cloud == CLOUDS["AzureCloud"]


def test_the_values_come_from_the_record():
    identity, _cloud = choose(Sources(attached=ATTACHED))
    assert (identity.client_id, identity.tenant_id) == (CLIENT_ID, TENANT)
    assert identity.secret is not None
    assert identity.secret.reveal() == "secret-of-ADMIN"
    assert "title ADMIN" in identity.source
    assert "ADMIN" in identity.source
    assert "secret-of-ADMIN" not in repr(identity)


@pytest.mark.parametrize(
    "labels",
    [
        ("clientId", "clientSecret", "tenantId"),
        ("pamazureclientid", "pamazureclientsecret", "pamazuretenantid"),
        ("Client Id", "Client Secret", "Tenant Id"),
        ("Client ID", "Client Secret", "Tenant ID"),
        ("client_id", "client_secret", "tenant_id"),
        ("CLIENTID", "CLIENTSECRET", "TENANTID"),
    ],
)
def test_every_spelling_of_a_configuration(labels):
    record = labelled("CONFIG", "", **dict(zip(labels, (CLIENT_ID, "s3cret-value", TENANT))))
    identity, _cloud = choose(Sources(configuration=record))
    assert (identity.client_id, identity.tenant_id, identity.source) == (CLIENT_ID, TENANT, "the record CONFIG")
    assert identity.secret is not None
    assert identity.secret.reveal() == "s3cret-value"


def test_the_records_own_application_is_no_admin_without_a_client_id():
    own = labelled("OWN", "billing-api", application_object_id=OBJECT_ID, client_secret="s", tenant_id=TENANT)
    assert choose(Sources(own=own, configuration=configuration()))[0].record_uid == "CONFIG"


def test_attached_records_of_other_kinds_do_not_count():
    attached = [labelled("DB", "a database", login="x", client_secret="not-ours")]
    assert choose(Sources(attached=attached, configuration=configuration()))[0].record_uid == "CONFIG"


@settings(max_examples=40)
@given(st.permutations(["ADMIN1", "ADMIN2", "MACHINE", "DB", "ADMIN0"]))
def test_the_order_of_attached_records_does_not_matter(order):
    attached = [admin(uid) if uid.startswith("ADMIN") else labelled(uid, uid, login="x") for uid in order]
    assert choose(Sources(attached=attached))[0].record_uid == "ADMIN0"


@pytest.mark.parametrize("order", list(permutations(["ADMIN", "OTHER", "DB"])), ids="-".join)
def test_two_admin_applications_are_ambiguous_in_any_order(order):
    records = {"ADMIN": admin("ADMIN"), "OTHER": admin("OTHER", OTHER_ID), "DB": labelled("DB", "a database")}
    with pytest.raises(BadInput) as caught:
        choose(Sources(attached=[records[uid] for uid in order], configuration=configuration()))
    assert "'title ADMIN' (ADMIN), the record 'title OTHER' (OTHER)" in caught.value.message


def test_one_admin_application_in_two_spellings_is_one():
    assert choose(Sources(attached=[admin("B", CLIENT_ID.upper()), admin("A")]))[0].record_uid == "A"


@pytest.mark.parametrize("missing", ["client_secret", "tenant_id"])
@pytest.mark.parametrize("blank", ["", "  "])
@pytest.mark.parametrize("place", ["attached", "own"])
def test_an_incomplete_record_is_an_error_that_names_the_field(missing, blank, place):
    record = admin("ADMIN", **{missing: blank})
    sources = {"attached": [record]} if place == "attached" else {"own": record}
    with pytest.raises(BadInput, match=f"ADMIN.*lacks {missing}") as caught:
        choose(Sources(**sources, configuration=configuration(), fallback=FALLBACK))
    assert "secret-of" not in caught.value.message


@pytest.mark.parametrize("missing", ["clientId", "clientSecret", "tenantId"])
def test_an_incomplete_configuration_is_an_error_that_names_the_field(missing):
    with pytest.raises(BadInput, match=f"CONFIG.*lacks {missing}"):
        choose(Sources(configuration=configuration(**{missing: ""}), fallback=FALLBACK))


BARE = configuration(clientId="", clientSecret="")


def test_a_configuration_without_any_credential_leaves_it_to_the_environment_and_then_to_the_host():
    identity = choose(Sources(configuration=BARE, fallback=FALLBACK))[0]
    assert (identity.source, identity.why) == ("the environment", "no record holds one")
    identity = choose(Sources(configuration=BARE))[0]
    assert (identity.managed, identity.client_id, identity.tenant_id) == (True, "", TENANT)
    assert identity.record_uid == "CONFIG"
    assert "neither client id nor client secret" in identity.why


@pytest.mark.parametrize(
    "values", [{"tenantId": ""}, {"managed_identity": "false"}, {"managed_identity": "no", "tenantId": TENANT}]
)
def test_what_is_no_configuration_of_azure_or_says_no_gets_no_managed_identity(values):
    with pytest.raises(BadInput, match=r"CONFIG.*no client id and client secret"):
        choose(Sources(configuration=configuration(**{"clientId": "", "clientSecret": "", **values})))


@pytest.mark.parametrize("yes", ["true", "Yes", "ON", "1"])
def test_a_client_id_alone_is_a_managed_identity_only_where_that_is_said(yes):
    with pytest.raises(BadInput, match=r"CONFIG.*lacks clientSecret.*set the field managed_identity to true"):
        choose(Sources(configuration=configuration(clientSecret=""), fallback=FALLBACK))
    identity, _cloud = choose(
        Sources(configuration=configuration(clientSecret="", managed_identity=yes), fallback=FALLBACK)
    )
    assert (identity.managed, identity.client_id) == (True, CLIENT_ID)
    assert "user-assigned" in identity.name


def test_a_host_s_own_managed_identity_can_be_asked_for():
    identity, _cloud = choose(
        Sources(configuration=configuration(clientId="", clientSecret="", managed_identity="true"), fallback=FALLBACK)
    )
    assert (identity.managed, identity.client_id) == (True, "")


@pytest.mark.parametrize("word", ["maybe", "2", "tru"])
def test_a_managed_identity_that_is_neither_yes_nor_no_is_bad_input(word):
    with pytest.raises(BadInput, match="managed_identity"):
        choose(Sources(configuration=configuration(managed_identity=word)))


def test_a_certificate_or_a_token_that_the_configuration_names():
    bare = {"clientSecret": "", "certificate_path": "/etc/x.pfx", "certificate_passphrase": "open sesame"}
    identity, _cloud = choose(Sources(configuration=configuration(**bare)))
    assert identity.certificate is not None
    assert "/etc/x.pfx" in identity.certificate.name
    assert identity.certificate.passphrase is not None
    assert identity.certificate.passphrase.reveal() == "open sesame"
    assert "sesame" not in repr(identity)
    identity, _cloud = choose(
        Sources(configuration=configuration(clientSecret="", oidc_token_file_path="/run/token"), fallback=FALLBACK)
    )
    assert identity.token is not None
    assert "/run/token" in identity.name


@pytest.mark.parametrize(
    "more",
    [
        {"certificate_path": "/x"},
        {"oidc_token_file_path": "/x"},
        {"managed_identity": "true"},
        {"clientSecret": "", "certificate_path": "/x", "managed_identity": "true"},
        {"clientSecret": "", "certificate_path": "/x", "oidc_token": "x"},
    ],
)
def test_several_credentials_are_bad_input_and_none_of_them_is_used(more):
    with pytest.raises(BadInput, match=r"CONFIG.*several credentials"):
        choose(Sources(configuration=configuration(**more), fallback=FALLBACK))


@pytest.mark.parametrize("place", ["attached", "own"])
@pytest.mark.parametrize("secret", ["", "a-secret-of-its-own"])
@pytest.mark.parametrize(
    "label",
    ["managed_identity", "certificate_path", "oidc_token", "oidc_token_file_path", "Certificate Path", "OIDC-token"],
)
def test_the_record_of_an_application_names_nothing_of_the_host(place, secret, label):
    record = admin("ADMIN", client_secret=secret, **{label: "true"})
    sources = {"attached": [record]} if place == "attached" else {"own": record}
    with pytest.raises(BadInput, match=r"ADMIN.*PAM configuration, the environment"):
        choose(Sources(**sources, configuration=configuration(), fallback=FALLBACK))


def attached_files(*names: str):
    """What looks certificates up: these are attached to every record."""
    return lambda uid: [Certificate(f"{name} of {uid}", lambda: b"") for name in names]


@pytest.mark.parametrize("place", ["attached", "own", "configuration"])
def test_a_certificate_that_is_attached_counts_where_there_is_no_secret(place):
    record = admin("RECORD", client_secret="", certificate_passphrase="open sesame")
    if place == "configuration":
        record = labelled("RECORD", "", clientId=CLIENT_ID, tenantId=TENANT, certificate_passphrase="open sesame")
    sources = {place: [record] if place == "attached" else record, "files": attached_files("a.pem")}
    identity, _cloud = choose(Sources(**sources))
    assert identity.secret is None
    assert identity.certificate is not None
    assert identity.certificate.name == "a.pem of RECORD"
    assert identity.certificate.passphrase is not None
    assert identity.certificate.passphrase.reveal() == "open sesame"
    with pytest.raises(BadInput, match=r"several certificates.*a.pem of RECORD, b.pfx of RECORD"):
        choose(Sources(**{**sources, "files": attached_files("a.pem", "b.pfx")}))


def test_a_secret_counts_before_an_attached_certificate():
    identity, _cloud = choose(Sources(attached=[admin("ADMIN")], files=attached_files("a.pem", "b.pem")))
    assert identity.secret is not None
    assert identity.certificate is None


def test_who_holds_a_credential_of_an_application():
    attached = [admin("ADMIN", client_secret="")]
    assert "ADMIN" in holder(Sources(attached=attached, files=attached_files("a.pem")), CLIENT_ID)
    by_path = configuration(clientSecret="", certificate_path="/x")
    assert "CONFIG" in holder(Sources(configuration=by_path), CLIENT_ID)
    assert not holder(Sources(attached=attached, configuration=by_path), OTHER_ID)


ENVIRONMENT = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT_ID}


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"AZURE_CLIENT_SECRET": "s"}, "a client secret"),
        ({"AZURE_SECRET": "s", "AZURE_FEDERATED_TOKEN": "t"}, "a client secret"),
        ({"AZURE_CLIENT_CERTIFICATE_PATH": "/x.pem", "AZURE_FEDERATED_TOKEN_FILE": "/t"}, "/x.pem"),
        ({"AZURE_X509_CERTIFICATE_PATH": "/y.pem"}, "/y.pem"),
        ({"AZURE_FEDERATED_TOKEN": "t", "AZURE_FEDERATED_TOKEN_FILE": "/t"}, "the federated token of the environment"),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/t"}, "the federated token in the file /t"),
        ({"AZURE_FEDERATED_TOKEN_FILE": "/t", "AZURE_TENANT_ID": "", "AZURE_TENANT": TENANT}, "/t"),
    ],
)
def test_what_the_environment_gives(more, name):
    identity = identity_in(in_environment({**ENVIRONMENT, **more}), "the environment")
    assert identity is not None
    assert (identity.client_id, identity.tenant_id) == (CLIENT_ID, TENANT)
    assert name in identity.name


@pytest.mark.parametrize("absent", ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"])
def test_an_environment_that_is_not_complete_gives_none(absent):
    whole = {**ENVIRONMENT, "AZURE_FEDERATED_TOKEN_FILE": "/t"}
    assert identity_in(in_environment({key: value for key, value in whole.items() if key != absent}), "x") is None


def test_every_credential_has_variables():
    assert set(CREDENTIALS) <= set(VARIABLES)


def test_nothing_at_all():
    with pytest.raises(BadInput, match="no admin identity was found") as caught:
        choose(Sources())
    assert "Next: attach a record" in caught.value.message


GOVERNMENT = {"Azure Authority FQDN": "login.microsoftonline.us"}
SANDBOX = {"Azure Authority FQDN": "localhost:1", "Azure Graph Endpoint": "https://localhost:2"}
LOOPBACK = Cloud("https://localhost:1", "https://localhost:2")


@pytest.mark.parametrize(
    ("sources", "cloud"),
    [
        (Sources(configuration=configuration(**GOVERNMENT)), CLOUDS["AzureUSGovernment"]),
        (Sources(configuration=configuration(**SANDBOX)), LOOPBACK),
        (Sources(attached=ATTACHED, configuration=configuration(**SANDBOX)), LOOPBACK),
        (
            Sources(attached=[admin("A", **GOVERNMENT)], configuration=configuration(**SANDBOX)),
            CLOUDS["AzureUSGovernment"],
        ),
        (Sources(own=OWN, configuration=configuration(**GOVERNMENT)), CLOUDS["AzureUSGovernment"]),
        (Sources(explicit=EXPLICIT, configuration=configuration(**GOVERNMENT)), CLOUDS["AzureUSGovernment"]),
        (Sources(explicit=EXPLICIT, configuration=configuration(**SANDBOX), cloud=LOOPBACK), LOOPBACK),
        (Sources(cloud=CLOUDS["AzureChinaCloud"], configuration=configuration(**SANDBOX)), CLOUDS["AzureChinaCloud"]),
        (Sources(configuration=configuration(), default_cloud=LOOPBACK), LOOPBACK),
        (Sources(configuration=configuration(**GOVERNMENT), default_cloud=LOOPBACK), CLOUDS["AzureUSGovernment"]),
        (
            Sources(configuration=configuration(), authority="https://login.microsoftonline.us/"),
            CLOUDS["AzureUSGovernment"],
        ),
        (
            Sources(
                configuration=configuration(),
                authority="https://login.microsoftonline.us/",
                default_cloud=CLOUDS["AzureChinaCloud"],
            ),
            CLOUDS["AzureChinaCloud"],
        ),
    ],
)
def test_the_cloud(sources, cloud):
    assert choose(sources)[1] == cloud


def test_a_graph_endpoint_alone_is_an_error():
    with pytest.raises(BadInput, match="no Azure Authority FQDN"):
        choose(Sources(configuration=configuration(**{"Azure Graph Endpoint": "localhost:2"})))


# Each identity that is none of a secret, and where it is named.
HOST_IDENTITIES = {
    "managed": {"explicit": Identity("", TENANT, "the options", managed=True)},
    "token": {"explicit": Identity(OTHER_ID, TENANT, "the options", token=token_at("/t"))},
    "token of the environment": {"fallback": Identity(OTHER_ID, TENANT, "the environment", token=token_at("/t"))},
    "certificate": {"explicit": Identity(OTHER_ID, TENANT, "the options", certificate=certificate_at("/x"))},
    "certificate of the environment": {
        "fallback": Identity(OTHER_ID, TENANT, "the environment", certificate=certificate_at("/x"))
    },
    "managed, of the configuration": {},
}
DEFENSE = {"Azure Authority FQDN": "login.microsoftonline.us", "Azure Graph Endpoint": "dod-graph.microsoft.us"}
L5 = Cloud("https://login.microsoftonline.us", "https://dod-graph.microsoft.us")
CHINA = {"Azure Authority FQDN": "login.chinacloudapi.cn"}


@pytest.mark.parametrize("kind", HOST_IDENTITIES)
@pytest.mark.parametrize(
    ("fields", "cloud"),
    [
        ({}, CLOUDS["AzureCloud"]),
        ({"Azure Authority FQDN": "login.windows.net"}, CLOUDS["AzureCloud"]),
        (GOVERNMENT, CLOUDS["AzureUSGovernment"]),
        (DEFENSE, L5),
        (CHINA, CLOUDS["AzureChinaCloud"]),
        ({"Azure Authority FQDN": "https://login.partner.microsoftonline.cn/"}, CLOUDS["AzureChinaCloud"]),
    ],
    ids=["public", "public by its old name", "US", "US L5", "China by its old name", "China"],
)
def test_microsofts_own_clouds_are_named_anywhere(kind, fields, cloud):
    bare = configuration(clientId="", clientSecret="", **fields)
    assert choose(Sources(configuration=bare, **HOST_IDENTITIES[kind]))[1] == cloud


CUSTOM = [
    SANDBOX,
    {"Azure Authority FQDN": "login.microsoftonline.com.example", "Azure Graph Endpoint": "graph.microsoft.com"},
    {"Azure Authority FQDN": "login.microsoftonline.com", "Azure Graph Endpoint": "graph.example"},
]


@pytest.mark.parametrize("fields", CUSTOM)
@pytest.mark.parametrize("kind", ["managed", "token", "token of the environment"])
def test_a_token_of_the_host_goes_to_a_custom_authority_only_where_both_have_one_origin(kind, fields):
    bare = configuration(clientId="", clientSecret="", **fields)
    sources = {"configuration": bare, **HOST_IDENTITIES[kind]}
    with pytest.raises(BadInput, match=r"is not sent to .*CONFIG.* alone"):
        choose(Sources(**sources))
    with pytest.raises(BadInput, match="is not sent to "):
        choose(Sources(**sources, authority="login.example"))
    named = choose(Sources(configuration=configuration(**fields)))[1]
    assert choose(Sources(**sources, authority=named.authority + "/"))[1] == named
    assert choose(Sources(**sources, cloud=LOOPBACK))[1] == LOOPBACK


@pytest.mark.parametrize("fields", CUSTOM)
@pytest.mark.parametrize("place", ["fallback", "explicit"])
def test_nor_does_a_secret_of_the_environment_or_of_the_options(place, fields):
    secret = {"fallback": FALLBACK, "explicit": EXPLICIT}[place]
    sources = {"configuration": configuration(clientId="", clientSecret="", **fields), place: secret}
    with pytest.raises(BadInput, match=r"is not sent to .*CONFIG.* alone"):
        choose(Sources(**sources))
    named = choose(Sources(configuration=configuration(**fields)))[1]
    assert choose(Sources(**sources, authority=named.authority))[1] == named


@pytest.mark.parametrize("fields", CUSTOM)
@pytest.mark.parametrize("kind", ["certificate", "certificate of the environment", "managed, of the configuration"])
def test_what_no_one_else_can_use_or_has_one_origin_goes_there(kind, fields):
    bare = configuration(clientId="", clientSecret="", **fields)
    named = choose(Sources(configuration=configuration(**fields)))[1]
    assert choose(Sources(configuration=bare, **HOST_IDENTITIES[kind]))[1] == named


def test_an_authority_of_the_environment_that_has_no_graph_endpoint_is_bad_input():
    with pytest.raises(BadInput, match=r"AZURE_AUTHORITY_HOST.*no Graph endpoint"):
        choose(Sources(configuration=configuration(), authority="https://login.example/"))
    with pytest.raises(BadInput, match="AZURE_AUTHORITY_HOST"):
        choose(Sources(configuration=configuration(), authority="ftp://login.example/"))


# -- what the sources of a run hold

LONG = "abc8Q~" + "x" * 30
WITH_SECRET = Identity(CLIENT_ID.upper(), TENANT, "the options", secret=Secret(LONG))


def held(sources: Sources) -> list[tuple[str, str, str, frozenset[str]]]:
    return [(one.owner, one.shown.key_id, one.shown.hint, one.about) for one in holdings(sources)]


def test_no_source_holds_nothing():
    assert holdings(Sources()) == ()
    assert holdings(Sources(own=admin("OWN"), attached=[labelled("DB", "a database", login="x")])) == ()


@pytest.mark.parametrize("place", ["explicit", "fallback"])
def test_an_option_holds_its_secret_for_its_application(place):
    assert held(Sources(**{place: WITH_SECRET})) == [("the options", "", "abc", frozenset({CLIENT_ID}))]
    assert holdings(Sources(**{place: Identity(CLIENT_ID, TENANT, "x")})) == ()


def test_an_attached_record_holds_what_it_names_for_the_applications_that_it_names():
    record = admin("ADMIN", client_secret=LONG, client_secret_id="KEY", application_object_id=OBJECT_ID.upper())
    about = frozenset({CLIENT_ID, OBJECT_ID})
    assert held(Sources(attached=[record])) == [("the record 'title ADMIN' (ADMIN)", "KEY", "abc", about)]


def test_an_attached_record_that_only_names_a_key_id_holds_it():
    (found,) = holdings(Sources(attached=[labelled("A", "a", client_secret_id=OTHER_ID)]))
    assert (found.shown.key_id, found.about) == (OTHER_ID, frozenset())


def test_the_pam_configuration_holds_its_secret_although_another_identity_is_used():
    sources = Sources(explicit=WITH_SECRET, attached=ATTACHED, configuration=configuration(clientSecret=LONG))
    assert [owner for owner, *_rest in held(sources)] == [
        "the options",
        "the record 'title ADMIN' (ADMIN)",
        "the record 'Azure' (CONFIG)",
    ]
    assert held(sources)[-1][1:] == ("", "abc", frozenset({CLIENT_ID}))


def test_a_configuration_without_a_secret_holds_none():
    assert holdings(Sources(configuration=configuration(clientSecret=""))) == ()


@pytest.mark.parametrize("spelling", [CLIENT_ID, CLIENT_ID.upper(), f" {{{CLIENT_ID}}} "])
@pytest.mark.parametrize(
    ("sources", "name"),
    [
        (lambda spelling: Sources(attached=[admin("ADMIN", spelling)]), "ADMIN"),
        (lambda spelling: Sources(configuration=configuration(clientId=spelling)), "CONFIG"),
        (lambda spelling: Sources(fallback=Identity(spelling, TENANT, "the environment")), "the environment"),
        (
            lambda spelling: Sources(explicit=EXPLICIT, fallback=Identity(spelling, TENANT, "the environment")),
            "the environment",
        ),
        (lambda spelling: Sources(explicit=Identity(spelling, TENANT, "the options")), "the options"),
    ],
)
def test_whose_credential_it_is_that_a_source_holds(sources, name, spelling):
    assert name in holder(sources(spelling), CLIENT_ID)
    assert holder(sources(spelling), OBJECT_ID) == ""


def test_the_records_own_credential_and_records_without_a_secret_are_no_holders():
    bare = [labelled("A", "a", application_client_id=CLIENT_ID), labelled("B", "b", client_secret="x" * 20)]
    assert holder(Sources(own=OWN, attached=bare, configuration=configuration(clientSecret="")), CLIENT_ID) == ""
