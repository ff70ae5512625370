"""Where crops lie in a photograph.

Neighbouring crops share fewer than `max_overlap_px` pixels in every case: the smallest step is
`size - max_overlap + 1` and jitter only adds to it (0 to twice `jitter_px`). The release steps by
384 and jitters each crop by +-16, so that its overlap reaches 160.
"""

from dataclasses import dataclass

import numpy as np

from crop.config import CropConfig

_MIDDLE_PX, _LARGE_PX = 1200, 2400


@dataclass(frozen=True)
class Position:
    """Upper left corner of a crop."""

    row: int
    col: int


def crop_positions(
    height: int, width: int, config: CropConfig, generator: np.random.Generator
) -> list[Position]:
    """Draw the positions of a photograph's crops, row by row.

    Each row of crops draws its own first column and steps.

    Args:
        height: rows of the upright photograph, in pixels.
        width: columns of the upright photograph, in pixels.
        config: size, overlap and jitter.
        generator: the photograph's generator.
    Returns:
        Positions in reading order; none if the photograph is smaller than a crop.
    """
    if min(height, width) < config.size_px:
        return []
    return [
        Position(row, col)
        for row in _along_axis(height, config, generator)
        for col in _along_axis(width, config, generator)
    ]


def _along_axis(side: int, config: CropConfig, generator: np.random.Generator) -> list[int]:
    room = side - config.size_px
    smallest_step = config.size_px - max(config.max_overlap_px - 1, 0)
    position = int(generator.integers(0, min(_largest_offset(side, config), room) + 1))
    found = []
    while position <= room:
        found.append(position)
        position += smallest_step + int(generator.integers(0, 2 * config.jitter_px + 1))
    return found


def _largest_offset(side: int, config: CropConfig) -> int:
    small, middle, large = config.first_offset_px
    if side >= _LARGE_PX:
        return large
    return middle if side >= _MIDDLE_PX else small
