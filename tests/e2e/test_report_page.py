# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of the report in a browser: with scripts and without, in light and dark, on a screen and on paper.

The pictures are kept in tests/output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from harness import CHECKOUT

import needed
from report_samples import believable, page_of, row, survey

sync_api = needed.module("playwright.sync_api")

OUTPUT = CHECKOUT / "tests" / "output"
ADDRESS = "https://report.example/"
# What Jenkins, AWX and the like put before files that others have made.
STRICT = "default-src 'none'; style-src 'unsafe-inline'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start a headless Chromium."""
    chromium = needed.program("chromium", "chromium")
    with sync_api.sync_playwright() as playwright:
        # Its own sandbox needs what containers seldom allow; it meets no page but ours.
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@contextmanager
def opened(browser: Any, text: str, policy: str = "", **options: Any) -> Iterator[tuple[Any, list[str]]]:
    """Give the page and what its console has said; every request but that for the page fails the test."""
    said: list[str] = []
    asked: list[str] = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        headers = {"Content-Type": "text/html", **({"Content-Security-Policy": policy} if policy else {})}
        route.fulfill(status=200, headers=headers, body=text)

    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.route("**/*", answer)
    page.goto(ADDRESS)
    try:
        yield page, said
    finally:
        context.close()
    assert asked == [ADDRESS]


def shown(page: Any) -> list[str]:
    """Return the urgency of each row that is to be seen."""
    rows: list[str] = page.eval_on_selector_all(
        "tbody tr", "rows => rows.filter(row => row.offsetHeight > 0).map(row => row.cells[0].textContent.trim())"
    )
    return rows


def test_it_is_complete_where_no_script_may_run(browser: Any) -> None:
    result = believable()
    text = page_of(result)
    with opened(browser, text, STRICT) as (page, _said):
        rows = page.locator("tbody tr")
        assert rows.count() == len(result["credentials"])
        assert all(rows.nth(number).is_visible() for number in range(rows.count()))
        assert page.locator("button").count() == page.locator("input").count() == 0
        assert "rotate the record: whoever reads it cannot sign in" in rows.nth(1).inner_text()
        assert page.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse") == "collapse"
    with opened(browser, text, java_script_enabled=False) as (page, said):
        assert page.locator("tbody tr").count() == len(result["credentials"])
        assert said == []


def test_it_filters_and_sorts(browser: Any) -> None:
    result = believable()
    total = len(result["credentials"])
    with opened(browser, page_of(result)) as (page, said):
        assert len(shown(page)) == total
        page.get_by_role("searchbox").fill("vendor")
        assert shown(page) == ["attention"]
        assert page.locator("output").inner_text() == f"1 of {total}"
        page.get_by_role("searchbox").fill("")
        page.get_by_label("healthy").uncheck()
        assert set(shown(page)) == {"critical", "expiring", "attention"}
        page.get_by_role("searchbox").fill("EXPIRING billing-gateway nothing")
        assert shown(page) == []
        page.get_by_role("searchbox").fill("")
        page.get_by_label("healthy").check()
        page.get_by_role("button", name="Days left").press("Enter")
        days = page.eval_on_selector_all("tbody tr", "rows => rows.map(row => Number(row.cells[3].textContent))")
        assert days == sorted(days)
        page.get_by_role("button", name="Days left").click()
        assert page.locator("th").nth(3).get_attribute("aria-sort") == "descending"
        page.get_by_role("button", name="Urgency").click()
        buckets = shown(page)
        assert buckets == sorted(buckets, key=["critical", "expiring", "attention", "healthy"].index)
        assert said == []


def test_nothing_that_people_wrote_runs(browser: Any) -> None:
    nasty = "<img src=x onerror=\"console.log('ran')\"><script>console.log('ran')</script>"
    links = [{"uid": "javascript:alert(1)////", "title": nasty}]
    result = survey([row(1, application=nasty, name=nasty, todo=nasty, reason=nasty, records=links, owners=[nasty])])
    with opened(browser, page_of(result)) as (page, said):
        assert page.locator("tbody a").count() == 1
        assert page.locator("img").count() == 0
        assert said == []


def test_a_thousand_rows_are_filtered(browser: Any) -> None:
    rows = [row(number, ("critical", "healthy")[number % 2], days=number) for number in range(1000)]
    with opened(browser, page_of(survey(rows))) as (page, said):
        page.get_by_label("critical").uncheck()
        page.get_by_role("button", name="Days left").click()
        assert shown(page) == ["healthy"] * 500
        assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_to_be_read_in_light_and_dark(browser: Any, scheme: str) -> None:
    OUTPUT.mkdir(exist_ok=True)
    with opened(browser, page_of(believable()), color_scheme=scheme) as (page, said):
        page.screenshot(path=OUTPUT / f"report-{scheme}.png")
        ratios = page.evaluate(CONTRAST)
        assert min(ratios) >= 4.5  # WCAG 2.2, level AA
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert said == []


def test_it_prints(browser: Any) -> None:
    OUTPUT.mkdir(exist_ok=True)
    with opened(browser, page_of(believable()), color_scheme="light") as (page, said):
        page.pdf(path=OUTPUT / "report.pdf", format="A4", landscape=True)
        page.emulate_media(media="print")
        assert not page.get_by_role("searchbox").is_visible()
        assert len(shown(page)) == len(believable()["credentials"])
        assert said == []


# The contrast of every text in the page with what is behind it.
CONTRAST = """() => {
  const light = text => {
    const parts = text.match(/[\\d.]+/g).map(Number);
    const lin = parts.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * lin[0] + .7152 * lin[1] + .0722 * lin[2];
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$/.test(colour) && colour !== 'transparent') return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  return Array.from(document.querySelectorAll('h1,p,li *,td,small,a,th button,label')).map(element => {
    const pair = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    return (pair[0] + .05) / (pair[1] + .05);
  });
}"""
