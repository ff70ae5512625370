"""Heads of A-FINE: naturalness, fidelity, the two calibrations, their combination.

symbol  meaning                                             paper
N, F    naturalness, fidelity; lower is better              Eqs. (1), (3)
L       calibration to (-2, 2), s -> 4 / (1 + e^-z) - 2     Eqs. (7), (8)
k       scale of the adaptive weight, softplus(raw) >= 0    Eq. (2)
D       exp(k (N(ref) - N(test))) N(test) + F(test, ref)    Eq. (1)
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TINY = 1e-10
NATURAL_START = (4.9592, 21.5968)  # release: fitted on PIPAL-train
FIDELITY_START = (0.5, 0.15)  # release
SCALE_START = 5.0  # release; softplus(5) = 5.0067
CENTRE_BOUNDS = (0.05, 0.95)  # release, fidelity only
WIDTH_BOUNDS = (0.01, 0.70)
SCORE100_CENTRE, SCORE100_WIDTH = -1.9710, 2.3734  # release: fitted on SRIQA-Bench
_RGB = 3


def _linear64(layer: nn.Module, values: Tensor) -> Tensor:
    """Apply a linear layer in float64.

    The calibration of a raw score multiplies its relative error by ten and more; sums of thousands
    of products in float32 would make half of it, and these layers cost next to nothing.
    """
    assert isinstance(layer, nn.Linear), "the heads are made of linear layers"
    return F.linear(values.double(), layer.weight.double(), layer.bias.double())


class NaturalnessHead(nn.Module):
    """Score of one image from its channel statistics (paper Sec. 4.1).

    Args:
        width: channels of a feature stage.
        layers: number of feature stages.
        hidden: outputs of the projection that all feature stages share.
    """

    def __init__(self, width: int, layers: int, hidden: int) -> None:
        super().__init__()
        self.width, self.layers, self.hidden = width, layers, hidden
        self.proj_feat = nn.Linear(2 * width, hidden)
        self.proj_head = nn.Sequential(
            nn.Linear(2 * _RGB + layers * hidden, 6 * hidden), nn.GELU(), nn.Linear(6 * hidden, 1)
        )

    def forward(self, means: Tensor, variances: Tensor) -> Tensor:
        """Map statistics [N, K], [N, K] to raw naturalness [N]; lower is better, unbounded."""
        batch = len(means)
        stages = [
            values[:, _RGB:].reshape(batch, self.layers, self.width)
            for values in (means, variances)
        ]
        projected = _linear64(self.proj_feat, torch.cat(stages, dim=2)).flatten(1)
        pixels = torch.cat([means[:, :_RGB], variances[:, :_RGB]], dim=1)
        first, activation, last = self.proj_head
        mixed = activation(_linear64(first, torch.cat([pixels, projected], dim=1)))
        return _linear64(last, mixed).squeeze(1).to(means.dtype)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights as torch's Linear does, from a given generator."""
        for _, layer in sorted(self.named_modules()):
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                for parameter in (layer.weight, layer.bias):
                    drawn = torch.rand(parameter.shape, generator=generator)
                    parameter.copy_((2 * drawn - 1) * bound)


class FidelityHead(nn.Module):
    """Weighted sum of channel differences; the weights are positive and sum to one (Eq. 4).

    Args:
        channels: K.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1, 1, channels), 0.1))
        self.beta = nn.Parameter(torch.full((1, 1, channels), 0.1))

    def weights(self) -> Tensor:
        """Weights of texture and structure differences, [2, K]."""
        positive = F.softplus(torch.cat([self.alpha[0], self.beta[0]]))
        return positive / (positive.sum() + TINY)

    def forward(self, differences: Tensor) -> Tensor:
        """Map differences [N, 2, K] to raw fidelity [N]; 0 for equal images, lower is better."""
        weighted = differences.flatten(1).double() @ self.weights().double().flatten()
        return weighted.to(differences.dtype)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw alpha and beta from N(0.1, 0.01), as the release."""
        for parameter in (self.alpha, self.beta):
            parameter.copy_(0.1 + 0.01 * torch.randn(parameter.shape, generator=generator))


class Calibration(nn.Module):
    """Monotone map of a raw score to (-2, 2).

    Args:
        centre: start of the score that maps to 0.
        width: start of the slope parameter; its absolute value is used.
        centre_bounds: the centre is clamped to this range in use (gradient 0 outside).
        width_bounds: likewise.
    """

    def __init__(
        self,
        centre: float,
        width: float,
        *,
        centre_bounds: tuple[float, float] | None = None,
        width_bounds: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.yita3 = nn.Parameter(torch.tensor(centre))
        self.yita4 = nn.Parameter(torch.tensor(width))
        self._centre_bounds, self._width_bounds = centre_bounds, width_bounds

    def forward(self, raw: Tensor) -> Tensor:
        """Calibrate raw scores [N] to (-2, 2)."""
        centre: Tensor = self.yita3
        width: Tensor = self.yita4
        if self._centre_bounds is not None:
            centre = centre.clamp(*self._centre_bounds)
        if self._width_bounds is not None:
            width = width.clamp(*self._width_bounds)
        # float64: near the ends 1 - sigmoid, and with it the gradient, has no digits in float32
        scaled = (raw.double() - centre.double()) / (width.double().abs() + TINY)
        calibrated = 4 * torch.sigmoid(scaled) - 2
        return calibrated.to(raw.dtype)


class Adapter(nn.Module):
    """Combine calibrated naturalness and fidelity into D (Eqs. 1 and 2)."""

    def __init__(self, start: float = SCALE_START) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(start))

    def forward(self, natural_test: Tensor, natural_ref: Tensor, fidelity: Tensor) -> Tensor:
        """Return D, [N]; lower is better, can be very negative."""
        weight = torch.exp(F.softplus(self.k) * (natural_ref - natural_test))
        return weight * natural_test + fidelity


def to_score100(score: Tensor) -> Tensor:
    """Map D to 0..100, lower is better (release: constants fitted on SRIQA-Bench)."""
    return 100 * torch.sigmoid((score - SCORE100_CENTRE) / (math.fabs(SCORE100_WIDTH) + TINY))
