# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a record holds that is not to be said: its secrets, and what is not what the label of its field says.

People type a secret into the field beside the right one. A value of a field of ours may be said only if it is what such
a field holds: a key id only if it is a GUID, a date only if it parses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..base.labels import normalise
from ..base.redact import remember
from .application import guid, parse_time

_UID = re.compile(r"[A-Za-z0-9_-]{22}")
_DOMAIN = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_ENDPOINT = re.compile(r"(?:https://)?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::\d+)?(?:/\S{,16})?", re.IGNORECASE)
_PATH = re.compile(r"(?:~?/|[A-Za-z]:\\)[\w@. /\\-]{0,254}")
# In types of fields, and in labels where no type is known: the Gateway passes labels, or types where there are none.
_SECRET = re.compile(r"secret|passw|passphrase|passkey|token|privatekey|keypair|pincode|onetimecode|apikey")


def _is_guid(text: str) -> bool:
    return guid(text) is not None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_none(text: str) -> bool:
    """Whatever is short enough to be one of a few words is not searched for anyway."""
    return False


_OURS: dict[str, Callable[[str], bool]] = {
    "recorduid": lambda text: bool(_UID.fullmatch(text)),
    "applicationobjectid": _is_guid,
    "applicationclientid": _is_guid,
    "clientsecretid": _is_guid,
    "clientid": _is_guid,
    "pamazureclientid": _is_guid,
    # Somebody has entered the secret's id in place of its value: to mask it would mask it everywhere.
    "clientsecret": _is_guid,
    "tenantid": lambda text: _is_guid(text) or bool(_DOMAIN.fullmatch(text)),
    "pamazuretenantid": lambda text: _is_guid(text) or bool(_DOMAIN.fullmatch(text)),
    "expires": lambda text: parse_time(text) is not None,
    "lifetimedays": _is_number,
    "keepprevious": _is_number,
    "verifytimeout": _is_number,
    # "token" in its label does not make a path a secret.
    "oidctokenfilepath": lambda text: bool(_PATH.fullmatch(text)),
    "certificatepath": lambda text: bool(_PATH.fullmatch(text)),
    "managedidentity": _is_none,
    "verify": _is_none,
    "retire": _is_none,
    "retireafter": _is_none,
    "adopt": lambda text: all(_UID.fullmatch(uid) for uid in re.split(r"[\s,;]+", text) if uid),
    "azureauthorityfqdn": lambda text: bool(_ENDPOINT.fullmatch(text)),
    "azuregraphendpoint": lambda text: bool(_ENDPOINT.fullmatch(text)),
}


def learn(fields: Iterable[tuple[str, str, Any]]) -> None:
    """Let the scrubber know what of these fields (label, type, value) is not to be said, before anything is."""
    for label, kind, value in fields:
        plain = normalise(label)
        is_as_labelled = _OURS.get(plain)
        if is_as_labelled is None and not _SECRET.search(plain) and not _SECRET.search(normalise(kind)):
            continue
        for text in _texts(value):
            if is_as_labelled is None or not is_as_labelled(text.strip()):
                remember(text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
