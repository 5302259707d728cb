"""Axes, marks and escaped markup: positions and labels are exact."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mixplan.report import palette, text
from mixplan.report.markup import Markup, escape, join, tag
from mixplan.report.plot import Axis, Panel, linear_axis, log_axis

SUPERSCRIPT = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def number_in(label: str) -> float:
    """The number that a tick label shows."""
    plain = label.replace("−", "-").replace(text.NARROW, "")
    scale = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}.get(plain[-1], 1.0)
    plain = plain.rstrip("KMBT")
    power = re.fullmatch(r"(?:(-?[\d.]+)·)?10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", plain)
    if power:
        return float(power[1] or 1) * 10.0 ** int(power[2].translate(SUPERSCRIPT))
    return float(plain) * scale


@given(st.lists(st.floats(-1e7, 1e7).filter(lambda v: v == 0 or abs(v) > 1e-7), min_size=1, max_size=20))
def test_a_linear_axis_holds_its_data_and_its_labels_are_its_ticks(values: list[float]) -> None:
    axis = linear_axis(values, "x")
    assert axis.low <= min(values) and max(values) <= axis.high
    step = (axis.high - axis.low) / max(len(axis.ticks), 1)
    assert len(axis.ticks) <= 16
    for value, label in axis.ticks:
        assert axis.low - 1e-6 * step <= value <= axis.high + 1e-6 * step
        if abs(value) < 1e3 * step:  # offsets far beyond the range are rounded to three digits
            assert number_in(label) == pytest.approx(value, abs=0.02 * step)


@example(304905251944.0, 1.5, False)
@given(st.floats(1e-9, 1e12), st.floats(1.0, 1e6), st.booleans())
def test_a_log_axis_holds_its_data_and_its_labels_are_its_ticks(
    low: float, ratio: float, words: bool
) -> None:
    axis = log_axis([low, low * ratio], "x", words=words)
    assert axis.low <= low and low * ratio <= axis.high * (1 + 1e-12)
    assert axis.ticks
    for value, label in axis.ticks:
        assert axis.low <= value <= axis.high
        assert number_in(label) == pytest.approx(value, rel=0.01)


def test_skill_ticks_are_not_rounded_away() -> None:
    assert [label for _, label in linear_axis([0, 1], "skill").ticks] == [
        "0.0",
        "0.2",
        "0.4",
        "0.6",
        "0.8",
        "1.0",
    ]


def test_no_finite_data_still_gives_an_axis() -> None:
    assert linear_axis([np.nan], "x").ticks
    assert log_axis([np.nan, 0.0, -1.0], "x").ticks


def test_values_land_where_they_belong() -> None:
    panel = Panel(Axis(1, 100, "x", True), Axis(0, 1, "y"), 200, 120, left=20, right=10, top=10, bottom=10)
    assert panel.px([1, 10, 100]).tolist() == pytest.approx([20, 105, 190])
    assert panel.py([0, 0.5, 1]).tolist() == pytest.approx([110, 60, 10])


def test_a_gap_breaks_a_line_and_leaves_out_a_point() -> None:
    panel = Panel(Axis(0, 3, "x"), Axis(0, 1, "y"))
    drawn = panel.line([0, 1, 2, 3], [0, 0.5, np.nan, 1], "s0")
    assert drawn.count("M") == 2 and drawn.count("L") == 1
    assert panel.dots([0, 1], [np.nan, 1], "s0").count("<circle") == 1
    assert panel.line([0, 1], [np.nan, np.nan], "s0") == ""
    assert panel.whiskers([0, 1], [0, np.nan], [1, 1], "s0").count("V") == 1
    assert panel.band([0, 1], [0, np.nan], [1, 1], "s0") == ""


def test_a_line_stops_where_it_leaves_the_panel() -> None:
    panel = Panel(Axis(0, 3, "x"), Axis(0, 1, "y"))
    assert str(panel.line([0, 1, 2, 3], [2, 0.5, 1, 9], "s0")).count("L") == 1


def test_a_band_is_clipped_to_the_panel() -> None:
    panel = Panel(Axis(0, 1, "x"), Axis(0, 1, "y"))
    ys = [float(y) for y in re.findall(r" (-?[\d.]+)", str(panel.band([0, 1], [-9, -9], [9, 9], "s0")))]
    assert min(ys) == pytest.approx(panel.top) and max(ys) == pytest.approx(panel.height - panel.bottom)


def test_text_is_escaped_and_markup_is_not_escaped_twice() -> None:
    inner = tag("b", "a < b & 'c'")
    assert inner == "<b>a &lt; b &amp; &#x27;c&#x27;</b>"
    assert tag("p", inner, title='"x"') == f'<p title="&quot;x&quot;">{inner}</p>'
    assert join(["<", Markup("<br/>"), None]) == "&lt;<br/>"


def test_text_that_html_or_utf8_cannot_hold_is_replaced() -> None:
    assert escape("a\x00b\ud800c\x1bd").encode("utf-8").decode() == "a\ufffdb?c\ufffdd"


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (text.count(8336), f"8.34{text.NARROW}K"),
        (text.count(999.6), f"1{text.NARROW}K"),
        (text.count(1.07e9), f"1.07{text.NARROW}B"),
        (text.count(128.0), "128"),
        (text.count(None), "–"),
        (text.count(float("nan")), "–"),
        (text.power(2.3e-4), "2.3·10⁻⁴"),
        (text.power(9.99e-4), "10⁻³"),
        (text.power(0.0), "0"),
        (text.fixed(-0.001), "0.00"),
        (text.fixed(-0.5), "−0.50"),
        (text.signed(0.0123, 4), "+0.0123"),
        (text.signed(-0.5, 1), "−0.5"),
        (text.signed(0.0), "0.000"),
        (text.percent(0.985), f"98.5{text.NARROW}%"),
        (text.percent(0.9999), f"> 99.9{text.NARROW}%"),
        (text.percent(1.0), f"100{text.NARROW}%"),
        (text.percent(0.0004), f"0.04{text.NARROW}%"),
        (text.percent(0.12), f"12{text.NARROW}%"),
        (text.percent(-0.56), f"−56{text.NARROW}%"),
        (text.one_in(1e-3), f"1 in 1{text.NARROW}K tokens"),
        (text.kind_name("modular_addition", 5.0), "modular addition (5)"),
        (text.listing(["a", "b", "c"]), "a, b and c"),
        (text.listing(["a"] * 9, most=3), "a, a and 7 more"),
        (text.listing([]), ""),
        (text.plural(1, "run"), "1 run"),
        (text.plural(1200, "run"), "1,200 runs"),
    ],
)
def test_numbers_as_a_reader_wants_them(shown: str, wanted: str) -> None:
    assert shown == wanted


def test_the_ramp_hits_its_colours_and_every_size_has_one_in_both_schemes() -> None:
    assert palette.ramp(("000000", "ffffff"), 0.5) == "#808080"
    assert palette.ramp(("000000", "102030", "ffffff"), 0.5) == "#102030"
    rules = palette.rules(3, 10)
    assert rules.count("--size2:") == 2 and rules.count("--skill10:") == 2
    assert len(set(re.findall(r"--size\d:(#\w{6})", rules))) == 6
