"""Votes -> counts per pair -> labels and outliers, by named policies.

A label is the single most frequent answer. Where two or three answers share the lead, the tie
policy decides: `drop` (DiffIQA: one of each is an outlier), `similar` (HGGT) or `dawid_skene`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from annotation_import.config import TiePolicy
from annotation_import.votes import LABEL_NAMES, PAIR_KEY, changes, is_sorted
from runtime.errors import ConfigError

Counts = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]

LABEL_COLUMNS = [
    "study", "ref_id", "test_id", "n_worse", "n_similar", "n_better", "n_votes", "label", "margin",
    "policy", "is_synthetic", "test_id_2",
]  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """Labels of pairs.

    Attributes:
        label: int8 [N], -1, 0 or 1; meaningless where `is_decided` is False.
        is_decided: bool [N].
        is_tie: bool [N], no single most frequent answer.
        margin: int64 [N], votes of the first answer less those of the second.
    """

    label: Codes
    is_decided: npt.NDArray[np.bool_]
    is_tie: npt.NDArray[np.bool_]
    margin: Counts


@dataclass(frozen=True)
class Labels:
    """Labelled pairs and dropped pairs (with their reason), as written to Parquet."""

    labels: pl.DataFrame
    outliers: pl.DataFrame


def count_votes(votes: pl.DataFrame) -> pl.DataFrame:
    """Count the real votes of each pair.

    Returns:
        PAIR_KEY, n_worse, n_similar, n_better, n_votes (int64), is_synthetic; sorted by pair.
    """
    real = votes.filter(pl.col("kind") == "real")
    is_first = changes(real, PAIR_KEY)
    if not is_sorted(real.filter(is_first), PAIR_KEY):
        real = real.sort(PAIR_KEY, nulls_last=False)
        is_first = changes(real, PAIR_KEY)
    pair = np.cumsum(is_first.to_numpy()) - 1
    n_pairs = int(is_first.sum())
    label = real["label"].to_numpy()
    per_class = [np.bincount(pair[label == code], minlength=n_pairs) for code in LABEL_NAMES]
    is_synthetic = np.bincount(pair[real["is_synthetic"].to_numpy()], minlength=n_pairs) > 0
    return (
        real.filter(is_first)
        .select(PAIR_KEY)
        .with_columns(
            *(pl.Series(f"n_{LABEL_NAMES[code]}", n) for code, n in zip(LABEL_NAMES, per_class)),
            pl.Series("n_votes", np.sum(per_class, axis=0)),
            pl.Series("is_synthetic", is_synthetic),
        )
    )


def as_array(counts: pl.DataFrame) -> Counts:
    """Return the counts as int64 [N, 3]: worse, similar, better."""
    return counts.select("n_worse", "n_similar", "n_better").to_numpy().astype(np.int64)


def decide(
    counts: Counts,
    *,
    tie_policy: TiePolicy = "drop",
    posterior: npt.NDArray[np.float64] | None = None,
) -> Decision:
    """Decide the label of each pair from its counts.

    Args:
        counts: int64 [N, 3], votes for worse, similar, better; not modified.
        tie_policy: what happens where no answer alone is the most frequent.
        posterior: float64 [N, 3], probabilities of the three answers; for `dawid_skene`.

    Raises:
        ConfigError: `dawid_skene` without probabilities.
    """
    order = np.sort(counts, axis=1)
    margin = order[:, 2] - order[:, 1]
    is_tie = margin == 0
    label = (np.argmax(counts, axis=1) - 1).astype(np.int8)
    is_decided = ~is_tie
    if tie_policy == "similar":
        label = np.where(is_tie, np.int8(0), label)
        is_decided = np.ones(len(counts), dtype=np.bool_)
    elif tie_policy == "dawid_skene":
        if posterior is None:
            raise ConfigError("tie_policy dawid_skene needs the fitted probabilities")
        ranked = np.sort(posterior, axis=1)
        is_clear = ranked[:, 2] > ranked[:, 1]
        label = np.where(is_tie, (np.argmax(posterior, axis=1) - 1).astype(np.int8), label)
        is_decided = ~is_tie | is_clear
    return Decision(label.astype(np.int8), is_decided, is_tie, margin)


def decide_labels(
    counts: pl.DataFrame,
    *,
    min_votes: int = 3,
    tie_policy: TiePolicy = "drop",
    posterior: npt.NDArray[np.float64] | None = None,
) -> Labels:
    """Turn counted pairs into labels and outliers.

    Args:
        counts: as `count_votes` returns them.
        min_votes: pairs with fewer votes become outliers (`too_few_votes`).
        tie_policy: see `decide`.
        posterior: float64 [N, 3] in the order of `counts`; for `dawid_skene`.

    Returns:
        Every pair in exactly one of the two tables, both sorted by pair. `policy` is `majority`
        where the votes decided, else the tie policy that did.
    """
    decision = decide(as_array(counts), tie_policy=tie_policy, posterior=posterior)
    has_votes = counts["n_votes"].to_numpy() >= min_votes
    is_labelled = decision.is_decided & has_votes
    table = counts.with_columns(
        label=pl.Series(decision.label, dtype=pl.Int8),
        margin=pl.Series(decision.margin, dtype=pl.Int64),
        policy=pl.Series(np.where(decision.is_tie, tie_policy, "majority"), dtype=pl.String),
        reason=pl.when(pl.Series(has_votes))
        .then(pl.lit("no_majority"))
        .otherwise(pl.lit("too_few_votes")),
    )
    labels = table.filter(pl.Series(is_labelled)).select(LABEL_COLUMNS)
    outliers = (
        table.filter(pl.Series(~is_labelled))
        .with_columns(label=pl.lit(None, pl.Int8))
        .select([*LABEL_COLUMNS, "reason"])
    )
    return Labels(labels, outliers)


def label_totals(labels: pl.DataFrame) -> dict[str, int]:
    """Count labelled pairs per class."""
    column = labels["label"]
    return {
        "worse": int((column == -1).sum()),
        "similar": int((column == 0).sum()),
        "better": int((column == 1).sum()),
    }
