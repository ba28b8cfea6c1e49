# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one file that is attached as a PAM Script is fresh, plain and fit for the oldest Python."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.version import VERSION

ROOT = Path(__file__).resolve().parents[4]
SCRIPT = ROOT / "playbooks" / "files" / "rotate_azure_app.py"
pytestmark = pytest.mark.skipif(not (ROOT / "tools").is_dir(), reason="only in a checkout")


@pytest.fixture(scope="module")
def tree() -> ast.Module:
    return ast.parse(SCRIPT.read_text("utf-8"), feature_version=(3, 9))


def names_called(tree: ast.Module) -> set[str]:
    functions = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {ast.unparse(function) for function in functions}


def test_it_is_fresh():
    run = subprocess.run(
        [sys.executable, ROOT / "tools" / "amalgamate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "is fresh" in run.stdout


def test_python_3_7_can_read_it_as_far_as_the_words_for_it():
    """It says itself what it needs, so that its syntax must be that of Pythons on which it does not run."""
    text = SCRIPT.read_text("utf-8")
    ast.parse(text, feature_version=(3, 7))
    assert text.isascii()
    first = [node for node in ast.parse(text).body[1:] if not isinstance(node, ast.ImportFrom)]
    assert ast.unparse(first[0]) == "import sys"
    assert [type(node).__name__ for node in first[1:4]] == ["If", "If", "Import"]


def test_it_compiles_for_python_3_9(tree):
    assert not [node for node in ast.walk(tree) if type(node).__name__ in ("Match", "TryStar", "TypeAlias")]
    compile(tree, str(SCRIPT), "exec")


def test_it_runs_nothing_that_it_does_not_show(tree):
    hidden = {"exec", "eval", "compile", "__import__", "importlib.import_module", "marshal.loads", "pickle.loads"}
    assert not names_called(tree) & hidden
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.startswith("importlib")} <= {"importlib.metadata"}
    roots = {name.split(".")[0] for name in imported}
    assert not roots & {"imp", "runpy", "zipimport", "pkgutil", "marshal", "pickle", "ctypes"}
    assert not roots & {"ansible", "ansible_collections"}
    assert "sys.meta_path" not in SCRIPT.read_text("utf-8")
    assert re.findall(r".*\bsys\.path\b.*", SCRIPT.read_text("utf-8")) == [
        "    del sys.path[0]  # the folder of this file: nothing that lies beside it is to be imported"
    ]


def test_it_needs_three_packages_and_the_standard_library(tree):
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) if not node.level}
    roots = {name.split(".")[0] for name in imported} - {"__future__"}
    others = roots - set(getattr(sys, "stdlib_module_names", roots))
    # urllib3 comes with requests, cryptography with msal.
    assert others <= {"msal", "cryptography", "requests", "urllib3", "keeper_secrets_manager_core"}


def test_it_imports_nothing_from_elsewhere_in_the_collection(tree):
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


def test_no_text_in_it_is_an_encoded_program(tree):
    texts = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) if isinstance(node.value, (str, bytes))
    ]
    for text in texts:
        plain = text.decode("latin-1") if isinstance(text, bytes) else text
        words = re.sub(r"https://\S+", "", plain)
        assert not re.search(r"[A-Za-z0-9+/_-]{64,}", words), plain[:80]
    assert max(len(line) for line in SCRIPT.read_text("utf-8").splitlines()) < 2000


def test_base64_is_only_used_on_what_comes_in_and_goes_out(tree):
    decoded = {name for name in names_called(tree) if re.fullmatch(r"[\w.]*(?:b64|a85|b85|b32|b16|a2b)\w*", name)}
    assert decoded <= {"base64.b64encode", "base64.b64decode", "base64.urlsafe_b64decode"}
    arguments = [
        node.args[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("b64decode")
    ]
    assert arguments
    assert not [argument for argument in arguments if isinstance(argument, ast.Constant)]


def test_every_name_is_defined_once(tree):
    names = [node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    assert len(names) == len(set(names))


def test_its_version_is_that_of_the_collection():
    galaxy = ROOT / "galaxy.yml"
    if not galaxy.is_file():
        pytest.skip("there is no galaxy.yml")
    (version,) = re.findall(r"(?m)^version:\s*[\"']?([^\s\"']+)", galaxy.read_text("utf-8"))
    assert version == VERSION
    assert f"keeperpam.azure {version}:" in SCRIPT.read_text("utf-8").split('"""')[1]


def test_it_names_the_packages_and_how_to_verify_it():
    head = SCRIPT.read_text("utf-8").split('"""')[1]
    for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines():
        assert line.startswith("#") or line in head
    assert "sha256sum" in head


def test_it_runs_from_anywhere_and_tells_its_version(tmp_path):
    run = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), "--version"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, VERSION + "\n", "")
