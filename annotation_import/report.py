"""Layout of `report.json`: what an import found, for people and for the run's report.

    {
      "study": str, "layout": str, "is_synthetic": bool,
      "votes":  {"n": int, "n_rejected": int, "n_excluded": int, "n_repeats": int,
                 "worse": int, "similar": int, "better": int},
      "pairs":  {"n": int, "n_labelled": int, "n_outliers": int,
                 "votes_per_pair": {"3": int, ...}, "outlier_reasons": {reason: int}},
      "labels": {"worse": int, "similar": int, "better": int},
      "policy": {"min_votes": int, "tie_policy": str, "exclude_raters": [str]},
      "problems": {reason: {"count": int, "is_rejected": bool, "meaning": str,
                            "examples": [{"where": str, "detail": str}, ...at most 20]}},
      "agreement": {"n_units": int, "alpha_nominal": INTERVAL, "alpha_ordinal": INTERVAL,
                    "fleiss_kappa": float|null, "gwet_ac1": float|null,
                    "percent_agreement": float|null,
                    "percent_agreement_by_class": {"worse": float|null, ...}},
      "raters": null | {"n": int, "n_flagged": int, "rows": [RATER, ...]},
      "raters_absent_because": str | null,
      "what_if": null | {"excluded": [rater_id], "before": LABELS, "after": LABELS,
                         "n_changed": int},
      "dawid_skene": null | {"iterations": int, "is_converged": bool, "class_shares": LABELS,
                             "n_ties_resolved": int},
      "scales": null | {"model": str, "ties": str, "n_contents": int,
                        "n_disconnected": int, "contents": [CONTENT, ...]}
    }

    INTERVAL = {"value": float|null, "low": float|null, "high": float|null,
                "confidence": float, "replicates": int}
    LABELS = {"worse": int|float, "similar": .., "better": .., "outlier": .. (what_if only)}
    RATER = {"rater_id": str, "n_votes": int, "worse_share", "similar_share", "better_share": float,
             "agreement": float|null, "agreement_low", "agreement_high": float|null,
             "n_compared": int, "median_time_s": float|null, "too_fast_share": float|null,
             "time_outlier_share": float|null, "longest_run": int, "run_p": float,
             "entropy_bits": float, "left_share": float|null, "side_p": float|null,
             "n_repeats": int, "repeat_agreement": float|null, "repeat_low", "repeat_high",
             "dawid_skene_accuracy": float|null, "flags": [str]}
    CONTENT = {"ref_id": str, "n_items": int, "n_votes": int, "n_missing_pairs": int,
               "is_connected": bool, "is_strongly_connected": bool}

Values are rounded to 12 digits after the point at most; the file holds no times and no paths
of the machine, so the same votes give the same bytes.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from annotation_import.agreement import (
    Interval,
    alpha_interval,
    fleiss_kappa,
    gwet_ac1,
    patterns_of,
    percent_agreement,
    percent_agreement_by_class,
)
from annotation_import.checks import missing_pairs
from annotation_import.config import QualityConfig, ScaleConfig
from annotation_import.counts import Counts, Labels, label_totals
from annotation_import.dawid_skene import DawidSkene
from annotation_import.raters import Rater, flagged
from runtime.seeds import rng

_DIGITS = 12


def plain(value: Any) -> Any:
    """Make a value fit for JSON: rounded, and null for what is not a number."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        return round(float(value), _DIGITS) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def agreement_section(counts: Counts, quality: QualityConfig, *, seed: int) -> dict[str, Any]:
    """Agreement statistics of all pairs with at least two votes."""
    patterns = patterns_of(counts)

    def interval(metric: Any) -> dict[str, Any]:
        found = alpha_interval(
            patterns, metric,
            replicates=quality.bootstrap_replicates,
            confidence=quality.confidence,
            generator=rng(seed, "annotation.alpha", metric),
        )  # fmt: skip
        return _interval(found, quality)

    return {
        "n_units": patterns.n_units,
        "alpha_nominal": interval("nominal"),
        "alpha_ordinal": interval("ordinal"),
        "fleiss_kappa": fleiss_kappa(patterns),
        "gwet_ac1": gwet_ac1(patterns),
        "percent_agreement": percent_agreement(patterns),
        "percent_agreement_by_class": percent_agreement_by_class(patterns),
    }


def _interval(found: Interval, quality: QualityConfig) -> dict[str, Any]:
    return {
        "value": found.value, "low": found.low, "high": found.high,
        "confidence": quality.confidence, "replicates": quality.bootstrap_replicates,
    }  # fmt: skip


def votes_section(votes: pl.DataFrame, *, n_rejected: int, n_excluded: int) -> dict[str, int]:
    """Number of votes, what became of them, and their answers."""
    real = votes.filter(pl.col("kind") == "real")
    return {
        "n": len(real),
        "n_rejected": n_rejected,
        "n_excluded": n_excluded,
        "n_repeats": len(votes.filter(pl.col("kind") == "repeat")),
        **label_totals(real),
    }


def pairs_section(counts: pl.DataFrame, decided: Labels) -> dict[str, Any]:
    """Number of pairs, of votes on them, and of outliers by reason."""
    sizes = counts["n_votes"].value_counts().sort("n_votes")
    reasons = decided.outliers["reason"].value_counts().sort("reason")
    return {
        "n": len(counts),
        "n_labelled": len(decided.labels),
        "n_outliers": len(decided.outliers),
        "votes_per_pair": {str(size): count for size, count in sizes.iter_rows()},
        "outlier_reasons": dict(reasons.iter_rows()),
    }


def raters_section(raters: list[Rater]) -> dict[str, Any]:
    """Every rater's row."""
    return {
        "n": len(raters),
        "n_flagged": len(flagged(raters)),
        "rows": [rater.as_row() for rater in raters],
    }


def what_if_section(before: Labels, after: Labels, excluded: list[str]) -> dict[str, Any]:
    """Label counts with all raters and without the flagged ones."""
    key = ["study", "ref_id", "test_id", "test_id_2"]
    both = before.labels.join(after.labels, on=key, how="full", nulls_equal=True, coalesce=True)
    is_same = (pl.col("label") == pl.col("label_right")).fill_null(False)
    return {
        "excluded": excluded,
        "before": {**label_totals(before.labels), "outlier": len(before.outliers)},
        "after": {**label_totals(after.labels), "outlier": len(after.outliers)},
        "n_changed": len(both.filter(~is_same)),
    }


def dawid_skene_section(fit: DawidSkene, decided: Labels) -> dict[str, Any]:
    """How the fit went, and how many ties it resolved."""
    return {
        "iterations": fit.iterations,
        "is_converged": fit.is_converged,
        "class_shares": dict(zip(("worse", "similar", "better"), fit.shares.tolist())),
        "n_ties_resolved": len(decided.labels.filter(pl.col("policy") == "dawid_skene")),
    }


def scales_section(scales: pl.DataFrame, votes: pl.DataFrame, scale: ScaleConfig) -> dict[str, Any]:
    """Which contents were scaled, and whether their comparisons are connected."""
    holes = pl.DataFrame(
        missing_pairs(votes), schema=["ref_id", "one", "two"], orient="row",
        schema_overrides=dict.fromkeys(["ref_id", "one", "two"], pl.String),
    )["ref_id"].value_counts()  # fmt: skip
    n_missing = dict(holes.iter_rows())
    contents = scales.group_by("ref_id", maintain_order=True).agg(
        n_items=pl.len(),
        n_votes=pl.col("n_comparisons").sum() // 2,
        is_connected=pl.col("is_connected").first(),
        is_strongly_connected=pl.col("is_strongly_connected").first(),
    )
    rows = [
        {**row, "n_missing_pairs": n_missing.get(row["ref_id"], 0)}
        for row in contents.iter_rows(named=True)
    ]
    return {
        "model": scale.model,
        "ties": scale.ties,
        "n_contents": len(rows),
        "n_disconnected": sum(not row["is_connected"] for row in rows),
        "contents": rows,
    }
