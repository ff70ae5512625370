"""`enhancer base`: train a small base model on the run's training crops.

Reads `crops/`; writes `base/` in the diffusers layout, `base/metrics.jsonl` and, last,
`base/manifest.json`. An interrupted stage goes on after its last finished part.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from enhancer.base.denoiser import build_noise_schedule
from enhancer.base.text import build_text_encoder, load_tokenizer, write_tokenizer
from enhancer.base.training import Images, train_autoencoder, train_denoiser
from enhancer.checkpoints import save_model
from enhancer.components import PARTS
from enhancer.config import BASE, BaseConfig
from enhancer.crops import crop_rows, read_stack
from runtime.atomic import read_json, write_json
from runtime.errors import ConfigError
from runtime.metrics import MetricsLog
from runtime.seeds import item_seed
from runtime.settings import RunSettings
from runtime.stage import open_stage
from runtime.torch_device import use_threads

_log = logging.getLogger(__name__)
_MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "vae": ["diffusers", "AutoencoderKL"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
}


def run_base(run: RunSettings, *, replace: bool = False, dry_run: bool = False) -> None:
    """Train and write the base model of a run.

    Raises:
        ConfigError: the configuration names a base model, so none is to be trained.
        DataError: no training crops, or a loss that is not finite.
    """
    if run.value("enhancer.base_model") != "train":
        raise ConfigError(
            f"enhancer.base_model is '{run.value('enhancer.base_model')}': nothing to train; set "
            "it to 'train' for a small base model of the run's own"
        )
    config = run.section("enhancer.base", BaseConfig)
    folder = run.root / "base"
    train = crop_rows(run.root, ["train"])
    held_out = crop_rows(run.root, ["val", "test"])
    if dry_run:
        _log.info("%d training crops, %d held out", len(train), len(held_out))
        return
    stage = open_stage(
        BASE,
        run,
        manifest=folder / "manifest.json",
        state=folder / ".state",
        inputs=[run.root / "crops/manifest.json"],
        replace=replace,
    )
    if stage.is_complete:
        return
    use_threads(config.threads or len(os.sched_getaffinity(0)))
    images, held_out_images = read_stack(train), read_stack(held_out)
    if not stage.is_resumed:
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    work = _Work(run.seed, config, folder, images, held_out_images)
    facts = {
        "autoencoder": _once(stage.state / "autoencoder.json", work.autoencoder),
        "denoiser": _once(stage.state / "denoiser.json", work.denoiser),
    }
    write_json(folder / "model_index.json", _MODEL_INDEX)
    files = [path for part in PARTS for path in (folder / part).iterdir() if path.is_file()]
    stage.finish(
        counts={"train_crops": len(train), "held_out_crops": len(held_out)},
        files=[*files, folder / "model_index.json"],
        **facts,
    )
    stage.clear_state()


@dataclass(frozen=True)
class _Work:
    """The two long parts of the stage; each writes its model and returns what it measured."""

    seed: int
    config: BaseConfig
    folder: Path
    images_u8: Images
    held_out_u8: Images

    def autoencoder(self) -> dict[str, Any]:
        vae, facts = train_autoencoder(
            self.images_u8, self.held_out_u8, self.config, seed=self.seed, metrics=self._metrics()
        )
        save_model(self.folder / "vae", vae)
        return facts

    def denoiser(self) -> dict[str, Any]:
        self._write_text_encoder()
        build_noise_schedule().save_pretrained(self.folder / "scheduler")
        unet, facts = train_denoiser(
            self.images_u8, self.held_out_u8, self.folder, self.config,
            seed=self.seed, metrics=self._metrics(),
        )  # fmt: skip
        save_model(self.folder / "unet", unet)
        return facts

    def _write_text_encoder(self) -> None:
        write_tokenizer(self.folder / "tokenizer", max_length=self.config.text.max_length)
        torch.manual_seed(item_seed(self.seed, "enhancer base", "text encoder"))
        tokenizer = load_tokenizer(self.folder / "tokenizer")
        encoder = build_text_encoder(self.config.text, tokenizer)
        encoder.save_pretrained(self.folder / "text_encoder")

    def _metrics(self) -> MetricsLog:
        return MetricsLog(self.folder / "metrics.jsonl")


def _once(record: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do `work` unless an interrupted run already recorded its result."""
    if record.is_file():
        facts: dict[str, Any] = read_json(record)
        _log.info("%s: already done", record.stem)
        return facts
    facts = work()
    write_json(record, facts)
    return facts
