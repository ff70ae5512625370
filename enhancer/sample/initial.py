"""Initial latents: pure noise, the release's double noising, the paper's partial noising.

Symbols: z0 scaled latent of the input, abar cumulative product of 1 - beta, n noise, L level,
T number of training timesteps.

    noise      n
    released   sqrt(abar_L) (sqrt(abar_{T-1}) z0 + sqrt(1 - abar_{T-1}) n1) + sqrt(1 - abar_L) n2;
               denoising starts at T - 1 all the same, so it is near pure noise for every L
    partial    sqrt(abar_L) z0 + sqrt(1 - abar_L) n; denoising starts at L (appendix 1.1)

All draws come from the image's own generator on the CPU, in the order: posterior sample,
noise, second noise.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from enhancer.sample.unipc import NoiseSchedule
from runtime.errors import DataError
from runtime.torch_device import torch_generator

Init = Literal["noise", "released", "partial"]


def initial_latent(
    init: Init,
    level: int | None,
    *,
    seed: int,
    shape: tuple[int, int, int],
    noise: NoiseSchedule,
    encode: Callable[[Tensor], Tensor],
) -> Tensor:
    """Draw the latent that an image's denoising starts from.

    Args:
        init: which start.
        level: training timestep L; not read for "noise".
        seed: of the image.
        shape: channels, height, width of the latent.
        noise: training schedule.
        encode: maps posterior noise [C, h, w] to the input's scaled latent [C, h, w].
    Returns:
        Float32 [C, h, w]; its noise is on the CPU generator of `seed`, whatever the device.
    Raises:
        DataError: the level is missing or no training timestep.
    """
    generator = torch_generator(seed)

    def draw() -> Tensor:
        return torch.randn(shape, generator=generator)

    if init == "noise":
        return draw()
    if level is None or not 0 <= level < noise.timesteps:
        raise DataError(f"level {level}: expected a timestep in [0, {noise.timesteps - 1}]")
    latent = encode(draw())
    if init == "released":
        latent = add_noise(latent, draw(), noise.timesteps - 1, noise)
    return add_noise(latent, draw(), level, noise)


def add_noise(latent: Tensor, drawn: Tensor, level: int, noise: NoiseSchedule) -> Tensor:
    """Move a latent to a noise level: sqrt(abar) latent + sqrt(1 - abar) drawn."""
    abar = float(noise.abar[level])
    noised: Tensor = abar**0.5 * latent + (1.0 - abar) ** 0.5 * drawn.to(latent)
    return noised
