# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the checks of a Gateway's host say, and what they say to do."""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox import Sandbox

CHECK_HOST = Path(__file__).resolve().parents[3] / "roles" / "gateway_host" / "files" / "check_host.py"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Return services to reach."""
    with Sandbox() as made:
        made.vault.pam_user("billing-api", folder=made.vault.folder_uid)
        yield made


@pytest.fixture
def config(sandbox: Sandbox, tmp_path: Path) -> Path:
    """Return the path of the Gateway's configuration."""
    path = tmp_path / "gateway-config.json"
    path.write_text(json.dumps(sandbox.client_config()), encoding="utf-8")
    path.chmod(0o600)
    return path


def look(sandbox: Sandbox, config: Path | None, *checks: str, **environ: str | None) -> dict[str, Any]:
    """Make the checks and return what they found."""
    command = [sys.executable, str(CHECK_HOST), *checks]
    command += ["--entra", f"https://{sandbox.authority}", "--graph", sandbox.graph_url]
    command += ["--config", str(config)] if config else []
    environment = sandbox.environ(GATEWAY_CONFIG=None, HOME="/nonexistent") | {
        name: value for name, value in environ.items() if value is not None
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_all_is_well(sandbox: Sandbox, config: Path) -> None:
    before = config.read_bytes(), config.stat().st_mtime_ns
    found = look(sandbox, config)
    assert [name for name, finding in found.items() if not finding["ok"]] == []
    assert list(found) == ["imports", "configuration", "keeper", "vault", "entra", "graph", "clock"]
    assert found["vault"]["message"].endswith("shares 1 record(s)")
    assert (config.read_bytes(), config.stat().st_mtime_ns) == before


def test_the_configuration_may_be_in_the_environment(sandbox: Sandbox) -> None:
    text = base64.b64encode(json.dumps(sandbox.client_config()).encode()).decode()
    assert look(sandbox, None, "vault", GATEWAY_CONFIG=text)["vault"]["ok"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no configuration of the Gateway at"),
        ("", "is neither JSON nor base64 of it"),
        ("not a configuration", "is neither JSON nor base64 of it"),
        ("[]", "is neither JSON nor base64 of it"),
        ('{"hostname": "localhost"}', "lacks clientId, privateKey, appKey"),
        ('{"hostname": "localhost", "clientKey": "one-time"}', "is not bound to a device yet: start the Gateway"),
    ],
)
def test_a_bad_configuration(sandbox: Sandbox, config: Path, text: str | None, message: str) -> None:
    if text is None:
        config.unlink()
    else:
        config.write_text(text, encoding="utf-8")
    for check in ("configuration", "vault"):
        finding = look(sandbox, config, check)[check]
        assert not finding["ok"]
        assert message in finding["message"]
    # It is read, never made.
    assert config.exists() is (text is not None)
    assert text is None or config.read_text(encoding="utf-8") == text


def test_a_vault_that_says_no(sandbox: Sandbox, config: Path) -> None:
    stranger = {**json.loads(config.read_text(encoding="utf-8")), "clientId": base64.b64encode(bytes(64)).decode()}
    config.write_text(json.dumps(stranger), encoding="utf-8")
    finding = look(sandbox, config, "vault")["vault"]
    assert not finding["ok"]
    assert "install the Gateway again, with a new one-time token" in finding["message"]


def test_a_configuration_that_is_kept_in_aws(sandbox: Sandbox) -> None:
    finding = look(sandbox, None, "configuration", AWS_KMS_SECRET_NAME="gateway-1")["configuration"]
    assert not finding["ok"]
    assert "AWS Secrets Manager, as gateway-1, where a PAM Script does not read it" in finding["message"]
    assert "KSM_CONFIG_FILE" in finding["message"]


def test_services_that_are_not_reached(sandbox: Sandbox, config: Path) -> None:
    found = look(sandbox, config, "entra", "graph", "keeper", "clock", HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY="")
    for name in ("entra", "graph", "keeper"):
        assert "is not reached" in found[name]["message"]
        assert "HTTPS_PROXY" in found[name]["message"]
    assert "the clock cannot be compared" in found["clock"]["message"]


def test_a_certificate_that_is_not_trusted(sandbox: Sandbox, config: Path) -> None:
    finding = look(sandbox, config, "graph", REQUESTS_CA_BUNDLE="", SSL_CERT_FILE="")["graph"]
    assert "does not prove who it is" in finding["message"]
    assert "REQUESTS_CA_BUNDLE" in finding["message"]


def test_a_clock_that_is_wrong(sandbox: Sandbox, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("check_host", CHECK_HOST)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", sandbox.ca_file)
    host = module.Host(argparse.Namespace(entra=f"https://{sandbox.authority}", graph="", config=str(config)))
    # Its clock alone: the sandbox's is right.
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: time.time() - 90))
    finding = module.look(host.clock)
    assert not finding["ok"]
    assert "seconds behind: have it set" in finding["message"]
