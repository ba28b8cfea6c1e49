# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exit with 0 if this environment has the packages named as name==version and can import those of the PAM Script."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys

for pin in sys.argv[1:]:
    name, version = pin.split("==")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"{name} is missing")
    if found != version:
        sys.exit(f"{name} is {found}, not {version}")
for module in ("msal", "requests", "keeper_secrets_manager_core"):
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a broken package raises
        sys.exit(f"{module} cannot be imported: {error!r}")
