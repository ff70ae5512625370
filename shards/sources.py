"""What a run holds for the dataset: tables, and where each test image lies.

Reads `crops/crops.parquet`, `plan.parquet`, `annotations/labels.parquet`, and the headers
of `samples/samples-*.tar`; the pixels stay on disk until a shard is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from runtime.atomic import read_json
from runtime.errors import DataError
from runtime.tables import read_table
from runtime.tars import Member, list_tar
from shards.nested import lists_to_records

CROP_COLUMNS = (
    "crop_id", "photo_id", "source", "row", "col", "size_px", "split", "shard", "offset",
    "size_bytes", "sha256",
)  # fmt: skip
LABEL_COLUMNS = (
    "ref_id", "test_id", "n_worse", "n_similar", "n_better", "n_votes", "label", "margin",
    "policy", "is_synthetic",
)  # fmt: skip
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class RunTables:
    """The tables of a run, checked against each other.

    Attributes:
        crops: one row per reference, sorted by crop_id.
        plan: one row per planned test image, sorted by test_id; lists of records are records.
        labels: one row per labelled test image.
    """

    crops: pl.DataFrame
    plan: pl.DataFrame
    labels: pl.DataFrame


@dataclass(frozen=True)
class SampleIndex:
    """Where the test images lie, and why some do not exist.

    Attributes:
        members: tar and position of each `<test_id>.png`.
        failures: reason for each test image that its sampling shard gave up.
        manifests: the manifests of the sampling shards, in order.
    """

    members: Mapping[str, tuple[Path, Member]]
    failures: Mapping[str, str]
    manifests: tuple[Path, ...]


def read_tables(root: Path) -> RunTables:
    """Read and cross-check the tables of the run in `root`.

    Raises:
        DataError: a table is missing, lacks a column, names an unknown reference or split, or
            lets a photograph cross splits.
    """
    crops = read_table(root / "crops/crops.parquet", columns=CROP_COLUMNS, what="table of crops")
    plan = read_table(
        root / "plan.parquet",
        columns=("test_id", "crop_id", "k", "shard"),
        what="table of test images",
    )
    labels = read_table(
        root / "annotations/labels.parquet", columns=LABEL_COLUMNS, what="table of labels"
    )
    check_splits(crops, where=str(root / "crops/crops.parquet"))
    unknown = plan.join(crops, on="crop_id", how="anti")
    if unknown.height:
        raise DataError(
            f"{root / 'plan.parquet'}: reference '{unknown['crop_id'][0]}' is not in "
            f"crops.parquet ({unknown.height} such rows); rerun `degrade plan`"
        )
    return RunTables(crops.sort("crop_id"), lists_to_records(plan.sort("test_id")), labels)


def check_splits(crops: pl.DataFrame, *, where: str) -> None:
    """Check that every split is known and no photograph is in two of them.

    Raises:
        DataError: naming the photograph or the split.
    """
    unknown = set(crops["split"].unique()) - set(SPLITS)
    if unknown:
        raise DataError(
            f"{where}: split '{min(unknown)}' found, expected {', '.join(SPLITS)}; rerun `crop run`"
        )
    crossing = (
        crops.group_by("photo_id")
        .agg(pl.col("split").unique().sort().alias("splits"))
        .filter(pl.col("splits").list.len() > 1)
        .sort("photo_id")
    )
    if crossing.height:
        raise DataError(
            f"{where}: photograph '{crossing['photo_id'][0]}' has crops in "
            f"{' and '.join(crossing['splits'][0])}; its content would leak between splits"
        )


def sample_manifests(root: Path, plan: pl.DataFrame) -> list[Path]:
    """Name the manifests of the sampling shards that the plan counts on.

    Shards of an earlier plan, with a higher number, may still lie there; they are not used.
    """
    return [root / f"samples/samples-{shard:05}.json" for shard in sorted(plan["shard"].unique())]


def index_samples(root: Path, plan: pl.DataFrame) -> SampleIndex:
    """Find every test image in the sample shards, reading tar headers only.

    Raises:
        DataError: a shard or its manifest is missing or damaged.
    """
    manifests = sample_manifests(root, plan)
    members: dict[str, tuple[Path, Member]] = {}
    failures: dict[str, str] = {}
    for manifest in manifests:
        failures.update(_failures(read_json(manifest, what="sample manifest")))
        tar = manifest.with_suffix(".tar")
        for member in list_tar(tar):
            key, _, extension = member.name.partition(".")
            if extension == "png":
                members[key] = (tar, member)
    return SampleIndex(members, failures, tuple(manifests))


def _failures(manifest: Mapping[str, Any]) -> dict[str, str]:
    rejected = manifest.get("rejected", [])
    return {row["key"]: row.get("reason", "failed") for row in rejected if "key" in row}
