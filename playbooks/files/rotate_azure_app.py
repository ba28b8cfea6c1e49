#!/usr/bin/env python3
# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""keeperpam.azure 0.1.0: rotates the client secret of a Microsoft Entra application, as a Keeper PAM Script.

It needs Python 3.9 or newer and the packages:
    msal>=1.32.0
    requests>=2.32.4
    keeper-secrets-manager-core>=17.3.0

This file is the core of the Ansible collection keeperpam.azure, made by its ``make script`` from the modules named in
the rulers below; it is not edited by hand. To verify a copy, compare its SHA-256 with that of the file in the release:
    sha256sum rotate_azure_app.py
"""

from __future__ import annotations  # Python 3.9 or newer is needed: let the script command name one

import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # the folder of this file: nothing that lies beside it is to be imported
if sys.version_info < (3, 9):
    if sys.stderr is not None:
        sys.stderr.write(
            f"BAD_INPUT: this script needs Python 3.9 or newer, and was started with Python {sys.version.split()[0]} "
            f"({sys.executable}). Next: let the script command name a newer one.\n"
        )
    sys.exit(2)

import argparse
import atexit
import base64
import binascii
import codecs
import contextlib
import copy
import errno
import functools
import inspect
import itertools
import json
import logging
import math
import os
import platform
import random
import re
import select
import selectors
import signal
import socket
import ssl
import stat
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from enum import Enum, IntEnum
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from importlib.metadata import PackageNotFoundError, version
from typing import Any, IO, TYPE_CHECKING, TypeVar
from urllib.parse import quote, quote_plus, urlsplit


# ---- base.redact ----------------------------------------------------------------------------------------------------
# Secrets that do not print, and texts from elsewhere made fit to print.


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


# ---- base.errors ----------------------------------------------------------------------------------------------------
# One family of errors. Each class is one end state of a rotation, with the exit status that tells it.


class RotationError(Exception):
    """A rotation that did not complete.

    ``what`` names the thing and what happened to it, ``why`` gives the reason, ``todo`` the next step.
    ``facts`` are secret-free values for the machine-readable outcome (key ids, names).
    """

    status = "error"
    exit_status = 1

    def __init__(self, what: str, why: str = "", todo: str = "", **facts: Any) -> None:
        self.what, self.why, self.todo = (_one_line(text) for text in (what, why, todo))
        self.facts: dict[str, Any] = facts
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """What happened to what, why, and what to do next, in one line."""
        text = self.what + (": " + self.why if self.why else "")
        text = text if text.endswith((".", "!", "?")) else text + "."
        return text + (" Next: " + self.todo.rstrip(".") + "." if self.todo else "")


class BadInput(RotationError):
    """The stdin, the configuration or the record cannot be used. Nothing has changed."""

    status = "bad_input"
    exit_status = 2


class Refused(RotationError):
    """Entra, Graph or Keeper said no, or was not reached, before anything changed."""

    status = "refused"
    exit_status = 3


class RolledBack(RotationError):
    """A new secret was made and removed again: the vault and the old secrets are as before."""

    status = "rolled_back"
    exit_status = 4


class Incomplete(RotationError):
    """The new secret is published and valid, but old ones remain."""

    status = "incomplete"
    exit_status = 5


class Orphan(RotationError):
    """A new secret was made, is not known to be published, and could not be removed."""

    status = "orphan"
    exit_status = 6


class Stopped(BaseException):
    """A signal, or the end of a phase's time. Not an Exception: no library may swallow it."""


class OutOfTime(Stopped):
    """The end of a phase's time."""


def out_of_memory() -> Refused:
    """Return how a run ends for which this host has no memory."""
    todo = "give it more memory, or end what takes it, and run it again"
    return Refused("the run was stopped", "this host has no memory left", todo)


def _one_line(text: str) -> str:
    return printable(" ".join(str(text).split()))


# ---- base.labels ----------------------------------------------------------------------------------------------------
# Labels of record fields, as people write them.


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


# ---- base.output ----------------------------------------------------------------------------------------------------
# Output that never holds a run: a pipe whose reader has stopped reading blocks whoever writes to it, for ever.


# So long, in seconds and for all lines together, is waited for a reader.
WAIT_FOR_READERS = 5.0
_AT_ONCE = 512  # POSIX: a pipe that is ready takes so much at once


class Outlet:
    """Writes to stdout and stderr at once, past their buffers, which would be written at the end of the process."""

    def __init__(self, patience: float = WAIT_FOR_READERS) -> None:
        self._patience = patience

    def write(self, stream: Any, text: str) -> None:
        """Write the text, or where nobody reads as much of it as is taken. Raises OSError, ValueError.

        ``stream`` is None where the process was started without.
        """
        if stream is None:
            return
        try:
            handle = stream.fileno()
        except (AttributeError, OSError, ValueError):
            handle = -1
        if handle < 0 or not hasattr(select, "poll"):  # no file of the system, or Windows
            stream.write(text)
            stream.flush()
            return
        left = text.encode(stream.encoding or "utf-8", "backslashreplace")
        while left and self._is_taken(handle):
            try:
                left = left[os.write(handle, left[:_AT_ONCE]) :]
            except BlockingIOError:
                continue  # a pipe that does not block and has room for less than a piece

    def _is_taken(self, handle: int) -> bool:
        begun = time.monotonic()
        poll = select.poll()
        poll.register(handle, select.POLLOUT)
        ready = bool(poll.poll(max(0.0, self._patience) * 1000))
        self._patience -= time.monotonic() - begun
        return ready


# ---- base.timing ----------------------------------------------------------------------------------------------------
# Time: every phase of a rotation has an end, and a signal ends it early.


# Seconds that each phase may take: with the defaults (verify_timeout 120 s, retire_after 30 s) 480 s for a whole run at
# the most. It ends with RETIRE and REVIEW, or with UNDO, before which RETIRE is cut short where all of the time was
# used. Making room also waits for what becomes due soon.
RESOLVE, ROOM, CREATE, PUBLISH, SETTLE, RETIRE, REVIEW, UNDO = 45.0, 15.0, 35.0, 45.0, 150.0, 35.0, 5.0, 35.0
# An old secret that becomes due within so many seconds is waited for.
SOON = 120.0

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
# Calls and pauses end by themselves at the end of a phase; the alarm is for what does not look at the clock,
# such as a connection that is tried at one address of a host after the other, or an answer that drips in.
_GRACE = 1.0
_AGAIN = 5.0  # the alarm comes again, in case it meets code that swallows what it raises, as callbacks do
_AWAKE = getattr(time, "CLOCK_BOOTTIME", None)  # macOS and Windows have none
_ALARM = getattr(signal, "SIGALRM", None)  # Windows has none: there only calls and pauses end a phase
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Wait:
    """What work that is done step by step waits for: so many seconds, or its turn to write to Graph so many times
    (``writes``), making a secret (``makes``) or not, of an application that is open to ``personal`` accounts or not."""

    seconds: float = 0.0
    writes: int = 0
    makes: bool = False
    personal: bool = False


def room_time(wait: float) -> float:
    """Return the seconds that making room may take, where an old secret becomes due ``wait`` seconds after another."""
    return ROOM + min(wait, SOON)


def rotating_time(verify: float, wait: float) -> float:
    """Return the seconds that a rotation may take once all is resolved: ``verify`` of them to prove the new secret, and
    ``wait`` until an old one is due."""
    return room_time(wait) + CREATE + verify + PUBLISH + SETTLE + RETIRE + REVIEW


class Budget:
    """The time that is left (seconds, monotonic clock). Outside of a phase it is unlimited."""

    def __init__(self) -> None:
        self._begun = self.now()
        self._end = self._seconds = self._good_until = float("inf")
        self._phase = ""
        self.shielded = False  # while undoing and reporting, signals are let pass
        self.listener: Callable[[str], None] | None = None  # told of a signal, where it is not raised

    def left(self) -> float:
        """Seconds to the end of this phase, never negative."""
        return max(0.0, self._end - self.now())

    def sending(self) -> float:
        """Seconds in which a request may still be sent: to the end of this phase, or of what it goes by."""
        return max(0.0, min(self.left(), self._good_until - self.awake()))

    @contextmanager
    def good_until(self, when: float) -> Iterator[None]:
        """Let nothing be sent inside, not even again, after ``when`` (of ``awake``): what it goes by is too old."""
        before, self._good_until = self._good_until, when
        try:
            yield
        finally:
            self._good_until = before

    def spent(self) -> float:
        """Seconds since this was made."""
        return self.now() - self._begun

    def now(self) -> float:
        """Seconds of the clock that phases go by."""
        return time.monotonic()

    @staticmethod
    def awake() -> float:
        """Seconds of a clock that goes on while the host sleeps: what a look has shown grows old by it."""
        return time.clock_gettime(_AWAKE) if _AWAKE is not None else time.monotonic()

    def shield(self) -> None:
        """From now on let signals pass, and forget the phase that one may have cut off."""
        self.shielded = True
        self._end = float("inf")

    @contextmanager
    def phase(self, name: str, seconds: float) -> Iterator[None]:
        """Limit what runs inside to ``seconds``; it raises OutOfTime at the end of them.

        Within a phase that ends earlier, that one's end counts.
        """
        before = self._end, self._phase, self._seconds
        end = self.now() + seconds
        if end < self._end:
            self._end, self._phase, self._seconds = end, name, seconds
        self._arm()
        try:
            yield
        finally:
            self._end, self._phase, self._seconds = before
            self._arm()

    def check(self) -> None:
        """Raise OutOfTime when the phase has no time left."""
        if self.left() <= 0:
            raise self._over()

    def admit(self) -> None:
        """Raise Stopped where nothing further may be begun, such as a request."""
        self.check()

    def fits(self, seconds: float) -> None:
        """Raise OutOfTime when the phase would end before, or has ended."""
        if not 0 <= seconds < self.left():
            raise self._over()

    def pause(self, seconds: float) -> None:
        """Sleep; raise OutOfTime at once when the phase would end before, or has ended."""
        self.fits(seconds)
        time.sleep(seconds)

    @contextmanager
    def others_turn(self) -> Iterator[None]:
        """Let what is waited for inside be somebody else's time, where there is somebody else."""
        yield

    def on_alarm(self, number: int, frame: Any) -> None:
        """Handle SIGALRM: the phase is over."""
        raise self._over()

    def _over(self) -> OutOfTime:
        return OutOfTime(f"no time left to {self._phase} (limit {self._seconds:.3g} s)")

    def _arm(self) -> None:
        # Only where catch_signals() has put a handler in place: the default action of SIGALRM is to kill.
        if _ALARM is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(_ALARM) == self.on_alarm:
            finite = self._end != float("inf")
            signal.setitimer(signal.ITIMER_REAL, self.left() + _GRACE if finite else 0, _AGAIN)


def drive(steps: Generator[Wait, None, _Result], budget: Budget) -> _Result:
    """Do work that is done step by step, waiting between the steps; return what it returns. What ends a wait early is
    raised where the work waits."""
    problem: BaseException | None = None
    while True:
        try:
            while True:
                step = next(steps) if problem is None else steps.throw(problem)
                problem = None
                if step.seconds:
                    budget.pause(step.seconds)
        except StopIteration as end:
            result: _Result = end.value
            return result
        except BaseException as failure:
            if inspect.getgeneratorstate(steps) == inspect.GEN_CLOSED:  # the work itself has failed
                raise
            problem = failure


def catch_signals(budget: Budget) -> None:
    """Turn the first SIGTERM, SIGINT or SIGHUP of this process into Stopped, and the end of a phase into OutOfTime.

    For a process that does nothing else: the handlers stay until it ends. A signal that is ignored, as by ``nohup``,
    stays so.
    """
    seen: list[int] = []

    def on_signal(number: int, frame: Any) -> None:
        if not seen and not budget.shielded:
            seen.append(number)
            reason = "interrupted by " + signal.Signals(number).name
            if budget.listener is None:
                raise Stopped(reason)
            budget.listener(reason)

    caught = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in caught:
        signal.signal(number, on_signal)
    if hasattr(signal, "pthread_sigmask"):
        # While Python finishes its handlers have gone, and a signal would take the place of the exit status.
        atexit.register(signal.pthread_sigmask, signal.SIG_BLOCK, caught)
    if _ALARM is not None:
        signal.signal(_ALARM, budget.on_alarm)


# ---- base.version ---------------------------------------------------------------------------------------------------
# The version of the collection, the same as in galaxy.yml.


VERSION = "0.1.0"


# ---- services.application -------------------------------------------------------------------------------------------
# An application and its password credentials, as data.


# "maximum of two client secrets": https://learn.microsoft.com/entra/identity-platform/supported-accounts-validation
_TWO_SECRETS = {"azureadandpersonalmicrosoftaccount", "personalmicrosoftaccount"}
_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"(\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?", re.IGNORECASE)


def guid(text: str) -> str | None:
    """Return the GUID in lower case, or None where the text is none (braces and space around it are accepted)."""
    plain = text.strip().strip("{}").lower()
    return plain if _GUID.fullmatch(plain) else None


def parse_time(text: Any) -> datetime | None:
    """Return the time of an OData DateTimeOffset, in UTC; None for nothing or anything else.

    Graph writes seven fractional digits or none, which ``datetime.fromisoformat`` reads from Python 3.11 on only.
    """
    match = _TIME.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        return None
    seconds, fraction, zone = match.groups()
    zone = "+00:00" if zone is None or zone.upper() == "Z" else zone
    try:
        return datetime.fromisoformat(f"{seconds.upper()}.{(fraction or '0')[:6]:<06}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True)
class Credential:
    """One passwordCredential of an application. ``hint`` is the first three characters of the secret."""

    key_id: str
    display_name: str = ""
    start: datetime | None = None
    end: datetime | None = None
    end_text: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Application:
    """An application as one read of Graph has shown it; ``read_at`` is the server's time of that read."""

    object_id: str
    client_id: str
    display_name: str
    two_secrets: bool
    credentials: tuple[Credential, ...]
    read_at: datetime

    def credential(self, key_id: str) -> Credential | None:
        """Return the credential with that key id, in whatever spelling of a GUID; what is none names nothing."""
        wanted = guid(key_id)
        return next((credential for credential in self.credentials if credential.key_id == wanted), None)


def application_in(body: Mapping[str, Any], read_at: datetime) -> Application | None:
    """Return the application that a JSON object of Graph is, read at this time of the server; None for any other."""
    object_id, client_id = guid(str(body.get("id"))), guid(str(body.get("appId")))
    listed = body.get("passwordCredentials")
    if not object_id or not client_id or not isinstance(listed, list):
        return None
    return Application(
        object_id,
        client_id,
        foreign(body.get("displayName") or client_id),
        str(body.get("signInAudience")).lower() in _TWO_SECRETS,
        tuple(credentials_in(listed)),
        read_at,
    )


def credentials_in(items: list[Any]) -> list[Credential]:
    """Return the credentials of a JSON list of Graph; what has no key id is passed over."""
    found = []
    for item in items:
        key_id = guid(str(item.get("keyId"))) if isinstance(item, dict) else None
        if key_id is None:
            continue
        end = parse_time(item.get("endDateTime"))
        end_text = str(item.get("endDateTime") or "")
        if end is not None and not end_text.upper().endswith(("Z", "+00:00")):
            end_text = format_time(end)
        found.append(
            Credential(
                key_id,
                str(item.get("displayName") or ""),
                parse_time(item.get("startDateTime")),
                end,
                end_text,
                str(item.get("hint") or ""),
            )
        )
    return found


def format_time(when: datetime) -> str:
    """Return the time as Graph reads it: UTC, whole seconds."""
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def after(start: datetime, days: int) -> datetime:
    """Return the time that many days later. Raises BadInput where the calendar ends before."""
    try:
        return start + timedelta(days=days)
    except OverflowError:
        raise BadInput(f"a lifetime of {days} days is too long", todo="lower lifetime_days") from None


# ---- services.credentials -------------------------------------------------------------------------------------------
# What the admin application signs in with: a secret, a certificate, another provider's token, a managed identity.


_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_LARGEST_FILE = 65536
_JWT = re.compile(rb"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Certificate:
    """A file with a certificate and its private key; ``name`` is the file in words, for errors.

    ``read`` returns its content and raises BadInput or Refused: it is opened when it is needed, not before.
    """

    name: str
    read: Callable[[], bytes] = field(repr=False)
    passphrase: Secret | None = None


@dataclass(frozen=True)
class FederatedToken:
    """A token of another identity provider that an application of Entra trusts; ``name`` is its place in words.

    ``read`` returns its newest text and raises BadInput: whoever issues such tokens replaces the file's content often.
    """

    name: str
    read: Callable[[], bytes] = field(repr=False)

    def fetch(self) -> Secret:
        """Return the token as it is now. Raises BadInput for what is none: nothing else may be sent anywhere."""
        content = self.read().strip()
        if not _JWT.fullmatch(content):
            what = f"{self.name} {'is no token' if content else 'is empty'}"
            raise BadInput(what, "a JSON Web Token is needed", "see to whatever issues the token")
        return Secret(content.decode())


@dataclass(frozen=True)
class Identity:
    """What the admin application signs in with. ``source`` says where it was found, ``why`` why that one is used.

    One of the four kinds of credentials is set. A managed identity without client id is the host's own
    ("system-assigned").
    """

    client_id: str
    tenant_id: str
    source: str
    secret: Secret | None = None
    certificate: Certificate | None = None
    token: FederatedToken | None = None
    managed: bool = False
    record_uid: str = ""
    why: str = ""
    expires: str = ""  # when the secret ends, in the words of the record that holds it

    def __post_init__(self) -> None:
        if self.client_id and guid(self.client_id) is None:
            remember(self.client_id)  # what was entered in the wrong field may be a secret
        if not _TENANT.fullmatch(self.tenant_id):
            raise BadInput(
                f"the tenant id of {self.source} is neither an id nor a domain",
                todo="enter the directory (tenant) id",
            )

    @property
    def name(self) -> str:
        """Who signs in, and with what, in words."""
        if self.managed:
            which = f"user-assigned managed identity {self.client_id}" if self.client_id else "managed identity"
            return f"this host's {which}"
        with_what = self.certificate.name if self.certificate else self.token.name if self.token else "a client secret"
        return f"{self.client_id} (with {with_what})"

    @property
    def uses_host(self) -> bool:
        """Whether signing in hands over a token that this host has, and not one that was made for it alone."""
        return self.managed or self.token is not None


def certificate_at(path: str, passphrase: str = "") -> Certificate:
    """Return the certificate in a file of this host."""
    name = f"the certificate in the file {path}"
    return Certificate(name, lambda: _host_file(path, "certificate"), Secret(passphrase) if passphrase else None)


def token_at(path: str) -> FederatedToken:
    """Return the federated token that a file of this host holds."""
    return FederatedToken(f"the federated token in the file {path}", lambda: _host_file(path, "federated token"))


def token_of(text: str, where: str) -> FederatedToken:
    """Return the federated token with this text; ``where`` names its origin."""
    secret = Secret(text.strip())
    return FederatedToken(f"the federated token of {where}", lambda: secret.reveal().encode("utf-8", "replace"))


def _host_file(path: str, what: str) -> bytes:
    """Return the content of a small file of this host. Raises BadInput, which never quotes it."""
    try:
        # Not to wait where it is a named pipe.
        handle = os.open(os.path.expanduser(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(0, "it is no regular file")
            content = os.read(handle, _LARGEST_FILE + 1)
            if len(content) > _LARGEST_FILE:
                raise OSError(0, "it is too large")
            return content
        finally:
            os.close(handle)
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or "its name is none"
        todo = "check the path, and that the user who runs this may read it"
        raise BadInput(f"the {what} {path} cannot be read", why, todo) from None


def claims(token: Secret) -> dict[str, Any]:
    """Return what a JSON Web Token says of itself, unverified; empty where it cannot be read (it may be opaque)."""
    try:
        payload = token.reveal().split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def end_of(token: Secret) -> datetime | None:
    """Return when a JSON Web Token ends by its own word."""
    end = claims(token).get("exp")
    if not isinstance(end, (int, float)):
        return None
    try:
        return datetime.fromtimestamp(end, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None


# ---- services.certificate -------------------------------------------------------------------------------------------
# Certificates to sign in with, opened in memory: PEM and PFX (PKCS #12), with or without a passphrase.


_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True)
class KeyPair:
    """A private key and its certificate, both PEM, with the certificate's SHA-1 thumbprint (hex) and its end."""

    private_key: Secret
    certificate: str
    thumbprint: str
    end: datetime


class _Unusable(Exception):
    """The text says why, and quotes nothing."""


def open_certificate(source: Certificate) -> KeyPair:
    """Return the RSA key of a file, and the certificate that belongs to it. Raises BadInput, and what reading does."""
    content = source.read()
    # It comes with msal. Most runs need none of it, and it takes long to load.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA1

    passphrase = source.passphrase.reveal().encode() if source.passphrase else None
    try:
        key, certificates = (_pem if b"-----BEGIN" in content else _pfx)(content, passphrase)
        if not isinstance(key, RSAPrivateKey):
            raise _Unusable("its key is no RSA key, and Entra takes no other")
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        wanted = key.public_key().public_bytes(*form)
        own = next((each for each in certificates if each.public_key().public_bytes(*form) == wanted), None)
        if own is None:
            raise _Unusable("it holds no certificate that belongs to its private key")
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        thumbprint = own.fingerprint(SHA1()).hex()  # noqa: S303 - RFC 7515 names a certificate by it, as "x5t"
        end: datetime = own.not_valid_after_utc
        return KeyPair(Secret(private.decode()), own.public_bytes(serialization.Encoding.PEM).decode(), thumbprint, end)
    except _Unusable as problem:
        why = str(problem)
    except Exception as problem:  # whatever is in the file; the texts of these errors may quote it
        why = f"it is damaged, or of a kind that this host's cryptography cannot open ({type(problem).__name__})"
    todo = "give a PEM or PFX file with the private key and its certificate, and its passphrase where it has one"
    raise BadInput(f"{source.name} cannot be used", why, todo)


def _pem(content: bytes, passphrase: bytes | None) -> tuple[Any, list[Any]]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    blocks = [(match[1], match[0]) for match in _PEM_BLOCK.finditer(content)]
    keys = [block for kind, block in blocks if kind.endswith(b"PRIVATE KEY")]
    if len(keys) != 1:
        raise _Unusable("it holds no private key" if not keys else "it holds several private keys")
    sealed = b"ENCRYPTED" in keys[0]
    if sealed and passphrase is None:
        raise _Unusable("its private key needs a passphrase")
    try:
        key = load_pem_private_key(keys[0] + b"\n", passphrase if sealed else None)
    except ValueError:
        raise _Unusable("the passphrase does not open it" if sealed else "its private key is damaged") from None
    return key, [x509.load_pem_x509_certificate(block) for kind, block in blocks if kind == b"CERTIFICATE"]


def _pfx(content: bytes, passphrase: bytes | None) -> tuple[Any, list[Any]]:
    from cryptography.hazmat.primitives.serialization import pkcs12

    # With no passphrase some tools write an empty one.
    for each in (passphrase,) if passphrase is not None else (None, b""):
        try:
            key, own, others = pkcs12.load_key_and_certificates(content, each)
        except ValueError:
            continue
        if key is None:
            raise _Unusable("it holds no private key")
        return key, [certificate for certificate in (own, *others) if certificate is not None]
    why = "the passphrase does not open it" if passphrase is not None else "it needs a passphrase"
    raise _Unusable(f"{why}, or it is neither PEM nor PFX")


# ---- services.entra_words -------------------------------------------------------------------------------------------
# What Entra's token endpoint says no with, in words, and what to do about it.


# AADSTS numbers: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
WRONG_SECRET, EXPIRED_SECRET = 7000215, 7000222
OUT_OF_TIME = 700024
_NO_FEDERATION = (70021, 700211, 700212, 700213, 7002131, 7002138)
# 50196: too many sign-ins of one client in a row.
BUSY_SIGN_IN = {50196, 90006, 90012, 90024, 90033, 90055, 90090}
# A header or a policy of the network lets through to some tenants alone:
# https://learn.microsoft.com/entra/external-id/tenant-restrictions-v2
_OTHER_TENANTS = (500021, 5000211)
_POLICY_BLOCKS = 53003
SIGN_IN_WORDS = {
    WRONG_SECRET: "the client secret is not valid (a secret's value is needed, not its id)",
    EXPIRED_SECRET: "the client secret has expired",
    700016: "there is no application with this client id in the tenant (no service principal here)",
    7000229: "the application has no service principal in the tenant",
    7000112: "the application is disabled",
    _POLICY_BLOCKS: "Conditional Access blocks the sign-in",
    90002: "the tenant does not exist in this cloud",
    7000216: "the client secret is empty",
    7000218: "the client secret is empty",
    500011: "Graph is not known in this tenant: authority and Graph endpoint belong to different clouds",
    70021: "no federated credential of the application fits the token",
    700211: "no federated credential of the application names the issuer of the token",
    700212: "no federated credential of the application names the audience of the token",
    700213: "no federated credential of the application names the subject of the token",
    7002131: "no federated credential of the application names the subject of the token, and no expression fits it",
    7002138: "no federated credential of the application names the subject of the token: upper and lower case differ",
    70023: "the federated token is valid for more than a day, which Entra does not take",
    OUT_OF_TIME: "what was presented is not valid at this time",
    700027: "the certificate is not registered on the application, or has ended",
    **dict.fromkeys(_OTHER_TENANTS, "tenant restrictions of the network do not let sign in to this tenant"),
    50196: "too many sign-ins of this application in a row",
    90055: "too many requests to the tenant",
}
CONDITIONAL_ACCESS = "exempt the admin application from the policy, or allow this host's address in it"


def codes_in(answer: Mapping[str, Any]) -> list[int]:
    """Return the AADSTS numbers of an answer, the most telling one first."""
    codes = answer.get("error_codes")
    found = [code for code in codes if isinstance(code, int)] if isinstance(codes, list) else []
    return found or [int(code) for code in re.findall(r"AADSTS(\d+)", str(answer.get("error_description", "")))[:1]]


def sign_in_reason(answer: Mapping[str, Any]) -> str:
    """Say why a sign-in was refused. The answer may have ``http_status``, and ``between`` where it is not Entra's."""
    for code in codes_in(answer):
        if code in SIGN_IN_WORDS:
            return f"{SIGN_IN_WORDS[code]} (AADSTS{code})"
    lines = str(answer.get("error_description") or "").strip().splitlines()
    error = answer.get("error")
    if answer.get("claims"):
        said = f" ({foreign(lines[0])})" if lines else ""
        return f"Conditional Access asks for claims that an application cannot give{said}"
    if lines:
        return f"{foreign(error)}: {foreign(lines[0])}"
    if answer.get("between"):
        return str(answer["between"])
    status = answer.get("http_status")
    if isinstance(error, str):
        return f"{foreign(error)} (HTTP {status})" if status else foreign(error)
    return f"Entra answered HTTP {status} without a readable reason"


def sign_in_advice(answer: Mapping[str, Any], identity: Identity) -> str:
    """Return the next step after a sign-in of the admin application was refused."""
    advice: dict[int, str] = {
        WRONG_SECRET: f"put the current secret's value into {identity.source}",
        EXPIRED_SECRET: f"make a new secret for the admin application by hand and put it into {identity.source}",
        700016: f"check the client id and the tenant id in {identity.source}",
        90002: f"check the tenant id in {identity.source} and the cloud",
        7000112: "enable the admin application",
        _POLICY_BLOCKS: CONDITIONAL_ACCESS,
        **dict.fromkeys(
            _OTHER_TENANTS,
            f"let whoever runs the network's proxy or its tenant restrictions allow the tenant {identity.tenant_id}",
        ),
        **dict.fromkeys(BUSY_SIGN_IN, "run it again later"),
    }
    if identity.token:
        compare = f"compare issuer, subject and audience of {identity.token.name} with the federated credentials of"
        advice.update(dict.fromkeys(_NO_FEDERATION, f"{compare} the application {identity.client_id}"))
    if identity.certificate:
        advice[700027] = f"upload {identity.certificate.name}, without its key, to the application's certificates"
    for code in codes_in(answer):
        if code in advice:
            return advice[code]
    if answer.get("claims"):
        return CONDITIONAL_ACCESS
    if answer.get("between") or answer.get("busy"):
        return str(answer["remedy"])
    return f"check {identity.source}"


# ---- services.connection --------------------------------------------------------------------------------------------
# Connections of requests and urllib3: one trust for all, families of addresses raced, and the truth where none comes.
#
# urllib3 tries the addresses of a host one after the other, each until its timeout: a host whose IPv6 swallows packets
# would take all the time there is.


try:
    from requests import Session as Base
    from requests.adapters import HTTPAdapter
    from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.exceptions import HTTPError
    from urllib3.util.ssl_ import create_urllib3_context
except ImportError as _problem:
    REQUESTS_PROBLEM = str(_problem)
    if not TYPE_CHECKING:  # the classes below are made all the same, but no objects of them
        HTTPAdapter = HTTPConnection = HTTPSConnection = HTTPConnectionPool = HTTPSConnectionPool = Base = object
else:
    REQUESTS_PROBLEM = ""

# What to do where a service is not reached at all.
TOO_OLD = "what it goes by was too old before it could be sent"
REACH = "check the network and the proxy; for a proxy with a CA of its own, set REQUESTS_CA_BUNDLE to the PEM file"
HOST = "correct the host name in the configuration that names it"
_NO_HOST = "the address of the service holds no valid host name"
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY")
# The "Connection Attempt Delay" of https://www.rfc-editor.org/rfc/rfc8305#section-5, seconds.
_HEAD_START = 0.25
_NAME = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+(?:%\w+)?")
_NO_HANDLES = (errno.EMFILE, errno.ENFILE)


class NotConnected(Exception):
    """The request has certainly not left this host. It is none of requests' or urllib3's, so that neither wraps it.

    ``todo`` is the next step. ``lasting``: nothing that a repetition could change.
    """

    def __init__(self, why: str, todo: str = REACH, lasting: bool = False) -> None:
        super().__init__(why)
        self.todo = todo
        self.lasting = lasting


class Line:
    """What is known of the request that is under way, for whoever must tell why it did not end well."""

    def __init__(self) -> None:
        self.sent = False
        self.awaited = ""  # what is being waited for, where
        self.where = ""  # host and address
        self.families: dict[str, int] = {}  # by host, the family of the address that was connected to last
        self.socket: socket.socket | None = None  # what the request is sent over
        self.sent_at = float("-inf")  # by a clock that goes on while the host sleeps
        self.may_send: Callable[[], float] = lambda: float("inf")  # for how many seconds more it may be sent

    def begin(self, where: str, awaited: str) -> None:
        """Note that the request is sent there from now on. Raises NotConnected where it may not be any more."""
        if not self.may_send():
            raise NotConnected(TOO_OLD, "run it again", lasting=True)
        self.sent, self.sent_at = True, Budget.awake()
        self.where, self.awaited = where, awaited

    def cut(self) -> None:
        """Let what waits for an answer fail at once; for another thread than the one that waits."""
        if self.socket is not None:
            # Behind a proxy that is spoken to over TLS it is a wrapper of urllib3's around the real one.
            real = getattr(self.socket, "socket", self.socket)
            with contextlib.suppress(OSError):  # it is closed already
                socket.socket.shutdown(real, socket.SHUT_RDWR)


@functools.cache
def trust(bundle: str) -> ssl.SSLContext:
    """Return the one context for all connections that trust this file or folder of CA certificates. Raises OSError.

    To load a bundle of full size takes as long as several handshakes.
    """
    context = create_urllib3_context()
    context.load_verify_locations(**{"capath" if os.path.isdir(bundle) else "cafile": bundle})
    return context


def _trust() -> ssl.SSLContext:
    name = next((name for name in _BUNDLES if os.environ.get(name)), "")
    bundle = os.environ[name] if name else DEFAULT_CA_BUNDLE_PATH
    try:
        return trust(bundle)
    except OSError as problem:
        # Only OpenSSL's own errors have no text of the system.
        why = "it holds no certificate in PEM form" if isinstance(problem, ssl.SSLError) else problem.strerror
        todo = f"let {name} name a file with PEM certificates" if name else "install the Python package certifi again"
        source = f"{bundle} ({name})" if name else bundle
        raise NotConnected(f"the CA bundle {source} cannot be used: {why}", todo, lasting=True) from None


class Session(Base):
    """A session that keeps ``line`` up to date, and nothing of what is answered. Raises NotConnected."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.headers["User-Agent"] = "keeperpam.azure/" + VERSION
        # requests replaces our Authorization header by an entry of ~/.netrc unless an auth object is set.
        self.auth = _leave_alone
        # A cookie would bind what follows to the replica that has set it.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _Adapter(line)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def get_redirect_target(self, resp: Any) -> None:
        """Return none: even where redirections are not followed, requests reads their target and their whole body."""


def _leave_alone(request: Any) -> Any:
    return request


class _Adapter(HTTPAdapter):
    """Makes our connections, which share one trust."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._context = _trust()
        pools = {"http": _HttpPool, "https": _HttpsPool}
        self._pools = {scheme: functools.partial(pool, line=line) for scheme, pool in pools.items()}
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the pools of connections through this proxy."""
        if proxy.lower().startswith("socks"):
            manager = super().proxy_manager_for(proxy, ssl_context=self._context, **options)
            # PySocks' connections are not ours, and tell nothing.
            self._line.begin("the SOCKS proxy", "the SOCKS proxy's answer")
            return manager
        both = {"ssl_context": self._context, "proxy_ssl_context": self._context}
        manager = super().proxy_manager_for(proxy, **both, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """Leave the CA bundle to the context, which has it already; otherwise each connection would load it."""
        return super().build_connection_pool_key_attributes(request, True, cert)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Do nothing, for the same reason: the context verifies."""

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        """Return the pool for this request, directly or through the proxy."""
        try:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        except (OSError, ValueError, HTTPError) as problem:
            proxy = select_proxy(request.url, proxies)
            raise (_proxy_problem(proxy, problem) if proxy else NotConnected(_NO_HOST, HOST, lasting=True)) from None


def _proxy_problem(proxy: str, problem: Exception) -> NotConnected:
    # Not quoted: it may hold a password, and where it is malformed, nobody knows at which place.
    name = next((name for name in _PROXIES if os.environ.get(name) == proxy), "the proxy settings")
    if "SOCKS" in str(problem):
        todo = "install requests[socks] for the Python that runs this, or name an HTTP proxy"
        return NotConnected(
            f"{name} names a SOCKS proxy, for which the Python package PySocks is missing", todo, lasting=True
        )
    todo = f"correct {name}, the form is http://host:port"
    return NotConnected(f"{name} holds no address of an HTTP proxy", todo, lasting=True)


class _Connection:
    """What is ours in both kinds of connections."""

    host: str
    port: int
    timeout: float
    sock: Any
    proxy: Any
    socket_options: Any
    _dns_host: str
    _tunnel_host: str | None

    def __init__(self, *arguments: Any, line: Line, **options: Any) -> None:
        self._line = line
        self._where = ""
        super().__init__(*arguments, **options)

    def connect(self) -> None:
        """Connect, through the proxy where there is one, and shake hands."""
        host, proxy = self.host, f"the proxy {self.host}:{self.port}" if self.proxy else ""
        target = self._tunnel_host or host
        try:
            super().connect()  # type: ignore[misc]
        except (OSError, ValueError, HTTPError, HTTPException) as problem:
            raise self._failed(problem, target, proxy) from None
        self._line.socket = self.sock

    def _failed(self, problem: Exception, target: str, proxy: str) -> NotConnected:
        if isinstance(problem, UnicodeError):
            return NotConnected(_NO_HOST, HOST, lasting=True)
        if isinstance(problem, ssl.SSLCertVerificationError):
            return NotConnected(f"the certificate of {self._where} is not trusted ({problem.verify_message})")
        if str(problem).startswith("Tunnel connection failed"):
            status = str(problem).split(": ", 1)[-1]
            todo = f"let {proxy} pass connections to {target}, or correct the proxy settings"
            lasting = not status.startswith(("408", "429", "5"))
            return NotConnected(f"{proxy} refuses a connection to {target} ({status})", todo, lasting)
        if isinstance(problem, TimeoutError) or "timed out" in str(problem):
            return NotConnected(f"{self._line.awaited} did not come within {in_seconds(self.timeout)}")
        if isinstance(problem, ssl.SSLError):
            return NotConnected(f"{self._line.awaited} failed ({(problem.reason or 'no reason').replace('_', ' ')})")
        return NotConnected(f"{self._line.awaited} failed ({getattr(problem, 'strerror', None) or 'it broke off'})")

    def _new_conn(self) -> socket.socket:
        name = f"the proxy {self.host}" if self.proxy else self.host
        line = self._line
        line.awaited = f"the address of {name}"
        sock = race(self._dns_host, self.port, self.timeout, line, name)
        for option in self.socket_options or ():
            sock.setsockopt(*option)
        self._where = f"{name} ({sock.getpeername()[0]})"
        if self._tunnel_host:
            self._where = f"{self._tunnel_host} through {self._where}"
        line.awaited = f"the TLS handshake with {self._where}"
        return sock

    def request(self, *arguments: Any, **options: Any) -> None:
        """Send the request, where that may still be."""
        self._line.begin(self._where, f"the answer of {self._where}")
        self._line.socket = self.sock
        super().request(*arguments, **options)  # type: ignore[misc]


class _HttpConnection(_Connection, HTTPConnection):  # type: ignore[misc]
    pass


class _HttpsConnection(_Connection, HTTPSConnection):  # type: ignore[misc]
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection  # type: ignore[assignment]


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection  # type: ignore[assignment]


def race(host: str, port: int, timeout: float, line: Line, name: str) -> socket.socket:
    """Return a connection to the first address of ``host`` that takes one: they are tried side by side.

    Each has a head start over the next, and the families take turns (https://www.rfc-editor.org/rfc/rfc8305).
    ``timeout`` is in seconds, for all of them together; ``name`` is the host in words. Raises NotConnected.
    """
    end = time.monotonic() + timeout
    failures: list[str] = []
    if not _NAME.fullmatch(host):  # requests encodes a space, and the resolver looks for what comes out
        raise NotConnected(_NO_HOST, HOST, lasting=True)
    try:
        with selectors.DefaultSelector() as begun:  # first, since a resolver that finds no file handle does not say so
            addresses = in_turn(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM), line.families.get(host))
            line.awaited = f"a connection to {name} ({', '.join(address[4][0] for address in addresses)})"
            winner = _first(addresses, begun, end, failures)
    except socket.gaierror as problem:
        raise NotConnected(f"the address of {name} was not found ({problem.strerror})") from None
    except UnicodeError:
        raise NotConnected(_NO_HOST, HOST, lasting=True) from None
    except OSError as problem:
        handles = problem.errno in _NO_HANDLES
        todo = "let the service open more files (LimitNOFILE), or end what keeps them open" if handles else REACH
        raise NotConnected(f"no connection could be begun ({problem.strerror})", todo, lasting=handles) from None
    if winner is None:
        left = f" within {in_seconds(timeout)}" if time.monotonic() >= end else ""
        raise NotConnected(f"no connection to {name}{left} ({', '.join(failures)})")
    line.families[host] = winner.family
    winner.settimeout(max(0.01, end - time.monotonic()))  # for the handshake, too
    return winner


def _first(addresses: list[Any], begun: Any, end: float, failures: list[str]) -> socket.socket | None:
    try:
        while addresses or begun.get_map():
            if addresses:
                address = addresses.pop(0)
                try:
                    begun.register(_begin(address), selectors.EVENT_WRITE, address[4][0])
                except OSError as problem:
                    if problem.errno in _NO_HANDLES:
                        raise
                    failures.append(f"{address[4][0]}: {problem.strerror}")
            left = end - time.monotonic()
            if left <= 0:
                failures += [f"{key.data}: no answer" for key in begun.get_map().values()]
                return None
            for key, _events in begun.select(min(left, _HEAD_START) if addresses else left):
                begun.unregister(key.fileobj)
                code = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    found: socket.socket = key.fileobj
                    return found
                key.fileobj.close()
                failures.append(f"{key.data}: {os.strerror(code)}")
        return None
    finally:
        for key in list(begun.get_map().values()):
            key.fileobj.close()


def _begin(address: Any) -> socket.socket:
    family, kind, protocol, _name, where = address
    begun = socket.socket(family, kind, protocol)
    begun.setblocking(False)
    code = begun.connect_ex(where)
    if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
        begun.close()
        raise OSError(code, os.strerror(code))
    return begun


def in_turn(addresses: Sequence[Any], family: int | None) -> list[Any]:
    """Return the addresses (as ``getaddrinfo`` does, family first) so that the families take turns.

    ``family`` begins where it is there, else that of the first one.
    """
    order = sorted(dict.fromkeys(address[0] for address in addresses), key=lambda each: each != family)
    queues = [[address for address in addresses if address[0] == each] for each in order]
    return [queue[number] for number in range(len(addresses)) for queue in queues if number < len(queue)]


def in_seconds(value: float) -> str:
    """Return seconds in words."""
    return f"{value:.3g} s"


# ---- services.http --------------------------------------------------------------------------------------------------
# HTTP with one policy: timeouts on every call, kept-alive connections, retries only where they are safe.


try:
    import requests
    from urllib3.exceptions import HTTPError
except ImportError:
    pass  # connection.REQUESTS_PROBLEM tells

# What to do where something else than the service has answered.
PASS = "let what stands in between (a proxy, a web filter, the sign-in page of a network) pass requests to that host"
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 20.0
ATTEMPTS = 5
CONNECT_ATTEMPTS = 3
LOCAL_TIMEOUT, LOCAL_ATTEMPTS = 2.5, 1
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0
_LARGEST_ANSWER = 64 * 1024 * 1024
_HOST = re.compile(r"[\w.:-]{1,253}")
_PAGE = re.compile(r"(?is)<(?:!doctype\s+html|html)\b(?:.*?<title[^>]*>(?P<title>.{,100}?)</title>)?")
_PAGE_HEAD = 16384


class Unanswered(Exception):
    """No complete answer came. ``sent`` is False where the request has certainly not reached the server.

    ``todo`` is the next step. ``lasting``: nothing that a repetition could change.
    """

    def __init__(self, why: str, sent: bool, todo: str = REACH, lasting: bool = False) -> None:
        super().__init__(why)
        self.sent = sent
        self.todo = todo
        self.lasting = lasting


class Reply:
    """A complete HTTP answer of ``host``, or of what stands before it."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, host: str = "") -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.host = host

    @property
    def status_code(self) -> int:
        """The status under the name that msal reads."""
        return self.status

    @property
    def text(self) -> str:
        """The body as text; what is no UTF-8 is replaced."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> dict[str, Any]:
        """Return the body's JSON object; empty where it is anything else."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def page(self) -> re.Match[str] | None:
        """Return the beginning of a web page, with its title; None where it is none."""
        return _PAGE.search(self.body[:_PAGE_HEAD].decode("utf-8", "replace"))

    def between(self) -> str:
        """Say who has answered in place of a service that answers with JSON; empty where it is JSON."""
        about = f"(HTTP {self.status})"
        if 300 <= self.status < 400:
            return f"something in between redirects to {self._redirected()} {about}"
        if not self.body.strip():
            return f"nothing came in the answer of {self.host} {about}"
        try:
            json.loads(self.body)
        except (ValueError, RecursionError):
            page = self.page()
            if page is None:
                return f"the answer of {self.host} is no JSON {about}"
            title = f" with the title '{foreign(page['title'])}'" if page["title"] else ""
            return f"a page{title} came in place of the answer of {self.host} {about}"
        return ""

    def remedy(self) -> str:
        """Return what to do about an answer that is not the service's own."""
        return "run it again later" if busy(self) else PASS

    def _redirected(self) -> str:
        try:
            target = urlsplit(self.headers.get("Location") or "").hostname or ""
        except ValueError:
            target = ""
        return target if _HOST.fullmatch(target) else self.host


def busy(reply: Reply) -> bool:
    """Whether the same request may well succeed a little later (for calls that are safe to repeat)."""
    return reply.status in (408, 424, 429) or reply.status >= 500


def retry_after(reply: Reply, now: float | None = None) -> float | None:
    """Return the seconds that ``Retry-After`` asks for: a decimal (as in Graph's throttling page) or an HTTP date.

    None where the header is missing or unreadable; never negative. ``now`` is the Unix time, for dates.
    """
    text = (reply.headers.get("Retry-After") or "").strip()
    seconds = seconds_in(text)
    if seconds is None and text:
        try:
            seconds = seconds_in(parsedate_to_datetime(text).timestamp() - (time.time() if now is None else now))
        except (TypeError, ValueError, IndexError, OverflowError):
            return None
    return seconds


def seconds_in(value: Any) -> float | None:
    """Return the seconds that a server asks to be waited for, never negative; None for what is no finite number."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def pause_before(attempt: int, asked: float | None = None) -> float:
    """Return the seconds to wait before attempt number ``attempt`` (2 is the first repetition), with some jitter.

    ``asked`` is what the server wants to be waited for.
    """
    if asked is not None:
        return asked + random.uniform(0.0, 0.25)
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (attempt - 2)) * random.uniform(0.75, 1.25)


class Pace:
    """The pace at which requests are sent: each as soon as it is there. Whoever shares a limit has another one."""

    def wait(self, method: str, url: str, budget: Budget) -> None:
        """Wait until such a request may be sent. Raises Stopped."""

    def book(self, name: str, budget: Budget) -> None:
        """Wait so already now that the next request to the endpoint of that name need not. Raises Stopped."""

    def answered(self, method: str, url: str, reply: Reply | None) -> None:
        """Note the answer to a request that was waited for; None where there was none."""


class Lines:
    """Sessions, each with its line, that are used by one caller at a time and kept alive between calls."""

    def __init__(self) -> None:
        self._idle: list[tuple[requests.Session, Line]] = []
        self._families: dict[str, int] = {}
        self.busy: dict[Line, Budget] = {}  # whose request is under way on it

    def take(self, fresh: bool, local: bool) -> tuple[requests.Session, Line]:
        """Return a session, one without any connection where it must be ``fresh``. Raises NotConnected."""
        try:
            return self._new(local) if fresh else self._idle.pop()
        except IndexError:
            return self._new(local)

    def _new(self, local: bool) -> tuple[requests.Session, Line]:
        line = Line()
        line.families = self._families
        session = Session(line)
        session.trust_env = not local  # proxies, above all
        return session, line

    def keep(self, session: requests.Session, line: Line) -> None:
        """Let somebody else have the session."""
        line.socket = None
        self._idle.append((session, line))

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop()[0].close()


class Http:
    """The one way out. Not for use by several threads, unlike its ``lines``.

    ``local`` is for services of this host and its link: through no proxy, and given up quickly where none is there.
    """

    def __init__(
        self, budget: Budget, log: Log, local: bool = False, lines: Lines | None = None, pace: Pace | None = None
    ) -> None:
        self.budget = budget
        self._log = log
        self._local = local
        self._lines = lines or Lines()
        self._line = Line()
        self.pace = pace or Pace()
        self.asked_at = float("-inf")  # when (of the budget's ``awake``) the last request was sent

    def call(
        self,
        method: str,
        url: str,
        *,
        name: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        files: Any = None,
        query: Mapping[str, str] | None = None,
        retry: Callable[[Reply], bool] | None = None,
        fresh: bool = False,
    ) -> Reply:
        """Send a request and return the answer, whatever its status.

        ``retry`` says which answers are worth a repetition; None means that the call is not safe to repeat, and
        then only a request that was not sent is sent again. None is sent after what it goes by has become too old
        (``Budget.good_until``). With ``fresh`` every attempt goes over a new connection
        of its own, which another replica may answer. Raises Unanswered, and Stopped when the phase ends.
        """
        request = {"method": method, "url": url, "headers": headers, "data": body, "files": files, "params": query}
        attempt, sent = 1, False
        before = ""
        while True:
            last = None
            started = time.monotonic()
            try:
                reply = self._once(request, fresh)
            except OutOfTime as end:
                awaited = f", while waiting for {self._line.awaited}" if self._line.awaited else ""
                raise OutOfTime(f"{end}{awaited}{before}") from None
            except Unanswered as problem:
                self._log.detail(f"{name}: {problem}")
                before = f"; before, {problem}"
                attempts = ATTEMPTS if problem.sent else LOCAL_ATTEMPTS if self._local else CONNECT_ATTEMPTS
                lasting = problem.lasting or (problem.sent and retry is None)
                problem.sent = sent = sent or problem.sent
                pause = pause_before(attempt + 1)
                if lasting or attempt >= attempts or pause >= self.budget.sending():
                    raise
            else:
                self._log.detail(f"{name}: HTTP {reply.status} after {time.monotonic() - started:.2f} s")
                before = f"; before, {reply.host} answered HTTP {reply.status}"
                if attempt >= ATTEMPTS or retry is None or not retry(reply):
                    return reply
                pause = pause_before(attempt + 1, retry_after(reply))
                if pause >= self.budget.sending():
                    return reply
                last, sent = reply, True
            if not fresh and (last is None or last.status == 503):
                # Graph: "always make new retry requests over a new HTTP connection"
                # https://learn.microsoft.com/graph/errors
                self.close()
            self.budget.pause(pause)
            attempt += 1

    def _once(self, request: dict[str, Any], fresh: bool) -> Reply:
        self._line = Line()
        self.pace.wait(request["method"], request["url"], self.budget)
        reply = None
        try:
            self.budget.admit()
            if not self.budget.sending():
                raise NotConnected(TOO_OLD, "run it again", lasting=True)
            session, self._line = self._lines.take(fresh, self._local)
            reply = self._over(session, request, fresh)
            return reply
        except NotConnected as problem:
            raise Unanswered(str(problem), False, problem.todo, problem.lasting) from None
        finally:
            self.pace.answered(request["method"], request["url"], reply)

    def _over(self, session: requests.Session, request: dict[str, Any], fresh: bool) -> Reply:
        line, lines = self._line, self._lines
        line.sent, line.awaited, line.may_send = False, "", self.budget.sending
        lines.busy[line] = self.budget
        try:
            return self._send(session, request)
        finally:
            self.asked_at = line.sent_at
            del lines.busy[line]
            if fresh:
                session.close()
            else:
                lines.keep(session, line)

    def _send(self, session: requests.Session, request: dict[str, Any]) -> Reply:
        left, sending = max(self.budget.left(), 0.01), max(self.budget.sending(), 0.01)
        connect, read = min(LOCAL_TIMEOUT if self._local else CONNECT_TIMEOUT, sending), min(READ_TIMEOUT, left)
        try:
            with session.request(**request, timeout=(connect, read), allow_redirects=False, stream=True) as response:
                content = bytearray()
                for piece in response.iter_content(65536):
                    content += piece
                    self.budget.check()
                    if len(content) > _LARGEST_ANSWER:
                        raise Unanswered(f"{self._line.awaited} is larger than 64 MiB", sent=True)
                host = urlsplit(request["url"]).hostname or ""
                return Reply(response.status_code, response.headers, bytes(content), host)
        except MemoryError:
            todo = "give this host more memory, or end what takes it"
            raise Unanswered("this host has no memory left for the answer", self._line.sent, todo) from None
        except (OSError, ValueError, HTTPError) as problem:
            line = self._line
            if not line.sent:  # requests has found no way to make a request of it
                raise NotConnected("the address of the service is none", HOST, lasting=True) from None
            if isinstance(problem, requests.exceptions.Timeout) or "timed out" in str(problem):
                raise Unanswered(f"{line.awaited} was not complete within {in_seconds(read)}", sent=True) from None
            raise Unanswered(
                f"the connection to {line.where} broke before the answer was complete", sent=True
            ) from None

    def close(self) -> None:
        """Close the connections."""
        self._lines.close()


# ---- services.managed_identity --------------------------------------------------------------------------------------
# The managed identity of this host: an Azure VM, an App Service, or any host that Azure Arc's agent runs on.
#
# https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token,
# https://learn.microsoft.com/azure/app-service/overview-managed-identity and
# https://learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication


try:
    import msal
    from msal import managed_identity as msal_sources
except ImportError:
    pass  # entra.MSAL_PROBLEM tells

# Seconds that a service which is there, but busy, is asked again.
PATIENCE = 30.0
ARC_AGENT = "/opt/azcmagent/bin/himds"
ARC_KEYS = "/var/opt/azcmagent/tokens"
ARC_GROUP = "himds"
_VM, _VM_ADDRESS = "an Azure VM's metadata service", "http://169.254.169.254"
_ARC = "Azure Arc's agent"


def host_service() -> tuple[str, str]:
    """Return what on this host gives tokens, in words, and its address; chosen as msal chooses it.

    Raises Refused for Service Fabric, whose tokens only its own runtime can fetch.
    """
    kind = msal_sources.get_managed_identity_source()
    endpoint = os.environ.get("IDENTITY_ENDPOINT", "")
    if kind is msal_sources.SERVICE_FABRIC:
        raise Refused(
            "this host's managed identity cannot be used",
            "Azure Service Fabric is not supported",
            "use a federated credential or a certificate",
        )
    if kind is msal_sources.APP_SERVICE:
        return "App Service", endpoint
    if kind is msal_sources.MACHINE_LEARNING:
        return "Azure Machine Learning", os.environ.get("MSI_ENDPOINT", "")
    if kind is msal_sources.AZURE_ARC:
        return _ARC, endpoint or "http://localhost:40342"
    return _VM, os.environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST", _VM_ADDRESS)


class ManagedIdentity:
    """Gets tokens of this host's managed identity for one resource (https root of Graph)."""

    def __init__(self, identity: Identity, resource: str, budget: Budget, log: Log) -> None:
        self._identity = identity
        self._resource = resource
        self._budget = budget
        self._log = log
        self._service, self._address = host_service()

    def token(self) -> Secret:
        """Return an access token. Raises Refused."""
        self._log.detail(f"asking {self._service} at {self._address} for a token of {self._identity.name}")
        http = Http(self._budget, self._log, local=True)
        try:
            with self._budget.phase("get a token of this host's managed identity", PATIENCE):
                answer, last = self._ask(_MetadataTransport(http, self._budget, self._log))
        finally:
            http.close()
        if not answer.get("access_token"):
            raise self._refused(_service_words(answer, last))
        token = Secret(str(answer["access_token"]))
        theirs, ours = guid(str(claims(token).get("tid"))), guid(self._identity.tenant_id)
        if theirs and ours and theirs != ours:
            raise Refused(
                "this host's managed identity belongs to another tenant",
                f"it is of {theirs}, {self._identity.source} names {ours}",
                "correct the tenant id, or run it on a host of that tenant",
            )
        return token

    def _ask(self, transport: _MetadataTransport) -> tuple[dict[str, Any], Reply | None]:
        client_id = self._identity.client_id
        who = (
            msal.UserAssignedManagedIdentity(client_id=client_id) if client_id else msal.SystemAssignedManagedIdentity()
        )
        try:
            # A new object each time: msal remembers tokens, and answers that a service was busy.
            client = msal.ManagedIdentityClient(who, http_client=transport)
            answer = client.acquire_token_for_client(resource=self._resource)
        except Unanswered as problem:
            if problem.sent:
                raise self._refused(str(problem), "run it again later") from None
            raise Refused(
                "no managed identity was found on this host",
                f"{self._service} is not reached at {self._address} ({problem}){self._looked_for()}",
                f"run it on a host that has one, or give {self._identity.source} a client id with a client secret",
            ) from None
        except _Unfit as problem:
            raise self._refused(str(problem), "run it again later" if problem.later else "") from None
        except PermissionError:
            raise self._refused(
                f"this user may not read the keys of Azure Arc's agent in {ARC_KEYS}",
                f"make the user a member of the group {ARC_GROUP}, which needs to read that folder, and start its "
                "service again",
            ) from None
        except OSError as problem:
            why = f"the key that Azure Arc's agent has named cannot be read ({problem.strerror or 'no reason'})"
            raise self._refused(why, f"see whether the agent writes to {ARC_KEYS}") from None
        except Exception as problem:  # whatever msal makes of an answer; its text may quote it
            self._log.detail(f"msal: {type(problem).__name__}")
            # An agent that knows the host's own identity alone; older versions of msal do not even ask it.
            if client_id and self._service == _ARC and (transport.last is None or transport.last.status == 200):
                raise self._refused(f"{_ARC} has not confirmed that identity") from None
            answer = {}
        return (answer if isinstance(answer, dict) else {}), transport.last

    def _looked_for(self) -> str:
        if self._service != _VM:
            return ""
        return (
            f"; nor is it App Service (IDENTITY_ENDPOINT and IDENTITY_HEADER are not set) or one of Azure Arc's "
            f"({ARC_AGENT} is not there)"
        )

    def _refused(self, why: str, todo: str = "") -> Refused:
        name = self._identity.name
        which = "assign that identity to this host" if self._identity.client_id else "give this host a managed identity"
        return Refused(f"{name} got no token from {self._service} at {self._address}", why, todo or which)


class _Unfit(Exception):
    """An answer that is none; ``later`` where the service may give one later."""

    def __init__(self, why: str, later: bool) -> None:
        super().__init__(why)
        self.later = later


class _MetadataTransport:
    """What msal asks with, by GET only."""

    def __init__(self, http: Http, budget: Budget, log: Log) -> None:
        self._http = http
        self._budget = budget
        self._log = log
        self.last: Reply | None = None

    def get(self, url: str, params: Any = None, headers: Any = None, **kwargs: Any) -> Reply:
        """Return an answer that is no "later"; repeat the request until then. Raises Unanswered, _Unfit, Stopped."""
        for name, value in (headers or {}).items():
            if name.lower() in ("authorization", "x-identity-header", "secret"):
                remember(str(value).rsplit(" ", 1)[-1])
        attempt = 1
        while True:
            asked = None
            try:
                reply = self._http.call("GET", url, name="managed identity", headers=headers, query=params, fresh=True)
            except Unanswered as problem:
                if not problem.sent:
                    raise
                why = str(problem)
            else:
                self.last = reply
                if 300 <= reply.status < 400:
                    raise _Unfit(f"it redirects elsewhere (HTTP {reply.status}), which is not followed", later=False)
                # 404 and 410: the service, or the identity, is being set up.
                if not (busy(reply) or reply.status in (404, 410)):
                    return reply
                asked, why = retry_after(reply), f"it is busy (HTTP {reply.status})"
            attempt += 1
            pause = pause_before(attempt, asked)
            if pause >= self._budget.left():
                raise _Unfit(f"{why}, also after {attempt - 1} requests", later=True)
            if attempt == 2:
                self._log.say(f"the managed identity has to wait: {why}")
            self._budget.pause(pause)

    def post(self, url: str, **kwargs: Any) -> Reply:
        """Do nothing: no service that is supported is asked so."""
        raise _Unfit("it is asked in a way that is not supported", later=False)

    def close(self) -> None:
        """The connections are closed by whoever made them."""


def _service_words(answer: dict[str, Any], last: Reply | None) -> str:
    """Return why there is no token: the service's own words, not what msal makes of them."""
    if last is None:
        return "it was not asked"
    body = last.json()
    nested = body.get("error")
    found = [body.get("error_description"), body.get("message"), nested if isinstance(nested, str) else None]
    text = next((each for each in found if isinstance(each, str) and each.strip()), "")
    first = foreign(text.strip().splitlines()[0]) if text else "its answer has no readable reason"
    return f"{first} (HTTP {last.status})"


# ---- services.entra -------------------------------------------------------------------------------------------------
# Microsoft Entra: clouds, tokens for the admin application, and the proof that a secret signs in.


try:
    import msal
except ImportError as _problem:
    MSAL_PROBLEM = str(_problem)
else:
    MSAL_PROBLEM = ""

# Waiting changes none of these for an application that exists.
_FINAL = {700016, 7000229, 7000112, 53003, 90002, 500011, 500021, 5000211}
_ADMIN_ATTEMPTS = 3
# From this msal on the certificate is enough, and its SHA-256 thumbprint is used.
_WITHOUT_THUMBPRINT = (1, 35)


@dataclass(frozen=True)
class Cloud:
    """The two endpoints of a cloud, as https roots without a trailing slash."""

    authority: str
    graph: str

    @property
    def is_microsofts(self) -> bool:
        """Whether both endpoints are known to be Microsoft's."""
        clouds = CLOUDS.values()
        graphs = {_DEFENSE_GRAPH, *(cloud.graph for cloud in clouds)}
        return self.graph in graphs and self.authority in {cloud.authority for cloud in clouds}


# https://learn.microsoft.com/graph/deployments and https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
CLOUDS = {
    "AzureCloud": Cloud("https://login.microsoftonline.com", "https://graph.microsoft.com"),
    "AzureUSGovernment": Cloud("https://login.microsoftonline.us", "https://graph.microsoft.us"),
    "AzureChinaCloud": Cloud("https://login.partner.microsoftonline.cn", "https://microsoftgraph.chinacloudapi.cn"),
}
# Older names of these authorities, which AKS and other tools may still use.
_ALIASES = {
    "https://login.windows.net": CLOUDS["AzureCloud"].authority,
    "https://login.microsoft.com": CLOUDS["AzureCloud"].authority,
    "https://sts.windows.net": CLOUDS["AzureCloud"].authority,
    "https://login.usgovcloudapi.net": CLOUDS["AzureUSGovernment"].authority,
    "https://login.chinacloudapi.cn": CLOUDS["AzureChinaCloud"].authority,
}
# That of the US Department of Defense (L5), which shares its authority with AzureUSGovernment (L4).
_DEFENSE_GRAPH = "https://dod-graph.microsoft.us"


def custom_cloud(authority: str, graph: str, where: str) -> Cloud:
    """Return the cloud of two endpoints; an authority that is well known brings its Graph endpoint along.

    Both may come with or without ``https://``. ``where`` names their origin. Raises BadInput.
    """
    login = authority_root(authority, where)
    if graph:
        return Cloud(login, _root_url(graph, "Graph endpoint", where))
    for cloud in CLOUDS.values():
        if cloud.authority == login:
            return cloud
    raise BadInput(f"{where} names the authority {login} but no Graph endpoint", todo="add the Graph endpoint")


def authority_root(text: str, where: str) -> str:
    """Return the https root of an authority, which may come without ``https://``, under its newest name.

    Raises BadInput.
    """
    url = _root_url(text, "authority", where)
    return _ALIASES.get(url, url)


def _root_url(text: str, what: str, where: str) -> str:
    url = text.strip() if "://" in text else "https://" + text.strip()
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", url):
        raise BadInput(f"the {what} of {where} is no https address: {text!r}", todo="enter a host name")
    return "https://" + urlsplit(url).netloc.lower()


class Answer(Enum):
    """What one sign-in has shown of the secret that it was made with."""

    TAKEN = "taken"
    REFUSED = "refused"  # Entra's word that the secret is wrong or expired
    LATER = "later"  # neither yes nor no: busy, or no answer
    NEVER = "never"  # neither, and waiting does not change it


@dataclass(frozen=True)
class SignIn:
    """One sign-in: its answer, in words why, and the pause in seconds that Entra asks for."""

    answer: Answer
    why: str = ""
    wait: float | None = None


class NotReached(Refused):
    """The token endpoint has said neither yes nor no."""


class Entra:
    """The token endpoint of one tenant."""

    def __init__(self, http: Http, cloud: Cloud, tenant_id: str, budget: Budget, log: Log) -> None:
        self._http = http
        self._cloud = cloud
        self._tenant = tenant_id
        self._budget = budget
        self._log = log
        self._token_endpoint = f"{cloud.authority}/{tenant_id}/oauth2/v2.0/token"
        # msal logs an answer that it cannot parse, and with it perhaps a token.
        logging.getLogger("msal").addHandler(logging.NullHandler())
        logging.getLogger("msal").propagate = False

    @property
    def asked_at(self) -> float:
        """When (of the budget's ``awake``) the last request was sent."""
        return self._http.asked_at

    def token(self, identity: Identity, renew: Callable[[], Identity | None] | None = None) -> Secret:
        """Return an access token of the admin application for Graph.

        A secret that Entra calls wrong is tried again for some seconds: after a rotation of the admin application
        itself not every replica knows it yet. Before that, ``renew`` may return the identity with another secret, which
        is tried at once. What comes from a file is read afresh. Raises Refused, BadInput.
        """
        if identity.managed:
            return ManagedIdentity(identity, self._cloud.graph, self._budget, self._log).token()
        for attempt in range(1, _ADMIN_ATTEMPTS + 1):
            answer = self._acquire(identity)
            if "access_token" in answer:
                self._log.detail(f"signed in as {identity.client_id}")
                return Secret(str(answer["access_token"]))
            if renew and identity.secret and {WRONG_SECRET, EXPIRED_SECRET} & set(codes_in(answer)):
                newer, renew = renew(), None
                if newer:
                    identity = newer
                    continue
            pause = 2.0 * attempt
            if WRONG_SECRET not in codes_in(answer) or attempt == _ADMIN_ATTEMPTS or pause >= self._budget.left():
                break
            self._log.say(f"Entra does not accept the secret of {identity.source}; trying again")
            self._budget.pause(pause)
        raise Refused(
            f"the admin application {identity.client_id} could not sign in to tenant {self._tenant}",
            sign_in_reason(answer),
            sign_in_advice(answer, identity),
        )

    def _acquire(self, identity: Identity) -> Mapping[str, Any]:
        transport = _Transport(self._http, self._cloud)
        credential: Any = identity.secret.reveal() if identity.secret else None
        token: Secret | None = None
        if identity.certificate:
            pair = open_certificate(identity.certificate)
            credential = {"private_key": pair.private_key.reveal(), "public_certificate": pair.certificate}
            if _msal_version() < _WITHOUT_THUMBPRINT:
                credential["thumbprint"] = pair.thumbprint
        elif identity.token:
            token = identity.token.fetch()
            credential = {"client_assertion": token.reveal}
        try:
            # A new object each time: msal answers from its caches otherwise, and a 400 stays cached for 60 s.
            # No instance discovery: the authority is from our table, or was named by the administrator.
            client = msal.ConfidentialClientApplication(
                identity.client_id,
                client_credential=credential,
                authority=f"{self._cloud.authority}/{self._tenant}",
                instance_discovery=False,
                http_client=transport,
            )
            answer: Mapping[str, Any] = client.acquire_token_for_client([self._cloud.graph + "/.default"])
        except Unanswered as problem:
            raise NotReached(f"{self._cloud.authority} was not reached", str(problem), problem.todo) from None
        except Refused:
            raise
        except Exception as problem:  # whatever msal makes of an answer
            self._log.detail(f"msal: {type(problem).__name__}")
            answer = {}
        if "access_token" not in answer and transport.last is not None:
            # msal hides the body of a failed discovery, which is where an unknown tenant shows.
            answer = {**answer, **_with_origin(transport.last)}
        if OUT_OF_TIME in codes_in(answer) and transport.last is not None:
            raise _out_of_time(identity, token, transport.last)
        return answer

    def sign_in(self, client_id: str, secret: Secret) -> SignIn:
        """Sign in once with a secret of an application, over a connection of its own; say what it shows.

        One plain request, as documented in
        https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow: msal's caches are not
        keyed by the secret and could answer for another one. Raises Stopped.
        """
        body = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": secret.reveal(),
            "scope": self._cloud.graph + "/.default",
        }
        try:
            reply = self._http.call("POST", self._token_endpoint, name="sign-in", body=body, fresh=True)
        except Unanswered as problem:
            return SignIn(Answer.LATER, str(problem))
        answer = reply.json()
        if reply.status == 200 and answer.get("access_token"):
            return SignIn(Answer.TAKEN)
        if set(codes_in(answer)) & {WRONG_SECRET, EXPIRED_SECRET}:
            return SignIn(Answer.REFUSED, f"Entra's sign-in does not know the secret (AADSTS{codes_in(answer)[0]})")
        return SignIn(classify(reply), sign_in_reason(_with_origin(reply)), retry_after(reply))


def classify(reply: Reply) -> Answer:
    """Return whether waiting may change a sign-in that was neither taken nor refused."""
    answer = reply.json()
    codes = set(codes_in(answer))
    error = answer.get("error")
    if codes & _FINAL:
        return Answer.NEVER
    if codes & BUSY_SIGN_IN or busy(reply) or not error:
        return Answer.LATER
    waits = error in ("invalid_client", "temporarily_unavailable", "server_error")
    return Answer.LATER if waits else Answer.NEVER


class _Transport:
    """What msal sends its requests with: our timeouts and retries. Asking for a token is safe to repeat."""

    def __init__(self, http: Http, cloud: Cloud) -> None:
        self._http = http
        self._cloud = cloud
        self.last: Reply | None = None

    def get(self, url: str, params: Any = None, headers: Any = None, **kwargs: Any) -> Reply:
        reply = self._call("GET", url, params, None, headers)
        if reply.status < 400:
            self._check(reply)
        return reply

    def _check(self, discovery: Reply) -> None:
        """The secret goes where discovery says: to the authority itself, or nowhere. Raises Refused."""
        endpoint, name = discovery.json().get("token_endpoint"), self._cloud.authority
        if _is_below(endpoint, name):
            return
        todo = "choose the cloud that the tenant is in" if endpoint else discovery.remedy()
        why = discovery.between() or "it names no token endpoint of its own"
        raise Refused(f"{name} does not say where to sign in", why, todo)

    def post(self, url: str, params: Any = None, data: Any = None, headers: Any = None, **kwargs: Any) -> Reply:
        return self._call("POST", url, params, data, headers)

    def close(self) -> None:
        """The connections belong to the Http object."""

    def _call(self, method: str, url: str, query: Any, body: Any, headers: Any) -> Reply:
        name = "sign-in of the admin application" if method == "POST" else "discovery"
        self.last = self._http.call(method, url, name=name, headers=headers, body=body, query=query, retry=_retry)
        return self.last


def _msal_version() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", msal.__version__)[:2])


def _is_below(url: Any, root: str) -> bool:
    try:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        return f"{parts.scheme}://{parts.netloc}".lower() == root and len(parts.path) > 1
    except ValueError:
        return False


def _with_origin(reply: Reply) -> dict[str, Any]:
    """Return the answer, with what their words need where it is not Entra's."""
    return {
        **reply.json(),
        "http_status": reply.status,
        "between": reply.between(),
        "busy": busy(reply),
        "remedy": reply.remedy(),
    }


def _retry(reply: Reply) -> bool:
    return busy(reply) or bool(BUSY_SIGN_IN & set(codes_in(reply.json()))) or (reply.status == 200 and not reply.json())


def _out_of_time(identity: Identity, token: Secret | None, reply: Reply) -> Refused:
    """Say whether it is the token that has ended or this host's clock that is wrong."""
    what, now = f"the admin application {identity.client_id} could not sign in", datetime.now(timezone.utc)
    try:
        theirs = parsedate_to_datetime(reply.headers.get("Date") or "").astimezone(timezone.utc)
    except (TypeError, ValueError, IndexError, OverflowError):
        theirs = now
    end = end_of(token) if token else None
    if identity.token and end is not None and end <= theirs:
        why = f"{identity.token.name} has expired, it was valid until {format_time(end)} (AADSTS{OUT_OF_TIME})"
        return Refused(what, why, "see to whatever issues the token; it is read anew at each sign-in")
    apart = abs((now - theirs).total_seconds())
    why = f"{SIGN_IN_WORDS[OUT_OF_TIME]}; this host's clock differs from Entra's by {apart:.0f} s (AADSTS{OUT_OF_TIME})"
    return Refused(what, why, "let the host keep its time (NTP)")


# ---- services.graph_words -------------------------------------------------------------------------------------------
# What Graph says no with, in words, and what to do about it: by its code, and by what the token may do.


# https://learn.microsoft.com/graph/permissions-reference
OWNED_ONLY = "Application.ReadWrite.OwnedBy"
ALL_APPLICATIONS = {"Application.ReadWrite.All", "Directory.ReadWrite.All"}
# What Graph may carry out a little later.
LATER = (408, 409, 424, 429)
_FULL_OBJECT = "size of the object has exceeded its limit"


def code_and_text(reply: Reply) -> tuple[str, str]:
    """Return the code and the message of Graph's error; empty texts where it has none."""
    error = reply.json().get("error")
    error = error if isinstance(error, dict) else {}
    return foreign(error.get("code") or ""), foreign(error.get("message") or "")


def refusal_of(reply: Reply, roles: set[str] | None, who: str) -> tuple[str, str]:
    """Return why Graph has not done what it was asked for, and the next step, which may be empty.

    ``roles`` are the permissions in the token, None where they cannot be read; ``who`` is the caller in words.
    """
    code, text = code_and_text(reply)
    why = f"{text or 'no readable reason'} ({code or 'HTTP'} {reply.status})"
    if not code and reply.status == 403:
        return f"the answer of {reply.host} is not Graph's (HTTP 403)", PASS
    if code == "CredentialInvalidLifetimeAsPerAppPolicy":
        return why, "lower lifetime_days to what the tenant's app management policy allows"
    if code == "CredentialTypeNotAllowedAsPerAppPolicy":
        return why, "exempt the application from the policy, or let it use a certificate or a federated credential"
    if code == "Directory_ResourceSizeExceeded" or _FULL_OBJECT in text:
        return why, "remove secrets, redirect URIs or other entries that the application does not need"
    if code == "Directory_QuotaExceeded":
        return why, "let the tenant's directory quota be raised, or delete objects that nobody needs"
    if reply.status == 403:
        return _not_allowed(code, text, roles, who)
    if reply.status >= 500 or reply.status in LATER:
        return why, "run it again later"
    if reply.status == 401 and "insufficient_claims" in (reply.headers.get("WWW-Authenticate") or ""):
        return f"Conditional Access has ended what the token may do: {why}", CONDITIONAL_ACCESS
    if reply.status == 401:
        return why, "check that the authority and the Graph endpoint belong to the same cloud"
    return why, ""


def _not_allowed(code: str, text: str, roles: set[str] | None, who: str) -> tuple[str, str]:
    why = f"{text or 'access denied'} ({code})"
    owner = "make its service principal an owner of the application"
    grant = f"grant {OWNED_ONLY} to {who}, consent to it, and {owner}"
    if roles is None:
        return why, grant
    if roles & ALL_APPLICATIONS:
        return why, f"see in Entra what keeps {who} from this application, as a restricted administrative unit does"
    if OWNED_ONLY in roles:
        todo = f"make the service principal of {who} an owner of the application"
        return (
            f"{who} does not own the application, as {OWNED_ONLY} wants it: {why}",
            f"{todo}; if it was made one minutes ago, run it again",
        )
    carries = f"the token carries {', '.join(sorted(map(foreign, roles)))} alone" if roles else ""
    todo = f"{grant}; if consent was given minutes ago, run it again in some minutes"
    return f"{carries or 'the token carries no permission'}: {why}", todo


# ---- services.graph -------------------------------------------------------------------------------------------------
# Microsoft Graph v1.0: an application's password credentials, read, added and removed.


_SELECT = "id,appId,displayName,signInAudience,passwordCredentials"
ADD, REMOVE = WRITES = "addPassword", "removePassword"
_CONCURRENT = "Directory_ConcurrencyViolation"
_FULL = "TooManyAppPasswords"
_OWNED_PAGES = 20


class NotDone(Exception):
    """A call of Graph did not succeed. ``why`` and ``todo`` are for people.

    ``certain`` tells that Graph has refused; otherwise the call may have taken effect, or may do so later.
    ``busy`` tells that by Graph's words the call was not carried out, and may be later. ``full`` tells that the
    application holds as many secrets as it may. ``status`` is that of the HTTP answer, 0 where there was none.
    ``wait`` is the pause in seconds that Graph asked for.
    """

    def __init__(
        self,
        why: str,
        todo: str = "",
        *,
        certain: bool = True,
        busy: bool = False,
        full: bool = False,
        status: int = 0,
        wait: float | None = None,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.todo = todo
        self.certain = certain
        self.busy = busy
        self.full = full
        self.status = status
        self.wait = wait


class Graph:
    """The applications of one tenant, as one admin application may see them; ``admin`` is its client id, if known.

    ``sign_in`` returns a fresh access token; it is asked once at first and again after a 401.
    """

    def __init__(self, http: Http, root: str, admin: str, sign_in: Callable[[], Secret], log: Log) -> None:
        self._http = http
        self._root = root + "/v1.0"
        self._admin = admin
        self._sign_in = sign_in
        self._log = log
        self._token: Secret | None = None

    @property
    def asked_at(self) -> float:
        """When (of the budget's ``awake``) the last request was sent."""
        return self._http.asked_at

    def connect(self) -> None:
        """Fetch the first token. Raises Refused, BadInput."""
        self._token = self._sign_in()

    def find(self, identifier: str, client_id_first: bool = False) -> Application:
        """Return the application with that object id or client id.

        Keeper's page mixes the two up, so both are tried. Not by ``$filter``: that is refused to an admin application
        with Application.ReadWrite.OwnedBy (https://learn.microsoft.com/graph/permissions-reference). Raises BadInput
        for what is no GUID, Refused.
        """
        wanted = guid(identifier)
        if wanted is None:
            raise BadInput(
                "application_object_id holds neither an object id nor a client id",
                todo="enter the Object ID of the app registration's overview page",
            )
        forms = [f"/{wanted}", f"(appId='{wanted}')"]
        problems = []
        for form in reversed(forms) if client_id_first else forms:
            try:
                return self._read(form)
            except NotDone as refusal:
                problems.append(refusal)
                if refusal.status not in (400, 403, 404):
                    break
        problem = next((each for each in problems if each.status != 404), problems[-1])
        if problem.status == 404:
            raise Refused(
                f"the application {wanted} was not found",
                "Graph knows it neither as object id nor as client id in this tenant",
                "check application_object_id, the tenant, and whether the app registration was deleted",
            )
        raise Refused(f"the application {wanted} could not be read", problem.why, problem.todo)

    def read(self, application: Application) -> Application:
        """Read the application afresh, over a connection of its own. Raises NotDone."""
        with _if_known():
            return self._read("/" + application.object_id, fresh=True)

    def _read(self, form: str, fresh: bool = False) -> Application:
        reply = self._call(
            "GET",
            "/applications" + form,
            "read application",
            {"$select": _SELECT},
            retry=_again_or_garbled,
            fresh=fresh,
        )
        found = application_in(reply.json(), server_time(reply))
        if found is None:
            between = reply.between()
            why = between or "Graph's answer is no application with a list of its secrets"
            raise NotDone(why, between and reply.remedy(), certain=False)
        return found

    def add_password(self, application: Application, display_name: str, end: datetime) -> tuple[Credential, Secret]:
        """Create a client secret once, without any repetition; Entra generates the value and shows it only here.

        https://learn.microsoft.com/graph/api/application-addpassword. No startDateTime is sent: with a client's
        clock that is ahead, the secret would not be valid yet. Raises NotDone.
        """
        wanted = {"displayName": display_name, "endDateTime": format_time(end)}
        body = {"passwordCredential": wanted}
        with _if_known():
            reply = self._call("POST", f"/applications/{application.object_id}/{ADD}", "add password", body=body)
        answer = reply.json()
        text = answer.get("secretText")
        found = credentials_in([answer])
        if not found or not isinstance(text, str) or not text:
            raise NotDone("Graph's answer to addPassword could not be read", certain=False)
        credential = found[0]
        if credential.end is None:
            credential = Credential(
                credential.key_id, credential.display_name, credential.start, end, wanted["endDateTime"]
            )
        return credential, Secret(text)

    def await_turn(self, name: str) -> None:
        """Wait until a write of that name may be sent: what is to be fresh then is looked at afterwards.

        Raises Stopped.
        """
        self._http.pace.book(name, self._http.budget)

    def remove_password(self, application: Application, key_id: str) -> bool:
        """Remove a client secret; return False where Graph knows none with that key id.

        https://learn.microsoft.com/graph/api/application-removepassword. Safe to repeat. An unknown key id is answered
        with 400 and a text, for which no error code is documented. Raises NotDone.
        """
        body, path = {"keyId": key_id}, f"/applications/{application.object_id}/{REMOVE}"
        try:
            with _if_known():
                self._call("POST", path, "remove password", body=body, retry=_again)
        except NotDone as problem:
            if problem.status == 400 and "no password credential found" in problem.why.lower():
                return False
            raise
        return True

    def roles(self) -> set[str] | None:
        """Return the application permissions in the access token; None where it cannot be read (it is opaque)."""
        said = claims(self._token) if self._token else {}
        roles = said.get("roles", [])
        return {str(role) for role in roles} if said and isinstance(roles, list) else None

    def owns(self, application: Application) -> bool | None:
        """Return whether the admin application's service principal owns the application, None if Graph does not say.

        The call that Application.ReadWrite.OwnedBy allows: https://learn.microsoft.com/graph/permissions-reference.
        """
        said = claims(self._token) if self._token else {}
        # A host's own managed identity is known by its tokens alone.
        admin = self._admin or guid(str(said.get("appid")))
        if not admin:
            return None
        path = f"/servicePrincipals(appId='{admin}')/ownedObjects"
        try:
            for number, reply in enumerate(self.pages(path, "owned objects", {"$select": "id", "$top": "999"})):
                found = reply.json()["value"]
                if any(isinstance(one, dict) and guid(str(one.get("id"))) == application.object_id for one in found):
                    return True
                if number == _OWNED_PAGES - 1:
                    return None
        except NotDone:
            return None
        return False

    def pages(self, path: str, name: str, query: Mapping[str, str]) -> Iterator[Reply]:
        """Give the answers with the pages of a list, each a JSON object with a list as ``value``. Raises NotDone."""
        rest: Mapping[str, str] | None = query
        for number in itertools.count(1):
            reply = self._call("GET", path, f"{name}, page {number}", rest, retry=_again_or_garbled)
            body = reply.json()
            if not isinstance(body.get("value"), list):
                between = reply.between()
                raise NotDone(between or "Graph's answer is no list", between and reply.remedy(), certain=False)
            yield reply
            following = str(body.get("@odata.nextLink") or "")
            if not following:
                return
            if not following.startswith(self._root + "/"):
                raise NotDone("the next page of Graph's list lies elsewhere", certain=False)
            path, rest = following[len(self._root) :], None

    def batch(self, requests: Sequence[Mapping[str, str]], name: str) -> Reply:
        """Send several requests at once, which must all be safe to repeat (https://learn.microsoft.com/graph/json-batching).

        Return the answer, a JSON object with a list as ``responses``. Raises NotDone.
        """
        reply = self._call("POST", "/$batch", name, body={"requests": list(requests)}, retry=_again)
        if not isinstance(reply.json().get("responses"), list):
            between = reply.between()
            raise NotDone(between or "Graph's answer is no batch", between and reply.remedy(), certain=False)
        return reply

    def _call(
        self,
        method: str,
        path: str,
        name: str,
        query: Mapping[str, str] | None = None,
        body: dict[str, Any] | None = None,
        retry: Callable[[Reply], bool] | None = None,
        fresh: bool = False,
    ) -> Reply:
        for again in (False, True):
            with self._http.budget.good_until(float("inf")):  # a token does not grow old like that
                if self._token is None:
                    self._token = self._sign_in()
                elif again:
                    self._token = self._sign_in_again()
            headers = {
                "Authorization": "Bearer " + self._token.reveal(),
                "Content-Type": "application/json",
                # Graph's best practices: a GUID per request, to find it in Microsoft's logs.
                "client-request-id": str(uuid.uuid4()),
            }
            data = None if body is None else json.dumps(body)
            try:
                url = self._root + path
                reply = self._http.call(
                    method, url, name=name, headers=headers, body=data, query=query, retry=retry, fresh=fresh
                )
            except Unanswered as problem:
                raise NotDone(f"Graph did not answer: {problem}", problem.todo, certain=not problem.sent) from None
            if reply.status != 401:
                break
            self._log.detail("Graph does not accept the token; signing in again")
        if reply.status // 100 == 2:
            return reply
        raise self.problem(reply)

    def _sign_in_again(self) -> Secret:
        try:
            return self._sign_in()
        except Refused as problem:
            raise NotDone(f"Graph does not accept the token any more; {problem.message}", status=401) from None

    def _who(self) -> str:
        return f"the admin application {self._admin}" if self._admin else "this host's managed identity"

    def problem(self, reply: Reply) -> NotDone:
        """Return what an answer means that is no success."""
        code = code_and_text(reply)[0]
        if not code and reply.between():
            return NotDone(reply.between(), reply.remedy(), certain=False, wait=retry_after(reply))
        why, todo = refusal_of(reply, self.roles(), self._who())
        # What comes without Graph's own error code is from something in between, and proves nothing.
        certain = reply.status == 401 or (bool(code) and reply.status < 500 and reply.status not in LATER)
        return NotDone(
            why,
            todo,
            certain=certain,
            busy=reply.status == 429 or code == _CONCURRENT,
            full=code == _FULL,
            status=reply.status,
            wait=retry_after(reply),
        )


@contextmanager
def _if_known() -> Iterator[None]:
    """Let "not found" mean "later" for an application that was read before: a replica has not heard of it, or of the
    last write to it, yet (https://github.com/hashicorp/terraform-provider-azuread/issues/661)."""
    try:
        yield
    except NotDone as problem:
        if problem.status == 404:
            problem.certain, problem.busy = False, True
        raise


def _again(reply: Reply) -> bool:
    return busy(reply) or reply.status == 409


def _again_or_garbled(reply: Reply) -> bool:
    body = reply.json()
    lists = isinstance(body.get("passwordCredentials", body.get("value")), list)
    return _again(reply) or (reply.status == 200 and not lists)


def server_time(reply: Reply) -> datetime:
    """Return Graph's own time: a lifetime counted on a host whose clock is ahead would exceed a policy's maximum."""
    try:
        return parsedate_to_datetime(reply.headers.get("Date") or "").astimezone(timezone.utc)
    except (TypeError, ValueError, IndexError, OverflowError):
        return datetime.now(timezone.utc)


# ---- base.encoded ---------------------------------------------------------------------------------------------------
# Base64 as people and programs write it, and what they give in its place.


_QUOTES = ("'", '"', "\u2018", "\u2019", "\u201c", "\u201d")
_BEGINNINGS = (b"{", b"[")
# Reasons, each with the next step.
IS_JSON = "it is JSON itself", "pass base64 of it"
CUT_OFF = "it is cut off or damaged", "give the whole of it"


def decode(data: bytes) -> bytes:
    """Return what the base64 holds, of either alphabet, padded or not. Raises ValueError."""
    compact = data.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)


def is_utf_16(data: bytes) -> bool:
    """Whether it is text in UTF-16, as Windows writes it: every second byte of such a text is mostly zero."""
    return data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 3 * data.count(0) > len(data) > 0


def mistake(data: bytes) -> tuple[str, str]:
    """Return what was given where JSON or base64 of JSON should be, and the next step; empty texts for no idea."""
    text = data.strip()
    if is_utf_16(data):
        return "it is UTF-16 text", "write it as UTF-8, in PowerShell with -Encoding utf8"
    if text.decode("utf-8", "replace").startswith(_QUOTES):
        return "there are quotes around it", "give it without the quotes"
    if text.startswith(_BEGINNINGS):
        return IS_JSON if _is_json(text) else CUT_OFF
    try:
        inner = decode(b"".join(text.split())).strip()
    except (ValueError, binascii.Error):
        return "", ""
    if is_utf_16(inner):
        return "it is base64 of UTF-16 text", "encode UTF-8 text"
    if inner.startswith(_BEGINNINGS):
        return CUT_OFF
    try:
        twice = _is_json(decode(b"".join(inner.split())))
    except (ValueError, binascii.Error):
        return "", ""
    return ("it is base64 twice", "decode it once, as with base64 -d") if twice else ("", "")


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


# ---- services.configuration -----------------------------------------------------------------------------------------
# The text of a Keeper configuration: the file that it is in, and what people give in its place.


INITIALISED = "use the configuration of a device or Gateway that has been initialised"
_LARGEST = 64 * 1024 * 1024
# REGION:token or host:token, https://docs.keeper.io/secrets-manager
_ONE_TIME = re.compile(r"[\w.-]+:[\w-]{40,}={0,2}(?::.*)?")
# https://docs.keeper.io/en/keeperpam/secrets-manager/secrets-manager-command-line-interface/profile-command
_INI = re.compile(r"(?m)^\s*\[[\w.-]+\]\s*$")
_MANIFEST = re.compile(r"(?m)^apiVersion:\s")
_FILE_NAME = re.compile(r"(?:~?/|[A-Za-z]:\\|\.{1,2}/)\S*|\S+\.(?:json|ini|ya?ml)")


def read_configuration(path: str) -> str:
    """Return the text of the file; it is read once and never opened for writing. Raises BadInput."""
    if mistake(path.encode("utf-8", "replace")) in (IS_JSON, CUT_OFF):
        remember(path)
        what = "the path of the Keeper configuration is none"
        raise BadInput(what, "it is the configuration itself", "use the variable or option for its text")
    try:
        with open(os.path.expanduser(path), "rb") as file:
            data = file.read(_LARGEST)
        if not is_utf_16(data):
            return data.decode("utf-8-sig")
        why, todo = mistake(data)
    except UnicodeDecodeError:
        why, todo = "it is no text", "export the configuration again, as JSON or base64"
    except (OSError, ValueError) as problem:
        code = getattr(problem, "errno", None)
        why = getattr(problem, "strerror", None) or str(problem)
        todo = "run it as the Gateway's user, or let that user read the file"
        if path.startswith(("'", '"')):
            why, todo = "there are quotes around the path", "name it without the quotes"
        elif code == errno.EISDIR:
            why, todo = "it is a folder", "name a file in it"
        elif code not in (errno.EACCES, errno.EPERM):
            todo = "correct the path"
    raise BadInput(f"the Keeper configuration {path} cannot be read", why, todo)


def instead(text: str, decoded: str) -> tuple[str, str]:
    """Return what was given in place of a configuration, and the next step; empty texts for no idea.

    ``decoded`` is what the text holds where it is base64, else the text itself.
    """
    for each in (text, decoded):
        if _ONE_TIME.fullmatch(each.strip()):
            return (
                "it is a one-time token, which a device redeems once, and keeps the configuration that it gets for it",
                INITIALISED,
            )
        if _INI.search(each):
            return "it is a keeper.ini of the ksm command", "use what ksm profile export gives"
        if _MANIFEST.search(each):
            return "it is a manifest of Kubernetes", "use the value that stands under data, alone"
    found = mistake(text.encode("utf-8", "replace"))
    if not any(found) and _FILE_NAME.fullmatch(text):
        return "it is the path of a file", "use the variable or option for a path, or give the file's content"
    return found


# ---- services.copies ------------------------------------------------------------------------------------------------
# A record that Keeper shows several times, because it lies in several folders.


def without_read_only_copies(answer: bytes) -> bytes:
    """Return Keeper's answer, decrypted, without the read-only copies of records that it also gives to be edited.

    Which of them an SDK keeps is a matter of its version. What is no such answer is returned as it is.
    """
    try:
        body = json.loads(answer)
    except (ValueError, RecursionError):
        return answer
    lists = _lists(body)
    records = [one for holder in lists for one in holder["records"] if isinstance(one, dict)]
    editable = {one.get("recordUid") for one in records if one.get("isEditable") is True}
    copies = [one for one in records if one.get("isEditable") is False and one.get("recordUid") in editable]
    if not copies:
        return answer
    dropped = {id(one) for one in copies}
    for holder in lists:
        holder["records"] = [one for one in holder["records"] if id(one) not in dropped]
    return json.dumps(body).encode()


def _lists(body: Any) -> list[dict[str, Any]]:
    """Return what has a list of records: the answer itself, and its folders."""
    folders = body.get("folders") if isinstance(body, dict) else None
    holders = [body, *(folders if isinstance(folders, list) else [])]
    return [one for one in holders if isinstance(one, dict) and isinstance(one.get("records"), list)]


# ---- services.secrecy -----------------------------------------------------------------------------------------------
# What a record holds that is not to be said: its secrets, and what is not what the label of its field says.
#
# People type a secret into the field beside the right one. A value of a field of ours may be said only if it is what such
# a field holds: a key id only if it is a GUID, a date only if it parses.


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


# ---- services.vault -------------------------------------------------------------------------------------------------
# Keeper records over Keeper Secrets Manager (KSM): read, and saved only where nobody was faster.


try:
    from keeper_secrets_manager_core import SecretsManager
    from keeper_secrets_manager_core.configkeys import ConfigKeys
    from keeper_secrets_manager_core.crypto import CryptoUtils
    from keeper_secrets_manager_core.dto.dtos import Folder as SdkFolder
    from keeper_secrets_manager_core.dto.dtos import KeeperFile as SdkFile
    from keeper_secrets_manager_core.dto.dtos import Record as SdkRecord
    from keeper_secrets_manager_core.dto.payload import KSMHttpResponse
    from keeper_secrets_manager_core.storage import InMemoryKeyValueStorage
except ImportError as _problem:
    KSM_PROBLEM = str(_problem)
else:
    KSM_PROBLEM = ""

_T = TypeVar("_T")
# The SDK's own first pause after a throttled call: the limit counts the calls of 10 s.
_THROTTLE_PAUSE = 11.0
_KEY_CHANGES = 3
_TEXT_TYPES = {"text", "secret", "multiline", "password", "note"}
_TOO_LARGE = re.compile(r"(?i)\btoo (?:large|big|long)\b|\bexceeds\b|\bsize limit\b")
_CHECK_DEVICE = "check that the KSM application and its device are not expired, removed or locked to another address"
# Keeper's names of the two calls.
READ, SAVE = "get_secret", "update_secret"
_NEEDED = ("clientId", "privateKey", "appKey")


def parse_configuration(text: str, source: str) -> dict[str, str]:
    """Return a KSM client configuration from JSON or base64 of JSON; ``source`` names it in errors.

    Only a bound configuration is accepted: binding would spend its one-time token and keep the new keys in memory
    alone. Raises BadInput.
    """
    plain = text.strip()
    if not plain:
        raise BadInput(f"the Keeper configuration in {source} is empty", todo=INITIALISED)
    try:
        if not plain.startswith("{"):
            # The SDK fails on a trailing newline and on missing padding.
            plain = decode("".join(plain.split()).encode()).decode("utf-8-sig")
        values = json.loads(plain)
    except (ValueError, binascii.Error, RecursionError):
        values = None
    if not isinstance(values, dict):
        why, todo = ("", "") if values is not None else instead(text.strip(), plain)
        what = f"the Keeper configuration in {source} is neither JSON nor base64 of JSON"
        raise BadInput(what, why, todo or INITIALISED)
    # Keys that the SDK does not know all collapse into one.
    config = {key.value: str(values[key.value]) for key in ConfigKeys if values.get(key.value)}
    for name in ("privateKey", "appKey", "clientKey", "clientId"):
        if name in config:
            remember(config[name])
    missing = [name for name in _NEEDED if name not in config]
    if missing:
        why = "it was never initialised" if "clientKey" in config else "it is damaged"
        raise BadInput(f"the Keeper configuration in {source} lacks " + " and ".join(missing), why, INITIALISED)
    return config


@dataclass
class VaultRecord:
    """A record as one read has shown it."""

    uid: str
    title: str
    type: str
    revision: int
    editable: bool
    data: dict[str, Any] = field(repr=False)
    sdk: Any = field(repr=False)

    @property
    def folder_uid(self) -> str:
        """The uid of the folder that the record lies in; empty where the record itself is shared."""
        return str(self.sdk.inner_folder_uid or self.sdk.folder_uid or "")

    def view(self) -> Labelled:
        """Return all values, those of custom fields first."""
        pairs = [(str(item.get("label") or item.get("type") or ""), item.get("value")) for item in _fields(self.data)]
        return Labelled(self.uid, self.title, pairs)

    def value(self, label: str) -> str:
        """Return the value of the field that ``set`` would write; empty where there is none."""
        item = _field(self.data, label)
        return text_of(item.get("value")) if item else ""

    def secret(self, label: str) -> str:
        """Return the value that the field holds, with every space in it."""
        item = _field(self.data, label)
        values = item.get("value") if item else None
        value = values[0] if isinstance(values, list) and values else values
        return value if isinstance(value, str) else ""

    def has(self, label: str) -> bool:
        """Whether there is such a field."""
        return _field(self.data, label) is not None

    def tied(self, label: str) -> list[str]:
        """Return, where several fields match the label equally well, what each is called and where it is; else none."""
        items = _fields(self.data)
        found = find_all([item.get("label") for item in items], label)
        custom = self.data.get("custom")
        own = custom if isinstance(custom, list) else []
        where = ["custom fields" if any(items[index] is item for item in own) else "fields" for index in found]
        names = [f"{items[index].get('label')!r} in {place}" for index, place in zip(found, where)]
        return names if len(names) > 1 else []

    def shows(self, label: str) -> bool:
        """Whether everybody who opens the record sees the field's value."""
        item = _field(self.data, label)
        return item is not None and item.get("type") not in ("secret", "password")

    def unusable(self, label: str) -> str | None:
        """Return the type of the field when it cannot hold a text, else None."""
        item = _field(self.data, label)
        kind = str(item.get("type")) if item else "text"
        return None if kind in _TEXT_TYPES else kind

    def with_values(self, values: Mapping[str, str], secret_labels: Iterable[str]) -> VaultRecord:
        """Return a copy in which the fields hold the values; a missing field becomes a custom field.

        A new field is of type ``secret`` ("Hidden Field") where its label is in ``secret_labels``, else ``text``.
        """
        data = copy.deepcopy(self.data)
        for label, value in values.items():
            item = _field(data, label)
            if item is None:
                if not isinstance(data.get("custom"), list):
                    data["custom"] = []
                item = {"type": "secret" if label in secret_labels else "text", "label": label}
                data["custom"].append(item)
            item["value"] = [value] if value else []
        return VaultRecord(self.uid, self.title, self.type, self.revision, self.editable, data, self.sdk)


@dataclass(frozen=True)
class Folder:
    """A folder that the application may see. ``parent`` is the uid of the one above it; empty for a shared folder."""

    uid: str
    name: str
    parent: str


class NotSaved(Exception):
    """A save that was not confirmed.

    ``certain`` tells that Keeper has answered no (the record is to be read again all the same: an answer may be
    lost on its way and another one given instead); otherwise the request may still take effect, now or later,
    unless ``sent`` is False. ``wait`` is the pause in seconds that Keeper asked for. ``todo`` is the next step.
    """

    def __init__(
        self,
        why: str,
        *,
        certain: bool,
        sent: bool = True,
        conflict: bool = False,
        wait: float | None = None,
        todo: str = "run it again",
    ) -> None:
        super().__init__(why)
        self.why = why
        self.todo = todo
        self.certain = certain
        self.sent = sent
        self.conflict = conflict
        self.wait = wait


class _Answered(Exception):
    """Keeper answered with an error."""

    def __init__(self, status: int, code: str, message: str, wait: float | None, between: str, todo: str) -> None:
        super().__init__(between or f"{message or 'no readable reason'} ({code or 'HTTP'} {status})")
        self.status = status
        self.code = code
        self.message = message
        self.wait = wait
        self.between = between  # who else has answered
        self.todo = todo if between else ""

    @property
    def throttled(self) -> bool:
        return self.code == "throttled" or self.status == 429

    def next_step(self, refused: str) -> str:
        """What to do about it: ``refused`` where Keeper does not allow it."""
        if self.todo:
            return self.todo
        if self.throttled:
            return "run it again later; what runs at one Gateway, or with one device, shares Keeper's limit"
        if self.status >= 500 or self.status == 408:
            return "run it again later"
        if self.status == 413 or _TOO_LARGE.search(self.message):
            return "make the record smaller: its notes and fields, or the files that are attached to it"
        return refused


class Vault:
    """A KSM application's view of the vault, through the SDK, with our HTTP policy in place of the SDK's.

    The SDK has no timeouts, sleeps for minutes when throttled and follows ``error: key`` for ever (17.3.0,
    core.py ``_post_query``); all its requests go through the instance's ``post_function``.
    """

    def __init__(self, configuration: Mapping[str, str], http: Http, budget: Budget, log: Log) -> None:
        self._http = http
        self._budget = budget
        self._log = log
        self._key_changes = 0
        try:
            self._app_key = base64.b64decode(configuration["appKey"])
            # In memory: the SDK's file storage rewrites, and may empty, the Gateway's file.
            storage = InMemoryKeyValueStorage(json.dumps(dict(configuration)))
            self._sdk = SecretsManager(config=storage)
            # Keys that are damaged would show with the first call, as troubles with an answer.
            CryptoUtils.der_base64_private_key_to_private_key(configuration["privateKey"])
            CryptoUtils.encrypt_aes(b"", self._app_key)
            SecretsManager.generate_transmission_key(
                storage.get(ConfigKeys.KEY_SERVER_PUBLIC_KEY_ID), storage.get(ConfigKeys.KEY_SERVER_PUBLIC_KEY)
            )
        except MemoryError:
            raise
        except Exception as problem:
            raise BadInput(
                "the Keeper configuration cannot be used",
                f"{type(problem).__name__}: {foreign(problem)}",
                "use a configuration that has been initialised",
            ) from None
        self._sdk.post_function = self._post
        self._query = self._sdk._post_query
        self._sdk._post_query = self._ask

    def _ask(self, path: str, payload: Any) -> Any:
        answer = self._query(path, payload)
        return without_read_only_copies(answer) if path == READ and isinstance(answer, bytes) else answer

    @property
    def asked_at(self) -> float:
        """When (of the budget's ``awake``) what was read last was asked for."""
        return self._http.asked_at

    def read(self, uids: Iterable[str]) -> dict[str, VaultRecord]:
        """Return the records with these uids that the application may see. Raises Refused and BadInput.

        A record that is there but cannot be decrypted is an error, not a record that is missing.
        """
        found, lost = self.find(uids)
        for uid in lost:
            raise undecipherable(uid)
        return found

    def find(self, uids: Iterable[str]) -> tuple[dict[str, VaultRecord], list[str]]:
        """Return the records with these uids (none: all) that the application may see, and the uids of those that are
        there but cannot be decrypted. Raises Refused."""
        wanted = list(uids)
        learn(("record uid", "", uid) for uid in wanted)
        try:
            answer = self._patiently(READ, lambda: self._sdk.get_secrets(wanted, full_response=True))
        except (_Answered, Unanswered) as problem:
            raise _not_read("the record" if wanted else "the records", problem) from None
        found: dict[str, VaultRecord] = {}
        mended, lost = self._mend(answer)
        for sdk in list(answer.records or []) + mended:
            record = _record(sdk)
            # A shortcut shows the same record twice; one of the two may lie in a folder that is not editable.
            if record is not None and (record.uid not in found or record.editable > found[record.uid].editable):
                found[record.uid] = record
        return found, [str(uid) for uid in wanted or sorted(map(str, lost)) if uid not in found and uid in lost]

    def folders(self) -> dict[str, Folder]:
        """Return the folders that the application may see, by uid. One request. Raises Refused."""
        try:
            answer = self._patiently("get_folders", self._sdk.get_folders)
        except (_Answered, Unanswered) as problem:
            raise _not_read("the folders", problem) from None
        return {one.folder_uid: Folder(one.folder_uid, foreign(one.name), one.parent_uid or "") for one in answer}

    def await_turn(self) -> None:
        """Wait until a save may be sent: what is to be fresh then is looked at afterwards. Raises Stopped."""
        self._http.pace.book(SAVE, self._budget)

    def save(self, record: VaultRecord, unlink: Sequence[str] = ()) -> None:
        """Save the record; Keeper takes it only at the revision it was read at. Raises NotSaved, Stopped.

        The files whose uids are in ``unlink`` are detached in the same step.
        A plain save: one with a transaction type would stay staged until somebody completes it, and the Gateway may
        hold a transaction of its own on the record.
        """
        record.sdk.dict = record.data
        record.sdk.raw_json = json.dumps(record.data)
        self._confirmed(lambda: self._sdk.save(record.sdk, links_to_remove=list(unlink) or None))

    def _confirmed(self, call: Callable[[], _T]) -> _T:
        try:
            return self._once(call)
        except _Answered as problem:
            raise NotSaved(
                str(problem),
                # What comes without Keeper's own error code is from something in between, and proves nothing.
                certain=problem.status < 500 and problem.status != 408 and bool(problem.code),
                conflict="out of sync" in problem.message.lower(),
                wait=_throttle_pause(1, problem.wait) if problem.throttled else None,
                todo=problem.next_step("check that the record's folder is shared with edit permission"),
            ) from None
        except Unanswered as problem:
            raise NotSaved(str(problem), certain=False, sent=problem.sent, todo=problem.todo) from None

    def _mend(self, answer: Any) -> tuple[list[Any], set[Any]]:
        """Decrypt what SDK 17.3.0 gives up on; return the records, and the uids of those that remain unreadable.

        It drops a record in ``records`` whose key is wrapped with its folder's key, a record with an attached file
        that it cannot decrypt, and a whole folder for one record of it.
        """
        raws = [bad.get("r") or {} for bad in answer.bad_records or []]
        keys = [folder.key for folder in answer.folders or []] + [self._app_key]
        for bad in answer.bad_folders or []:
            folder = bad.get("f") or {}
            raws += [raw for raw in folder.get("records") or [] if isinstance(raw, dict)]
            try:
                keys.append(SdkFolder({**folder, "records": []}, self._app_key).key)
            except Exception as problem:
                self._log.detail(f"folder {folder.get('folderUid')}: {type(problem).__name__}")
        mended, lost = [], set()
        for raw in raws:
            for key, variant in [(key, variant) for variant in (raw, {**raw, "files": None}) for key in keys]:
                try:
                    found = SdkRecord(variant, key, raw.get("innerFolderUid") or "")
                    if variant is not raw:
                        found.files = self._readable(raw.get("files"), found)
                    mended.append(found)
                    break
                except Exception as problem:
                    self._log.detail(f"record {raw.get('recordUid')}: {type(problem).__name__}")
            else:
                lost.add(raw.get("recordUid"))
        return mended, lost

    def _readable(self, files: Any, record: Any) -> list[Any]:
        """Return the record's files that can be decrypted; one that cannot is in nobody's way."""
        found = []
        for raw in files if isinstance(files, list) else []:
            try:
                found.append(SdkFile(raw, record.record_key_bytes))
            except Exception as problem:
                self._log.detail(f"a file of the record {record.uid} is unreadable: {type(problem).__name__}")
        return found

    def _patiently(self, name: str, call: Callable[[], _T]) -> _T:
        attempt = 1
        while True:
            problem: Exception
            try:
                return self._once(call)
            except Unanswered as unanswered:
                if not unanswered.sent:
                    raise
                problem, pause = unanswered, pause_before(attempt + 1)
            except _Answered as answered:
                problem = answered
                if answered.throttled:
                    pause = _throttle_pause(attempt, answered.wait)
                    self._log.say(f"Keeper throttles; trying again in {pause:.0f} s")
                elif answered.status >= 500 or answered.status == 408:
                    pause = pause_before(attempt + 1)
                else:
                    raise
            if attempt >= 4 or pause >= self._budget.left():
                raise problem
            self._log.detail(f"{name}: {problem}; trying again in {pause:.1f} s")
            self._budget.pause(pause)
            attempt += 1

    def _once(self, call: Callable[[], _T]) -> _T:
        self._key_changes = 0
        try:
            return call()
        except (Unanswered, _Answered):
            raise
        except Exception as problem:
            # What is left are the SDK's troubles with an answer that it cannot decrypt or parse.
            raise Unanswered(f"Keeper's answer could not be read ({type(problem).__name__})", sent=True) from None

    def _post(self, url: str, key: Any, payload: Any, verify: Any = True, proxy: Any = None) -> Any:
        headers = {
            "Content-Type": "application/octet-stream",
            "PublicKeyId": str(key.publicKeyId),
            "TransmissionKey": base64.b64encode(key.encryptedKey).decode(),
            "Authorization": "Signature " + base64.b64encode(payload.signature).decode(),
        }
        name = "Keeper " + url.rsplit("/", 1)[-1]
        reply = self._http.call("POST", url, name=name, headers=headers, body=payload.encrypted_payload)
        if reply.status == 200:
            if not reply.body and url.endswith("/get_secret"):
                raise Unanswered("Keeper's answer is empty", sent=True)
            if reply.page():
                raise Unanswered(reply.between(), sent=True, todo=reply.remedy())
            return KSMHttpResponse(200, reply.body, reply)
        raise_for = _error(reply)
        if raise_for.code == "key" and self._key_changes < _KEY_CHANGES:
            self._key_changes += 1
            return KSMHttpResponse(reply.status, reply.body, _SdkReply(reply))
        raise raise_for


class _SdkReply:
    """An answer under the names that the SDK's error handler reads."""

    def __init__(self, reply: Reply) -> None:
        self.status_code = reply.status
        self.text = reply.text
        self.reason = ""


def not_found(uid: str, option: str) -> BadInput:
    """Return what is wrong where the application does not see the record that an option names."""
    return BadInput(
        f"the record {uid} ({option}) was not found",
        "it is not shared with the KSM application, or does not exist",
        "share the record's folder with the application, with edit permission for the application's own record",
    )


def undecipherable(uid: str) -> BadInput:
    """Return what is wrong with a record that cannot be decrypted."""
    return BadInput(
        f"the record {uid} is there but could not be decrypted",
        todo="share its folder with the KSM application again",
    )


def _not_read(what: str, problem: _Answered | Unanswered) -> Refused:
    if isinstance(problem, Unanswered):
        return Refused("Keeper was not reached", str(problem), problem.todo)
    if problem.between:
        return Refused("Keeper was not reached", problem.between, problem.todo)
    return Refused(f"Keeper refused to read {what}", str(problem), problem.next_step(_CHECK_DEVICE))


def _error(reply: Reply) -> _Answered:
    body = reply.json()
    code = foreign(body.get("result_code") or body.get("error") or "")
    message = foreign(body.get("message") or body.get("additional_info") or "")
    wait = retry_after(reply)
    if wait is None:
        wait = seconds_in(body.get("retry_after"))
    return _Answered(reply.status, code, message, wait, "" if code else reply.between(), reply.remedy())


def _throttle_pause(attempt: int, asked: float | None) -> float:
    pause = asked if asked else _THROTTLE_PAUSE * 2.0 ** (attempt - 1)
    return pause * random.uniform(1.0, 1.1)


def _record(sdk: Any) -> VaultRecord | None:
    if not isinstance(sdk.dict, dict) or not sdk.uid:
        return None
    # is_editable is None where the server leaves it out.
    editable = sdk.is_editable is not False
    learn((str(item.get("label") or ""), str(item.get("type") or ""), item.get("value")) for item in _fields(sdk.dict))
    title = bounded(sdk.title or "")
    return VaultRecord(sdk.uid, title, str(sdk.type or ""), sdk.revision or 0, editable, sdk.dict, sdk)


def _fields(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for section in ("custom", "fields"):
        items = data.get(section)
        found += [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return found


def _field(data: Mapping[str, Any], label: str) -> dict[str, Any] | None:
    items = _fields(data)
    index = find([item.get("label") for item in items], label)
    return None if index is None else items[index]


# ---- rotation.policy ------------------------------------------------------------------------------------------------
# How an application is to be rotated: the options, and the fields of its record that stand for them.


RETIRE_CHOICES = ("all", "managed", "none")
ROTATE_CHOICES = ("always", "expiring")
_LIMITS = {
    "lifetime_days": (1, 36500),
    "keep_previous": (0, 1000),
    "verify_timeout": (1, 900),
    "min_days_left": (0, 36500),
}
# Whoever may edit a record may not make a secret that outlives what the portal allows:
# https://learn.microsoft.com/entra/identity-platform/how-to-add-credentials
_LONGEST_FROM_A_RECORD = 730
_LONGEST_WAIT = timedelta(days=90)
_DURATION = re.compile(r"([0-9]{1,7})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_RECORD_UID = re.compile(r"[A-Za-z0-9_-]{22}")


def is_record_uid(text: str) -> bool:
    """Whether the text has the form of a record's uid."""
    return bool(_RECORD_UID.fullmatch(text))


@dataclass(frozen=True)
class Policy:
    """How to rotate. Days are days of 24 hours, ``verify_timeout`` is in seconds. Raises BadInput when out of range.

    ``adopt`` are the uids of records whose secrets count as old ones of this record, as far as they do not show them.
    """

    rotate: str = "always"
    min_days_left: int = 30
    lifetime_days: int = 365
    keep_previous: int = 0
    retire: str = "all"
    retire_after: timedelta = timedelta(seconds=30)
    adopt: tuple[str, ...] = ()
    verify: bool = True
    verify_timeout: int = 120

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise BadInput(f"{name} is {getattr(self, name)}", f"it must be from {least} to {most}", "correct it")
        for name, choices in (("retire", RETIRE_CHOICES), ("rotate", ROTATE_CHOICES)):
            if getattr(self, name) not in choices:
                raise BadInput(f"{name} is {getattr(self, name)!r}", "it must be " + " or ".join(choices), "correct it")


def foresight(policy: Policy) -> list[str]:
    """Return what the policy means for an application that is open to personal Microsoft accounts, which holds two
    secrets at the most, and for what still uses an old secret: whatever somebody should know beforehand."""
    found = []
    if policy.keep_previous > 1 or policy.retire == "none":
        found.append("an application that holds two secrets at the most can never be rotated like this")
    elif policy.retire_after.total_seconds() > SOON:
        found.append(
            "an application that holds two secrets at the most, and has two, is not rotated before its old one is due "
            "(retire_after)"
        )
    if not policy.retire_after:
        found.append("with retire_after 0 what still uses the old secret fails at once")
    return found


def parse_duration(text: str) -> timedelta:
    """Return the time that ``retire_after`` names: 0, or a number with s, m, h or d, up to 90d. Raises BadInput."""
    plain = text.strip().lower()
    match = _DURATION.fullmatch(plain)
    if plain == "0":
        return timedelta()
    if match:
        found = timedelta(**{_UNITS[match[2]]: int(match[1])})
        if found <= _LONGEST_WAIT:
            return found
    raise BadInput(
        f"retire_after is {text!r}", "it must be 0, or a number with s, m, h or d, up to 90d", "correct it, as in 12h"
    )


def policy_of(record: Labelled, **given: object) -> Policy:
    """Return the policy of what is ``given``, else of the record's optional Text fields, else the default.

    Raises BadInput for a field that cannot be read; one in whose place something is given is not looked at.
    """
    values: dict[str, object] = dict(given)
    for name in ("lifetime_days", "keep_previous", "verify_timeout"):
        text = record.get(name)
        if text and name not in given:
            # No int(): it also takes underscores and other scripts' digits.
            if not (text.isascii() and text.isdigit() and len(text) <= 9):
                raise _unreadable(record, name, text, "a whole number")
            values[name] = int(text)
            if name == "lifetime_days" and int(text) > _LONGEST_FROM_A_RECORD:
                raise _unreadable(record, name, text, f"a number of {_LONGEST_FROM_A_RECORD} at the most")
    verify = None if "verify" in given else truth_of(record, "verify")
    if verify is not None:
        values["verify"] = verify
    if record.get("retire") and "retire" not in given:
        values["retire"] = record.get("retire").lower()
    if record.get("adopt") and "adopt" not in given:
        values["adopt"] = [uid for uid in re.split(r"[\s,;]+", record.get("adopt")) if uid]
    wait = values.get("retire_after", record.get("retire_after"))
    try:
        if wait != "":
            values["retire_after"] = wait if isinstance(wait, timedelta) else parse_duration(str(wait))
        values["adopt"] = _uids(values.get("adopt") or ())
        return Policy(**values)  # type: ignore[arg-type]
    except BadInput as problem:
        where = "the options and the record" if given else "the record"
        raise BadInput(f"{where} {record.uid}: {problem.what}", problem.why, problem.todo) from None


def truth_of(record: Labelled, name: str) -> bool | None:
    """Return what an optional field for true or false says; None where it says nothing. Raises BadInput."""
    text = record.get(name).lower()
    if text and text not in _TRUE + _FALSE:
        raise _unreadable(record, name, text, "true or false")
    return text in _TRUE if text else None


def _uids(wanted: object) -> tuple[str, ...]:
    uids = tuple(str(uid) for uid in wanted) if isinstance(wanted, (list, tuple)) else (str(wanted),)
    for uid in uids:
        if not is_record_uid(uid):
            raise BadInput(f"adopt names {uid!r}", "it must be the uids of records", "correct it")
    return uids


def _unreadable(record: Labelled, name: str, text: str, wanted: str) -> BadInput:
    return BadInput(f"the field {name} of the record {record.uid} is {text!r}", f"{wanted} is needed", "correct it")


# ---- rotation.deciding ----------------------------------------------------------------------------------------------
# What is known of each secret of an application, and one decision about each, with its reason.
#
# Pure: nothing here reads a clock, a vault or a network.


# So young a secret may be missing from a list, and so much older than ours one was made by no run that is under way.
YOUNG = timedelta(minutes=20)
# "16-64 characters": https://learn.microsoft.com/graph/api/resources/passwordcredential
_SHORTEST_SECRET = 16


def marker(record_uid: str, run_id: str) -> str:
    """Return the display name of a secret: by it a later run knows what an interrupted one has left."""
    return f"keeper/{record_uid}/{run_id}"


def marked_by(credential: Credential) -> str | None:
    """Return the uid of the record that the secret was made for, as its name says; None where it says none.

    What stands in the place of the uid is returned as it is, whether it looks like one or not.
    """
    first, slash, rest = credential.display_name.partition("/")
    uid, second, _run = rest.partition("/")
    return uid if first == "keeper" and slash and second else None


def other_records(credentials: Sequence[Credential], own: str) -> list[str]:
    """Return the uids of the other records that secrets were made for, as far as they look like uids."""
    found = {marked_by(item) for item in credentials} - {own, None}
    return sorted(uid for uid in found if uid and is_record_uid(uid))


@dataclass(frozen=True)
class Published:
    """What a record shows. ``hint`` is the first three characters of its secret, empty where it holds none."""

    record_uid: str
    key_id: str
    hint: str
    editable: bool = True
    expires: str = ""

    def shows(self, item: Credential) -> bool:
        """Whether the record shows this secret: by the key id; where it names none, by the hint, as far as known."""
        if guid(self.key_id) is not None:
            return item.key_id == guid(self.key_id)
        return bool(self.hint) and item.hint in ("", self.hint)


def hint_of(secret: str) -> str:
    """Return the hint of a secret; empty for what is too short to be one, as words are that hold its place."""
    return secret[:3] if len(secret) >= _SHORTEST_SECRET else ""


@dataclass(frozen=True)
class Holding:
    """A secret that something else than the record holds: ``owner`` says what, in words.

    ``about`` are the client id and the object id of the application that it is for, as far as they are known there.
    """

    owner: str
    shown: Published
    about: frozenset[str]

    def holds(self, item: Credential, application: Application) -> bool:
        """Whether it holds this secret of the application; where no key id and no hint is known it may, so it does."""
        if guid(self.shown.key_id) is not None:
            return self.shown.shows(item)
        return bool(self.about & {application.client_id, application.object_id}) and self.shown.shows(item)


@dataclass(frozen=True)
class Kept:
    """A secret that stays, and why; ``until`` is the time from which on a run removes it, where there is one."""

    key_id: str
    reason: str
    until: datetime | None = None

    def as_dict(self) -> dict[str, str]:
        """Return it as JSON data."""
        found = {"key_id": self.key_id, "reason": self.reason}
        return {**found, "until": format_time(self.until)} if self.until else found

    def __str__(self) -> str:
        return f"{self.key_id} ({self.reason}{', until ' + format_time(self.until) if self.until else ''})"


class Fate(Enum):
    """What becomes of a secret beside the one that stays."""

    KEPT = 1
    OLD = 2
    LEFT_OVER = 3  # made by a run of this record that never published it


@dataclass(frozen=True)
class Decision:
    """What becomes of one secret, why, and from when on it may be removed (a left-over: at once)."""

    credential: Credential
    fate: Fate
    reason: str
    due: datetime | None = None


@dataclass(frozen=True)
class Situation:
    """What is known when it is decided about the secrets of an application. Times are by Graph's clock.

    ``published`` is what the record showed when the run began, ``shown`` the same as Graph lists it. ``new`` is the
    secret that stays: this run's, or the shown one where no new one is needed; None while it is not made yet.
    ``first`` are the key ids of the run's first list. ``others`` are the records that secrets were made for, None for
    one that cannot be seen. ``bound`` is whether record and application belong together as far as can be seen.
    """

    policy: Policy
    application: Application
    published: Published
    now: datetime
    shown: Credential | None = None
    new: Credential | None = None
    first: frozenset[str] = frozenset()
    published_at: datetime | None = None
    run_name: str = ""
    held: tuple[Holding, ...] = ()
    others: Mapping[str, Published | None] = field(default_factory=dict)
    bound: bool = True

    @property
    def keeps(self) -> bool:
        """Whether the shown secret stays, and no new one is made."""
        return self.new is not None and self.shown is not None and self.new.key_id == self.shown.key_id

    def is_ours(self, item: Credential) -> bool:
        """Whether the secret was made for this record."""
        return item.display_name.startswith(marker(self.published.record_uid, ""))

    def expired(self, item: Credential) -> bool:
        """Whether the secret has ended."""
        return item.end is not None and item.end <= self.now


def decide(item: Credential, known: Situation, listed: Sequence[Credential]) -> Decision:
    """Say what becomes of one secret other than the one that stays. The first reason that applies is the one.

    A secret that another run may be about to publish, or that something else shows, is never an old one.
    """

    def kept(reason: str) -> Decision:
        return Decision(item, Fate.KEPT, reason)

    policy, shown = known.policy, known.shown
    ours, other = known.is_ours(item), marked_by(item)
    if known.run_name and item.display_name == known.run_name:
        return Decision(item, Fate.LEFT_OVER, "the answer to its making was lost")
    left_over = is_left_over(item, known)
    for holding in known.held:
        # What a run never published is held by nobody, unless its first characters say so.
        if holding.holds(item, known.application) and not (left_over and not item.hint):
            return kept(f"{holding.owner} holds it")
    if not _seen_before(item, known):
        return kept("it was made after this run began: somebody may be about to use it")
    if left_over:
        return Decision(item, Fate.LEFT_OVER, "a run of this record has made it and never published it")
    if known.keeps and shown is not None and not older(item, shown.start, timedelta() if ours else YOUNG):
        return kept("it was made after the one that the record shows")
    if other is not None and not ours:
        theirs = known.others.get(other)
        if theirs is not None and theirs.shows(item):
            return kept(f"the record {other} shows it")
        if other not in policy.adopt:
            seen = "does not show it" if theirs is not None else "cannot be seen"
            return kept(f"it was made for the record {other}, which {seen}: adopt that record to have it removed")
    named = shown is not None and item.key_id == shown.key_id
    adopted = other is not None and other in policy.adopt
    if policy.retire == "none":
        return kept("retire is none")
    if policy.retire == "managed" and not (ours or named or adopted):
        return kept("it was not made for this record")
    if not known.bound and not ours:
        return kept("the record names a secret that this application does not have: it may be of another application")
    return Decision(item, Fate.OLD, "it is old", superseded(item, known, listed) + policy.retire_after)


def _seen_before(item: Credential, known: Situation) -> bool:
    """Whether the secret was there before this run's own, so that no run is about to publish it."""
    named = guid(known.published.key_id)
    start = known.new.start if known.new else None
    return item.key_id in known.first or item.key_id == named or older(item, start, YOUNG)


def is_left_over(item: Credential, known: Situation) -> bool:
    """Whether an interrupted run made this secret for the record and never published it.

    It is newer than the shown one; where the record names none, each of its secrets is one; where Graph does not list
    what the record names, the end that the record shows tells when that was made.
    """
    published, shown = known.published, known.shown
    if not known.is_ours(item) or item.key_id == guid(published.key_id):
        return False
    if shown is not None:
        return not older(item, shown.start)
    if guid(published.key_id) is None:
        return not published.shows(item)
    made = made_at(known.policy, published)
    return made is not None and item.start is not None and item.start > made


def made_at(policy: Policy, published: Published) -> datetime | None:
    """Return when the secret that the record shows was made, as its end tells; None where it tells nothing."""
    end = parse_time(published.expires)
    try:
        return end - timedelta(days=policy.lifetime_days) if end else None
    except OverflowError:
        return None


def unlisted(policy: Policy, published: Published, application: Application, now: datetime) -> tuple[Credential, ...]:
    """Return the secret that the record names where Graph does not list it because it was made minutes ago and has not
    reached all replicas. That it is so young shows in its end."""
    key_id, made = guid(published.key_id), made_at(policy, published)
    if key_id is None or made is None or application.credential(key_id):
        return ()
    # An end that this lifetime does not give tells nothing: the lifetime was another one then.
    young = abs(now - made) < YOUNG
    return (Credential(key_id, start=made, end=parse_time(published.expires)),) if young else ()


def contradicts(policy: Policy, published: Published, application: Application, now: datetime) -> bool:
    """Whether the record may belong to another application: it names a key id that is not listed, nor so young that it
    may not be yet, or holds a secret without naming one. A record that names and holds nothing does not."""
    if guid(published.key_id) is None:
        return bool(published.hint)
    return application.credential(published.key_id) is None and not unlisted(policy, published, application, now)


def superseded(item: Credential, known: Situation, listed: Sequence[Credential]) -> datetime:
    """Return when something took the secret's place: for one older than the shown one, the start of the next secret of
    this record, or of the shown one; for any other the time of this run's publishing. An expired one had its time."""
    shown = known.shown
    if known.expired(item):
        return (item.end or known.now) - known.policy.retire_after
    if shown is not None and item.key_id != shown.key_id and older(item, shown.start):
        line = [*(other for other in listed if known.is_ours(other)), shown]
        later = [other.start for other in line if other.start and item.start and other.start > item.start]
        return min(later)
    return known.published_at or known.now


@dataclass(frozen=True)
class Sorted:
    """What becomes of all secrets. ``left_overs`` and ``old`` are to be removed, oldest first and what the record
    showed last; ``kept`` stay in any case."""

    left_overs: tuple[Decision, ...]
    old: tuple[Decision, ...]
    kept: tuple[Kept, ...]

    def due(self, now: datetime) -> list[Credential]:
        """Return what may be removed by then."""
        return [one.credential for one in (*self.left_overs, *self.old) if one.due is None or one.due <= now]

    def waits(self, now: datetime) -> list[Kept]:
        """Return what is old and not due yet."""
        return [Kept(one.credential.key_id, "retire_after", one.due) for one in self.old if one.due and one.due > now]

    def stays(self, now: datetime) -> list[Kept]:
        """Return what a run that ends then has not removed."""
        return [*self.kept, *self.waits(now)]

    def wait_until(self, now: datetime) -> datetime | None:
        """Return the time at which the last of those is due that are worth waiting for."""
        soon = [one.due for one in self.old if one.due and now < one.due <= now + timedelta(seconds=SOON)]
        return max(soon) if soon else None


def sort_out(known: Situation, listed: Sequence[Credential]) -> Sorted:
    """Decide about every secret that is listed, and keep the ``keep_previous`` newest of the old ones.

    The one that the record showed is the newest, whatever its start: it is the one that is in use.
    """
    everything = {item.key_id: item for item in listed}
    if known.new is not None:
        everything.pop(known.new.key_id, None)
    items = sorted(everything.values(), key=lambda item: rank(item, known))
    decisions = [decide(item, known, items) for item in items]
    old = [one for one in decisions if one.fate is Fate.OLD]
    lasting = [one for one in old if not known.expired(one.credential)]
    number = known.policy.keep_previous
    previous = lasting[-number:] if number else []
    kept = [Kept(one.credential.key_id, one.reason) for one in decisions if one.fate is Fate.KEPT]
    kept += [Kept(one.credential.key_id, "keep_previous") for one in previous]
    return Sorted(
        tuple(one for one in decisions if one.fate is Fate.LEFT_OVER),
        tuple(one for one in old if one not in previous),
        tuple(kept),
    )


def older(credential: Credential, than: datetime | None, by: timedelta = timedelta(0)) -> bool:
    """Whether the secret surely starts before that time, by so much at least."""
    return credential.start is not None and than is not None and credential.start < than - by


def rank(item: Credential, known: Situation) -> tuple[bool, float, str]:
    """Return what to sort secrets by: the oldest comes first, what the record showed last."""
    shown = known.shown is not None and item.key_id == known.shown.key_id
    return shown, item.start.timestamp() if item.start else 0.0, item.key_id


# ---- rotation.identity ----------------------------------------------------------------------------------------------
# Where the admin application's credential comes from: the first source that is there, in whatever order.


# Every spelling that Keeper's own tools give the fields of an Azure PAM configuration, normalised
# (Commander, the SaaS plug-ins' pamazure..., the KSM helper, Commander's old commands).
_CLIENT_ID = ("clientId", "pamazureclientid")
_CLIENT_SECRET = ("clientSecret", "pamazureclientsecret")
_TENANT_ID = ("tenantId", "pamazuretenantid")

# The names that azure.azcollection, AKS and Microsoft's own libraries give these, by the name of our option.
VARIABLES = {
    "tenant_id": ("AZURE_TENANT", "AZURE_TENANT_ID"),
    "client_id": ("AZURE_CLIENT_ID",),
    "client_secret": ("AZURE_SECRET", "AZURE_CLIENT_SECRET"),
    "certificate_path": ("AZURE_X509_CERTIFICATE_PATH", "AZURE_CLIENT_CERTIFICATE_PATH"),
    "certificate_passphrase": ("AZURE_CLIENT_CERTIFICATE_PASSWORD",),
    "oidc_token": ("AZURE_FEDERATED_TOKEN",),
    "oidc_token_file_path": ("AZURE_FEDERATED_TOKEN_FILE",),
}
AUTHORITY_VARIABLE = "AZURE_AUTHORITY_HOST"
_AUTHORITY_SOURCE = f"the environment variable {AUTHORITY_VARIABLE}"
# The options that each are a credential, in the order in which they count where the environment has several.
CREDENTIALS = ("client_secret", "certificate_path", "oidc_token", "oidc_token_file_path")
# Fields by which a record would make the host read a file or hand over a token. Who edits the record of an application
# may not decide that; who edits the PAM configuration may.
_HOST_FIELDS = ("managed_identity", "certificate_path", "oidc_token", "oidc_token_file_path")


@dataclass(frozen=True)
class Sources:
    """The places to look at, in the order in which they count; ``cloud`` counts before what records name.

    ``authority`` is what the environment names, as it is there. ``files`` returns the certificates that are attached
    to the record with a uid.
    """

    explicit: Identity | None = None
    attached: Sequence[Labelled] = ()
    own: Labelled | None = None
    configuration: Labelled | None = None
    fallback: Identity | None = None
    cloud: Cloud | None = None
    default_cloud: Cloud | None = None
    authority: str = ""
    files: Callable[[str], Sequence[Certificate]] = lambda uid: ()
    # Reads a record again, which may have been rotated since the sources were read; None where it is not to be had.
    afresh: Callable[[str], Labelled | None] = lambda uid: None
    # What to do where none of them holds an identity.
    advice: str = "attach a record with application_client_id, client_secret and tenant_id"


def in_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the environment sets, by the names of our options; empty texts for what it does not."""
    return {name: next((environ[key] for key in keys if environ.get(key)), "") for name, keys in VARIABLES.items()}


def identity_in(values: Mapping[str, str], source: str) -> Identity | None:
    """Return the identity that is complete in these values (by the names of our options), else None. Raises BadInput.

    The first of ``CREDENTIALS`` counts. Files are not read yet.
    """
    given = next((name for name in CREDENTIALS if values[name]), "")
    if not (given and values["tenant_id"] and values["client_id"]):
        return None
    identity, text = Identity(values["client_id"], values["tenant_id"], source), values[given]
    if given == "client_secret":
        return replace(identity, secret=Secret(text))
    if given == "certificate_path":
        return replace(identity, certificate=certificate_at(text, values["certificate_passphrase"]))
    return replace(identity, token=token_of(text, source) if given == "oidc_token" else token_at(text))


def choose(sources: Sources) -> tuple[Identity, Cloud]:
    """Return the admin identity and the cloud it lives in. Raises BadInput naming what is missing where."""
    identity, record = _identity(sources)
    return identity, _cloud_of(sources, identity, record)


def renewed(record: Labelled, identity: Identity) -> Identity | None:
    """Return the identity with the secret that its record holds by now; None where that is the same, or is of another
    application."""
    secret = record.get("client_secret", *_CLIENT_SECRET)
    same = record.get("application_client_id", *_CLIENT_ID).lower() == identity.client_id.lower()
    if not secret or not same or identity.secret is None or identity.secret.reveal() == secret:
        return None
    return replace(identity, secret=Secret(secret), expires=record.get("expires"))


def holdings(sources: Sources) -> tuple[Holding, ...]:
    """Return the secrets that other places than the record hold, as far as this run has read them: they are not to be
    removed, whichever of the sources the run uses."""
    found = []
    for identity in (sources.explicit, sources.fallback):
        if identity and identity.secret:
            shown = Published("", "", identity.secret.reveal()[:3])
            found.append(Holding(identity.source, shown, frozenset({identity.client_id.strip().lower()})))
    for record in sources.attached:
        ids = (record.get("application_client_id"), record.get("application_object_id"))
        found.append(_holding(record, ids, record.get("client_secret_id"), record.get("client_secret")))
    if sources.configuration is not None:
        record = sources.configuration
        found.append(_holding(record, (record.get(*_CLIENT_ID),), "", record.get(*_CLIENT_SECRET)))
    return tuple(one for one in found if one.shown.hint or guid(one.shown.key_id))


def _holding(record: Labelled, ids: Sequence[str], key_id: str, secret: str) -> Holding:
    about = frozenset(guid(each) or each.strip().lower() for each in ids if each.strip())
    return Holding(_name(record), Published(record.uid, key_id, secret[:3]), about)


def holder(sources: Sources, client_id: str) -> str:
    """Return, in words, which source other than the target's own record holds a credential of the application with this
    client id; empty where none does."""

    def is_it(text: str) -> bool:
        return (guid(text) or text.strip().lower()) == client_id

    for identity in (sources.explicit, sources.fallback):
        if identity and is_it(identity.client_id):
            return identity.source
    records: list[tuple[Labelled, Sequence[str], Sequence[str]]] = [
        (record, ("application_client_id",), ("client_secret",)) for record in sources.attached
    ]
    if sources.configuration is not None:
        records.append((sources.configuration, _CLIENT_ID, _CLIENT_SECRET))
    for record, ids, secrets in records:
        if not is_it(record.get(*ids)):
            continue
        # What has to be asked for comes last.
        if any(map(record.get, (*secrets, *_HOST_FIELDS))) or sources.files(record.uid):
            return _name(record)
    return ""


def _identity(sources: Sources) -> tuple[Identity, Labelled | None]:
    if sources.explicit:
        return replace(sources.explicit, why="it is named explicitly"), None
    carriers = [record for record in sources.attached if record.get("application_client_id")]
    if len({record.get("application_client_id").lower() for record in carriers}) > 1:
        raise BadInput(
            "several records with an application_client_id are attached",
            ", ".join(sorted(_name(record) for record in carriers)),
            "attach the record of one admin application only",
        )
    why = "it is attached"
    if not carriers and sources.own is not None and sources.own.get("application_client_id"):
        carriers, why = [sources.own], "it is the admin application's own, and none is attached"
    if carriers:
        record = min(carriers, key=lambda carrier: carrier.uid)
        return _of_user_record(record, sources, why), record
    configuration = sources.configuration
    if configuration is not None:
        named = (_CLIENT_ID, _CLIENT_SECRET, *((field,) for field in _HOST_FIELDS if field != "managed_identity"))
        wants_managed = truth_of(configuration, "managed_identity")
        if wants_managed or any(configuration.get(*labels) for labels in named):
            return _of_configuration(configuration, sources, bool(wants_managed)), configuration
        if not sources.fallback and wants_managed is None and configuration.get(*_TENANT_ID):
            why = "it names neither client id nor client secret, and nothing else names an admin identity"
            return _managed(configuration, "", why), configuration
    if sources.fallback:
        return replace(sources.fallback, why="no record holds one"), None
    if configuration is not None:
        raise BadInput(
            f"{_name(configuration)} holds no client id and client secret",
            "no other source of an admin identity is there",
            sources.advice,
        )
    raise BadInput(
        "no admin identity was found",
        "none of the records that could hold one does",
        sources.advice,
    )


def _of_user_record(record: Labelled, sources: Sources, why: str) -> Identity:
    host = [field for field in _HOST_FIELDS if record.get(field)]
    if host:
        raise BadInput(
            f"{_name(record)} has the field {host[0]}",
            "the PAM configuration, the environment and the module's options alone name files and tokens of a host",
            "remove the field; a certificate may be attached to the record as a file",
        )
    secret = record.get("client_secret")
    certificate = None if secret else _attached_certificate(record, sources)
    missing = [label for label in ("client_secret", "tenant_id") if not record.get(label)]
    if certificate and "client_secret" in missing:
        missing.remove("client_secret")
    if missing:
        raise _lacking(record, missing)
    return Identity(
        record.get("application_client_id"),
        record.get("tenant_id"),
        _name(record),
        secret=Secret(secret) if secret else None,
        certificate=certificate,
        record_uid=record.uid,
        why=why,
        expires=record.get("expires") if secret else "",
    )


def _of_configuration(record: Labelled, sources: Sources, managed: bool) -> Identity:
    secret, path = record.get(*_CLIENT_SECRET), record.get("certificate_path")
    text, token_path = record.get("oidc_token"), record.get("oidc_token_file_path")
    credentials = {"clientSecret": secret, "certificate_path": path, "oidc_token": text}
    credentials.update(oidc_token_file_path=token_path, managed_identity="true" if managed else "")
    given = [name for name, value in credentials.items() if value]
    if len(given) > 1:
        raise BadInput(f"{_name(record)} holds several credentials: {', '.join(given)}", todo="leave one of them")
    if managed:
        return _managed(record, record.get(*_CLIENT_ID), "it is the PAM configuration, and sets managed_identity")
    certificate = certificate_at(path, record.get("certificate_passphrase")) if path else None
    if not given:
        certificate = _attached_certificate(record, sources)
    labels = {"clientId": _CLIENT_ID, "clientSecret": _CLIENT_SECRET, "tenantId": _TENANT_ID}
    if given != ["clientSecret"] and (given or certificate):
        del labels["clientSecret"]
    missing = [name for name, spellings in labels.items() if not record.get(*spellings)]
    if missing:
        raise _lacking(record, missing)
    token = token_of(text, _name(record)) if text else token_at(token_path) if token_path else None
    return Identity(
        record.get(*_CLIENT_ID),
        record.get(*_TENANT_ID),
        _name(record),
        secret=Secret(secret) if secret else None,
        certificate=certificate,
        token=token,
        record_uid=record.uid,
        why="it is the PAM configuration, and no record with application_client_id is attached",
    )


def _managed(record: Labelled, client_id: str, why: str) -> Identity:
    tenant = record.get(*_TENANT_ID)
    if not tenant:
        raise _lacking(record, ["tenantId"])
    return Identity(client_id, tenant, _name(record), managed=True, record_uid=record.uid, why=why)


def _attached_certificate(record: Labelled, sources: Sources) -> Certificate | None:
    found = sources.files(record.uid)
    if len(found) > 1:
        names = ", ".join(certificate.name for certificate in found)
        raise BadInput(f"several certificates are attached to {_name(record)}: {names}", todo="leave one of them")
    passphrase = record.get("certificate_passphrase")
    return replace(found[0], passphrase=Secret(passphrase) if passphrase else None) if found else None


def _lacking(record: Labelled, missing: Sequence[str]) -> BadInput:
    todo = "fill in the fields"
    if missing[0] in ("client_secret", "clientSecret"):
        todo += "; for a certificate, attach it to the record as a .pem or .pfx file that the KSM application sees"
    if missing[0] == "clientSecret":
        todo += "; for a managed identity, set the field managed_identity to true"
    return BadInput(f"{_name(record)} lacks " + " and ".join(missing), todo=todo)


def _cloud_of(sources: Sources, identity: Identity, record: Labelled | None) -> Cloud:
    named = sources.cloud or _cloud(record)
    if named:
        return named
    authority = authority_root(sources.authority, _AUTHORITY_SOURCE) if sources.authority else ""
    configuration = sources.configuration
    cloud = _cloud(configuration)
    if cloud is None or configuration is None:
        if authority and not sources.default_cloud:
            return custom_cloud(authority, "", _AUTHORITY_SOURCE)
        return sources.default_cloud or CLOUDS["AzureCloud"]
    # An assertion by certificate is for one authority, and worth nothing to another; a secret and a token are.
    of_host = identity.uses_host or (record is None and identity.secret is not None)
    if of_host and not cloud.is_microsofts and cloud.authority != authority:
        raise BadInput(
            f"{identity.name} of {identity.source} is not sent to {cloud.authority}",
            f"that authority is named by {_name(configuration)} alone, and not where the identity comes from",
            f"name it there, too: with cloud_environment, or with the environment variable {AUTHORITY_VARIABLE}",
        )
    return cloud


def _cloud(record: Labelled | None) -> Cloud | None:
    if record is None:
        return None
    authority, graph = record.get("Azure Authority FQDN"), record.get("Azure Graph Endpoint")
    if not authority and not graph:
        return None
    if not authority:
        raise BadInput(
            f"{_name(record)} has an Azure Graph Endpoint but no Azure Authority FQDN", todo="fill in both or none"
        )
    return custom_cloud(authority, graph, _name(record))


def _name(record: Labelled) -> str:
    return f"the record {record.title!r} ({record.uid})" if record.title else f"the record {record.uid}"


# ---- rotation.admin -------------------------------------------------------------------------------------------------
# The admin identity in one run: its sign-ins, and Graph as it may use it.


# So many days before the admin application's own secret or certificate ends it is time to renew it.
RENEW_DAYS = 30


class Company:
    """Whoever else is at work in this process: nobody. A fleet has another one."""

    def token(self, identity: Identity, cloud: Cloud, refused: Secret | None, fetch: Callable[[], Secret]) -> Secret:
        """Return an access token of the identity, as ``fetch`` does, but not the ``refused`` one."""
        return fetch()

    def meet(self, record: VaultRecord, application: Application) -> tuple[Holding, ...]:
        """Return what other records than this one hold, as far as it may be of its application. Raises Refused where
        one of them rotates the same application."""
        return ()


class Admin:
    """Who makes and removes secrets. Making the object chooses; it asks nobody. Raises BadInput."""

    def __init__(self, sources: Sources, company: Company, http: Http, budget: Budget, log: Log) -> None:
        self.identity, self.cloud = choose(sources)
        self._sources, self._company, self._log = sources, company, log
        self._token: Secret | None = None
        self._was_read_again = False
        self.entra = Entra(http, self.cloud, self.identity.tenant_id, budget, log)
        self.graph = Graph(http, self.cloud.graph, self.identity.client_id, self._sign_in, log)

    def follow(self, secret: Secret) -> None:
        """Sign in with this secret from now on: the run has rotated the admin application itself."""
        if self.identity.secret:
            self.identity = replace(self.identity, secret=secret)

    def secret_ends(self) -> datetime | None:
        """Return when the secret that it signs in with ends, as its record says it; None where that says nothing."""
        return parse_time(self.identity.expires) if self.identity.secret else None

    def ends_soon(self, now: datetime) -> str:
        """Say that the secret ends within ``RENEW_DAYS``, and what to do; empty where it does not, as far as known."""
        end = self.secret_ends()
        if end is None or end - now >= timedelta(days=RENEW_DAYS):
            return ""
        when = f"ends in {(end - now).days} days" if end > now else "has ended"
        return (
            f"the admin application's own secret {when}, at {format_time(end)} as its record says: make a new one, and "
            f"put it into {self.identity.source}"
        )

    def _sign_in(self) -> Secret:
        # Asked for again, it is asked for another one.
        self._token = self._company.token(
            self.identity, self.cloud, self._token, lambda: self.entra.token(self.identity, self._read_again)
        )
        return self._token

    def _read_again(self) -> Identity | None:
        """Return the identity as its record holds it by now, once in a run; None where it is as it was."""
        uid = self.identity.record_uid
        if self._was_read_again or not uid:
            return None
        self._was_read_again = True
        try:
            record = self._sources.afresh(uid)
            newer = renewed(record, self.identity) if record else None
        except RotationError as problem:
            self._log.detail(f"the record of the admin identity cannot be read again: {problem.message}")
            return None
        if newer:
            self._log.say(f"{newer.source} holds another secret by now, which is tried instead")
            self.identity = newer
        return newer


# ---- rotation.proving -----------------------------------------------------------------------------------------------
# The proof that a secret signs in: several sign-ins in a row, as each of them asks one replica only.


# A look that is older (seconds) is taken again before a step that cannot be taken back.
FRESH = 10.0
_IN_A_ROW = 3
# The pauses (seconds) between the first sign-ins of a row, and after those that were not taken.
_STEPS = (0.6, 1.2)
_LONGEST_STEP = 4.0
# Secrets were seen to take 4 to 18 s to spread (https://github.com/microsoftgraph/microsoft-graph-docs/issues/17966):
# one that was refused at first is not published earlier, and not before the row has lasted as long as the refusals had.
_SPREAD = 20.0
_LONGEST_ROW = 30.0
SHORTEST_LIMIT = 10
# Below this limit there is no time to wait for a secret that is refused at first.
_LIMIT_TO_WAIT = 30


@dataclass
class Row:
    """The sign-ins that were taken one after the other. All times are in seconds, of one clock."""

    made_at: float
    length: int = 0
    began: float = 0.0
    refused_at: float | None = None

    def add(self, answer: Answer, now: float) -> None:
        """Count one more sign-in; a refusal begins the row anew, what is neither yes nor no changes nothing."""
        if answer is Answer.TAKEN:
            self.began = self.began if self.length else now
            self.length += 1
        elif answer is Answer.REFUSED:
            self.length, self.refused_at = 0, now

    def enough_at(self) -> float:
        """The time before which no row is enough: that of a secret that was refused at first lasts as long again."""
        if self.refused_at is None:
            return self.made_at
        return max(self.made_at + _SPREAD, self.began + min(_LONGEST_ROW, self.refused_at - self.made_at))

    def is_enough(self, now: float) -> bool:
        """Whether the secret is proven."""
        return self.length >= _IN_A_ROW and now >= self.enough_at()

    def pause(self, now: float) -> float:
        """The seconds to the next sign-in, in a row that is not enough yet."""
        if self.length <= len(_STEPS):
            return _STEPS[self.length - 1]
        return min(_LONGEST_STEP, max(_STEPS[0], self.enough_at() - now))


class Proving:
    """The sign-ins with one secret of an application. With ``verify`` false there are none, and nothing is known."""

    def __init__(
        self, entra: Entra, application: Application, secret: Secret, verify: bool, budget: Budget, log: Log
    ) -> None:
        self._entra, self._application, self._secret = entra, application, secret
        self.verify, self._budget, self._log = verify, budget, log
        self.made_at = budget.awake()
        self.last = SignIn(Answer.LATER, "it was not tried")
        self._last_at = float("-inf")

    def sign_in(self) -> SignIn:
        """Sign in once, over a connection of its own, and remember how it went. Raises Stopped."""
        self.last = self._entra.sign_in(self._application.client_id, self._secret)
        self._last_at = self._entra.asked_at
        return self.last

    def taken_within(self, seconds: float) -> bool:
        """Whether the last sign-in was taken and is no older; true where there are no sign-ins."""
        taken = self.last.answer is Answer.TAKEN and self._budget.awake() - self._last_at <= seconds
        return taken or not self.verify

    def fresh_until(self, seconds: float = FRESH) -> float:
        """Return when (of the budget's ``awake``) the last sign-in will be so many seconds old, too old to go by."""
        return self._last_at + seconds if self.verify else float("inf")

    def forget(self) -> None:
        """Let the next look be a new one."""
        self._last_at = float("-inf")

    def prove(self, limit: int, patient: bool = True) -> None:
        """Sign in until the secret was taken several times in a row, and for as long as its spreading may last.

        Raises NotProven, with the last reason, where that is not so within ``limit`` seconds, or where it is refused
        and there is no time to wait, or no reason to (``patient``); Stopped.
        """
        row = Row(self.made_at)
        why = "no answer"
        try:
            with self._budget.phase("prove the secret", limit):
                for attempt in itertools.count(1):
                    look, now = self.sign_in(), self._budget.awake()
                    row.add(look.answer, now)
                    why = look.why or why
                    if row.is_enough(now):
                        self._log.say(f"the secret signs in ({row.length} times in a row)")
                        return
                    waits = patient and limit >= _LIMIT_TO_WAIT
                    if look.answer is Answer.NEVER or (look.answer is Answer.REFUSED and not waits):
                        raise NotProven(why, look.answer, limit)
                    if attempt == 1 and look.answer is not Answer.TAKEN:
                        self._log.say(f"the secret is not taken yet, waiting up to {limit} s: {why}")
                    pause = row.pause(now) if look.answer is Answer.TAKEN else min(_LONGEST_STEP, float(attempt))
                    # What Entra asks for is waited for; else the last attempt is made shortly before the end.
                    self._budget.pause(look.wait or min(pause, self._budget.left() - 0.5))
        except OutOfTime:
            raise NotProven(why, self.last.answer, limit) from None


class NotProven(Exception):
    """A secret was not proven within ``limit`` seconds: ``why`` in words, ``answer`` that of the last sign-in."""

    def __init__(self, why: str, answer: Answer, limit: int) -> None:
        super().__init__(why)
        self.why, self.answer, self.limit = why, answer, limit


# ---- rotation.publishing --------------------------------------------------------------------------------------------
# The new secret in the vault: published where nobody was faster, and never in doubt afterwards.


FIELD_APPLICATION, FIELD_SECRET = "application_object_id", "client_secret"
FIELD_KEY_ID, FIELD_EXPIRES = "client_secret_id", "expires"
# Every field of a record that tells the rotation something.
LABELS = (
    FIELD_APPLICATION,
    FIELD_SECRET,
    FIELD_KEY_ID,
    FIELD_EXPIRES,
    "tenant_id",
    "application_client_id",
    "lifetime_days",
    "keep_previous",
    "retire",
    "retire_after",
    "adopt",
    "verify",
    "verify_timeout",
)
_SAVES = 7


class Shown(Enum):
    """Whose secret the vault shows."""

    OURS = 1
    ANOTHER = 2
    UNKNOWN = 3


@dataclass
class _Save:
    """A save that may have taken effect, or may do so later."""

    revision: int
    answered_no: bool = False


class Publishing:
    """One new secret on its way into one record. ``follow`` is whether the record names the application.

    ``look`` makes sure before a save that nobody has taken the secret away (its argument: whether a save was out of
    sync before); it raises RolledBack where it is not listed, or not taken by a sign-in, and returns until when (of the
    budget's ``awake``) the secret may be saved on that.
    """

    def __init__(
        self,
        vault: Vault,
        record: VaultRecord,
        new: Credential,
        secret: Secret,
        *,
        follow: bool,
        look: Callable[[bool], float],
        budget: Budget,
        log: Log,
    ) -> None:
        self._vault, self._record, self._new, self._secret = vault, record, new, secret
        self._follow, self._look, self._budget, self._log = follow, look, budget, log
        self._saves: list[_Save] = []
        self.confirmed = False  # Keeper has said that it took a save, and nothing has been seen that says otherwise

    def publish(self) -> None:
        """Save the three fields where nobody was faster. Raises RolledBack, Refused, Stopped.

        A save that Keeper confirms is not read back here: that is the first look of what comes after it.
        """
        problems: list[NotSaved] = []
        why, todo, over = "it changes all the time", "run it again", ""
        try:
            with self._budget.phase("publish the secret", PUBLISH):
                if self._publish(problems):
                    return
        except OutOfTime as end:
            why = over = str(end)
        if problems and not problems[-1].conflict:
            why, todo = problems[-1].why + (f"; {over}" if over else ""), problems[-1].todo
        raise RolledBack(f"the record {self._record.uid} was not saved", why, todo)

    def _publish(self, problems: list[NotSaved]) -> bool:
        """Return whether the record shows the new secret; ``problems`` takes what was in the way."""
        current, conflict = self._record, False
        for attempt in range(1, _SAVES + 1):
            self._vault.await_turn()
            until = self._look(conflict)
            with self._budget.good_until(until):
                problem = self._save(current.with_values(self._values(), (FIELD_SECRET,)))
            if problem is None:
                self._log.say(f"published in the record {current.title!r} ({current.uid})")
                return True
            problems.append(problem)
            self._say(problem)
            conflict = conflict or problem.conflict
            if problem.wait:
                self._budget.pause(problem.wait)
            if not problem.sent and self._budget.awake() >= until:
                continue
            if not problem.sent:
                raise RolledBack("Keeper was not reached", problem.why, "check the network and run it again")
            before, current = current, self._reread()
            if self.shows_ours(current):
                self._log.say(f"published in the record {current.title!r} ({current.uid})")
                return True
            self._settle_saves(current)
            self._stand_back(before, current)
            if problem.certain and not problem.conflict and not problem.wait:
                raise RolledBack(f"the record {current.uid} could not be saved", problem.why, problem.todo)
            self._budget.pause(pause_before(attempt + 1))
        return False

    def _values(self) -> dict[str, str]:
        new = self._new
        return {FIELD_SECRET: self._secret.reveal(), FIELD_KEY_ID: new.key_id, FIELD_EXPIRES: new.end_text}

    def put_back(self) -> bool:
        """Let the record show what it showed before, while it shows ours; return whether it does. Raises Stopped.

        The record is read before each save, which Keeper takes only at the revision that was read.
        """
        before = {label: self._record.secret(label) for label in (FIELD_SECRET, FIELD_KEY_ID, FIELD_EXPIRES)}
        with self._budget.phase("put the former secret back", PUBLISH):
            for attempt in range(1, _SAVES + 2):  # the last one is but a look at what became of the last save
                current = self._reread()
                if current.secret(FIELD_SECRET) == before[FIELD_SECRET]:
                    return True
                if not self.shows_ours(current) or attempt > _SAVES:
                    return False
                try:
                    self._vault.save(current.with_values(before, (FIELD_SECRET,)))
                except NotSaved as problem:
                    self._say(problem)
                    self._budget.pause(problem.wait or pause_before(attempt + 1))
                else:
                    return True
        return False

    def in_doubt(self) -> bool:
        """Whether a save has taken effect, or may."""
        return bool(self._saves)

    def shown(self) -> Shown:
        """Find out whether our secret is published, for good. Raises Stopped."""
        for attempt in range(1, 5):
            try:
                current = self._reread()
            except RotationError as problem:
                self._log.say(problem.message)
                if self.confirmed:
                    return Shown.OURS
                return Shown.ANOTHER if isinstance(problem, RolledBack) and not self._saves else Shown.UNKNOWN
            if self.shows_ours(current):
                return Shown.OURS
            self._settle_saves(current)
            if not self._saves:
                return Shown.ANOTHER
            # A save is under way that was never answered. Saving the record as it is moves its revision on, and the
            # late save can then no longer take effect.
            self._log.say("making sure that no late save changes the record")
            try:
                self._vault.save(current)
            except NotSaved as problem:
                self._say(problem)
                self._budget.pause(problem.wait or pause_before(attempt + 1))
        return Shown.UNKNOWN

    def _say(self, problem: NotSaved) -> None:
        unsure = problem.sent and not problem.certain
        self._log.say(f"the save was not {'confirmed' if unsure else 'made'}: {problem.why}; reading the record")

    def _save(self, record: VaultRecord) -> NotSaved | None:
        attempt = _Save(record.revision)
        self._saves.append(attempt)
        try:
            self._vault.save(record)
        except NotSaved as problem:
            attempt.answered_no = problem.certain
            if not problem.sent:
                self._saves.remove(attempt)
            return problem
        self.confirmed = True
        return None

    def _reread(self) -> VaultRecord:
        uid = self._record.uid
        record = self._vault.read([uid]).get(uid)
        if record is None:
            # It may show to others what this application cannot see any more.
            self._saves = [save for save in self._saves if not save.answered_no]
            raise RolledBack(
                f"the record {uid} has gone while it was rotated",
                "it was removed, or is no longer shared with the KSM application",
                "restore the record or its sharing and run it again",
            )
        return record

    def shows_ours(self, record: VaultRecord) -> bool:
        """Whether this reading of the record shows the new secret."""
        same_id = record.value(FIELD_KEY_ID).lower() == self._new.key_id
        return same_id and record.secret(FIELD_SECRET) == self._secret.reveal()

    def _settle_saves(self, record: VaultRecord) -> None:
        """Forget the saves that can no longer take effect, now that ``record`` was read and does not show them: Keeper
        has answered no to them, or they carry a revision that has passed."""
        self._saves = [save for save in self._saves if not save.answered_no and save.revision >= record.revision]
        self.confirmed = self.confirmed and bool(self._saves)

    def _stand_back(self, before: VaultRecord, record: VaultRecord) -> None:
        if record.revision != before.revision and record.data == before.data:
            # See fence(): that run may remove our secret after any look of ours.
            raise RolledBack(
                f"another run has saved the record {record.uid} as it is",
                "it takes this run for an interrupted one, and this run stands back",
                "nothing, if another rotation was under way",
            )
        if record.secret(FIELD_SECRET) != self._record.secret(FIELD_SECRET):
            raise RolledBack(
                f"somebody else published a secret in the record {record.uid} meanwhile",
                "this run stands back",
                "nothing, if it was another rotation",
            )
        same = record.value(FIELD_APPLICATION).lower() == self._record.value(FIELD_APPLICATION).lower()
        if self._follow and not same:
            raise RolledBack(f"the record {record.uid} names another application now", todo="run it again")


def fence(vault: Vault, record: VaultRecord, budget: Budget, log: Log) -> VaultRecord:
    """Save the record as it is, and return it as it is read then: a run that is about to save what it read before meets
    "out of sync" from now on, and stands back. Raises Refused where it shows another secret by now, or cannot be saved;
    Stopped.
    """
    log.say("saving the record as it is, so that no interrupted run can publish any more")
    current, problem = record, None
    for attempt in range(1, _SAVES + 1):
        try:
            vault.save(current)
        except NotSaved as failure:
            problem = failure
            log.say(f"the save was not confirmed: {problem.why}")
            if problem.certain and not problem.conflict and not problem.wait:
                break
            budget.pause(problem.wait or pause_before(attempt + 1))
        revision = current.revision
        found = vault.read([record.uid]).get(record.uid)
        if found is None or found.secret(FIELD_SECRET) != record.secret(FIELD_SECRET):
            raise Refused(
                f"the record {record.uid} has changed meanwhile", "another rotation may be under way", "run it again"
            )
        current = found
        # Whoever has saved it: what was read before cannot be saved any more.
        if problem is None or current.revision > revision:
            return current
        problem = None
    why, todo = (problem.why, problem.todo) if problem else ("it changes all the time", "run it again")
    raise Refused(f"the record {record.uid} could not be saved", why, todo)


def check_fields(record: VaultRecord, named: bool) -> None:
    """Raise BadInput where the fields cannot be used; ``named`` is whether the application is named elsewhere."""

    def unusable(why: str, todo: str) -> BadInput:
        return BadInput(f"the record {record.title!r} ({record.uid}) cannot be used", why, todo)

    for label in LABELS:
        tied = record.tied(label)
        if tied:
            what = f"several of its fields match {label} equally well"
            raise unusable(f"{what}: {' and '.join(tied)}", "remove or rename all but one of them")
    for label in (FIELD_APPLICATION, FIELD_SECRET, FIELD_KEY_ID, FIELD_EXPIRES):
        kind = record.unusable(label)
        if kind:
            raise unusable(f"its field {label} is of type {kind}", "change the field to Text (Hidden for secrets)")
    if not named and not record.value(FIELD_APPLICATION):
        raise unusable(
            f"it has no {FIELD_APPLICATION}", "enter the application's Object ID there (the client id will do)"
        )


# ---- rotation.evidence ----------------------------------------------------------------------------------------------
# What was seen last of the record, of the application's list and of the sign-in. It grows old, and is taken again.


class Evidence:
    """The looks of one run at one record and one application; none that is used is older than ``FRESH`` seconds.

    ``others`` are the records that secrets of the application were made for: they are read along with the record.
    """

    def __init__(
        self, vault: Vault, record: VaultRecord, graph: Graph, application: Application, budget: Budget
    ) -> None:
        self._vault, self._record, self._graph, self._application = vault, record, graph, application
        self._budget = budget
        self._record_at = self._list_at = float("-inf")
        self._listed, self._is_new = application, False
        self.others: dict[str, Published | None] = {}

    def record(self) -> VaultRecord:
        """Return the record. Raises BadInput where it has gone, Refused, Stopped."""
        if self._budget.awake() - self._record_at > FRESH:
            uid = self._record.uid
            more = other_records((*self._application.credentials, *self._listed.credentials), uid)
            found = self._vault.read([uid, *more])
            if uid not in found:
                raise BadInput(
                    f"the record {uid} has gone meanwhile", todo="restore the record or its sharing, and run it again"
                )
            self._record, self._record_at = found[uid], self._vault.asked_at
            self.others = {other: published_in(found[other]) if other in found else None for other in more}
        return self._record

    def listed(self) -> Application:
        """Return the application as Graph lists it. Raises NotDone, RotationError, Stopped."""
        if self._budget.awake() - self._list_at > FRESH:
            self._listed = self._graph.read(self._application)
            self._list_at, self._is_new = self._graph.asked_at, True
            unread = set(other_records(self._listed.credentials, self._record.uid)) - set(self.others)
            if unread:
                self._record_at = float("-inf")
        return self._listed

    def last_listed(self) -> Application:
        """Return what the last list has shown, however old."""
        return self._listed

    def list_is_new(self) -> bool:
        """Whether the last list was not asked about by this yet."""
        is_new, self._is_new = self._is_new, False
        return is_new

    @staticmethod
    def taken(proving: Proving) -> Answer:
        """Return what the sign-in says of the secret; always yes where there are no sign-ins. Raises Stopped."""
        if proving.taken_within(FRESH):
            return Answer.TAKEN
        return proving.sign_in().answer

    def fresh_until(self, *more: float) -> float:
        """Return when (of the budget's ``awake``) the record, the list or one of ``more`` is too old to go by."""
        return min(self._record_at + FRESH, self._list_at + FRESH, *more)

    def forget(self) -> None:
        """Let everything be looked at again."""
        self._record_at = self._list_at = float("-inf")

    def forget_list(self) -> None:
        """Let the list be looked at again."""
        self._list_at = float("-inf")


def published_in(record: VaultRecord) -> Published:
    """Return what a record shows."""
    secret = record.secret(FIELD_SECRET)
    return Published(record.uid, record.value(FIELD_KEY_ID), hint_of(secret), record.editable, record.value("expires"))


# ---- rotation.outcome -----------------------------------------------------------------------------------------------
# How a run ended, and its last word, in one grammar everywhere.


@dataclass
class Outcome:
    """How a rotation ended. ``facts`` hold no secret."""

    status: str
    exit_status: int
    message: str
    changed: bool
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the machine-readable form."""
        outcome = {"status": self.status, "changed": self.changed, "message": self.message, **self.facts}
        scrubbed: dict[str, Any] = scrub_all(outcome)
        return scrubbed


def verdict(status: str, facts: dict[str, Any], what: str, why: str = "", todo: str = "") -> str:
    """Return the last word of a run: ``ROTATED 'title' (uid): what. why. Next: step.``"""
    record = f" {facts['title']!r} ({facts['record']})" if facts.get("record") else ""
    parts = [text.rstrip(". ") + "." for text in (what, why) if text.strip(". ")]
    return f"{status.upper()}{record}: {' '.join(parts)}" + (f" Next: {todo.rstrip('. ')}." if todo else "")


def ended(problem: RotationError, facts: dict[str, Any], log: Log) -> Outcome:
    """Return the outcome of a run that ``problem`` has ended, and say it."""
    removed = facts.get("removed") if not isinstance(problem, (Incomplete, Orphan)) else None
    why = "; ".join(part for part in (problem.why, f"removed before: {', '.join(removed)}" if removed else "") if part)
    text = verdict(problem.status, facts, problem.what, why, problem.todo)
    log.say(text)
    changed = isinstance(problem, (Incomplete, Orphan)) or bool(facts.get("removed"))
    return Outcome(problem.status, problem.exit_status, text, changed, facts)


# ---- rotation.plan --------------------------------------------------------------------------------------------------
# What is to be done to an application, and why. Pure decisions: nothing here reads a clock, a vault or a network.


ROTATE, KEEP = "rotate", "keep"


@dataclass(frozen=True)
class Plan:
    """What would be done: ``end`` is that of a new secret, ``outlook`` what becomes of the others."""

    action: str
    reason: str
    end: datetime
    outlook: Sorted


def plan(known: Situation) -> Plan:
    """Say what is to be done, and why. Raises Refused for what would fail, before anything changes."""
    policy, application, published = known.policy, known.application, known.published
    if not published.editable:
        raise read_only(published.record_uid)
    if application.two_secrets and (policy.keep_previous > 1 or policy.retire == "none"):
        which = "retire none" if policy.retire == "none" else f"keep_previous {policy.keep_previous}"
        raise Refused(
            f"{application.display_name} can never be rotated with {which}",
            "applications that are open to personal Microsoft accounts hold two secrets at the most",
            "set keep_previous to 0 or 1, and retire to all or managed",
        )
    end = after(known.now, policy.lifetime_days)
    reason = _reason_to_rotate(known)
    if reason:
        return Plan(ROTATE, reason, end, sort_out(known, application.credentials))
    return Plan(KEEP, _valid(known), end, sort_out(replace(known, new=known.shown), application.credentials))


def read_only(uid: str) -> Refused:
    """Return the refusal of a record that this KSM application may not edit."""
    return Refused(
        f"the record {uid} is read-only for this KSM application",
        "no secret was made, as it could not be stored",
        "share the record's folder with the application with edit permission",
    )


def _valid(known: Situation) -> str:
    shown = known.shown
    return f"the secret {shown.key_id} is valid until {shown.end_text}" if shown else ""


def _reason_to_rotate(known: Situation) -> str:
    policy, published, current = known.policy, known.published, known.shown
    if policy.rotate == "always":
        return "every run rotates"
    if not published.hint or guid(published.key_id) is None:
        return "the record holds no secret yet"
    if current is None:
        return f"the application has no secret {published.key_id}, which the record names"
    if current.hint and current.hint != published.hint:
        return f"the record's secret is not the one it names, {published.key_id}"
    if current.end is None or current.end - known.now < timedelta(days=policy.min_days_left):
        return f"the secret {published.key_id} expires {current.end_text or 'at an unknown time'}"
    return ""


def room(known: Situation, listed: Sequence[Credential]) -> tuple[Decision, datetime | None]:
    """Return which secret makes room for a new one on an application that holds as many as it may, and the time until
    which to wait for it (None: not at all).

    First a left-over, then what has expired, then what this record's policy removes after the rotation anyhow. Raises
    Refused, naming the secrets and the way out.
    """
    outlook = sort_out(known, listed)
    if outlook.left_overs:
        return outlook.left_overs[0], None
    ended = [item for item in listed if known.expired(item)]
    if ended:
        return Decision(min(ended, key=lambda item: rank(item, known)), Fate.OLD, "it has expired"), None
    old = [one for one in outlook.old if known.shown is None or one.credential.key_id != known.shown.key_id]
    first = min(old, key=lambda one: one.due or known.now, default=None)
    if first is not None and known.shown is not None and first.due:
        if first.due <= known.now:
            return first, None
        if first.due <= known.now + timedelta(seconds=SOON):
            return first, first.due
    # What only this run's publishing would supersede has no time that comes nearer from run to run.
    lasting = first is not None and known.shown is not None and older(first.credential, known.shown.start)
    raise no_room(known, listed, first.due if first and lasting else None)


def no_room(known: Situation, listed: Sequence[Credential], fits: datetime | None) -> Refused:
    """Return the refusal that names the secrets, what each is, from when on a new one fits, and the way out."""
    outlook = sort_out(known, listed)
    reasons = {one.key_id: one.reason for one in outlook.stays(known.now)}
    if known.shown is not None:
        # What only this run's publishing would supersede.
        newer = [one.credential for one in outlook.old if not older(one.credential, known.shown.start)]
        reasons.update({item.key_id: "it is newer than what the record shows" for item in newer})
        reasons[known.shown.key_id] = "the record shows it"
    words = []
    for item in listed:
        made = f"{item.display_name!r}, " if item.display_name else ""
        words.append(f"{item.key_id} ({made}{reasons.get(item.key_id, 'it is old')})")
    if fits:
        todo = f"run it again after {format_time(fits)}, or lower retire_after"
    elif known.shown is None:
        todo = (
            "enter the one that is in use into the record (client_secret and client_secret_id), or remove one of them "
            "in Entra"
        )
    else:
        todo = "remove the one that is not in use in Entra"
    why = f"it holds as many as it may: {', '.join(words) or 'Graph does not list them yet'}"
    why += f"; a new one fits from {format_time(fits)} on" if fits else ""
    return Refused(f"{known.application.display_name} has no room for a new secret", why, todo, full=True)


# ---- rotation.subject -----------------------------------------------------------------------------------------------
# What one run is about: record, admin identity and application, as they were found when it began.


@dataclass(frozen=True)
class Task:
    """What to rotate. ``application`` overrides the record's own field; empty means the record's."""

    vault: Vault
    record: VaultRecord
    sources: Sources
    policy: Policy
    application: str = ""
    company: Company = field(default_factory=Company)


class Subject:
    """One record and its application. Making the object reads what there is, and changes nothing.

    ``record`` is to be saved from as it was read last; ``shown`` are the sign-ins with what it shows, None where it
    shows nothing. Raises BadInput, Refused, Stopped.
    """

    def __init__(self, task: Task, http: Http, budget: Budget, log: Log, facts: dict[str, Any]) -> None:
        self.vault, self.record, self.policy = task.vault, task.record, task.policy
        self._budget, self._log = budget, log
        facts.update(record=self.record.uid, title=self.record.title)
        identifier = task.application or self.record.value(FIELD_APPLICATION)
        named = guid(identifier) or "of no GUID"
        log.say(f"keeperpam.azure {VERSION}: record {self.record.title!r} ({self.record.uid}), application {named}")
        self._admin = Admin(task.sources, task.company, http, budget, log)
        identity = self._admin.identity
        log.say(f"admin identity {identity.name} from {identity.source}: {identity.why}")
        check_fields(self.record, bool(task.application))
        self.names_application = not task.application
        self.graph = self._admin.graph
        admin = identity.client_id.strip().lower()
        self.application = app = self.graph.find(identifier, client_id_first=identifier.strip().lower() == admin)
        self._began = budget.awake()
        facts["application"] = {
            "display_name": app.display_name,
            "object_id": app.object_id,
            "client_id": app.client_id,
        }
        self.published = published_in(self.record)
        key_id, expires = self.published.key_id, self.published.expires
        facts["previous_key_id"] = key_id if guid(key_id) else ""
        facts["previous_expires"] = expires if parse_time(expires) else ""
        facts["secrets_before"] = {item.key_id: item.end_text for item in app.credentials}
        secret = self.record.secret(FIELD_SECRET)
        self.shown = self.proving(Secret(secret)) if secret else None
        self._must_be_its_own(task.sources, admin)
        self._held = (*holdings(task.sources), *task.company.meet(self.record, app))
        self.run_name = marker(self.record.uid, uuid.uuid4().hex)
        self.unlisted = unlisted(self.policy, self.published, app, app.read_at)
        # What is so young that no list may show it yet has been seen to sign in: where it does not, the record may have
        # been given to another application since.
        doubtful = contradicts(self.policy, self.published, app, app.read_at) or (self.unlisted and self.policy.verify)
        self.bound = not doubtful or self._shown_is_taken()
        self.unlisted = self.unlisted if self.bound else ()
        self.evidence = Evidence(self.vault, self.record, self.graph, app, budget)
        if self.record.shows(FIELD_SECRET):
            log.say(f"the field {FIELD_SECRET} is no Hidden field: everybody who opens the record sees the secret")

    def now(self) -> datetime:
        """Graph's time, counted on from its first answer: a host's clock that is ahead would end secrets too early."""
        return self.application.read_at + timedelta(seconds=self._budget.awake() - self._began)

    def known(
        self,
        application: Application | None = None,
        new: Credential | None = None,
        published_at: datetime | None = None,
    ) -> Situation:
        """Return what is known: of the secrets that ``application`` lists, by default those of the first list, with
        ``new`` as the one that stays, published at that time."""
        first, key_id = self.application, self.published.key_id
        shown = (application or first).credential(key_id) or first.credential(key_id)
        return Situation(
            policy=self.policy,
            application=first,
            published=self.published,
            now=self.now(),
            shown=shown or next(iter(self.unlisted), None),
            new=new,
            first=frozenset(item.key_id for item in first.credentials),
            published_at=published_at,
            run_name=self.run_name,
            held=self._held,
            others=self.evidence.others,
            bound=self.bound,
        )

    def proving(self, secret: Secret) -> Proving:
        """Return the sign-ins with a secret of the application."""
        return Proving(self._admin.entra, self.application, secret, self.policy.verify, self._budget, self._log)

    def follow(self, secret: Secret) -> None:
        """Where the record is the admin application's own, sign in with its new secret from now on: a token may have to
        be fetched again after the secret that it came from is removed."""
        if self._admin.identity.record_uid == self.record.uid:
            self._admin.follow(secret)

    def admin_ends(self) -> str:
        """Say that the admin application's own secret ends soon; empty where it does not, or this run renews it."""
        is_own = self._admin.identity.record_uid == self.record.uid
        return "" if is_own else self._admin.ends_soon(self.now())

    def _shown_is_taken(self) -> bool:
        """Whether what the record holds was seen to sign in; where there are no sign-ins, whether the list shows it."""
        if self.shown is not None and self.policy.verify:
            return self.shown.sign_in().answer is Answer.TAKEN
        listed = [item for item in self.application.credentials if item.end is None or item.end > self.now()]
        return any(item.hint and self.published.hint and self.published.shows(item) for item in listed)

    def _must_be_its_own(self, sources: Sources, admin: str) -> None:
        """Raise where the target is an application whose credential this run was given, and the record is not that
        application's own: its editor would get a secret of what may rotate everything."""
        app, record, identity = self.application, self.record, self._admin.identity
        if identity.record_uid == record.uid and app.client_id != admin:
            raise BadInput(
                f"the record {record.uid} holds an admin application's credential, but names another application",
                "its client_secret would be overwritten",
                "remove application_client_id from it, and attach the admin application's own record",
            )
        if identity.record_uid == record.uid:
            return  # its credential has just signed in
        source = holder(sources, app.client_id)
        if not source and app.client_id != admin:
            return
        own = guid(record.view().get("application_client_id")) == app.client_id
        if not own or not self._shown_is_taken():
            raise Refused(
                f"the record {record.title!r} ({record.uid}) is not the own record of {app.display_name}",
                f"{source or identity.source} signs in as that application, and whoever may edit this record "
                "would get a secret of it",
                "enter the application that this record is for; the own record of an admin application has its "
                "application_client_id and a client_secret that signs in",
            )


# ---- rotation.making ------------------------------------------------------------------------------------------------
# The new secret at Graph: made once, found again where the answer was lost, and removed where it has to be.


# How long Graph is watched for a secret whose making was not answered, and for one that it says it does not know.
_LOOK = (0.0, 1.0, 2.0, 4.0)
_SETTLE = 8.0
_MAKES = 4


class _Doubt(IntEnum):
    """Whether Graph may hold a secret of this run whose value is lost."""

    NONE = 0
    ANSWERED_NO = 1
    UNANSWERED = 2


class Full(Exception):
    """The application holds as many secrets as it may."""


class Making:
    """The secrets that one run makes, known by ``display_name``, which no other run has."""

    def __init__(self, graph: Graph, application: Application, display_name: str, budget: Budget, log: Log) -> None:
        self._graph, self._application, self.display_name = graph, application, display_name
        self._budget, self._log = budget, log
        self._doubt = _Doubt.NONE
        self._left = CREATE
        self.tried = False
        self._undone: list[str] = []
        self.made: tuple[Credential, Secret] | None = None
        self.removed: list[str] = []
        self._open: dict[str, Credential] = {}  # removals of others that were not answered
        self.left: list[str] = []  # after undo has failed

    def make(self, end: datetime) -> tuple[Credential, Secret]:
        """Make one secret that is valid until ``end``. Raises Refused, Full, Stopped.

        addPassword is not idempotent: before it is repeated, what an unanswered attempt may have made is removed.
        """
        began = self._budget.spent()
        try:
            with self._budget.phase("create a secret", self._left):
                return self._make(end)
        finally:
            self._left = max(1.0, self._left - (self._budget.spent() - began))

    def _make(self, end: datetime) -> tuple[Credential, Secret]:
        name = self._application.display_name
        for attempt in range(1, _MAKES + 1):
            self._graph.await_turn(ADD)
            self.tried, before, self._doubt = True, self._doubt, _Doubt.UNANSWERED
            try:
                self.made = self._graph.add_password(self._application, self.display_name, end)
                self.left = [self.made[0].key_id]
            except NotDone as problem:
                failed = Refused(f"no new secret could be made for {name}", problem.why, problem.todo)
                if problem.certain or problem.busy:
                    self._doubt = max(before, _Doubt.ANSWERED_NO if problem.status else _Doubt.NONE)
                if problem.full:
                    raise Full from None
                if problem.certain:
                    raise failed from None
                self._log.say(f"making a secret was not confirmed: {problem.why}")
                pause = pause_before(attempt + 1, problem.wait)
                if attempt == _MAKES or pause >= self._budget.left():
                    raise failed from None
                self._budget.pause(pause)
                self._remove_unanswered()
            else:
                self._doubt = before
                key_id = self.made[0].key_id
                self._log.say(f"made the secret {key_id}, valid until {self.made[0].end_text}")
                return self.made
        raise AssertionError("unreachable")

    def _remove_unanswered(self) -> None:
        """Remove secrets of this run whose value is lost; whatever cannot be removed now is tried again later."""
        try:
            for item in self.look():
                if self._graph.remove_password(self._application, item.key_id):
                    self._log.say(f"removed the secret {item.key_id}, whose value was lost on the way")
                    self.took_away(item)
        except NotDone as problem:
            self._log.say(f"what was made without an answer is not removed yet: {problem.why}")

    def old_removed(self) -> list[str]:
        """Return the key ids of the removed secrets that this run has not made."""
        return [key_id for key_id in self.removed if key_id not in self._undone]

    def took_away(self, item: Credential) -> None:
        """Note that a secret was removed."""
        if item.key_id not in self.removed:
            self.removed.append(item.key_id)
        if item.display_name == self.display_name:
            self._undone.append(item.key_id)

    def remove_old(self, item: Credential) -> bool:
        """Remove a secret that this run has not made; return False where Graph knows none. Raises NotDone, Stopped."""
        was_open = item.key_id in self._open
        self._open[item.key_id] = item
        try:
            known = self._graph.remove_password(self._application, item.key_id)
        except NotDone as problem:
            if problem.certain and not was_open:
                del self._open[item.key_id]
            raise
        if known:
            self.took_away(item)
        if known or not was_open:
            del self._open[item.key_id]
        return known

    def is_gone(self, key_id: str) -> bool:
        """Note that a secret is gone; return whether a removal of this run, which was not answered, has done that."""
        item = self._open.get(key_id)
        if item is not None:
            self.took_away(item)
            del self._open[key_id]
            self._log.say(f"removed the secret {key_id}, although that was not answered")
        return item is not None

    def see(self, listed: Application) -> bool:
        """Note which of the removals that were not answered have been done; return whether any has."""
        gone = [key_id for key_id in self._open if not listed.credential(key_id)]
        for key_id in gone:
            self.is_gone(key_id)
        return bool(gone)

    def see_what_was_removed(self) -> None:
        """Look once at what became of the removals that were not answered. Raises Stopped."""
        if self._open:
            try:
                self.see(self._graph.read(self._application))
            except NotDone as problem:
                self._log.detail(f"what was removed is not known: {problem}")

    def unanswered(self) -> bool:
        """Whether Graph may hold a secret of this run that has not shown yet."""
        return self._doubt is _Doubt.UNANSWERED

    def look(self) -> list[Credential]:
        """Return this run's secrets other than the one in hand.

        Where making one was not answered, watch Graph for some seconds, as reads lag behind writes. Raises NotDone.
        """
        key_id = self.made[0].key_id if self.made else ""
        for pause in _LOOK if self.unanswered() else _LOOK[:1]:
            if pause >= self._budget.left():
                break
            if pause:
                self._budget.pause(pause)
            seen = self._graph.read(self._application)
            self.see(seen)
            found = [item for item in seen.credentials if item.display_name == self.display_name]
            found = [item for item in found if item.key_id not in (key_id, *self.removed)]
            if found:
                return found
        return []

    def undo(self) -> bool | None:
        """Remove what this run made; return whether all of it is gone, None where nothing was found. Raises Stopped."""
        found = [self.made[0].key_id] if self.made else []
        try:
            found += [item.key_id for item in self.look()] if self._doubt is not _Doubt.NONE else []
            self.left = list(found)
            for key_id in found:
                self.remove_surely(key_id)
                self.left.remove(key_id)
                self._undone.append(key_id)
                self._log.say(f"removed the new secret {key_id}")
        except NotDone as problem:
            self._log.say(f"removing what was made did not succeed: {problem.why}")
            # Graph has refused to make one, and no look can be had at what it has: its word counts.
            return None if not found and self._doubt is _Doubt.ANSWERED_NO and not self._undone else False
        return True if self._undone else None

    def remove_surely(self, key_id: str) -> bool:
        """Remove a secret that was made moments ago; return False where it is gone already. Raises NotDone, Stopped.

        Graph says that it does not know such a secret as long as the replica asked has not seen it: only when it
        stays unseen for some seconds is it gone.
        """
        attempt = 1
        unseen_from: float | None = None  # as the time that was left when it was first seen to be absent
        while True:
            attempt += 1
            if _unless_busy(lambda: self._graph.remove_password(self._application, key_id)):
                return True
            self._budget.pause(pause_before(min(attempt, 4)))
            seen = _unless_busy(lambda: self._graph.read(self._application).credential(key_id) is not None)
            if seen:
                unseen_from = None
            elif seen is not None and unseen_from is None:
                unseen_from = self._budget.left()
            elif seen is not None and unseen_from is not None and unseen_from - self._budget.left() >= _SETTLE:
                return False


def _unless_busy(call: Callable[[], bool]) -> bool | None:
    """Return what the call does; None where Graph cannot answer now. Raises NotDone where it refuses."""
    try:
        return call()
    except NotDone as problem:
        if problem.certain:
            raise
        return None


# ---- rotation.retiring ----------------------------------------------------------------------------------------------
# The old secrets at Graph: removed once their successor is published, as far as they may be, on fresh evidence.


# What stays unseen for so many seconds, in so many looks at least, is gone.
_UNSEEN = 8.0
_UNSEEN_LOOKS = 3
_LOOK_PAUSE = 2.0


class Gone(Exception):
    """The secret that the record shows was taken away."""


class Superseded(Exception):
    """A later run of this record has published its secret, ``key_id``, and cleans up."""

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id


class TakenOver(Exception):
    """The record shows neither our secret nor that of a later run."""


class Unsure(Exception):
    """One look says that the new secret is there, another that it is not."""


@dataclass
class _Unseen:
    """Since when something was not seen, and in how many looks."""

    since: float
    looks: int = 0

    def is_gone(self, now: float) -> bool:
        """Count one more look without it; whether that is enough."""
        self.looks += 1
        return self.looks >= _UNSEEN_LOOKS and now - self.since >= _UNSEEN


class Retiring:
    """The removal of one application's old secrets beside ``new``, the one that stays.

    ``shows_new`` tells of a reading of the record whether it shows that one, ``is_ours`` of a secret whether it was
    made for this record; ``sort`` decides about secrets, ``now`` is Graph's time. ``unlisted`` are secrets that Graph
    may not list yet.
    """

    def __init__(
        self,
        *,
        graph: Graph,
        application: Application,
        unlisted: tuple[Credential, ...],
        new: Credential,
        evidence: Evidence,
        proving: Proving,
        making: Making,
        shows_new: Callable[[VaultRecord], bool],
        is_ours: Callable[[Credential], bool],
        sort: Callable[[list[Credential]], Sorted],
        now: Callable[[], datetime],
        budget: Budget,
        log: Log,
    ) -> None:
        self._graph, self._application, self._unlisted, self._new = graph, application, unlisted, new
        self._evidence, self._proving, self._making = evidence, proving, making
        self._shows_new, self._is_ours, self._sort, self._now = shows_new, is_ours, sort, now
        self._budget, self._log = budget, log
        self._late: list[Credential] = []
        self._watched: dict[str, _Unseen] = {}
        self._gone: set[str] = set()
        self._refused: dict[str, NotDone] = {}
        self.sent: set[str] = set()  # key ids whose removal was asked for

    # -- what there is to do

    def outlook(self) -> Sorted:
        """Decide about all that is known: reads lag behind writes, and what any list shows is there, or was."""
        lists = (
            *self._unlisted,
            *self._application.credentials,
            *self._evidence.last_listed().credentials,
            *self._late,
        )
        away = {*self._making.removed, *self._gone}
        return self._sort([item for item in lists if item.key_id not in away])

    def _todo(self) -> list[Credential]:
        return [item for item in self.outlook().due(self._now()) if item.key_id not in self._refused]

    def new_is_listed(self) -> bool | None:
        """Look at the list once more; None where Graph does not tell. Raises RotationError, Stopped."""
        self._evidence.forget_list()
        try:
            return self._evidence.listed().credential(self._new.key_id) is not None
        except NotDone:
            return None

    def early(self) -> None:
        """Remove what is due before any wait: what earlier runs of this record have left. One look each, no waiting:
        what cannot be removed now goes at the end of the wait. Raises Gone, Superseded, TakenOver, RotationError."""
        if not [item for item in self._todo() if self._is_ours(item)]:
            return
        try:
            self._confirm(patient=False)
            for item in [item for item in self._todo() if self._is_ours(item)]:
                self._graph.await_turn(REMOVE)
                self._confirm(patient=False)
                self._remove(item)
        except (NotDone, Unsure) as problem:
            self._log.say(f"not removed before the wait: {problem}")

    def retire(self, seconds: float, not_before: datetime | None) -> None:
        """Remove what is due, within so many seconds, but not before the given time: what was waited for is due then.
        One that fails keeps no other from being removed.

        Raises NotDone for one that was not removed, Gone, Superseded, TakenOver, RotationError, Stopped.
        """
        problem: NotDone | None = None
        try:
            with self._budget.phase("remove the old secrets", seconds):
                self._late = self._making.look() if self._making.unanswered() else []
                while True:
                    self._confirm(patient=True)
                    todo = [item for item in self._todo() if item.key_id not in self._watched]
                    if not todo and not self._watched:
                        rest = (not_before - self._now()).total_seconds() if not_before else 0.0
                        if rest <= 0:
                            break
                        self._budget.pause(rest)
                        continue
                    problem = self._remove_all(todo) or problem
                    if self._todo():
                        self._budget.pause(min(_LOOK_PAUSE, max(0.1, self._budget.left() - 0.5)))
                        self._evidence.forget_list()
        except OutOfTime as end:
            raise problem or NotDone(str(end), certain=False) from None
        if self._refused:
            raise next(iter(self._refused.values()))

    def _remove_all(self, todo: list[Credential]) -> NotDone | None:
        problem = None
        for item in todo:
            self._graph.await_turn(REMOVE)
            self._confirm(patient=True)
            if item.key_id not in (one.key_id for one in self._todo()):
                continue
            try:
                self._remove(item)
            except NotDone as failure:
                problem = failure
                self._log.say(f"the secret {item.key_id} was not removed: {failure.why}")
                if failure.certain and failure.status:
                    self._refused[item.key_id] = failure
                elif failure.wait and failure.wait < self._budget.left():
                    self._budget.pause(failure.wait)
        return problem

    def _remove(self, item: Credential) -> None:
        was_sent = item.key_id in self.sent
        self.sent.add(item.key_id)
        try:
            with self._budget.good_until(self._evidence.fresh_until(self._proving.fresh_until())):
                was_known = self._making.remove_old(item)
        except NotDone as problem:
            if problem.certain and not problem.status and not was_sent:
                self.sent.remove(item.key_id)  # Graph was not reached
            raise
        if was_known:
            self._log.say(f"removed the secret {item.key_id}")
        else:
            # One replica does not know it: it is gone, or that replica has not heard of it yet.
            self._watched[item.key_id] = _Unseen(self._budget.awake())
            self._evidence.forget_list()

    # -- the evidence for a removal

    def _confirm(self, patient: bool) -> None:
        """Make sure, on evidence that is fresh, that the record shows the new secret, and that it is there.

        Where one look says so and another does not, look again until the phase ends, or raise Unsure.
        """
        unseen: _Unseen | None = None
        while True:
            self._check_record()
            there, answer = self._look()
            # A list may have named further records to read.
            self._check_record()
            if there and answer is Answer.TAKEN:
                return
            if self._proving.verify and there is False and answer is Answer.REFUSED:
                unseen = unseen or _Unseen(self._budget.awake())
                if unseen.is_gone(self._budget.awake()):
                    raise Gone
            elif there or (answer is Answer.TAKEN and self._proving.verify):
                unseen = None
                if not self._todo():
                    return
            if not patient:
                raise Unsure(f"the new secret is {'' if there else 'not '}listed; sign-in: {answer.value}")
            self._look_again(there)

    def _look(self) -> tuple[bool | None, Answer]:
        """Return whether the new secret is listed (None: Graph does not tell), and what its sign-in says."""
        try:
            listed = self._evidence.listed()
        except NotDone as problem:
            self._log.detail(f"the list is not to be had: {problem}")
            there = None
        else:
            self._count_unseen(listed)
            found = listed.credential(self._new.key_id)
            there = found is not None and (found.end is None or found.end > self._now())
        return there, self._evidence.taken(self._proving)

    def _look_again(self, there: bool | None) -> None:
        pause = self._proving.last.wait or _LOOK_PAUSE
        if pause >= self._budget.left():
            if not self._proving.verify and there is False:
                raise Gone
            raise NotDone("the new secret is not seen everywhere yet", "run it again", certain=False)
        self._budget.pause(pause)
        self._evidence.forget_list()
        self._proving.forget()

    def _count_unseen(self, listed: Application) -> None:
        if self._evidence.list_is_new():
            for key_id, unseen in list(self._watched.items()):
                if listed.credential(key_id):
                    del self._watched[key_id]
                elif unseen.is_gone(self._budget.awake()):
                    del self._watched[key_id]
                    self._gone.add(key_id)
                    if not self._making.is_gone(key_id):
                        self._log.say(f"the secret {key_id} was gone already")

    def _check_record(self) -> None:
        record = self._evidence.record()
        if self._shows_new(record):
            return
        key_id = guid(record.value(FIELD_KEY_ID)) or ""
        first = {item.key_id for item in self._application.credentials}
        unseen = _Unseen(self._budget.awake())
        while True:
            found = self._evidence.listed().credential(key_id)
            if found is not None and self._is_ours(found) and key_id not in first:
                raise Superseded(key_id)
            if found is not None or not key_id or unseen.is_gone(self._budget.awake()):
                raise TakenOver
            self._budget.pause(_LOOK_PAUSE)
            self._evidence.forget_list()

    def remaining(self) -> list[str] | None:
        """Return the key ids that may be left after ``retire`` has failed; None where that is not to be had.

        A removal whose answer was lost has taken effect more often than not. What a replica did not know has not stayed
        unseen long enough.
        """
        if self._making.unanswered():
            return None
        try:
            with self._budget.phase("see what remains", REVIEW):
                fresh = self._graph.read(self._application)
        except (NotDone, RotationError, Stopped) as problem:
            self._log.detail(f"what remains is not known: {problem}")
            return None
        listed = {item.key_id for item in fresh.credentials}
        if self._new.key_id not in listed:
            return None  # the list is stale
        self._making.see(fresh)
        soon = self._now() + timedelta(seconds=SOON)
        due = [item.key_id for item in self._sort(list(fresh.credentials)).due(soon)]
        return due + [key_id for key_id in self._watched if key_id not in (*due, *self._making.removed)]


# ---- rotation.room --------------------------------------------------------------------------------------------------
# Room for a new secret, on an application that holds as many as it may.


_ROOM_LOOKS = 3
_ROOM_PAUSE = 2.0


class Room:
    """Makes room, one secret at a time, each on fresh evidence.

    ``known`` gives the situation of a list; ``shown`` are the sign-ins with what the record shows, None where it
    shows none. ``record`` is the record as it was read last: it is to be saved from this one.
    """

    def __init__(
        self,
        *,
        vault: Vault,
        record: VaultRecord,
        evidence: Evidence,
        graph: Graph,
        making: Making,
        shown: Proving | None,
        known: Callable[[Application], Situation],
        budget: Budget,
        log: Log,
    ) -> None:
        self._vault, self.record, self._evidence, self._graph = vault, record, evidence, graph
        self._making, self._shown, self._known, self._budget, self._log = making, shown, known, budget, log
        self._fenced: set[str] = set()  # key ids that no interrupted run can publish any more

    def make(self, seconds: float) -> None:
        """Remove one secret that has to go, within so many seconds, and wait for it to be due where that suffices.

        Raises Refused where none may go, or where it is not removed; Stopped.
        """
        self._log.say("the application holds as many secrets as it may; making room")
        problem: Refused | None = None
        try:
            with self._budget.phase("make room for a new secret", seconds):
                for attempt in range(1, 1000):
                    self._graph.await_turn(REMOVE)
                    self._evidence.forget()
                    self._must_be_the_same()
                    try:
                        if self._remove_one():
                            return
                    except NotDone as failure:
                        problem = Refused("no room could be made for a new secret", failure.why, failure.todo)
                        if failure.certain and failure.status:
                            raise problem from None
                        self._budget.pause(failure.wait or 0.0)
                    except Refused as refusal:
                        problem = refusal
                        # A list may lag behind what Graph counts.
                        if attempt == _ROOM_LOOKS or len(self._evidence.last_listed().credentials) > 1:
                            raise
                    self._budget.pause(_ROOM_PAUSE)
        except OutOfTime as end:
            raise problem or Refused("no room could be made for a new secret", str(end), "run it again") from None

    def _must_be_the_same(self) -> None:
        now = self._evidence.record()
        before = self.record
        if any(now.secret(label) != before.secret(label) for label in (FIELD_SECRET, FIELD_KEY_ID)):
            raise Refused(
                f"the record {before.uid} has changed meanwhile", "another rotation may be under way", "run it again"
            )

    def _remove_one(self) -> bool:
        listed = self._evidence.listed()
        if self._making.see(listed):
            return True
        self._evidence.record()
        known = self._known(listed)
        decision, until = room(known, listed.credentials)
        if until is not None:
            self._wait(decision, until, known.now)
            return False
        item, by_sign_in = decision.credential, float("inf")
        if decision.fate is Fate.LEFT_OVER:
            self._fence(listed)
        elif not known.expired(item):
            if not self._shown_is_taken(known, listed.credentials):
                return False
            by_sign_in = self._shown.fresh_until() if self._shown else by_sign_in
        self._log.say(f"removing the secret {item.key_id} to make room: {decision.reason}")
        with self._budget.good_until(self._evidence.fresh_until(by_sign_in)):
            self._making.remove_old(item)
        return True

    def _fence(self, listed: Application) -> None:
        found = {item.key_id for item in listed.credentials}
        if not found <= self._fenced:
            self.record = fence(self._vault, self.record, self._budget, self._log)
            self._fenced = found

    def _wait(self, decision: Decision, until: datetime, now: datetime) -> None:
        seconds = (until - now).total_seconds()
        self._log.say(f"waiting {seconds:.0f} s until the secret {decision.credential.key_id} may go")
        self._budget.pause(seconds)

    def _shown_is_taken(self, known: Situation, listed: tuple[Credential, ...]) -> bool:
        """Whether the record's secret signs in. Raises Refused where it does not; False where that is not to be had."""
        answer = self._evidence.taken(self._shown) if self._shown else Answer.REFUSED
        if answer is Answer.LATER and self._shown:
            self._budget.pause(self._shown.last.wait or _ROOM_PAUSE)
            return False
        if answer is not Answer.TAKEN:
            raise no_room(known, listed, None)
        return True


# ---- rotation.settling ----------------------------------------------------------------------------------------------
# The wait between publishing and the first removal: who still uses the old secret has time to fetch the new one, and
# replicas that have not heard of it yet have time to.


_SIGN_INS = 3
_SIGN_IN_AGAIN = 5.0
_SHORTEST_STEP = 1.0


class Settling:
    """The wait of one run. ``listed`` tells whether Graph lists the new secret; None where it does not tell."""

    def __init__(self, proving: Proving, listed: Callable[[], bool | None], budget: Budget, log: Log) -> None:
        self._proving, self._listed, self._budget, self._log = proving, listed, budget, log

    def steps(self, seconds: float, early: Callable[[], None]) -> Generator[Wait, None, None]:
        """Do what goes ``early``, then wait so many seconds, and sign in meanwhile, the last time at the end.

        A refusal makes the wait last twice as long as the secret was old then, or, where the secret is not listed, ends
        it: what follows looks into that. Raises NotDone and RotationError of ``early``, Stopped.
        """
        budget, proving = self._budget, self._proving
        try:
            with budget.phase("let the new secret spread", SETTLE):
                until = budget.awake() + seconds
                early()
                if not seconds:
                    return
                self._log.say(f"waiting {seconds:.0f} s before old secrets are removed")
                # Whatever went early: three sign-ins, and none of them at once.
                now = budget.awake()
                step = max(_SHORTEST_STEP, (until - now) / _SIGN_INS)
                following, until = now + step, max(until, now + _SIGN_INS * step)
                while True:
                    yield Wait(max(0.0, following - budget.awake()))
                    if not proving.verify:
                        if budget.awake() >= until:
                            return
                        following = until
                        continue
                    look, now = proving.sign_in(), budget.awake()
                    if look.answer is Answer.TAKEN and now >= until:
                        return
                    if look.answer is Answer.REFUSED:
                        self._log.say(f"the new secret was refused, looking at the list: {look.why}")
                        if self._listed() is False:
                            return
                        until = max(until, proving.made_at + 2 * (now - proving.made_at))
                    again = now + (look.wait or _SIGN_IN_AGAIN)
                    following = min(until, now + step) if look.answer is Answer.TAKEN else again
        except OutOfTime:
            self._log.say("the new secret has not settled in time")


# ---- rotation.transaction -------------------------------------------------------------------------------------------
# The rotation of one application: create, prove, publish, settle, retire; and the way back from every step.
#
# The order is what keeps the vault's secret valid at every instant: nothing is stored before it is seen to sign in, and
# nothing is removed before its successor is seen again in the vault, in the list and at the sign-in. What cannot be known
# is never guessed: a secret whose save may still take effect is not removed.


# A sign-in that is older (seconds) is repeated before a save is.
_OLD_SIGN_IN = 30.0
_ROOMS = 3
_Ended = TypeVar("_Ended")
# Work that is done step by step, so that whoever does it may do other work in between.
Steps = Generator[Wait, None, _Ended]


def perform(prepare: Callable[[], Task], http: Http, budget: Budget, log: Log, check: bool = False) -> Outcome:
    """Rotate, or with ``check`` only say what would be done; return how it ended. It raises none of RotationError.

    ``prepare`` reads whatever names the task; nothing changes while it runs.
    """
    return drive(rotate(prepare, http, budget, log, check), budget)


def rotate(prepare: Callable[[], Task], http: Http, budget: Budget, log: Log, check: bool = False) -> Steps[Outcome]:
    """Do as ``perform`` does, step by step. Each new secret is made after a wait for the turn to make one; the first
    wait after it comes when that secret is published."""
    facts: dict[str, Any] = {}
    try:
        try:
            with budget.phase("resolve the application", RESOLVE):
                rotation = Rotation(prepare(), http, budget, log, facts)
                if check:
                    return rotation.describe()
        except Stopped as stop:
            raise Refused("nothing was changed", str(stop), "run it again") from None
        return (yield from _to_the_end(rotation, budget))
    except RotationError as problem:
        budget.shield()
        facts.update(problem.facts)
        return ended(problem, facts, log)


def _to_the_end(rotation: Rotation, budget: Budget) -> Steps[Outcome]:
    try:
        try:
            return (yield from rotation.steps())
        except (Exception, Stopped) as failure:
            budget.shield()
            return rotation.end(failure)
    except Stopped as stop:  # the one signal that is let through came before the shield was up
        budget.shield()
        return rotation.end(stop)


class Rotation:
    """One run. Making the object resolves everything and plans; it changes nothing. Raises BadInput, Refused."""

    def __init__(self, task: Task, http: Http, budget: Budget, log: Log, facts: dict[str, Any]) -> None:
        self._budget, self._log, self._facts = budget, log, facts
        self._subject = subject = Subject(task, http, budget, log, facts)
        self._policy, self._application, self._graph = task.policy, subject.application, subject.graph
        self._name = subject.application.display_name
        self._plan: Plan = plan(subject.known())
        number = len(self._application.credentials)
        log.say(f"{self._name} ({self._application.client_id}) has {number} secret(s); {self._plan.reason}")
        if subject.admin_ends():
            log.say("warning: " + subject.admin_ends())
        self._making = Making(self._graph, self._application, subject.run_name, budget, log)
        wait = self._policy.retire_after.total_seconds()
        self._room_time = room_time(wait)
        self._until = rotating_time(max(SHORTEST_LIMIT, self._policy.verify_timeout), wait)
        self._publishing: Publishing | None = None
        self._retiring: Retiring | None = None
        self._new: Credential | None = None  # what the vault shows and will show, once that is decided
        self._published_at: datetime | None = None
        self._superseded = ""
        self._kept: list[Kept] = []
        self._complete = False
        self._final: RotationError | None = None

    def _known(self) -> Situation:
        return self._subject.known(new=self._new, published_at=self._published_at)

    # -- what would be done

    def describe(self) -> Outcome:
        """Say what would be done."""
        name, soon = self._name, self._subject.now() + timedelta(seconds=SOON)
        if other_records(self._application.credentials, self._subject.record.uid):
            self._subject.evidence.record()
        todo = plan(self._known())
        removes = [item.key_id for item in todo.outlook.due(soon)]
        self._kept = todo.outlook.stays(soon)
        self._facts.update(kept=[item.as_dict() for item in self._kept], would_remove=removes)
        if todo.action == KEEP and not removes:
            return self._unchanged()
        if todo.action != KEEP and self._is_full():
            decision, _until = room(self._known(), self._application.credentials)
            self._log.say(f"the secret {decision.credential.key_id} would make room: {decision.reason}")
        verb = "would be rotated" if todo.action != KEEP else "needs no new secret, but would be cleaned up"
        why = [todo.reason, f"old secrets that would be removed: {len(removes)}", *self._notes()]
        text = verdict("planned", self._facts, f"{name} {verb}", "; ".join(why))
        self._log.say(text)
        self._facts["expires"] = format_time(todo.end) if todo.action != KEEP else ""
        return Outcome("planned", 0, text, True, self._facts)

    def _is_full(self) -> bool:
        return self._application.two_secrets and len(self._application.credentials) > 1

    # -- forward

    def steps(self) -> Steps[Outcome]:
        """Carry the plan out. Whatever it raises is to be handed to ``end``."""
        if self._plan.action != KEEP or not (yield from self._keep()):
            yield self._turn(makes=True)
            self._until += self._budget.spent()
            new, secret = self._make()
            proving = self._subject.proving(secret)
            self._prove(proving)
            publishing = self._publish(new, secret, proving)
            yield Wait()
            yield from self._finish(new, publishing, proving)
        self._complete = True
        self._budget.shield()
        return self._rotated()

    def _turn(self, makes: bool) -> Wait:
        """What the next writes wait for: the new secret, what will be removed, and a second try where there is room to
        be made first."""
        removes = len(self._plan.outlook.due(self._subject.now() + timedelta(seconds=SOON)))
        writes = removes + (2 if self._is_full() else 1) if makes else removes
        return Wait(writes=writes, makes=makes, personal=self._application.two_secrets)

    def _keep(self) -> Steps[bool]:
        """Clean up beside the shown secret; return False where that does not sign in, so that a new one is needed."""
        shown = self._known().shown
        if shown is None or self._subject.shown is None:
            return False
        try:
            if self._policy.verify:
                self._subject.shown.prove(max(SHORTEST_LIMIT, self._policy.verify_timeout), patient=False)
        except NotProven as problem:
            if problem.answer is Answer.REFUSED:
                self._log.say(f"the vault's secret does not sign in, so it is rotated: {problem.why}")
                return False
            raise Refused(
                f"{self._name} was not rotated, nothing was changed",
                f"its sign-in says neither yes nor no to the vault's secret: {problem.why}",
                "run it again; set verify to false if it cannot sign in from this host",
            ) from None
        yield self._turn(makes=False)
        if self._plan.outlook.left_overs:
            with self._budget.phase("save the record as it is", PUBLISH):
                self._subject.record = fence(self._subject.vault, self._subject.record, self._budget, self._log)
            self._subject.evidence.forget()
        self._new = shown
        text = self._subject.record.secret(FIELD_SECRET)
        try:
            yield from self._settle_and_retire(
                shown, self._subject.shown, lambda record: record.secret(FIELD_SECRET) == text
            )
        except Gone:
            self._log.say("the vault's secret was taken away, so it is rotated")
            self._new = self._retiring = None
            return False
        return True

    def _make(self) -> tuple[Credential, Secret]:
        """Make the new secret, and room for it where there is none. Raises Refused, Stopped."""
        for number in range(_ROOMS + 1):
            try:
                return self._making.make(self._plan.end)
            except Full:
                if number == _ROOMS:
                    break
                self._make_room()
        raise Refused(
            f"no new secret could be made for {self._name}",
            "it holds as many secrets as it may, although some were removed",
            "run it again later",
        )

    def _make_room(self) -> None:
        place = Room(
            vault=self._subject.vault,
            record=self._subject.record,
            evidence=self._subject.evidence,
            graph=self._graph,
            making=self._making,
            shown=self._subject.shown,
            known=lambda listed: self._subject.known(listed, published_at=self._application.read_at),
            budget=self._budget,
            log=self._log,
        )
        began = self._budget.spent()
        try:
            place.make(self._room_time)
        finally:
            self._room_time -= self._budget.spent() - began
            self._subject.record = place.record

    def _publish(self, new: Credential, secret: Secret, proving: Proving) -> Publishing:
        self._publishing = publishing = Publishing(
            self._subject.vault,
            self._subject.record,
            new,
            secret,
            follow=self._subject.names_application,
            look=lambda conflict: self._look_before_saving(new, proving, conflict),
            budget=self._budget,
            log=self._log,
        )
        publishing.publish()
        self._new, self._published_at = new, self._subject.now()
        self._subject.follow(secret)
        return publishing

    def _prove(self, proving: Proving) -> None:
        self._facts["verified"] = proving.verify
        if not proving.verify:
            self._log.say("not proving that the secret signs in (verify is false)")
            return
        name, limit = self._name, self._policy.verify_timeout
        if limit < SHORTEST_LIMIT:
            self._log.say(f"verify_timeout {limit} counts as {SHORTEST_LIMIT}")
            limit = SHORTEST_LIMIT
        try:
            proving.prove(limit)
        except NotProven as problem:
            if problem.answer is Answer.NEVER:
                raise RolledBack(
                    f"{name} cannot sign in with its new secret",
                    problem.why,
                    "remove the cause, or set verify to false if it cannot sign in from this host",
                ) from None
            raise RolledBack(
                f"the new secret of {name} did not sign in within {limit} s",
                problem.why,
                "run it again, or raise verify_timeout",
            ) from None

    def _look_before_saving(self, new: Credential, proving: Proving, conflict: bool) -> float:
        """Raise RolledBack where somebody has taken the new secret away before it is saved; return until when (of the
        budget's ``awake``) it may be saved on that. Raises Stopped."""
        what = "somebody has removed the new secret meanwhile"
        away = RolledBack(what, "this run stands back", "nothing, if it was another rotation")
        if conflict:
            proving.forget()
            for pause in (2.0, 3.0, 3.0, None):
                try:
                    if self._graph.read(self._application).credential(new.key_id):
                        break
                except NotDone as problem:
                    self._log.detail(f"the list is not to be had: {problem}")
                if pause is None:
                    raise away
                self._budget.pause(pause)
        while not proving.taken_within(_OLD_SIGN_IN):
            look = proving.sign_in()
            if look.answer in (Answer.REFUSED, Answer.NEVER):
                raise away
            if look.answer is Answer.LATER:
                self._budget.pause(look.wait or 2.0)
        return proving.fresh_until(_OLD_SIGN_IN)

    def _finish(self, new: Credential, publishing: Publishing, proving: Proving) -> Steps[None]:
        """Settle and retire after publishing. Raises RotationError, NotDone, Stopped."""
        self._subject.evidence.forget()
        try:
            yield from self._settle_and_retire(new, proving, publishing.shows_ours)
        except Gone:
            self._budget.shield()
            self._final = self._taken_away(new, publishing)
            raise self._final from None

    def _settle_and_retire(
        self, new: Credential, proving: Proving, shows_new: Callable[[VaultRecord], bool]
    ) -> Steps[None]:
        known = self._known()
        self._retiring = retiring = Retiring(
            graph=self._graph,
            application=self._application,
            unlisted=self._subject.unlisted,
            new=new,
            evidence=self._subject.evidence,
            proving=proving,
            making=self._making,
            shows_new=shows_new,
            is_ours=known.is_ours,
            sort=lambda listed: sort_out(self._known(), listed),
            now=self._subject.now,
            budget=self._budget,
            log=self._log,
        )
        if self._publishing is None and not retiring.outlook().due(self._subject.now() + timedelta(seconds=SOON)):
            self._kept = retiring.outlook().stays(self._subject.now())
            return
        try:
            until = retiring.outlook().wait_until(self._subject.now())
            seconds = (until - self._subject.now()).total_seconds() if until else 0.0
            if seconds:
                settling = Settling(proving, retiring.new_is_listed, self._budget, self._log)
                yield from settling.steps(seconds, retiring.early)
            rest = (until - self._subject.now()).total_seconds() if until else 0.0
            retiring.retire(self._retire_time(max(0.0, rest)), until)
            self._kept = retiring.outlook().stays(self._subject.now())
        except Superseded as other:
            self._superseded = other.key_id
        except TakenOver:
            self._final = self._incomplete(
                new,
                "the record shows something else by now, so that nothing more is removed",
                "see who has changed the record; run it again if it should be rotated",
                retiring.remaining(),
            )
            raise self._final from None

    def _retire_time(self, rest: float) -> float:
        """Return the seconds that removing old secrets may take, ``rest`` of them to wait: what undoes a new one that
        is gone has to fit in."""
        if self._publishing is None:
            return rest + RETIRE
        return max(REVIEW, min(rest + RETIRE, self._until - UNDO - self._budget.spent()))

    def _taken_away(self, new: Credential, publishing: Publishing) -> RotationError:
        """Somebody has taken the published secret away: let the record show the former one again, if that is possible.

        Returns how the run ends.
        """
        name = self._name
        self._log.say(f"somebody has taken the new secret {new.key_id} away")
        why, is_back = "there is no former secret that could be put back", False
        try:
            with self._budget.phase("put the former secret back", UNDO):
                if self._former_is_there():
                    why = "the record shows something else by now, or could not be saved"
                    is_back = publishing.put_back()
                    if is_back:
                        self._making.undo()  # what is gone may come back where a replica has it still
        except (Exception, Stopped) as problem:
            why = f"the former secret could not be put back: {_why(problem)}"
        if is_back:
            return RolledBack(
                f"somebody has taken the new secret of {name} away, and the record shows the former one again",
                "this run or its secret was taken for something else",
                "see who removes its secrets, then run it again",
            )
        return self._incomplete(
            new, f"the vault shows a secret that somebody has taken away; {why}", "run it again at once", None
        )

    def _former_is_there(self) -> bool:
        key_id = guid(self._subject.published.key_id) or ""
        if self._subject.shown is None or not key_id or (self._retiring and key_id in self._retiring.sent):
            return False
        if not self._graph.read(self._application).credential(key_id):
            return False
        self._subject.shown.forget()
        return Evidence.taken(self._subject.shown) is Answer.TAKEN

    # -- the ends

    def end(self, failure: BaseException) -> Outcome:
        """Undo what ``run`` has left half done, as far as that is certain to be safe.

        Raises one of RotationError, which tells the truth about what remains.
        """
        if self._complete:
            return self._rotated()
        if self._final is None and self._new is not None:
            remaining = self._retiring.remaining() if self._retiring else None
            if self._retiring and remaining == []:
                self._kept = self._retiring.outlook().stays(self._subject.now())
                return self._rotated()
            self._final = self._failed_to_retire(self._new, failure, remaining)
        problem = self._final or self._undo(failure)
        if self._making.old_removed():
            self._facts["removed"] = self._making.old_removed()
        raise problem from None

    def _rotated(self) -> Outcome:
        new, removed = self._new, self._making.removed
        key_id, end = (new.key_id, new.end_text) if new else ("", "")
        if self._publishing is None and not removed:
            return self._unchanged()
        self._facts.update(key_id=key_id, expires=end, removed=removed, kept=[item.as_dict() for item in self._kept])
        did = "was rotated" if self._publishing else "needed no new secret and was cleaned up"
        why = [f"{len(removed)} old removed"]
        if self._superseded:
            why.append(f"a later run of this record has published {self._superseded} and cleans up")
        why += self._notes()
        check = "see whether the record names the right application, then run it again"
        todo = check if self._kept and not self._subject.bound else ""
        what = f"{self._name} {did}: its secret {key_id} is valid until {end}"
        text = verdict("rotated", self._facts, what, "; ".join(why), todo)
        self._log.say(text)
        return Outcome("rotated", 0, text, True, self._facts)

    def _unchanged(self) -> Outcome:
        shown = self._known().shown
        self._facts.update(key_id=self._subject.published.key_id, expires=shown.end_text if shown else "")
        self._facts["kept"] = [item.as_dict() for item in self._kept]
        why = "; ".join([self._plan.reason, *self._notes()])
        text = verdict("unchanged", self._facts, f"{self._name} needs no rotation", why)
        self._log.say(text)
        return Outcome("unchanged", 0, text, False, self._facts)

    def _notes(self) -> list[str]:
        """Return what is said beside: what stays, and what the record named and the application does not list."""
        notes = ["kept: " + ", ".join(str(item) for item in self._kept)] if self._kept else []
        named = guid(self._subject.published.key_id)
        if named and not self._application.credential(named) and named not in self._making.removed:
            self._facts["unlisted"] = [named]
            notes.append(
                f"the record named {named}, which the application does not list: it has gone, or is one of the service "
                "principal (which works as well) or of the application that the record named before"
            )
        if self._subject.admin_ends():
            notes.append(self._subject.admin_ends())
        return notes

    # -- back

    def _incomplete(self, new: Credential, why: str, todo: str, remaining: list[str] | None) -> Incomplete:
        removed = self._making.removed
        if remaining is None:
            old = [one.credential.key_id for one in self._plan.outlook.old]
            remaining = [key_id for key_id in old if key_id not in removed]
        return Incomplete(
            f"{self._name} has published the secret {new.key_id}, but is not complete",
            f"{why}; old secrets that may remain: {', '.join(remaining) or 'none known'}",
            todo,
            key_id=new.key_id,
            expires=new.end_text,
            removed=removed,
            remaining=remaining,
        )

    def _failed_to_retire(self, new: Credential, failure: BaseException, remaining: list[str] | None) -> Incomplete:
        todo = failure.todo if isinstance(failure, (NotDone, RotationError)) else ""
        more = f"{todo}, then " if todo and "run it again" not in todo else ""
        return self._incomplete(new, _why(failure), more + "run it again; the next run removes them", remaining)

    def _undo(self, failure: BaseException) -> RotationError:
        name, making = self._name, self._making
        wanted = failure if isinstance(failure, RotationError) else None
        if not making.tried:
            return wanted or Refused(f"{name} was not rotated, nothing was changed", _why(failure), "run it again")
        if making.made is not None:
            self._log.say("undoing: " + _why(failure))
        removed: bool | None = False
        shown = Shown.ANOTHER
        try:
            with self._budget.phase("undo", UNDO):
                if self._publishing is not None and self._publishing.in_doubt():
                    shown = Shown.OURS if self._publishing.confirmed else Shown.UNKNOWN  # as long as no look says more
                    shown = self._publishing.shown()
                if shown is Shown.ANOTHER:
                    removed = making.undo()
                making.see_what_was_removed()
        except (Exception, Stopped) as problem:
            self._log.say(f"undoing did not succeed: {_why(problem)}")
        if shown is Shown.OURS and making.made is not None:
            return self._failed_to_retire(making.made[0], failure, None)
        if shown is Shown.UNKNOWN:
            return self._orphan(failure, "the vault may show it, so that it was left in place")
        if removed is False:
            return self._orphan(failure, "it could not be removed")
        if removed is None:
            was = "what was removed was to make room" if making.old_removed() else "nothing was changed"
            return wanted or Refused(f"{name} was not rotated, {was}", _why(failure), "run it again")
        todo = wanted.todo if wanted else "run it again"
        return RolledBack(f"{name} was not rotated, the new secret was removed again", _why(failure), todo)

    def _orphan(self, failure: BaseException, why: str) -> Orphan:
        name = self._making.display_name
        key_ids = list(self._making.left)
        named = f"secret {', '.join(key_ids)}" if key_ids else f"secret named {name}, if it was made at all,"
        return Orphan(
            f"{self._name} may have kept the new {named} beside its old ones, which still work",
            f"{_why(failure)}; {why}",
            "run it again, the next run removes it; or remove it in Entra if the record does not show its id",
            orphans=key_ids,
            marker=name,
        )


def _why(failure: BaseException) -> str:
    if isinstance(failure, RotationError):
        return failure.what + (": " + failure.why if failure.why else "")
    if isinstance(failure, (Stopped, NotDone)):
        return str(failure)
    return f"unexpected {type(failure).__name__}: {failure}"


# ---- rotation.doctor ------------------------------------------------------------------------------------------------
# A look at everything that a rotation needs, without changing anything.


OK, WARNING, FAILURE, SKIPPED = "ok", "warning", "failure", "skipped"
PACKAGES = ("requests", "msal", "keeper-secrets-manager-core")
# Entra accepts no more than five minutes; a minute is what a host that keeps time is far below.
LARGEST_SKEW = 60.0
_NOT_LOOKED_AT = "whether a policy of the tenant allows a secret of this lifetime shows only when one is made"


@dataclass(frozen=True)
class Check:
    """What one look has shown; ``todo`` is empty where all is well."""

    name: str
    level: str
    text: str
    todo: str = ""


class Doctor:
    """Looks at one thing after the other. What fails fails under its own name, and ends only the looks that need it."""

    def __init__(self, prepare: Callable[[], Task], http: Http, budget: Budget, log: Log) -> None:
        self._prepare, self._http, self._budget, self._log = prepare, http, budget, log
        self.checks: list[Check] = []
        self._facts: dict[str, Any] = {}
        self._exit_status = 0
        self._task: Task
        self._who: Admin
        self._application: Application

    def examine(self) -> None:
        """Check everything, but for what a rotation would do. It raises none of RotationError."""
        self._add("packages", OK, f"Python {platform.python_version()}, {packages()} ({sys.executable})")
        looks: tuple[tuple[str, tuple[str, ...], Callable[[], None]], ...] = (
            ("Keeper", (), self._keeper),
            ("record", ("Keeper",), self._fields),
            ("edit right", ("Keeper",), self._edit_right),
            ("admin identity", ("Keeper",), self._choose),
            ("certificate", ("admin identity",), self._certificate),
            ("admin", ("admin identity", "certificate"), self._admin),
            ("application", ("record", "admin"), self._find),
            ("permission", ("application",), self._permission),
            ("clock", ("application",), self._clock),
            ("admin secret", ("application",), self._admin_secret),
            ("current secret", ("application",), self._current),
            ("retire_after", ("application",), self._retire_after),
            ("other records", ("application",), self._others),
        )
        failed: set[str] = set()
        with self._budget.phase("look at everything", RESOLVE):
            for name, needs, look in looks:
                missing = [need for need in needs if need in failed]
                if missing:
                    failed.add(name)
                    self._add(name, SKIPPED, f"not looked at, as it needs: {', '.join(missing)}")
                    continue
                try:
                    look()
                except RotationError as problem:
                    failed.add(name)
                    self._fail(name, problem)

    def foresee(self, planned: Outcome) -> None:
        """Say what a rotation would find and leave, as ``planned`` has it."""
        if planned.exit_status:
            self._exit_status = self._exit_status or planned.exit_status
            self._add("room" if planned.facts.get("full") else "rotation", FAILURE, planned.message)
            return
        kept = [f"{one['key_id']} ({one['reason']})" for one in planned.facts.get("kept", [])]
        self._add("room", OK, "there is room for a new secret, or it can be made")
        self._add("old secrets", OK, "all of them go" if not kept else "these stay: " + ", ".join(kept))
        for key_id in planned.facts.get("unlisted", []):
            text = f"the record names {key_id}, which the application does not list"
            self._add("named secret", WARNING, text, "see whether the record names the right application")
        self._add("not looked at", OK, _NOT_LOOKED_AT)

    @property
    def failed(self) -> bool:
        """Whether something stands in the way of a rotation."""
        return bool(self._exit_status)

    def facts(self) -> dict[str, Any]:
        """Return the checks as JSON data."""
        return {**self._facts, "checks": [check.__dict__ for check in self.checks]}

    def outcome(self) -> Outcome:
        """Return what all looks together say."""
        failures = [check for check in self.checks if check.level == FAILURE]
        counts = {name: sum(check.level == name for check in self.checks) for name in (OK, WARNING, FAILURE, SKIPPED)}
        status = {0: "unchanged", BadInput.exit_status: "bad_input"}.get(self._exit_status, "refused")
        what = "; ".join(f"{check.name}: {check.text}" for check in failures)
        why = "checked, nothing was changed: " + ", ".join(f"{number} {name}" for name, number in counts.items())
        todo = next((check.todo for check in failures if check.todo), "")
        text = verdict(status, self._facts, what or "everything that a rotation needs is there", why, todo)
        return Outcome(status, self._exit_status, text, False, self.facts())

    def _add(self, name: str, level: str, text: str, todo: str = "") -> None:
        check = Check(name, level, text, todo)
        self.checks.append(check)
        self._log.say(f"{level}: {name}: {text}" + (f". Next: {todo}" if todo else ""))

    def _fail(self, name: str, problem: RotationError) -> None:
        self._exit_status = self._exit_status or problem.exit_status
        text = problem.what + (f": {problem.why}" if problem.why else "")
        self._add(name, FAILURE, text, problem.todo or "remove the cause")

    # -- the looks, in the order in which they need each other

    def _keeper(self) -> None:
        self._task = self._prepare()
        self._facts.update(record=self._task.record.uid, title=self._task.record.title)
        self._add("Keeper", OK, "the configuration is usable, the vault was read over trusted TLS")

    def _fields(self) -> None:
        record = self._task.record
        check_fields(record, bool(self._task.application))
        missing = [name for name in (FIELD_SECRET, FIELD_KEY_ID, FIELD_EXPIRES) if not record.has(name)]
        note = f"; {', '.join(missing)} will be created" if missing else ""
        if record.shows(FIELD_SECRET):
            note += f"; {FIELD_SECRET} is no Hidden field, everybody who opens the record sees it"
        if record.type != "pamUser":
            note += f"; it is of type {record.type}, which the Gateway does not rotate"
        self._add("record", WARNING if note else OK, f"{record.title!r} ({record.uid}) has usable fields{note}")

    def _edit_right(self) -> None:
        if not self._task.record.editable:
            raise read_only(self._task.record.uid)
        self._add("edit right", OK, "the record may be edited")

    def _choose(self) -> None:
        self._who = Admin(self._task.sources, self._task.company, self._http, self._budget, self._log)
        identity = self._who.identity
        self._add("admin identity", OK, f"{identity.name} from {identity.source}: {identity.why}")

    def _certificate(self) -> None:
        if self._who.identity.certificate:
            end = open_certificate(self._who.identity.certificate).end
            soon = end - datetime.now(timezone.utc) < timedelta(days=RENEW_DAYS)
            todo = "renew it, and give the new one to the application before" if soon else ""
            self._add("certificate", WARNING if soon else OK, f"it is valid until {format_time(end)}", todo)

    def _admin(self) -> None:
        self._who.graph.connect()
        managed, authority = self._who.identity.managed, self._who.cloud.authority
        text = f"{host_service()[0]} gives its tokens" if managed else f"it signs in at {authority}"
        self._add("admin", OK, text)

    def _find(self) -> None:
        identifier = self._task.application or self._task.record.value(FIELD_APPLICATION)
        self._application = found = self._who.graph.find(identifier)
        text = f"{found.display_name}, object id {found.object_id}, client id {found.client_id}"
        self._add("application", OK, f"{text}, {len(found.credentials)} secret(s)")

    def _admin_secret(self) -> None:
        """Tell when the admin application's own secret ends, where its record or Graph tells."""
        identity = self._who.identity
        if identity.secret is None:
            self._add("admin secret", OK, "the admin application signs in without a secret")
            return
        end, why = self._who.secret_ends(), "Graph does not list it"
        try:
            own = self._who.graph.find(identity.client_id, client_id_first=True)
            hint = identity.secret.reveal()[:3]
            end = max((item.end for item in own.credentials if item.hint == hint and item.end), default=end)
        except RotationError as problem:
            why = problem.what
        if end is None:
            self._add("admin secret", OK, f"when it ends is not to be seen: {why}")
            return
        days = (end - self._application.read_at).days
        level = OK if days >= RENEW_DAYS else WARNING
        todo = "" if level == OK else f"make a new one, and put it into {identity.source}"
        self._add("admin secret", level, f"it ends in {days} days", todo)

    def _retire_after(self) -> None:
        seconds = self._task.policy.retire_after.total_seconds()
        if not seconds:
            text = "it is 0: what still uses the old secret fails at once"
            self._add("retire_after", WARNING, text, "set it to what your applications need to fetch a new secret")
        elif self._application.two_secrets and seconds > SOON:
            text = "the application holds two secrets at the most: while both are taken it is not rotated"
            self._add("retire_after", WARNING, text, f"let it rotate less often than every {seconds:.0f} s")
        else:
            self._add("retire_after", OK, f"an old secret goes {seconds:.0f} s after it was superseded")

    def _others(self) -> None:
        """Name every other record that names the application, or shows one of its secrets."""
        application = self._application
        ids = {application.object_id, application.client_id}
        found = []
        for other in self._task.vault.read([]).values():
            if other.uid == self._task.record.uid:
                continue
            view, shown = other.view(), published_in(other)
            names = bool(ids & {guid(view.get("application_object_id")), guid(view.get("application_client_id"))})
            by_id = guid(shown.key_id) is not None and application.credential(shown.key_id) is not None
            if names or by_id:
                found.append(f"{other.title!r} ({other.uid})")
        if found:
            text = f"named or shown by other records, too: {', '.join(sorted(found))}"
            todo = "let one record publish an application's secret; a rotation knows the others by its own markers only"
            self._add("other records", WARNING, text, todo)
        else:
            self._add("other records", OK, "no other record that is seen names the application or shows its secrets")

    def _permission(self) -> None:
        roles, identity = self._who.graph.roles(), self._who.identity
        admin = identity.name if identity.managed else "the admin application"
        if not roles:
            self._add("permission", WARNING, "the token shows no permissions", "make sure of " + OWNED_ONLY)
        elif roles & ALL_APPLICATIONS:
            self._add("permission", OK, ", ".join(sorted(roles & ALL_APPLICATIONS)))
        elif OWNED_ONLY not in roles:
            self._exit_status = Refused.exit_status
            todo = f"grant {OWNED_ONLY} to {admin} and consent to it"
            if identity.managed:
                todo += "; Azure keeps a managed identity's token for up to 24 hours, and what it may do with it"
            self._add("permission", FAILURE, f"the token carries {', '.join(sorted(roles))}", todo)
        else:
            owns = self._who.graph.owns(self._application)
            if owns is False:
                self._exit_status = Refused.exit_status
                todo = f"make the service principal of {admin} an owner of the application"
                self._add("permission", FAILURE, f"{OWNED_ONLY}, but it does not own the application", todo)
            elif owns is None:
                self._add("permission", WARNING, f"{OWNED_ONLY}; Graph does not tell who owns the application")
            else:
                self._add("permission", OK, f"{OWNED_ONLY}, and it owns the application")

    def _clock(self) -> None:
        skew = abs((self._application.read_at - datetime.now(timezone.utc)).total_seconds())
        level = OK if skew <= LARGEST_SKEW else WARNING
        todo = "" if level == OK else "let the host keep its time (NTP)"
        self._add("clock", level, f"differs from Graph's by {skew:.0f} s", todo)

    def _current(self) -> None:
        secret, verify = self._task.record.secret(FIELD_SECRET), self._task.policy.verify
        if not secret:
            self._add("current secret", WARNING, "the record holds none yet")
            return
        look = self._who.entra.sign_in(self._application.client_id, Secret(secret))
        why = look.why
        if look.answer is Answer.TAKEN:
            self._add("current secret", OK, "the vault's secret signs in")
        elif look.answer is not Answer.NEVER:
            self._add("current secret", WARNING, f"the vault's secret does not sign in: {why}", "rotate it")
        else:
            # Neither would a new one.
            self._exit_status = self._exit_status or (Refused.exit_status if verify else 0)
            todo = "remove the cause, or set verify to false if it cannot sign in from this host"
            self._add("current secret", FAILURE if verify else WARNING, f"the application cannot sign in: {why}", todo)


def dry_run(prepare: Callable[[], Task], http: Http, budget: Budget, log: Log, check: bool) -> Outcome:
    """Look at everything, and plan: what stands in the way of a rotation ends it. With ``check`` also say what would be
    done, and how. It raises none of RotationError."""
    doctor = Doctor(prepare, http, budget, log)
    doctor.examine()
    planned = None if doctor.failed else perform(prepare, http, budget, log, check=True)
    if planned is not None:
        doctor.foresee(planned)
    if check and planned is not None and not planned.exit_status:
        planned.facts.update(doctor.facts())
        outcome = planned
    else:
        outcome = doctor.outcome()
    log.say(outcome.message)
    return outcome


def packages() -> str:
    """Return the runtime packages with their versions."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (version unknown)")
    return ", ".join(found)


# ---- services.files -------------------------------------------------------------------------------------------------
# Certificates that are attached to Keeper records: downloaded and decrypted into memory, never written.


with contextlib.suppress(ImportError):  # vault.KSM_PROBLEM tells
    from keeper_secrets_manager_core.crypto import CryptoUtils

_ENDINGS = (".pem", ".pfx", ".p12")
_LARGEST_ATTACHMENT = 65536


def certificates_of(record: VaultRecord, http: Http) -> list[Certificate]:
    """Return the files of the record that are certificates by their names. None is downloaded yet."""
    found = []
    for file in record.sdk.files or []:
        name = str(file.name or "")
        if name.lower().endswith(_ENDINGS) and int(file.size or 0) <= _LARGEST_ATTACHMENT:
            words = f"the certificate in the file {name} of the record {record.title!r} ({record.uid})"
            found.append(Certificate(words, functools.partial(_download, file, words, http)))
    return found


def _download(file: Any, words: str, http: Http) -> bytes:
    """Return the content of an attachment. Raises Refused. The SDK's own call has no timeouts."""
    try:
        reply = http.call("GET", str(file.f.get("url")), name="download", retry=busy)
    except Unanswered as problem:
        raise Refused(f"{words} was not downloaded", str(problem), problem.todo) from None
    try:
        wrapped = base64.b64decode(file.f["fileKey"].translate(str.maketrans("-_", "+/")) + "==")
        key = CryptoUtils.decrypt_aes(wrapped, file.record_key_bytes)
        content: bytes = CryptoUtils.decrypt_aes(reply.body, key)
    except Exception as problem:  # an error page, or half a file
        why = f"HTTP {reply.status}, and what came is not the file ({type(problem).__name__})"
        todo = "run it again later; attach the file anew if it stays"
        raise Refused(f"{words} was not downloaded", why, todo) from None
    return content


# ---- script.gateway -------------------------------------------------------------------------------------------------
# The Keeper Gateway's side of a PAM Script: what it passes on stdin, and where its own configuration is.


RUN_BY_GATEWAY = "let the Gateway run the script, or pass it the line that the Gateway does"
_LONGEST = 64 * 1024 * 1024
# Where programs wrap base64. A line of the Gateway's is longer.
_WIDTHS = range(57, 101)
# Text in the variable itself, or the path of a file; first that is there.
_VARIABLES = (
    ("GATEWAY_CONFIG", False),
    ("GATEWAY_CONFIG_PATH", True),
    ("KSM_CONFIG", False),
    ("KSM_CONFIG_FILE", True),
)
_FILES = ("/etc/keeper-gateway/gateway-config.json", "~/.keeper/gateway-config.json")


@dataclass(frozen=True)
class Request:
    """What the Gateway asks for. The passwords that it also passes are of no use here and are not kept."""

    user_uid: str
    provider_uid: str
    records: tuple[Labelled, ...]

    def configuration(self) -> Labelled | None:
        """Return the PAM configuration, where it was passed."""
        return next((record for record in self.records if record.uid and record.uid == self.provider_uid), None)

    def attached(self) -> tuple[Labelled, ...]:
        """Return the records attached to the script: neither the application's own nor the PAM configuration."""
        return tuple(record for record in self.records if record.uid not in ("", self.user_uid, self.provider_uid))


def read_request(stream: IO[bytes]) -> Request:
    """Read the Gateway's line: base64 of a JSON object whose ``records`` is base64 of a JSON array.

    https://docs.keeper.io/keeperpam/privileged-access-manager/password-rotation/post-rotation-scripts/parameters.
    A record's keys are the labels of its fields, else their types. Raises BadInput.
    """
    line = b""
    while not line.strip():
        line = stream.readline(_LONGEST)
        if not line:
            raise BadInput("stdin is empty", todo=RUN_BY_GATEWAY)
    message = _decode(line, "stdin")
    if not isinstance(message, dict):
        raise BadInput("stdin holds no JSON object", todo=RUN_BY_GATEWAY)
    missing = [key for key in ("userRecordUid", "records") if key not in message]
    if missing:
        raise BadInput("stdin lacks " + " and ".join(missing), todo=RUN_BY_GATEWAY)
    records = message["records"]
    if not isinstance(records, str):
        raise BadInput("records on stdin is no text", todo=RUN_BY_GATEWAY)
    items = _decode(records.encode("ascii", "replace"), "records on stdin") if records.strip() else []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadInput("records on stdin is no JSON array of objects", todo=RUN_BY_GATEWAY)
    learn((key, key, value) for item in (message, *items) for key, value in item.items())
    return Request(
        _uid(message, "userRecordUid", required=True),
        _uid(message, "providerRecordUid", required=False),
        tuple(_labelled(item) for item in items),
    )


def _decode(data: bytes, what: str) -> Any:
    text = data.strip()
    if text.startswith(codecs.BOM_UTF8):  # PowerShell may put a byte order mark in front
        text = text[len(codecs.BOM_UTF8) :]
    why, todo = mistake(data)
    try:
        decoded = decode(text)
    except (ValueError, binascii.Error):
        raise BadInput(f"{what} is no base64", why, todo or RUN_BY_GATEWAY) from None
    try:
        return json.loads(decoded.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        if decoded.startswith(b"{") and len(text) in _WIDTHS:
            why, todo = "it is wrapped over lines, the first was read", "pass one line, as base64 -w0 writes it"
        raise BadInput(f"{what} is base64, but not of JSON", why, todo or RUN_BY_GATEWAY) from None


def _uid(message: Mapping[str, Any], key: str, required: bool) -> str:
    value = message.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value.strip()):
        raise BadInput(f"{key} on stdin is no record uid", todo=RUN_BY_GATEWAY)
    return value.strip()


def _labelled(item: Mapping[str, Any]) -> Labelled:
    pairs = [(str(key), value) for key, value in item.items() if key not in ("uid", "title")]
    return Labelled(text_of(item.get("uid")), bounded(text_of(item.get("title"))), pairs)


def find_configuration(environ: Mapping[str, str], read: Callable[[str], str] | None = None) -> tuple[str, str]:
    """Return the text of the Gateway's configuration, and where it was found.

    It is read once and never opened for writing. The first source that is there counts: one that is there but cannot
    be read is an error, no reason to go on to the next. Raises BadInput.
    """
    read = read or read_configuration
    for name, is_path in _VARIABLES:
        value = environ.get(name, "").strip()
        if value:
            return (read(value), f"{value} ({name})") if is_path else (value, name)
    looked: list[str] = []
    for path in _FILES:
        full = os.path.expanduser(path)
        if not full.startswith("~") and _is_there(full):
            return read(full), full
        looked.append(path)
    raise BadInput(
        "no Keeper configuration was found",
        "looked at " + ", ".join([name for name, is_path in _VARIABLES] + looked),
        "set GATEWAY_CONFIG_PATH to the Gateway's configuration file",
    )


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        return True  # in a folder that this user may not enter: worth an error, not silence
    except OSError:
        return False
    return True


# ---- script.pam_script ----------------------------------------------------------------------------------------------
# The PAM Script: what the Keeper Gateway runs when it rotates the record of an application.


_HELP = """Rotates the client secret of a Microsoft Entra application and publishes it in its Keeper record.
The Keeper Gateway runs it as a PAM Script (rotation method "Run PAM scripts only") and passes it the record on
stdin: one line, base64 of a JSON object with userRecordUid, providerRecordUid and records, which is base64 of a JSON
array. It writes its steps to stderr and one line of JSON to stdout."""
_EPILOG = """exit status: 0 rotated, 1 bug, 2 bad input, 3 refused, 4 rolled back, 5 incomplete (new secret valid, old
ones remain), 6 orphan (a new secret could not be removed)"""

# The Gateway writes its line as soon as it has started the script.
_STDIN_SECONDS = 20.0


def missing_libraries() -> dict[str, str]:
    """Return the packages that cannot be imported, by their names on the package index, with the reason."""
    problems = {"requests": REQUESTS_PROBLEM, "msal": MSAL_PROBLEM, "keeper-secrets-manager-core": KSM_PROBLEM}
    return {name: problem for name, problem in problems.items() if problem}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script form; return the exit status."""
    parser = argparse.ArgumentParser(prog="rotate_azure_app.py", description=_HELP, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("--doctor", action="store_true", help="change nothing, check everything that a rotation needs")
    parser.add_argument("--check", action="store_true", help="the same, and say what would be done")
    parser.add_argument("--record", metavar="UID", default="", help="with these: the record, in place of stdin")
    parser.add_argument("--provider", metavar="UID", default="", help="with --record: the PAM configuration")
    parser.add_argument("--debug", action="store_true", help="write every call, and a traceback for a bug, to stderr")
    options = parser.parse_args(arguments)
    dry = options.doctor or options.check
    if (options.record and not dry) or (options.provider and not options.record):
        parser.error("--record goes with --doctor or --check, --provider with --record")
    if not options.record and sys.stdin is not None and sys.stdin.isatty():
        parser.print_help(sys.stderr)
        return BadInput.exit_status
    _leave_no_core()
    outlet = Outlet()
    log = Log(lambda line: outlet.write(sys.stderr, line), options.debug)
    outcome = _run(log, options, os.environ)
    with suppress(OSError, ValueError):  # nobody reads: the exit status still tells
        outlet.write(sys.stdout, json.dumps({"version": VERSION, **outcome.as_dict()}) + "\n")
    return outcome.exit_status


def _leave_no_core() -> None:
    """A crash of a library would write what is in memory to a file."""
    with suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _run(log: Log, options: argparse.Namespace, environ: Mapping[str, str]) -> Outcome:
    try:
        dry = options.doctor or options.check
        missing = missing_libraries()
        if missing:
            raise BadInput(
                "Python packages are missing: " + ", ".join(missing),
                "; ".join(missing.values()),
                f"{sys.executable} -m pip install {' '.join(missing)}, or let the script command name another Python",
            )
        budget = Budget()
        catch_signals(budget)
        http = Http(budget, log)

        requests: list[Request] = []

        def task() -> Task:
            if not requests:
                named = Request(options.record, options.provider, ()) if options.record else None
                requests.append(named or _request(budget))
            return prepare(requests[0], http, budget, log, environ)

        outcome = dry_run(task, http, budget, log, options.check) if dry else perform(task, http, budget, log)
        budget.shield()
        return outcome
    except BadInput as problem:
        return ended(problem, {}, log)
    except Stopped as stop:
        # Only outside of a rotation's phases, where nothing has begun or everything has ended.
        return ended(Refused("the run was stopped", str(stop), "run it again"), {}, log)
    except MemoryError:
        return ended(out_of_memory(), {}, log)
    except Exception as bug:
        what = f"a bug: {type(bug).__name__}: {foreign(bug)}"
        text = verdict("error", {}, what, "", "run it with --debug and report it")
        log.say(text)
        if options.debug:
            for line in traceback.format_exc().splitlines():
                log.detail(foreign(line))
        return Outcome("error", 1, scrub(text), False)


def _request(budget: Budget) -> Request:
    if sys.stdin is None:
        raise BadInput("stdin is closed", todo=RUN_BY_GATEWAY)
    try:
        with budget.phase("read the Gateway's line", _STDIN_SECONDS):
            return read_request(sys.stdin.buffer)
    except OutOfTime as end:
        raise BadInput("no complete line came on stdin", str(end), RUN_BY_GATEWAY) from None


def prepare(request: Request, http: Http, budget: Budget, log: Log, environ: Mapping[str, str]) -> Task:
    """Read the Gateway's configuration and the records. Raises BadInput, Refused."""
    text, source = find_configuration(environ)
    vault = Vault(parse_configuration(text, source), http, budget, log)
    configuration = request.configuration()
    uids = [request.user_uid]
    if configuration is None and request.provider_uid:
        uids.append(request.provider_uid)
    found = vault.read(uids)
    record = found.get(request.user_uid)
    if record is None:
        raise BadInput(
            f"the record {request.user_uid} was not found",
            f"it is not shared with the KSM application of {source}, or does not exist",
            "share the record's folder with the Gateway's application, with edit permission",
        )
    if configuration is None and request.provider_uid in found:
        configuration = found[request.provider_uid].view()
    own = record.view()
    advice = "fill in the PAM configuration's client id and secret, or attach the admin application's record"
    if not request.provider_uid:
        advice = "attach the admin application's record to the script, or name the PAM configuration (--provider)"
    elif configuration is None:
        advice = f"share the folder of the PAM configuration {request.provider_uid} with the Gateway's application"

    def files(uid: str) -> Sequence[Certificate]:
        if uid not in found:
            found.update(vault.read([uid]))
        return certificates_of(found[uid], http) if uid in found else ()

    def afresh(uid: str) -> Labelled | None:
        read = vault.read([uid]).get(uid)
        return read.view() if read else None

    sources = Sources(
        advice=advice,
        attached=request.attached(),
        own=own,
        configuration=configuration,
        fallback=identity_in(in_environment(environ), "the environment"),
        authority=environ.get(AUTHORITY_VARIABLE, ""),
        files=files,
        afresh=afresh,
    )
    return Task(vault, record, sources, policy_of(own))


if __name__ == "__main__":
    raise SystemExit(main())
