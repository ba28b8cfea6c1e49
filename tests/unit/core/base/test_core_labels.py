# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Labels are matched exactly first, then without case and punctuation."""

from __future__ import annotations

import pytest
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.errors import BadInput
from ansible_collections.keeperpam.azure.plugins.module_utils._core.base.labels import (
    Labelled,
    find,
    find_all,
    normalise,
    text_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    "label", ["client_secret", "Client Secret", "CLIENT-SECRET", "clientSecret", " client.secret: ", "Client_Secret!"]
)
def test_spellings_of_one_label_are_the_same(label):
    assert normalise(label) == "clientsecret"


@pytest.mark.parametrize("label", ["client_secret_id", "client secrets", "secret"])
def test_other_labels_are_not(label):
    assert normalise(label) != "clientsecret"


@pytest.mark.parametrize("label", ["旧client_secret", "client_secret (旧)", "client_secret_ä"])
def test_letters_of_other_scripts_are_no_punctuation(label):
    assert find([label], "client_secret") is None


@settings(max_examples=60)
@given(st.text())
def test_normalising_twice_changes_nothing(label):
    assert normalise(normalise(label)) == normalise(label)


@pytest.mark.parametrize(
    ("labels", "index"),
    [
        (["expires"], 0),
        (["Expires", "expires"], 1),
        (["EXPIRES", "Expires"], 0),
        (["other", "Expires:"], 1),
        ([None, "", "expires"], 2),
        ([], None),
        ([None], None),
        (["expires_at"], None),
    ],
)
def test_an_exact_label_wins_over_a_similar_one(labels, index):
    assert find(labels, "expires") == index


@pytest.mark.parametrize(
    ("labels", "indexes"),
    [
        ([], []),
        (["expires"], [0]),
        (["expires", "Expires"], [0]),
        (["Expires", "expires", "expires"], [1, 2]),
        (["Expires", "other", "EXPIRES:"], [0, 2]),
        (["other", None, 5], []),
    ],
)
def test_all_labels_that_match_best(labels, indexes):
    assert find_all(labels, "expires") == indexes


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["expires", "Expires", "EXPIRES:", "other", "", None])))
def test_the_first_of_the_best_is_found(labels):
    found = find_all(labels, "expires")
    assert find(labels, "expires") == (found[0] if found else None)
    assert len({label == "expires" for label in (labels[index] for index in found)}) <= 1


@pytest.mark.parametrize("label", [5, True, ["x"], {"x": 1}])
def test_a_label_that_is_no_text_is_passed_over(label):
    assert find([label, "expires"], "Expires") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        ("  a b\n", "a b"),
        (["a", "b"], "a"),
        ([], ""),
        ([None], ""),
        ([[]], ""),
        (None, ""),
        (True, "true"),
        (False, "false"),
        ([True], "true"),
        (0, "0"),
        (365, "365"),
        (1.5, "1.5"),
        ({"a": 1}, ""),
        ([{"a": 1}], ""),
    ],
)
def test_text_of_a_field_value(value, text):
    assert text_of(value) == text


def test_a_view_passes_over_blank_values():
    view = Labelled("u", "t", [("verify", ""), ("Verify", "  "), ("VERIFY", "false")])
    assert view.get("verify") == "false"


def test_a_view_tries_the_labels_in_order():
    view = Labelled("u", "t", [("pamazureclientid", "second"), ("Client ID", "first")])
    assert view.get("clientId", "pamazureclientid") == "first"
    assert view.get("tenantId", "pamazureclientid") == "second"
    assert view.get("nothing") == ""


def test_a_view_takes_the_exact_label_first():
    assert Labelled("u", "t", [("Expires", "similar"), ("expires", "exact")]).get("expires") == "exact"


@pytest.mark.parametrize(
    "pairs", [[("expires", "1"), ("expires", "2")], [("Expires", "1"), ("other", "1"), ("EXPIRES", "2")]]
)
def test_a_view_does_not_choose_between_two_values(pairs):
    with pytest.raises(BadInput, match="match expires equally well") as caught:
        Labelled("the-uid", "t", pairs).get("expires")
    assert "the-uid" in caught.value.message
    assert "Next: remove or rename all but one of them." in caught.value.message


@pytest.mark.parametrize(
    "pairs",
    [[("expires", "1"), ("expires", "1")], [("expires", "1"), ("expires", " ")], [("Expires", "2"), ("expires", "1")]],
)
def test_a_view_of_fields_that_agree_has_a_value(pairs):
    assert Labelled("u", "t", pairs).get("expires") == "1"


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=12), st.text("0123456789", min_size=6, max_size=6), min_size=1))
def test_a_view_shows_labels_and_no_value(values):
    shown = repr(Labelled("the-uid", "the-title", values.items()))
    labels = repr(list(values))
    assert labels in shown
    assert not any(value in shown.replace(labels, "") for value in values.values())
    assert "the-title" not in shown
