"""Pairs of reference and test image for the gallery: drawn at random, spread over photographs."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import polars as pl

from runtime.errors import DataError
from runtime.images import ImageU8, decode_png
from runtime.seeds import item_seed
from runtime.tars import Member, list_tar, read_member

NAMES = {-1: "worse", 0: "similar", 1: "better"}


@dataclass(frozen=True)
class Pair:
    """One pair, with its pixels.

    Attributes:
        test_id: the test image.
        label: worse, similar or better.
        row: its row of the joined table of plan and labels.
        reference_u8: uint8 [H, W, 3].
        test_u8: uint8 [H, W, 3].
    """

    test_id: str
    label: str
    row: Mapping[str, Any]
    reference_u8: ImageU8
    test_u8: ImageU8


def draw_pairs(root: Path, table: pl.DataFrame, per_label: int, seed: int) -> Iterator[Pair]:
    """Draw pairs of each label and read their pixels.

    No choice by looks: the order is a keyed hash, one pair of each photograph before the
    second of any.

    Args:
        root: folder of the run.
        table: labelled test images (`labels.labelled_tests`).
        per_label: pairs of each label.
        seed: seed of the run.
    """
    crops = _crops(root)
    for value, name in NAMES.items():
        part = table.filter(pl.col("label") == value)
        shown = 0
        for row in _spread(part, seed):
            if shown == per_label:
                break
            pair = _read_pair(root, crops, row, name)
            if pair is not None:
                shown += 1
                yield pair


def _crops(root: Path) -> dict[str, dict[str, Any]]:
    path = root / "crops/crops.parquet"
    if not path.is_file():
        return {}
    columns = ["crop_id", "shard", "offset", "size_bytes"]
    return {row["crop_id"]: row for row in pl.read_parquet(path).select(columns).to_dicts()}


def _spread(part: pl.DataFrame, seed: int) -> list[dict[str, Any]]:
    """Order rows at random, so that photographs take turns."""
    rows = sorted(
        part.iter_rows(named=True),
        key=lambda row: item_seed(seed, "report.gallery", row["test_id"]),
    )
    turns: dict[str, int] = {}
    placed: list[tuple[int, int, dict[str, Any]]] = []
    for index, row in enumerate(rows):
        photo = str(row.get("photo_id") or row["crop_id"])
        turns[photo] = turns.get(photo, 0) + 1
        placed.append((turns[photo], index, row))
    return [row for _, _, row in sorted(placed, key=lambda item: item[:2])]


def _read_pair(
    root: Path, crops: Mapping[str, Mapping[str, Any]], row: Mapping[str, Any], label: str
) -> Pair | None:
    """Read the pixels; None if they are gone, since a report shows what there is."""
    crop = crops.get(row["crop_id"])
    samples = root / f"samples/samples-{row['shard']:05}.tar"
    if crop is None or not samples.is_file():
        return None
    member = _members(samples, samples.stat().st_mtime_ns).get(f"{row['test_id']}.png")
    place = Member("crop", crop["offset"], crop["size_bytes"])
    tar = root / f"crops/crops-{crop['shard']:05}.tar"
    if member is None or not tar.is_file():
        return None
    try:
        reference = decode_png(read_member(tar, place), where=str(tar))
        test = decode_png(read_member(samples, member), where=str(samples))
    except DataError:
        return None
    return Pair(row["test_id"], label, row, reference, test)


@lru_cache(maxsize=8)
def _members(tar: Path, written_ns: int) -> dict[str, Member]:
    del written_ns  # part of the cache's key: a tar that was written anew is listed anew
    return {member.name: member for member in list_tar(tar)}


def data_uri(
    image_u8: ImageU8, *, max_px: int, image_format: Literal["webp", "jpeg"], quality: int
) -> str:
    """Encode an image for use inside a page.

    Args:
        image_u8: RGB, uint8 [H, W, 3].
        max_px: longest side; smaller images keep their size.
        image_format: webp or jpeg.
        quality: 1..100.
    """
    scale = max_px / max(image_u8.shape[:2])
    if scale < 1:
        image_u8 = np.asarray(
            cv2.resize(image_u8, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
        )
    flag = cv2.IMWRITE_WEBP_QUALITY if image_format == "webp" else cv2.IMWRITE_JPEG_QUALITY
    bgr = cv2.cvtColor(image_u8, cv2.COLOR_RGB2BGR)
    is_done, buffer = cv2.imencode(f".{image_format}", bgr, [flag, quality])
    if not is_done:
        raise DataError(f"an image of shape {image_u8.shape} could not be encoded")
    text = base64.b64encode(buffer.tobytes()).decode("ascii")
    return f"data:image/{image_format};base64,{text}"
