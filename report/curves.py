"""Training curves from the `metrics.jsonl` files of a run, whatever they measure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report.present import present_files
from report.svg import Line
from runtime.metrics import read_metrics
from runtime.settings import RunSettings

_FILES = {
    "base/metrics.jsonl": "Base model",
    "enhancer/metrics.jsonl": "Enhancer",
    "afine/metrics.jsonl": "A-FINE",
}
_POSITIONS = ("step", "iteration", "iter", "epoch")
# which series a row belongs to, besides the phase
_GROUPS = ("phase", "kind", "part", "split", "model")
_NOT_CURVES = frozenset({"time_s", "seed", "batch", "batch_size", "rank", "processes", "total"})
_MOST_POINTS = 300
_FIRST = re.compile(r"(.*[ _])?(loss|accuracy|plcc|srcc)|psnr.*")


@dataclass(frozen=True)
class Chart:
    """Curves that share a vertical axis.

    Attributes:
        title: what is measured.
        x_name: name of the horizontal axis.
        lines: the curves.
        is_main: shown at once; the others are folded away.
    """

    title: str
    x_name: str
    lines: tuple[Line, ...]
    is_main: bool


@dataclass(frozen=True)
class Training:
    """Everything that one training stage measured.

    Attributes:
        name: name of the stage.
        charts: its curves, those that matter most first.
        sheets: its first and last pictures of validation images, if it wrote any.
    """

    name: str
    charts: tuple[Chart, ...]
    sheets: tuple[Path, ...]


def trainings(run: RunSettings) -> list[Training]:
    """Read all training curves of a run; stages without a file are left out."""
    found = []
    for file, name in _FILES.items():
        charts = _charts(row for path in present_files(run, file) for row in read_metrics(path))
        sheets = present_files(run, f"{Path(file).parent}/validation/step-*.png")
        if charts:
            found.append(
                Training(name, tuple(charts), tuple(dict.fromkeys(sheets[:1] + sheets[-1:])))
            )
    return found


def _charts(rows: Iterable[Mapping[str, Any]]) -> list[Chart]:
    """Group rows by measured quantity, and within it by series."""
    series: dict[tuple[str, str], dict[str, dict[float, float]]] = {}
    for row in rows:
        position = next((name for name in _POSITIONS if _is_number(row.get(name))), None)
        if position is None:
            continue
        stage, group = _series_name(row)
        for name, value in _numbers(row, position):
            places = series.setdefault((stage, name), {}).setdefault(group, {})
            # a training that was resumed repeats steps: the later row counts
            places[float(row[position])] = value
    charts = [
        _chart(f"{stage} {name}".strip(), name, groups)
        for (stage, name), groups in series.items()
        if any(len(set(places.values())) > 1 for places in groups.values())
    ]
    return sorted(charts, key=lambda chart: not chart.is_main)


def _series_name(row: Mapping[str, Any]) -> tuple[str, str]:
    """Split a row's groups into the chart's (a phase of its own) and the curve's (train, val)."""
    words = [str(row[name]) for name in _GROUPS if isinstance(row.get(name), (str, int))]
    curve = [word for word in words if word in {"train", "val", "valid", "validation", "test"}]
    return " ".join(word for word in words if word not in curve), " ".join(curve) or "train"


def _numbers(row: Mapping[str, Any], position: str) -> Iterable[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from ((f"{name} {key}", v) for key, v in _numbers(value, position))
        elif name != position and name not in _NOT_CURVES | set(_GROUPS) and _is_number(value):
            yield name, float(value)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e30
    )  # NaN compares false


def _chart(title: str, name: str, groups: Mapping[str, Mapping[float, float]]) -> Chart:
    lines: list[Line] = []
    for index, (group, places) in enumerate(sorted(groups.items())):
        xs = sorted(places)
        ys = [places[x] for x in xs]
        style = f"line-{index % 6}"
        if len(xs) > 40:
            lines.append(Line(group, *_thinned(xs, ys), style, is_faint=True))
            ys = _smooth(ys)
        lines.append(Line(group, *_thinned(xs, ys), style))
    is_main = _FIRST.fullmatch(name) is not None
    return Chart(title.replace("_", " "), "iteration", tuple(lines), is_main)


def _smooth(values: list[float]) -> list[float]:
    """Running mean over about a fortieth of the curve, shorter at its ends."""
    half = max(len(values) // 80, 1)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    spans = ((max(i - half, 0), min(i + half + 1, len(values))) for i in range(len(values)))
    return [(sums[end] - sums[start]) / (end - start) for start, end in spans]


def _thinned(xs: list[float], ys: list[float]) -> tuple[list[float], list[float]]:
    """Keep at most about 300 points, always the first and the last."""
    step = -(-len(xs) // _MOST_POINTS)
    kept = sorted({*range(0, len(xs), step), len(xs) - 1})
    return [xs[i] for i in kept], [ys[i] for i in kept]
