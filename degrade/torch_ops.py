"""The same degradation in torch, for training loaders that work on batches on a GPU.

Kernels, parameters and the noise's random bits are those of the CPU path; pixels differ from it by
the rounding of float32 sums (and where that moves a JPEG coefficient across half a step, by that
step in its 8x8 block).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from degrade.drawn import (
    DrawnBlur,
    DrawnDegradation,
    DrawnFinal,
    DrawnNoise,
    DrawnResize,
    draw_degradation,
)
from degrade.jpeg import CHROMA_TABLE, LUMA_TABLE, quality_factor
from degrade.kernels import make_kernel
from degrade.noise import (
    BITS,
    GREY_WEIGHTS,
    POISSON_BITS,
    normal_table,
    photons_of_white,
    poisson_base,
    poisson_table,
    random_bits,
)
from degrade.parameters import DegradationParameters, ResizeMode
from runtime.errors import DataError
from runtime.seeds import rng

_BLOCK, _PAD = 8, 16


def degrade_batch(
    images_u8: Tensor, preset: str | DegradationParameters, seeds: Sequence[int]
) -> Tensor:
    """Degrade a batch, each image by its own seed.

    Args:
        images_u8: RGB, uint8 [N, 3, H, W], on any device; not modified.
        preset: name of a preset, or parameters.
        seeds: one for each image; an image's result does not depend on the rest of the batch.
    Returns:
        uint8 [N, 3, H, W] on the same device.
    Raises:
        DataError: not a batch of 8-bit RGB images, or another number of seeds.
    """
    if images_u8.dtype != torch.uint8 or images_u8.ndim != 4 or images_u8.shape[1] != 3:
        raise DataError(
            f"expected RGB images, uint8 [N, 3, H, W]; found {images_u8.dtype} "
            f"{tuple(images_u8.shape)}"
        )
    if len(seeds) != len(images_u8):
        raise DataError(f"{len(images_u8)} images, but {len(seeds)} seeds")
    return torch.stack(
        [
            apply_to_tensor(image, draw_degradation(preset, seed), seed)
            for image, seed in zip(images_u8, seeds, strict=True)
        ]
    )


@torch.no_grad()
def apply_to_tensor(image_u8: Tensor, drawn: DrawnDegradation, seed: int) -> Tensor:
    """Degrade one image, uint8 [3, H, W], by drawn parameters; see `apply_degradation`.

    Raises:
        DataError: the parameters ask for libjpeg, which has no form on a GPU.
    """
    if drawn.jpeg_codec != "diffjpeg":
        raise DataError("jpeg_codec libjpeg works on the CPU only; choose diffjpeg for batches")
    height, width = image_u8.shape[-2:]
    planes = image_u8.float()[None]
    for number, stage in enumerate(drawn.stages):
        planes = _blurred(planes, stage.blur)
        planes = _resized(planes, stage.resize, height, width)
        planes = _noisy(planes, stage.noise, seed, number)
        if stage.jpeg_quality is not None:
            planes = diffjpeg_tensor(planes, stage.jpeg_quality)
    if drawn.final is not None:
        planes = _finished(planes, drawn.final, height, width)
    planes = _resized_to(planes, height, width, drawn.back_mode)
    return planes[0].clamp(0, 255).round().to(torch.uint8)


def _blurred(planes: Tensor, blur: DrawnBlur) -> Tensor:
    kernel = make_kernel(blur)
    if kernel is None:
        return planes
    weights = torch.from_numpy(kernel).to(planes.device).expand(3, 1, -1, -1)
    margin = kernel.shape[0] // 2
    padded = functional.pad(planes, (margin,) * 4, mode="reflect")
    return functional.conv2d(padded, weights, groups=3)


def _resized(planes: Tensor, resize: DrawnResize, height: int, width: int) -> Tensor:
    if resize.of_input is not None:
        share = resize.of_input * resize.factor
        return _resized_to(
            planes, max(1, int(height * share)), max(1, int(width * share)), resize.mode
        )
    if resize.factor == 1:
        return planes
    return functional.interpolate(planes, scale_factor=resize.factor, mode=resize.mode)


def _resized_to(planes: Tensor, height: int, width: int, mode: ResizeMode) -> Tensor:
    if planes.shape[-2:] == (height, width):
        return planes
    return functional.interpolate(planes, size=(height, width), mode=mode)


def _noisy(planes: Tensor, noise: DrawnNoise, seed: int, number: int) -> Tensor:
    """Add the noise that the CPU path adds: the same random bits, looked up on the device."""
    shape = (1 if noise.is_grey else 3, *planes.shape[-2:])
    bits = random_bits(shape, rng(seed, "degrade.noise", number)).astype("int32")
    index = torch.from_numpy(bits).to(planes.device)[None].long()
    if noise.kind == "gaussian":
        table = torch.from_numpy(normal_table()).to(planes.device)
        return (planes + table[index] * noise.level).clamp(0, 255)
    clean = planes
    if noise.is_grey:
        weights = torch.from_numpy(GREY_WEIGHTS).to(planes.device).view(1, 3, 1, 1)
        clean = (planes * weights).sum(1, keepdim=True)
    levels = clean.clamp(0, 255).round().long()
    photons = photons_of_white(levels.to(torch.uint8).cpu().numpy())
    table = torch.from_numpy(poisson_table(photons)).to(planes.device)
    base = torch.from_numpy(poisson_base(photons, noise.level)).to(planes.device)
    offsets = table[levels, index >> (BITS - POISSON_BITS)].float()
    shot = offsets * (noise.level * 255 / photons) + base[levels]
    return (planes + shot).clamp(0, 255)


def _finished(planes: Tensor, final: DrawnFinal, height: int, width: int) -> Tensor:
    if final.order == "jpeg-shrink":
        planes = diffjpeg_tensor(planes, final.jpeg_quality)
    rows, cols = math.floor(height / final.shrink), math.floor(width / final.shrink)
    planes = _blurred(_resized_to(planes, max(1, rows), max(1, cols), final.mode), final.sinc)
    if final.order == "shrink-jpeg":
        planes = diffjpeg_tensor(planes.clamp(0, 255), final.jpeg_quality)
    return planes


def diffjpeg_tensor(planes: Tensor, quality: float) -> Tensor:
    """The floating-point JPEG of `degrade.jpeg.diffjpeg`.

    Args:
        planes: RGB, float32 [N, 3, H, W] in [0, 255].
        quality: 1 to 100, real.
    Returns:
        float32 [N, 3, H, W] in [0, 255].
    """
    height, width = planes.shape[-2:]
    red, green, blue = functional.pad(planes, (0, -width % _PAD, 0, -height % _PAD)).unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack(
        [(blue - luma) * (0.5 / (1 - 0.114)), (red - luma) * (0.5 / (1 - 0.299))], 1
    )
    factor = quality_factor(quality)
    luma = _coded(luma[:, None] - 128, torch.from_numpy(LUMA_TABLE.T * factor)) + 128
    halved = _coded(functional.avg_pool2d(chroma, 2), torch.from_numpy(CHROMA_TABLE * factor))
    blue_chroma, red_chroma = halved.repeat_interleave(2, 2).repeat_interleave(2, 3).split(1, 1)
    rgb = torch.cat(
        [
            luma + 1.402 * red_chroma,
            luma - 0.344136 * blue_chroma - 0.714136 * red_chroma,
            luma + 1.772 * blue_chroma,
        ],
        1,
    )
    return rgb[..., :height, :width].clamp(0, 255)


def _coded(planes: Tensor, table: Tensor) -> Tensor:
    """Transform 8x8 blocks, quantise, transform back; planes [N, C, H, W]."""
    transform = _dct_matrix().to(planes)
    steps = table.to(planes)
    blocks = planes.unflatten(-1, (-1, _BLOCK)).unflatten(-3, (-1, _BLOCK)).transpose(-3, -2)
    coefficients = transform @ blocks @ transform.T
    decoded = transform.T @ ((coefficients / steps).round() * steps) @ transform
    merged: Tensor = decoded.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)
    return merged


def _dct_matrix() -> Tensor:
    """Orthonormal 8-point DCT-II, float64 [8, 8]."""
    k, n = torch.arange(_BLOCK).double()[:, None], torch.arange(_BLOCK).double()[None, :]
    matrix = torch.cos((2 * n + 1) * k * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix
