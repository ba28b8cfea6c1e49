# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A survey as a page, a table, metrics and a verdict: nothing in it runs, breaks out or is lost."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from ansible_collections.keeperpam.azure.plugins.filter._report import report
from ansible_collections.keeperpam.azure.plugins.module_utils._reporting.metrics import metrics
from hypothesis import given
from hypothesis import strategies as st

import needed
from report_samples import believable, page_of, row, stamp, survey

END = "keeperpam_azure_credential_end_timestamp_seconds"
EARLIEST = "keeperpam_azure_application_earliest_end_timestamp_seconds"
SUCCESS = "keeperpam_azure_report_last_success_timestamp_seconds"
UP = "keeperpam_azure_source_up"


class Page(HTMLParser):
    """The elements of a page with their attributes, and what is written in its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("td", "tr"):
            self._in_cell = tag == "td"
            self.cells += [""] if tag == "td" else []

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("table", "tbody")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


def parsed(text: str) -> dict[str, list[Any]]:
    """The samples of metrics by their names, as Prometheus' own parser reads them."""
    parser = needed.module("prometheus_client.parser")
    families = list(parser.text_string_to_metric_families(text))
    assert all(family.type == "gauge" and family.documentation for family in families)
    return {family.name: family.samples for family in families}


# -- the page


def test_the_page_has_a_row_for_each_and_links_to_both_sides():
    result = believable()
    page = Page(page_of(result))
    assert len(page.cells) == 7 * len(result["credentials"])
    links = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    first = result["credentials"][1]
    assert any(str(link).endswith(f"/~/Credentials/appId/{first['client_id']}") for link in links)
    assert f"https://keepersecurity.com/vault/#detail/{first['records'][0]['uid']}" in links
    assert all(re.match(r"https://(portal\.azure\.com|keepersecurity\.com)/", str(link)) for link in links)
    assert "legacy-app" in page_of(result)


def test_the_page_needs_nothing_from_elsewhere():
    page = Page(page_of(believable()))
    assert {tag for tag, _attrs in page.elements}.isdisjoint({"link", "img", "iframe", "object", "base", "form"})
    assert all("src" not in attrs and "style" not in attrs for _tag, attrs in page.elements)
    assert not [name for _tag, attrs in page.elements for name in attrs if name.startswith("on")]


@given(st.text(max_size=40))
def test_whatever_people_call_things_stays_text(text: str):
    nasty = text + "<img src=x onerror=alert(1)>\"'&{{ 7*7 }}</script>"
    one = row(1, records=[{"uid": nasty, "title": nasty}], reason=nasty, todo=nasty, owners=[nasty], name="n" + nasty)
    for label in ("application", "client_id", "object_id", "key_id", "end", "state", "kind"):
        one[label] = nasty
    down = [{"name": nasty, "up": False, "problem": nasty}]
    problems = [{"record": nasty, "title": nasty, "problem": nasty}]
    result = survey([one], sources=down, problems=problems, portal=nasty, vault=nasty, read_at=nasty)
    page = Page(page_of(result))
    plain = Page(page_of(survey([row(1)])))
    assert {tag for tag, _attrs in page.elements} - {tag for tag, _attrs in plain.elements} <= {"strong", "div"}
    assert not [attrs for tag, attrs in page.elements if tag in ("a", "img")]
    assert len(page.cells) == 7


def test_a_thousand_credentials_are_a_small_page():
    rows = [row(number, ("critical", "expiring", "attention", "healthy")[number % 4]) for number in range(1000)]
    assert len(page_of(survey(rows)).encode()) < 600_000


def test_what_was_not_read_and_left_out_is_said():
    down = [{"name": "owners", "up": False, "problem": "3 of 20 could not be read"}]
    text = page_of(survey([row(1)], sources=down, left_out=17))
    assert "owners: 3 of 20 could not be read" in text
    assert "17 more credentials are not shown" in text


# -- the table and JSON


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1"])
def test_no_cell_is_a_formula(text: str):
    result = survey([row(1, name=text, application=text, owners=[text])])
    (found,) = csv.DictReader(io.StringIO(str(report(result, "csv")), newline=""))
    assert found["name"] == found["application"] == found["owners"] == "'" + text


def test_numbers_stay_numbers_and_quotes_stay_in_their_cell():
    result = survey([row(1, "critical", days=-12, reason='a "b", c\nd')])
    (found,) = csv.DictReader(io.StringIO(str(report(result, "csv")), newline=""))
    assert (found["days_left"], found["reason"]) == ("-12", 'a "b", c\nd')


def test_json_is_the_survey_and_nothing_of_the_run():
    data = json.loads(str(report({**believable(), "invocation": {}, "steps": [], "failed": False}, "json")))
    assert len(data["credentials"]) == len(believable()["credentials"])
    assert {"invocation", "steps", "failed", "msg"}.isdisjoint(data)


# -- the metrics


def test_each_credential_has_its_end_and_each_application_its_earliest():
    spare = row(3, "attention", days=2, flags=["expiring", "successor"])
    other = {**row(3, days=80), "key_id": "another"}
    found = parsed(metrics(survey([row(1, days=5), spare, other, row(2, days=9, state="previous")]), ""))
    assert [sample.value for sample in found[END]] == [seconds(5), seconds(2), seconds(80), seconds(9)]
    assert found[END][0].labels["record"] == row(1)["records"][0]["uid"]
    assert {sample.labels["application"]: sample.value for sample in found[EARLIEST]} == {
        row(1)["application"]: seconds(5),
        row(3)["application"]: seconds(80),
    }
    assert [sample.value for sample in found[SUCCESS]] == [seconds(0)]
    assert {sample.labels["source"]: sample.value for sample in found[UP]} == {"keeper": 1, "applications": 1}


def seconds(days: float) -> float:
    """So many days from now, in seconds since the epoch."""
    from datetime import datetime

    return datetime.fromisoformat(stamp(days).replace("Z", "+00:00")).timestamp()


@given(st.text(max_size=30), st.text(max_size=30))
def test_labels_say_what_people_say(name: str, title: str):
    (sample,) = parsed(metrics(survey([row(1, application="a" + name, key_id=title)]), ""))[END]
    assert (sample.labels["application"], sample.labels["key_id"]) == ("a" + name, title)


def test_the_last_success_stays_while_a_source_is_down():
    before = metrics(survey([row(1)]), "")
    down = [{"name": "keeper", "up": True}, {"name": "applications", "up": False, "problem": "x"}]
    found = parsed(metrics(survey([row(2)], sources=down, read_at=stamp(1)), before))
    assert [sample.value for sample in found[SUCCESS]] == [seconds(0)]
    assert SUCCESS not in parsed(metrics(survey([row(2)], sources=down), ""))


def test_a_survey_that_failed_leaves_what_was_known():
    before = metrics(believable(), "")
    found = parsed(metrics({"msg": "no", "failed": True}, before))
    kept, known = parsed(before), {END, EARLIEST, SUCCESS, "keeperpam_azure_credentials"}
    assert {name: found[name] for name in known} == {name: kept[name] for name in known}
    assert {sample.labels["source"]: sample.value for sample in found[UP]} == {"keeper": 0, "applications": 0}
    assert set(parsed(metrics({"msg": "no"}, 'other_metric{a="b"} 5\nrubbish {\n'))) == {UP}


def test_two_rows_of_one_credential_are_one_sample():
    found = parsed(metrics(survey([row(1), row(1)]), ""))
    assert len(found[END]) == 1


# -- the verdict


@pytest.mark.parametrize(
    ("threshold", "failed"), [("critical", False), ("expiring", True), ("attention", True), ("never", False)]
)
def test_it_fails_from_a_bucket_on(threshold: str, failed: bool):
    result = survey([row(1, "expiring", days=3), row(2)])
    verdict: Any = report(result, "verdict", fail_on=threshold)
    assert verdict["failed"] is failed
    assert len(verdict["text"]) == 1 + failed
    assert not failed or "3 days left. Next: rotate the record" in verdict["text"][1]


def test_what_a_screen_does_not_hold_is_counted():
    verdict: Any = report(survey([row(number, "critical") for number in range(50)]), "verdict")
    assert len(verdict["text"]) == 22
    assert verdict["text"][-1] == "and 30 more"


def test_a_survey_that_failed_is_a_failure():
    assert report({"msg": "no sign-in"}, "verdict", fail_on="never") == {"failed": True, "text": ["no sign-in"]}


def test_a_file_that_was_not_written_is_a_failure_and_is_named():
    written = [
        {"failed": False, "item": {"dest": "/srv/entra.html"}},
        {"skipped": True},
        {"failed": True, "item": {"dest": "/srv/a/entra.csv"}, "msg": "Destination directory /srv/a does not exist"},
        {"failed": True, "msg": "non-zero return code", "stderr": "mv: cannot move 'a' to 'b': Permission denied"},
    ]
    verdict: Any = report(survey([row(1)]), "verdict", fail_on="never", written=written)
    next_step = "Next: see that its folder is there and may be written by the user of the play"
    assert verdict["failed"] is True
    assert verdict["text"][1:] == [
        f"Not written: /srv/a/entra.csv: Destination directory /srv/a does not exist. {next_step}",
        f"Not written: mv: cannot move 'a' to 'b': Permission denied. {next_step}",
    ]
    assert report({"msg": "no sign-in"}, "verdict", written=written)["text"][1:] == verdict["text"][1:]
