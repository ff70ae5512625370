"""Accuracy on pairs with intervals by content, and correlations with opinion scores."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.optimize
import scipy.stats
import torch

from afine.training.loss import is_correct
from runtime.seeds import rng

Values = npt.NDArray[np.float64]
_UNUSED_KINDS = ("SSY", "SYY")


@dataclass(frozen=True)
class Accuracy:
    """Share of pairs that are ordered as the raters did.

    Attributes:
        pairs: number of pairs.
        value: accuracy in [0, 1]; nan without pairs or without scores.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    pairs: int
    value: float
    low: float
    high: float


def tested_pairs(triplets: pl.DataFrame) -> pl.DataFrame:
    """Leave out the rows that nobody is tested on: ties of labelled sets (SSY, SYY)."""
    return triplets.filter(~pl.col("kind").is_in(_UNUSED_KINDS))


def correct_pairs(
    pairs: pl.DataFrame, scores: Mapping[tuple[str, str], float], *, delta: float
) -> Values:
    """1 for each pair that is ordered as labelled, 0 if not, nan without a score.

    Args:
        pairs: rows of a table of triplets.
        scores: (set, image) -> score, lower is better.
        delta: scores this close count as equal.
    """
    sets = pairs["set"].to_list()
    u1, u2 = (
        torch.tensor(
            [scores.get(key, float("nan")) for key in zip(sets, pairs[column], strict=True)],
            dtype=torch.float64,
        )
        for column in ("image1", "image2")
    )
    label = torch.tensor(pairs["label12"].to_list(), dtype=torch.float64)
    hit = is_correct(u1, u2, label, delta).double().numpy()
    is_unknown = (u1.isnan() | u2.isnan()).numpy()
    return np.where(is_unknown, np.nan, hit)


def accuracy_with_interval(
    correct: Values,
    contents: Sequence[str],
    *,
    resamplings: int,
    confidence: float,
    seed: int,
) -> Accuracy:
    """Accuracy, and its bootstrap interval over contents.

    Pairs of one content are not independent, so whole contents are drawn.
    """
    count = len(correct)
    if not count or np.isnan(correct).any():
        return Accuracy(count, float("nan"), float("nan"), float("nan"))
    _, number = np.unique(np.asarray(contents), return_inverse=True)
    hits, sizes = np.bincount(number, weights=correct), np.bincount(number)
    value = float(correct.mean())
    if not resamplings:
        return Accuracy(count, value, float("nan"), float("nan"))
    drawn = rng(seed, "afine.bootstrap").integers(0, len(sizes), size=(resamplings, len(sizes)))
    shares = hits[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(shares, [tail, 1 - tail])
    return Accuracy(count, value, float(low), float(high))


@dataclass(frozen=True)
class Correlation:
    """Agreement with opinion scores over images; 1 is best, whatever the metric's direction.

    Attributes:
        images: number of images.
        srcc: Spearman's rank correlation.
        krcc: Kendall's rank correlation (tau b).
        plcc: Pearson's correlation after a monotone logistic of four parameters.
    """

    images: int
    srcc: float
    krcc: float
    plcc: float


def correlations(scores: Values, quality: Values) -> Correlation:
    """Correlate scores (lower is better) with qualities (higher is better)."""
    is_known = np.isfinite(scores) & np.isfinite(quality)
    x, y = -scores[is_known], quality[is_known]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(len(x), float("nan"), float("nan"), float("nan"))
    return Correlation(
        len(x),
        float(scipy.stats.spearmanr(x, y).statistic),
        float(scipy.stats.kendalltau(x, y).statistic),
        _logistic_pearson(x, y),
    )


def _logistic_pearson(x: Values, y: Values) -> float:
    """Pearson's correlation after the usual fit; without it where the fit does not converge."""

    def logistic(v: Values, top: float, bottom: float, centre: float, width: float) -> Values:
        fitted: Values = bottom + (top - bottom) * scipy.special.expit(
            (v - centre) / (abs(width) + 1e-12)
        )
        return fitted

    start = (float(y.max()), float(y.min()), float(x.mean()), float(x.std()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fitted, _ = scipy.optimize.curve_fit(logistic, x, y, p0=start, maxfev=5000)
            mapped = logistic(x, *fitted)
        except RuntimeError:
            mapped = x
    if np.ptp(mapped) == 0:
        mapped = x
    return float(scipy.stats.pearsonr(mapped, y).statistic)
