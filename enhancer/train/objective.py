"""The training objective: predict the noise that was added to the latent.

Symbols: z0 latent, t timestep, eps noise; z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) eps;
loss = mean |eps_hat(z_t, t, text, condition) - eps|^2 (DDPM, Ho et al. 2020, Eq. 14).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler
from torch import Tensor, nn

from enhancer.train.loader import Batch
from enhancer.unet import PacaUNet2DConditionModel
from runtime.torch_device import torch_generator


class Enhancer(nn.Module):
    """UNet and ControlNet as one module, so that both are synchronised and stepped together."""

    def __init__(self, unet: PacaUNet2DConditionModel, controlnet: ControlNetModel) -> None:
        super().__init__()
        self.unet = unet
        self.controlnet = controlnet

    def forward(
        self, noisy: Tensor, timesteps: Tensor, text: Tensor, condition01: Tensor
    ) -> Tensor:
        """Predict the noise.

        Args:
            noisy: z_t, [N, C, h, w].
            timesteps: [N], 0..999.
            text: prompt embedding, [N, tokens, width].
            condition01: image for the control branch, [N, 3, 8h, 8w] in [0, 1].
        """
        down, mid = self.controlnet(
            noisy, timesteps, encoder_hidden_states=text, controlnet_cond=condition01,
            return_dict=False,
        )  # fmt: skip
        predicted: Tensor = self.unet(
            noisy, timesteps, text, down_block_additional_residuals=down,
            mid_block_additional_residual=mid, return_dict=False,
        )[0]  # fmt: skip
        return predicted


def freeze_all_but_trained(enhancer: Enhancer) -> int:
    """Leave only PACA, ControlNet and conditioning net trainable; returns their parameter count.

    PASD's RGB heads feed nothing here and stay frozen.
    """
    enhancer.requires_grad_(False)
    trained = [parameter for _, parameter in enhancer.unet.paca_parameters()]
    trained += [
        parameter
        for name, parameter in enhancer.controlnet.named_parameters()
        if ".to_rgbs." not in name
    ]
    for parameter in trained:
        parameter.requires_grad_(True)
    return sum(parameter.numel() for parameter in trained)


@dataclass(frozen=True)
class NoisyBatch:
    """What the enhancer gets and what it should predict."""

    noisy: Tensor
    timesteps: Tensor
    noise: Tensor
    condition01: Tensor


def draw_noise(
    latent: Tensor, seeds: Sequence[int], schedule: DDPMScheduler
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw timestep and noise of each example from its own generator and mix.

    Args:
        latent: z0, [N, C, h, w].
        seeds: one per example.
        schedule: noise schedule.
    Returns:
        z_t, timesteps [N], noise.
    """
    total = schedule.config.num_train_timesteps
    drawn_t, drawn_noise = [], []
    for seed in seeds:
        generator = torch_generator(seed)
        drawn_t.append(torch.randint(total, (1,), generator=generator))
        drawn_noise.append(torch.randn(latent.shape[1:], generator=generator))
    timesteps = torch.cat(drawn_t).to(latent.device)
    noise = torch.stack(drawn_noise).to(latent)
    return schedule.add_noise(latent, noise, timesteps), timesteps, noise


def per_example_loss(predicted: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of each example, float32 [N]."""
    return (predicted.float() - noise.float()).square().mean(dim=(1, 2, 3))


class LatentEncoder:
    """Encode batches; optionally keeps the posteriors of clean crops, least used thrown out.

    Posteriors can repeat where crops do: small images, or crops of the size of the image. With
    a memory every image is encoded by itself, so that a result does not depend on its hits.

    Args:
        vae: frozen autoencoder.
        capacity: posteriors to keep; 0 keeps none.
    """

    def __init__(self, vae: AutoencoderKL, capacity: int) -> None:
        self._vae = vae
        self._capacity = capacity
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Sample the posterior of every image, with the example's own noise, and scale it."""
        moments = self._moments(batch)
        mean, log_variance = moments.chunk(2, dim=1)
        noise = torch.stack(
            [
                torch.randn(mean.shape[1:], generator=torch_generator(example.seed + 1))
                for example in batch.examples
            ]
        ).to(mean)
        deviation = torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))
        latent: Tensor = (mean + deviation * noise) * self._vae.config.scaling_factor
        return latent

    def _moments(self, batch: Batch) -> Tensor:
        if self._capacity == 0:
            return self._encode(batch.image)
        parts: list[Tensor] = []
        for row, example in enumerate(batch.examples):
            moments = self._kept.get(example.key) if example.is_latent_clean else None
            if moments is None:
                moments = self._encode(batch.image[row : row + 1])
                if example.is_latent_clean:
                    self._keep(example.key, moments)
            parts.append(moments)
        return torch.cat(parts)

    def _encode(self, image: Tensor) -> Tensor:
        moments: Tensor = self._vae.encode(
            image.to(self._vae.device, self._vae.dtype)
        ).latent_dist.parameters.float()
        return moments

    def _keep(self, key: str, moments: Tensor) -> None:
        self._kept[key] = moments
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
