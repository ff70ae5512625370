"""The one votes table: a row is one answer of one person about one pair of images.

`label` is always relative to the test image (1: test better than what it is compared with,
0: similar, -1: worse). The other image is the reference `ref_id`, or, in a paired
comparison of two test images of one content, `test_id_2`.

A `slot` (A, B, C) is a place for a vote in a label tree; a `rater_id` is a person. In the
released sets many people share a slot, so one never stands in for the other silently.
"""

from collections.abc import Iterable

import polars as pl

LABEL_NAMES: dict[int, str] = {-1: "worse", 0: "similar", 1: "better"}

VOTE_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "study": pl.String,
    "ref_id": pl.String,
    "test_id": pl.String,
    "test_id_2": pl.String,  # null unless two test images are compared
    "rater_id": pl.String,  # null where the source names no person
    "slot": pl.String,  # null where the source has no slots
    "label": pl.Int8,
    "shown_left": pl.String,  # ref | test | test_2, null where unknown
    "started": pl.String,  # as written in the source, no time zone
    "ended": pl.String,
    "time_s": pl.Float64,  # answer time of the trial, seconds
    "kind": pl.String,  # real | repeat | gold | train; only real votes decide labels
    "is_synthetic": pl.Boolean,
    "source_file": pl.String,  # relative to the source
    "source_row": pl.Int64,  # line or row, from 1; null where one file is one vote
}
PAIR_KEY = ["study", "ref_id", "test_id", "test_id_2"]
KINDS = ("real", "repeat", "gold", "train")
SIDES = ("ref", "test", "test_2")

# what usually tells votes apart, and what settles the rest
_ORDER = [*PAIR_KEY, "slot", "rater_id"]
_FULL_ORDER = [*_ORDER, "kind", "source_file", "source_row", "started"]


def complete(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` with every column of the votes table, typed and in order; absent ones null."""
    defaults: dict[str, pl.Expr] = {
        name: pl.lit(None, dtype=kind).alias(name) for name, kind in VOTE_SCHEMA.items()
    }
    defaults["kind"] = pl.lit("real").alias("kind")
    defaults["is_synthetic"] = pl.lit(False).alias("is_synthetic")
    return frame.select(
        pl.col(name).cast(kind) if name in frame.columns else defaults[name]
        for name, kind in VOTE_SCHEMA.items()
    )


def gather(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Join partial tables into one votes table in its fixed order, whatever the reading order."""
    parts = [complete(frame) for frame in frames]
    if not parts:
        return pl.DataFrame(schema=VOTE_SCHEMA)
    return sort_votes(pl.concat(parts))


def sort_votes(votes: pl.DataFrame) -> pl.DataFrame:
    """Sort by pair, then by slot, rater and place in the source."""
    # columns with one value cost as much to sort by as any other
    keys = [name for name in _ORDER if not _is_constant(votes[name])] or ["source_file"]
    ordered = votes.sort(keys, nulls_last=False)
    if changes(ordered, _ORDER).all():
        return ordered
    return votes.sort(_FULL_ORDER, nulls_last=False, maintain_order=True)


def _is_constant(column: pl.Series) -> bool:
    nulls = column.null_count()
    return nulls == len(column) or (nulls == 0 and bool((column == column[0]).all()))


def changes(votes: pl.DataFrame, key: list[str]) -> pl.Series:
    """Mark the rows whose key differs from that of the row before; the first is marked.

    On sorted votes this finds groups without hashing half a million texts.
    """
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in key)
    is_first = pl.int_range(pl.len()) == 0
    return votes.select(changes=differs | is_first)["changes"]


def is_sorted(votes: pl.DataFrame, key: list[str]) -> bool:
    """Whether rows ascend by `key`, null first; equal neighbours are allowed."""
    ascends = pl.lit(True)
    for name in reversed(key):
        now, before = pl.col(name), pl.col(name).shift(1)
        is_greater = now.is_not_null() & (before.is_null() | (now > before))
        ascends = is_greater.fill_null(False) | (now.eq_missing(before) & ascends)
    return bool(votes.select(ascends.slice(1).all()).item())
