"""The eight flips and transposes: version = h + 2 v + 4 t, applied in this order."""

import numpy as np
from torch import Tensor

from runtime.images import ImageU8

VERSIONS = {"none": 1, "dihedral8": 8}


def dihedral(image: Tensor, version: int) -> Tensor:
    """Flip left-right (bit 0), flip top-bottom (bit 1), then transpose (bit 2).

    Args:
        image: [..., H, W].
        version: 0 (unchanged) to 7.
    Returns:
        A view: [..., H, W], or [..., W, H] where transposed.
    """
    if version & 1:
        image = image.flip(-1)
    if version & 2:
        image = image.flip(-2)
    return image.transpose(-1, -2) if version & 4 else image


def dihedral_u8(image: ImageU8, version: int) -> ImageU8:
    """Do what `dihedral` does to an image [H, W, 3]."""
    if version & 1:
        image = image[:, ::-1]
    if version & 2:
        image = image[::-1]
    return np.ascontiguousarray(image.transpose(1, 0, 2) if version & 4 else image)
