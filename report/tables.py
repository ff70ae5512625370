"""Tables and figures that the evaluation of A-FINE left behind."""

import base64
import csv
import re
from dataclasses import dataclass
from pathlib import Path

# tables laid out as in the paper: one row a method, one column a group of pairs, percent
_HEADINGS = {
    "table2": "Accuracy within sets, percent of pairs (layout of the paper's Table 2)",
    "table3": "Accuracy on SRIQA-Bench, percent of pairs (layout of the paper's Table 3)",
}
_OURS = "a-fine"


@dataclass(frozen=True)
class Result:
    """One table.

    Attributes:
        name: its heading.
        header: names of its columns that hold anything.
        rows: its cells, as many as columns.
        best: for each column, the cell's text that is best, or "" where none is marked.
        is_main: shown at once; the others are folded away.
    """

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: tuple[str, ...]
    is_main: bool


def results(root: Path) -> list[Result]:
    """Read the tables of the evaluation, those of the paper first."""
    found = [_result(path) for path in sorted((root / "afine/tables").glob("*.csv"))]
    return sorted((r for r in found if r.header), key=lambda result: not result.is_main)


@dataclass(frozen=True)
class OwnAccuracy:
    """Accuracy of A-FINE over all pairs of this run's own test split.

    Attributes:
        percent: the accuracy, as text.
        interval: its confidence interval by content, as text; "" if there is none.
        pairs: number of pairs.
    """

    percent: str
    interval: str
    pairs: str


def accuracy_of_ours(root: Path) -> OwnAccuracy | None:
    """Read the average accuracy of A-FINE on this run's own pairs; None if not evaluated."""
    path = root / "afine/tables/accuracy.csv"
    if not path.is_file():
        return None
    with open(path, encoding="utf-8", newline="") as handle:
        rows = [
            row for row in csv.DictReader(handle)
            if row.get("method", "").lower().startswith(_OURS)
            and (row.get("set"), row.get("group")) == ("diffiqa", "Average")
        ]  # fmt: skip
    if not rows:
        return None
    value, low, high = (_number(rows[0].get(name) or "") for name in ("accuracy", "low", "high"))
    if value is None:
        return None
    interval = ""
    if low is not None and high is not None:
        interval = f"{100 * low:.0f} to {100 * high:.0f} %"
    return OwnAccuracy(f"{100 * value:.1f} %", interval, rows[0].get("pairs", ""))


def _result(path: Path) -> Result:
    with open(path, encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.reader(handle) if row] or [[]]
    header, *body = rows
    kept = [
        index for index in range(len(header))
        if any(index < len(row) and row[index] for row in body)
    ]  # fmt: skip
    cells = tuple(tuple(_short(row[i]) if i < len(row) else "" for i in kept) for row in body)
    is_main = path.stem in _HEADINGS
    best = [_best([row[i] for row in cells]) if is_main and i else "" for i in range(len(kept))]
    name = _HEADINGS.get(path.stem, _title(path.stem))
    return Result(name, tuple(header[i] for i in kept), cells, tuple(best), is_main)


def _best(texts: list[str]) -> str:
    """The highest of a column's numbers, as its text; "" if there is nothing to compare."""
    numbers = [text for text in texts if _number(text) is not None]
    return max(numbers, key=float) if len(numbers) > 1 else ""


def _short(text: str) -> str:
    value = _number(text)
    return text if value is None or len(text) <= 6 else f"{value:.4g}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _title(stem: str) -> str:
    """Turn a file's name into a heading."""
    words = re.sub(r"(?<=[a-z])(?=\d)", " ", stem).replace("_", " ")
    return words[:1].upper() + words[1:]


def figures(root: Path) -> list[dict[str, str]]:
    """Read the figures of the evaluation as what a page can hold: name and data address.

    The figure of the training is left out: the page draws those curves itself.
    """
    return [
        {
            "name": _title(path.stem),
            "uri": "data:image/svg+xml;base64,"
            + base64.b64encode(path.read_bytes()).decode("ascii"),
        }
        for path in sorted((root / "afine/figures").glob("*.svg"))
        if path.stem != "training"
    ]
