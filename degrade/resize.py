"""The three resize modes as torch's `interpolate` defines them, on planes.

- bilinear and bicubic (a = -0.75, no antialias) equal OpenCV's.
- area is torch's adaptive average pooling: whole pixels, equal weights; not OpenCV's INTER_AREA.
- With a factor, the output has floor(side * factor) pixels but the sampling step stays
  1 / factor; with a size, the step is the ratio of the sides. The release uses both.
"""

import math

import cv2
import numpy as np
import numpy.typing as npt

from degrade.parameters import ResizeMode

Planes = npt.NDArray[np.float32]
_INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


def resize_by_factor(planes: Planes, factor: float, mode: ResizeMode) -> Planes:
    """Resize by a factor, sampling step 1 / factor.

    Args:
        planes: float32 [C, H, W].
        factor: > 0.
        mode: area, bilinear or bicubic.
    Returns:
        float32 [C, floor(H * factor), floor(W * factor)].
    """
    height = math.floor(planes.shape[1] * factor)
    width = math.floor(planes.shape[2] * factor)
    if mode == "area" or factor == 1:
        return resize_to(planes, height, width, mode)
    flag = _INTERPOLATION[mode]
    resized = np.empty((planes.shape[0], height, width), dtype=np.float32)
    for plane, target in zip(planes, resized, strict=True):
        larger = cv2.resize(plane, None, fx=factor, fy=factor, interpolation=flag)
        target[:] = larger[:height, :width]
    return resized


def resize_to(planes: Planes, height: int, width: int, mode: ResizeMode) -> Planes:
    """Resize to a size, sampling step = ratio of the sides.

    Args:
        planes: float32 [C, H, W].
        height: rows wanted.
        width: columns wanted.
        mode: area, bilinear or bicubic.
    Returns:
        float32 [C, height, width].
    """
    if planes.shape[1:] == (height, width):
        return planes
    resized = np.empty((planes.shape[0], height, width), dtype=np.float32)
    for plane, target in zip(planes, resized, strict=True):
        if mode == "area":
            cv2.transpose(_pool_rows(cv2.transpose(_pool_rows(plane, height)), width), dst=target)
        else:
            cv2.resize(plane, (width, height), dst=target, interpolation=_INTERPOLATION[mode])
    return resized


def _pool_rows(plane: cv2.typing.MatLike, count: int) -> npt.NDArray[np.float32]:
    """Average rows floor(i H / count) up to ceil((i + 1) H / count), for i below count.

    Adaptive average pooling is this along the rows, then along the columns.
    """
    side = plane.shape[0]
    index = np.arange(count)
    first = index * side // count
    lengths = -(-(index + 1) * side // count) - first
    pooled = np.asarray(plane[first], dtype=np.float32)
    for extra in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > extra)
        if len(longer) == count:
            pooled += plane[first + extra]
        else:
            pooled[longer] += plane[first[longer] + extra]
    pooled *= (1 / lengths).astype(np.float32)[:, None]
    return pooled
