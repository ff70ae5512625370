"""A training process that also writes down its own weights; started by `accelerate launch`.

`python -m tests.enhancer.rank_child CONFIG FOLDER [diverge]`: with `diverge`, the second process
changes one weight behind the training's back before the first checkpoint.
"""

import sys
from pathlib import Path

import torch

from enhancer.train.stage import run_train
from enhancer.train.trainer import Trainer
from runtime.errors import PipelineError
from runtime.settings import load_run

CONFIG, FOLDER, *FLAGS = sys.argv[1:]
check = Trainer.check_ranks_agree


def write_down_and_check(trainer: Trainer, step: int) -> None:
    rank = trainer._accelerator.process_index
    if "diverge" in FLAGS and rank == 1:
        next(iter(trainer.trained.values())).data.view(-1)[0] += 1e-3
    torch.save(trainer.trained, Path(FOLDER, f"step-{step}-rank-{rank}.pt"))
    check(trainer, step)


Trainer.check_ranks_agree = write_down_and_check  # type: ignore[method-assign]
try:
    run_train(load_run(Path(CONFIG)))
except PipelineError as error:
    sys.exit(f"stopped: {error}")
