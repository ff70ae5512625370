"""Rater report: agreement with the others, answer times, straight-lining, sides, repeats.

Works on persons. A flag says "look at this rater"; it excludes nobody.

Sources: screening rules of ITU-T P.910/P.913 and of the P.910 crowd toolkit; Wilson (1927).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import ndtri
from scipy.stats import binomtest

from annotation_import.config import QualityConfig
from annotation_import.votes import PAIR_KEY

Ints = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]
_MAD_TO_SD = 1.4826  # of a normal distribution


@dataclass
class Rater:
    """What is known about one rater; None where the votes do not tell."""

    rater_id: str
    n_votes: int
    worse_share: float
    similar_share: float
    better_share: float
    entropy_bits: float
    agreement: float | None = None
    agreement_low: float | None = None
    agreement_high: float | None = None
    n_compared: int = 0
    median_time_s: float | None = None
    too_fast_share: float | None = None
    time_outlier_share: float | None = None
    longest_run: int | None = None
    run_p: float | None = None
    left_share: float | None = None
    side_p: float | None = None
    n_repeats: int = 0
    repeat_agreement: float | None = None
    repeat_low: float | None = None
    repeat_high: float | None = None
    dawid_skene_accuracy: float | None = None
    flags: list[str] = field(default_factory=list)

    def as_row(self) -> dict[str, object]:
        """Plain values, as in `report.json`."""
        return asdict(self)


def wilson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Wilson interval of a share; (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    z = float(ndtri((1 + confidence) / 2))
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def rate_raters(votes: pl.DataFrame, quality: QualityConfig) -> list[Rater]:
    """Report on every rater of the votes table that has a rater_id.

    Args:
        votes: votes table; repeats are used for self-agreement only.
        quality: thresholds.

    Returns:
        Raters sorted by id, with their flags.
    """
    known = votes.filter(pl.col("rater_id").is_not_null())
    real = known.filter(pl.col("kind") == "real")
    ids = real["rater_id"].unique().sort()
    index = {name: position for position, name in enumerate(ids)}
    rater = real["rater_id"].replace_strict(index, return_dtype=pl.Int64).to_numpy()
    answer = real["label"].to_numpy().astype(np.int64) + 1
    raters = _basics(list(ids), rater, answer)
    _compare_with_others(raters, votes, real, rater, answer, quality)
    _times(raters, real, rater, quality)
    _runs(raters, real, rater, answer)
    _sides(raters, real, rater, answer)
    _repeats(raters, known, quality)
    _flag(raters, quality)
    return raters


def flagged(raters: list[Rater]) -> list[str]:
    """Ids of the raters with at least one flag."""
    return [rater.rater_id for rater in raters if rater.flags]


def _basics(ids: list[str], rater: Ints, answer: Ints) -> list[Rater]:
    counts = np.bincount(rater * 3 + answer, minlength=3 * len(ids)).reshape(-1, 3)
    raters: list[Rater] = []
    for name, row in zip(ids, counts):
        share = row / row.sum()
        used = share[share > 0]
        raters.append(
            Rater(
                name, int(row.sum()), float(share[0]), float(share[1]), float(share[2]),
                float(-(used * np.log2(used)).sum()),
            )
        )  # fmt: skip
    return raters


def leave_one_out(votes: pl.DataFrame, real: pl.DataFrame, answer: Ints) -> Ints:
    """Most frequent answer of the others for each vote: int64 [V], 0..2, or -1 if there is none."""
    every = votes.filter(pl.col("kind") == "real")
    label = pl.col("label")
    counts = every.group_by(PAIR_KEY).agg(
        *((label == code).sum().cast(pl.Int64).alias(str(code)) for code in (-1, 0, 1))
    )
    joined = real.select(PAIR_KEY).join(
        counts, on=PAIR_KEY, how="left", nulls_equal=True, maintain_order="left"
    )
    others = joined.select("-1", "0", "1").to_numpy().astype(np.int64)
    others[np.arange(len(others)), answer] -= 1
    ranked = np.sort(others, axis=1)
    return np.where(ranked[:, 2] > ranked[:, 1], np.argmax(others, axis=1), -1)


def _compare_with_others(
    raters: list[Rater],
    votes: pl.DataFrame,
    real: pl.DataFrame,
    rater: Ints,
    answer: Ints,
    quality: QualityConfig,
) -> None:
    majority = leave_one_out(votes, real, answer)
    is_compared = majority >= 0
    compared = np.bincount(rater[is_compared], minlength=len(raters))
    agreed = np.bincount(rater[is_compared & (majority == answer)], minlength=len(raters))
    for one, n_compared, n_agreed in zip(raters, compared, agreed):
        one.n_compared = int(n_compared)
        if n_compared:
            one.agreement = float(n_agreed / n_compared)
            low, high = wilson(int(n_agreed), int(n_compared), quality.confidence)
            one.agreement_low, one.agreement_high = low, high


def _times(raters: list[Rater], real: pl.DataFrame, rater: Ints, quality: QualityConfig) -> None:
    seconds = real["time_s"].to_numpy().astype(np.float64)
    has_time = np.isfinite(seconds) & (seconds > 0)
    if not has_time.any():
        return
    logs = np.log(seconds[has_time])
    spread = float(logs.std()) or 1.0
    is_outlier = np.abs(logs - logs.mean()) / spread > quality.time_z
    who, time_s = rater[has_time], seconds[has_time]
    order = np.argsort(who, kind="stable")
    for group in _runs_of(who[order]):
        rows = order[group]
        one = raters[int(who[rows[0]])]
        one.median_time_s = float(np.median(time_s[rows]))
        one.too_fast_share = float((time_s[rows] < quality.too_fast_s).mean())
        one.time_outlier_share = float(is_outlier[rows].mean())


def _runs(raters: list[Rater], real: pl.DataFrame, rater: Ints, answer: Ints) -> None:
    """Longest run of equal answers; needs to know when each was given."""
    started = real["started"]
    if started.null_count() == len(started):
        return
    order = np.lexsort((started.fill_null("").rank("dense").to_numpy(), rater))
    for group in _runs_of(rater[order]):
        rows = order[group]
        if started[rows.tolist()].null_count():
            continue
        one = raters[int(rater[rows[0]])]
        changes = np.flatnonzero(np.diff(answer[rows])) + 1
        edges = np.concatenate([[0], changes, [len(rows)]])
        one.longest_run = int(np.diff(edges).max())
        shares = np.array([one.worse_share, one.similar_share, one.better_share])
        one.run_p = run_probability(one.longest_run, len(rows), shares)


def run_probability(length: int, n_answers: int, shares: Float64s) -> float:
    """Probability of a run of at least `length` among independent answers with these shares.

    From the expected number of such runs, taken as Poisson.
    """
    starts = np.maximum((n_answers - length) * (1 - shares) + 1, 0)
    expected = float((starts * shares**length).sum())
    return -math.expm1(-expected)


def _sides(raters: list[Rater], real: pl.DataFrame, rater: Ints, answer: Ints) -> None:
    left = real["shown_left"].fill_null("").to_numpy()
    is_decisive = (answer != 1) & (left != "")
    has_left_won = (left == "test") == (answer == 2)
    n = np.bincount(rater[is_decisive], minlength=len(raters))
    lefts = np.bincount(rater[is_decisive & has_left_won], minlength=len(raters))
    for one, trials, left_wins in zip(raters, n, lefts):
        if trials:
            one.left_share = float(left_wins / trials)
            one.side_p = float(binomtest(int(left_wins), int(trials)).pvalue)


def _repeats(raters: list[Rater], known: pl.DataFrame, quality: QualityConfig) -> None:
    key = [*PAIR_KEY, "rater_id"]
    first = known.filter(pl.col("kind") == "real").select(*key, first="label")
    again = known.filter(pl.col("kind") == "repeat").join(
        first, on=key, how="inner", nulls_equal=True
    )
    if not len(again):
        return
    same = again.group_by("rater_id").agg(
        n=pl.len(), agreed=(pl.col("label") == pl.col("first")).sum()
    )
    by_id = {row["rater_id"]: row for row in same.iter_rows(named=True)}
    for one in raters:
        if row := by_id.get(one.rater_id):
            one.n_repeats = int(row["n"])
            one.repeat_agreement = float(row["agreed"] / row["n"])
            low, high = wilson(int(row["agreed"]), int(row["n"]), quality.confidence)
            one.repeat_low, one.repeat_high = low, high


def _flag(raters: list[Rater], quality: QualityConfig) -> None:
    floor = _agreement_floor(raters, quality)
    tests: dict[str, Callable[[Rater], bool]] = {
        "low_agreement": lambda r: r.agreement is not None and r.agreement < floor(r),
        "too_fast": lambda r: (r.too_fast_share or 0) > quality.too_fast_share,
        "time_outliers": lambda r: (r.time_outlier_share or 0) > quality.time_outlier_share,
        "long_run": lambda r: r.run_p is not None and r.run_p < quality.run_p,
        "one_answer": lambda r: (
            max(r.worse_share, r.similar_share, r.better_share) > quality.one_answer_share
        ),
        "side_bias": lambda r: r.side_p is not None and r.side_p < quality.side_p,
        "low_repeat_agreement": lambda r: (
            r.repeat_high is not None and r.repeat_high < quality.min_repeat_agreement
        ),
    }
    for one in raters:
        if one.n_votes >= quality.min_votes_per_rater:
            one.flags = [name for name, is_true in tests.items() if is_true(one)]


def _agreement_floor(raters: list[Rater], quality: QualityConfig) -> Callable[[Rater], float]:
    """Agreement below which a rater is flagged.

    Median and median deviation of the raters, because with few raters one careless one widens
    the plain standard deviation until nobody can be flagged; never narrower than the sampling
    error of the rater's own share.
    """
    shares = np.array(
        [r.agreement for r in raters
         if r.agreement is not None and r.n_votes >= quality.min_votes_per_rater]
    )  # fmt: skip
    if not len(shares):
        return lambda _: -math.inf
    median = float(np.median(shares))
    spread = float(np.median(np.abs(shares - median))) * _MAD_TO_SD

    def floor(one: Rater) -> float:
        sampling = math.sqrt(max(median * (1 - median), 1e-9) / max(one.n_compared, 1))
        return median - quality.agreement_sd * max(spread, sampling)

    return floor


def _runs_of(sorted_values: Ints) -> list[slice]:
    """Slices of equal values of a sorted array."""
    if not len(sorted_values):
        return []
    edges = np.concatenate([[0], np.flatnonzero(np.diff(sorted_values)) + 1, [len(sorted_values)]])
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]
