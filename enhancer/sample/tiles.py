"""Overlapping latent tiles: where they lie, and how their predictions are blended.

Source: the A-FINE release's DiffEnhancer (tile 64, overlap 8 latent pixels); latents whose
area is at most one tile are not cut. The blending window is the release's, whose centre is
half a pixel off in y: (W - 1) / 2 in x, H / 2 in y.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_WINDOW_VARIANCE = 0.01


@dataclass(frozen=True)
class Tiling:
    """Size of tiles.

    Attributes:
        side_px: side of a tile, latent pixels.
        overlap_px: least overlap of neighbours, latent pixels.
    """

    side_px: int = 64
    overlap_px: int = 8

    def layout(self, height: int, width: int) -> "TileLayout":
        """Cut a latent of `height` x `width` latent pixels."""
        if height * width <= self.side_px**2:
            return TileLayout(height, width, ((0, 0),))
        tile_h, tile_w = min(self.side_px, height), min(self.side_px, width)
        tops = _offsets(height, tile_h, self.overlap_px)
        lefts = _offsets(width, tile_w, self.overlap_px)
        return TileLayout(tile_h, tile_w, tuple((top, left) for top in tops for left in lefts))


@dataclass(frozen=True)
class TileLayout:
    """Tiles of one latent size.

    Attributes:
        height: of a tile, latent pixels.
        width: of a tile, latent pixels.
        offsets: top and left of each tile, latent pixels.
    """

    height: int
    width: int
    offsets: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.offsets)

    def cut(self, images: Tensor, *, scale: int = 1) -> Tensor:
        """Cut [N, C, scale*H, scale*W] into [N * tiles, C, scale*height, scale*width]."""
        if len(self) == 1:
            return images
        tiles = [images[area] for area in self.areas(scale)]
        return torch.stack(tiles, dim=1).flatten(0, 1)

    def blend(self, tiles: Tensor, height: int, width: int) -> Tensor:
        """Average overlapping tiles, [N * tiles, C, h, w], with the window: [N, C, height, width].

        Weights are summed in float64, because they span fourteen orders of magnitude.
        """
        if len(self) == 1:
            return tiles
        window, weight = _blending_weights(self, height, width, tiles.device)
        parts = tiles.unflatten(0, (-1, len(self)))
        total = torch.zeros(
            (parts.shape[0], parts.shape[2], height, width),
            dtype=torch.float64,
            device=tiles.device,
        )
        for index, area in enumerate(self.areas()):
            total[area] += parts[:, index] * window
        return (total / weight).to(tiles.dtype)

    def areas(self, scale: int = 1) -> "list[tuple[Any, slice, slice]]":
        """Where each tile lies, as indices of an image [..., scale*H, scale*W]."""

        def span(start: int, length: int) -> slice:
            return slice(start * scale, (start + length) * scale)

        return [(..., span(top, self.height), span(left, self.width)) for top, left in self.offsets]


@lru_cache(maxsize=8)
def _blending_weights(
    layout: TileLayout, height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """A tile's window, and its sum over all tiles at each latent pixel."""
    window = gaussian_window(layout.height, layout.width).to(device)
    weight = torch.zeros((height, width), dtype=torch.float64, device=device)
    for area in layout.areas():
        weight[area] += window
    return window, weight


def gaussian_window(height: int, width: int) -> Tensor:
    """Blending weights of a tile, float64 [height, width]."""
    y = (torch.arange(height, dtype=torch.float64) - height / 2) / height
    x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) / width
    return torch.outer(_gaussian(y), _gaussian(x))


def _gaussian(distance: Tensor) -> Tensor:
    norm = (2 * torch.pi * _WINDOW_VARIANCE) ** 0.5
    weight: Tensor = torch.exp(-(distance**2) / (2 * _WINDOW_VARIANCE)) / norm
    return weight


def _offsets(length: int, tile: int, overlap: int) -> list[int]:
    """Starts of tiles that cover `length`; the last one is set back to end at the border."""
    stride = tile - overlap
    offsets = list(range(0, max(length - tile, 0) + 1, stride))
    if offsets[-1] + tile < length:
        offsets.append(length - tile)
    return offsets
