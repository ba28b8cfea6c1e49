# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each kind of fault does what it says, to the wire and to the truth."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable

import pytest
import requests
from keeper_secrets_manager_core.exceptions import KeeperError

from sandbox import Fault, Sandbox, SandboxError
from sandbox.directory import Application
from sandbox.seed import Seeded

BROKEN = (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)


@pytest.fixture
def app(seeded: Seeded) -> Application:
    return seeded.applications["billing-api"]


@pytest.mark.parametrize(("moment", "secrets"), [("before", 1), ("after", 2)])
@pytest.mark.parametrize("kind", ["drop", "truncate"])
def test_a_broken_answer_leaves_the_outcome_to_the_moment(
    sb: Sandbox, app: Application, graph: Any, kind: str, moment: str, secrets: int
) -> None:
    sb.faults.add(Fault("addPassword", kind=kind, moment=moment))
    with pytest.raises(BROKEN):
        graph.add(f"/{app.object_id}")
    assert len(app.live_secrets()) == secrets
    assert sb.log[-1].fault == kind
    assert graph.add(f"/{app.object_id}").ok


@pytest.mark.parametrize(("moment", "secrets"), [("before", 1), ("after", 2)])
@pytest.mark.parametrize(
    ("fault", "status", "code", "retry_after"),
    [
        ({"kind": "status", "status": 504}, 504, "GatewayTimeout", None),
        ({"kind": "concurrency409"}, 409, "Directory_ConcurrencyViolation", None),
        (
            {"kind": "concurrency503", "retry_after": "Fri, 31 Dec 2100 23:59:59 GMT"},
            503,
            "Directory_ConcurrencyViolation",
            "Fri, 31 Dec 2100 23:59:59 GMT",
        ),
        ({"kind": "graph429", "retry_after": 2.128}, 429, "TooManyRequests", "2.128"),
    ],
)
def test_an_error_in_place_of_the_answer(
    sb: Sandbox,
    app: Application,
    graph: Any,
    moment: str,
    secrets: int,
    fault: dict[str, Any],
    status: int,
    code: str,
    retry_after: str,
) -> None:
    sb.faults.add(Fault("addPassword", moment=moment, **fault))
    answer = graph.add(f"/{app.object_id}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers.get("Retry-After") == retry_after
    assert len(app.live_secrets()) == secrets
    assert sb.log[-1].status == status


def test_a_status_with_a_body_and_headers_of_its_own(sb: Sandbox, app: Application, graph: Any) -> None:
    sb.faults.add(Fault("get_application", kind="status", status=418, body={"a": 1}, headers={"X-A": "b"}))
    answer = graph.get(f"/{app.object_id}")
    assert (answer.status_code, answer.json(), answer.headers["X-A"]) == (418, {"a": 1}, "b")
    sb.faults.add(Fault("get_application", kind="status", status=200, body="text"))
    assert graph.get(f"/{app.object_id}").text == "text"


def test_a_gateway_in_between_answers_in_html(sb: Sandbox, app: Application, graph: Any) -> None:
    sb.faults.add(Fault("get_application", kind="html502"))
    answer = graph.get(f"/{app.object_id}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (502, "text/html")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_delayed_effect_comes_at_its_moment_though_the_client_is_gone(
    sb: Sandbox, app: Application, graph: Any, moment: str
) -> None:
    sb.faults.add(Fault("addPassword", kind="delay", seconds=0.8, moment=moment))
    graph.session.post(f"{graph.root}/applications/{app.object_id}", timeout=20)
    with pytest.raises(requests.exceptions.ReadTimeout):
        graph.session.post(f"{graph.root}/applications/{app.object_id}/addPassword", json={}, timeout=0.2)
    assert len(app.live_secrets()) == (1 if moment == "before" else 2)
    time.sleep(0.9)
    assert len(app.live_secrets()) == 2


def test_a_delay_does_not_hold_up_others(sb: Sandbox, app: Application, graph: Any) -> None:
    sb.faults.add(Fault("addPassword", kind="delay", seconds=1.5))
    slow = threading.Thread(target=lambda: graph.add(f"/{app.object_id}"))
    slow.start()
    time.sleep(0.2)
    begun = time.monotonic()
    assert requests.get(f"{graph.root}/applications/{app.object_id}", headers=graph.session.headers, timeout=20).ok
    assert time.monotonic() - begun < 1
    slow.join()
    assert len(app.live_secrets()) == 2


def test_nth_and_times_count_matching_requests(sb: Sandbox, app: Application, graph: Any, seeded: Seeded) -> None:
    other = seeded.applications["crm-sync"]
    sb.faults.add(Fault("get_application", nth=2, times=2, about=app.object_id))
    statuses = [graph.get(f"/{one.object_id}").status_code for one in (app, other, app, other, app, app)]
    assert statuses == [200, 200, 500, 200, 500, 200]
    assert len(sb.faults.fired) == 2
    sb.faults.add(Fault("*", times=None))
    assert [graph.get(f"/{app.object_id}").status_code for _number in range(3)] == [500] * 3
    sb.faults.clear()
    assert graph.get(f"/{app.object_id}").ok


def test_a_fault_that_cannot_be_is_refused() -> None:
    for wrong in ({"kind": "nonsense"}, {"moment": "during"}, {"nth": 0}, {"then": "sing"}):
        with pytest.raises(ValueError, match=r"."):
            Fault("token", **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "exception", "text"),
    [
        ("throttled429", KeeperError, "throttled"),
        ("html502", requests.HTTPError, "502"),
        ("out_of_sync", KeeperError, "out of sync"),
        ("status", KeeperError, "internal_error"),
    ],
)
@pytest.mark.parametrize(("moment", "value"), [("before", "old"), ("after", "new")])
def test_keepers_own_answers(
    sb: Sandbox, ksm: Callable[..., Any], kind: str, exception: type[Exception], text: str, moment: str, value: str
) -> None:
    record = sb.vault.pam_user("app", client_secret="old")
    manager = ksm()
    (copy,) = manager.get_secrets([record.uid])
    copy.custom_field("client_secret", value="new")
    sb.faults.add(Fault("update_secret", kind=kind, moment=moment, about=record.uid))
    with pytest.raises(exception, match=text):
        manager.save(copy)
    assert record.value("client_secret") == value


def test_a_403_throttle_is_waited_out_by_the_sdk(sb: Sandbox, ksm: Callable[..., Any]) -> None:
    sb.faults.add(Fault("get_secret", kind="throttled403", retry_after=0.1))
    assert ksm().get_secrets() == []
    assert [entry.status for entry in sb.log] == [403, 200]


def test_another_key_id_makes_the_sdk_ask_again(sb: Sandbox, ksm: Callable[..., Any]) -> None:
    sb.faults.add(Fault("get_secret", kind="key", key_id=999))
    assert ksm().get_secrets() == []
    assert [entry.fault for entry in sb.log] == ["key", None]


CLIENT = """
import sys, requests
try:
    requests.post(sys.argv[1], headers={"Authorization": "Bearer " + sys.argv[2]}, json={}, timeout=30)
except requests.exceptions.ConnectionError:
    sys.exit(7)
sys.exit(0)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("number", "then", "returncode"),
    [(signal.SIGKILL, "drop", -signal.SIGKILL), (signal.SIGCONT, "drop", 7), (signal.SIGCONT, "answer", 0)],
)
def test_kill_sends_the_signal_at_its_moment(
    sb: Sandbox, app: Application, graph: Any, moment: str, number: int, then: str, returncode: int
) -> None:
    sb.faults.add(Fault("addPassword", kind="kill", signal=number, moment=moment, then=then, seconds=0.5))
    argv = [
        sys.executable,
        "-c",
        CLIENT,
        f"{graph.root}/applications/{app.object_id}/addPassword",
        graph.session.headers["Authorization"].split()[1],
    ]
    with subprocess.Popen(argv, env=sb.environ()) as process:
        sb.client_pid = process.pid
        assert process.wait(20) == returncode
    assert len(app.live_secrets()) == (1 if moment == "before" else 2)


def test_kill_may_be_a_callable_of_the_harness(sb: Sandbox, app: Application, graph: Any) -> None:
    sent: list[int] = []
    sb.on_kill = sent.append
    sb.faults.add(Fault("addPassword", kind="kill", signal=2, seconds=0))
    with pytest.raises(BROKEN):
        graph.add(f"/{app.object_id}")
    assert sent == [2]


def test_kill_without_a_client_fails_the_test_and_not_just_a_connection() -> None:
    sb = Sandbox().start()
    sb.faults.add(Fault("discovery", kind="kill", seconds=0))
    with pytest.raises(BROKEN):
        requests.get(f"https://{sb.authority}/x/v2.0/.well-known/openid-configuration", verify=sb.ca_file, timeout=20)
    with pytest.raises(SandboxError):
        sb.stop()
