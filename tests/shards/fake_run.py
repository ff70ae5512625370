"""A small finished run, made from real photographs without any model.

Test images are blurred, noisy or sharpened copies; labels follow from what was done. Every
table and tar has the layout of `docs/architecture.md`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import skimage.data

from runtime.atomic import write_json
from runtime.images import encode_png
from runtime.seeds import rng
from runtime.tables import write_table
from runtime.tars import write_tar

PHOTOS = {
    "astronaut": "train", "chelsea": "train", "coffee": "train", "rocket": "train",
    "cat": "val", "hubble-deep-field": "test",
}  # fmt: skip
_LOADERS = {
    "astronaut": skimage.data.astronaut, "chelsea": skimage.data.chelsea,
    "coffee": skimage.data.coffee, "rocket": skimage.data.rocket, "cat": skimage.data.cat,
    "hubble-deep-field": skimage.data.hubble_deep_field,
}  # fmt: skip
SIZE_PX = 64
_STAGE = pl.Struct(
    {
        "blur": pl.Struct({"kernel": pl.String, "sigma_px": pl.Float64, "cutoff_rad": pl.Float64}),
        "noise": pl.Struct({"kind": pl.String, "level": pl.Float64}),
        "jpeg_quality": pl.Float64,
    }
)
DEGRADATION = pl.Struct({"stages": pl.List(_STAGE), "codec": pl.String})


def make_run(
    root: Path, *, crops_per_photo: int = 2, sections: dict[str, Any] | None = None
) -> Path:
    """Write a run and return its `config.resolved.json`."""
    config = root / "config.resolved.json"
    write_json(
        config,
        {
            "run": root.name, "seed": 7, "dataset": {"references_per_shard": 3}, "report": {},
            "degrade": {"preset": "diffiqa-released"}, "enhancer": {"base_model": "train"},
            "annotations": {"tie_policy": "drop"},
            **(sections or {}),
        },
    )  # fmt: skip
    crops = _write_crops(root, crops_per_photo)
    plan = _write_plan(root, crops)
    _write_samples(root, crops, plan)
    _write_labels(root, plan)
    return config


def _write_crops(root: Path, per_photo: int) -> list[dict[str, Any]]:
    crops = []
    for photo, split in PHOTOS.items():
        image = _LOADERS[photo]()[..., :3]
        for index in range(per_photo):
            row, col = 60 + 50 * index, 80 + 20 * index
            crop_id = f"skimage-{photo}-x{row}y{col}"
            pixels = np.ascontiguousarray(image[row : row + SIZE_PX, col : col + SIZE_PX])
            png = encode_png(pixels)
            crops.append(
                {
                    "crop_id": crop_id, "photo_id": f"skimage-{photo}", "source": "skimage",
                    "path": f"{photo}.png",
                    "photo_sha256": hashlib.sha256(photo.encode()).hexdigest(),
                    "row": row, "col": col, "size_px": SIZE_PX, "grey_std": float(pixels.std()),
                    "laplacian_var": 60.0, "split": split, "shard": 0, "png": png,
                    "size_bytes": len(png), "sha256": hashlib.sha256(png).hexdigest(),
                }
            )  # fmt: skip
    crops.sort(key=lambda crop: crop["crop_id"])
    members = write_tar(
        root / "crops/crops-00000.tar", [(f"{c['crop_id']}.png", c["png"]) for c in crops]
    )
    rows = [
        {**{k: v for k, v in crop.items() if k != "png"}, "offset": member.offset}
        for crop, member in zip(crops, members, strict=True)
    ]
    write_table(root / "crops/crops.parquet", pl.DataFrame(rows))
    write_json(
        root / "crops/manifest.json",
        {
            "stage": "crop run",
            "counts": {
                "files": 8,
                "crops": len(rows),
                "rejected": {"unreadable": 1, "too small": 1},
                "splits": {"train": 8, "val": 2, "test": 2},
            },
            "rejected": [{"key": "bad.jpg", "reason": "unreadable", "detail": "cut short"}],
        },
    )
    return crops


def _write_plan(root: Path, crops: list[dict[str, Any]]) -> pl.DataFrame:
    rows = []
    for index, crop in enumerate(crops):
        for k in range(1, 7):
            draw = rng(7, "test.plan", crop["crop_id"], k)
            is_degraded, is_noise = bool(draw.random() < 0.5), bool(draw.random() < 0.5)
            rows.append(
                {
                    "test_id": f"{crop['crop_id']}_{k:02}", "crop_id": crop["crop_id"], "k": k,
                    "shard": index % 2, "seed": int(draw.integers(2**62)),
                    "is_degraded": is_degraded, "degrade_seed": int(draw.integers(2**62)),
                    "degradation": _degradation(draw) if is_degraded else None,
                    "init": "noise" if is_noise else "released",
                    "steps": int(draw.integers(20, 1001)),
                    "level": None if is_noise else int(draw.integers(20, 1000)),
                    "upscale": 2.0 if draw.random() < 0.2 else 1.0, "guidance": 7.5,
                    "conditioning_scale": 1.0, "prompt": "clean", "negative_prompt": "blurry",
                    "color_fix": "wavelet", "work": 1.0,
                }
            )  # fmt: skip
    schema = {"degradation": DEGRADATION, "level": pl.Int64}
    plan = pl.DataFrame(rows, schema_overrides=schema).sort("test_id")
    write_table(root / "plan.parquet", plan)
    write_json(root / "plan.manifest.json", {"stage": "degrade plan", "counts": {"out": len(rows)}})
    return plan


def _degradation(draw: np.random.Generator) -> dict[str, Any]:
    """Two stages; as in the real plan, what a draw does not use is null."""
    stages = []
    for _ in range(2):
        is_sinc, has_noise = draw.random() < 0.15, draw.random() < 0.6
        stages.append(
            {
                "blur": {
                    "kernel": "sinc" if is_sinc else "iso",
                    "sigma_px": None if is_sinc else float(draw.uniform(0.2, 3)),
                    "cutoff_rad": float(draw.uniform(1, 3)) if is_sinc else None,
                },
                "noise": {"kind": "gaussian", "level": float(draw.uniform(1, 30))}
                if has_noise
                else None,
                "jpeg_quality": float(draw.uniform(30, 95)),
            }
        )
    return {"stages": stages, "codec": "libjpeg"}


def _write_samples(root: Path, crops: list[dict[str, Any]], plan: pl.DataFrame) -> None:
    pixels_of = {
        c["crop_id"]: cv2.imdecode(np.frombuffer(c["png"], np.uint8), 1)[..., ::-1] for c in crops
    }
    for shard in (0, 1):
        members = []
        rows = list(plan.filter(pl.col("shard") == shard).iter_rows(named=True))
        for row in rows:
            png = encode_png(_altered(pixels_of[row["crop_id"]], row["k"], row["seed"]))
            members.append((f"{row['test_id']}.json", json.dumps({"seed": row["seed"]}).encode()))
            members.append((f"{row['test_id']}.png", png))
        write_tar(root / f"samples/samples-{shard:05}.tar", members)
        write_json(
            root / f"samples/samples-{shard:05}.json",
            {
                "stage": "enhancer sample", "shard": shard, "rejected": [],
                "counts": {"in": len(rows), "out": len(rows), "rejected": {}},
            },
        )  # fmt: skip


def _altered(image: np.ndarray, k: int, seed: int) -> np.ndarray:
    draw = rng(seed, "test.alter")
    if k <= 2:
        return cv2.GaussianBlur(image, (0, 0), 0.7 + k)
    noise = draw.normal(0, 2 * k, image.shape) if k <= 4 else 0
    sharp = image + 0.6 * (image - cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.float64))
    base = sharp if k > 4 else image
    return np.clip(base + noise, 0, 255).astype(np.uint8)


def _write_labels(root: Path, plan: pl.DataFrame) -> None:
    label_of = {1: -1, 2: -1, 3: 0, 4: -1, 5: 1, 6: 1}
    rows, outliers = [], []
    for test_id, crop_id, k in plan.select("test_id", "crop_id", "k").iter_rows():
        label = label_of[k]
        votes = {-1: (3, 0, 0), 0: (1, 2, 0), 1: (0, 1, 2)}[label]
        row = {
            "study": "demo", "ref_id": crop_id, "test_id": test_id, "n_worse": votes[0],
            "n_similar": votes[1], "n_better": votes[2], "n_votes": 3, "label": label,
            "margin": max(votes) - sorted(votes)[1], "policy": "majority", "is_synthetic": True,
        }  # fmt: skip
        is_tie = k == 4 and crop_id.startswith("skimage-astronaut")
        (outliers if is_tie else rows).append(row)
    write_table(root / "annotations/labels.parquet", pl.DataFrame(rows))
    write_table(
        root / "annotations/outliers.parquet",
        pl.DataFrame([{**row, "reason": "three-way tie"} for row in outliers]),
    )
