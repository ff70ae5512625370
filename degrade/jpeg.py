"""JPEG in two forms: the release's floating-point one, and real files by libjpeg.

`diffjpeg` follows basicsr's DiffJPEG without differentiable rounding: black padding to a multiple
of 16, unrounded YCbCr with 4:2:0 chroma by 2x2 means, quantisation tables scaled by a real-valued
quality and not rounded (the luma table transposed), chroma repeated on decoding.

Only element-wise operations are used, no matrix product, so that results do not depend on the
processor's linear algebra.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

from degrade.noise import clip_levels
from degrade.resize import Planes
from runtime.errors import DataError

Plane = npt.NDArray[np.float32]
_BLOCK, _PAD = 8, 16

# ITU-T T.81, Tables K.1 and K.2
_LUMA = np.array(
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
_CHROMA = np.full((_BLOCK, _BLOCK), 99.0)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# DCT-II, orthonormal: c[k] = cos(k pi / 16) / 2
_C1, _C2, _C3, _C4, _C5, _C6, _C7 = (
    np.float32(math.cos(k * math.pi / 16) / 2) for k in range(1, 8)
)


def diffjpeg(planes: Planes, quality: float) -> Planes:
    """Compress and decompress in floating point.

    Args:
        planes: RGB, float32 [3, H, W] in [0, 255].
        quality: 1 to 100, real.
    Returns:
        float32 [3, H, W] in [0, 255].
    """
    height, width = planes.shape[1:]
    padded = np.pad(planes, ((0, 0), (0, -height % _PAD), (0, -width % _PAD)))
    luma, blue, red = _to_ycc(padded)
    factor = (5000 / quality if quality < 50 else 200 - 2 * quality) / 100
    luma = _code(luma, (_LUMA.T * factor).astype(np.float32)) + np.float32(128)
    table = (_CHROMA * factor).astype(np.float32)
    blue, red = (_repeat(_code(_halve(chroma), table)) for chroma in (blue, red))
    return clip_levels(_to_rgb(luma, blue, red)[:, :height, :width])


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


def _to_ycc(planes: Planes) -> tuple[Plane, Plane, Plane]:
    """RGB to luma less 128 and chroma around 0."""
    red, green, blue = planes
    luma = _mix(planes, 0.299, 0.587, 0.114) - np.float32(128)
    return (
        luma,
        _mix((red, green, blue), -0.168736, -0.331264, 0.5),
        _mix((red, green, blue), 0.5, -0.418688, -0.081312),
    )


def _to_rgb(luma: Plane, blue: Plane, red: Plane) -> Planes:
    green = luma + _mix((blue, red), -0.344136, -0.714136)
    return np.stack([luma + red * np.float32(1.402), green, luma + blue * np.float32(1.772)])


def _mix(planes: npt.NDArray[np.float32] | tuple[Plane, ...], *weights: float) -> Plane:
    """Weighted sum of planes."""
    total = planes[0] * np.float32(weights[0])
    for plane, weight in zip(planes[1:], weights[1:], strict=True):
        total += plane * np.float32(weight)
    return total


def _halve(plane: Plane) -> Plane:
    """Mean of 2x2 pixels."""
    rows = plane[0::2] + plane[1::2]
    return np.asarray((rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.25))


def _repeat(plane: Plane) -> Plane:
    """Each pixel as 2x2 pixels."""
    return np.repeat(np.repeat(plane, 2, axis=0), 2, axis=1)


def _code(plane: Plane, table: npt.NDArray[np.float32]) -> Plane:
    """Transform 8x8 blocks, quantise, transform back."""
    height, width = plane.shape
    coefficients = _forward(np.ascontiguousarray(_forward(plane).T))  # transposed blocks
    blocks = coefficients.reshape(width // _BLOCK, _BLOCK, height // _BLOCK, _BLOCK)
    steps = np.ascontiguousarray(table.T)[None, :, None, :]
    blocks = np.rint(blocks / steps)
    blocks *= steps
    return _inverse(np.ascontiguousarray(_inverse(blocks.reshape(width, height)).T))


def _forward(plane: Plane) -> Plane:
    """8-point DCT along the rows of each group of eight rows, split into even and odd parts."""
    x = plane.reshape(-1, _BLOCK, plane.shape[1])
    s0, s1, s2, s3 = (x[:, i] + x[:, 7 - i] for i in range(4))
    d0, d1, d2, d3 = (x[:, i] - x[:, 7 - i] for i in range(4))
    e0, e1, e2, e3 = s0 + s3, s1 + s2, s1 - s2, s0 - s3
    out = np.empty_like(x)
    out[:, 0] = (e0 + e1) * _C4
    out[:, 4] = (e0 - e1) * _C4
    out[:, 2] = e3 * _C2 + e2 * _C6
    out[:, 6] = e3 * _C6 - e2 * _C2
    out[:, 1] = d0 * _C1 + d1 * _C3 + d2 * _C5 + d3 * _C7
    out[:, 3] = d0 * _C3 - d1 * _C7 - d2 * _C1 - d3 * _C5
    out[:, 5] = d0 * _C5 - d1 * _C1 + d2 * _C7 + d3 * _C3
    out[:, 7] = d0 * _C7 - d1 * _C5 + d2 * _C3 - d3 * _C1
    return out.reshape(plane.shape)


def _inverse(plane: Plane) -> Plane:
    """Inverse of `_forward`."""
    y = plane.reshape(-1, _BLOCK, plane.shape[1])
    e0, e1 = (y[:, 0] + y[:, 4]) * _C4, (y[:, 0] - y[:, 4]) * _C4
    e2, e3 = y[:, 2] * _C6 - y[:, 6] * _C2, y[:, 2] * _C2 + y[:, 6] * _C6
    s0, s1, s2, s3 = e0 + e3, e1 + e2, e1 - e2, e0 - e3
    o1, o3, o5, o7 = (y[:, k] for k in (1, 3, 5, 7))
    d0 = o1 * _C1 + o3 * _C3 + o5 * _C5 + o7 * _C7
    d1 = o1 * _C3 - o3 * _C7 - o5 * _C1 - o7 * _C5
    d2 = o1 * _C5 - o3 * _C1 + o5 * _C7 + o7 * _C3
    d3 = o1 * _C7 - o3 * _C5 + o5 * _C3 - o7 * _C1
    out = np.empty_like(y)
    for i, (even, odd) in enumerate(((s0, d0), (s1, d1), (s2, d2), (s3, d3))):
        out[:, i] = even + odd
        out[:, 7 - i] = even - odd
    return out.reshape(plane.shape)
