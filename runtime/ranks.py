"""What the processes of one training must agree on: when to stop, and their weights."""

import hashlib
from collections.abc import Mapping
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor

from runtime.errors import PipelineError


def patience() -> InitProcessGroupKwargs:
    """Let processes wait for the first one while it validates or fits, longer than 10 minutes."""
    return InitProcessGroupKwargs(timeout=timedelta(days=7))


def any_rank(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is set on any process, so that all of them do the same."""
    if accelerator.num_processes == 1:
        return flag
    own = torch.tensor([float(flag)], device=accelerator.device)
    return bool(accelerator.gather(own).sum() > 0)


def check_ranks_agree(
    accelerator: Accelerator, weights: Mapping[str, Tensor], *, where: str
) -> None:
    """Compare the weights of all processes, bit by bit.

    Args:
        accelerator: of this process; all processes must call this at the same point.
        weights: this process's weights by name.
        where: stage and step, for the message.
    Raises:
        PipelineError: they differ, so some module's gradients were not synchronised.
    """
    if accelerator.num_processes == 1:
        return
    own = torch.tensor([weights_digest(weights)], device=accelerator.device)
    digests = accelerator.gather(own).tolist()
    if len(set(digests)) > 1:
        raise PipelineError(
            f"{where}: the {len(digests)} processes have different weights; this is a bug: earlier "
            "checkpoints are good, please report it"
        )


def weights_digest(weights: Mapping[str, Tensor]) -> int:
    """A number below 2**63 that changes with any bit of any weight or its name."""
    content = hashlib.sha256()
    for name, value in weights.items():
        content.update(name.encode())
        flat = value.detach().cpu().reshape(-1).contiguous()
        content.update(flat.view(torch.uint8).numpy().tobytes())
    return int.from_bytes(content.digest()[:8], "big") >> 1
