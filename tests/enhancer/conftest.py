"""A tiny run: photographs, crops table and shard, an untrained base model, resolved settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import skimage.data
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from enhancer.base.denoiser import build_noise_schedule
from enhancer.base.text import build_text_encoder, load_tokenizer, write_tokenizer
from enhancer.config import TextConfig
from runtime.images import encode_png
from runtime.settings import RunSettings, load_run
from runtime.tables import write_table
from runtime.tars import write_tar

CROP_PX = 64
PHOTOS = {"train": ("astronaut", "coffee", "rocket"), "val": ("chelsea",), "test": ("gravel",)}
MakeRun = Callable[..., RunSettings]


def write_crops(root: Path, crop_px: int = CROP_PX, per_photo: int = 3) -> None:
    """Write crops/ as the crop stage does, from a few photographs."""
    rows: list[dict[str, Any]] = []
    contents: dict[str, bytes] = {}
    for split, names in PHOTOS.items():
        for name in names:
            photo = np.asarray(getattr(skimage.data, name)())
            photo = np.dstack([photo] * 3) if photo.ndim == 2 else photo[..., :3]
            for number in range(per_photo):
                corner = 40 + number * 70
                tile = photo[corner : corner + crop_px, corner : corner + crop_px]
                crop_id = f"test-{name}-x{corner}y{corner}"
                contents[crop_id] = encode_png(np.ascontiguousarray(tile))
                rows.append({"crop_id": crop_id, "split": split, "shard": 0})
    order = sorted(contents)
    members = write_tar(
        root / "crops/crops-00000.tar", [(f"{key}.png", contents[key]) for key in order]
    )
    places = dict(zip(order, members, strict=True))
    for row in rows:
        row["offset"] = places[row["crop_id"]].offset
        row["size_bytes"] = places[row["crop_id"]].size_bytes
    write_table(root / "crops/crops.parquet", pl.DataFrame(rows).sort("crop_id"))
    (root / "crops/manifest.json").write_text(json.dumps({"crops": len(rows)}))


def write_base(folder: Path) -> None:
    """Write an untrained base model in the diffusers layout."""
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=1,
        norm_num_groups=4, mid_block_add_attention=False,
    ).save_pretrained(folder / "vae")  # fmt: skip
    UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4,
    ).save_pretrained(folder / "unet")  # fmt: skip
    write_tokenizer(folder / "tokenizer", max_length=77)
    text = TextConfig(hidden_size=16, layers=1, heads=2)
    build_text_encoder(text, load_tokenizer(folder / "tokenizer")).save_pretrained(
        folder / "text_encoder"
    )
    build_noise_schedule().save_pretrained(folder / "scheduler")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained base model."""
    folder = tmp_path_factory.mktemp("base")
    write_base(folder)
    return folder


@pytest.fixture
def make_run(tmp_path: Path, tiny_base: Path) -> MakeRun:
    """Make a run with crops and a base model; keywords go into enhancer.train."""

    def make(name: str = "run", **train: Any) -> RunSettings:
        root = tmp_path / name
        if not (root / "crops").is_dir():
            write_crops(root)
        settings = {
            "steps": 4, "batch_size": 4, "crop_px": CROP_PX, "learning_rate": 1e-3,
            "conditioning_channels": (4, 8, 8, 8), "threads": 1, "workers": 0, "log_every": 1,
            "checkpoint_every": 2, "tensorboard": False,
            "validation": {"every": 100, "images": 2, "shown_images": 0, "solver_steps": 2},
            **train,
        }  # fmt: skip
        values = {
            "run": name,
            "seed": 7,
            "enhancer": {"base_model": str(tiny_base), "train": settings},
        }
        path = root / "config.resolved.json"
        path.write_text(json.dumps(values))
        return load_run(path)

    return make
