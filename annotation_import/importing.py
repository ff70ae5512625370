"""Import: votes of any layout -> votes, labels, outliers, problems, scales, report.

`import_votes` works on tables in memory; `annotation_import.stage` reads and writes them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from annotation_import import report as sections
from annotation_import.checks import (
    note_holes,
    reject_unknown,
    settle_duplicates,
    unify_case,
)
from annotation_import.config import AnnotationsConfig, ScaleConfig
from annotation_import.counts import Labels, as_array, count_votes, decide_labels, label_totals
from annotation_import.dawid_skene import DawidSkene, fit_dawid_skene
from annotation_import.problems import Problems
from annotation_import.raters import Rater, flagged, rate_raters
from annotation_import.readers import ReadVotes
from annotation_import.scales import fit_scale, win_matrix
from annotation_import.votes import PAIR_KEY
from runtime.errors import ConfigError, DataError

SLOTS_ARE_NOT_PERSONS = (
    "the votes carry slots, not persons: many people share a slot, so per-rater statistics would "
    "measure nobody (slots_are_raters: true, or --slots-are-raters, says otherwise)"
)
_SCALE_SCHEMA = {
    "study": pl.String, "ref_id": pl.String, "item_id": pl.String, "value": pl.Float64,
    "standard_error": pl.Float64, "score100": pl.Float64, "score100_error": pl.Float64,
    "n_comparisons": pl.Int64, "is_connected": pl.Boolean, "is_strongly_connected": pl.Boolean,
    "is_synthetic": pl.Boolean,
}  # fmt: skip


@dataclass(frozen=True)
class Imported:
    """Everything that an import found.

    Attributes:
        votes: the checked votes table.
        decided: labels and outliers.
        problems: what was rejected or noted.
        scales: scale values per item of paired comparisons; empty otherwise.
        report: the content of `report.json`.
    """

    votes: pl.DataFrame
    decided: Labels
    problems: Problems
    scales: pl.DataFrame
    report: dict[str, Any]


def import_votes(
    read: ReadVotes,
    options: AnnotationsConfig,
    *,
    known: Collection[str] | None = None,
    seed: int = 0,
    where: str = "votes",
) -> Imported:
    """Check votes, decide labels, and report.

    Args:
        read: what the source holds; its problems are added to.
        options: policies and thresholds.
        known: ids of the study's test images in lower case, if they are known.
        seed: of the bootstrap.
        where: name of the source, for messages.

    Raises:
        DataError: no usable vote, or too large a share was rejected.
        ConfigError: a policy needs raters and the votes have none, or an excluded rater is unknown.
    """
    problems = read.problems
    votes = check_votes(read.votes, options, known, problems)
    problems.log()
    problems.check(len(votes), max_fraction=options.max_failure_fraction, where=where)
    votes = _name_raters(votes, options)
    kept = _exclude(votes, options.exclude_raters, where)
    counts = count_votes(kept)
    fit = _fit_raters(kept, counts) if options.tie_policy == "dawid_skene" else None
    decided = _decide(counts, options, fit)
    scales = fit_scales(kept, options.scale)
    raters = _rate(kept, options, fit)
    report = {
        "study": kept.item(0, "study"),
        "layout": options.layout,
        "is_synthetic": bool(kept["is_synthetic"].any()),
        "votes": sections.votes_section(
            kept, n_rejected=problems.n_rejected, n_excluded=len(votes) - len(kept)
        ),
        "pairs": sections.pairs_section(counts, decided),
        "labels": label_totals(decided.labels),
        "policy": {
            "min_votes": options.min_votes,
            "tie_policy": options.tie_policy,
            "exclude_raters": sorted(options.exclude_raters),
        },
        "problems": problems.summary(),
        "agreement": sections.agreement_section(as_array(counts), options.quality, seed=seed),
        "raters": sections.raters_section(raters) if raters is not None else None,
        "raters_absent_because": SLOTS_ARE_NOT_PERSONS if raters is None else None,
        "what_if": _what_if(kept, decided, raters, options),
        "dawid_skene": sections.dawid_skene_section(fit, decided) if fit else None,
        "scales": sections.scales_section(scales, kept, options.scale) if len(scales) else None,
    }
    return Imported(kept, decided, problems, scales, sections.plain(report))


def check_votes(
    votes: pl.DataFrame,
    options: AnnotationsConfig,
    known: Collection[str] | None,
    problems: Problems,
) -> pl.DataFrame:
    """Take out what cannot be used and note what is missing; good votes stay."""
    votes = unify_case(votes)
    votes = reject_unknown(votes, known, problems)
    votes = settle_duplicates(votes, problems, on_duplicate=options.on_duplicate)
    note_holes(votes, problems)
    return votes


def _name_raters(votes: pl.DataFrame, options: AnnotationsConfig) -> pl.DataFrame:
    if not options.slots_are_raters:
        return votes
    return votes.with_columns(
        rater_id=pl.coalesce(pl.col("rater_id"), pl.lit("slot-") + pl.col("slot"))
    )


def _exclude(votes: pl.DataFrame, excluded: Collection[str], where: str) -> pl.DataFrame:
    unknown = sorted(set(excluded) - set(votes["rater_id"].drop_nulls().unique()))
    if unknown:
        raise ConfigError(
            f"{where}: exclude_raters names {', '.join(unknown)}, who did not vote; check the ids "
            "in report.json"
        )
    is_out = pl.col("rater_id").is_in(sorted(excluded)).fill_null(False)
    kept = votes.filter(~is_out)
    if not len(kept):
        raise DataError(f"{where}: exclude_raters leaves no vote; exclude fewer raters")
    return kept


def _decide(counts: pl.DataFrame, options: AnnotationsConfig, fit: DawidSkene | None) -> Labels:
    return decide_labels(
        counts,
        min_votes=options.min_votes,
        tie_policy=options.tie_policy,
        posterior=fit.posterior if fit else None,
    )


def _fit_raters(votes: pl.DataFrame, counts: pl.DataFrame) -> DawidSkene:
    """Fit Dawid-Skene; items in the order of `counts`, raters sorted by id."""
    real = votes.filter(pl.col("kind") == "real")
    if real["rater_id"].null_count():
        raise ConfigError(f"tie_policy dawid_skene: {SLOTS_ARE_NOT_PERSONS}")
    items = counts.select(PAIR_KEY).with_row_index("item")
    joined = real.select(*PAIR_KEY, "rater_id", "label").join(
        items, on=PAIR_KEY, how="left", nulls_equal=True, maintain_order="left"
    )
    return fit_dawid_skene(
        joined["item"].to_numpy().astype(np.int64),
        (joined["rater_id"].rank("dense") - 1).to_numpy().astype(np.int64),
        joined["label"].to_numpy().astype(np.int64) + 1,
    )


def _rate(
    votes: pl.DataFrame, options: AnnotationsConfig, fit: DawidSkene | None
) -> list[Rater] | None:
    if votes["rater_id"].null_count() == len(votes):
        return None
    raters = rate_raters(votes, options.quality)
    if fit is not None:
        for one, accuracy in zip(raters, fit.accuracy):
            one.dawid_skene_accuracy = float(accuracy)
    return raters


def _what_if(
    votes: pl.DataFrame, decided: Labels, raters: list[Rater] | None, options: AnnotationsConfig
) -> dict[str, Any] | None:
    """Label counts if the flagged raters were excluded."""
    if raters is None:
        return None
    out = flagged(raters)
    kept = votes.filter(~pl.col("rater_id").is_in(out).fill_null(False))
    counts = count_votes(kept)
    has_fit = options.tie_policy == "dawid_skene" and len(counts) > 0
    after = _decide(counts, options, _fit_raters(kept, counts) if has_fit else None)
    return sections.what_if_section(decided, after, out)


def fit_scales(votes: pl.DataFrame, scale: ScaleConfig) -> pl.DataFrame:
    """Fit scale values of every content of a paired comparison.

    Returns:
        One row per content and item; no rows where the votes compare with a reference.
    """
    compared = votes.filter((pl.col("kind") == "real") & pl.col("test_id_2").is_not_null())
    rows: list[dict[str, Any]] = []
    for (study, content), group in compared.group_by(["study", "ref_id"], maintain_order=True):
        rows.extend(
            {"study": study, "ref_id": content, **row} for row in _scale_content(group, scale)
        )
    return pl.DataFrame(rows, schema=_SCALE_SCHEMA, orient="row").sort("study", "ref_id", "item_id")


def _scale_content(group: pl.DataFrame, scale: ScaleConfig) -> list[dict[str, Any]]:
    items = sorted({*group["test_id"], *group["test_id_2"]})
    index = {name: position for position, name in enumerate(items)}
    first, second = (
        group[name].replace_strict(index, return_dtype=pl.Int64).to_numpy()
        for name in ("test_id", "test_id_2")
    )
    label = group["label"].to_numpy().astype(np.int64)
    wins = win_matrix(first, second, label, n_items=len(items), ties=scale.ties)
    fit = fit_scale(wins, model=scale.model, prior_precision=scale.prior_precision)
    taken = np.bincount(first, minlength=len(items)) + np.bincount(second, minlength=len(items))
    columns = zip(
        items, fit.value, fit.standard_error, fit.score100, fit.score100_error, taken, strict=True
    )
    return [
        {
            "item_id": name, "value": float(value), "standard_error": float(error),
            "score100": float(score), "score100_error": float(score_error),
            "n_comparisons": int(n), "is_connected": fit.is_connected,
            "is_strongly_connected": fit.is_strongly_connected,
            "is_synthetic": bool(group["is_synthetic"].any()),
        }
        for name, value, error, score, score_error, n in columns
    ]  # fmt: skip
