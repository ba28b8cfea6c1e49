# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many machines behind one name: each learns and forgets at its own time, and their clocks differ."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Callable

import pytest
import requests

from sandbox import Sandbox
from sandbox.directory import Application, Credential, Replica
from sandbox.seed import Seeded

SignIn = Callable[..., requests.Response]
LATE = Replica(learns_after=1000)
LOYAL = Replica(forgets_after=1000)
COOKIES = {"fpc", "x-ms-gateway-slice", "stsservicecookie"}


@pytest.fixture
def app(seeded: Seeded) -> Application:
    return seeded.applications["billing-api"]


def made(sb: Sandbox, app: Application, **times: Any) -> Credential:
    """A secret as Graph makes it."""
    with sb.state.lock:
        now = sb.directory.now()
        return sb.directory.create(app, None, now, now + timedelta(days=9), **times)


def key_ids(answer: requests.Response) -> list[str]:
    return [one["keyId"] for one in answer.json()["passwordCredentials"]]


def outcomes(sign_in: SignIn, app: Application, secret: Credential, number: int) -> list[bool]:
    return [sign_in(app.client_id, secret.text).ok for _number in range(number)]


# -- sign-in


def test_by_default_there_is_one_replica_that_knows_everything_at_once(sb: Sandbox, app: Application) -> None:
    secret = made(sb, app)
    assert sb.directory.takes(app.client_id, secret.text) == [True]
    app.remove_secret(secret.key_id)
    assert sb.directory.takes(app.client_id, secret.text) == [False]
    assert sb.directory.takes("nobody", secret.text) == [False]


def test_each_sign_in_replica_learns_and_forgets_at_its_own_time(sb: Sandbox, app: Application) -> None:
    sb.directory.sign_in_replicas = [Replica(), LATE, LOYAL]
    secret = made(sb, app)
    assert sb.directory.takes(app.client_id, secret.text) == [True, False, True]
    assert not sb.directory.signs_in(app.client_id, secret.text)
    sb.directory.sign_in_replicas[1] = Replica()
    assert sb.directory.signs_in(app.client_id, secret.text)
    app.remove_secret(secret.key_id)
    assert sb.directory.takes(app.client_id, secret.text) == [False, False, True]
    sb.directory.sign_in_replicas[2] = Replica()
    assert sb.directory.takes(app.client_id, secret.text) == [False] * 3


def test_the_common_delay_and_the_replicas_own_are_both_over_when_it_is_usable(sb: Sandbox, app: Application) -> None:
    sb.directory.sign_in_replicas, sb.directory.usable_after = [Replica(), LATE], 1000
    secret = made(sb, app)
    assert sb.directory.takes(app.client_id, secret.text) == [False, False]
    secret.usable_at = 0
    assert sb.directory.takes(app.client_id, secret.text) == [True, False]


def test_what_was_there_before_is_known_everywhere_and_what_people_add_may_lag(sb: Sandbox, app: Application) -> None:
    sb.directory.sign_in_replicas = [Replica(), LATE]
    assert sb.directory.signs_in(app.client_id, app.add_secret().text)
    assert sb.directory.takes(app.client_id, app.add_secret(lags=True).text) == [True, False]


def test_asking_for_the_truth_takes_no_turn(sb: Sandbox, app: Application, sign_in: SignIn) -> None:
    sb.directory.sign_in_replicas = [Replica(), LATE]
    secret = made(sb, app)
    found = []
    for _number in range(4):
        sb.directory.takes(app.client_id, secret.text)
        found += outcomes(sign_in, app, secret, 1)
    assert found == [True, False, True, False]
    assert [entry.detail.rsplit(" ", 1)[1] for entry in sb.log] == ["0", "1", "0", "1"]


def test_random_routing_is_seeded(sb: Sandbox, app: Application, sign_in: SignIn) -> None:
    sb.directory.sign_in_replicas, sb.directory.routing = [Replica(), LATE], "random"
    secret = made(sb, app)
    runs = []
    for number in (7, 7, 8):
        sb.directory.seed(number)
        runs.append(outcomes(sign_in, app, secret, 12))
    assert runs[0] == runs[1] != runs[2]
    assert set(runs[0]) == {True, False}


def test_cookies_bind_a_client_to_the_replica_that_answered_first(
    sb: Sandbox, app: Application, sign_in: SignIn
) -> None:
    sb.directory.sign_in_replicas, sb.directory.routing = [Replica(), LATE], "cookie"
    secret = made(sb, app)
    form = {
        "client_id": app.client_id,
        "client_secret": secret.text,
        "grant_type": "client_credentials",
        "scope": f"{sb.graph_url}/.default",
    }
    url = f"https://{sb.authority}/{sb.tenant_id}/oauth2/v2.0/token"
    seen = []
    for _number in range(2):
        with requests.Session() as session:
            seen.append([session.post(url, data=form, timeout=20).ok for _request in range(3)])
            assert set(session.cookies.keys()) == COOKIES
    assert seen == [[True] * 3, [False] * 3]
    assert outcomes(sign_in, app, secret, 4) == [True, False, True, False]


def test_a_pooled_connection_leads_everybody_to_one_replica_for_a_while(
    sb: Sandbox, app: Application, sign_in: SignIn
) -> None:
    sb.directory.sign_in_replicas, sb.directory.routing = [Replica(), LATE], "connection"
    secret = made(sb, app)
    assert outcomes(sign_in, app, secret, 4) == [True] * 4
    sb.directory.sign_in_replicas = [Replica(), LATE, Replica()]
    sb.directory.pool_for = 0
    sb.directory._router._pooled_until = 0
    assert outcomes(sign_in, app, secret, 4) == [False, True, True, False]


def test_a_routing_that_is_none_is_a_defect_of_the_test(sb: Sandbox) -> None:
    sb.directory.routing = "nearest"
    with pytest.raises(ValueError, match="routing"):
        sb.directory.route("")


# -- Graph


def test_graph_replicas_lag_in_both_directions(sb: Sandbox, app: Application, graph: Any) -> None:
    address, old = f"/{app.object_id}", app.credentials[0]
    sb.directory.graph_replicas = [Replica(), Replica(1000, 1000)]
    new = graph.add(address).json()["keyId"]
    counts = [key_ids(graph.get(address)) for _number in range(4)]
    assert sorted(counts, key=len) == [[old.key_id], [old.key_id], [new, old.key_id], [new, old.key_id]]
    assert counts[0] != counts[1] != counts[2]
    answers = sorted(graph.remove(address, new).status_code for _number in range(2))
    assert answers == [204, 400], "one of the two has never heard of it"
    app.remove_secret(old.key_id)
    assert sorted(len(key_ids(graph.get(address))) for _number in range(4)) == [0, 0, 1, 1]
    sb.directory.graph_replicas[1] = Replica()
    assert [key_ids(graph.get(address)) for _number in range(2)] == [[], []]


def test_a_replica_that_still_shows_a_removed_secret_removes_it_again(
    sb: Sandbox, app: Application, graph: Any
) -> None:
    address, old = f"/{app.object_id}", app.credentials[0]
    sb.directory.graph_replicas = [LOYAL]
    app.remove_secret(old.key_id)
    changes: list[str] = []
    sb.watch(lambda sb, entry: changes.append(entry.op))
    assert graph.remove(address, old.key_id).status_code == 204
    assert (changes, old.removed_by) == ([], "outside")


def test_the_limit_of_two_secrets_is_decided_on_the_truth(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    app = sb.directory.add_application("personal", "PersonalMicrosoftAccount", owners=[seeded.admin.client_id])
    address = f"/{app.object_id}"
    sb.directory.graph_replicas = [LATE]
    assert [graph.add(address).status_code for _number in range(3)] == [200, 200, 400]
    assert key_ids(graph.get(address)) == []
    sb.directory.graph_replicas = [LOYAL]
    app.remove_secret(app.credentials[0].key_id)
    assert len(key_ids(graph.get(address))) == 2
    assert graph.add(address).ok


def test_an_application_is_unheard_of_by_others_after_a_write(sb: Sandbox, app: Application, graph: Any) -> None:
    address = f"/{app.object_id}"
    sb.directory.graph_replicas, sb.directory.application_lags = [Replica(), Replica()], 1000
    graph.add(address)
    answers = [graph.get(address).status_code for _number in range(8)]
    assert sorted(answers) == [200] * 6 + [404] * 2
    assert graph.get(address).ok or graph.get(address).ok
    sb.directory.application_lags = 0
    assert {graph.get(address).status_code for _number in range(4)} == {200}


# -- clocks


def test_front_ends_have_clocks_of_their_own(sb: Sandbox, app: Application, graph: Any) -> None:
    address = f"/{app.object_id}"
    sb.directory.clock_offsets = [-40.0, 0.0, 40.0]
    before = datetime.now(timezone.utc)
    answers = [graph.add(address) for _number in range(3)]
    offsets = []
    for answer in answers:
        start = datetime.fromisoformat(answer.json()["startDateTime"][:19] + "+00:00")
        date = parsedate_to_datetime(answer.headers["Date"])
        assert abs(start - date) <= timedelta(seconds=2)
        offsets.append(round((start - before).total_seconds() / 40))
        assert sb.directory.signs_in(app.client_id, answer.json()["secretText"]), "valid at once all the same"
    assert sorted(offsets) == [-1, 0, 1]


def test_a_start_that_was_asked_for_holds_by_the_directorys_clock(sb: Sandbox, app: Application, graph: Any) -> None:
    sb.directory.clock_offsets = [600.0]
    start = (datetime.now(timezone.utc) + timedelta(seconds=300)).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = graph.add(f"/{app.object_id}", startDateTime=start).json()["secretText"]
    assert not sb.directory.signs_in(app.client_id, text)
    sb.directory.clock = 400
    assert sb.directory.signs_in(app.client_id, text)


def test_the_directorys_clock_moves_all_that_compares_dates(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["billing-api"]  # its secret ends in 9 days
    address = f"/{app.object_id}"
    sb.directory.clock = 25 * 60
    answer = graph.get(address)
    assert answer.ok, "a token outlives 25 minutes"
    ahead = parsedate_to_datetime(answer.headers["Date"]) - datetime.now(timezone.utc)
    assert timedelta(minutes=24) < ahead < timedelta(minutes=26)
    sb.directory.clock = 2 * 3600
    assert graph.get(address).status_code == 401, "but not two hours"
    sb.directory.clock = 10 * 86400
    assert not sb.directory.signs_in(app.client_id, app.credentials[0].text)
    assert abs(sb.directory.now() - datetime.now(timezone.utc) - timedelta(days=10)) < timedelta(seconds=5)


def test_a_token_of_a_directory_that_is_ahead_lasts_as_long_as_any(
    sb: Sandbox, seeded: Seeded, graph_as: Callable[[str, str], Any]
) -> None:
    sb.directory.clock = 30 * 86400
    graph = graph_as(seeded.admin.client_id, seeded.admin_secret.text)
    assert graph.get(f"/{seeded.applications['billing-api'].object_id}").ok


def test_entra_and_graph_tell_the_directorys_time(sb: Sandbox, seeded: Seeded, sign_in: SignIn, graph: Any) -> None:
    sb.directory.clock = 1200
    discovery = f"https://{sb.authority}/{sb.tenant_id}/v2.0/.well-known/openid-configuration"
    for answer in (
        requests.get(discovery, timeout=20),
        sign_in(seeded.admin.client_id, seeded.admin_secret.text),
        sign_in(seeded.admin.client_id, "wrong"),
        graph.get("/nonsense"),
    ):
        ahead = parsedate_to_datetime(answer.headers["Date"]) - datetime.now(timezone.utc)
        assert abs(ahead.total_seconds() - 1200) < 60
