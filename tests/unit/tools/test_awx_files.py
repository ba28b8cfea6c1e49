# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files for AWX: what AWX asks of each, and the names that the playbook knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import validate

CHECKOUT = Path(__file__).resolve().parents[3]
AWX = CHECKOUT / "playbooks" / "awx"
BUILDER = str(Path(sys.executable).with_name("ansible-builder"))
TEXT = {"type": "string"}
SURVEY = {
    "type": "object",
    "required": ["name", "description", "spec"],
    "additionalProperties": False,
    "properties": {
        "name": TEXT,
        "description": TEXT,
        "spec": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["variable", "question_name", "question_description", "type", "required", "default"],
                "additionalProperties": False,
                "properties": {
                    "variable": {"type": "string", "pattern": "^rotate_[a-z_]+$"},
                    "question_name": TEXT,
                    "question_description": TEXT,
                    "type": {"enum": ["text", "textarea", "integer", "multiplechoice"]},
                    "required": {"type": "boolean"},
                    "default": {"type": ["string", "integer"]},
                    "choices": {"type": "array", "items": TEXT},
                    "min": {"type": "integer"},
                    "max": {"type": "integer"},
                },
            },
        },
    },
}
CREDENTIAL_TYPE = {
    "type": "object",
    "required": ["name", "kind", "inputs", "injectors"],
    "properties": {
        "kind": {"enum": ["cloud", "net"]},
        "inputs": {
            "type": "object",
            "required": ["fields"],
            "properties": {
                "fields": {"type": "array", "items": {"type": "object", "required": ["id", "label", "type"]}}
            },
        },
        "injectors": {"type": "object", "required": ["env"], "additionalProperties": False, "properties": {"env": {}}},
    },
}


def load(name: str) -> Any:
    return yaml.safe_load((AWX / name).read_text("utf-8"))


def test_the_survey_asks_for_variables_of_the_playbook():
    survey = load("survey.yml")
    validate(survey, SURVEY)
    play = yaml.safe_load((CHECKOUT / "playbooks" / "rotate.yml").read_text("utf-8"))[0]
    known = {f"rotate_{name}" for name in play["vars"]["_rotate_names"]}
    assert {one["variable"] for one in survey["spec"]} <= known
    for one in survey["spec"]:
        assert ("choices" in one) is (one["type"] == "multiplechoice")
        assert one.get("choices") is None or one["default"] in one["choices"]


def test_the_credential_goes_into_the_environment_alone():
    found = load("credential_type.yml")
    validate(found, CREDENTIAL_TYPE)
    assert all(field["secret"] for field in found["inputs"]["fields"])
    assert found["injectors"]["env"] == {"KSM_CONFIG": "{{ config }}"}


@pytest.mark.skipif(not Path(BUILDER).exists(), reason="needs ansible-builder")
def test_the_execution_environment_is_one(tmp_path):
    command = [BUILDER, "create", "-f", str(AWX / "execution-environment.yml"), "-c", str(tmp_path), "-v1"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert list(tmp_path.glob("*file"))
    requirements = yaml.safe_load((tmp_path / "_build" / "requirements.yml").read_text("utf-8"))
    assert requirements == {"collections": [{"name": "keeperpam.azure"}]}


@pytest.mark.skipif(not Path(BUILDER).exists(), reason="needs ansible-builder")
def test_what_an_execution_environment_needs_is_found(tmp_path):
    place = tmp_path / "ansible_collections" / "keeperpam"
    place.mkdir(parents=True)
    (place / "azure").symlink_to(CHECKOUT)
    done = subprocess.run([BUILDER, "introspect", str(tmp_path)], check=True, capture_output=True, text=True)
    for name in ("msal", "requests", "keeper-secrets-manager-core", "ca-certificates"):
        assert name in done.stdout
