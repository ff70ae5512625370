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
    details, _ = wavelet_bands(generated01)
    _, colours = wavelet_bands(reference01)
    return (details + colours).clamp(0, 1)


def wavelet_bands(image: Tensor) -> tuple[Tensor, Tensor]:
    """Split an image into the sum of its detail bands and its lowest band.

    Blurs with dilated 3x3 binomial kernels, dilations 1, 2, 4, 8, 16; edges replicated. The
    details are added up band by band: their last bit decides where pixels are truncated.
    """
    channels = image.shape[1]
    details = torch.zeros_like(image)
    line = torch.tensor([1.0, 2.0, 1.0], dtype=image.dtype, device=image.device) / 4
    kernel = torch.outer(line, line).expand(channels, 1, 3, 3)
    for level in range(LEVELS):
        dilation = 2**level
        padded = F.pad(image, (dilation,) * 4, mode="replicate")
        blurred = F.conv2d(padded, kernel, groups=channels, dilation=dilation)
        details += image - blurred
        image = blurred
    return details, image


def to_u8(image01: Tensor, rounding: Rounding = "round") -> Tensor:
    """Convert [0, 1] to uint8, rounded, or truncated as in the release."""
    scaled = image01.clamp(0, 1) * 255
    return (scaled.round() if rounding == "round" else scaled).to(torch.uint8)
