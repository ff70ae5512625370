"""Batches of training examples: made ahead by threads, in an order that nothing can change."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from enhancer.config import TrainConfig
from enhancer.poses import image_tensor
from enhancer.train.examples import Example, make_example
from enhancer.train.sources import ImageSource

_BATCHES_AHEAD = 3


@dataclass(frozen=True)
class Layout:
    """How one optimizer step's batch is divided.

    Attributes:
        rank: number of this process.
        world: processes.
        micro: examples of one forward pass of one process.
        accumulation: forward passes of one process in an optimizer step.
    """

    rank: int
    world: int
    micro: int
    accumulation: int

    def indices(self, pass_number: int) -> range:
        """Examples of the batch that this process takes in one of its forward passes."""
        start = (pass_number * self.world + self.rank) * self.micro
        return range(start, start + self.micro)


@dataclass(frozen=True)
class Batch:
    """Examples of one forward pass.

    Attributes:
        examples: in order.
        image: input of the autoencoder, float32 [N, 3, px, px] in [-1, 1].
        condition01: input of the control branch, float32 [N, 3, px, px].
    """

    examples: tuple[Example, ...]
    image: Tensor
    condition01: Tensor


def collate(examples: Sequence[Example]) -> Batch:
    """Stack examples."""
    conditions = np.stack([example.condition01 for example in examples])
    return Batch(
        tuple(examples),
        image_tensor(np.stack([example.latent_u8 for example in examples])),
        torch.from_numpy(conditions).permute(0, 3, 1, 2),
    )


def batches(
    sources: Sequence[ImageSource],
    config: TrainConfig,
    layout: Layout,
    *,
    run_seed: int,
    first_step: int,
    last_step: int,
) -> Iterator[Batch]:
    """Yield this process's batches of steps `first_step` to `last_step` - 1, pass by pass."""

    def example(place: tuple[int, int]) -> Example:
        step, index = place
        return make_example(sources, config, run_seed=run_seed, step=step, index=index)

    passes = (
        [(step, index) for index in layout.indices(number)]
        for step in range(first_step, last_step)
        for number in range(layout.accumulation)
    )
    if config.workers == 0:
        for places in passes:
            yield collate([example(place) for place in places])
        return
    with ThreadPoolExecutor(config.workers) as pool:
        waiting: deque[list[Future[Example]]] = deque()
        try:
            for places in passes:
                waiting.append([pool.submit(example, place) for place in places])
                if len(waiting) > _BATCHES_AHEAD:
                    yield collate([future.result() for future in waiting.popleft()])
            while waiting:
                yield collate([future.result() for future in waiting.popleft()])
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()
