"""A small run with real photographs, and the release's tiny model."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from safetensors.torch import load_file

from afine.backbone import TrunkShape
from afine.config import AfineConfig
from afine.model import AFine
from afine.weights import load
from runtime.atomic import write_json
from runtime.images import encode_png
from runtime.seeds import rng
from runtime.settings import RunSettings, load_run
from runtime.tars import write_tar

torch.set_num_threads(1)
SIDE = 64
SPLIT_OF = {"astronaut": "train", "coffee": "train", "chelsea": "val", "rocket": "test"}
SMALL = {
    "model": {
        "width": 32, "layers": 2, "patch_px": 16, "head_width": 16, "image_px": 64, "hidden": 8,
    },
    "phase1": {
        "iterations": 6, "batch": 12, "lr": 1e-3, "log_every": 2, "validate_every": 3,
        "checkpoint_every": 2, "schedule": {"period": 6},
    },
    "phase2": {
        "iterations": 6, "batch": 12, "lr": 1e-2, "stage2_data": "paper", "log_every": 2,
        "validate_every": 3, "checkpoint_every": 2,
    },
    "phase3": {
        "iterations": 6, "batch": 12, "fit_data": "diffiqa", "log_every": 2, "validate_every": 3,
        "checkpoint_every": 2,
    },
    "evaluate": {"peers": ["psnr", "ssim"], "bootstrap": 50},
}  # fmt: skip


@pytest.fixture(scope="session")
def afine_golden(golden: Path) -> Path:
    return golden / "afine"


@pytest.fixture(scope="session")
def tiny_file(afine_golden: Path) -> Path:
    return afine_golden / "tiny_afine_f16.safetensors"


@pytest.fixture
def tiny(tiny_file: Path) -> AFine:
    return load(tiny_file)


@pytest.fixture(scope="session")
def tiny_io(afine_golden: Path) -> dict[str, torch.Tensor]:
    return load_file(afine_golden / "tiny_io.safetensors")


def make_variant(image: np.ndarray, label: int, draw: np.random.Generator) -> np.ndarray:
    """Sharpen for 1, leave nearly alone for 0, blur for -1."""
    x = image.astype(np.float32)
    soft = cv2.GaussianBlur(x, (0, 0), draw.uniform(1.0, 1.8))
    x = {1: x + 0.8 * (x - soft), 0: x, -1: soft}[label] + draw.normal(0, 1, x.shape)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def write_dataset(root: Path, contents_per_photo: int = 2) -> None:
    """Write dataset shards as the `shards` stage does."""
    samples: dict[str, list[tuple[str, bytes]]] = {"train": [], "val": [], "test": []}
    for photo, split in sorted(SPLIT_OF.items()):
        image = getattr(skimage.data, photo)()
        for number in range(contents_per_photo):
            key = f"{photo}-x{100 + 64 * number}y90"
            ref = image[100 + 64 * number :, 90:][:SIDE, :SIDE]
            draw = rng(3, "test", key)
            labels = {f"{k:02}": int(label) for k, label in enumerate((1, -1, 0, 1, -1, 0), 1)}
            facts = {
                kk: {
                    "label": label,
                    "votes": {
                        "worse": 3 * (label < 0),
                        "similar": 3 * (label == 0),
                        "better": 3 * (label > 0),
                    },
                }
                for kk, label in labels.items()
            }
            members = [
                (f"{key}.{kk}.png", encode_png(make_variant(ref, label, draw)))
                for kk, label in labels.items()
            ]
            members.append((f"{key}.json", json.dumps({"crop_id": key, "tests": facts}).encode()))
            members.append((f"{key}.ref.png", encode_png(np.ascontiguousarray(ref))))
            samples[split] += members
    names = []
    for split, members in samples.items():
        names.append(f"{split}-00000.tar")
        write_tar(root / "dataset" / names[-1], members)
    write_json(root / "dataset" / "manifest.json", {"files": {name: {} for name in names}})


MakeRun = Callable[..., RunSettings]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Make a run folder with a dataset; keyword arguments change sections of `afine`."""

    def make(name: str = "run", **changes: object) -> RunSettings:
        root = tmp_path / name
        if not (root / "dataset").is_dir():
            write_dataset(root)
        values = json.loads(json.dumps(SMALL))
        for key, change in changes.items():
            old = values.get(key)
            values[key] = {**old, **change} if isinstance(old, dict) else change
        afine = AfineConfig(**values).model_dump(mode="json")
        write_json(root / "config.resolved.json", {"run": name, "seed": 1, "afine": afine})
        return load_run(root / "config.resolved.json")

    return make


_MODULES = {"natural": "naturalness", "fidelity": "fidelity", "finetuned_clip": "backbone"}


def hashed(key: str, shape: tuple[int, ...], mean: float, half_range: float) -> torch.Tensor:
    """mean + half_range * u, u in [-1, 1) from the top 24 bits of splitmix64."""
    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = (np.uint64(zlib.crc32(key.encode())) << np.uint64(32)) + np.arange(
            count, dtype=np.uint64
        )
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    values = np.float32(mean) + np.float32(half_range) * u.astype(np.float32)
    return torch.from_numpy(values.reshape(shape))


@torch.no_grad()
def seeded_model(golden: dict[str, Any]) -> AFine:
    """The model that `seeded_golden.json` describes."""
    config = golden["config"]
    shape = TrunkShape(
        config["vision_width"], config["vision_layers"], config["vision_patch_size"], 64,
        config["image_resolution"],
    )  # fmt: skip
    model = AFine(shape, golden["qhead_hidden"]).eval()
    own = dict(model.named_parameters())
    for key, facts in golden["tensors"].items():
        group, _, name = key.partition(".")
        name = name.removeprefix("visual.")
        parameter = own.get(f"{_MODULES[group]}.{name}")
        if parameter is not None:
            mean, half_range = facts["mean_halfrange"]
            parameter.copy_(hashed(key, tuple(facts["shape"]), mean, half_range))
    for ours, theirs in (("naturalness_scale", "natural_scale"), ("fidelity_scale",) * 2):
        getattr(model, ours).yita3.fill_(golden[theirs]["yita3"])
        getattr(model, ours).yita4.fill_(golden[theirs]["yita4"])
    model.adapter.k.fill_(golden["k_raw"])
    return model


@pytest.fixture
def make_seeded() -> Callable[[dict[str, Any]], AFine]:
    """Make a model of `seeded_golden.json`, whose weights follow from their names."""
    return seeded_model
