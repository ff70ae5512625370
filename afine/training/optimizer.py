"""AdamW and its learning rates, as the release sets them."""

from typing import Any

import torch

from afine.config import ScheduleConfig
from afine.training.schedule import learning_rate


def adamw(groups: list[dict[str, Any]], schedule: ScheduleConfig) -> torch.optim.AdamW:
    """Make the release's optimizer: weight decay on everything, eps 1e-8.

    Args:
        groups: parameter groups with "params" and "lr"; the latter is kept as "base_lr".
        schedule: betas and weight decay.
    """
    remembered = [{**group, "base_lr": group["lr"]} for group in groups]
    return torch.optim.AdamW(
        remembered, betas=schedule.betas, eps=1e-8, weight_decay=schedule.weight_decay
    )


def set_rates(optimizer: torch.optim.Optimizer, iteration: int, schedule: ScheduleConfig) -> float:
    """Set the learning rates of an iteration; returns the first group's."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(iteration, group["base_lr"], schedule)
    return float(optimizer.param_groups[0]["lr"])
