"""The tables of the triplet stage: `images.parquet` and `triplets-{train,val,test}.parquet`."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from afine.triplets.rules import Triplet
from runtime.tables import read_table, table_of

SPLITS = ("train", "val", "test")
IMAGE_SCHEMA = {
    "set": pl.String,
    "split": pl.String,
    "content": pl.String,
    "image": pl.String,
    "is_ref": pl.Boolean,
    "quality": pl.Float64,
    "file": pl.String,
    "offset": pl.Int64,
    "size_bytes": pl.Int64,
    "height": pl.Int32,
    "width": pl.Int32,
}
TRIPLET_SCHEMA = {
    "set": pl.String,
    "content": pl.String,
    "image1": pl.String,
    "image2": pl.String,
    "ref": pl.String,
    "label12": pl.Float64,
    "label1r": pl.Float64,
    "label2r": pl.Float64,
    "kind": pl.String,
}


def triplet_table(set_name: str, triplets: Iterable[Triplet]) -> pl.DataFrame:
    """Build the table of one set's triplets."""
    return table_of(({"set": set_name, **vars(row)} for row in triplets), TRIPLET_SCHEMA)


def read_triplets(root: Path, split: str) -> pl.DataFrame:
    """Read `afine/triplets-<split>.parquet` of a run."""
    path = root / "afine" / f"triplets-{split}.parquet"
    return read_table(path, columns=TRIPLET_SCHEMA, what="table of triplets")


def read_images(root: Path) -> pl.DataFrame:
    """Read `afine/images.parquet` of a run."""
    return read_table(
        root / "afine" / "images.parquet", columns=IMAGE_SCHEMA, what="table of images"
    )
