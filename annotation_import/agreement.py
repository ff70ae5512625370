"""Agreement between voters, from counts per pair.

| symbol | meaning | shape |
|---|---|---|
| n | votes per unit and class: worse, similar, better | [N, 3] |
| m | votes per unit, sum of n over classes | [N] |
| o | coincidences: pairs of votes of one unit, weighted 1/(m-1) | [3, 3] |

Every statistic depends on the units only through how often each count pattern occurs (there are
ten patterns of three votes), so a bootstrap over units is a multinomial draw over patterns:
exact, and independent of the number of units.

Sources: Krippendorff, Content Analysis (2004), ch. 11; Fleiss (1971); Gwet (2008).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from annotation_import.counts import Counts
from annotation_import.votes import LABEL_NAMES

Metric = Literal["nominal", "ordinal"]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Patterns:
    """Distinct count patterns of units with at least two votes.

    Attributes:
        counts: int64 [P, 3].
        weight: float64 [P], how many units have the pattern.
    """

    counts: Counts
    weight: Float64s

    @property
    def n_units(self) -> int:
        """Number of units that the patterns stand for."""
        return int(self.weight.sum())


@dataclass(frozen=True)
class Interval:
    """A value with its percentile bootstrap interval; NaN where it is not defined."""

    value: float
    low: float
    high: float


def patterns_of(counts: Counts) -> Patterns:
    """Group units by their counts; units with fewer than two votes say nothing and are left out."""
    paired = counts[counts.sum(axis=1) >= 2]
    if not len(paired):
        return Patterns(np.zeros((0, 3), np.int64), np.zeros(0))
    base = int(paired.max()) + 1
    code = paired @ np.array([base * base, base, 1])
    _, first, weight = np.unique(code, return_index=True, return_counts=True)
    return Patterns(paired[first], weight.astype(np.float64))


def coincidences(counts: Counts) -> Float64s:
    """Coincidence matrix of each pattern: float64 [P, 3, 3], n_c (n_k - [c=k]) / (m - 1)."""
    n = counts.astype(np.float64)
    outer = n[:, :, None] * n[:, None, :] - n[:, :, None] * np.eye(3)
    return np.asarray(outer / (n.sum(axis=1) - 1)[:, None, None])


def alpha_of(observed: Float64s, metric: Metric = "nominal") -> Float64s:
    """Krippendorff's alpha of coincidence matrices.

    Args:
        observed: float64 [..., 3, 3].
        metric: `nominal`, or `ordinal` (distances from the classes' own marginals).

    Returns:
        float64 [...]; 1 is perfect, 0 is chance; NaN where only one class was ever used.
    """
    marginal = observed.sum(axis=-1)
    total = marginal.sum(axis=-1)
    distance = _squared_distance(marginal, metric)
    expected = marginal[..., :, None] * marginal[..., None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        disagreement = (observed * distance).sum(axis=(-2, -1)) * (total - 1)
        by_chance = (expected * distance).sum(axis=(-2, -1))
        return np.asarray(1.0 - np.where(by_chance > 0, disagreement / by_chance, np.nan))


def _squared_distance(marginal: Float64s, metric: Metric) -> Float64s:
    if metric == "nominal":
        return np.broadcast_to(1.0 - np.eye(3), (*marginal.shape, 3))
    # sum of the marginals from class c to class k, less half of both ends
    middle = np.cumsum(marginal, axis=-1) - marginal / 2
    return np.asarray((middle[..., :, None] - middle[..., None, :]) ** 2)


def krippendorff_alpha(counts: Counts, metric: Metric = "nominal") -> float:
    """Krippendorff's alpha of int64 counts [N, 3]; units may have different numbers of votes."""
    patterns = patterns_of(counts)
    observed = np.einsum("p,pck->ck", patterns.weight, coincidences(patterns.counts))
    return float(alpha_of(observed, metric))


def alpha_interval(
    patterns: Patterns,
    metric: Metric,
    *,
    replicates: int,
    confidence: float,
    generator: np.random.Generator,
) -> Interval:
    """Alpha with a percentile bootstrap interval over units.

    Args:
        patterns: from `patterns_of`.
        metric: see `alpha_of`.
        replicates: bootstrap replicates; 0 gives a value without an interval.
        confidence: level of the interval, in (0, 1).
        generator: source of the draws.
    """
    each = coincidences(patterns.counts).reshape(len(patterns.counts), 9)
    value = float(alpha_of((patterns.weight @ each).reshape(3, 3), metric))
    if not replicates or not patterns.n_units:
        return Interval(value, np.nan, np.nan)
    drawn = generator.multinomial(
        patterns.n_units, patterns.weight / patterns.weight.sum(), size=replicates
    )
    alphas = alpha_of((drawn @ each).reshape(replicates, 3, 3), metric)
    defined = alphas[np.isfinite(alphas)]
    if not len(defined):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def percent_agreement(patterns: Patterns) -> float:
    """Mean share of agreeing pairs of votes of one unit; NaN without units."""
    return _weighted_mean(_unit_agreement(patterns), patterns.weight)


def percent_agreement_by_class(patterns: Patterns) -> dict[str, float]:
    """Of the votes for a class, the share of the other votes on the same unit that agree."""
    n = patterns.counts.astype(np.float64)
    m = n.sum(axis=1, keepdims=True)
    agreeing = patterns.weight @ (n * (n - 1) / np.maximum(m - 1, 1))
    votes = patterns.weight @ n
    return {
        LABEL_NAMES[index - 1]: float(agreeing[index] / votes[index]) if votes[index] else np.nan
        for index in range(3)
    }


def fleiss_kappa(patterns: Patterns) -> float:
    """Fleiss' kappa; with unequal numbers of votes, class shares are taken over all votes."""
    votes = patterns.weight @ patterns.counts
    if not votes.sum():
        return float("nan")
    by_chance = float(((votes / votes.sum()) ** 2).sum())
    return _beyond_chance(percent_agreement(patterns), by_chance)


def gwet_ac1(patterns: Patterns) -> float:
    """Gwet's AC1, which stays meaningful when one class dominates."""
    if not patterns.n_units:
        return float("nan")
    shares = patterns.counts / patterns.counts.sum(axis=1, keepdims=True)
    pi = patterns.weight @ shares / patterns.weight.sum()
    by_chance = float((pi * (1 - pi)).sum() / (len(pi) - 1))
    return _beyond_chance(percent_agreement(patterns), by_chance)


def _unit_agreement(patterns: Patterns) -> Float64s:
    n = patterns.counts.astype(np.float64)
    m = n.sum(axis=1)
    return np.asarray((n * (n - 1)).sum(axis=1) / (m * (m - 1)))


def _weighted_mean(values: Float64s, weight: Float64s) -> float:
    return float(values @ weight / weight.sum()) if weight.sum() else float("nan")


def _beyond_chance(observed: float, by_chance: float) -> float:
    return float("nan") if by_chance >= 1 else (observed - by_chance) / (1 - by_chance)
