"""JPEG in two forms: the release's floating-point one, and real files by libjpeg.

`diffjpeg` follows basicsr's DiffJPEG without differentiable rounding: black padding to a multiple
of 16, unrounded YCbCr with 4:2:0 chroma by 2x2 means, quantisation tables scaled by a real-valued
quality and not rounded (the luma table transposed), chroma repeated on decoding.

Only element-wise operations are used, no matrix product, so that results do not depend on the
processor's linear algebra.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from degrade.noise import clip_levels
from degrade.resize import Planes
from runtime.errors import DataError

Plane = npt.NDArray[np.float32]
_BLOCK, _PAD = 8, 16

# ITU-T T.81, Tables K.1 and K.2
LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=np.float64,
)
CHROMA_TABLE = np.full((_BLOCK, _BLOCK), 99.0)
CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# The fast transforms of Arai, Agui and Nakajima (1988) leave each coefficient scaled: the forward
# one by sqrt(8) * _SCALE[k], the inverse one expects _SCALE[k] / sqrt(8). Both are folded into the
# quantisation tables.
_SCALE = np.array([1.0] + [math.sqrt(2) * math.cos(k * math.pi / 16) for k in range(1, 8)])
_SCALE_2D = np.outer(_SCALE, _SCALE)
_HALF_SQRT, _SQRT = np.float32(math.sqrt(0.5)), np.float32(math.sqrt(2))
_SIN_8 = np.float32(math.sin(math.pi / 8))
_COS_LESS_SIN = np.float32(math.cos(math.pi / 8) - math.sin(math.pi / 8))
_COS_PLUS_SIN = np.float32(math.cos(math.pi / 8) + math.sin(math.pi / 8))
_TWO_COS = np.float32(2 * math.cos(math.pi / 8))
_TWO_COS_LESS_SIN = np.float32(2 * (math.cos(math.pi / 8) - math.sin(math.pi / 8)))
_TWO_COS_PLUS_SIN = np.float32(2 * (math.cos(math.pi / 8) + math.sin(math.pi / 8)))


def diffjpeg(planes: Planes, quality: float) -> Planes:
    """Compress and decompress in floating point.

    Args:
        planes: RGB, float32 [3, H, W], in [0, 255].
        quality: 1 to 100, real.
    Returns:
        float32 [3, H, W] in [0, 255].
    """
    height, width = planes.shape[1:]
    factor = quality_factor(quality)
    padded = _padded(planes)
    rows = padded.shape[1]
    tables = [LUMA_TABLE.T * factor] * (rows // _BLOCK) + [CHROMA_TABLE * factor] * (rows // _PAD)
    decoded = _code(_to_ycc(padded), tables)
    return clip_levels(_to_rgb(decoded)[:, :height, :width])


def quality_factor(quality: float) -> float:
    """Factor of the quantisation tables at a quality of 1 to 100."""
    return (5000 / quality if quality < 50 else 200 - 2 * quality) / 100


def libjpeg(planes: Planes, quality: float) -> Planes:
    """Compress and decompress as an 8-bit file, 4:2:0, quality rounded to a whole number.

    Args:
        planes: RGB, float32 [3, H, W] in [0, 255].
        quality: 1 to 100.
    Returns:
        float32 [3, H, W], whole numbers in [0, 255].
    """
    image_bgr = cv2.merge([np.rint(plane).astype(np.uint8) for plane in planes[::-1]])
    flags = [cv2.IMWRITE_JPEG_QUALITY, round(quality)]
    is_done, content = cv2.imencode(".jpg", image_bgr, flags)
    if not is_done:
        raise DataError(f"an image of shape {image_bgr.shape} could not be encoded as JPEG")
    decoded = cv2.imdecode(content, cv2.IMREAD_COLOR)
    assert decoded is not None, "libjpeg could not read what it wrote"
    return np.stack(cv2.split(decoded)[::-1]).astype(np.float32)


def _padded(planes: Planes) -> Planes:
    """Add black rows and columns up to multiples of 16."""
    channels, height, width = planes.shape
    if height % _PAD == 0 and width % _PAD == 0:
        return planes
    shape = (channels, height + -height % _PAD, width + -width % _PAD)
    padded = np.zeros(shape, dtype=np.float32)
    padded[:, :height, :width] = planes
    return padded


def _to_ycc(planes: Planes) -> Plane:
    """RGB [3, H, W] to one plane [1.5 H, W], so that all blocks are transformed at once.

    Luma less 128 on top; below it, halved by 2x2 means, blue chroma (left) and red chroma (right).
    Chroma is a multiple of blue or red less luma, and means are linear, so it is mixed after
    halving.
    """
    red, green, blue = planes
    height, width = red.shape
    ycc = np.empty((height + height // 2, width), dtype=np.float32)
    luma = np.multiply(red, np.float32(0.299), out=ycc[:height])
    luma += green * np.float32(0.587)
    luma += blue * np.float32(0.114)
    grey = _halved(luma)
    left, right = ycc[height:, : width // 2], ycc[height:, width // 2 :]
    np.multiply(_halved(blue) - grey, np.float32(0.5 / (1 - 0.114)), out=left)
    np.multiply(_halved(red) - grey, np.float32(0.5 / (1 - 0.299)), out=right)
    luma -= np.float32(128)
    return ycc


def _to_rgb(ycc: Plane) -> Planes:
    """Inverse of `_to_ycc`; each chroma value covers 2x2 pixels."""
    height, width = ycc.shape[0] * 2 // 3, ycc.shape[1]
    luma = ycc[:height]
    luma += np.float32(128)
    blue, red = ycc[height:, : width // 2], ycc[height:, width // 2 :]
    planes = np.empty((3, height, width), dtype=np.float32)
    green = blue * np.float32(-0.344136) + red * np.float32(-0.714136)
    chroma = (red * np.float32(1.402), green, blue * np.float32(1.772))
    pairs = luma.reshape(-1, 2, width)
    for target, plane in zip(planes, chroma, strict=True):
        wide = np.repeat(plane, 2, axis=1)
        np.add(pairs, wide[:, None, :], out=target.reshape(pairs.shape))
    return planes


def _halved(plane: Plane) -> Plane:
    """Mean of 2x2 pixels."""
    rows = plane[0::2] + plane[1::2]
    return np.asarray((rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.25))


def _code(plane: Plane, tables: Sequence[npt.NDArray[np.float64]]) -> Plane:
    """Transform 8x8 blocks, quantise, transform back.

    Args:
        plane: float32 [8 n, 8 m].
        tables: the table of each of the n rows of blocks, [8, 8] (rows: vertical frequency).
    """
    height, width = plane.shape
    steps = np.concatenate([table.T for table in tables], axis=1)  # [8, height], transposed
    scale = np.tile(_SCALE_2D, (1, len(tables)))
    blocks = _forward(_transposed(_forward(plane))).reshape(width // _BLOCK, _BLOCK, height)
    blocks /= (8 * steps * scale).astype(np.float32)
    np.rint(blocks, out=blocks)
    blocks *= (steps * scale / 8).astype(np.float32)
    return _inverse(_transposed(_inverse(blocks.reshape(width, height))))


def _transposed(plane: Plane) -> Plane:
    return np.asarray(cv2.transpose(plane), dtype=np.float32)


def _forward(plane: Plane) -> Plane:
    """8-point DCT down each group of eight rows, coefficient k times sqrt(8) * _SCALE[k]."""
    x = plane.reshape(-1, _BLOCK, plane.shape[1])
    s0, s1, s2, s3 = (x[:, i] + x[:, 7 - i] for i in range(4))
    d0, d1, d2, d3 = (x[:, i] - x[:, 7 - i] for i in range(4))
    out = np.empty_like(x)
    outer, inner, difference = s0 + s3, s1 + s2, s0 - s3
    np.add(outer, inner, out=out[:, 0])
    np.subtract(outer, inner, out=out[:, 4])
    rotated = (s1 - s2 + difference) * _HALF_SQRT
    np.add(difference, rotated, out=out[:, 2])
    np.subtract(difference, rotated, out=out[:, 6])
    low, middle, high = d3 + d2, (d2 + d1) * _HALF_SQRT, d1 + d0
    shared = (low - high) * _SIN_8
    low = low * _COS_LESS_SIN + shared
    high = high * _COS_PLUS_SIN + shared
    plus, minus = d0 + middle, d0 - middle
    np.add(plus, high, out=out[:, 1])
    np.subtract(plus, high, out=out[:, 7])
    np.add(minus, low, out=out[:, 5])
    np.subtract(minus, low, out=out[:, 3])
    return out.reshape(plane.shape)


def _inverse(plane: Plane) -> Plane:
    """Inverse of `_forward` for coefficients times _SCALE[k] / sqrt(8)."""
    y = plane.reshape(-1, _BLOCK, plane.shape[1])
    even = _inverse_even(y)
    odd = _inverse_odd(y)
    out = np.empty_like(y)
    for i in range(4):
        np.add(even[i], odd[i], out=out[:, i])
        np.subtract(even[i], odd[i], out=out[:, 7 - i])
    return out.reshape(plane.shape)


def _inverse_even(y: Planes) -> tuple[Plane, Plane, Plane, Plane]:
    """What rows i and 7 - i have in common, i = 0..3."""
    plus, minus = y[:, 0] + y[:, 4], y[:, 0] - y[:, 4]
    outer = y[:, 2] + y[:, 6]
    inner = (y[:, 2] - y[:, 6]) * _SQRT - outer
    return plus + outer, minus + inner, minus - inner, plus - outer


def _inverse_odd(y: Planes) -> tuple[Plane, Plane, Plane, Plane]:
    """By what rows i and 7 - i differ, i = 0..3."""
    middle_plus, middle_minus = y[:, 5] + y[:, 3], y[:, 5] - y[:, 3]
    ends_plus, ends_minus = y[:, 1] + y[:, 7], y[:, 1] - y[:, 7]
    shared = (middle_minus + ends_minus) * _TWO_COS
    first = ends_plus + middle_plus
    second = shared - middle_minus * _TWO_COS_PLUS_SIN - first
    third = (ends_plus - middle_plus) * _SQRT - second
    fourth = shared - ends_minus * _TWO_COS_LESS_SIN - third
    return first, second, third, fourth
