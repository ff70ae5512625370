"""Dawid-Skene: finds the truth and the raters, agrees with crowd-kit."""

import numpy as np
import pytest

from annotation_import.dawid_skene import fit_dawid_skene
from runtime.errors import DataError
from runtime.seeds import rng


def crowd(
    n_items: int = 600, *, n_raters: int = 12, votes: int = 5, careless: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Truth, accuracy of the raters, and votes: item, rater, answer."""
    generator = rng(0, "test", "crowd")
    truth = generator.choice(3, n_items, p=[0.45, 0.2, 0.35])
    accuracy = np.where(np.arange(n_raters) < careless, 1 / 3, 0.85)
    item = np.repeat(np.arange(n_items), votes)
    rater = np.concatenate([generator.permutation(n_raters)[:votes] for _ in range(n_items)])
    wrong = (truth[item] + generator.integers(1, 3, len(item))) % 3
    is_right = generator.random(len(item)) < accuracy[rater]
    return truth, accuracy, item, rater, np.where(is_right, truth[item], wrong)


def majority(item: np.ndarray, answer: np.ndarray, n_items: int) -> np.ndarray:
    counts = np.bincount(item * 3 + answer, minlength=3 * n_items).reshape(-1, 3)
    return np.argmax(counts, axis=1)


def test_it_beats_the_majority_and_finds_the_careless() -> None:
    truth, accuracy, item, rater, answer = crowd()
    fit = fit_dawid_skene(item, rater, answer)
    found = (np.argmax(fit.posterior, axis=1) == truth).mean()
    plain = (majority(item, answer, len(truth)) == truth).mean()
    assert fit.is_converged and found > plain
    assert np.abs(fit.accuracy - accuracy).max() < 0.1
    np.testing.assert_allclose(fit.posterior.sum(axis=1), 1)
    np.testing.assert_allclose(fit.confusion.sum(axis=2), 1)


def test_order_of_votes_does_not_matter() -> None:
    _, _, item, rater, answer = crowd(200)
    order = rng(0, "test", "order").permutation(len(item))
    one = fit_dawid_skene(item, rater, answer)
    two = fit_dawid_skene(item[order], rater[order], answer[order])
    np.testing.assert_allclose(one.posterior, two.posterior, atol=1e-9)


def test_a_rater_who_swaps_better_and_worse_is_understood() -> None:
    truth, _, item, rater, answer = crowd(careless=0)
    answer = np.where(rater == 0, 2 - answer, answer)
    fit = fit_dawid_skene(item, rater, answer)
    assert fit.confusion[0, 0, 2] > 0.7 and fit.confusion[0, 2, 0] > 0.7
    assert (np.argmax(fit.posterior, axis=1) == truth).mean() > 0.95


def test_bad_input() -> None:
    empty = np.zeros(0, np.int64)
    with pytest.raises(DataError, match="expected votes"):
        fit_dawid_skene(empty, empty, empty)


def test_agrees_with_crowd_kit() -> None:
    aggregation = pytest.importorskip("crowdkit.aggregation")
    pandas = pytest.importorskip("pandas")
    _, _, item, rater, answer = crowd(300)
    frame = pandas.DataFrame({"task": item, "worker": rater, "label": answer})
    theirs = aggregation.DawidSkene(n_iter=200, tol=1e-9).fit(frame)
    ours = fit_dawid_skene(item, rater, answer, smoothing=1e-12, tolerance=1e-9, max_iterations=500)
    posterior = theirs.probas_.sort_index()[[0, 1, 2]].to_numpy()
    # crowd-kit keeps every probability above 1e-10, which shifts unclear items a little
    np.testing.assert_allclose(ours.posterior, posterior, atol=5e-4)
