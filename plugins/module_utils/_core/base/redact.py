# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets that do not print, and texts from elsewhere made fit to print."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
# What is shorter is not searched for, nor is a word or a number of less than so many characters: to mask each "pending"
# helps nobody, and tells the value by what is missing. Entra's secrets have 16 characters of all kinds or more,
# https://learn.microsoft.com/graph/api/resources/passwordcredential
_SHORTEST, _LONGEST_WORD = 8, 15
# Every piece of a secret of 15 characters or more holds one of its blocks whole; so long must it be to be masked.
_BLOCK, _PIECE = 8, 12
# About as much of a foreign text as people read, in bytes.
_FOREIGN = 1000
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}")
_NAMED = re.compile(
    r"(?i)(\b(?:client_secret|client_assertion|access_token|secretText|Authorization)[\"']?\s*[=:]\s*)"
    r"(?:(?:Bearer|Signature)\s+)?[^\s&,;}]+"
)
# Keeps the length of the text, which str.lower() does not.
_FOLD = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
# By block: the forms of values that hold it, and where. It only grows, so that a value stays known when its Secret has
# gone; to add and to look up are one step of the interpreter each, and need no lock that a signal could leave held.
_blocks: dict[str, list[tuple[str, int]]] = {}
_known: set[str] = set()


class Secret:
    """A secret value. It is no ``str``, so that no formatting, joining or JSON encoder can print it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        remember(value)

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


def searched_for(value: str) -> bool:
    """Whether ``scrub`` looks for this value: not for short words and numbers."""
    plain = value.strip()
    return len(plain) >= _SHORTEST and not (len(plain) <= _LONGEST_WORD and (plain.isalpha() or plain.isdigit()))


def remember(value: str) -> None:
    """Let ``scrub`` know a secret value, for as long as the process lives."""
    if value in _known or not searched_for(value):
        return
    for form in _forms(value):
        folded = form.translate(_FOLD)
        for offset in range(0, len(folded) - _BLOCK + 1, _BLOCK):
            block = folded[offset : offset + _BLOCK]
            _blocks.setdefault(block, []).append((folded, offset))
    # Not before: another thread that meets it meanwhile may be about to print it.
    _known.add(value)
    words = value.split()
    for word in words if len(words) > 1 else ():
        if len(word) > _LONGEST_WORD:  # a line of a key
            remember(word)


def _forms(value: str) -> set[str]:
    forms = {value, " ".join(value.split()), json.dumps(value)[1:-1], repr(value)[1:-1]}
    data = value.encode("utf-8", "replace")
    forms |= {quote(data, safe=""), quote_plus(data)}
    # Within the base64 of a longer text it may begin at each of three places.
    forms |= {base64.b64encode(bytes(shift) + data).decode().rstrip("=")[shift and shift + 1 :] for shift in range(3)}
    return forms


def scrub(text: str) -> str:
    """Return ``text`` without any secret that this process knows, in plain or encoded form, and without tokens.

    Pieces of secrets are masked too. Capital and small letters count as the same.
    """
    folded = text.translate(_FOLD)
    parts: list[str] = []
    done = at = 0
    while at <= len(folded) - _BLOCK:
        begin, end = _piece(folded, done, at)
        inner = at + 1
        while inner <= end - _BLOCK:  # where two secrets share a part, the piece of the other may begin before this one
            left, right = _piece(folded, done, inner)
            begin, end = (min(begin, left), max(end, right)) if left < right else (begin, end)
            inner += 1
        if begin < end:
            parts += (text[done:begin], MASK)
            done = end
        at = max(at + 1, end)
    return _NAMED.sub(r"\1" + MASK, _TOKEN.sub(MASK, "".join(parts) + text[done:]))


def _piece(text: str, start: int, at: int) -> tuple[int, int]:
    """Return the longest piece of a secret around the block at ``at``, not before ``start``; an empty one for none."""
    best = at, at
    for form, offset in _blocks.get(text[at : at + _BLOCK], ()):
        begin, end = at, at + _BLOCK
        while begin > start and offset and text[begin - 1] == form[offset - 1]:
            begin, offset = begin - 1, offset - 1
        rest = offset + end - begin
        while end < len(text) and rest < len(form) and text[end] == form[rest]:
            end, rest = end + 1, rest + 1
        least = len(form) if " " in form else min(len(form), _PIECE)
        if end - begin >= max(least, best[1] - best[0] + 1):
            best = begin, end
    return best


def scrub_all(value: Any) -> Any:
    """Return JSON data with every text in it scrubbed and made printable."""
    if isinstance(value, dict):
        return {key: scrub_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [scrub_all(item) for item in value]
    return printable(scrub(value)) if isinstance(value, str) else value


def printable(text: str) -> str:
    """Return the text with control, escape and bidi characters shown as such."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def foreign(text: object) -> str:
    """Return a text from elsewhere fit to be quoted: scrubbed first, then cut, in one line that can be printed."""
    return _cut(printable(" ".join(scrub(str(text)).split())))


def bounded(text: object) -> str:
    """Return a text from elsewhere that is still to be made printable, as by ``repr``: scrubbed first, then cut."""
    return _cut(scrub(str(text)))


def _cut(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return text if len(data) <= _FOREIGN else data[:_FOREIGN].decode("utf-8", "ignore") + " ..."


class Log:
    """One line per step, in words, with the UTC time. A broken pipe must never stop a rotation half-way."""

    def __init__(self, write: Callable[[str], object], debug: bool = False) -> None:
        self._write = write
        self._debug = debug
        self.steps: list[str] = []

    def say(self, text: str) -> None:
        """Write one step."""
        line = printable(" ".join(scrub(text).split()))
        self.steps.append(line)
        self._emit(line)

    def detail(self, text: str) -> None:
        """Write one line that only ``--debug`` shows."""
        if self._debug:
            self._emit("  " + printable(scrub(text)))

    def _emit(self, line: str) -> None:
        try:
            self._write(time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) + line + "\n")
        except (OSError, ValueError):
            self._write = _discard


def _discard(line: str) -> None:
    del line
