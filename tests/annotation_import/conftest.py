"""A small run with real photographs as crops and altered copies as samples; label trees."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
import skimage.data

from annotation_import.config import AnnotationsConfig
from runtime.atomic import write_json
from runtime.images import encode_png
from runtime.tables import write_table
from runtime.tars import write_tar
from tests.annotation_import.trees import write_votes

ALTERATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "01": lambda x: x,
    "02": lambda x: cv2.GaussianBlur(x, (0, 0), 1.0),
    "03": lambda x: cv2.GaussianBlur(x, (0, 0), 4.0),
    "04": lambda x: cv2.addWeighted(x, 1.6, cv2.GaussianBlur(x, (0, 0), 1.5), -0.6, 0),
    "05": lambda x: cv2.imdecode(
        cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 12])[1], cv2.IMREAD_COLOR
    ),
    "06": lambda x: np.clip(x + np.random.default_rng(0).normal(0, 18, x.shape), 0, 255).astype(
        np.uint8
    ),
}


def _crops() -> dict[str, np.ndarray]:
    photos = {"astronaut": skimage.data.astronaut(), "coffee": skimage.data.coffee()}
    return {
        f"demo-{name}-x{row}y{column}": np.ascontiguousarray(
            photo[row : row + 128, column : column + 128]
        )
        for name, photo in photos.items()
        for row in (0, 128)
        for column in (0, 128, 256)
    }


@pytest.fixture
def small_run(tmp_path: Path) -> Callable[..., Path]:
    """Make a run with crops, plan and samples in two shards; returns config.resolved.json."""

    def make(name: str = "small", **annotations: object) -> Path:
        root = tmp_path / "results" / name
        crops = dict(sorted(_crops().items()))
        members = write_tar(
            root / "crops/crops-00000.tar",
            ((f"{key}.png", encode_png(image)) for key, image in crops.items()),
        )
        write_table(
            root / "crops/crops.parquet",
            pl.DataFrame(
                [
                    {"crop_id": m.name.removesuffix(".png"), "shard": 0, "offset": m.offset,
                     "size_bytes": m.size_bytes}
                    for m in members
                ]
            ),
        )  # fmt: skip
        write_json(root / "crops/manifest.json", {"fingerprint": "test"})
        plan = [
            {"test_id": f"{key}_{number}", "crop_id": key, "shard": index % 2}
            for index, key in enumerate(crops)
            for number in ALTERATIONS
        ]
        write_table(root / "plan.parquet", pl.DataFrame(plan))
        for shard in (0, 1):
            write_tar(
                root / f"samples/samples-{shard:05}.tar",
                (
                    (f"{row['test_id']}.png",
                     encode_png(ALTERATIONS[row["test_id"][-2:]](crops[row["crop_id"]])))
                    for row in plan if row["shard"] == shard
                ),
            )  # fmt: skip
            write_json(root / f"samples/samples-{shard:05}.json", {"fingerprint": f"test {shard}"})
        section = AnnotationsConfig.model_validate(annotations).model_dump(mode="json")
        write_json(root / "config.resolved.json", {"run": name, "seed": 7, "annotations": section})
        return root / "config.resolved.json"

    return make


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Eight voted pairs of two references in the DiffIQA layout."""
    votes = {
        "000006x0y770_01": (1, 1, 1), "000006x0y770_02": (1, 1, 0), "000006x0y770_03": (1, 0, -1),
        "000006x0y770_04": (-1, -1, 1), "0339x403y1179_01": (0, 0, 0),
        "0339x403y1179_02": (-1, -1, -1), "0339x403y1179_03": (-1, 0, 1),
        "0339x403y1179_04": (0, 1, 0),
    }  # fmt: skip
    return write_votes(tmp_path / "tree", votes)
