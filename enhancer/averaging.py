"""Exponential moving average of weights, kept in float32."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average of some parameters over training steps.

    The decay ramps up as (1 + n) / (10 + n), so that a short training does not keep its start.

    Args:
        parameters: names and parameters to follow; their present values are the start.
        decay: share of the old average that a step keeps, in the long run.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self._parameters = dict(parameters)
        self._decay = decay
        self.updates = 0
        self.values = {
            name: parameter.detach().float().clone() for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters' present values."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self._parameters.items():
            self.values[name].lerp_(parameter.detach().float(), 1 - decay)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Give the followed parameters their averaged values."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.values[name])

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return what `load_state_dict` needs."""
        return {"updates": self.updates, **self.values}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Go on from a saved average."""
        values = dict(state)
        updates = values.pop("updates")
        assert isinstance(updates, int)
        self.updates = updates
        for name, value in values.items():
            assert isinstance(value, Tensor)
            self.values[name].copy_(value)
