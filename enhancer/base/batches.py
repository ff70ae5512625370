"""Training patches of the base model, each batch drawn from its step's own generator."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from enhancer.poses import POSES, image_tensor, turned
from runtime.seeds import rng


def patches(
    images_u8: npt.NDArray[np.uint8], *, seed: int, key: Sequence[str | int], count: int, px: int
) -> Tensor:
    """Draw random patches with random flips and quarter turns.

    Args:
        images_u8: crops, uint8 [N, H, W, 3].
        seed: of the run.
        key: of the batch.
        count: patches.
        px: their side in pixels.
    Returns:
        float32 [count, 3, px, px] in [-1, 1], channels last.
    """
    generator = rng(seed, "enhancer base", *key)
    total, height, width, _ = images_u8.shape
    drawn = []
    for _ in range(count):
        image = images_u8[generator.integers(total)]
        row = generator.integers(height - px + 1)
        column = generator.integers(width - px + 1)
        patch = image[row : row + px, column : column + px]
        drawn.append(turned(patch, int(generator.integers(POSES))))
    return image_tensor(np.stack(drawn))
