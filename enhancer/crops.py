"""The run's own crops as training images: table rows and pixels, read by position in a tar."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.errors import DataError
from runtime.images import ImageU8, decode_png
from runtime.tables import read_table
from runtime.tars import Member, read_member

_COLUMNS = ("crop_id", "split", "shard", "offset", "size_bytes")


@dataclass(frozen=True)
class CropRow:
    """Where one crop's PNG lies.

    Attributes:
        crop_id: key of the crop.
        tar: the shard that holds it.
        member: its position there.
    """

    crop_id: str
    tar: Path
    member: Member

    def read(self) -> ImageU8:
        """Decode the crop to RGB, uint8 [H, W, 3]."""
        content = read_member(self.tar, self.member)
        return decode_png(content, where=f"{self.tar}: {self.crop_id}")


def crop_rows(root: Path, splits: Iterable[str]) -> list[CropRow]:
    """List the crops of some splits, in order of crop_id.

    Raises:
        DataError: there is no crop in these splits.
    """
    wanted = sorted(splits)
    table_path = root / "crops/crops.parquet"
    table = read_table(table_path, columns=_COLUMNS, what="table of crops")
    rows = [
        CropRow(
            row["crop_id"],
            root / f"crops/crops-{row['shard']:05}.tar",
            Member(f"{row['crop_id']}.png", row["offset"], row["size_bytes"]),
        )
        for row in table.select(_COLUMNS).sort("crop_id").iter_rows(named=True)
        if row["split"] in wanted
    ]
    if not rows:
        raise DataError(
            f"{table_path}: no crop in split {' or '.join(wanted)} ({table.height} in all); the "
            "training needs some: give more photographs or other split shares"
        )
    return rows


def read_stack(rows: Sequence[CropRow]) -> npt.NDArray[np.uint8]:
    """Read crops of one size into one array, uint8 [N, H, W, 3].

    Raises:
        DataError: the crops differ in size.
    """
    images = [row.read() for row in rows]
    for row, image in zip(rows, images, strict=True):
        if image.shape != images[0].shape:
            raise DataError(
                f"{row.tar}: {row.crop_id} is {image.shape}, {rows[0].crop_id} is "
                f"{images[0].shape}; crops of one run have one size: rerun the stage 'crop run'"
            )
    return np.stack(images)
