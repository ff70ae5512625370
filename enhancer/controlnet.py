"""The control branch: a stock ControlNet, with PASD's optional RGB heads.

PASD checkpoints carry three 3x3 convolutions that turn the features after each stride of the
conditioning net into RGB; they serve a training loss only and feed nothing else. The A-FINE
release dropped them.
"""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from diffusers import ControlNetModel
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import Tensor, nn

from runtime.errors import DataError

RGB_HEADS = "controlnet_cond_embedding.to_rgbs."
# fields of the published configs that the stock class does not have
_PUBLISHED_FIELDS = ("return_rgbs", "use_rrdb")


class RgbConditioningEmbedding(ControlNetConditioningEmbedding):  # type: ignore[misc]
    """The stock conditioning net with PASD's heads; `forward` is the stock one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        widths = [block.out_channels for block in self.blocks if block.stride == (2, 2)]
        self.to_rgbs = nn.ModuleList(nn.Conv2d(width, 3, 3, padding=1) for width in widths)

    def rgbs(self, image01: Tensor) -> list[Tensor]:
        """Map the features at 1/2, 1/4 and 1/8 of the image's side to RGB.

        Args:
            image01: condition, [N, 3, H, W] in [0, 1].
        Returns:
            Three images, [N, 3, H/2, W/2], [N, 3, H/4, W/4], [N, 3, H/8, W/8].
        """
        features = F.silu(self.conv_in(image01))
        images: list[Tensor] = []
        for block in self.blocks:
            features = F.silu(block(features))
            if block.stride == (2, 2):
                images.append(self.to_rgbs[len(images)](features))
        return images


def controlnet_of_config(config: Mapping[str, Any], *, has_rgb_heads: bool) -> ControlNetModel:
    """Build a ControlNet from a published or a stock `config.json`, weights not loaded.

    Raises:
        DataError: the config asks for the RRDB conditioning net, which no released model uses.
    """
    if config.get("use_rrdb"):
        raise DataError(
            "the ControlNet's config sets use_rrdb=true; only the plain conditioning net is "
            "supported"
        )
    fields = {key: value for key, value in config.items() if key not in _PUBLISHED_FIELDS}
    controlnet = ControlNetModel.from_config(fields)
    if has_rgb_heads:
        controlnet.controlnet_cond_embedding = RgbConditioningEmbedding(
            conditioning_embedding_channels=controlnet.config.block_out_channels[0],
            conditioning_channels=controlnet.config.conditioning_channels,
            block_out_channels=controlnet.config.conditioning_embedding_out_channels,
        )
    return controlnet
