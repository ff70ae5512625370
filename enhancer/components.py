"""The base model's parts, from a diffusers folder: VAE, text encoder, noise schedule.

    <base>/{vae, unet, text_encoder, tokenizer, scheduler}/

The folder is the run's own `base/`, a folder that the user names, or a hub id, which is
fetched once into the hub's cache.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import snapshot_download
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from runtime.atomic import read_json
from runtime.errors import DataError, ResourceError
from runtime.settings import RunSettings

PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
_OTHER_WEIGHTS = ["*.fp16.*", "*non_ema*", "*.msgpack", "*.onnx*"]  # the same nets once more


def base_folder(run: RunSettings) -> Path:
    """Folder of the base model that a run uses.

    Raises:
        DataError: a part is missing.
        ResourceError: a hub id that can neither be fetched nor found in the cache.
    """
    name = str(run.value("enhancer.base_model"))
    if name == "train":
        return _checked(run.root / "base")
    if Path(name).is_dir():
        return _checked(Path(name))
    try:
        return _checked(_fetched(name))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ResourceError(
            f"enhancer.base_model '{name}': neither a folder nor a model that could be fetched "
            f"({reason}); name a diffusers folder, or download the model first"
        ) from None


def _fetched(name: str) -> Path:
    """Folder of a model in the hub's cache, with one copy of its weights, safetensors if any."""
    wanted = [f"{part}/*" for part in PARTS]
    folder = snapshot_download(
        name, allow_patterns=wanted, ignore_patterns=[*_OTHER_WEIGHTS, "*.bin"]
    )
    if not list(Path(folder, "unet").glob("*.safetensors")):
        folder = snapshot_download(name, allow_patterns=wanted, ignore_patterns=_OTHER_WEIGHTS)
    return Path(folder)


def load_vae(base: Path) -> AutoencoderKL:
    """Load the autoencoder, frozen, in evaluation mode."""
    return AutoencoderKL.from_pretrained(base / "vae").eval().requires_grad_(False)


def silence_model_libraries() -> None:
    """Keep notes about number formats and progress bars of loading out of the log."""
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def load_text(base: Path) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Load tokenizer and text encoder, frozen, in evaluation mode."""
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(base / "text_encoder")
    return tokenizer, encoder.eval().requires_grad_(False)


def load_noise_schedule(base: Path) -> DDPMScheduler:
    """Load the training noise schedule: the betas of `scheduler/scheduler_config.json`."""
    path = base / "scheduler/scheduler_config.json"
    schedule = DDPMScheduler.from_config(read_json(path, what="noise schedule"))
    if schedule.config.prediction_type != "epsilon":
        raise DataError(
            f"{path}: prediction_type is '{schedule.config.prediction_type}'; the enhancer needs "
            "a base model that predicts epsilon (Stable Diffusion 1.x)"
        )
    return schedule


@torch.no_grad()
def embed_prompts(
    tokenizer: CLIPTokenizer, encoder: CLIPTextModel, prompts: list[str]
) -> torch.Tensor:
    """Embed prompts, padded to the encoder's full length, [len(prompts), tokens, width]."""
    tokens = tokenizer(
        prompts,
        padding="max_length",
        max_length=encoder.config.max_position_embeddings,
        truncation=True,
        return_tensors="pt",
    )
    embedded: torch.Tensor = encoder(tokens.input_ids.to(encoder.device))[0]
    return embedded


def _checked(folder: Path) -> Path:
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise DataError(
            f"{folder}: not a diffusers model: no folder {', '.join(missing)}; expected "
            f"{', '.join(PARTS)}"
        )
    return folder
