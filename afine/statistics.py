"""Per-channel statistics of an image's stages, and how two images differ in them.

    symbol   meaning                                                   shape
    stage 0  the pixels, [0, 1] RGB                                    [N, H*W, 3]
    stage i  ReLU of the features after block i                        [N, T, C]
    K        channels of all stages together, 3 + layers * C           -
    mu, var  mean and biased variance of a channel over its positions  [N, K]
    texture  1 - S1 of the release: (mu_x - mu_y)^2 / (mu_x^2 + mu_y^2 + c)
    structure 1 - S2: E[((x - mu_x) - (y - mu_y))^2] / (var_x + var_y + c)

Written as differences, these are exact zeros for equal images and never negative. The
release computes a covariance as E[xy] - E[x]E[y], whose rounding error is divided by 1e-10
on flat channels: two equal grey images get a fidelity of 2.3 there instead of 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from afine.backbone import VisionTrunk

STABILITY = 1e-10


@dataclass(frozen=True)
class Encoded:
    """What A-FINE keeps of a batch of images.

    Attributes:
        means: mu, [N, K].
        variances: var, [N, K].
        centred: per stage, values minus their channel's mean, [N, positions, channels]; empty
            where only the naturalness is wanted.
    """

    means: Tensor
    variances: Tensor
    centred: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.means)

    def rows(self, index: Tensor | slice) -> "Encoded":
        """Select images, for example one reference several times."""
        return Encoded(
            self.means[index],
            self.variances[index],
            tuple(stage[index] for stage in self.centred),
        )


def encode(trunk: VisionTrunk, image01: Tensor, *, is_for_pairs: bool = True) -> Encoded:
    """Run the trunk over images and take the statistics of every stage.

    Args:
        trunk: the backbone.
        image01: [N, 3, H, W] in [0, 1], sides multiples of the patch side.
        is_for_pairs: keep what a comparison with another image needs.
    """
    means, variances, kept = [], [], []
    for stage in _stages(trunk, image01):
        mean = stage.mean(dim=1, keepdim=True)
        centred = stage - mean
        means.append(mean.squeeze(1))
        variances.append(centred.square().mean(dim=1))
        if is_for_pairs:
            kept.append(centred)
    return Encoded(torch.cat(means, dim=1), torch.cat(variances, dim=1), tuple(kept))


def _stages(trunk: VisionTrunk, image01: Tensor) -> Iterator[Tensor]:
    yield _at_least_float32(image01.flatten(2).transpose(1, 2))
    for feature in trunk.features(image01):
        yield _at_least_float32(feature).relu()


def _at_least_float32(values: Tensor) -> Tensor:
    """Promote half formats: variances over hundreds of tokens need float32."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def differences(test: Encoded, ref: Encoded) -> Tensor:
    """Compare images channel by channel.

    Args:
        test: N encoded images.
        ref: N encoded images, or one that is compared with all.
    Returns:
        [N, 2, K]: texture and structure differences, in [0, 2].
    Source:
        Paper Eqs. (5) and (6) as 1 - L and 1 - S, with c1 = c2 = 1e-10 (release).
    """
    texture = (test.means - ref.means).square() / (
        test.means.square() + ref.means.square() + STABILITY
    )
    spread = torch.cat(
        [(x - y).square().mean(dim=1) for x, y in zip(test.centred, ref.centred, strict=True)],
        dim=1,
    )
    structure = spread / (test.variances + ref.variances + STABILITY)
    return torch.stack([texture, structure], dim=1)
