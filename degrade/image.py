"""The blind degradation of one image: a pure function of pixels, drawn parameters and a seed.

Planes are float32 in grey levels [0, 255] between the operations and are rounded to 8 bits once,
at the end (paper Eq. 1; order of the release for the final part).

The bytes do not depend on the processor: numpy's element-wise operations are exact, filters sum
without rounding (kernels.py), and Intel's IPP, which chooses other arithmetic on other processors,
is off while an image is made.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import numpy.typing as npt

from degrade.drawn import (
    DrawnBlur,
    DrawnDegradation,
    DrawnFinal,
    DrawnNoise,
    DrawnResize,
    draw_degradation,
)
from degrade.jpeg import diffjpeg, libjpeg
from degrade.kernels import make_kernel
from degrade.noise import add_gaussian_noise, add_poisson_noise, clip_levels
from degrade.parameters import DegradationParameters, JpegCodec
from degrade.resize import Planes, resize_by_factor, resize_to
from runtime.images import ImageU8, check_image_u8
from runtime.seeds import rng

_MAX_DIRECT_KERNEL_PX = 11  # OpenCV filters larger kernels through a Fourier transform


def degrade_image(
    image_u8: ImageU8, preset: str | DegradationParameters = "diffiqa-released", seed: int = 0
) -> ImageU8:
    """Degrade one image blindly.

    Args:
        image_u8: RGB, uint8 [H, W, 3]; not modified.
        preset: name of a preset (degrade/presets.py), or parameters.
        seed: the same seed gives the same bytes.
    Returns:
        uint8 [H, W, 3], the input's size.
    Raises:
        ConfigError: there is no such preset.
        DataError: not an RGB image of 8 bits.
    """
    return apply_degradation(image_u8, draw_degradation(preset, seed), seed)


def apply_degradation(image_u8: ImageU8, drawn: DrawnDegradation, seed: int) -> ImageU8:
    """Degrade one image by drawn parameters; the seed decides the noise.

    Args:
        image_u8: RGB, uint8 [H, W, 3]; not modified.
        drawn: from `draw_degradation`, or a row of plan.parquet.
        seed: the image's seed.
    Returns:
        uint8 [H, W, 3], the input's size.
    """
    check_image_u8(image_u8)
    with _same_on_every_processor():
        return _degraded(image_u8, drawn, seed)


@contextmanager
def _same_on_every_processor() -> Iterator[None]:
    was_on = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        yield
    finally:
        cv2.ipp.setUseIPP(was_on)


def _degraded(image_u8: ImageU8, drawn: DrawnDegradation, seed: int) -> ImageU8:
    height, width = image_u8.shape[:2]
    planes = to_planes(image_u8)
    for number, stage in enumerate(drawn.stages):
        planes = blur_planes(planes, stage.blur, is_whole=number == 0)
        planes = _resized(planes, stage.resize, height, width)
        planes = _noisy(planes, stage.noise, rng(seed, "degrade.noise", number))
        if stage.jpeg_quality is not None:
            planes = _jpeg(planes, stage.jpeg_quality, drawn.jpeg_codec)
    if drawn.final is not None:
        planes = _finished(planes, drawn.final, drawn.jpeg_codec, height, width)
    return to_image(resize_to(planes, height, width, drawn.back_mode))


def to_planes(image_u8: ImageU8) -> Planes:
    """uint8 [H, W, 3] to float32 [3, H, W] in grey levels."""
    height, width = image_u8.shape[:2]
    planes = np.empty((3, height, width), dtype=np.float32)
    for channel, target in zip(cv2.split(image_u8), planes, strict=True):
        target[:] = channel
    return planes


def to_image(planes: Planes) -> ImageU8:
    """float32 [3, H, W] to uint8 [H, W, 3]: clip and round half to even."""
    channels = [cv2.convertScaleAbs(np.maximum(plane, 0)) for plane in planes]
    return np.asarray(cv2.merge(channels), dtype=np.uint8)


def blur_planes(planes: Planes, blur: DrawnBlur, *, is_whole: bool = False) -> Planes:
    """Filter with reflected borders.

    Values between grey levels are split into whole levels and 256ths, which are filtered
    separately: with the rounded kernels both sums are exact, whatever the processor.

    Args:
        planes: float32 [3, H, W] in grey levels.
        blur: drawn kernel.
        is_whole: all values are whole grey levels.
    """
    kernel = make_kernel(blur)
    if kernel is None:
        return planes
    if is_whole or kernel.shape[0] > _MAX_DIRECT_KERNEL_PX:
        return _filter(planes, kernel)
    whole = np.rint(planes)
    rest = np.rint((planes - whole) * np.float32(256))
    filtered = _filter(rest, kernel)
    filtered *= np.float32(1 / 256)
    filtered += _filter(whole, kernel)
    return filtered


def _filter(planes: Planes, kernel: npt.NDArray[np.float32]) -> Planes:
    filtered = np.empty_like(planes)
    for plane, target in zip(planes, filtered, strict=True):
        cv2.filter2D(plane, cv2.CV_32F, kernel, dst=target, borderType=cv2.BORDER_REFLECT_101)
    return filtered


def _resized(planes: Planes, resize: DrawnResize, height: int, width: int) -> Planes:
    """Resize by a factor of the current side, or to a share of the input's side."""
    if resize.of_input is None:
        return resize_by_factor(planes, resize.factor, resize.mode)
    share = resize.of_input * resize.factor
    rows, cols = max(1, int(height * share)), max(1, int(width * share))
    return resize_to(planes, rows, cols, resize.mode)


def _noisy(planes: Planes, noise: DrawnNoise, generator: np.random.Generator) -> Planes:
    add = add_gaussian_noise if noise.kind == "gaussian" else add_poisson_noise
    return add(planes, noise.level, is_grey=noise.is_grey, generator=generator)


def _jpeg(planes: Planes, quality: float, codec: JpegCodec) -> Planes:
    return (diffjpeg if codec == "diffjpeg" else libjpeg)(planes, quality)


def _finished(
    planes: Planes, final: DrawnFinal, codec: JpegCodec, height: int, width: int
) -> Planes:
    """The release's final part, in the drawn order."""
    if final.order == "jpeg-shrink":  # what noise or an earlier JPEG left is clipped already
        planes = _jpeg(planes, final.jpeg_quality, codec)
    rows, cols = math.floor(height / final.shrink), math.floor(width / final.shrink)
    planes = resize_to(planes, max(1, rows), max(1, cols), final.mode)
    planes = blur_planes(planes, final.sinc)
    if final.order == "shrink-jpeg":
        planes = _jpeg(clip_levels(planes), final.jpeg_quality, codec)
    return planes
