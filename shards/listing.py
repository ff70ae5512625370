"""Tables of a dataset: which reference is in which split and shard, which image has which label."""

import hashlib
from collections.abc import Sequence
from typing import Any

import polars as pl

from shards.assemble import Selection
from shards.layout import Shard


def split_table(selection: Selection, shards: Sequence[Shard]) -> pl.DataFrame:
    """List every reference with its split and the shard that holds it, sorted by crop_id."""
    places = pl.DataFrame(
        [(crop_id, shard.name) for shard in shards for crop_id in shard.crop_ids],
        schema={"crop_id": pl.String, "shard": pl.String},
        orient="row",
    )
    return selection.crops.select("crop_id", "photo_id", "split").join(
        places, on="crop_id", how="left", maintain_order="left"
    )


def label_table(selection: Selection, labels: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """List every published test image: label, votes, split, shard and how it was made."""
    drop = [name for name in ("crop_id", "work", "shard") if name in selection.plan.columns]
    return (
        labels.join(selection.plan.select("test_id", "crop_id"), on="test_id", how="right")
        .join(splits.select("crop_id", "split", "shard"), on="crop_id")
        .join(selection.plan.drop(drop), on="test_id")
        .with_columns(pl.col("ref_id").fill_null(pl.col("crop_id")))
        .drop("crop_id")
        .sort("test_id")
    )


def describe_split(splits: pl.DataFrame, seed: int) -> dict[str, Any]:
    """Describe the split so that two people can tell whether they use the same one."""
    lines = "".join(f"{split} {key}\n" for key, split in splits.select("crop_id", "split").rows())
    return {
        "name": "by-photograph",
        "unit": "photo_id",
        "seed": seed,
        "references": dict(sorted(splits["split"].value_counts().iter_rows())),
        "photographs": dict(
            sorted(splits.group_by("split").agg(pl.col("photo_id").n_unique()).iter_rows())
        ),
        "sha256": hashlib.sha256(lines.encode("utf-8")).hexdigest(),
    }
