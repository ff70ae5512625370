"""The base model's autoencoder: a stock `AutoencoderKL`, trained in minutes on a CPU.

Trained from a random start, a deep autoencoder spends its first thousands of steps on
becoming roughly linear. So the training has two parts: first only the linear skeleton (the
convolutions between the residual branches) is trained, which is quick and well conditioned;
then the residual branches join, starting from zero output. The two output normalisations are
set up so that the whole network starts as that skeleton: two anchor channels of large constant
value dominate each group's spread, and one channel cancels the group's mean.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from enhancer.config import VaeConfig

# a group's spread over its largest activation: the larger, the more linear the start
_ANCHOR_GAIN = 4.0
_START_LOG_VARIANCE = -8.0


def build_autoencoder(config: VaeConfig) -> AutoencoderKL:
    """Build the autoencoder with a start that suits `linear_reconstruction`."""
    levels = len(config.block_channels)
    vae = AutoencoderKL(
        block_out_channels=config.block_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=config.latent_channels,
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_groups,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    for module in _skeleton_convolutions(vae):
        nn.init.orthogonal_(module.weight)
        nn.init.zeros_(_bias(module))
    for name, parameter in vae.named_parameters():
        if ".conv2." in name:
            nn.init.zeros_(parameter)
    _start_posterior(vae, config.latent_channels)
    return vae


def linear_reconstruction(vae: AutoencoderKL, image: Tensor) -> Tensor:
    """Reconstruct images through the linear skeleton only.

    Args:
        vae: from `build_autoencoder`.
        image: [N, 3, H, W] in [-1, 1].
    Returns:
        Reconstruction, shaped as `image`.
    """
    encoder, decoder = vae.encoder, vae.decoder
    hidden = encoder.conv_in(image)
    for block in encoder.down_blocks:
        hidden = _linear_block(block, hidden, "downsamplers")
    hidden = encoder.conv_out(hidden * _is_free(encoder.conv_norm_out)[:, None, None])
    latent = vae.quant_conv(hidden).chunk(2, dim=1)[0]
    hidden = decoder.conv_in(vae.post_quant_conv(latent))
    for block in decoder.up_blocks:
        hidden = _linear_block(block, hidden, "upsamplers")
    reconstruction: Tensor = decoder.conv_out(
        hidden * _is_free(decoder.conv_norm_out)[:, None, None]
    )
    return reconstruction


@torch.no_grad()
def join_branches(vae: AutoencoderKL, image: Tensor) -> None:
    """Make the whole network compute what its skeleton computes, in place.

    Args:
        vae: with a trained skeleton and residual branches of zero output.
        image: some training images, to measure activations, [N, 3, H, W] in [-1, 1].
    """
    encoder, decoder = vae.encoder, vae.decoder
    for half, blocks in ((encoder, encoder.down_blocks), (decoder, decoder.up_blocks)):
        shortcut = _last_shortcut(blocks)
        largest: list[float] = []
        hook = shortcut.register_forward_hook(_record_largest(largest))
        linear_reconstruction(vae, image)
        hook.remove()
        _anchor(shortcut, half.conv_norm_out, half.conv_out, _ANCHOR_GAIN * largest[0])


@torch.no_grad()
def standardize_latents(vae: AutoencoderKL, image: Tensor) -> None:
    """Shift every latent channel to mean zero and set the scaling factor to 1 / spread.

    The shift goes into the two 1x1 convolutions around the latent, so nothing else changes.
    """
    latent = vae.encode(image).latent_dist.mode()
    mean = latent.mean(dim=(0, 2, 3))
    vae.quant_conv.bias[: len(mean)] -= mean
    vae.post_quant_conv.bias += vae.post_quant_conv.weight[:, :, 0, 0] @ mean
    spread = (latent - mean[None, :, None, None]).std().item()
    vae.register_to_config(scaling_factor=round(1.0 / spread, 6))


def skeleton_parameters(vae: AutoencoderKL) -> list[nn.Parameter]:
    """Parameters that `linear_reconstruction` uses."""
    modules = [*_skeleton_convolutions(vae), vae.quant_conv, vae.post_quant_conv]
    return [parameter for module in modules for parameter in module.parameters()]


def _linear_block(block: nn.Module, hidden: Tensor, sampler: str) -> Tensor:
    for layer in block.resnets:  # type: ignore[union-attr]
        if layer.conv_shortcut is not None:  # type: ignore[union-attr]
            hidden = layer.conv_shortcut(hidden)  # type: ignore[operator, union-attr]
    for resampler in getattr(block, sampler) or ():
        hidden = resampler(hidden)
    return hidden


def _skeleton_convolutions(vae: AutoencoderKL) -> list[nn.Conv2d]:
    names = ("conv_in", "conv_out", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")
    return [module for name, module in vae.named_modules() if name.endswith(names)]


def _start_posterior(vae: AutoencoderKL, channels: int) -> None:
    """Pass the mean on unchanged and start with a small constant variance."""
    for convolution in (vae.quant_conv, vae.post_quant_conv):
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
        convolution.weight.data[:channels, :channels, 0, 0] = torch.eye(channels)
    vae.quant_conv.bias.data[channels:] = _START_LOG_VARIANCE


def _is_free(norm: nn.GroupNorm) -> Tensor:
    """1 for ordinary channels, 0 for the first three of every group (anchors, cancelling one)."""
    size = norm.num_channels // norm.num_groups
    position = torch.arange(norm.num_channels, device=norm.weight.device) % size
    return (position >= 3).to(norm.weight.dtype)


def _anchor(shortcut: nn.Conv2d, norm: nn.GroupNorm, conv_out: nn.Conv2d, spread: float) -> None:
    """Set anchors (+, -) and cancelling channel of every group; rescale the last convolution."""
    size = norm.num_channels // norm.num_groups
    # two of `size` channels at +-constant give the group this spread
    constant = spread * (size / 2.0) ** 0.5
    weight = shortcut.weight.view(norm.num_groups, size, -1)
    bias = _bias(shortcut).view(norm.num_groups, size)
    weight[:, :2], bias[:, 0], bias[:, 1] = 0.0, constant, -constant
    weight[:, 2] = -weight[:, 3:].sum(dim=1)
    bias[:, 2] = -bias[:, 3:].sum(dim=1)
    # silu(y) = y / 2 + O(y^2) for the small y that the anchors leave
    conv_out.weight.mul_(_is_free(norm)[None, :, None, None] * (2.0 * spread))


def _last_shortcut(blocks: nn.ModuleList) -> nn.Conv2d:
    last = [
        layer.conv_shortcut
        for layer in blocks[-1].resnets  # type: ignore[union-attr]
        if layer.conv_shortcut is not None  # type: ignore[union-attr]
    ]
    assert last, "the two last levels have different widths (checked by the configuration)"
    shortcut = last[-1]
    assert isinstance(shortcut, nn.Conv2d)
    return shortcut


def _bias(module: nn.Conv2d) -> Tensor:
    assert module.bias is not None, "a convolution of AutoencoderKL has a bias"
    return module.bias


def _record_largest(found: list[float]) -> Callable[[Any, Any, Tensor], None]:
    def hook(_module: Any, _inputs: Any, output: Tensor) -> None:
        found.append(float(output.abs().max()))

    return hook
