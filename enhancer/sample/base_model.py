"""The frozen base model around the denoiser: text encoder, VAE, noise schedule.

Read from a diffusers folder by `enhancer.components`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from enhancer.components import embed_prompts, load_text, load_vae
from enhancer.sample import unipc
from enhancer.sample.planned import LAST_TIMESTEP
from runtime.atomic import read_json
from runtime.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaseModel:
    """VAE, text encoder and noise schedule, ready to use.

    Attributes:
        vae: autoencoder in evaluation mode.
        text_encoder: CLIP text model in evaluation mode.
        tokenizer: its tokenizer.
        noise: training schedule of the denoiser.
    """

    vae: Any
    text_encoder: Any
    tokenizer: Any
    noise: unipc.NoiseSchedule

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return int(self.vae.config.latent_channels)

    @torch.inference_mode()
    def encode(self, image01: Tensor, noise: Tensor) -> Tensor:
        """Sample the posterior of an image.

        Args:
            image01: float [3, 8h, 8w] in [0, 1].
            noise: standard normal, float32 [C, h, w].
        Returns:
            Scaled latent, float32 [C, h, w].
        """
        parameter = next(self.vae.parameters())
        image = (image01[None] * 2 - 1).to(parameter)
        posterior = self.vae.encode(image).latent_dist
        latent = posterior.mean.float() + posterior.std.float() * noise.to(parameter.device)
        scaled: Tensor = (latent[0] - self._shift) * float(self.vae.config.scaling_factor)
        return scaled

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """Decode a scaled latent, [C, h, w], to an image, float32 [3, 8h, 8w] in [0, 1].

        Raises:
            FloatingPointError: the VAE's number format does not hold its result.
        """
        parameter = next(self.vae.parameters())
        unscaled = latent / float(self.vae.config.scaling_factor) + self._shift
        image: Tensor = self.vae.decode(unscaled[None].to(parameter)).sample[0]
        if not torch.isfinite(image).all():
            raise FloatingPointError(f"decoded image in {parameter.dtype}")
        return (image.float() / 2 + 0.5).clamp(0, 1)

    @torch.inference_mode()
    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Embed prompts, each by itself so that its bits do not depend on the others.

        Returns:
            Float32 [P, tokens, width].
        """
        pairs = (self.tokenizer, self.text_encoder)
        return torch.cat([embed_prompts(*pairs, [prompt]).float() for prompt in prompts])

    @property
    def _shift(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)


def load_base_model(folder: Path, *, device: torch.device, vae_dtype: torch.dtype) -> BaseModel:
    """Load what sampling needs of a base model.

    Args:
        folder: diffusers folder.
        device: where the models go.
        vae_dtype: number format of the VAE; the text encoder stays float32.
    Raises:
        DataError: a part is unreadable, the VAE does not halve three times, or the denoiser was
            not trained on 1000 timesteps, of which plans speak.
    """
    vae = load_vae(folder).to(device, vae_dtype)
    levels = len(vae.config.block_out_channels)
    if levels != 4:
        raise DataError(
            f"{folder}: the VAE has {levels} levels; expected 4 (8 pixels a latent position, as "
            "the ControlNet's conditioning net)"
        )
    tokenizer, text_encoder = load_text(folder)
    scheduler = folder / "scheduler/scheduler_config.json"
    config = read_json(scheduler, what="noise schedule")
    noise = unipc.noise_schedule(config, where=str(scheduler))
    if noise.timesteps != LAST_TIMESTEP + 1:
        raise DataError(
            f"{scheduler}: num_train_timesteps is {noise.timesteps}; the plan's levels and steps "
            f"are of {LAST_TIMESTEP + 1}"
        )
    if foreign := unipc.foreign_settings(config):
        _log.warning(
            "%s: sampling uses UniPC of order 2 on evenly spaced timesteps, not its %s",
            scheduler, ", ".join(foreign),
        )  # fmt: skip
    return BaseModel(vae, text_encoder.to(device), tokenizer, noise)
