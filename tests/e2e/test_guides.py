# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guides' own commands are run as they stand there, with the example's ids in place of those of an account.

What is not run says so in its first line, and is counted here: what needs a tenant, a cluster or a vault, and what the
tests on booted hosts run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from commander_process import commander_python
from fleets import make_fleet
from harness import CHECKOUT, SCRIPT, make_world

from commander import KeeperServer
from sandbox import Sandbox

README = CHECKOUT / "README.md"
GUIDES = sorted((CHECKOUT / "docs" / "docsite" / "rst").glob("*.rst"))
NOT_RUN, ELSEWHERE = "# not run by tests", "# run by the tests on booted hosts"
#: The blocks of the guides, by what becomes of them.
COUNTS = {"run here": 13, "run on booted hosts": 3, "not run": 19}
_RST = re.compile(r"^( *)\.\. code-block:: (bash|yaml)\n\n((?:\1   .*\n|\n)+)", re.MULTILINE)
_FENCED = re.compile(r"^```(yaml|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Some lines of a guide, without their indentation."""

    guide: str
    kind: str
    text: str

    def fate(self) -> str:
        """Return what becomes of it."""
        first = self.text.splitlines()[0]
        if first.startswith(NOT_RUN):
            return "not run"
        return "run on booted hosts" if first.startswith(ELSEWHERE) or "booted hosts" in first else "run here"

    def commands(self) -> list[str]:
        """Return its commands, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks(path: Path) -> list[Block]:
    """Return the blocks of bash and YAML of a guide, or of the README."""
    text = path.read_text("utf-8")
    found = [(kind, body) for _indent, kind, body in _RST.findall(text)] + _FENCED.findall(text)
    return [Block(path.name, kind, textwrap.dedent(body).strip() + "\n") for kind, body in found]


def file_named(path: Path, name: str, values: Mapping[str, str]) -> str:
    """Return the file with this name in its first line, with these values in place of the example's.

    Each of the example's must be there.
    """
    (text,) = [block.text for block in blocks(path) if block.text.startswith(f"# {name}\n")]
    for example, value in values.items():
        assert example in text
        text = text.replace(example, value)
    return text


def ours(path: Path) -> list[str]:
    """Return the commands of a guide that are run here."""
    return [line for one in blocks(path) if one.kind == "bash" and one.fate() == "run here" for line in one.commands()]


def run(command: str, home: Path, environ: dict[str, str]) -> str:
    """Run a command of a guide; return what it says. It must end well."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH') or os.environ['PATH']}"
    names = ("ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_CONFIG", "ANSIBLE_NOCOLOR", "ANSIBLE_PYTHON_INTERPRETER")
    settings = {**environ, "HOME": str(home), "PATH": path, "LC_ALL": "C.UTF-8"}
    settings.update({name: os.environ[name] for name in names if name in os.environ})
    done = subprocess.run(
        ["bash", "-c", command], cwd=home, env=settings, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_every_block_is_run_or_says_that_it_is_not() -> None:
    found = [block for path in GUIDES for block in blocks(path)]
    assert Counter(block.fate() for block in found) == COUNTS
    of_others = re.compile(r"\b(?:az|keeper|openssl|systemctl|pipx) ")
    for block in found:
        assert block.fate() != "run here" or not of_others.match(block.text), block
    assert [line for path in GUIDES for line in ours(path)] == [WAVES, REPORT, *ATTACH[:2], LIST, *ATTACH[2:]]


WAVES = "ansible-playbook keeperpam.azure.rotate -i all.app_records.yml -e @waves.yml"
REPORT = "ansible-playbook keeperpam.azure.report -e @report.yml"
CRON = r"^   15 5 \* \* \*  rotator  (/opt/ansible/venv/bin/ansible-playbook .*)$"
LIST = "ansible-galaxy collection list keeperpam.azure"
_ATTACH = "ansible-playbook keeperpam.azure.attach_pam_script -e @attach.yml"
ATTACH = [
    f"{_ATTACH} --check --diff",
    _ATTACH,
    f"{_ATTACH} -e attach_state=absent --check --diff",
    f"{_ATTACH} -e attach_state=absent",
]


def test_the_lines_of_set_up_keeper(tmp_path: Path) -> None:
    """From an empty vault to an attached script, and back."""
    guide = CHECKOUT / "docs" / "docsite" / "rst" / "set_up_keeper.rst"
    with Sandbox() as sandbox, KeeperServer(sandbox, commander_python()) as keeper:
        admin = sandbox.directory.add_application("keeper-rotator", roles=["Application.ReadWrite.OwnedBy"])
        app = sandbox.directory.add_application("billing-api", owners=[admin.client_id])
        values = {
            "5f2d6c0b-3b1a-4f6e-9c55-0d4a9a3b7e44": sandbox.tenant_id,
            "ec64d6ec-23f2-4391-ac66-58e4b52472f2": admin.client_id,
            "2f6c2b1e-1d0c-4c55-8d6e-3f6a2b9c7d10": app.object_id,
        }
        (tmp_path / "attach.yml").write_text(file_named(guide, "attach.yml", values), "utf-8")
        (tmp_path / ".keeper").mkdir()
        keeper.write_config(tmp_path / ".keeper" / "config.json")
        path = f"{Path(keeper.python).parent}{os.pathsep}{os.environ['PATH']}"
        environ = keeper.environ(tmp_path, PATH=path, ROTATOR_SECRET=admin.add_secret("rotator", days=180).text)
        said = [run(line, tmp_path, environ) for line in ours(guide) if line != LIST]
        assert [re.findall(r"changed=(\d+)", one) for one in said] == [["1"]] * 4, said
        assert keeper.account.record("billing-api").files == []
        assert (tmp_path / "gateway-1.b64").stat().st_mode & 0o777 == 0o600


def test_the_guides_of_fleets_reports_and_awx(tmp_path: Path) -> None:
    """The task for a fleet, the report with its file, both inventories, the playbook of a job template."""
    guides = CHECKOUT / "docs" / "docsite" / "rst"
    with make_world() as world:
        config = tmp_path / "ksm-config.json"
        config.write_text(json.dumps(world.sandbox.client_config()), "utf-8")
        config.chmod(0o600)
        environ = world.sandbox.environ(GATEWAY_CONFIG=None, KSM_CONFIG_FILE=str(config))

        values = {"WoGYFu4XQpD0bHTnk13PKw": world.configuration.uid, "/etc/keeper/ksm-config.json": str(config)}
        report = file_named(guides / "report.rst", "report.yml", {**values, "/srv/reports": str(tmp_path)})
        (tmp_path / "report.yml").write_text(report, "utf-8")
        assert "failed=0" in run(REPORT, tmp_path, environ)
        assert world.record.uid in (tmp_path / "entra.html").read_text("utf-8")

        job = file_named(
            guides / "report.rst",
            "/etc/keeper/report.yml",
            {**values, "/srv/reports": str(tmp_path), "/var/lib/prometheus/node-exporter": str(tmp_path)},
        )
        (tmp_path / "job.yml").write_text(job, "utf-8")
        (line,) = re.findall(CRON, (guides / "report.rst").read_text("utf-8"), re.MULTILINE)
        line = line.replace("/opt/ansible/venv/bin", str(Path(sys.executable).parent))
        assert "failed=0" in run(line.replace("/etc/keeper/report.yml", str(tmp_path / "job.yml")), tmp_path, environ)
        metrics = (tmp_path / "keeperpam_azure.prom").read_text("utf-8")
        assert 'keeperpam_azure_source_up{source="applications"} 1' in metrics
        assert {path.name for path in tmp_path.glob("entra.*")} == {"entra.html", "entra.json", "entra.csv"}

        inventory, imported, slices = (block.text for block in blocks(guides / "awx.rst"))
        for name, text in (("all", inventory), ("slices", slices)):
            (tmp_path / f"{name}.app_records.yml").write_text(text, "utf-8")
        groups = json.loads(run("ansible-inventory -i slices.app_records.yml --list", tmp_path, environ))
        assert [one for one in groups if one.startswith("slice_")], groups
        (tmp_path / "imported.yml").write_text(imported, "utf-8")
        line = f"ansible-playbook imported.yml -i all.app_records.yml -e rotate_pam_config={world.configuration.uid}"
        said = run(f"{line} -e rotate_hosts=expiring -e rotate_retire_after=0", tmp_path, environ)
        assert re.search(rf"{world.record.uid} +: ok=\d+ +changed=1 ", said), said
        assert world.agrees()

        task = blocks(guides / "fleets.rst")[0].text
        play = "- hosts: localhost\n  gather_facts: false\n  tasks:\n" + textwrap.indent(task, "    ")
        (tmp_path / "play.yml").write_text(play.replace("/etc/keeper/ksm-config.json", str(config)), "utf-8")
        given = {"application_record_uids": [world.record.uid], "pam_configuration_uid": world.configuration.uid}
        said = run(f"ansible-playbook play.yml -e '{json.dumps(given)}'", tmp_path, environ)
        assert "changed=0" in said


def test_the_waves_of_the_guide_of_fleets(tmp_path: Path) -> None:
    """Its line with its file, twice: the second time there is nothing left to do."""
    guides = CHECKOUT / "docs" / "docsite" / "rst"
    with make_fleet(7) as fleet:
        config = tmp_path / "ksm-config.json"
        config.write_text(json.dumps(fleet.first.sandbox.client_config()), "utf-8")
        config.chmod(0o600)
        environ = fleet.first.sandbox.environ(GATEWAY_CONFIG=None, KSM_CONFIG_FILE=str(config))
        values = {"WoGYFu4XQpD0bHTnk13PKw": fleet.first.configuration.uid, "/etc/keeper/ksm-config.json": str(config)}
        (tmp_path / "waves.yml").write_text(file_named(guides / "fleets.rst", "waves.yml", values), "utf-8")
        (tmp_path / "all.app_records.yml").write_text(blocks(guides / "awx.rst")[0].text, "utf-8")
        for changes in (7, 0):
            said = run(WAVES, tmp_path, environ)
            assert said.count("TASK [Rotate a wave]") == 3  # of three, three and one
            assert said.count("changed=1 ") == changes
            assert all(world.agrees() and not world.untouched() for world in fleet.worlds)


def test_where_the_script_lies(tmp_path: Path) -> None:
    """The directory that the line shows, and what the guide says lies below it."""
    said = run(LIST, tmp_path, {})
    (folder,) = re.findall(r"^# (/.*)$", said, re.MULTILINE)
    assert (Path(folder) / "keeperpam" / "azure" / "playbooks" / "files" / SCRIPT.name).read_bytes() == (
        SCRIPT.read_bytes()
    )


def test_the_readme_with_ansible(tmp_path: Path) -> None:
    """Its playbook line with its file, and its task."""
    with make_world() as world:
        config = tmp_path / "ksm-config.json"
        config.write_text(json.dumps(world.sandbox.client_config()), "utf-8")
        config.chmod(0o600)
        second = world.sandbox.directory.add_application("orders", owners=[world.admin.client_id])
        vault = world.sandbox.vault
        other = vault.pam_user("orders", folder=vault.folder_uid, application_object_id=second.object_id)
        values = {
            "ZmpJl4qCXJEi0ohFKzzQaA": world.record.uid,
            "DpR8i4oUY7LfnmYeumxFaw": other.uid,
            "WoGYFu4XQpD0bHTnk13PKw": world.configuration.uid,
            "/etc/keeper/ksm-config.json": str(config),
        }
        (tmp_path / "rotation.yml").write_text(file_named(README, "rotation.yml", values), "utf-8")
        environ = world.sandbox.environ(GATEWAY_CONFIG=None)
        (line,) = re.findall(r"^    (ansible-playbook .*@rotation\.yml)$", README.read_text("utf-8"), re.MULTILINE)
        assert "2 records: 2 rotated" in run(line, tmp_path, environ)
        assert world.agrees()
        (task,) = [one.text for one in blocks(README) if one.text.startswith("- name: Rotate the secret of")]
        del values["DpR8i4oUY7LfnmYeumxFaw"]
        for example, value in values.items():
            task = task.replace(example, value)
        play = "- hosts: localhost\n  gather_facts: false\n  tasks:\n" + textwrap.indent(task, "    ")
        (tmp_path / "play.yml").write_text(play, "utf-8")
        assert "changed=0" in run("ansible-playbook play.yml", tmp_path, environ)
        assert world.agrees()


def test_the_readme_s_report(tmp_path: Path) -> None:
    with make_world() as world:
        config = tmp_path / "ksm-config.json"
        config.write_text(json.dumps(world.sandbox.client_config()), "utf-8")
        config.chmod(0o600)
        text = README.read_text("utf-8")
        (line,) = re.findall(r"^    (ansible-playbook keeperpam\.azure\.report (?:.*\\\n)*.*)$", text, re.MULTILINE)
        for example, value in {
            "WoGYFu4XQpD0bHTnk13PKw": world.configuration.uid,
            "/etc/keeper/ksm-config.json": str(config),
        }.items():
            assert example in line
            line = line.replace(example, value)
        assert "failed=0" in run(line, tmp_path, world.sandbox.environ(GATEWAY_CONFIG=None))
        assert world.record.uid in (tmp_path / "entra.html").read_text("utf-8")


def test_the_readme_s_doctor(tmp_path: Path) -> None:
    with make_world() as world:
        (line,) = re.findall(r"`(/opt/\S*python3 rotate_azure_app\.py --doctor [^`]*)`", README.read_text("utf-8"))
        for example, value in {
            "/opt/keeper-azure-rotation/venv/bin/python3": sys.executable,
            "rotate_azure_app.py": str(SCRIPT),
            "RECORD_UID": world.record.uid,
            "PAM_CONFIG_UID": world.configuration.uid,
        }.items():
            assert example in line
            line = line.replace(example, value)
        assert "UNCHANGED 'billing-api'" in run(line, tmp_path, world.sandbox.environ())
        assert world.untouched()
