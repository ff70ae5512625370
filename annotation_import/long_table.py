"""Long tables: one row is one vote; CSV, JSONL or Parquet, columns and answers by explicit maps.

Everything is read as text first, so that a wrong value is reported with its file and line
instead of ending the read.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import polars as pl

from annotation_import.problems import Problems
from annotation_import.sources import SourceFile
from annotation_import.votes import KINDS, SIDES
from runtime.errors import DataError

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")
NEEDED = ("ref_id", "test_id", "label")
OPTIONAL = (
    "test_id_2", "rater_id", "slot", "shown_left", "started", "ended", "time_s", "kind", "study",
    "is_synthetic",
)  # fmt: skip
_BOM = b"\xef\xbb\xbf"
_TRUE = ("true", "1", "yes")


def read_tables(
    files: Iterable[SourceFile],
    problems: Problems,
    *,
    columns: Mapping[str, str],
    labels: Mapping[str, int],
) -> Iterator[pl.DataFrame]:
    """Read votes from tables; yields partial votes tables.

    Args:
        files: the tables.
        problems: receives every row that is left out, with its reason and line.
        columns: our column name -> the table's; others keep their name.
        labels: the table's answer, in lower case -> -1, 0 or 1.

    Raises:
        DataError: a table lacks a column that is needed, or `columns` names an unknown one.
    """
    unknown = set(columns) - {*NEEDED, *OPTIONAL}
    if unknown:
        raise DataError(
            f"table.columns: unknown names {', '.join(sorted(unknown))}; expected some of "
            f"{', '.join((*NEEDED, *OPTIONAL))}"
        )
    codes = {word.strip().lower(): code for word, code in labels.items()}
    for file in files:
        text = _read_text(file, problems)
        yield _to_votes(_rename(text, columns, file.path), codes, file.path, problems)


def _read_text(file: SourceFile, problems: Problems) -> pl.DataFrame:
    """Read one table as text columns plus `source_row`."""
    content = file.content
    if content.startswith(_BOM):
        problems.add("byte_order_mark", file.path)
        content = content[len(_BOM) :]
    name = file.name.lower()
    if name.endswith(".parquet"):
        return _read_parquet(content, file.path)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file.path}: not UTF-8 ({error}); convert it") from None
    return (
        _read_csv(text, file.path, problems)
        if name.endswith(".csv")
        else _read_jsonl(text, file.path, problems)
    )


def _read_parquet(content: bytes, path: str) -> pl.DataFrame:
    try:
        table = pl.read_parquet(io.BytesIO(content))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from None
    return table.with_columns(pl.all().cast(pl.String)).with_row_index("source_row", offset=1)


def _read_csv(text: str, path: str, problems: Problems) -> pl.DataFrame:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = [name.strip() for name in next(reader, [])]
    if len(set(header)) != len(header):
        raise DataError(f"{path}: line 1: a column name is given twice: {', '.join(header)}")
    rows: list[list[str | None]] = []
    numbers: list[int] = []
    line = reader.line_num
    while True:
        start = line + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problems.add("malformed_row", f"{path}:{start}", str(error))
            line = reader.line_num
            continue
        line = reader.line_num
        if cells is None:
            break
        if not cells:
            continue
        if len(cells) != len(header):
            problems.add(
                "malformed_row", f"{path}:{start}", f"{len(cells)} fields, expected {len(header)}"
            )
            continue
        rows.append([cell.strip() or None for cell in cells])
        numbers.append(start)
    return _text_table(header, rows, numbers)


def _read_jsonl(text: str, path: str, problems: Problems) -> pl.DataFrame:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append(decode(line))
        except msgspec.DecodeError as error:
            problems.add("malformed_json", f"{path}:{number}", str(error))
            continue
        numbers.append(number)
    header = list(dict.fromkeys(name for record in records for name in record))
    rows = [[_as_text(record.get(name)) for name in header] for record in records]
    return _text_table(header, rows, numbers)


def _as_text(value: Any) -> str | None:
    return None if value is None or str(value).strip() == "" else str(value).strip()


def _text_table(
    header: list[str], rows: list[list[str | None]], numbers: list[int]
) -> pl.DataFrame:
    columns = zip(*rows) if rows else ([] for _ in header)
    table = pl.DataFrame(
        [pl.Series(name, list(cells), pl.String) for name, cells in zip(header, columns)]
    )
    return table.with_columns(pl.Series("source_row", numbers, pl.Int64))


def _rename(table: pl.DataFrame, columns: Mapping[str, str], path: str) -> pl.DataFrame:
    found: dict[str, str] = {}
    for ours in (*NEEDED, *OPTIONAL):
        theirs = columns.get(ours, ours)
        if theirs in table.columns:
            found[ours] = theirs
        elif ours in NEEDED or ours in columns:
            raise DataError(
                f"{path}: column '{theirs}' for {ours} not found; the table has "
                f"{', '.join(name for name in table.columns if name != 'source_row')}; name it "
                "in table.columns (--column)"
            )
    return table.select(
        pl.col("source_row"), *(pl.col(theirs).alias(ours) for ours, theirs in found.items())
    )


def _to_votes(
    text: pl.DataFrame, codes: Mapping[str, int], path: str, problems: Problems
) -> pl.DataFrame:
    """Turn text columns into typed votes; wrong rows go to `problems`."""
    answer = pl.col("label").str.strip_chars().str.to_lowercase().str.strip_suffix(".0")
    has = set(text.columns)
    table = text.with_columns(
        label_code=answer.replace_strict(dict(codes), default=None, return_dtype=pl.Int8),
        reason=pl.lit(None, pl.String),
        source_file=pl.lit(path),
    )
    rules = [
        ("malformed_row", pl.col("ref_id").is_null() | pl.col("test_id").is_null(), "test_id"),
        ("missing_label", pl.col("label").is_null(), "label"),
        ("wrong_label", pl.col("label_code").is_null(), "label"),
    ]
    if "kind" in has:
        rules.append(("bad_kind", ~pl.col("kind").fill_null("real").is_in(KINDS), "kind"))
    for reason, is_wrong, column in rules:
        table = _take_out(table, reason, is_wrong, column, problems)
    if "time_s" in has:
        table = _clear_times(table, problems)
    if "shown_left" in has:
        table = _clear_sides(table, problems)
    if "kind" in has:
        table = table.with_columns(pl.col("kind").fill_null("real"))
    if "is_synthetic" in has:
        is_true = pl.col("is_synthetic").fill_null("false").str.to_lowercase().is_in(_TRUE)
        table = table.with_columns(is_synthetic=is_true)
    table = table.with_columns(label=pl.col("label_code")).drop("label_code", "reason")
    return _orient(table) if "test_id_2" in has else table


def _take_out(
    table: pl.DataFrame, reason: str, is_wrong: pl.Expr, column: str, problems: Problems
) -> pl.DataFrame:
    for row in table.filter(is_wrong).iter_rows(named=True):
        problems.add(
            reason, f"{row['source_file']}:{row['source_row']}", f"{column}: {row[column]}"
        )
    return table.filter(~is_wrong)


def _clear_times(table: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    seconds = pl.col("time_s").cast(pl.Float64, strict=False)
    is_good = seconds.is_finite() & (seconds >= 0)
    for row in table.filter(pl.col("time_s").is_not_null() & ~is_good.fill_null(False)).iter_rows(
        named=True
    ):
        problems.add("bad_time", f"{row['source_file']}:{row['source_row']}", row["time_s"])
    return table.with_columns(time_s=pl.when(is_good).then(seconds))


def _clear_sides(table: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    side = pl.col("shown_left").str.to_lowercase()
    is_good = side.is_in(SIDES)
    for row in table.filter(~is_good).iter_rows(named=True):
        problems.add("bad_side", f"{row['source_file']}:{row['source_row']}", row["shown_left"])
    return table.with_columns(shown_left=pl.when(is_good).then(side))


def _orient(table: pl.DataFrame) -> pl.DataFrame:
    """Turn paired comparisons so that test_id < test_id_2."""
    is_turned = (pl.col("test_id_2") < pl.col("test_id")).fill_null(False)
    turned = table.with_columns(
        test_id=pl.when(is_turned).then(pl.col("test_id_2")).otherwise(pl.col("test_id")),
        test_id_2=pl.when(is_turned).then(pl.col("test_id")).otherwise(pl.col("test_id_2")),
        label=pl.when(is_turned).then(-pl.col("label")).otherwise(pl.col("label")),
    )
    if "shown_left" not in table.columns:
        return turned
    other = {"test": "test_2", "test_2": "test"}
    return turned.with_columns(
        shown_left=pl.when(table.select(is_turned).to_series())
        .then(pl.col("shown_left").replace(other))
        .otherwise(pl.col("shown_left"))
    )
