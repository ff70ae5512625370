"""What the enhancer does on held-out photographs: fixed inputs, fixed noise, every time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel, UniPCMultistepScheduler
from torch import Tensor

from enhancer.config import TrainConfig
from enhancer.crops import CropRow
from enhancer.poses import image_tensor
from enhancer.train.examples import apply_roles
from enhancer.train.objective import Enhancer, per_example_loss
from runtime.atomic import write_bytes
from runtime.images import ImageU8, encode_png, to_image01, to_image_u8
from runtime.seeds import item_seed
from runtime.torch_device import torch_generator

_QUARTER = 250  # timesteps in a quarter of 0..999
Predict = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class HeldOut:
    """Fixed validation inputs.

    Attributes:
        keys: crop ids.
        clean_u8: uint8 [N, px, px, 3].
        latent: scaled latents of what the autoencoder gets, [N, C, h, w].
        condition01: what the control branch gets; every second one degraded, [N, 3, px, px].
        clean01: the clean crops as condition, [N, 3, px, px].
    """

    keys: tuple[str, ...]
    clean_u8: npt.NDArray[np.uint8]
    latent: Tensor
    condition01: Tensor
    clean01: Tensor


def choose_rows(rows: Sequence[CropRow], count: int) -> list[CropRow]:
    """Take `count` crops, evenly spread over the sorted list."""
    if len(rows) <= count:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / max(1, count - 1))] for index in range(count)]


@torch.no_grad()
def prepare_held_out(
    rows: Sequence[CropRow], vae: AutoencoderKL, config: TrainConfig, run_seed: int
) -> HeldOut:
    """Read and encode the validation crops."""
    chosen = choose_rows(rows, config.validation.images)
    clean = [_middle(row.read(), config.crop_px) for row in chosen]
    latents_u8, conditions = [], []
    for index, (row, image_u8) in enumerate(zip(chosen, clean, strict=True)):
        seed = item_seed(run_seed, "enhancer train", "held out", row.crop_id)
        latent_u8, condition01 = apply_roles(
            image_u8, config, is_degraded=index % 2 == 1, seed=seed
        )
        latents_u8.append(latent_u8)
        conditions.append(condition01)
    image = image_tensor(np.stack(latents_u8)).to(vae.device, vae.dtype)
    latent = vae.encode(image).latent_dist.mode() * vae.config.scaling_factor
    return HeldOut(
        tuple(row.crop_id for row in chosen),
        np.stack(clean),
        latent.float(),
        _batch(conditions).to(vae.device),
        _batch([to_image01(image_u8) for image_u8 in clean]).to(vae.device),
    )


@torch.no_grad()
def held_out_loss(
    enhancer: Enhancer,
    held_out: HeldOut,
    text: Tensor,
    schedule: DDPMScheduler,
    timesteps: Sequence[int],
    run_seed: int,
) -> dict[str, float]:
    """Loss at fixed noise levels: `loss`, and `loss_q1` .. `loss_q4` by quarter of 0..999."""
    by_quarter: dict[int, list[float]] = {}
    noise = fixed_noise(held_out, run_seed)
    count = len(held_out.keys)
    for timestep in timesteps:
        times = torch.full((count,), timestep, device=noise.device)
        noisy = schedule.add_noise(held_out.latent, noise, times)
        predicted = enhancer(noisy, times, text.expand(count, -1, -1), held_out.condition01)
        losses = per_example_loss(predicted, noise).tolist()
        by_quarter.setdefault(1 + timestep // _QUARTER, []).extend(losses)
    values = [value for losses in by_quarter.values() for value in losses]
    quarters = {f"loss_q{q}": sum(v) / len(v) for q, v in sorted(by_quarter.items())}
    return {"loss": sum(values) / len(values), **quarters}


def fixed_noise(held_out: HeldOut, run_seed: int) -> Tensor:
    """Noise of every validation image, from its own generator, shaped as the latents."""
    drawn = [
        torch.randn(
            held_out.latent.shape[1:],
            generator=torch_generator(item_seed(run_seed, "enhancer train", "noise", key)),
        )
        for key in held_out.keys
    ]
    return torch.stack(drawn).to(held_out.latent.device)


@torch.no_grad()
def enhance(
    enhancer: Enhancer, condition01: Tensor, noise: Tensor, text: Tensor,
    schedule: DDPMScheduler, steps: int,
) -> Tensor:  # fmt: skip
    """Sample latents from pure noise, without guidance."""
    prompts = text.expand(len(noise), -1, -1)
    return _solve(lambda z, t: enhancer(z, t, prompts, condition01), noise, schedule, steps)


@torch.no_grad()
def sample_base(
    unet: UNet2DConditionModel, noise: Tensor, text: Tensor, schedule: DDPMScheduler, steps: int
) -> Tensor:
    """Sample latents of the base model alone, which sees no input image."""
    prompts = text.expand(len(noise), -1, -1)
    return _solve(lambda z, t: unet(z, t, prompts).sample, noise, schedule, steps)


@torch.no_grad()
def decode_u8(vae: AutoencoderKL, latent: Tensor) -> npt.NDArray[np.uint8]:
    """Decode scaled latents to uint8 [N, H, W, 3]."""
    decoded = [
        vae.decode((row[None] / vae.config.scaling_factor).to(vae.dtype)).sample.float()
        for row in latent
    ]
    return tensor_u8(torch.cat(decoded) / 2 + 0.5)


def tensor_u8(image01: Tensor) -> npt.NDArray[np.uint8]:
    """Images as uint8 [N, H, W, 3], from float [N, 3, H, W] in [0, 1]."""
    return to_image_u8(image01.permute(0, 2, 3, 1).float().cpu().numpy())


def psnr_db(one_u8: npt.NDArray[np.uint8], two_u8: npt.NDArray[np.uint8]) -> float:
    """Mean over images of the PSNR in dB, uint8 [N, H, W, 3]."""
    error = (one_u8.astype(np.float64) - two_u8.astype(np.float64)) ** 2
    mean_error = np.maximum(error.mean(axis=(1, 2, 3)), 1e-3)
    return float((10 * np.log10(255.0**2 / mean_error)).mean())


def write_sheet(path: Path, columns: Sequence[npt.NDArray[np.uint8]]) -> ImageU8:
    """Write a sheet with a row per image and a column per kind of image."""
    rows = [np.concatenate(row, axis=1) for row in zip(*columns, strict=True)]
    sheet = np.ascontiguousarray(np.concatenate(rows, axis=0))
    write_bytes(path, encode_png(sheet))
    return sheet


def _solve(predict: Predict, noise: Tensor, schedule: DDPMScheduler, steps: int) -> Tensor:
    solver = UniPCMultistepScheduler.from_config(schedule.config, final_sigmas_type="sigma_min")
    solver.set_timesteps(steps, device=noise.device)
    latent = noise
    for timestep in solver.timesteps:
        times = timestep.expand(len(noise))
        latent = solver.step(predict(latent, times), timestep, latent).prev_sample
    return latent


def _middle(image_u8: ImageU8, crop_px: int) -> ImageU8:
    """Cut the middle square; a smaller image is cut to a multiple of 64 pixels."""
    side = min(crop_px, *(length // 64 * 64 for length in image_u8.shape[:2]))
    row, column = ((length - side) // 2 for length in image_u8.shape[:2])
    return np.ascontiguousarray(image_u8[row : row + side, column : column + side])


def _batch(images01: Sequence[npt.NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.stack(images01)).permute(0, 3, 1, 2)
