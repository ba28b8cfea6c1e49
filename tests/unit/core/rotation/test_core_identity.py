# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The admin identity: the first source that is there, in whatever order the records come."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Secret
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.identity import (
    Sources,
    choose,
    holder,
    holdings,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra import CLOUDS, Cloud, Identity
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


EXPLICIT = Identity(OTHER_ID, TENANT, "the options")
FALLBACK = Identity(OTHER_ID, TENANT, "the environment")
ATTACHED = [labelled("MACHINE", "a machine", login="x"), admin("ADMIN")]
OWN = admin("OWN", application_object_id=OBJECT_ID)
# In the order of section 5 of the design; each with the uid of the record that is then taken.
PRECEDENCE = [
    ({"explicit": EXPLICIT}, ""),
    ({"attached": ATTACHED}, "ADMIN"),
    ({"own": OWN}, "OWN"),
    ({"configuration": configuration()}, "CONFIG"),
    ({"fallback": FALLBACK}, ""),
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


def test_a_configuration_without_any_credential_leaves_it_to_the_fallback():
    bare = configuration(clientId="", clientSecret="")
    assert choose(Sources(configuration=bare, fallback=FALLBACK))[0] == replace(FALLBACK, why="no record holds one")
    with pytest.raises(BadInput, match=r"CONFIG.*no client id and client secret"):
        choose(Sources(configuration=bare))


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
        (Sources(explicit=EXPLICIT, configuration=configuration(**SANDBOX)), LOOPBACK),
        (Sources(cloud=CLOUDS["AzureChinaCloud"], configuration=configuration(**SANDBOX)), CLOUDS["AzureChinaCloud"]),
        (Sources(configuration=configuration(), default_cloud=LOOPBACK), LOOPBACK),
        (Sources(configuration=configuration(**GOVERNMENT), default_cloud=LOOPBACK), CLOUDS["AzureUSGovernment"]),
    ],
)
def test_the_cloud(sources, cloud):
    assert choose(sources)[1] == cloud


def test_a_graph_endpoint_alone_is_an_error():
    with pytest.raises(BadInput, match="no Azure Authority FQDN"):
        choose(Sources(configuration=configuration(**{"Azure Graph Endpoint": "localhost:2"})))


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
