"""The training loop: one optimizer step after another, on one or many processes."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from torch import Tensor

from enhancer.averaging import WeightAverage
from enhancer.config import TrainConfig
from enhancer.train.loader import Batch, Layout
from enhancer.train.objective import Enhancer, LatentEncoder, draw_noise, per_example_loss
from runtime.errors import ConfigError, DataError
from runtime.ranks import check_ranks_agree

_log = logging.getLogger(__name__)


def divide_batch(config: TrainConfig, *, rank: int, world: int) -> Layout:
    """Divide an optimizer step's batch over processes and forward passes.

    Raises:
        ConfigError: it does not divide evenly; the message names both numbers.
    """
    micro = config.micro_batch_size or max(1, config.batch_size // world)
    accumulation, rest = divmod(config.batch_size, micro * world)
    if rest or accumulation == 0:
        raise ConfigError(
            f"enhancer.train.batch_size {config.batch_size} is not a multiple of {world} processes "
            f"x micro_batch_size {micro}; change one of them"
        )
    return Layout(rank, world, micro, accumulation)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Rate of an optimizer step, from its number alone."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    shape = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
    }[config.schedule]
    return config.learning_rate * shape


def make_optimizer(
    parameters: Sequence[torch.nn.Parameter], config: TrainConfig
) -> torch.optim.Optimizer:
    """Adam (paper; weight decay as L2) or AdamW (release; decoupled)."""
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )


class Trainer:
    """Model, optimizer and average of one process, and what one step does to them.

    Args:
        enhancer: both nets, with only the trained parameters requiring gradients.
        encoder: from images to latents.
        schedule: noise schedule.
        text: prompt embedding, [1, tokens, width].
        config: of the training.
        accelerator: device, processes and number format.
        layout: this process's part of a batch.
    """

    def __init__(
        self,
        enhancer: Enhancer,
        encoder: LatentEncoder,
        schedule: DDPMScheduler,
        text: Tensor,
        config: TrainConfig,
        accelerator: Accelerator,
        layout: Layout,
    ) -> None:
        self.enhancer = enhancer
        self._encoder, self._schedule, self._text = encoder, schedule, text
        self._config, self._accelerator, self._layout = config, accelerator, layout
        self.trained = {
            name: parameter
            for name, parameter in enhancer.named_parameters()
            if parameter.requires_grad
        }
        optimizer = make_optimizer(list(self.trained.values()), config)
        self._model, self._optimizer = accelerator.prepare(enhancer, optimizer)
        self.average: WeightAverage | None = None
        if config.ema_decay is not None:
            self.average = WeightAverage(self.trained.items(), config.ema_decay)

    def step(self, step: int, batches: Iterator[Batch]) -> tuple[Tensor, Tensor, float]:
        """Do one optimizer step: all passes of its batch, clipping, update, average.

        Returns:
            Loss and timestep of each of this process's examples, and the gradient's norm.
        Raises:
            DataError: loss or gradient is not finite.
        """
        rate = learning_rate(self._config, step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        losses, timesteps = [], []
        for number in range(self._layout.accumulation):
            is_last = number + 1 == self._layout.accumulation
            synchronise = nullcontext() if is_last else self._accelerator.no_sync(self._model)
            with synchronise:
                loss, times = self._backward(step, next(batches))
            losses.append(loss)
            timesteps.append(times)
        norm = self._clip(step)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        return torch.cat(losses), torch.cat(timesteps), norm

    def check_ranks_agree(self, step: int) -> None:
        """Compare the trained weights of all processes, bit by bit; see `runtime.ranks`."""
        check_ranks_agree(
            self._accelerator, self.trained, where=f"enhancer train, after step {step}"
        )

    def state(self) -> dict[str, Any]:
        """Everything that going on needs, on the CPU or as it is saved by torch."""
        scaler = self._accelerator.scaler
        return {
            "trained": {name: value.detach() for name, value in self.trained.items()},
            "optimizer": self._optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`."""
        for name, value in state["trained"].items():
            self.trained[name].copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self._accelerator.scaler is not None and state["scaler"] is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])

    def _backward(self, step: int, batch: Batch) -> tuple[Tensor, Tensor]:
        latent = self._encoder(batch)
        seeds = [example.seed for example in batch.examples]
        noisy, timesteps, noise = draw_noise(latent, seeds, self._schedule)
        text = self._text.expand(len(seeds), -1, -1)
        predicted = self._model(noisy, timesteps, text, batch.condition01.to(noisy.device))
        losses = per_example_loss(predicted, noise)
        if not torch.isfinite(losses).all():
            keys = ", ".join(example.key for example in batch.examples)
            raise DataError(f"the loss is not finite at step {step + 1}, batch: {keys}")
        self._accelerator.backward(losses.mean() / self._layout.accumulation)
        return losses.detach(), timesteps

    def _clip(self, step: int) -> float:
        limit = self._config.max_grad_norm
        norm = self._accelerator.clip_grad_norm_(
            self.trained.values(), math.inf if limit is None else limit
        )
        value = float(norm)
        # with a loss scale (fp16) an overflow is expected now and then, and its step is left out
        if not math.isfinite(value) and self._accelerator.scaler is None:
            raise DataError(f"the gradient is not finite at step {step + 1}")
        return value
