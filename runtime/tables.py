"""Parquet tables: read with the columns that are expected, written whole and reproducibly."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from runtime.atomic import write_bytes
from runtime.errors import DataError

Schema = Mapping[str, pl.DataType | type[pl.DataType]]


def write_table(path: str | Path, table: pl.DataFrame) -> None:
    """Write a Parquet file atomically; equal tables give equal bytes."""
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd", compression_level=3, statistics=False)
    write_bytes(path, buffer.getvalue())


def read_table(
    path: str | Path, *, columns: Iterable[str] = (), what: str = "table"
) -> pl.DataFrame:
    """Read a Parquet file and check that the columns a stage relies on are there.

    Raises:
        DataError: the file is missing, unreadable, or lacks a column.
    """
    try:
        table = pl.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path}: {what} not found; run the stage that writes it first") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: {what} is not a readable Parquet file ({error})") from None
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(
            f"{path}: {what} lacks the columns {', '.join(missing)}; found "
            f"{', '.join(table.columns)}; rerun the stage that writes it"
        )
    return table


def table_of(rows: Iterable[Mapping[str, object]], schema: Schema) -> pl.DataFrame:
    """Build a table from row dictionaries with an explicit schema, also when there are none."""
    return pl.DataFrame(list(rows), schema=dict(schema), orient="row")
