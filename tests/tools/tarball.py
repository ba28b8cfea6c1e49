# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holds a built collection to a list of what may be in it: what lies about in a checkout may hold secrets.

Usage: tarball.py TARBALL
"""

from __future__ import annotations

import re
import sys
import tarfile
from collections.abc import Iterable

#: Each matches the whole path of a file.
ALLOWED = (
    r"(CHANGELOG\.rst|FILES\.json|LICENSE|MANIFEST\.json|README\.md|bindep\.txt|requirements\.txt)",
    r"changelogs/(changelog|config)\.yaml",
    r"changelogs/fragments/(\.keep|[\w.-]+\.yml)",
    r"docs/([\w-]+/)*[\w-]+\.(rst|md|yml)",
    r"docs/report\.png",
    r"examples/(prometheus/\w+\.rules\.yml|grafana/\w+\.json)",
    r"meta/[\w-]+\.yml",
    r"playbooks/([\w-]+/)*[\w-]+\.yml",
    r"playbooks/files/(rotate_azure_app\.py|report\.js|(admin|target)_application\.csv)",
    r"playbooks/templates/[\w.-]+\.j2",
    r"plugins/(action|doc_fragments|filter|inventory|modules|plugin_utils)/\w+\.py",
    r"plugins/module_utils/(\w+/)*\w+\.py",
    r"roles/gateway_host/(README\.md|(defaults|handlers|meta|tasks|vars)/\w+\.yml)",
    r"roles/gateway_host/files/([\w-]+\.(py|sh)|requirements-3\.\d+\.txt)",
    r"roles/gateway_host/templates/[\w.-]+\.j2",
    r"tests/([\w-]+/)*[\w-]+\.(py|sh|cfg|yml)",
    r"tests/sanity/ignore-2\.\d+\.txt",
)


def strangers(names: Iterable[str]) -> list[str]:
    """Return the paths of files that have no place in a collection."""
    allowed = re.compile("|".join(f"(?:{pattern})" for pattern in ALLOWED))
    return [name for name in names if not allowed.fullmatch(name)]


def main() -> None:
    """Be the program."""
    with tarfile.open(sys.argv[1]) as tarball:
        found = strangers(member.name for member in tarball.getmembers() if not member.isdir())
    if found:
        sys.exit("These have no place in the tarball: see build_ignore in galaxy.yml.\n" + "\n".join(found))


if __name__ == "__main__":
    main()
