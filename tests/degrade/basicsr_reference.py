"""The released degradation, rebuilt from basicsr's own functions: oracle of tests and benchmarks.

Order and ranges are those of the release; randomness comes from the global generators of random,
numpy and torch, as there.
"""

import math
import random

import numpy as np
import torch
from torch.nn import functional

from degrade.basicsr_functions import load_module

_FAMILIES = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
_WEIGHTS = [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]
_SIDE = 9


class BasicsrReference:
    """Callable that degrades one image with basicsr's kernels, filter, noise and JPEG."""

    def __init__(self) -> None:
        self._ops = load_module("data/degradations.py")
        self._filter = load_module("utils/img_process_util.py").filter2D
        self._jpeg = load_module("utils/diffjpeg.py").DiffJPEG(differentiable=False)

    @torch.no_grad()
    def __call__(self, image_u8: np.ndarray, seed: int) -> np.ndarray:
        """Degrade RGB, uint8 [H, W, 3]; the same size comes back."""
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  basicsr draws from the global generator
        torch.manual_seed(seed)
        height, width = image_u8.shape[:2]
        image = torch.from_numpy(image_u8.astype(np.float32) / 255).permute(2, 0, 1)[None]
        image = self._filter(image.contiguous(), self._kernel(random.choice([3, 5, 7, 9]), 0.1))
        image = functional.interpolate(image, scale_factor=_draw_factor(), mode=_draw_mode())
        image = self._noisy(image)
        image = self._compressed(image, 75, 95)
        shrink = random.uniform(1, 1.5)
        size = (int(height / shrink), int(width / shrink))
        if random.random() < 0.5:
            image = self._shrunk(image, size)
            image = self._compressed(image, 90, 95)
        else:
            image = self._compressed(image, 90, 95)
            image = self._shrunk(image, size)
        image = functional.interpolate(image, size=(height, width), mode=_draw_mode())
        levels = torch.clamp((image * 255).round(), 0, 255)[0]
        return levels.permute(1, 2, 0).contiguous().numpy().astype(np.uint8)

    def _kernel(self, size: int, sinc_probability: float) -> torch.Tensor:
        if random.random() < sinc_probability:
            lowest = math.pi / 3 if size < _SIDE else math.pi / 5
            cutoff = random.uniform(lowest, math.pi)
            kernel = self._ops.circular_lowpass_kernel(cutoff, size, pad_to=_SIDE)
        else:
            kernel = self._ops.random_mixed_kernels(
                _FAMILIES, _WEIGHTS, size, (0, 1.2), (0, 1.2), (-math.pi, math.pi),
                betag_range=(0, 0.8), betap_range=(0, 0.4), noise_range=None,
            )  # fmt: skip
            margin = (_SIDE - size) // 2
            kernel = np.pad(kernel, ((margin, margin), (margin, margin)))
        return torch.from_numpy(kernel.astype(np.float32))[None]

    def _noisy(self, image: torch.Tensor) -> torch.Tensor:
        if random.random() < 0.5:
            return self._ops.random_add_gaussian_noise_pt(
                image, sigma_range=(0, 13), gray_prob=0.1, clip=True, rounds=False
            )
        return self._ops.random_add_poisson_noise_pt(
            image, scale_range=(0, 0.9), gray_prob=0.1, clip=True, rounds=False
        )

    def _compressed(self, image: torch.Tensor, lowest: float, highest: float) -> torch.Tensor:
        quality = image.new_zeros(1).uniform_(lowest, highest)
        return self._jpeg(torch.clamp(image, 0, 1), quality=quality)

    def _shrunk(self, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        image = functional.interpolate(image, size=size, mode=_draw_mode())
        if random.random() < 0.1:
            size_px = random.choice([3, 5, 7])
            cutoff = random.uniform(math.pi / 3, math.pi)
            kernel = self._ops.circular_lowpass_kernel(cutoff, size_px, pad_to=_SIDE)
        else:  # a unit impulse, filtered with all the same
            kernel = np.zeros((_SIDE, _SIDE))
            kernel[_SIDE // 2, _SIDE // 2] = 1
        return self._filter(image, torch.from_numpy(kernel.astype(np.float32))[None])


def _draw_factor() -> float:
    direction = random.choices(["up", "down", "keep"], [0.1, 0.85, 0.05])[0]
    if direction == "up":
        return random.uniform(1, 1.1)
    return random.uniform(0.8, 1) if direction == "down" else 1.0


def _draw_mode() -> str:
    return random.choice(["area", "bilinear", "bicubic"])
