"""The report in a real browser: nothing fetched, no errors, every figure drawn, also without the script."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, find_chromium
from reporting import TruthForecast, fill, hostile

from mixplan.report import find_inputs, render

pytestmark = pytest.mark.slow

# Per drawing: its figure, its size on screen, how many marks show something, and texts that stick out of it.
DRAWINGS = """
[...document.querySelectorAll('section.figure svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  const marks = [...svg.querySelectorAll('.dot, .line, .cell, .whisker, .cap')].filter(mark => {
    const own = mark.getBoundingClientRect();
    const paint = getComputedStyle(mark);
    return (own.width > 0 || own.height > 0) && (paint.fill !== 'none' || paint.stroke !== 'none')
      && own.right > box.left && own.left < box.right && own.bottom > box.top && own.top < box.bottom;
  });
  const out = [...svg.querySelectorAll('text')].filter(text => {
    const own = text.getBoundingClientRect();
    return own.left < box.left - 3 || own.right > box.right + 3
      || own.top < box.top - 3 || own.bottom > box.bottom + 3;
  });
  return {figure: svg.closest('section').id, width: box.width, height: box.height, marks: marks.length,
          named: svg.getAttribute('role') === 'img' && svg.getAttribute('aria-label').length > 10,
          out: out.map(text => text.textContent)};
})
"""
DRAWN = {
    "frequency",
    "size",
    "retention",
    "interference",
    "backtest",
    "mixture",
    "skills",
    "verification",
    "loss",
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if os.environ.get("MIXPLAN_NO_BROWSER") == "1":
        pytest.skip("MIXPLAN_NO_BROWSER=1")
    program = find_chromium()
    if program is None:
        pytest.fail(
            "no Chromium found; install it (Debian: apt-get install -y chromium), or set MIXPLAN_NO_BROWSER=1"
            " to leave the browser tests out"
        )
    with Browser(program, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("work")
    fill(folder)
    path = folder / "report.html"
    path.write_text(render(find_inputs(folder), TruthForecast()), encoding="utf-8")
    return path.as_uri()


def check_drawings(browser: Browser) -> None:
    drawings = browser.evaluate(DRAWINGS)
    assert {drawing["figure"] for drawing in drawings} == DRAWN
    for drawing in drawings:
        assert drawing["width"] > 200 and drawing["height"] > 60, drawing
        assert drawing["marks"] > 0, drawing
        assert drawing["named"], drawing
        assert drawing["out"] == [], drawing


def test_the_page_is_drawn_whole_and_fetches_nothing(browser: Browser, page: str) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False
    )
    browser.open(page)
    check_drawings(browser)
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [page]
    assert browser.evaluate("performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("width", [1280, 800, 400])
def test_nothing_sticks_out_sideways(browser: Browser, page: str, width: int) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
    )
    browser.open(page)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_every_figure_is_there_without_the_script(browser: Browser, page: str) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False
    )
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        assert browser.evaluate("document.getElementById('tip')") is None  # the script did not run
        check_drawings(browser)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_hover_shows_values_and_the_picker_hides_other_kinds(browser: Browser, page: str) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False
    )
    browser.open(page)
    place = browser.evaluate(
        "(() => { const dot = document.querySelector('#loss .dot'); dot.scrollIntoView({block: 'center'});"
        " const box = dot.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2];"
        " })()"
    )
    assert browser.evaluate("document.getElementById('tip').hidden") is True
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    assert "LM loss" in browser.evaluate("document.getElementById('tip').textContent")
    assert browser.evaluate("document.getElementById('tip').hidden") is False
    shown = (
        "[...document.querySelectorAll('#size .panel')].filter(p => p.getBoundingClientRect().width >"
        " 0).length"
    )
    assert browser.evaluate(shown) == 6
    browser.evaluate(
        "(() => { const pick = document.getElementById('pick'); pick.value = 'comparison (8)';"
        " pick.dispatchEvent(new Event('change')); })()"
    )
    assert browser.evaluate(shown) == 1
    assert browser.complaints() == []


def test_dark_and_light_schemes_differ(browser: Browser, page: str) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        browser.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        browser.open(page)
        colour = "(e => getComputedStyle(e)[{0}])(document.querySelector('{1}'))"
        seen[scheme] = [
            browser.evaluate(colour.replace("{0}", f"'{what}'").replace("{1}", where))
            for what, where in (("backgroundColor", "body"), ("color", "h2"), ("fill", "#frequency .dot"))
        ]
    browser.call("Emulation.setEmulatedMedia", features=[])
    assert all(light != dark for light, dark in zip(seen["light"], seen["dark"], strict=True))


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    hostile(tmp_path)
    path = tmp_path / "report.html"
    path.write_text(render(find_inputs(tmp_path), None), encoding="utf-8")
    browser.open(path.as_uri())
    assert browser.evaluate("window.hacked") is None
    assert browser.evaluate("document.querySelectorAll('img, iframe, script').length") == 1  # its own script
    assert [url for url in browser.requests() if not url.startswith("data:")] == [path.as_uri()]
    assert browser.complaints() == []
