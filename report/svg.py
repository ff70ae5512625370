"""Charts as SVG text: stacked columns, stacked bars, bars, and lines.

Colours come from the page's style sheet through class names, so that the charts follow its
light and dark themes; nothing here needs a plotting library or a font.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_LETTER_PX = 5.6
LABELS = ("worse", "similar", "better")


@dataclass(frozen=True)
class Column:
    """One column of a stacked chart.

    Attributes:
        name: text below it.
        counts: numbers of worse, similar, better.
    """

    name: str
    counts: tuple[int, int, int]


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: text of the legend.
        x: positions, ascending.
        y: values, as many.
        style: class of the style sheet, "line-0".."line-5".
        is_faint: drawn thin, behind the others, and left out of the legend.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str
    is_faint: bool = False


def number(value: float) -> str:
    """Write a number shortly, as a person would: 1,250; 0.034; 12.5; 1.2e-05."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e7:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.3g}"
    return f"{value:.3g}"


def stacked_columns(columns: Sequence[Column], *, label: str) -> str:
    """Draw shares of worse, similar and better, a column for each group.

    Args:
        columns: the groups, left to right.
        label: what the chart shows, for readers that cannot see it.
    """
    width, height, top, bottom = 320, 190, 16, 40
    room = height - top - bottom
    step = (width - 8) / max(len(columns), 1)
    bar = min(step * 0.82, 64)
    is_turned = any(len(column.name) * _LETTER_PX > step for column in columns)
    parts = [_open(width, height, label)]
    for index, column in enumerate(columns):
        left = 4 + step * index + (step - bar) / 2
        total = sum(column.counts)
        y = float(top + room)
        for name, count in zip(LABELS, column.counts, strict=True):
            size = room * count / total if total else 0.0
            y -= size
            if count:
                parts.append(
                    f'<rect class="{name}" x="{left:.1f}" y="{y:.1f}" width="{bar:.1f}" '
                    f'height="{size:.1f}"><title>{escape(column.name)}: {count:,} of {total:,} '
                    f"{name} ({100 * count / total:.0f} %)</title></rect>"
                )
        middle = left + bar / 2
        parts.append(f'<text class="n" x="{middle:.1f}" y="{top - 4}">{total:,}</text>')
        parts.append(_tick(column.name, middle, top + room + 14, is_turned))
    return "".join(parts) + "</svg>"


def _tick(text: str, x: float, y: float, is_turned: bool) -> str:
    if not is_turned:
        return f'<text class="tick" x="{x:.1f}" y="{y}">{escape(text)}</text>'
    return (
        f'<text class="tick turned" x="{x + 4:.1f}" y="{y - 4}" '
        f'transform="rotate(-28 {x + 4:.1f} {y - 4})">{escape(text)}</text>'
    )


def stacked_bar(counts: tuple[int, int, int], *, label: str) -> str:
    """Draw one horizontal bar with the shares of worse, similar and better."""
    width, height = 640, 34
    parts = [_open(width, height, label, stretch=True)]
    total, x = sum(counts), 0.0
    for name, count in zip(LABELS, counts, strict=True):
        size = width * count / total if total else 0.0
        parts.append(
            f'<rect class="{name}" x="{x:.1f}" y="0" width="{size:.1f}" height="{height}">'
            f"<title>{name}: {count:,}</title></rect>"
        )
        x += size
    return "".join(parts) + "</svg>"


def bars(rows: Sequence[tuple[str, float, str]], *, label: str) -> str:
    """Draw horizontal bars.

    Args:
        rows: name, length >= 0, text at the end of the bar.
        label: what the chart shows.
    """
    width, step, left, right = 480, 24, 150, 90
    longest = max((value for _, value, _ in rows), default=0.0) or 1.0
    parts = [_open(width, step * len(rows) + 4, label)]
    for index, (name, value, text) in enumerate(rows):
        y = 4 + step * index
        size = max((width - left - right) * value / longest, 1.0)
        parts.append(f'<text class="name" x="{left - 8}" y="{y + 14}">{escape(name)}</text>')
        parts.append(
            f'<rect class="bar" x="{left}" y="{y + 2}" width="{size:.1f}" height="16" rx="2"/>'
        )
        parts.append(
            f'<text class="value" x="{left + size + 6:.1f}" y="{y + 14}">{escape(text)}</text>'
        )
    return "".join(parts) + "</svg>"


def lines(curves: Sequence[Line], *, label: str, x_name: str) -> str:
    """Draw curves over a common axis.

    Args:
        curves: the curves; the faint ones are drawn first.
        label: what the chart shows, for readers that cannot see it.
        x_name: name of the horizontal axis.
    """
    width, height, left, right, top, bottom = 420, 230, 52, 10, 10, 34
    xs = [value for curve in curves for value in curve.x]
    low, high = _range(curves)
    first, last = min(xs), max(xs)

    def place(x: float, y: float) -> str:
        across = (x - first) / ((last - first) or 1.0)
        up = (min(max(y, low), high) - low) / ((high - low) or 1.0)
        return (
            f"{left + across * (width - left - right):.1f},"
            f"{height - bottom - up * (height - top - bottom):.1f}"
        )

    parts = [_open(width, height, label)]
    for tick, text in _ticks(low, high):
        y = place(first, tick).split(",")[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="y" x="{left - 6}" y="{float(y) + 3.5:.1f}">{text}</text>')
    for tick, text in _ticks(first, last):
        x = place(tick, low).split(",")[0]
        parts.append(f'<text class="tick" x="{x}" y="{height - bottom + 15}">{text}</text>')
    parts.append(f'<text class="tick" x="{width / 2}" y="{height - 4}">{escape(x_name)}</text>')
    for curve in sorted(curves, key=lambda item: not item.is_faint):
        points = " ".join(place(x, y) for x, y in zip(curve.x, curve.y, strict=True))
        faint = " faint" if curve.is_faint else ""
        if len(curve.x) == 1:
            cx, cy = points.split(",")
            parts.append(f'<circle class="{curve.style}" cx="{cx}" cy="{cy}" r="3"/>')
        parts.append(f'<polyline class="{curve.style}{faint}" points="{points}"/>')
    return "".join(parts) + "</svg>"


def _range(curves: Sequence[Line]) -> tuple[float, float]:
    """Range of the vertical axis; single peaks of the faint curves do not stretch it."""
    strong = [value for curve in curves if not curve.is_faint for value in curve.y]
    faint = sorted(value for curve in curves if curve.is_faint for value in curve.y)
    cut = len(faint) // 50
    values = strong + faint[cut : len(faint) - cut]
    low, high = min(values), max(values)
    margin = 0.04 * ((high - low) or abs(high) or 1.0)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """About five round numbers from `low` to `high`, each with the digits that tell it apart."""
    span = high - low
    if span <= 0:
        return [(low, number(low))]
    power = math.floor(math.log10(span / 4))
    step = next(f for f in (1, 2, 5, 10) if span / (10.0**power * f) <= 5) * 10.0**power
    start = math.ceil(low / step)
    ticks = [index * step for index in range(start, start + 12) if index * step <= high]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if digits > 4 or high >= 1e6:
        return [(tick, f"{tick:.3g}") for tick in ticks]
    return [(tick, f"{tick:,.{digits}f}") for tick in ticks]


def _open(width: float, height: float, label: str, *, stretch: bool = False) -> str:
    ratio = ' preserveAspectRatio="none"' if stretch else ""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}"{ratio}>'
    )
