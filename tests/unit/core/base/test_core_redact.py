# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets print nowhere, and texts from elsewhere are made fit to print."""

from __future__ import annotations

import base64
import copy
import gc
import json
import logging
import pickle
import sys
import threading
import traceback
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base import redact
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.redact import (
    MASK,
    Log,
    Secret,
    foreign,
    printable,
    remember,
    scrub,
    scrub_all,
    searched_for,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.entra import Identity
from hypothesis import given, settings
from hypothesis import strategies as st

VALUE = "Zq8~[6g]@+:. &=%/\\\"'s3"
ENTRAS_ALPHABET = "abcXYZ0189[]@+~:.-_%&=#!$?{}|<>/\\\"' "


@pytest.fixture
def secret() -> Secret:
    return Secret(VALUE)


@dataclass
class Holder:
    """Something with a generated repr."""

    inner: Secret


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        format,
        lambda secret: format(secret, ">30"),
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>30}",
        lambda secret: "%s" % secret,  # noqa: UP031
        lambda secret: "%r and %s" % (secret, [secret]),  # noqa: UP031
        lambda secret: f"{secret} {secret!r}",
        lambda secret: str([secret, (secret,), {secret}, {secret: secret}]),
        lambda secret: repr(Holder(secret)),
        lambda secret: repr(Identity("id", "contoso.example", "a test", secret=secret, certificate=secret)),
        lambda secret: json.dumps({"a": secret}, default=str),
        lambda secret: logging.LogRecord("n", 10, "p", 1, "%s %r", (secret, secret), None).getMessage(),
        lambda secret: str(ValueError(secret)) + repr(KeyError(secret)),
    ],
)
def test_a_secret_shows_as_a_mask(secret, show):
    text = show(secret)
    assert MASK in text
    assert VALUE not in text
    assert "Zq8" not in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(secret, protocol):
    with pytest.raises(TypeError):
        pickle.dumps([secret], protocol)


@pytest.mark.parametrize("use", [json.dumps, "".join, copy.copy, copy.deepcopy, lambda each: "x" + each[0]])
def test_nothing_takes_a_secret_for_a_text(secret, use):
    with pytest.raises(TypeError) as caught:
        use([secret] if use not in (copy.copy, copy.deepcopy) else secret)
    assert VALUE not in str(caught.value)


def test_a_secret_has_no_attributes_to_dump(secret):
    with pytest.raises(TypeError):
        vars(secret)


def test_a_traceback_with_local_variables_shows_no_secret(secret):
    def fail(inner: Secret) -> None:
        alias = {"password": inner}
        raise RuntimeError("it failed", alias)

    with pytest.raises(RuntimeError) as caught:
        fail(secret)
    failure = traceback.TracebackException(caught.type, caught.value, caught.tb, capture_locals=True)
    text = "".join(failure.format())
    assert "password" in text
    assert VALUE not in text


def test_a_secret_reveals_its_value_and_equals_no_text(secret):
    assert secret != VALUE
    assert secret.reveal() == VALUE


@pytest.mark.parametrize(("value", "truth"), [("", False), ("x", True)])
def test_an_empty_secret_is_false(value, truth):
    assert bool(Secret(value)) is truth


ENCODINGS = {
    "raw": str,
    "quoted": lambda value: quote(value, safe=""),
    "form": quote_plus,
    "json": lambda value: json.dumps(value)[1:-1],
    "python": lambda value: repr(value)[1:-1],
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
}


@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS.keys())
@settings(max_examples=40)
@given(
    value=st.text(ENTRAS_ALPHABET, min_size=8, max_size=64).filter(searched_for),
    before=st.text(max_size=9),
    after=st.text(max_size=9),
)
def test_scrub_finds_a_known_secret_in_every_encoding(encode, value, before, after):
    secret = Secret(value)
    form = encode(value)
    assert form.rstrip("=") not in scrub(f"{before} {form} {after}")
    assert secret


def test_scrub_masks_every_occurrence_and_the_longest_form_first():
    shorter, longer = Secret("abcdef.h"), Secret("abcdef.h-ijkl")
    assert scrub("1 abcdef.h-ijkl 2 abcdef.h 3") == f"1 {MASK} 2 {MASK} 3"
    assert shorter
    assert longer


@pytest.mark.parametrize("value", ["a", "7", "pending", "Secret", "2026", "rotation", "application", "4711471147114"])
def test_scrub_leaves_short_words_and_numbers_alone(value):
    """To mask them helps nobody, and garbles every line, or tells the value by what is missing."""
    Secret(value)
    remember(value)
    text = f"the {value} of an application is {value}"
    assert scrub(text) == text


PIECES = "k7Q~bR2xVt9-LwZ.mC4pYh8sNfD3gJ5a"


@pytest.mark.parametrize("length", [16, 20, 31])
@pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_scrub_finds_every_piece_of_a_secret(encode, length):
    Secret(PIECES)
    form = encode(PIECES)
    for start in range(len(form) - length + 1):
        piece = form[start : start + length]
        assert piece not in scrub(f"<{piece}>")
        assert len(scrub(f"<{piece}>")) <= len(MASK) + 3  # a padding of base64


def test_where_secrets_share_a_part_the_whole_is_masked():
    Secret("wQ3~first-of-two-Hn5Lk8pRz")
    Secret("uT6.second-Hn5Lk8pRz-of-three")
    Secret("of-two-Hn5Lk8pRz-of-three-x7K")
    assert scrub("<wQ3~first-of-two-Hn5Lk8pRz-of-three-x7K>") == f"<{MASK}>"
    assert scrub("<uT6.second-Hn5Lk8pRz-of-three-x7K>") == f"<{MASK}>"


@pytest.mark.parametrize("before", ["", "i", "id", "id:", "user"])
def test_scrub_finds_a_secret_in_base64_of_more(before):
    Secret(PIECES)
    coded = base64.b64encode(f"{before}{PIECES} and more".encode()).decode()
    text = scrub("Basic " + coded)
    assert not [part for part in range(len(coded) - 15) if coded[part : part + 16] in text and 8 < part < 36]


def test_scrub_finds_what_was_turned_to_lower_or_upper_case():
    Secret(PIECES)
    assert scrub(PIECES.lower()) == scrub(PIECES.upper()) == MASK


def test_scrub_finds_the_lines_of_a_key_and_a_key_in_one_line():
    lines = [base64.b64encode(bytes(range(number, number + 48))).decode() for number in range(3)]
    pem = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(lines) + "\n-----END PRIVATE KEY-----\n"
    Secret(pem)
    for text in (pem, pem.replace("\n", " "), repr(pem), json.dumps(pem), lines[1], lines[2][5:40]):
        assert not [line for line in lines if line[20:36] in scrub(text)]
    assert scrub("a PRIVATE KEY is needed") == "a PRIVATE KEY is needed"


def test_a_passphrase_is_found_as_a_whole_and_its_words_are_left():
    Secret("correct horse  battery staple 7")
    assert scrub("is it correct horse battery staple 7?") == f"is it {MASK}?"
    assert scrub("a horse") == "a horse"


def test_a_secret_stays_known_when_it_has_gone():
    Secret("a-value-that-died-7~x")
    gc.collect()
    assert scrub("a-value-that-died-7~x") == MASK


CONTROLS = "a\x1b[31mb\x07c\x00d\x9be\u202ef\u2066g\u200bh\ufeffi\ud83dj\U000e0041k"


def test_control_escape_and_bidi_characters_are_shown_as_such():
    shown = r"a\x1b[31mb\x07c\x00d\x9be\u202ef\u2066g\u200bh\ufeffi\ud83dj\U000e0041k"
    lines: list[str] = []
    Log(lines.append).say(CONTROLS)
    assert printable(CONTROLS) == shown
    assert lines[0].endswith(f"Z {shown}\n")
    assert scrub_all({"title": [CONTROLS]}) == {"title": [shown]}


@pytest.mark.parametrize("text", ["Grüße 語 🔑", "a 'quoted' \\path", "a b"])
def test_what_can_be_printed_is_printed(text):
    assert printable(text) == text


@settings(max_examples=60)
@given(st.text())
def test_any_text_becomes_one_printable_line(text):
    assert foreign(text).isprintable()


def test_foreign_text_is_scrubbed_before_it_is_cut():
    Secret(PIECES)
    for length in range(960, 1010):
        text = foreign("x" * length + PIECES + "\n" * 9 + "tail " * 900)
        assert PIECES[:6] not in text
        assert len(text.encode()) < 1100


@pytest.mark.parametrize("filler", ["x", "é", "語", "🔑", "\x1b", "\u202e"])
def test_foreign_text_is_bounded(filler):
    text = foreign(filler * 100_000)
    assert 900 < len(text.encode()) < 1100
    assert text.endswith("...")


def test_foreign_text_that_is_short_stays():
    assert foreign(" two\nlines\t") == "two lines"


@pytest.mark.parametrize("text", ["", "the secret signs in", "client_secret_id 4711", "Bearer is a word", "eyJ"])
def test_scrub_leaves_harmless_text_alone(text):
    assert scrub(text) == text


@pytest.mark.parametrize("token", ["eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJl", "eyJhbGciOiJSUzI1NiJ9"])
def test_scrub_masks_tokens_that_it_never_saw(token):
    assert scrub(f"got {token} there") == f"got {MASK} there"


@pytest.mark.parametrize(
    "text",
    [
        "client_secret=hunter2hunter2&scope=x",
        "'client_secret': 'hunter2hunter2'",
        '{"secretText": "hunter2hunter2", "hint": "hun"}',
        "Authorization: Bearer hunter2hunter2",
        "authorization: Signature hunter2hunter2",
        "access_token = hunter2hunter2",
        "client_assertion=hunter2hunter2",
    ],
)
def test_scrub_masks_what_is_named_a_secret(text):
    assert "hunter2" not in scrub(text)
    assert MASK in scrub(text)


@settings(max_examples=60)
@given(st.text())
def test_scrub_takes_any_text(text):
    assert isinstance(scrub(text), str)


def test_a_secret_stays_known_when_an_equal_one_dies():
    first, second = Secret("a-value-held-twice"), Secret("a-value-held-twice")
    del first
    gc.collect()
    assert scrub("a-value-held-twice") == MASK
    assert second


def test_an_odd_secret_does_not_stop_the_log():
    odd = Secret("half a pair \ud83d in JSON")
    lines: list[str] = []
    try:
        Log(lines.append).say("the run goes on")
    finally:
        odd._value = ""  # the report of a failure keeps it alive, and other tests log too
    assert len(lines) == 1


def test_log_lines_of_one_thread_survive_secrets_of_another():
    problems: list[Exception] = []
    over = threading.Event()

    def write() -> None:
        try:
            while not over.is_set():
                scrub("a step")
        except Exception as problem:
            problems.append(problem)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    writers = [threading.Thread(target=write) for _number in range(2)]
    try:
        for thread in writers:
            thread.start()
        for number in range(2000):
            _held = [Secret(f"value-{number}-{index}") for index in range(10)]
    finally:
        over.set()
        for thread in writers:
            thread.join()
        sys.setswitchinterval(interval)
    assert not problems


def test_the_log_has_one_line_per_step_with_the_utc_time():
    lines: list[str] = []
    log = Log(lines.append)
    log.say("two\nlines\tand   space")
    assert lines[0].endswith("Z two lines and space\n")
    assert len(lines[0].split("Z ")[0]) == len("2026-06-15T12:00:00")
    assert log.steps == ["two lines and space"]


def test_the_log_scrubs_steps_and_details(secret):
    lines: list[str] = []
    log = Log(lines.append, debug=True)
    log.say(f"say {secret.reveal()}")
    log.detail(f"detail {secret.reveal()}")
    assert len(lines) == 2
    assert VALUE not in "".join(lines + log.steps)


def test_details_need_debug():
    lines: list[str] = []
    Log(lines.append).detail("GET something")
    assert lines == []


@pytest.mark.parametrize("problem", [BrokenPipeError(), OSError(28, "full"), ValueError("closed file")])
def test_the_log_survives_a_broken_stderr_and_leaves_it_alone(problem):
    tries: list[str] = []

    def write(line: str) -> None:
        tries.append(line)
        raise problem

    log = Log(write, debug=True)
    log.say("first")
    log.detail("second")
    log.say("third")
    assert len(tries) == 1
    assert log.steps == ["first", "third"]


def test_the_mask_itself_is_not_searched_for():
    assert len(MASK) < redact._SHORTEST
