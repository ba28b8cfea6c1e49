# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets that do not print, and texts from elsewhere made fit to print."""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus
from weakref import WeakValueDictionary

MASK = "***"
# Shorter values are not searched for: masking every "a" in a text helps nobody. Entra's secrets have 16 characters
# or more, https://learn.microsoft.com/graph/api/resources/passwordcredential
_SHORTEST = 6
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}")
_NAMED = re.compile(
    r"(?i)(\b(?:client_secret|client_assertion|access_token|secretText|Authorization)[\"']?\s*[=:]\s*)"
    r"(?:(?:Bearer|Signature)\s+)?[^\s&,;}]+"
)
# Needs no lock, which a signal could leave held: valuerefs() takes all in one step of the interpreter, while reading a
# WeakSet raises where a secret ends in another thread.
_known: WeakValueDictionary[int, Secret] = WeakValueDictionary()
_for_good: set[str] = set()


class Secret:
    """A secret value. It is no ``str``, so that no formatting, joining or JSON encoder can print it."""

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        _known[id(self)] = self

    def reveal(self) -> str:
        """Return the value; only for the call that must send or store it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __str__(self) -> str:
        return MASK

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return MASK

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not serialised")


def remember(value: str) -> None:
    """Let ``scrub`` know a value that is held as plain text, for as long as the process lives."""
    _for_good.add(value)


def scrub(text: str) -> str:
    """Return ``text`` without any secret that this process knows, in plain or encoded form, and without tokens."""
    forms: set[str] = set()
    secrets = [reference() for reference in _known.valuerefs()]
    values = {secret.reveal() for secret in secrets if secret is not None} | _for_good
    for value in values:
        if len(value) >= _SHORTEST:
            forms.update((value, json.dumps(value)[1:-1], repr(value)[1:-1]))
            encoded = value.encode("utf-8", "replace")
            forms.update((quote(encoded, safe=""), quote_plus(encoded), base64.b64encode(encoded).decode().rstrip("=")))
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return _NAMED.sub(r"\1" + MASK, _TOKEN.sub(MASK, text))


def scrub_all(value: Any) -> Any:
    """Return JSON data with every text in it scrubbed."""
    if isinstance(value, dict):
        return {key: scrub_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [scrub_all(item) for item in value]
    return scrub(value) if isinstance(value, str) else value


class Log:
    """One line per step, in words, with the UTC time. A broken pipe must never stop a rotation half-way."""

    def __init__(self, write: Callable[[str], object], debug: bool = False) -> None:
        self._write = write
        self._debug = debug
        self.steps: list[str] = []

    def say(self, text: str) -> None:
        """Write one step."""
        line = scrub(" ".join(text.split()))
        self.steps.append(line)
        self._emit(line)

    def detail(self, text: str) -> None:
        """Write one line that only ``--debug`` shows."""
        if self._debug:
            self._emit("  " + scrub(text))

    def _emit(self, line: str) -> None:
        try:
            self._write(time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + line + "\n")
        except (OSError, ValueError):
            self._write = _discard


def to_stderr(line: str) -> None:
    """Write a line to stderr at once; where there is no stderr, nowhere."""
    if sys.stderr is not None:
        sys.stderr.write(line)
        sys.stderr.flush()


def _discard(line: str) -> None:
    del line
