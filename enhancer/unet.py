"""The denoising UNet with pixel-aware cross-attention (PACA) on stock diffusers blocks.

After every layer of the up path sits one pixel attention: a stock `Transformer2DModel` whose
context is the ControlNet residual of the same index as the layer's skip, flattened over
pixels. The additive ControlNet path stays in use beside it. State-dict names equal those of
the published checkpoints (`up_blocks.{i}.pixel_attentions.{j}.*`).

Source: PASD (Yang et al. 2024), Sec. 3; wiring as in the A-FINE release's DiffEnhancer.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from runtime.errors import DataError

PacaInit = Literal["zero", "released"]


def _signature_of_stock_unet(function: Any) -> Any:
    """Let diffusers see the stock constructor's parameters when it builds from a config."""
    return functools.wraps(UNet2DConditionModel.__init__)(function)


class PacaUNet2DConditionModel(UNet2DConditionModel):  # type: ignore[misc]
    """A stock UNet plus one pixel attention after every layer of its up path.

    Takes the stock constructor's parameters. Pixel attentions start with PyTorch's ordinary
    initialisation, as in the release; `initialize_paca` offers the alternative.
    """

    @_signature_of_stock_unet
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refuse_unsupported_options()
        contexts = self._skip_channels()
        for block, heads in zip(self.up_blocks, self._heads_of_up_blocks(), strict=True):
            block.pixel_attentions = nn.ModuleList(
                _pixel_attention(layer.out_channels, contexts.pop(), heads, self.config)
                for layer in block.resnets
            )

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        down_block_additional_residuals: Sequence[Tensor] | None = None,
        mid_block_additional_residual: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[Tensor]:
        """Predict the noise in `sample`.

        Args:
            sample: noisy latent x_t, [N, C, h, w].
            timestep: training timestep(s) 0..999, a number or [N].
            encoder_hidden_states: text embedding, [N, tokens, width].
            down_block_additional_residuals: ControlNet residuals, one per skip, already scaled.
            mid_block_additional_residual: ControlNet residual of the middle block.
            return_dict: return diffusers' output object instead of a tuple.
        Returns:
            The predicted noise, shaped as `sample`.
        Raises:
            DataError: residuals are missing; PACA has no context without them.
        """
        if down_block_additional_residuals is None or mid_block_additional_residual is None:
            raise DataError(
                "the PACA UNet needs the ControlNet's residuals (down and mid); call the "
                "ControlNet first and pass both"
            )
        embedding = self._time_embedding(sample, timestep)
        skips = self._down(sample, embedding, encoder_hidden_states)
        if len(skips) != len(down_block_additional_residuals):
            raise DataError(
                f"{len(down_block_additional_residuals)} ControlNet residuals for {len(skips)} "
                "skips; ControlNet and UNet must have the same levels and layers"
            )
        hidden = self.mid_block(skips[-1], embedding, encoder_hidden_states=encoder_hidden_states)
        hidden = hidden + mid_block_additional_residual
        contexts = list(down_block_additional_residuals)
        summed = [skip + residual for skip, residual in zip(skips, contexts, strict=True)]
        hidden = self._up(hidden, embedding, encoder_hidden_states, summed, contexts)
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return UNet2DConditionOutput(sample=hidden) if return_dict else (hidden,)

    def paca_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of the pixel attentions, the UNet's trainable part."""
        for name, parameter in self.named_parameters():
            if ".pixel_attentions." in name:
                yield name, parameter

    def _time_embedding(self, sample: Tensor, timestep: Tensor | float | int) -> Tensor:
        embedded = self.time_embedding(self.get_time_embed(sample=sample, timestep=timestep))
        assert isinstance(embedded, Tensor)
        return embedded

    def _down(self, sample: Tensor, embedding: Tensor, text: Tensor) -> list[Tensor]:
        """Run the down path; returns every skip, the last one being its output."""
        hidden = self.conv_in(sample)
        skips = [hidden]
        for block in self.down_blocks:
            extra = {"encoder_hidden_states": text} if _has_text(block) else {}
            hidden, taps = block(hidden_states=hidden, temb=embedding, **extra)
            skips.extend(taps)
        return skips

    def _up(
        self,
        hidden: Tensor,
        embedding: Tensor,
        text: Tensor,
        skips: list[Tensor],
        contexts: list[Tensor],
    ) -> Tensor:
        """Run the up path; consumes skips and PACA contexts from their ends, in step."""
        for block in self.up_blocks:
            for index, pixel_attention in enumerate(block.pixel_attentions):
                layer = functools.partial(_up_layer, block, index, pixel_attention)
                inputs = (hidden, embedding, text, skips.pop(), contexts.pop())
                if torch.is_grad_enabled() and block.gradient_checkpointing:
                    hidden = torch.utils.checkpoint.checkpoint(layer, *inputs, use_reentrant=False)
                else:
                    hidden = layer(*inputs)
            for upsampler in block.upsamplers or ():
                # the next skip's size, not twice this one's: sides need no multiple of 8
                hidden = upsampler(hidden, tuple(skips[-1].shape[2:]))
        return hidden

    def _skip_channels(self) -> list[int]:
        """Width of every skip, in the order in which the down path makes them."""
        widths = [self.conv_in.out_channels]
        for block in self.down_blocks:
            widths += [layer.out_channels for layer in block.resnets]
            widths += [layer.out_channels for layer in block.downsamplers or ()]
        return widths

    def _heads_of_up_blocks(self) -> list[int]:
        # the config's `attention_head_dim` holds the number of heads (an old diffusers misnomer)
        heads = self.config.num_attention_heads or self.config.attention_head_dim
        per_level = [heads] * len(self.up_blocks) if isinstance(heads, int) else list(heads)
        return per_level[::-1]

    def _refuse_unsupported_options(self) -> None:
        for name in _OPTIONS_OF_OTHER_MODELS:
            if self.config.get(name):
                raise DataError(
                    f"the UNet's config sets {name}={self.config[name]!r}; the PACA UNet covers "
                    "the Stable Diffusion 1.x family only"
                )


_OPTIONS_OF_OTHER_MODELS = (
    "addition_embed_type",
    "center_input_sample",
    "class_embed_type",
    "dual_cross_attention",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "num_class_embeds",
    "time_cond_proj_dim",
    "time_embedding_act_fn",
)


def initialize_paca(unet: PacaUNet2DConditionModel, init: PacaInit) -> None:
    """Set the start of new pixel attentions, in place.

    "zero" sets every output projection to zero, so that the first step equals the base model
    (its ControlNet residuals are zero as well). "released" leaves PyTorch's random start, as
    the published code does; the first step then differs from the base model by tens of percent.
    """
    if init == "zero":
        for block in unet.up_blocks:
            for pixel_attention in block.pixel_attentions:
                nn.init.zeros_(pixel_attention.proj_out.weight)
                nn.init.zeros_(pixel_attention.proj_out.bias)


def _pixel_attention(channels: int, context: int, heads: int, config: Any) -> Transformer2DModel:
    return Transformer2DModel(
        heads,
        channels // heads,
        in_channels=channels,
        num_layers=1,
        cross_attention_dim=context,
        norm_num_groups=config.norm_num_groups,
    )


def _up_layer(
    block: Any,
    index: int,
    pixel_attention: Transformer2DModel,
    hidden: Tensor,
    embedding: Tensor,
    text: Tensor,
    skip: Tensor,
    context: Tensor,
) -> Tensor:
    """One layer: concat skip, residual block, text attention (if any), pixel attention."""
    hidden = block.resnets[index](torch.cat([hidden, skip], dim=1), embedding)
    if _has_text(block):
        hidden = block.attentions[index](hidden, encoder_hidden_states=text, return_dict=False)[0]
    pixels = context.flatten(2).transpose(1, 2)
    attended: Tensor = pixel_attention(hidden, encoder_hidden_states=pixels, return_dict=False)[0]
    return attended


def _has_text(block: nn.Module) -> bool:
    return bool(getattr(block, "has_cross_attention", False))
