"""The paper's Table 2 (within sets) and Table 3 (SRIQA-Bench), and tables beside them."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from afine.evaluation.accuracy import (
    Accuracy,
    Values,
    accuracy_with_interval,
    correct_pairs,
    correlations,
    tested_pairs,
)
from afine.triplets.rules import COLUMN_OF_KIND, REFERENCE_BETTER, TEST_BETTER

STANDARD = {"tid2013": "TID2013", "kadid10k": "KADID", "pipal": "PIPAL"}
_SRIQA_COLUMNS = {
    "regression": "Regression-based",
    "generation": "Generation-based",
    "all": "All",
}
OURS = "A-FINE (Ours)"


@dataclass(frozen=True)
class Method:
    """A metric in the tables.

    Attributes:
        column: its column in the table of scores.
        label: its name in the tables.
        lower_is_better: direction of its scores.
    """

    column: str
    label: str
    lower_is_better: bool


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made."""

    resamplings: int
    confidence: float
    seed: int


def accuracies(
    triplets: pl.DataFrame,
    scores: pl.DataFrame,
    methods: Sequence[Method],
    *,
    delta: float,
    bootstrap: Bootstrap,
) -> list[dict[str, Any]]:
    """Accuracy of every method on every group of pairs.

    Returns:
        Rows with method, set, group, pairs, accuracy, low, high.
    """
    pairs = tested_pairs(triplets).with_columns(_group_column())
    names = list(zip(scores["set"].to_list(), scores["image"].to_list(), strict=True))
    rows: list[dict[str, Any]] = []
    for method in methods:
        sign = 1.0 if method.lower_is_better else -1.0
        values = dict(zip(names, (sign * scores[method.column]).to_list(), strict=True))
        for (set_name, group), part in sorted(pairs.group_by("set", "group")):
            correct = correct_pairs(part, values, delta=delta)
            found = _accuracy(correct, part, bootstrap)
            rows.append(_row(method.label, str(set_name), str(group), found))
        whole = pairs.filter(pl.col("set") == "diffiqa")
        if len(whole):
            found = _accuracy(correct_pairs(whole, values, delta=delta), whole, bootstrap)
            rows.append(_row(method.label, "diffiqa", "Average", found))
    return rows


def _group_column() -> pl.Expr:
    return pl.col("kind").replace(COLUMN_OF_KIND).replace({"rated": "pairs"}).alias("group")


def _accuracy(correct: Values, part: pl.DataFrame, bootstrap: Bootstrap) -> Accuracy:
    return accuracy_with_interval(
        correct,
        part["content"].to_list(),
        resamplings=bootstrap.resamplings,
        confidence=bootstrap.confidence,
        seed=bootstrap.seed,
    )


def _row(method: str, set_name: str, group: str, found: Accuracy) -> dict[str, Any]:
    facts = asdict(found)
    facts["accuracy"] = facts.pop("value")
    return {"method": method, "set": set_name, "group": group, **facts}


def table2(rows: Sequence[Mapping[str, Any]], methods: Sequence[Method]) -> list[dict[str, str]]:
    """Lay accuracies out as Table 2, in percent; empty where there is nothing to test on.

    Averages are weighted by the number of pairs; "All Average" is the mean of the two.
    """
    table: list[dict[str, str]] = []
    for method in methods:
        own = {(r["set"], r["group"]): r for r in rows if r["method"] == method.label}
        standard = [own[(name, "pairs")] for name in STANDARD if (name, "pairs") in own]
        labelled = [
            own[("diffiqa", c)] for c in (TEST_BETTER, REFERENCE_BETTER) if ("diffiqa", c) in own
        ]
        averages = _weighted(standard), _weighted(labelled)
        known = [value for value in averages if value is not None]
        cells: dict[str, float | None] = {
            **{label: _value(own.get((name, "pairs"))) for name, label in STANDARD.items()},
            "Standard Average": averages[0],
            TEST_BETTER: _value(own.get(("diffiqa", TEST_BETTER))),
            REFERENCE_BETTER: _value(own.get(("diffiqa", REFERENCE_BETTER))),
            "DiffIQA Average": averages[1],
            "All Average": sum(known) / 2 if len(known) == 2 else None,
        }
        table.append({"Method": method.label, **{k: _percent(v) for k, v in cells.items()}})
    return table


def table3(rows: Sequence[Mapping[str, Any]], methods: Sequence[Method]) -> list[dict[str, str]]:
    """Lay accuracies out as Table 3, in percent."""
    table: list[dict[str, str]] = []
    for method in methods:
        own = {r["group"]: r for r in rows if (r["method"], r["set"]) == (method.label, "sriqa")}
        cells = {label: _percent(_value(own.get(k))) for k, label in _SRIQA_COLUMNS.items()}
        table.append({"Method": method.label, **cells})
    return table


def correlation_table(
    images: pl.DataFrame, scores: pl.DataFrame, methods: Sequence[Method]
) -> list[dict[str, str]]:
    """SRCC, KRCC and PLCC of every method on every set, references left out."""
    rated = images.filter(pl.col("quality").is_not_null() & ~pl.col("is_ref"))
    joined = rated.join(scores, on=["set", "content", "image"], how="inner")
    table: list[dict[str, str]] = []
    for set_name in sorted(joined["set"].unique()):
        part = joined.filter(pl.col("set") == set_name)
        quality = part["quality"].to_numpy()
        for method in methods:
            sign = 1.0 if method.lower_is_better else -1.0
            found = correlations(sign * part[method.column].to_numpy(), quality)
            facts = {key.upper(): _number(value) for key, value in asdict(found).items()}
            table.append({"Method": method.label, "Set": set_name, **facts})
    return table


def _weighted(rows: Sequence[Mapping[str, Any]]) -> float | None:
    total = sum(row["pairs"] for row in rows)
    return sum(row["pairs"] * row["accuracy"] for row in rows) / total if total else None


def _value(row: Mapping[str, Any] | None) -> float | None:
    return None if row is None else float(row["accuracy"])


def _percent(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{100 * value:.1f}"


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if np.isnan(value) else f"{value:.4f}"


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Render rows with equal keys as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
