# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The YAML of the role gateway_host: what it says to people, what it hands to the host, what it documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
ROLE = CHECKOUT / "roles" / "gateway_host"
PLAYBOOK = CHECKOUT / "playbooks" / "provision_gateway_host.yml"
FILES = [*sorted((ROLE / "tasks").glob("*.yml")), PLAYBOOK]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def tasks(found: Any) -> Iterator[dict[str, Any]]:
    """Yield every task, block and play below what was loaded."""
    if isinstance(found, list):
        for one in found:
            yield from tasks(one)
    elif isinstance(found, dict):
        yield found
        for key in ("block", "rescue", "always", "tasks"):
            yield from tasks(found.get(key))


def texts(found: Any) -> Iterator[str]:
    """Yield what a module says to people."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key in ("msg", "fail_msg", "success_msg") and isinstance(value, str):
                yield value
            yield from texts(value)
    elif isinstance(found, list):
        for one in found:
            yield from texts(one)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_text_is_one_line(path: Path) -> None:
    # Ansible shows a line's end within a text as \n.
    for text in texts(load(path)):
        assert "\n" not in re.sub(r"\{\{.*?\}\}", "", text, flags=re.DOTALL), text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_is_given_by_a_command_line_that_may_be_secret(path: Path) -> None:
    # Ansible writes a task's `environment` into the command that it runs, and sudo logs that.
    for task in tasks(load(path)):
        assert "environment" not in task
        command = task.get("ansible.builtin.command", {})
        for secret in ("gateway_host_token", "gateway_host_proxy", "gateway_host_index_url"):
            assert secret not in str(command.get("argv", ""))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_fails_without_a_word_is_told_by_the_next_task(path: Path) -> None:
    for task in tasks(load(path)):
        if task.get("no_log"):
            assert task.get("failed_when") is False, task["name"]


def test_every_variable_is_documented() -> None:
    defaults = load(ROLE / "defaults" / "main.yml")
    options = load(ROLE / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    assert {name: option.get("default") for name, option in options.items()} == defaults
    readme = (ROLE / "README.md").read_text("utf-8")
    assert [name for name in defaults if f"`{name}`" not in readme] == []


def test_every_part_has_a_tag() -> None:
    main = {task["name"]: task for task in tasks(load(ROLE / "tasks" / "main.yml"))}
    tags = {tag for task in main.values() for tag in [task.get("tags")] if isinstance(tag, str)}
    tags |= {tag for task in main.values() if isinstance(task.get("tags"), list) for tag in task["tags"]}
    parts = {f"gateway_host_{part}" for part in ("python", "environment", "gateway", "arc", "checks")}
    assert tags == parts | {"always"}
    for task in main.values():
        include = task.get("ansible.builtin.include_tasks")
        if isinstance(include, dict):
            assert include["apply"]["tags"] == task["tags"]
