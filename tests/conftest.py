# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gives every test the same footing.

The checkout is loadable as ``ansible_collections.keeperpam.azure`` wherever it lies, ``import sandbox`` finds
``tests/sandbox``, and neither the settings nor the credentials of whoever runs the tests reach them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from pathlib import Path

TESTS = Path(__file__).resolve().parent
CHECKOUT = TESTS.parent

#: Variables by which Ansible, Azure's tools, Keeper's SDK and the Gateway are told what to use.
FOREIGN_SETTINGS = ("ANSIBLE_", "ARM_", "AZURE_", "GATEWAY_CONFIG", "KEEPER_", "KSM_")


def collections_root() -> Path:
    """Return the directory in which ansible_collections/keeperpam/azure is this checkout."""
    if CHECKOUT.parts[-3:] == ("ansible_collections", "keeperpam", "azure"):
        return CHECKOUT.parents[2]
    root = CHECKOUT / ".cache" / "collections"
    link = root / "ansible_collections" / "keeperpam" / "azure"
    if not link.is_symlink() or Path(os.readlink(link)) != CHECKOUT:
        link.parent.mkdir(parents=True, exist_ok=True)
        # pytest-xdist starts several of us at once: make the link aside and move it, which is one step to all others.
        aside = link.with_name(f".azure-{uuid.uuid4().hex}")
        aside.symlink_to(CHECKOUT, target_is_directory=True)
        os.replace(aside, link)
    return root


def forget_foreign_settings() -> None:
    """Take out of the environment, and so out of every child's, what would let a test reach the real world."""
    for name in list(os.environ):
        if name.startswith(FOREIGN_SETTINGS):
            del os.environ[name]
    # The metadata service of the host that the tests run on, if it has one, is none of theirs.
    os.environ["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = "http://127.0.0.1:9"
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost,::1"


def load_collection(root: Path) -> None:
    """Let Python, and the Ansible commands that tests start, find the collection below root."""
    os.environ.update(
        ANSIBLE_COLLECTIONS_PATH=str(root),
        ANSIBLE_CONFIG=str(TESTS / "ansible.cfg"),
        ANSIBLE_NOCOLOR="1",
        # Otherwise localhost is the system's Python, which has none of the packages.
        ANSIBLE_PYTHON_INTERPRETER=sys.executable,
    )
    try:
        from ansible.plugins.loader import init_plugin_loader
        from ansible.utils.collection_loader import AnsibleCollectionConfig
    except ImportError:  # `ansible-test units` has its own loader in place and hides all but module_utils
        return
    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader([str(root)])


if "ANSIBLE_TEST_ANSIBLE_LIB_ROOT" not in os.environ:  # else ansible-test has seen to all of this
    forget_foreign_settings()
    load_collection(collections_root())

if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))


def pytest_collection() -> None:
    """Keep coverage out of the environment of all children but the modules (tests/e2e/harness.py): none of the others
    runs a line of what is measured, but each would take longer."""
    config = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    if config:
        os.environ["MODULE_COVERAGE"] = config


with contextlib.suppress(ImportError):
    from hypothesis import settings

    # A busy machine is no reason to fail, and in CI the same commit gives the same answer.
    settings.register_profile("here", deadline=None, derandomize="CI" in os.environ)
    settings.load_profile("here")
