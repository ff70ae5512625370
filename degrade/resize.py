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
_CUBIC = -0.75
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
    sides = planes.shape[1:]
    height, width = (math.floor(side * factor) for side in sides)
    if mode == "area" or factor == 1 or min(height, width) < 1:
        return resize_to(planes, max(1, height), max(1, width), mode)
    if mode == "bilinear" and (height, width) == sides:
        return planes  # torch, too, leaves the image alone then; bicubic is computed
    resized = np.empty((planes.shape[0], height, width), dtype=np.float32)
    is_copied = all(round(side * factor) == side for side in sides)
    for plane, target in zip(planes, resized, strict=True):
        if is_copied:  # OpenCV copies where its rounded size is the same
            rows = _interpolate_rows(plane, height, factor, mode)
            target[:] = _interpolate_rows(rows.T, width, factor, mode).T
        else:
            flag = _INTERPOLATION[mode]
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
    if mode == "area":
        _pool(planes, resized)
        return resized
    for plane, target in zip(planes, resized, strict=True):
        cv2.resize(plane, (width, height), dst=target, interpolation=_INTERPOLATION[mode])
    return resized


def _pool(planes: Planes, resized: Planes) -> None:
    """Adaptive average pooling: along the rows, then, transposed, along the columns."""
    height, width = resized.shape[1:]
    rows = np.empty((height, planes.shape[2]), dtype=np.float32)
    columns = np.empty((planes.shape[2], height), dtype=np.float32)
    pooled = np.empty((width, height), dtype=np.float32)
    for plane, target in zip(planes, resized, strict=True):
        _pool_rows(plane, rows)
        cv2.transpose(rows, dst=columns)
        _pool_rows(columns, pooled)
        cv2.transpose(pooled, dst=target)


def _pool_rows(plane: npt.NDArray[np.float32], pooled: npt.NDArray[np.float32]) -> None:
    """Average rows floor(i H / n) up to ceil((i + 1) H / n) of `plane` into row i of `pooled`."""
    side, count = plane.shape[0], pooled.shape[0]
    index = np.arange(count)
    first = index * side // count
    lengths = -(-(index + 1) * side // count) - first
    plane.take(first, axis=0, out=pooled, mode="clip")
    for extra in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > extra)
        if len(longer) == count:
            pooled += plane.take(first + extra, axis=0, mode="clip")
        else:
            pooled[longer] += plane.take(first[longer] + extra, axis=0, mode="clip")
    pooled *= (1 / lengths).astype(np.float32)[:, None]


def _interpolate_rows(
    plane: npt.NDArray[np.float32], count: int, factor: float, mode: ResizeMode
) -> npt.NDArray[np.float32]:
    """Interpolate between rows at (i + 1/2) / factor - 1/2, with repeated borders."""
    position = (np.arange(count) + 0.5) / factor - 0.5
    first = np.floor(position)
    x = (position - first)[:, None]
    if mode == "bilinear":
        taps = {0: 1 - x, 1: x}
    else:
        a = _CUBIC
        far, near = 1 + x, 2 - x
        taps = {
            -1: a * (far**3 - 5 * far**2 + 8 * far - 4),
            0: (a + 2) * x**3 - (a + 3) * x**2 + 1,
            1: (a + 2) * (1 - x) ** 3 - (a + 3) * (1 - x) ** 2 + 1,
            2: a * (near**3 - 5 * near**2 + 8 * near - 4),
        }
    rows = first.astype(np.intp)
    total = np.zeros((count, plane.shape[1]))
    for offset, weight in taps.items():
        total += plane[np.clip(rows + offset, 0, plane.shape[0] - 1)] * weight
    return np.asarray(total, dtype=np.float32)
