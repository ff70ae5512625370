"""Tables and figures that the evaluation of A-FINE left behind."""

import base64
import csv
import re
from pathlib import Path
from typing import Any


def result_files(root: Path) -> list[Path]:
    """List the tables of the evaluation."""
    return sorted((root / "afine/tables").glob("*.csv"))


def afine_accuracy(root: Path) -> str:
    """Average accuracy of A-FINE in the first table that has it."""
    for path in result_files(root):
        header, *rows = _read_csv(path)
        column = next((i for i, name in enumerate(header) if name.lower() == "average"), None)
        for row in rows:
            if column is not None and row[0].lower().startswith("a-fine") and row[column]:
                return row[column]
    return ""


def _read_csv(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.reader(handle) if row]
    return rows or [[]]


def read_result(path: Path) -> dict[str, Any]:
    """Read a table of results; the best number of each column of accuracies is marked."""
    header, *rows = _read_csv(path)
    cells = [[_cell(text) for text in row] for row in rows]
    best: dict[int, float] = {}
    for index, name in enumerate(header):
        values = [row[index][1] for row in cells if index < len(row) and row[index][1] is not None]
        is_count = all(value is not None and float(value).is_integer() for value in values)
        if index and len(values) > 1 and not is_count and "pairs" not in name.lower():
            best[index] = max(value for value in values if value is not None)
    return {"name": _title(path), "header": header, "rows": cells, "best": best}


def _title(path: Path) -> str:
    """Turn a file's name into a heading: table2.csv -> Table 2."""
    words = re.sub(r"(?<=[a-z])(?=\d)", " ", path.stem).replace("_", " ")
    return words[:1].upper() + words[1:]


def _cell(text: str) -> tuple[str, float | None]:
    try:
        value = float(text)
    except ValueError:
        return text, None
    return (text if len(text) <= 6 else f"{value:.4g}"), value


def figure_files(root: Path) -> list[Path]:
    """List the figures of the evaluation."""
    return sorted((root / "afine/figures").glob("*.svg"))


def read_figure(path: Path) -> dict[str, str]:
    """Read a figure as something that a page can hold."""
    text = base64.b64encode(path.read_bytes()).decode("ascii")
    return {"name": _title(path), "uri": f"data:image/svg+xml;base64,{text}"}
