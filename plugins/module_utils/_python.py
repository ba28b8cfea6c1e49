# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Says which Python a module needs, to every Python that a supported ansible-core may hand a module to: from 2.7 on.

Hence the old syntax, here and in the modules' own files. PRIVATE to the collection: it may change at any time.
"""

import json
import sys

NEEDED = (3, 9)


def require_python():  # type: () -> None
    """End the module with the reason where this Python is too old for what it would import next."""
    if sys.version_info[:2] >= NEEDED:
        return
    words = (
        "the modules of keeperpam.azure need Python {0}.{1} or newer on the host that runs them: {2} is Python {3}.{4}."
    )
    # No AnsibleModule: what it would print of the arguments is kept within bounds by what cannot be imported here.
    result = {
        "failed": True,
        "changed": False,
        "status": "bad_input",
        "msg": words.format(NEEDED[0], NEEDED[1], sys.executable, sys.version_info[0], sys.version_info[1])
        + " Next: let ansible_python_interpreter name a newer one.",
    }
    sys.stdout.write(json.dumps(result) + "\n")
    raise SystemExit(1)
