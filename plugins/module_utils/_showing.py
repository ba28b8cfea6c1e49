# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a module may show of its arguments: what is plainly no secret, whichever option a secret was typed into.

PRIVATE to the collection: it may change at any time.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ._core.base.redact import searched_for

# In ansible-core's own words.
HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
# Shorter texts are shown, and are not masked in results: no client secret and no key of Keeper is so short, and a mask
# for every short word garbles what is said. https://learn.microsoft.com/graph/api/resources/passwordcredential
_SHORT = 16
_PLAIN = re.compile(
    r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"  # a GUID
    r"|[A-Za-z0-9_-]{22}"  # the uid of a Keeper record
    r"|\d{4}-\d\d-\d\d([T ][\d:.]+(Z|[+-][\d:]+)?)?"  # a time
    r"|Azure[A-Za-z]+"  # the name of a cloud
    r"|(https?://)?[a-z0-9-]+(\.[a-z0-9-]+)*(\.[a-z]{2,}|\.\d+|:\d+)(:\d+)?/?"  # a host, or an address of one
    r"|(~|\.\.?)?/[\w@. /-]{1,254}"  # a path, perhaps with arguments
    r"|[\w@ -]+([./][\w@ -]+)*\.(py|sh|txt|json|ya?ml|ini|pem|crt|cer|key)"
)
# What Entra's secrets have had in common since 2021. Of what has it, nothing is plain.
_ENTRA = re.compile(r"[78]Q~")
# In a name, words are no longer than this: keys and secrets are one word, or have a part that is.
_LONG = 24
_WORDS = re.compile(r"[^\w~+=]+|_")


def is_plain(value: Any) -> bool:
    """Whether a value may be shown: it is short, or has a form that secrets do not have."""
    if isinstance(value, Mapping):
        return all(is_plain(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(is_plain(item) for item in value)
    if not isinstance(value, str):
        return True
    return len(value) < _SHORT or (_PLAIN.fullmatch(value) is not None and not _ENTRA.search(value))


def is_name(value: Any) -> bool:
    """Whether a value, or each text of a list, may be what people have called something: words, none of them long."""
    texts = value if isinstance(value, (list, tuple)) else [value]
    return all(
        isinstance(text, str) and not _ENTRA.search(text) and all(len(word) < _LONG for word in _WORDS.split(text))
        for text in texts
    )


def shown(
    arguments: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]], names: Collection[str] = ()
) -> dict[str, Any]:
    """Return the arguments as results may show them. ``options`` is the argument spec, ``names`` names options."""
    known = _by_name(options)
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        option = known.get(name, {})
        if value is None:
            continue
        if option.get("options") and isinstance(value, (Mapping, list)):
            inner = [shown(item, option["options"], names) for item in _mappings(value)]
            found[name] = inner if isinstance(value, list) else inner[0]
        elif name in known and not option.get("no_log") and (is_plain(value) or (name in names and is_name(value))):
            found[name] = value
        else:
            found[name] = HIDDEN
    return found


def secrets_in(
    arguments: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]], names: Collection[str] = ()
) -> set[str]:
    """Return every text of the arguments that no result may hold, and the parts of which such texts are made.

    Of a Keeper configuration it is the keys, not the host name or a number, whatever form the configuration has.
    """
    known = _by_name(options)
    found: set[str] = set()
    for name, value in arguments.items():
        option = known.get(name, {})
        secret = option.get("no_log")
        if option.get("options") and isinstance(value, (Mapping, list)):
            for item in _mappings(value):
                found |= secrets_in(item, option["options"], names)
            continue
        if name in names and is_name(value) and not secret:
            continue
        if secret and isinstance(value, str) and searched_for(value) and _decoded(value) is None:
            found.add(value)
        if secret or name not in known or not is_plain(value):
            found.update(text for text in _texts(value) if not is_plain(text))
    return found


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return the mapping, or those of a list; what is none is for AnsibleModule to refuse."""
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, Mapping)]


def _by_name(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {name: option for key, option in options.items() for name in (key, *option.get("aliases", ()))}


def _texts(value: Any) -> Iterator[str]:
    """Give the texts within a value: leaves, what JSON or base64 of JSON holds, and of other texts the lines, too."""
    if isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
    elif isinstance(value, str):
        compact = "".join(value.split())
        inner = _decoded(compact)
        if isinstance(inner, (dict, list)):
            yield from _texts(inner)
        # Of JSON, the names and what is plain are no secret.
        if not isinstance(inner, (dict, list)) or compact[:1] not in "{[":
            yield from {value, compact, *(line.strip() for line in value.splitlines())}


def _decoded(text: str) -> Any:
    for decode in (str, _from_base64):
        try:
            return json.loads(decode(text))
        except (ValueError, RecursionError):
            continue
    return None


def _from_base64(text: str) -> str:
    compact = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True).decode("utf-8-sig")
    except binascii.Error as problem:
        raise ValueError(str(problem)) from None
