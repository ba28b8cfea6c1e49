# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Labels of record fields, as people write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from .errors import BadInput

_PUNCTUATION = re.compile(r"[\W_]")


def normalise(label: str) -> str:
    """Return the label without case and punctuation: ``Client Secret`` and ``client_secret`` are the same."""
    return _PUNCTUATION.sub("", label.casefold())


def find_all(labels: Sequence[Any], wanted: str) -> list[int]:
    """Return the indexes of the labels that match ``wanted`` best: those that equal it, else those that do when
    normalised. More than one is a tie, which only people can decide."""
    exact = [index for index, label in enumerate(labels) if label == wanted]
    plain = normalise(wanted)
    return exact or [
        index for index, label in enumerate(labels) if isinstance(label, str) and normalise(label) == plain
    ]


def find(labels: Sequence[Any], wanted: str) -> int | None:
    """Return the index of the first label that equals ``wanted``, else of the first that does when normalised."""
    return next(iter(find_all(labels, wanted)), None)


def text_of(value: Any) -> str:
    """Return a field's value as text without surrounding space: the first of a list, empty for nothing."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    return str(value).strip() if isinstance(value, (str, int, float)) else ""


class Labelled:
    """A record's values under their labels (or types, where a field has no label). It prints no value."""

    def __init__(self, uid: str, title: str, pairs: Iterable[tuple[str, Any]]) -> None:
        self.uid = uid
        self.title = title
        self._pairs: list[tuple[str, str]] = [(label, text_of(value)) for label, value in pairs]

    def get(self, *labels: str) -> str:
        """Return the first value that is not blank under one of the labels; empty where there is none.

        Each label is matched exactly first, then without case and punctuation. Raises BadInput where several fields
        match equally well and hold different values.
        """
        pairs = [pair for pair in self._pairs if pair[1]]
        names = [label for label, value in pairs]
        for label in labels:
            found = find_all(names, label)
            if len({pairs[index][1] for index in found}) > 1:
                tied = " and ".join(repr(names[index]) for index in found)
                what = f"several fields of the record {self.title!r} ({self.uid}) match {label} equally well: {tied}"
                raise BadInput(what, "they hold different values", "remove or rename all but one of them")
            if found:
                return pairs[found[0]][1]
        return ""

    def __repr__(self) -> str:
        return f"Labelled({self.uid!r}, {[label for label, value in self._pairs]!r})"
