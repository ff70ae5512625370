"""Dawid-Skene: true classes and each rater's confusion matrix, by expectation-maximisation.

| symbol | meaning | shape |
|---|---|---|
| T | probability of each true class of an item | [N, 3] |
| pi | how often a rater answers l where the truth is k | [R, 3, 3] (rater, true, answer) |
| p | share of each true class | [3] |

Started from the votes' shares (the majority); confusion matrices are smoothed with a small
pseudo-count, so that a rater with few votes has no certain answers.

Source: Dawid and Skene (1979), Applied Statistics 28(1), Eqs. 2.3 to 2.5.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.errors import DataError

Float64s = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_CLASSES = 3


@dataclass(frozen=True)
class DawidSkene:
    """A fit.

    Attributes:
        posterior: float64 [N, 3], probability of worse, similar, better.
        confusion: float64 [R, 3, 3], rater, true class, answer; rows sum to 1.
        shares: float64 [3].
        iterations: EM steps done.
        is_converged: the last step changed no probability by more than the tolerance.
    """

    posterior: Float64s
    confusion: Float64s
    shares: Float64s
    iterations: int
    is_converged: bool

    @property
    def accuracy(self) -> Float64s:
        """Probability that each rater is right, under the classes' shares: float64 [R]."""
        diagonal = np.diagonal(self.confusion, axis1=1, axis2=2)
        return np.asarray(diagonal @ self.shares)


def fit_dawid_skene(
    item: Ints,
    rater: Ints,
    answer: Ints,
    *,
    smoothing: float = 0.01,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
) -> DawidSkene:
    """Fit the model.

    Args:
        item: int64 [V], index of the item of each vote, 0..N-1, every one present.
        rater: int64 [V], index of the rater, 0..R-1.
        answer: int64 [V], 0 worse, 1 similar, 2 better.
        smoothing: pseudo-count added to every cell of a confusion matrix.
        tolerance: largest change of a posterior probability that ends the iteration.
        max_iterations: EM steps at most.

    Raises:
        DataError: no votes, or the three arrays differ in length.
    """
    if not len(item) or not (len(item) == len(rater) == len(answer)):
        raise DataError(
            f"Dawid-Skene: expected votes as three arrays of one length; found {len(item)}, "
            f"{len(rater)}, {len(answer)}"
        )
    votes = _Votes(item, rater, answer)
    posterior = votes.vote_shares()
    iterations = 0
    is_converged = False
    shares, confusion = votes.maximise(posterior, smoothing)
    while iterations < max_iterations and not is_converged:
        updated = votes.expect(shares, confusion)
        change = float(np.abs(updated - posterior).max())
        posterior = updated
        shares, confusion = votes.maximise(posterior, smoothing)
        iterations += 1
        is_converged = change <= tolerance
    return DawidSkene(posterior, confusion, shares, iterations, is_converged)


class _Votes:
    """Votes sorted by item, so that sums per item are sums over runs."""

    def __init__(self, item: Ints, rater: Ints, answer: Ints) -> None:
        order = np.argsort(item, kind="stable")
        self.item = item[order]
        self.cell = rater[order] * _CLASSES + answer[order]
        self.starts = np.flatnonzero(np.diff(self.item, prepend=-1))
        self.n_raters = int(rater.max()) + 1
        self.answer = answer[order]

    def vote_shares(self) -> Float64s:
        """Share of each answer among an item's votes: float64 [N, 3]."""
        one_hot = np.eye(_CLASSES)[self.answer]
        counts = np.add.reduceat(one_hot, self.starts, axis=0)
        return np.asarray(counts / counts.sum(axis=1, keepdims=True))

    def maximise(self, posterior: Float64s, smoothing: float) -> tuple[Float64s, Float64s]:
        """M step: class shares [3] and confusion [R, 3 true, 3 answers]."""
        size = self.n_raters * _CLASSES
        cells = np.stack(
            [
                np.bincount(self.cell, posterior[self.item, true], minlength=size)
                for true in range(_CLASSES)
            ]
        ).reshape(_CLASSES, self.n_raters, _CLASSES)
        confusion = cells.transpose(1, 0, 2) + smoothing
        return posterior.mean(axis=0), confusion / confusion.sum(axis=2, keepdims=True)

    def expect(self, shares: Float64s, confusion: Float64s) -> Float64s:
        """E step: posterior [N, 3], in logarithms against underflow."""
        # row of `log_answer`: one rater's answer, columns: true class
        log_answer = np.log(confusion).transpose(0, 2, 1).reshape(-1, _CLASSES)
        with np.errstate(divide="ignore"):
            log_shares = np.log(shares)
        log_posterior = np.add.reduceat(log_answer[self.cell], self.starts, axis=0) + log_shares
        log_posterior -= log_posterior.max(axis=1, keepdims=True)
        posterior = np.exp(log_posterior)
        return np.asarray(posterior / posterior.sum(axis=1, keepdims=True))
