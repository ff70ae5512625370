"""Losses and accuracy on pairs of scores (paper Eqs. 9 to 11); lower score = better image.

    symbol  meaning                                        shape
    u1, u2  scores of image 1 and image 2                  [N]
    g       label: 1 image 1 is better, 0.5 equal, 0 not   [N]
    p       Phi((u2 - u1) / sqrt 2), chance that 1 is better (Thurstone, case V)

Eq. 10 of the paper has the opposite sign; with "lower is better" the release's is right.
"""

import torch
from torch import Tensor

EPSILON = 1e-8  # release


def preference(u1: Tensor, u2: Tensor) -> tuple[Tensor, Tensor]:
    """Return p and 1 - p in float64, each from its own tail, so that neither is rounded away."""
    half = (u2.double() - u1.double()) / 2
    return torch.erfc(-half) / 2, torch.erfc(half) / 2


def fidelity_loss(u1: Tensor, u2: Tensor, label: Tensor) -> Tensor:
    """Loss of each pair, float64 [N]; about 0 where p equals the label, at most 1 (Eq. 11)."""
    p, q = preference(u1, u2)
    g = label.double()
    return 1 - torch.sqrt(p * g + EPSILON) - torch.sqrt(q * (1 - g) + EPSILON)


def is_correct(u1: Tensor, u2: Tensor, label: Tensor, delta: float = 0.0) -> Tensor:
    """Whether each pair is ordered as labelled, bool [N].

    Args:
        u1: scores of image 1.
        u2: scores of image 2.
        label: 1, 0.5 or 0.
        delta: scores closer than or as close as this count as equal.
    """
    difference = u2 - u1
    is_equal = difference.abs() <= delta
    is_first = (difference > 0) & ~is_equal
    is_second = (difference < 0) & ~is_equal
    return (is_first & (label == 1)) | (is_second & (label == 0)) | (is_equal & (label == 0.5))


def pair_measures(u1: Tensor, u2: Tensor, label: Tensor) -> dict[str, float]:
    """Mean loss of all pairs, and accuracy of those that are no ties, if there are any."""
    measures = {"loss": float(fidelity_loss(u1, u2, label).mean())}
    is_ordered = label != 0.5
    if is_ordered.any():
        measures["accuracy"] = float(is_correct(u1, u2, label)[is_ordered].double().mean())
    return measures
