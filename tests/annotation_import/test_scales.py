"""Thurstone and Bradley-Terry scales: recovery, errors, tie rules, connectivity, oracles."""

import numpy as np
import pytest
from scipy.stats import norm

from annotation_import.scales import connectivity, fit_scale, win_matrix
from runtime.errors import DataError
from runtime.seeds import rng


def simulated_wins(truth: np.ndarray, n_votes: int, seed: str) -> np.ndarray:
    """C for a complete paired comparison under Thurstone Case V with unit difference noise."""
    generator = rng(0, "test", seed)
    wins = np.zeros((len(truth), len(truth)))
    for i in range(len(truth)):
        for j in range(i + 1, len(truth)):
            won = generator.binomial(n_votes, norm.cdf(truth[i] - truth[j]))
            wins[i, j], wins[j, i] = won, n_votes - won
    return wins


TRUTH = np.linspace(-1.0, 1.0, 8)


@pytest.mark.parametrize("model", ["paper", "thurstone", "bradley_terry"])
def test_scales_are_recovered_and_centred(model: str) -> None:
    fit = fit_scale(simulated_wins(TRUTH, 200, "recover"), model=model, prior_precision=1.0)
    assert fit.is_converged and abs(fit.value.sum()) < 1e-9
    assert np.corrcoef(fit.value, TRUTH)[0, 1] > 0.99
    assert fit.score100.min() == 0 and fit.score100.max() == 100


def test_standard_errors_cover_the_truth() -> None:
    hits, errors, values = [], [], []
    for trial in range(60):
        fit = fit_scale(
            simulated_wins(TRUTH, 20, f"cover {trial}"), model="thurstone", prior_precision=0.0
        )
        hits.append(np.abs(fit.value - TRUTH) < 1.96 * fit.standard_error)
        errors.append(fit.standard_error)
        values.append(fit.value)
    assert 0.9 < np.mean(hits) < 0.99
    spread = np.std(values, axis=0).mean()
    assert spread == pytest.approx(np.mean(errors), rel=0.15)


def test_errors_fall_with_the_root_of_the_votes() -> None:
    few, many = (
        fit_scale(simulated_wins(TRUTH, n, "root"), model="thurstone", prior_precision=0.0)
        for n in (25, 400)
    )
    assert np.mean(few.standard_error / many.standard_error) == pytest.approx(4, rel=0.15)


def test_gradient_is_zero_at_the_optimum() -> None:
    wins = simulated_wins(TRUTH, 10, "gradient")
    value = fit_scale(wins, model="paper").value

    def objective(s: np.ndarray) -> float:
        d = s[:, None] - s[None, :]
        return float((wins * np.log(np.maximum(norm.cdf(d), 1e-6))).sum() - 0.5 * (s @ s))

    for direction in np.eye(len(value)) - 1 / len(value):
        slope = (objective(value + 1e-5 * direction) - objective(value - 1e-5 * direction)) / 2e-5
        assert abs(slope) < 1e-5


def test_tie_rules() -> None:
    first, second, label = np.array([0, 0, 1]), np.array([1, 1, 2]), np.array([1, 0, -1])
    half = win_matrix(first, second, label, n_items=3, ties="half")
    both = win_matrix(first, second, label, n_items=3, ties="both")
    assert half.tolist() == [[0, 1.5, 0], [0.5, 0, 0], [0, 1, 0]]
    assert both.tolist() == [[0, 2, 0], [1, 0, 0], [0, 1, 0]]


def test_connectivity_and_what_follows_from_it() -> None:
    apart = np.zeros((4, 4))
    apart[0, 1] = apart[1, 0] = apart[2, 3] = apart[3, 2] = 1
    assert connectivity(apart) == (False, False)
    never_lost = np.array([[0, 3, 3], [0, 0, 1], [0, 2, 0]], float)
    assert connectivity(never_lost) == (True, False)
    with pytest.raises(DataError, match="prior_precision"):
        fit_scale(never_lost, model="bradley_terry", prior_precision=0.0)
    fit = fit_scale(never_lost, model="bradley_terry", prior_precision=0.1)
    assert fit.is_converged and np.argmax(fit.value) == 0
    assert np.isfinite(fit.standard_error).all()
    assert not fit_scale(apart).is_connected


def test_clear_cut_comparisons_stay_finite() -> None:
    n_items = 11
    wins = np.triu(np.full((n_items, n_items), 1000.0), 1)
    for model in ("paper", "thurstone", "bradley_terry"):
        fit = fit_scale(wins, model=model)
        assert np.isfinite(fit.value).all()
        assert (np.diff(fit.value) < 0).all(), "an order without exception is kept"


def test_all_ties_give_one_value() -> None:
    wins = np.ones((5, 5)) - np.eye(5)
    fit = fit_scale(wins)
    np.testing.assert_allclose(fit.value, 0, atol=1e-12)
    assert fit.score100.tolist() == [50.0] * 5


def test_input_is_not_changed_and_a_second_call_is_equal() -> None:
    wins = simulated_wins(TRUTH, 10, "pure")
    before = wins.copy()
    one, two = fit_scale(wins), fit_scale(wins)
    assert np.array_equal(wins, before) and np.array_equal(one.value, two.value)


def test_bradley_terry_agrees_with_choix() -> None:
    choix = pytest.importorskip("choix")
    wins = simulated_wins(TRUTH, 12, "choix")
    data = [(i, j) for i in range(8) for j in range(8) for _ in range(int(wins[i, j]))]
    theirs = choix.opt_pairwise(8, data, alpha=0.15, tol=1e-12)  # its penalty is alpha s^2
    ours = fit_scale(wins, model="bradley_terry", prior_precision=0.3)
    np.testing.assert_allclose(ours.value, theirs - theirs.mean(), atol=1e-4)


def test_thurstone_values_agree_with_sureal() -> None:
    # its errors come from the curvature of one side of each pair and differ by up to a third;
    # ours rest on test_standard_errors_cover_the_truth
    module = pytest.importorskip("sureal.pc_subjective_model")
    wins = simulated_wins(TRUTH, 30, "sureal")
    theirs, *_ = module.ThurstoneMlePairedCompSubjectiveModel.resolve_model(wins)
    ours = fit_scale(wins, model="thurstone", prior_precision=0.0)
    np.testing.assert_allclose(ours.value, theirs - theirs.mean(), atol=2e-3)
