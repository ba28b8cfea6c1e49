# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the rotations of a fleet share: one token, and the knowledge of what the others hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import Refused
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import Secret
from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet.company import Fleetmates
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.credentials import Identity
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra import CLOUDS, NotReached
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.vault import VaultRecord
from core_samples import CLIENT_ID, OBJECT_ID, Clock, application, credential, key

CLOUD = CLOUDS["AzureCloud"]
NO = Refused("the admin application could not sign in", "why", "todo")


def record(uid: str, **fields: str) -> VaultRecord:
    """A record with these fields."""
    custom = [{"type": "text", "label": label, "value": [value]} for label, value in fields.items()]
    return VaultRecord(uid, f"title of {uid}", "pamUser", 1, True, {"custom": custom}, None)


def identity(secret: str = "the-admin-secret") -> Identity:
    """The admin application."""
    return Identity("admin", "tenant", "the task's options", secret=Secret(secret))


class Desk:
    """Gives out tokens, or refuses to."""

    def __init__(self) -> None:
        self.number = 0
        self.refuses: Refused | None = None

    def fetch(self) -> Secret:
        """Return the next one."""
        self.number += 1
        if self.refuses:
            raise self.refuses
        return Secret(f"token-number-{self.number}")


def test_there_is_one_token_for_all_of_an_identity():
    company, desk = Fleetmates([], {}, Clock().monotonic), Desk()
    found = {company.token(identity(), CLOUD, None, desk.fetch).reveal() for _number in range(5)}
    assert (found, desk.number) == ({"token-number-1"}, 1)
    company.token(identity("another-secret"), CLOUD, None, desk.fetch)
    assert desk.number == 2


def test_it_is_renewed_when_it_is_old_or_was_refused():
    clock, desk = Clock(), Desk()
    company = Fleetmates([], {}, clock.monotonic)
    first = company.token(identity(), CLOUD, None, desk.fetch)
    second = company.token(identity(), CLOUD, first, desk.fetch)
    # Another one that was refused the first token gets the second.
    assert company.token(identity(), CLOUD, first, desk.fetch) is second
    clock.now += 1200.0
    assert company.token(identity(), CLOUD, None, desk.fetch) is not second
    assert desk.number == 3


def test_one_that_cannot_be_renewed_is_used_on_until_it_is_refused():
    clock, desk = Clock(), Desk()
    company = Fleetmates([], {}, clock.monotonic)
    first = company.token(identity(), CLOUD, None, desk.fetch)
    clock.now += 3600
    desk.refuses = NO
    assert company.token(identity(), CLOUD, None, desk.fetch) is first
    with pytest.raises(Refused):
        company.token(identity(), CLOUD, first, desk.fetch)


def test_a_sign_in_that_failed_is_not_tried_by_each():
    clock, desk = Clock(), Desk()
    company, desk.refuses = Fleetmates([], {}, clock.monotonic), NO
    for _number in range(3):
        with pytest.raises(Refused):
            company.token(identity(), CLOUD, None, desk.fetch)
    assert desk.number == 1
    clock.now += 60.0
    desk.refuses = None
    assert company.token(identity(), CLOUD, None, desk.fetch)


def test_one_that_was_not_reached_is_tried_again_soon_and_at_once_by_those_at_work():
    clock, desk = Clock(), Desk()
    company = Fleetmates([], {}, clock.monotonic)
    first = company.token(identity(), CLOUD, None, desk.fetch)
    desk.refuses = NotReached("login.example was not reached", "no answer", "run it again")
    for _number in range(2):
        with pytest.raises(Refused):
            company.token(identity(), CLOUD, first, desk.fetch)
    assert desk.number == 3
    for _number in range(2):
        with pytest.raises(Refused):
            company.token(identity(), CLOUD, None, desk.fetch)
    assert desk.number == 4
    clock.now += 10.0
    desk.refuses = None
    assert company.token(identity(), CLOUD, None, desk.fetch)


def test_what_the_others_hold_is_known_by_key_id_or_for_the_very_application():
    records = [
        record("own", application_object_id=OBJECT_ID, client_secret_id=key("a")),
        record("by id", client_secret_id=key("b")),
        record("by hint", application_object_id=CLIENT_ID, client_secret="abc" + "x" * 37),
        record("other", application_object_id="11111111-1111-1111-1111-111111111111", client_secret="abc" + "y" * 37),
        record("elsewhere", client_secret_id=key("c")),
    ]
    app = application(credential("a"), credential("b"))
    held = Fleetmates(records, {}).meet(records[0], app)
    assert {holding.shown.record_uid for holding in held} == {"by id", "by hint"}


def test_records_of_one_application_clash_unless_one_adopts_the_other():
    first, second = application(), replace(application(), object_id="22222222-2222-2222-2222-222222222222")
    found = Fleetmates([], {}).clashes({"one": first, "two": second, "three": first})
    assert set(found) == {"one", "three"}
    assert "one and three" in found["one"].message
    assert Fleetmates([], {"three": ("one",)}).clashes({"one": first, "two": second, "three": first}) == {}


def test_one_that_was_found_late_is_refused_all_the_same():
    company = Fleetmates([], {})
    company.meet(record("one"), application())
    company.meet(record("one"), application())
    with pytest.raises(Refused, match="two and one"):
        company.meet(record("two"), application())
