"""Agreement statistics against their definitions written out pair by pair."""

from itertools import permutations

import numpy as np
import pytest

from annotation_import.agreement import (
    alpha_interval,
    fleiss_kappa,
    gwet_ac1,
    krippendorff_alpha,
    patterns_of,
    percent_agreement,
    percent_agreement_by_class,
)
from runtime.seeds import rng


def random_counts(n_units: int, n_votes: int | None, seed: str) -> np.ndarray:
    """Counts of votes that agree somewhat; with None, 1 to 5 votes a unit."""
    generator = rng(0, "test", seed)
    rows = []
    for _ in range(n_units):
        shares = generator.dirichlet([0.6, 0.4, 0.8])
        votes = n_votes if n_votes is not None else int(generator.integers(1, 6))
        rows.append(generator.multinomial(votes, shares))
    return np.array(rows)


def votes_of(counts: np.ndarray) -> list[list[int]]:
    return [list(np.repeat([0, 1, 2], row)) for row in counts]


def alpha_by_pairs(counts: np.ndarray, metric: str) -> float:
    """Krippendorff (2004): 1 - observed / expected disagreement over all pairs of values."""
    units = [votes for votes in votes_of(counts) if len(votes) >= 2]
    values = [value for votes in units for value in votes]
    marginal = np.bincount(values, minlength=3)

    def distance(c: int, k: int) -> float:
        if metric == "nominal":
            return float(c != k)
        low, high = min(c, k), max(c, k)
        return float((marginal[low : high + 1].sum() - (marginal[c] + marginal[k]) / 2) ** 2)

    observed = sum(
        distance(a, b) / (len(votes) - 1) for votes in units for a, b in permutations(votes, 2)
    ) / len(values)
    expected = sum(distance(a, b) for a, b in permutations(values, 2)) / (
        len(values) * (len(values) - 1)
    )
    return 1 - observed / expected


@pytest.mark.parametrize("metric", ["nominal", "ordinal"])
@pytest.mark.parametrize("n_votes", [2, 3, None])
def test_alpha_is_its_definition(metric: str, n_votes: int | None) -> None:
    counts = random_counts(40, n_votes, "alpha")
    assert krippendorff_alpha(counts, metric) == pytest.approx(
        alpha_by_pairs(counts, metric), abs=1e-12
    )


def test_ideal_and_chance_values() -> None:
    perfect = np.array([[3, 0, 0], [0, 3, 0], [0, 0, 3]])
    patterns = patterns_of(perfect)
    for value in (
        krippendorff_alpha(perfect), krippendorff_alpha(perfect, "ordinal"),
        fleiss_kappa(patterns), gwet_ac1(patterns), percent_agreement(patterns),
    ):  # fmt: skip
        assert value == pytest.approx(1.0)
    generator = rng(0, "test", "chance")
    chance = generator.multinomial(3, [0.4, 0.2, 0.4], size=20_000)
    assert abs(krippendorff_alpha(chance)) < 0.02
    assert abs(fleiss_kappa(patterns_of(chance))) < 0.02


def test_more_noise_means_less_agreement() -> None:
    alphas = []
    for noise in (0.0, 0.2, 0.5, 1.0):
        generator = rng(0, "test", "noise")
        truth = generator.integers(0, 3, 2000)
        answers = np.where(
            generator.random((2000, 3)) < noise, generator.integers(0, 3, (2000, 3)), truth[:, None]
        )
        alphas.append(krippendorff_alpha(np.stack([(answers == k).sum(1) for k in range(3)], 1)))
    assert alphas == sorted(alphas, reverse=True) and alphas[0] == 1.0


def test_fleiss_and_gwet_by_hand() -> None:
    # four units of three votes: agreement 1, 1/3, 1/3, 0; class shares 6/12, 3/12, 3/12
    patterns = patterns_of(np.array([[3, 0, 0], [2, 1, 0], [0, 1, 2], [1, 1, 1]]))
    observed = (1 + 1 / 3 + 1 / 3 + 0) / 4
    assert percent_agreement(patterns) == pytest.approx(observed)
    chance = 0.5**2 + 0.25**2 + 0.25**2
    assert fleiss_kappa(patterns) == pytest.approx((observed - chance) / (1 - chance))
    chance = (0.5 * 0.5 + 0.25 * 0.75 + 0.25 * 0.75) / 2
    assert gwet_ac1(patterns) == pytest.approx((observed - chance) / (1 - chance))
    by_class = percent_agreement_by_class(patterns)
    assert by_class["worse"] == pytest.approx((3 + 1) / 6)
    assert by_class["better"] == pytest.approx(1 / 3)


def test_undefined_values_are_nan_and_not_an_error() -> None:
    none = patterns_of(np.array([[1, 0, 0], [0, 1, 0]]))
    assert none.n_units == 0
    for value in (percent_agreement(none), fleiss_kappa(none), gwet_ac1(none)):
        assert np.isnan(value)
    assert np.isnan(krippendorff_alpha(np.array([[3, 0, 0], [2, 0, 0]])))


def test_interval_equals_resampling_units() -> None:
    counts = random_counts(400, 3, "bootstrap")
    found = alpha_interval(
        patterns_of(counts), "nominal", replicates=2000, confidence=0.95,
        generator=rng(0, "test", "a"),
    )  # fmt: skip
    generator = rng(0, "test", "b")
    plain = [krippendorff_alpha(counts[generator.integers(0, 400, 400)]) for _ in range(800)]
    low, high = np.quantile(plain, [0.025, 0.975])
    assert found.low < found.value < found.high
    assert abs(found.low - low) < 0.015 and abs(found.high - high) < 0.015


def test_interval_is_narrower_with_more_units_and_repeats_with_its_seed() -> None:
    widths = []
    for n_units in (100, 1600):
        patterns = patterns_of(random_counts(n_units, 3, "width"))
        draws = [
            alpha_interval(
                patterns, "ordinal", replicates=500, confidence=0.9, generator=rng(1, "test")
            )
            for _ in range(2)
        ]
        assert draws[0] == draws[1]
        widths.append(draws[0].high - draws[0].low)
    assert 3 < widths[0] / widths[1] < 5.5, "the width falls with the root of the number"


def test_input_is_not_changed() -> None:
    counts = random_counts(50, 3, "pure")
    before = counts.copy()
    krippendorff_alpha(counts, "ordinal")
    assert np.array_equal(counts, before)
