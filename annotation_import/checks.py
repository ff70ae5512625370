"""Checks across votes: case collisions, duplicates, unknown images, holes. Good votes stay.

Votes come in sorted (`annotation_import.votes.sort_votes`), so that the common case, nothing
wrong, is seen from neighbouring rows.
"""

from collections.abc import Collection
from typing import Literal

import polars as pl

from annotation_import.problems import Problems
from annotation_import.votes import PAIR_KEY, changes, sort_votes

_IS_REAL = pl.col("kind") == "real"


def unify_case(votes: pl.DataFrame) -> pl.DataFrame:
    """Give ids that differ only in case one spelling, the first in sorting order."""
    is_changed = False
    for name in ("ref_id", "test_id", "test_id_2"):
        lower = pl.col(name).str.to_lowercase()
        if votes.select((pl.col(name) == lower).all()).item():
            continue
        spelled = votes.select(pl.col(name).drop_nulls().unique())
        if len(spelled) == spelled.select(lower.n_unique()).item():
            continue
        votes = votes.with_columns(pl.col(name).min().over(lower).alias(name))
        is_changed = True
    return sort_votes(votes) if is_changed else votes


def reject_unknown(
    votes: pl.DataFrame, known: Collection[str] | None, problems: Problems
) -> pl.DataFrame:
    """Take out votes about images that the study does not have; note images without a vote.

    Args:
        votes: votes table.
        known: ids of the study's test images in lower case; None: nothing is known.
        problems: receives both.
    """
    if known is None:
        return votes
    ids = pl.Series("known", sorted(known), pl.String)
    first, second = (pl.col(name).str.to_lowercase() for name in ("test_id", "test_id_2"))
    is_known = first.is_in(ids.implode()) & second.is_in(ids.implode()).fill_null(True)
    for row in votes.filter(~is_known).iter_rows(named=True):
        name = row["test_id"] if not row["test_id_2"] else f"{row['test_id']}, {row['test_id_2']}"
        problems.add("unknown_image", _place(row), name)
    kept = votes.filter(is_known)
    voted = {
        name.lower()
        for column in ("test_id", "test_id_2")
        for name in kept[column].drop_nulls().unique()
    }
    for name in sorted(set(known) - voted):
        problems.add("unvoted_image", name)
    return kept


def settle_duplicates(
    votes: pl.DataFrame, problems: Problems, *, on_duplicate: Literal["reject", "repeat"]
) -> pl.DataFrame:
    """Keep the first real vote of each voter on a pair; the others are rejected or repeats.

    Where the files of such votes differ only in case, nothing says which one is meant: all are
    rejected. Else the first is the one with the earliest start, then the first in the source.
    Votes with neither slot nor rater cannot be told apart and are all kept.
    """
    keyed = votes.with_columns(voter=pl.coalesce(pl.col("rater_id"), pl.col("slot")))
    real = keyed if bool((votes["kind"] == "real").all()) else keyed.filter(_IS_REAL)
    key = [*PAIR_KEY, "voter"]
    # sorted by slot before rater, so equal raters of a pair need not be neighbours
    if bool(changes(real, key).all()) and not _has_slots_and_raters(votes):
        return votes
    numbered = keyed.with_row_index("row").with_columns(
        path=pl.col("source_file").str.to_lowercase()
    )
    checked = numbered.filter(_IS_REAL & pl.col("voter").is_not_null())
    doubled = checked.filter(pl.struct(key).is_duplicated())
    same_path = pl.struct(*key, "path")
    colliding = doubled.filter(
        same_path.is_duplicated() & (pl.col("source_file").n_unique().over(*key, "path") > 1)
    )
    for row in colliding.iter_rows(named=True):
        problems.add("case_collision", _place(row), "beside a file that differs only in case")
    place = ["started", "source_file", "source_row"]
    later = (
        doubled.filter(~pl.col("row").is_in(colliding["row"].implode()))
        .sort(place, nulls_last=True, maintain_order=True)
        .filter(~pl.struct(key).is_first_distinct())
    )
    is_colliding, is_later = (
        pl.col("row").is_in(rows["row"].implode()) for rows in (colliding, later)
    )
    kept = numbered.filter(~is_colliding)
    if on_duplicate == "repeat":
        kind = pl.when(is_later).then(pl.lit("repeat")).otherwise(pl.col("kind"))
        return kept.with_columns(kind=kind).drop("row", "voter", "path")
    for row in later.iter_rows(named=True):
        problems.add("duplicate_vote", _place(row), f"{row['voter']} on {row['test_id']}")
    return kept.filter(~is_later).drop("row", "voter", "path")


def _has_slots_and_raters(votes: pl.DataFrame) -> bool:
    return all(votes[name].null_count() < len(votes) for name in ("slot", "rater_id"))


def note_holes(votes: pl.DataFrame, problems: Problems) -> None:
    """Note pairs without a vote in some slot, and pairs missing from a paired comparison."""
    real = votes.filter(_IS_REAL)
    slots = real["slot"].drop_nulls().unique().sort()
    n_pairs = int(changes(real, PAIR_KEY).sum())
    # every pair has at most one vote in a slot, so the full number of votes means no hole
    if len(slots) > 1 and len(real.filter(pl.col("slot").is_not_null())) < n_pairs * len(slots):
        voted = real.filter(pl.col("slot").is_not_null()).group_by(PAIR_KEY).agg(
            slots=pl.col("slot").unique()
        )  # fmt: skip
        short = voted.filter(pl.col("slots").list.len() < len(slots)).sort(PAIR_KEY)
        for row in short.iter_rows(named=True):
            absent = sorted(set(slots) - set(row["slots"]))
            problems.add("missing_slot", pair_name(row), f"no vote in {', '.join(absent)}")
    for content, first, second in missing_pairs(real):
        problems.add("missing_pair", f"{first} and {second}", f"content {content}")


def missing_pairs(votes: pl.DataFrame) -> list[tuple[str, str, str]]:
    """List (content, item, item) of a paired comparison that nobody compared."""
    compared = votes.filter(pl.col("test_id_2").is_not_null())
    missing: list[tuple[str, str, str]] = []
    for (content,), group in compared.group_by(["ref_id"], maintain_order=True):
        items = sorted({*group["test_id"], *group["test_id_2"]})
        done = set(zip(group["test_id"], group["test_id_2"]))
        missing.extend(
            (str(content), one, two)
            for index, one in enumerate(items)
            for two in items[index + 1 :]
            if (one, two) not in done
        )
    return sorted(missing)


def pair_name(row: dict[str, object]) -> str:
    """Name a pair for a person to read."""
    second = row.get("test_id_2")
    return f"{row['test_id']} and {second}" if second else str(row["test_id"])


def _place(row: dict[str, object]) -> str:
    line = row.get("source_row")
    return f"{row['source_file']}:{line}" if line is not None else str(row["source_file"])
