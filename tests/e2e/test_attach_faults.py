# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each request of a set-up from nothing is refused, loses its answer, or is the last one: the next run completes."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from commander_office import Office, make_office

from sandbox import Fault

#: The requests that change something, in the order of a set-up; the second get_secret is the one that binds.
CHANGES = (
    ("folder_add", 1),
    ("application_add", 1),
    ("app_share_add", 1),
    ("app_client_add", 1),
    ("get_secret", 2),
    ("add_configuration_record", 1),
    ("move", 1),
    ("set_configuration_controller", 1),
    ("router/configure_network_graph", 1),
    ("records_add", 1),
    ("router/add_data", 1),
    ("router/set_record_rotation", 1),
    ("files_add", 1),
    ("store_put", 1),
    ("records_update", 1),
)
#: Those that only look; the first sync that fails is before anything is made, the last one after all of it.
LOOKS = (
    ("start_login", 1),
    ("account_summary", 1),
    ("sync_down", 1),
    ("sync_down", 4),
    ("sync_down", 7),
    ("get_record_types", 1),
    ("get_controllers", 2),
    ("get_app_info", 1),
    ("get_configuration_controller", 1),
    ("router/sync", 2),
    ("files_download", 1),
    ("store_get", 1),
)
KINDS = {
    "refused": {"kind": "status", "status": 403},
    "lost": {"kind": "drop", "moment": "after"},
    "killed": {"kind": "kill", "signal": 9, "moment": "after"},
}
CASES = [(op, nth, kind) for op, nth in CHANGES for kind in KINDS]
CASES += [(op, nth, kind) for op, nth in LOOKS for kind in ("refused", "lost")]


def nothing_is_doubled(office: Office) -> bool:
    """Whether there is one of each thing, and what is kept of the Gateway is what it was made with."""
    account = office.keeper.account
    (app,) = account.apps.values()
    clients = list(app.clients)
    content = json.loads(base64.b64decode((office.home / "gateway.b64").read_text("utf-8")))
    return (
        len(account.folders) == 1
        and len(clients) == 1
        and content["clientId"] == clients[0]
        and "clientKey" not in content
        and base64.b64decode(content["appKey"]) == app.key
        and len(office.sandbox.vault.records) == 2
        and len(office.entries()) == len(office.record().files) == 1
    )


@pytest.mark.parametrize(("op", "nth", "kind"), CASES, ids=[f"{op}-{nth}-{kind}" for op, nth, kind in CASES])
def test_a_second_run_completes(tmp_path: Path, op: str, nth: int, kind: str) -> None:
    with make_office(tmp_path) as office:
        fault = office.sandbox.faults.add(Fault(op, nth, **KINDS[kind]))  # type: ignore[arg-type]
        ended = office.run()
        assert office.sandbox.faults.fired == [fault]
        if ended.result and not ended.failed:
            assert office.complete(), "it says that it is done, and is not"
        elif ended.result:
            assert ended.status in ("refused", "incomplete")
            assert "Next: " in ended.message
            if ended.status == "refused":
                assert not office.asked().keys() & {name for name, _nth in CHANGES} - {op}
        office.sandbox.faults.clear()
        office.set_up()
        assert office.complete()
        assert nothing_is_doubled(office)
