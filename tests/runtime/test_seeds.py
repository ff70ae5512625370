import numpy as np

from runtime.seeds import item_seed, rng


def test_seed_is_the_same_everywhere():
    # value computed once; a change here changes every dataset ever built
    assert item_seed(0, "degrade.plan", "df2k-0001-x0y0", 1) == item_seed(
        0, "degrade.plan", "df2k-0001-x0y0", "1"
    )
    assert 0 <= item_seed(2**62, "s", "k") < 2**63


def test_every_part_of_the_key_counts():
    base = (7, "stage", "a", "b")
    others = [(8, "stage", "a", "b"), (7, "stagf", "a", "b"), (7, "stage", "ab"), (7, "stage", "a")]
    assert len({item_seed(*key) for key in [base, *others]}) == 5


def test_draws_do_not_depend_on_order():
    first = [rng(1, "s", key).random() for key in "abc"]
    second = [rng(1, "s", key).random() for key in "cba"]
    assert first == second[::-1]


def test_seeds_are_spread():
    values = np.array([item_seed(0, "s", number) for number in range(2000)]) / 2.0**63
    assert abs(values.mean() - 0.5) < 0.03
