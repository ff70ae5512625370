"""A small run in front of sampling: crops, plan, degraded inputs, base model, golden nets."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import skimage.data
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from enhancer import load_nets
from runtime.atomic import write_json
from runtime.images import encode_png
from runtime.seeds import item_seed
from runtime.tables import write_table
from runtime.tars import write_tar

SIZE_PX = 64
MakeRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def nets_folder(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden tiny nets in the published folder layout."""
    folder = tmp_path_factory.mktemp("nets")
    for net in ("unet", "controlnet"):
        (folder / net).mkdir()
        shutil.copy(golden / f"pasd/tiny_{net}_config.json", folder / net / "config.json")
        weights = folder / net / "diffusion_pytorch_model.safetensors"
        shutil.copy(golden / f"pasd/tiny_{net}.safetensors", weights)
    write_json(folder / "manifest.json", {"stage": "enhancer train"})
    return folder


@pytest.fixture(scope="session")
def nets(nets_folder: Path) -> tuple[Any, Any]:
    return load_nets(nets_folder)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base model in the usual layout, small enough for a test."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
    ).save_pretrained(folder / "vae")
    config = CLIPTextConfig(
        vocab_size=514, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=77,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    _tokenizer().save_pretrained(folder / "tokenizer")
    UNet2DConditionModel(
        block_out_channels=(8, 8), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=32,
        norm_num_groups=4, attention_head_dim=2,
    ).save_pretrained(folder / "unet")  # fmt: skip
    scheduler = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    write_json(folder / "scheduler/scheduler_config.json", scheduler)
    write_json(folder / "manifest.json", {"stage": "enhancer base"})
    return folder


def _tokenizer() -> CLIPTokenizer:
    printable = [chr(code) for code in range(256)]
    tokens = [*printable, *(f"{char}</w>" for char in printable)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77
    )


def plan_row(crop: int, k: int, **changes: Any) -> dict[str, Any]:
    """One row of a plan that mixes all starts, with few steps."""
    crop_id = f"photo-{crop:02}-x0y0"
    test_id = f"{crop_id}_{k:02}"
    init = ("noise", "released", "partial")[k % 3]
    row = {
        "test_id": test_id,
        "crop_id": crop_id,
        "k": k,
        "shard": 0,
        "seed": item_seed(1, "test", test_id),
        "is_degraded": k % 2 == 0,
        "degrade_seed": k,
        "degradation": {"blur": 0.5 * k},
        "init": init,
        "steps": 2 + (3 * crop + 5 * k) % 5,
        "level": None if init == "noise" else 300 + 50 * k,
        "upscale": 1.0,
        "guidance": 7.5,
        "conditioning_scale": 1.0,
        "prompt": "clean",
        "negative_prompt": "blurry",
        "color_fix": "wavelet",
        "work": 1.0,
    }
    return {**row, **changes}


@pytest.fixture
def make_run(tmp_path: Path, base_folder: Path, nets_folder: Path) -> MakeRun:
    """Write a run folder; returns the resolved configuration's path."""

    def make(rows: list[dict[str, Any]] | None = None, name: str = "run", **sample: Any) -> Path:
        root = tmp_path / name
        rows = rows or [plan_row(crop, k) for crop in range(2) for k in range(1, 5)]
        _write_crops(root, sorted({row["crop_id"] for row in rows}))
        write_table(root / "plan.parquet", pl.DataFrame(rows, infer_schema_length=None))
        for shard in sorted({row["shard"] for row in rows}):
            _write_degraded(root, shard, rows)
        shutil.copytree(base_folder, root / "base")
        shutil.copytree(nets_folder, root / "enhancer")
        values = {
            "run": name,
            "seed": 1,
            "plan": {"shards": 1 + max(row["shard"] for row in rows)},
            "enhancer": {"base_model": "train", "sample": sample},
        }
        write_json(root / "config.resolved.json", values)
        return root / "config.resolved.json"

    return make


def _write_crops(root: Path, crop_ids: list[str]) -> None:
    photo = skimage.data.astronaut()
    images = [photo[40 * i : 40 * i + SIZE_PX, 100 : 100 + SIZE_PX] for i in range(len(crop_ids))]
    contents = [(f"{key}.png", encode_png(image)) for key, image in zip(crop_ids, images)]
    members = write_tar(root / "crops/crops-00000.tar", contents)
    table = pl.DataFrame(
        {
            "crop_id": crop_ids,
            "size_px": SIZE_PX,
            "shard": 0,
            "offset": [member.offset for member in members],
            "size_bytes": [member.size_bytes for member in members],
        }
    )
    write_table(root / "crops/crops.parquet", table)
    write_json(root / "crops/manifest.json", {"stage": "crop run"})


def _write_degraded(root: Path, shard: int, rows: list[dict[str, Any]]) -> None:
    photo = skimage.data.astronaut()
    chosen = sorted(r["test_id"] for r in rows if r["is_degraded"] and r["shard"] == shard)
    image = encode_png(photo[:SIZE_PX, :SIZE_PX] // 2)
    tar = root / f"degraded/degraded-{shard:05}.tar"
    write_tar(tar, [(f"{key}.png", image) for key in chosen])
    write_json(tar.with_suffix(".json"), {"stage": "degrade apply", "shard": shard})


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
