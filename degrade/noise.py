"""Gaussian and Poisson noise from tables of quantiles.

Each value takes 16 random bits and looks a quantile up: several times faster than drawing from the
distribution, the same on every machine, and equal in distribution to the fineness of the tables
(65,536 equally likely Gaussian values; 4,096 Poisson values of each grey level, whose rows fit the
processor's cache and whose variance is low by 0.03 %).
"""

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from scipy import special

from degrade.resize import Planes

BITS, POISSON_BITS = 16, 12
_BAND_VALUES = 1 << 15
_PER_WORD = 64 // BITS  # random values in a word of the generator
# weights of torchvision's grey conversion, which the release uses for grey shot noise
GREY_WEIGHTS = np.array([0.2989, 0.587, 0.114], dtype=np.float32)


def add_gaussian_noise(
    planes: Planes, sigma: float, *, is_grey: bool, generator: np.random.Generator
) -> Planes:
    """Add Gaussian noise and clip to [0, 255].

    Args:
        planes: float32 [3, H, W] in grey levels.
        sigma: standard deviation in grey levels.
        is_grey: the same noise in all channels.
        generator: the image's generator.
    """
    table, level = normal_table(), np.float32(sigma)
    bits = random_bits((1 if is_grey else planes.shape[0], *planes.shape[1:]), generator)
    noisy = np.empty_like(planes)
    for channel, rows in _bands(planes):
        noise = table.take(bits[0 if is_grey else channel, rows])
        noise *= level
        np.add(planes[channel, rows], noise, out=noisy[channel, rows])
    return clip_levels(noisy)


def add_poisson_noise(
    planes: Planes, scale: float, *, is_grey: bool, generator: np.random.Generator
) -> Planes:
    """Add shot noise and clip to [0, 255].

    The image is rounded to 8 bits; the number of its distinct values, rounded up to a power of
    two, is the number of photons of white.

    Args:
        planes: float32 [3, H, W] in grey levels.
        scale: factor of the noise.
        is_grey: noise of the grey image, the same in all channels.
        generator: the image's generator.
    """
    clean = _to_grey(planes) if is_grey else planes
    levels = np.stack([cv2.convertScaleAbs(np.maximum(plane, 0)) for plane in clean])
    photons = photons_of_white(levels)
    table, base = poisson_table(photons).ravel(), poisson_base(photons, scale)
    bits = random_bits(levels.shape, generator)
    bits >>= BITS - POISSON_BITS
    step = np.float32(scale * 255 / photons)
    noisy = np.empty_like(planes)
    for channel, rows in _bands(planes):
        own = (0 if is_grey else channel, rows)
        index = levels[own].astype(np.intp)
        index <<= POISSON_BITS
        index |= bits[own]
        noise = table.take(index) * step
        noise += cv2.LUT(levels[own], base)
        np.add(planes[channel, rows], noise, out=noisy[channel, rows])
    return clip_levels(noisy)


def _bands(planes: Planes) -> Iterator[tuple[int, slice]]:
    """Cut planes into bands of rows that fit the processor's cache."""
    channels, height, width = planes.shape
    rows = max(1, _BAND_VALUES // width)
    for channel in range(channels):
        for top in range(0, height, rows):
            yield channel, slice(top, top + rows)


def photons_of_white(levels: npt.NDArray[np.uint8]) -> int:
    """Number of distinct values, rounded up to a power of two; counted in pairs, for speed."""
    even = levels.size // 2 * 2
    pairs = np.bincount(levels.ravel()[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    is_there = np.logical_or(pairs.any(axis=0), pairs.any(axis=1))
    is_there[levels.ravel()[even:]] = True
    return 1 << (int(is_there.sum()) - 1).bit_length()


def clip_levels(planes: Planes) -> Planes:
    """Clip to [0, 255], in place."""
    np.clip(planes, 0, 255, out=planes)
    return planes


def _to_grey(planes: Planes) -> Planes:
    red, green, blue = planes * GREY_WEIGHTS[:, None, None]
    return np.asarray(red + green + blue)[None]


def random_bits(shape: tuple[int, ...], generator: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Draw 16 random bits for each element."""
    count = int(np.prod(shape))
    words = generator.bit_generator.random_raw(-(-count // _PER_WORD))
    bits: npt.NDArray[np.uint16] = np.asarray(words, dtype="<u8").view(np.uint16)
    return np.asarray(bits[:count].reshape(shape))


@lru_cache(maxsize=1)
def normal_table() -> npt.NDArray[np.float32]:
    """Midpoint quantiles of the standard normal distribution, scaled to unit variance."""
    count = 1 << BITS
    quantiles = special.ndtri((np.arange(count) + 0.5) / count)
    quantiles /= quantiles.std()
    # multiples of 2**-20, so that the last bits of the mathematical library do not matter
    return np.asarray(np.rint(quantiles * 2**20) / 2**20, dtype=np.float32)


@lru_cache(maxsize=9)
def poisson_table(photons: int) -> npt.NDArray[np.int8]:
    """Midpoint quantiles of Poisson(level / 255 * photons), [256, 4096].

    The mean's whole part is left out, so that a value fits 8 bits.
    """
    size = 1 << POISSON_BITS
    table = np.zeros((256, size), dtype=np.int8)
    for level in range(1, 256):
        mean = level / 255 * photons
        counts = np.arange(int(mean + 12 * np.sqrt(mean)) + 12)
        # a count's share of the midpoints (i + 1/2) / size lies between two values of the CDF
        below = np.ceil(special.pdtr(counts, mean) * size - 0.5).astype(np.int64)
        below[-1] = size
        table[level] = np.repeat(counts - int(mean), np.diff(below, prepend=0))
    return table


def poisson_base(photons: int, scale: float) -> npt.NDArray[np.float32]:
    """What the table leaves out, for each level: the mean's whole part less the level."""
    levels = np.arange(256)
    whole = np.floor(levels / 255 * photons)
    return np.asarray(scale * (whole * 255 / photons - levels), dtype=np.float32)
