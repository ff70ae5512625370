"""Labels of a run, and how they go with every parameter that an image was made with."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from report.svg import Column

_VALUES = (-1, 0, 1)
_TO = "\N{EN DASH}"
_BINS = 8
_FEWEST_IN_BIN = 12
_FEW = 7
_MOST_ITEMS = 4
_NOT_A_PARAMETER = frozenset(
    {"test_id", "crop_id", "shard", "seed", "degrade_seed", "work", "study", "ref_id", "label",
     "n_worse", "n_similar", "n_better", "n_votes", "margin", "policy", "is_synthetic", "split",
     "photo_id"}
)  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """How the label goes with one parameter.

    Attributes:
        name: dotted name of the parameter.
        columns: label counts in each group of values, ascending.
        rank_correlation: Spearman's rho of value and label; None if not a number.
        n: labelled images for which the parameter applies.
    """

    name: str
    columns: tuple[Column, ...]
    rank_correlation: float | None
    n: int


def labelled_tests(root: Path) -> pl.DataFrame:
    """Join plan, labels and splits; empty while there are no labels."""
    plan, labels = root / "plan.parquet", root / "annotations/labels.parquet"
    if not plan.is_file() or not labels.is_file():
        return pl.DataFrame(schema={"test_id": pl.String, "crop_id": pl.String, "label": pl.Int64})
    named = ["test_id", "label", "n_worse", "n_similar", "n_better", "n_votes", "is_synthetic"]
    joined = pl.read_parquet(plan).join(
        pl.read_parquet(labels).select(named), on="test_id", how="inner"
    )
    crops = root / "crops/crops.parquet"
    if crops.is_file():
        about = pl.read_parquet(crops).select("crop_id", "photo_id", "split")
        joined = joined.join(about, on="crop_id", how="left")
    return joined.drop_nulls("label").sort("test_id")


def counts_of(table: pl.DataFrame) -> tuple[int, int, int]:
    """Numbers of worse, similar and better."""
    worse, similar, better = (table.filter(pl.col("label") == v).height for v in _VALUES)
    return worse, similar, better


def columns_by(table: pl.DataFrame, name: str) -> tuple[Column, ...]:
    """Label counts for each value of a column."""
    values = table[name].drop_nulls().unique().sort()
    return tuple(
        Column(_text(value), counts_of(table.filter(pl.col(name) == value))) for value in values
    )


def parameters(table: pl.DataFrame) -> list[Parameter]:
    """Compare labels against every parameter of the plan that takes more than one value."""
    found = [_parameter(part, name) for name, part in _flat_columns(table)]
    return [parameter for parameter in found if parameter is not None]


def _flat_columns(table: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield each scalar parameter, also those inside structs, as columns `value` and `label`."""
    waiting = [(name, pl.col(name)) for name in table.columns if name not in _NOT_A_PARAMETER]
    while waiting:
        name, expression = waiting.pop(0)
        part = table.select(expression.alias("value"), "label").drop_nulls()
        kind = part.schema["value"]
        if isinstance(kind, pl.Struct):
            inner = [
                (f"{name}.{field.name}", expression.struct.field(field.name))
                for field in kind.fields
            ]
            waiting = inner + waiting
        elif isinstance(kind, pl.List):
            longest = min(int(part["value"].list.len().max() or 0), _MOST_ITEMS)  # type: ignore[arg-type]
            inner = [
                (f"{name} {index + 1}", expression.list.get(index, null_on_oob=True))
                for index in range(longest)
            ]
            waiting = inner + waiting
        elif kind.is_numeric() or kind in (pl.Boolean, pl.String):
            yield name, part


def _parameter(part: pl.DataFrame, name: str) -> Parameter | None:
    values = part["value"].unique().sort()
    if len(values) < 2:
        return None
    is_number = part.schema["value"].is_numeric()
    if not is_number and len(values) > 12:
        return None
    rho = None
    if is_number:
        rho = part.select(pl.corr("value", "label", method="spearman")).item()
        rho = None if rho is None or rho != rho else float(rho)  # NaN: one of them is constant
    if is_number and (len(values) > _FEW or 2 * len(values) > part.height):
        return Parameter(name, _binned(part), rho, part.height)
    return Parameter(name, columns_by(part, "value"), rho, part.height)


def _binned(part: pl.DataFrame) -> tuple[Column, ...]:
    """Two to eight groups of about equal size, cut between different values."""
    ordered = part.sort("value")
    values = ordered["value"].to_list()
    bins = min(max(len(values) // _FEWEST_IN_BIN, 2), _BINS)
    cuts = sorted({values[len(values) * index // bins] for index in range(1, bins)})
    edges = [values[0], *(cut for cut in cuts if cut > values[0])]
    columns: list[Column] = []
    for index, low in enumerate(edges):
        is_last = index == len(edges) - 1
        inside = pl.col("value") >= low
        if not is_last:
            inside &= pl.col("value") < edges[index + 1]
        group = ordered.filter(inside)
        name = _between(_text(group["value"].min()), _text(group["value"].max()))
        columns.append(Column(name, counts_of(group)))
    return tuple(columns)


def _between(low: str, high: str) -> str:
    if low == high:
        return low
    return f"{low} to {high}" if low.startswith("-") else f"{low}{_TO}{high}"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
