"""Distribution of `diffiqa-released` against the release rebuilt from basicsr's functions.

Two-sample Kolmogorov-Smirnov tests on what degradation does to real photographs. They cannot see
everything (a missing second JPEG, noise 10 % low): see the tests on draws and on each operation.
"""

import numpy as np
import pytest
import torch

from degrade import degrade_image
from tests.degrade.basicsr_reference import BasicsrReference
from tests.degrade.degrade_statistics import compare, measure, photographs

THEIRS, OURS = 10_000, 5_000_000


def samples(degrade, images, draws, first_seed):
    """Measurements [photograph][draw]."""
    return [
        [measure(image, degrade(image, first_seed + 1000 * i + draw)) for draw in range(draws)]
        for i, image in enumerate(images)
    ]


def released(image, seed):
    return degrade_image(image, preset="diffiqa-released", seed=seed)


@pytest.mark.parametrize(
    ("size_px", "draws"), [(96, 16), pytest.param(512, 48, marks=pytest.mark.slow)]
)
def test_equal_to_the_basicsr_reference(size_px, draws):
    torch.set_num_threads(1)
    images = [image[:size_px, :size_px].copy() for image in photographs()]
    theirs = samples(BasicsrReference(), images, draws, THEIRS)
    found = compare(theirs, samples(released, images, draws, OURS))
    assert all(pooled > 0.01 and each > 1e-3 for pooled, each in found.values()), found


def test_the_comparison_sees_what_it_should():
    """The paper's preset lacks the final part; the same test tells it from the release."""
    images = [image[:96, :96].copy() for image in photographs()]
    theirs = samples(released, images, 16, THEIRS)
    paper = samples(lambda image, seed: degrade_image(image, "diffiqa", seed), images, 16, OURS)
    assert min(p for pair in compare(theirs, paper).values() for p in pair) < 1e-4
    assert np.isfinite(theirs[0][0]["laplacian"])
