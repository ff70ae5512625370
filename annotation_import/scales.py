"""Scale values of complete paired comparisons: Thurstone Case V and Bradley-Terry, by Newton.

| symbol | meaning | shape |
|---|---|---|
| C | C[i, j]: how often i was preferred to j, after the tie rule | [n, n] |
| s | scale values, sum 0, higher is better | [n] |
| lambda | precision of the Gaussian prior on s | scalar |

Maximised: sum C[i, j] log F(s_i - s_j) - lambda/2 sum s^2, with F the normal (Thurstone) or the
logistic (Bradley-Terry) distribution function. `paper` is the released SRIQA objective: normal,
log clipped at 1e-6, lambda 1, a tie counted as a win for both.

Sources: Thurstone (1927); Bradley and Terry (1952); A-FINE, App. D, and compute_MOS.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, log_expit, log_ndtr

from annotation_import.config import ScaleModel, TieRule
from runtime.errors import DataError

Float64s = npt.NDArray[np.float64]
_PAPER_CLIP = 1e-6
_MAX_STEPS = 200
_STEP_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Scale:
    """Scale values of one content.

    Attributes:
        value: float64 [n], sum 0, higher is better.
        standard_error: float64 [n], from the curvature, in the same unit; too small where ties
            count twice (`both`).
        is_connected: every item is linked to every other by comparisons.
        is_strongly_connected: every item was, directly or through others, preferred to every
            other; without it and without a prior no finite maximum exists.
        is_converged: Newton's steps reached the tolerance.
    """

    value: Float64s
    standard_error: Float64s
    is_connected: bool
    is_strongly_connected: bool
    is_converged: bool

    @property
    def score100(self) -> Float64s:
        """Values mapped to 0..100 inside the content, as the paper does: best 100, worst 0."""
        span = float(np.ptp(self.value))
        return (
            (self.value - self.value.min()) * (100.0 / span)
            if span
            else np.full_like(self.value, 50.0)
        )

    @property
    def score100_error(self) -> Float64s:
        """Standard errors in the unit of `score100`, the end points taken as fixed."""
        span = float(np.ptp(self.value))
        return self.standard_error * (100.0 / span) if span else self.standard_error * np.nan


def win_matrix(
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    label: npt.NDArray[np.int64],
    *,
    n_items: int,
    ties: TieRule,
) -> Float64s:
    """Count preferences.

    Args:
        first: int64 [V], index of the first item of each comparison.
        second: int64 [V], index of the second.
        label: int64 [V], 1 first better, 0 tie, -1 second better.
        n_items: number of items.
        ties: `half` a win each, or a whole win for `both`.

    Returns:
        C, float64 [n_items, n_items].
    """
    tie = 0.5 if ties == "half" else 1.0
    size = n_items * n_items
    to_first = np.where(label > 0, 1.0, np.where(label == 0, tie, 0.0))
    to_second = np.where(label < 0, 1.0, np.where(label == 0, tie, 0.0))
    wins = np.bincount(first * n_items + second, to_first, minlength=size)
    wins += np.bincount(second * n_items + first, to_second, minlength=size)
    return np.asarray(wins.reshape(n_items, n_items), np.float64)


def fit_scale(
    wins: Float64s, *, model: ScaleModel = "paper", prior_precision: float = 1.0
) -> Scale:
    """Fit scale values to a win matrix.

    Args:
        wins: C, float64 [n, n], >= 0, zero diagonal; not modified.
        model: `paper`, `thurstone` or `bradley_terry`.
        prior_precision: lambda; 0 is maximum likelihood.

    Raises:
        DataError: no prior, and some items never won or never lost against the others.
    """
    is_connected, is_strong = connectivity(wins)
    if prior_precision == 0 and not is_strong:
        raise DataError(
            f"paired comparison of {len(wins)} items: some item was never or always preferred, so "
            "maximum likelihood has no finite values; set scale.prior_precision above 0"
        )
    start = np.zeros(len(wins))
    clip = _PAPER_CLIP if model == "paper" else 0.0
    terms = _logit_terms if model == "bradley_terry" else _probit_terms
    value, hessian, is_converged = _newton(start, wins, terms, prior_precision, clip)
    return Scale(value, _standard_error(hessian), is_connected, is_strong, is_converged)


def _standard_error(hessian: Float64s) -> Float64s:
    """Standard errors of values whose sum is fixed at 0: curvature inside that subspace only.

    Inverting the whole curvature would add 1/(n lambda) to every variance, for a common shift
    that the constraint rules out.
    """
    n_items = len(hessian)
    centre = np.eye(n_items) - 1.0 / n_items
    covariance = np.linalg.pinv(centre @ -hessian @ centre, hermitian=True)
    return np.asarray(np.sqrt(np.clip(np.diag(covariance), 0.0, None)))


def connectivity(wins: Float64s) -> tuple[bool, bool]:
    """Whether the comparison graph is connected, and strongly connected by preferences."""
    weak, _ = connected_components(wins > 0, directed=True, connection="weak")
    strong, _ = connected_components(wins > 0, directed=True, connection="strong")
    return weak == 1, strong == 1


_Terms = Callable[[Float64s], tuple[Float64s, Float64s, Float64s]]


def _probit_terms(d: Float64s) -> tuple[Float64s, Float64s, Float64s]:
    """Log Phi(d), its first and second derivative."""
    log_f = log_ndtr(d)
    ratio = np.exp(-0.5 * d * d - 0.5 * np.log(2 * np.pi) - log_f)
    return log_f, ratio, -ratio * (d + ratio)


def _logit_terms(d: Float64s) -> tuple[Float64s, Float64s, Float64s]:
    """Log of the logistic function, its first and second derivative."""
    p = expit(d)
    return log_expit(d), 1 - p, -p * (1 - p)


def _objective(s: Float64s, wins: Float64s, terms: _Terms, prior: float, clip: float) -> float:
    log_f = terms(s[:, None] - s[None, :])[0]
    if clip:
        log_f = np.maximum(log_f, np.log(clip))
    return float((wins * log_f).sum() - 0.5 * prior * (s @ s))


def _derivatives(
    s: Float64s, wins: Float64s, terms: _Terms, prior: float, clip: float
) -> tuple[Float64s, Float64s]:
    log_f, first, second = terms(s[:, None] - s[None, :])
    weight = np.where(log_f > np.log(clip), wins, 0.0) if clip else wins
    slope = weight * first
    gradient = slope.sum(axis=1) - slope.sum(axis=0) - prior * s
    curvature = weight * second
    curvature = curvature + curvature.T
    np.fill_diagonal(curvature, 0.0)
    hessian = np.diag(curvature.sum(axis=1) - prior) - curvature
    return gradient, hessian


def _newton(
    s: Float64s, wins: Float64s, terms: _Terms, prior: float, clip: float
) -> tuple[Float64s, Float64s, bool]:
    """Damped Newton; the unclipped objective is concave, so every step can be made to climb."""
    best = _objective(s, wins, terms, prior, clip)
    gradient, hessian = _derivatives(s, wins, terms, prior, clip)
    for _ in range(_MAX_STEPS):
        step = np.linalg.lstsq(-hessian, gradient, rcond=None)[0]
        size = 1.0
        while size > 1e-10:
            candidate = s + size * step
            candidate = candidate - candidate.mean()
            value = _objective(candidate, wins, terms, prior, clip)
            if value >= best:
                break
            size /= 2
        else:
            return s, hessian, bool(np.abs(step).max() < 1e-6)
        moved = float(np.abs(candidate - s).max())
        s, best = candidate, value
        gradient, hessian = _derivatives(s, wins, terms, prior, clip)
        if moved < _STEP_TOLERANCE:
            return s, hessian, True
    return s, hessian, False
