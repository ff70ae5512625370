"""Nested parameters of the plan in a form that every reader of the shards can type.

Readers that infer types from a few samples, as Hugging Face `datasets` does, cope with
records whose fields come and go, but not with lists of such records. So a list of records
becomes a record of records, keyed "1", "2", ...
"""

from collections.abc import Mapping
from typing import Any

import polars as pl


def lists_to_records(table: pl.DataFrame) -> pl.DataFrame:
    """Turn lists of structs, at any depth inside structs, into structs keyed by position."""
    return table.with_columns(
        _as_records(table, pl.col(name), kind).alias(name)
        for name, kind in table.schema.items()
        if kind.is_nested() and _holds_records(kind)
    )


def _holds_records(kind: Any) -> bool:
    if isinstance(kind, pl.Struct):
        return any(_holds_records(field.dtype) for field in kind.fields)
    return isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct)


def _as_records(table: pl.DataFrame, value: pl.Expr, kind: Any) -> pl.Expr:
    if not _holds_records(kind):
        return value
    parts: dict[str, tuple[pl.Expr, Any]]
    if isinstance(kind, pl.Struct):
        parts = {f.name: (value.struct.field(f.name), f.dtype) for f in kind.fields}
    else:
        longest = int(table.select(value.list.len().max()).item() or 1)
        parts = {
            str(index + 1): (value.list.get(index, null_on_oob=True), kind.inner)
            for index in range(longest)
        }
    fields = [_as_records(table, part, inner).alias(name) for name, (part, inner) in parts.items()]
    return pl.when(value.is_not_null()).then(pl.struct(fields))


def without_nulls(value: Any) -> Any:
    """Drop what does not apply from nested parameters.

    A table has a column for every parameter of every kind of degradation, and most draws use
    few of them: the empty ones would be most of a sample's JSON.
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value
