"""Read a source of any layout into the votes table.

Beside the votes, a tree may hold `SYNTHETIC.json` (the votes are simulated, and stay marked) and
`raters.parquet` (ours: who voted and what was shown where, which no published layout can hold).
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from annotation_import import diffiqa, hggt, long_table, sriqa
from annotation_import.config import Layout, TableConfig
from annotation_import.opening import iter_files, open_source
from annotation_import.problems import Problems
from annotation_import.sources import Aside, Limits, SourceFile
from annotation_import.votes import PAIR_KEY, VOTE_SCHEMA, complete, gather, sort_votes
from runtime.errors import DataError

SYNTHETIC_MARK = "SYNTHETIC.json"
RATERS_FILE = "raters.parquet"
MAX_VOTE_BYTES = 1 << 20
MAX_TABLE_BYTES = 1 << 32

_TREE_LIMITS = Limits({".json": MAX_VOTE_BYTES, RATERS_FILE: MAX_TABLE_BYTES})
_TABLE_LIMITS = Limits(
    {SYNTHETIC_MARK: MAX_VOTE_BYTES, **dict.fromkeys(long_table.SUFFIXES, MAX_TABLE_BYTES)}
)
_SIDECAR = {
    "test_id": pl.String, "test_id_2": pl.String, "slot": pl.String, "rater_id": pl.String,
    "shown_left": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class ReadVotes:
    """What a source holds: votes as they are, and what could not be read."""

    votes: pl.DataFrame
    problems: Problems


def read_votes(
    layout: Layout,
    source: str | Path,
    *,
    study: str | None = None,
    table: TableConfig | None = None,
) -> ReadVotes:
    """Read every vote of a source.

    Args:
        layout: diffiqa, sriqa, hggt (label trees) or table (CSV, JSONL, Parquet).
        source: folder, .zip, .tar(.gz) or single table.
        study: name of the study; by default the layout's.
        table: column and answer maps of the layout `table`.

    Raises:
        DataError: the source does not exist, cannot be opened, or a table lacks a column.
    """
    problems = Problems()
    aside = Aside((SYNTHETIC_MARK,) if layout == "table" else (SYNTHETIC_MARK, RATERS_FILE))
    parts = _parts(layout, source, table or TableConfig(), problems, aside)
    name = pl.lit(study or layout, pl.String)
    votes = gather(parts)
    is_synthetic = any(file.name == SYNTHETIC_MARK for file in aside.files)
    votes = votes.with_columns(
        study=name if study else pl.coalesce(pl.col("study"), name),
        is_synthetic=pl.col("is_synthetic") | is_synthetic,
    )
    votes = _clear_bad_times(votes, problems)
    sidecars = [file for file in aside.files if file.name == RATERS_FILE]
    for file in sidecars:
        votes = _with_raters(votes, file)
    return ReadVotes(sort_votes(votes) if sidecars else votes, problems)


def _parts(
    layout: Layout, source: str | Path, maps: TableConfig, problems: Problems, aside: Aside
) -> Iterator[pl.DataFrame]:
    """Partial votes tables of a source."""
    if layout == "table":
        files = iter_files(source, _TABLE_LIMITS, problems, aside)
        return long_table.read_tables(files, problems, columns=maps.columns, labels=maps.labels)
    if layout == "diffiqa":
        return diffiqa.read_tree(
            open_source(source, _TREE_LIMITS, problems, aside), problems, aside
        )
    reader = sriqa.read_tree if layout == "sriqa" else hggt.read_tree
    return reader(iter_files(source, _TREE_LIMITS, problems, aside), problems)


def _clear_bad_times(votes: pl.DataFrame, problems: Problems) -> pl.DataFrame:
    seconds = pl.col("time_s")
    is_bad = seconds.is_not_null() & ~(seconds.is_finite() & (seconds >= 0))
    for row in votes.filter(is_bad).iter_rows(named=True):
        problems.add("bad_time", row["source_file"], f"Total: {row['time_s']}")
    return votes.with_columns(time_s=pl.when(~is_bad).then(seconds))


def _with_raters(votes: pl.DataFrame, file: SourceFile) -> pl.DataFrame:
    """Add rater ids and shown sides to a tree's votes, and the votes that have no slot."""
    try:
        sidecar = pl.read_parquet(io.BytesIO(file.content))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{file.path}: not a readable Parquet file ({error})") from None
    missing = [name for name in _SIDECAR if name not in sidecar.columns]
    if missing:
        raise DataError(
            f"{file.path}: lacks the columns {', '.join(missing)}; found "
            f"{', '.join(sidecar.columns)}"
        )
    in_tree = sidecar.filter(pl.col("slot").is_not_null()).select(
        pl.col(name).cast(kind) for name, kind in _SIDECAR.items()
    )
    key = ["test_id", "test_id_2", "slot"]
    if in_tree.select(key).is_duplicated().any():
        raise DataError(f"{file.path}: two rows for one image and slot; expected one")
    joined = votes.drop("rater_id", "shown_left").join(
        in_tree, on=key, how="left", nulls_equal=True, maintain_order="left"
    )
    beside = sidecar.filter(pl.col("slot").is_null()).with_columns(
        source_file=pl.lit(file.path), study=pl.lit(votes.item(0, "study") if len(votes) else None)
    )
    extra = complete(beside).with_columns(
        is_synthetic=pl.lit(bool(votes["is_synthetic"].any()), pl.Boolean)
    )
    return pl.concat([joined.select(list(VOTE_SCHEMA)), extra])


def known_images(path: str | Path) -> frozenset[str]:
    """Read the ids of a study's test images, in lower case.

    Args:
        path: a Parquet table with a column test_id, a text file with an id or file name a line,
            or a folder of images (the stems of its files, at any depth).

    Raises:
        DataError: not found, or without a test_id column.
    """
    place = Path(path)
    if place.is_dir():
        stems = [file.stem for file in place.rglob("*") if file.is_file()]
    elif place.suffix.lower() == ".parquet":
        table = pl.read_parquet(place)
        if "test_id" not in table.columns:
            raise DataError(f"{place}: column test_id not found; it has {', '.join(table.columns)}")
        stems = table["test_id"].to_list()
    elif place.is_file():
        lines = place.read_text(encoding="utf-8-sig").splitlines()
        stems = [Path(line.strip()).stem for line in lines if line.strip()]
    else:
        raise DataError(f"{place}: list of known images not found")
    return frozenset(stem.lower() for stem in stems)


__all__ = ["PAIR_KEY", "ReadVotes", "known_images", "read_votes"]
