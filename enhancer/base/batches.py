"""Training batches of the base model, each drawn from its step's own generator."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runtime.seeds import rng


def image_tensor(images_u8: npt.NDArray[np.uint8]) -> Tensor:
    """Scale images to [-1, 1]: uint8 [N, H, W, 3] to float32 [N, 3, H, W], channels last."""
    scaled = torch.from_numpy(images_u8.astype(np.float32) / 127.5 - 1.0)
    return scaled.permute(0, 3, 1, 2)


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
        drawn.append(
            turned(image[row : row + px, column : column + px], int(generator.integers(8)))
        )
    return image_tensor(np.stack(drawn))


def turned(image_u8: npt.NDArray[np.uint8], pose: int) -> npt.NDArray[np.uint8]:
    """Turn a square image by `pose` % 4 quarter turns, mirrored for poses 4 to 7."""
    mirrored = image_u8[:, ::-1] if pose >= 4 else image_u8
    return np.rot90(mirrored, pose % 4)
