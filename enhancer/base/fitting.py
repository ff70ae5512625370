"""One optimisation loop for the base model's parts: one-cycle rate, averaged weights, metrics."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from enhancer.averaging import WeightAverage
from runtime.errors import DataError
from runtime.metrics import MetricsLog
from runtime.progress import Progress

_WARM_UP_SHARE = 0.1
_MAX_GRAD_NORM = 1.0


def fit(
    name: str,
    parameters: Iterable[nn.Parameter],
    loss_of_step: Callable[[int], Tensor],
    *,
    steps: int,
    learning_rate: float,
    ema_decay: float,
    metrics: MetricsLog,
    log_every: int,
) -> None:
    """Minimise a loss; the parameters end as their moving average.

    Args:
        name: what is trained, for messages and metrics.
        parameters: what is changed.
        loss_of_step: the loss of step 0, 1, ...; draws its batch from the step's number.
        steps: optimizer steps.
        learning_rate: peak of the one-cycle rate.
        ema_decay: decay of the averaged weights.
        metrics: gets a row {phase: "train", part, step, loss} every `log_every` steps.
        log_every: steps between rows; a row's loss is the mean since the last row.
    Raises:
        DataError: the loss is not finite.
    """
    trained = list(parameters)
    average = WeightAverage(((str(i), p) for i, p in enumerate(trained)), ema_decay)
    optimizer = torch.optim.AdamW(
        trained, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0, foreach=True
    )
    losses: list[float] = []
    with Progress(steps, f"train {name}", unit="step") as progress:
        for step in range(steps):
            _set_rate(optimizer, learning_rate * one_cycle(step, steps))
            loss = loss_of_step(step)
            losses.append(_finite(loss.item(), name, step))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, _MAX_GRAD_NORM)
            optimizer.step()
            average.update()
            progress.advance(note=f"loss {losses[-1]:.4g}")
            if (step + 1) % log_every == 0 or step + 1 == steps:
                metrics.write(
                    phase="train", part=name, step=step + 1, loss=sum(losses) / len(losses)
                )
                losses.clear()
    average.copy_to_model()


def one_cycle(step: int, steps: int) -> float:
    """Rate of a step relative to the peak: linear up, then half a cosine down to zero."""
    warm_up = max(1, round(_WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _finite(loss: float, name: str, step: int) -> float:
    if not math.isfinite(loss):
        raise DataError(
            f"enhancer base: the loss of the {name} is {loss} at step {step}; lower its learning "
            "rate (enhancer.base)"
        )
    return loss
