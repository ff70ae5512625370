"""Networks that cost nothing, for tests of what happens around them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

ABAR = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)


class StubControlNet(nn.Module):
    """Residual: the mean over each 8x8 block of the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.controlnet_cond_embedding = nn.AvgPool2d(8)
        self.weight = nn.Parameter(torch.ones(1))

    def forward(
        self, sample: Tensor, timestep: Tensor, **given: Any
    ) -> tuple[list[Tensor], Tensor]:
        condition = self.controlnet_cond_embedding(given["controlnet_cond"])
        return [], condition.mean(dim=1, keepdim=True) * given["conditioning_scale"]


class StubUNet(nn.Module):
    """Noise model of the golden analytic runs, shifted by the residual.

    Args:
        before: called with (sample, timesteps) first; may raise or change the sample.
    """

    def __init__(self, before: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.before = before

    def forward(self, sample: Tensor, timestep: Tensor, **given: Any) -> tuple[Tensor]:
        if self.before is not None:
            sample = self.before(sample, timestep)
        time = timestep.reshape(-1, 1, 1, 1)
        wave = 0.1 * torch.sin(sample + time / 250 + given["mid_block_additional_residual"])
        return (torch.sqrt(1 - ABAR[time]) * sample + wave,)
