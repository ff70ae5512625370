"""Training of the base model's autoencoder and denoiser on the run's crops."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from enhancer.base.autoencoder import (
    build_autoencoder,
    join_branches,
    linear_reconstruction,
    skeleton_parameters,
    standardize_latents,
)
from enhancer.base.batches import patches
from enhancer.base.denoiser import build_noise_schedule, build_unet
from enhancer.base.fitting import fit
from enhancer.components import embed_prompts, load_text, load_vae
from enhancer.config import BaseConfig
from enhancer.poses import POSES, image_tensor, turned
from runtime.metrics import MetricsLog
from runtime.seeds import item_seed, rng
from runtime.torch_device import torch_generator

_log = logging.getLogger(__name__)
_BATCH_OF_INFERENCE = 8
_TEST_TIMESTEPS = (100, 300, 500, 700, 900)
Images = npt.NDArray[np.uint8]


def train_autoencoder(
    images_u8: Images, held_out_u8: Images, config: BaseConfig, *, seed: int, metrics: MetricsLog
) -> tuple[AutoencoderKL, dict[str, Any]]:
    """Train the autoencoder: its linear skeleton first, then all of it.

    Args:
        images_u8: training crops, uint8 [N, H, W, 3].
        held_out_u8: crops of other photographs, to measure on.
        config: of the base model.
        seed: of the run.
        metrics: gets the losses.
    Returns:
        The autoencoder, and its PSNR in dB after both parts of the training.
    """
    vae_config = config.vae
    torch.manual_seed(item_seed(seed, "enhancer base", "autoencoder"))
    vae = build_autoencoder(vae_config).to(memory_format=torch.channels_last)

    def batch(part: str, step: int) -> Tensor:
        return patches(
            images_u8, seed=seed, key=(part, step), count=vae_config.batch_size,
            px=min(vae_config.patch_px, images_u8.shape[1]),
        )  # fmt: skip

    def skeleton_loss(step: int) -> Tensor:
        image = batch("skeleton", step)
        return F.mse_loss(linear_reconstruction(vae, image), image)

    def full_loss(step: int) -> Tensor:
        image = batch("autoencoder", step)
        posterior = vae.encode(image).latent_dist
        noise = torch_generator(item_seed(seed, "enhancer base", "posterior", step))
        reconstruction = vae.decode(posterior.sample(noise)).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss: Tensor = F.l1_loss(reconstruction, image) + vae_config.kl_weight * kl
        return loss

    fit(
        "skeleton", skeleton_parameters(vae), skeleton_loss, steps=vae_config.linear_steps,
        learning_rate=vae_config.linear_learning_rate, ema_decay=vae_config.ema_decay,
        metrics=metrics, log_every=config.log_every,
    )  # fmt: skip
    join_branches(vae, image_tensor(images_u8[:_BATCH_OF_INFERENCE]))
    facts = {"psnr_db_linear": round(reconstruction_psnr(vae, held_out_u8), 2)}
    _log.info("autoencoder, linear: %.2f dB on held-out crops", facts["psnr_db_linear"])
    if vae_config.steps:
        fit(
            "autoencoder", vae.parameters(), full_loss, steps=vae_config.steps,
            learning_rate=vae_config.learning_rate, ema_decay=vae_config.ema_decay,
            metrics=metrics, log_every=config.log_every,
        )  # fmt: skip
    standardize_latents(vae, image_tensor(images_u8))
    facts["psnr_db"] = round(reconstruction_psnr(vae, held_out_u8), 2)
    metrics.write(phase="val", part="autoencoder", psnr_db=facts["psnr_db"])
    _log.info("autoencoder: %.2f dB on held-out crops", facts["psnr_db"])
    return vae, facts


def train_denoiser(
    images_u8: Images,
    held_out_u8: Images,
    base: Path,
    config: BaseConfig,
    *,
    seed: int,
    metrics: MetricsLog,
) -> tuple[UNet2DConditionModel, dict[str, Any]]:
    """Train the denoiser in the latent space of `base/vae`.

    Returns:
        The UNet, and its loss on held-out crops.
    """
    unet_config = config.unet
    vae = load_vae(base)
    text = embed_prompts(*load_text(base), ["", config.prompt])
    schedule = build_noise_schedule()
    torch.manual_seed(item_seed(seed, "enhancer base", "denoiser"))
    latents = _latents_of_all_poses(vae, images_u8)
    unet = build_unet(
        unet_config,
        latent_channels=vae.config.latent_channels,
        latent_px=latents.shape[-1],
        text_width=text.shape[-1],
    )

    def loss_of_step(step: int) -> Tensor:
        draw = rng(seed, "enhancer base", "denoiser", step)
        count = unet_config.batch_size
        clean = latents[draw.integers(len(latents), size=count)]
        timesteps = torch.from_numpy(draw.integers(1000, size=count))
        has_prompt = torch.from_numpy(draw.random(count) >= unet_config.prompt_dropout).long()
        noise = torch.from_numpy(draw.standard_normal(clean.shape, dtype=np.float32))
        noisy = schedule.add_noise(clean, noise, timesteps)
        predicted = unet(noisy, timesteps, text[has_prompt]).sample
        return F.mse_loss(predicted, noise)

    fit(
        "denoiser", unet.parameters(), loss_of_step, steps=unet_config.steps,
        learning_rate=unet_config.learning_rate, ema_decay=unet_config.ema_decay,
        metrics=metrics, log_every=config.log_every,
    )  # fmt: skip
    loss = _denoising_loss(unet, encode(vae, held_out_u8), text[1], seed)
    metrics.write(phase="val", part="denoiser", step=unet_config.steps, loss=loss)
    _log.info("denoiser: loss %.4f on held-out crops", loss)
    return unet, {"held_out_loss": round(loss, 5)}


@torch.no_grad()
def encode(vae: AutoencoderKL, images_u8: Images) -> Tensor:
    """Latents (posterior means, scaled) of images, float32 [N, C, H/8, W/8]."""
    parts = [
        vae.encode(image_tensor(chunk)).latent_dist.mode() * vae.config.scaling_factor
        for chunk in _chunks(images_u8)
    ]
    return torch.cat(parts).contiguous()


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, images_u8: Images) -> float:
    """Mean PSNR in dB of decoded against original images."""
    values: list[float] = []
    for chunk in _chunks(images_u8):
        image = image_tensor(chunk)
        decoded = vae.decode(vae.encode(image).latent_dist.mode()).sample.clamp(-1, 1)
        error = ((decoded - image) / 2).square().mean(dim=(1, 2, 3)).clamp(min=1e-10)
        values += (-10 * error.log10()).tolist()
    return sum(values) / len(values)


@torch.no_grad()
def _denoising_loss(unet: UNet2DConditionModel, latents: Tensor, text: Tensor, seed: int) -> float:
    schedule = build_noise_schedule()
    losses: list[float] = []
    for timestep in _TEST_TIMESTEPS:
        generator = torch_generator(item_seed(seed, "enhancer base", "held out", timestep))
        noise = torch.randn(latents.shape, generator=generator)
        times = torch.full((len(latents),), timestep)
        noisy = schedule.add_noise(latents, noise, times)
        predicted = unet(noisy, times, text.expand(len(latents), -1, -1)).sample
        losses.append(F.mse_loss(predicted, noise).item())
    return sum(losses) / len(losses)


def _latents_of_all_poses(vae: AutoencoderKL, images_u8: Images) -> Tensor:
    """Latents of every image in its eight mirrored and turned poses."""
    posed = [turned(image, pose) for image in images_u8 for pose in range(POSES)]
    return encode(vae, np.stack(posed))


def _chunks(images_u8: Images) -> list[Images]:
    count = _BATCH_OF_INFERENCE
    return [images_u8[start : start + count] for start in range(0, len(images_u8), count)]
