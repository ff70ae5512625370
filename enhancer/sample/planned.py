"""The planned images of a run: rows of plan.parquet, their input pixels, their cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from enhancer.sample.tiles import Tiling
from enhancer.sample.unipc import solver_timesteps
from runtime.errors import DataError
from runtime.images import ImageU8, decode_png
from runtime.tables import read_table
from runtime.tars import Member, list_tar, read_member

PLAN_COLUMNS = (
    "test_id", "crop_id", "shard", "seed", "is_degraded", "init", "steps", "level", "upscale",
    "guidance", "conditioning_scale", "prompt", "negative_prompt", "color_fix",
)  # fmt: skip
CROP_COLUMNS = ("crop_id", "size_px", "shard", "offset", "size_bytes")
LATENT_PX = 8
LAST_TIMESTEP = 999


@dataclass(frozen=True)
class PlannedImage:
    """One row of the plan, and where its input lies.

    Attributes:
        row: the plan's row, as plain values.
        size_px: side of the crop.
        tar: shard that holds the input image.
        member: its position there; None if it is not there.
    """

    row: Mapping[str, Any]
    size_px: int
    tar: Path
    member: Member | None

    @property
    def test_id(self) -> str:
        """Key of the image."""
        return str(self.row["test_id"])

    @property
    def input_px(self) -> int:
        """Side of the network's input, pixels."""
        return input_side(self.row, self.size_px)

    @property
    def solver_level(self) -> int | None:
        """Timestep at which denoising starts; None for the last one."""
        return solver_level(self.row)

    def read(self) -> ImageU8:
        """Read the network's input, uint8 [input_px, input_px, 3].

        Raises:
            DataError: the image is missing or unreadable, or its side is no multiple of 8.
        """
        if self.member is None:
            raise DataError(f"{self.tar}: no image for {self.test_id}; rerun the stage before")
        content = read_member(self.tar, self.member)
        image = decode_png(content, where=f"{self.tar}: {self.member.name}")
        if image.shape[0] != self.size_px or image.shape[1] != self.size_px:
            raise DataError(
                f"{self.tar}: {self.member.name} is {image.shape[1]}x{image.shape[0]}, its crop "
                f"has {self.size_px} pixels a side"
            )
        if self.input_px % LATENT_PX:
            raise DataError(
                f"{self.test_id}: side {self.input_px} is no multiple of {LATENT_PX}; choose "
                "another crop.size_px"
            )
        return resize(image, self.input_px)


def input_side(row: Mapping[str, Any], size_px: int) -> int:
    """Side of the network's input: the crop's, enlarged if planned, a multiple of 8."""
    if row["upscale"] == 1:
        return size_px
    return round(size_px * float(row["upscale"]) / LATENT_PX) * LATENT_PX


def solver_level(row: Mapping[str, Any]) -> int | None:
    """Timestep at which a planned image's denoising starts; None for the last one."""
    return int(row["level"]) if row["init"] == "partial" else None


def evaluations(row: Mapping[str, Any], size_px: int, tiling: Tiling) -> int:
    """Network evaluations of a planned image: steps x latent tiles x prompt halves."""
    side = input_side(row, size_px) // LATENT_PX
    halves = 1 if row["guidance"] == 1 else 2
    steps = distinct_steps(int(row["steps"]), solver_level(row))
    return steps * len(tiling.layout(side, side)) * halves


@cache
def distinct_steps(steps: int, level: int | None) -> int:
    """Steps that the solver makes: those planned, less repeated timesteps."""
    return len(solver_timesteps(steps, LAST_TIMESTEP if level is None else level))


def resize(image_u8: ImageU8, side_px: int) -> ImageU8:
    """Resize a square image with Pillow's bicubic filter (release); same size: unchanged."""
    if image_u8.shape[0] == side_px:
        return image_u8
    resized = Image.fromarray(image_u8).resize((side_px, side_px), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)


def read_plan(root: Path) -> pl.DataFrame:
    """Read the whole plan with the columns that sampling uses."""
    return read_table(root / "plan.parquet", columns=PLAN_COLUMNS, what="plan")


def planned_images(root: Path, rows: pl.DataFrame) -> list[PlannedImage]:
    """Find the input of every row.

    Args:
        root: folder of the run.
        rows: rows of the plan.
    Raises:
        DataError: a crop of the plan is not in the table of crops.
    """
    crops = planned_crops(root, rows)
    degraded = _degraded_members(root, rows)
    images = []
    for row in rows.sort("test_id").iter_rows(named=True):
        crop = crops[row["crop_id"]]
        member: Member | None
        if row["is_degraded"]:
            tar = _degraded_tar(root, row["shard"])
            member = degraded[row["shard"]].get(row["test_id"])
        else:
            tar = root / f"crops/crops-{crop['shard']:05}.tar"
            member = Member(f"{row['crop_id']}.png", crop["offset"], crop["size_bytes"])
        images.append(PlannedImage(row, crop["size_px"], tar, member))
    return images


def planned_crops(root: Path, rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Look up the crops of some rows of the plan: crop_id to size and place.

    Raises:
        DataError: a crop of the plan is not in the table of crops.
    """
    path = root / "crops/crops.parquet"
    table = read_table(path, columns=CROP_COLUMNS, what="table of crops").select(CROP_COLUMNS)
    wanted = set(rows["crop_id"])
    crops = {row["crop_id"]: row for row in table.iter_rows(named=True) if row["crop_id"] in wanted}
    if missing := sorted(wanted - crops.keys()):
        raise DataError(
            f"{path}: lacks {len(missing)} crops of the plan, first {missing[0]}; rerun "
            "'degrade plan'"
        )
    return crops


def _degraded_tar(root: Path, shard: int) -> Path:
    return root / f"degraded/degraded-{shard:05}.tar"


def _degraded_members(root: Path, rows: pl.DataFrame) -> dict[int, dict[str, Member]]:
    shards: Sequence[int] = rows.filter(pl.col("is_degraded"))["shard"].unique().to_list()
    return {
        shard: {
            member.name.partition(".")[0]: member for member in list_tar(_degraded_tar(root, shard))
        }
        for shard in shards
    }
