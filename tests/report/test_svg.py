"""Charts: shares add up, names are escaped, axes have round ticks."""

import re
from xml.etree import ElementTree

import pytest

from report.svg import Column, Line, bars, lines, number, stacked_bar, stacked_columns

_SVG = "{http://www.w3.org/2000/svg}"


def _parse(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def test_column_heights_are_shares() -> None:
    root = _parse(stacked_columns([Column("a", (1, 1, 2))], label="x"))
    heights = [float(rect.get("height", "0")) for rect in root.iter("rect")]
    assert heights == pytest.approx([heights[0], heights[0], 2 * heights[0]], abs=0.2)


def test_empty_classes_and_groups_draw() -> None:
    root = _parse(stacked_columns([Column("none", (0, 0, 0)), Column("b", (0, 3, 0))], label="x"))
    assert len(list(root.iter("rect"))) == 1
    _parse(stacked_columns([], label="x"))
    _parse(stacked_bar((0, 0, 0), label="x"))
    _parse(bars([], label="x"))


def test_names_are_escaped() -> None:
    text = stacked_columns([Column("<script>", (1, 0, 0))], label='"quoted" & more')
    assert "<script>" not in text
    _parse(text)
    assert "<b>" not in bars([("<b>", 1.0, "<b>")], label="<b>")


def test_labels_turn_together_when_one_is_too_long() -> None:
    short = [Column(str(index), (1, 0, 0)) for index in range(8)]
    assert "turned" not in stacked_columns(short, label="x")
    long = [*short, Column("0.0125 to 0.0250", (1, 0, 0))]
    assert stacked_columns(long, label="x").count("turned") == len(long)


def test_lines_stay_inside_and_peaks_of_faint_curves_are_cut() -> None:
    xs = list(range(100))
    noisy = [1000.0 if x == 3 else 1.0 + 0.01 * (x % 5) for x in xs]
    text = lines(
        [Line("raw", xs, noisy, "line-0", is_faint=True), Line("mean", xs, [1.0] * 100, "line-0")],
        label="loss",
        x_name="iteration",
    )
    for points in re.findall(r'points="([^"]+)"', text):
        for pair in points.split():
            x, y = (float(part) for part in pair.split(","))
            assert 0 <= x <= 420
            assert 0 <= y <= 230
    assert "1,000" not in text


def test_single_point_is_visible() -> None:
    assert "<circle" in lines([Line("a", [3.0], [1.0], "line-0")], label="x", x_name="step")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1250, "1,250"), (12.5, "12.5"), (0.0342, "0.0342"), (1.2e-5, "1.2e-05"),
     (float("inf"), "inf"), (3.0, "3"), (12345.6, "12,346")],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_ticks_of_a_narrow_range_differ() -> None:
    text = lines([Line("a", [0, 1], [1.0251, 1.0302], "line-0")], label="x", x_name="step")
    ticks = re.findall(r'class="y"[^>]*>([^<]+)<', text)
    assert len(ticks) >= 3
    assert len(set(ticks)) == len(ticks)
