"""Wavelet colour fix: details of the generated image on the colours of the input.

Source: the A-FINE release (from StableSR): five levels of an undecimated binomial wavelet.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5
Rounding = Literal["round", "truncate"]


def wavelet_color_fix(generated01: Tensor, reference01: Tensor) -> Tensor:
    """Replace the lowest band of an image by that of a reference.

    Args:
        generated01: image, float [N, C, H, W] in [0, 1].
        reference01: image with the wanted colours, same shape.
    Returns:
        Same shape, clipped to [0, 1]; the arguments are not modified.
    """
    fixed = generated01 - low_band(generated01) + low_band(reference01)
    return fixed.clamp(0, 1)


def low_band(image: Tensor) -> Tensor:
    """Blur with dilated 3x3 binomial kernels, dilations 1, 2, 4, 8, 16; edges replicated."""
    channels = image.shape[1]
    line = torch.tensor([1.0, 2.0, 1.0], dtype=image.dtype, device=image.device) / 4
    kernel = torch.outer(line, line).expand(channels, 1, 3, 3)
    for level in range(LEVELS):
        dilation = 2**level
        padded = F.pad(image, (dilation,) * 4, mode="replicate")
        image = F.conv2d(padded, kernel, groups=channels, dilation=dilation)
    return image


def to_u8(image01: Tensor, rounding: Rounding = "round") -> Tensor:
    """Convert [0, 1] to uint8, rounded, or truncated as in the release."""
    scaled = image01.clamp(0, 1) * 255
    return (scaled.round() if rounding == "round" else scaled).to(torch.uint8)
