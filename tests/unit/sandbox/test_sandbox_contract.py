# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every answer of the emulated Graph against an excerpt of Microsoft's OpenAPI description of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable

import pytest
import requests

from sandbox import Fault, Sandbox
from sandbox.seed import Seeded

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

DESCRIPTION = Path(__file__).resolve().parent / "data" / "graph-openapi.yml"


def to_json_schema(node: Any) -> Any:
    """OpenAPI 3.0 in the words of JSON Schema: `nullable` becomes a type."""
    if isinstance(node, list):
        return [to_json_schema(one) for one in node]
    if not isinstance(node, dict):
        return node
    schema = {key: to_json_schema(value) for key, value in node.items() if key != "nullable"}
    if node.get("nullable") is True and "type" in schema:
        schema["type"] = [schema["type"], "null"]
    return schema


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    loaded: dict[str, Any] = to_json_schema(yaml.safe_load(DESCRIPTION.read_text(encoding="utf-8")))
    return loaded


Check = Callable[[requests.Response], requests.Response]


@pytest.fixture
def check(description: dict[str, Any]) -> Check:
    """Validate an answer by the path, method and status it belongs to, and hand it back."""

    def validate(answer: requests.Response) -> requests.Response:
        request = answer.request
        path = requests.utils.unquote(requests.utils.urlparse(request.url).path)
        template = re.sub(r"/applications/[^/]+", "/applications/{application-id}", path[len("/v1.0") :])
        template = re.sub(r"appId='[^']*'", "appId='{appId}'", template)
        operation = description["paths"][template][str(request.method).lower()]
        response = operation["responses"]["2XX" if answer.ok else "default"]
        while "$ref" in response:
            response = description["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        if "content" not in response:
            assert answer.content == b""
            return answer
        assert answer.headers["Content-Type"].startswith("application/json")
        schema = {**response["content"]["application/json"]["schema"], "components": description["components"]}
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(answer.json())
        return answer

    return validate


@pytest.mark.parametrize("by", ["object", "client"])
def test_answers_are_as_described(sb: Sandbox, seeded: Seeded, graph: Any, check: Check, by: str) -> None:
    for app in seeded.applications.values():
        address = f"/{app.object_id}" if by == "object" else f"(appId='{app.client_id}')"
        assert check(graph.get(address)).ok
        assert check(graph.get(address, **{"$select": "id,appId,displayName,passwordCredentials"})).ok
        made = check(graph.add(address, displayName="x", endDateTime="2090-01-01T00:00:00Z"))
        assert check(graph.get(address)).ok
        assert check(graph.remove(address, made.json()["keyId"])).status_code == 204
        assert check(graph.remove(address, made.json()["keyId"])).status_code == 400


def test_refusals_are_as_described(sb: Sandbox, seeded: Seeded, graph: Any, check: Check) -> None:
    address = f"/{seeded.applications['crm-sync'].object_id}"
    assert check(graph.get("/not-a-guid")).status_code == 400
    assert check(graph.get(f"/{sb.tenant_id}")).status_code == 404
    assert check(graph.add(f"/{seeded.admin.object_id}")).status_code == 403
    sb.directory.policy_max_days = 1
    assert check(graph.add(address)).status_code == 400
    for kind in ("concurrency409", "concurrency503", "graph429", "status"):
        sb.faults.add(Fault("get_application", kind=kind, retry_after=2.128))
        assert not check(graph.get(address)).ok
    graph.session.headers["Authorization"] = "Bearer x"
    assert check(graph.get(address)).status_code == 401


def test_the_check_can_fail(seeded: Seeded, graph: Any, check: Check) -> None:
    answer = graph.get(f"/{seeded.applications['crm-sync'].object_id}")
    answer._content = answer.content.replace(b'"secretText": null', b'"secretText": 5')
    with pytest.raises(jsonschema.ValidationError):
        check(answer)


def test_lists_and_batches_hold_applications_as_described(
    sb: Sandbox, seeded: Seeded, graph: Any, description: dict[str, Any]
) -> None:
    schema = {**description["components"]["schemas"]["microsoft.graph.application"]}
    validator = jsonschema.Draft202012Validator({**schema, "components": description["components"]})
    names = "id,appId,displayName,passwordCredentials,keyCredentials"
    found = graph.session.get(f"{sb.graph_url}/v1.0/applications?$select={names}&$top=2").json()
    assert len(found["value"]) == 2
    rest = graph.session.get(found["@odata.nextLink"]).json()
    assert "@odata.nextLink" not in rest
    for item in (*found["value"], *rest["value"]):
        validator.validate(item)
        assert set(item) == set(names.split(","))
    batch = {
        "requests": [
            {"id": app.object_id, "method": "GET", "url": f"/applications/{app.object_id}?$select={names}"}
            for app in seeded.applications.values()
        ]
    }
    batch["requests"].append({"id": "none", "method": "GET", "url": f"/applications/{sb.tenant_id}"})
    answers = graph.session.post(f"{sb.graph_url}/v1.0/$batch", json=batch).json()["responses"]
    statuses = {one["id"]: one["status"] for one in answers}
    assert statuses == {**{app.object_id: 200 for app in seeded.applications.values()}, "none": 404}
    for answer in answers:
        if answer["status"] == 200:
            validator.validate(answer["body"])
        else:
            assert answer["body"]["error"]["code"] == "Request_ResourceNotFound"


def test_a_batch_holds_twenty_requests(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    requests_ = [{"id": str(number), "method": "GET", "url": "/applications"} for number in range(21)]
    assert graph.session.post(f"{sb.graph_url}/v1.0/$batch", json={"requests": requests_}).status_code == 400
    assert graph.session.post(f"{sb.graph_url}/v1.0/$batch", json={"requests": requests_[:20]}).status_code == 200


def test_owners_and_service_principals_are_told(sb: Sandbox, seeded: Seeded, graph: Any) -> None:
    app = seeded.applications["crm-sync"]
    app.users["7f0b0335-1d71-4883-8f98-567911bfdca6"] = None
    owners = graph.get(f"/{app.object_id}/owners", **{"$select": "id,displayName"}).json()["value"]
    assert [one["displayName"] for one in owners] == ["keeper-rotator", None]
    url = f"{sb.graph_url}/v1.0/servicePrincipals(appId='{app.client_id}')?$select=id,passwordCredentials"
    assert set(graph.session.get(url).json()) == {"@odata.context", "id", "passwordCredentials"}
    app.service_principal = False
    assert graph.session.get(url).status_code == 404
