"""Statistics of a dataset for its card, its metadata and its manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from shards.assemble import Selection
from shards.sources import SPLITS

LABEL_NAMES = {-1: "worse", 0: "similar", 1: "better"}


@dataclass(frozen=True)
class Summary:
    """Numbers of one dataset.

    Attributes:
        labels: for each split: references, tests, worse, similar, better, unlabelled.
        sources: references of each source.
        sizes_px: sides of the references that occur.
        votes: test images by number of votes.
        policies: test images by how their label was decided.
        shares: share of test images with a degraded input, and with each initial noise.
        ranges: smallest and largest value of the numeric generation parameters.
        is_synthetic: some label was simulated.
        test_names: names of the test images that occur, "01".."06".
        crop_schema: column types of crops.parquet.
        plan_schema: column types of plan.parquet.
        label_schema: column types of labels.parquet.
    """

    labels: Mapping[str, Mapping[str, int]]
    sources: Mapping[str, int]
    sizes_px: tuple[int, ...]
    votes: Mapping[int, int]
    policies: Mapping[str, int]
    shares: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]]
    is_synthetic: bool
    test_names: tuple[str, ...]
    crop_schema: pl.Schema
    plan_schema: pl.Schema
    label_schema: pl.Schema


def summarise(selection: Selection, labels: pl.DataFrame, splits: pl.DataFrame) -> Summary:
    """Count what a dataset holds.

    Args:
        selection: kept references and test images.
        labels: table of labels, with rows for test images that were left out as well.
        splits: table of crop_id and split.
    """
    tests = selection.plan.join(
        labels.select("test_id", "label", "n_votes", "policy", "is_synthetic"),
        on="test_id", how="left",
    ).join(splits.select("crop_id", "split"), on="crop_id")  # fmt: skip
    return Summary(
        labels={split: _label_counts(part) for split, part in _by_split(tests)},
        sources=_counts(selection.crops["source"]),
        sizes_px=tuple(sorted(selection.crops["size_px"].unique())),
        votes=_counts(tests["n_votes"].drop_nulls()),
        policies=_counts(tests["policy"].drop_nulls()),
        shares=_shares(tests),
        ranges=_ranges(tests),
        is_synthetic=bool(tests["is_synthetic"].fill_null(False).any()),
        test_names=tuple(f"{k:02}" for k in sorted(tests["k"].unique())),
        crop_schema=selection.crops.schema,
        plan_schema=selection.plan.schema,
        label_schema=labels.schema,
    )


def _by_split(tests: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    parts = [(split, tests.filter(pl.col("split") == split)) for split in SPLITS]
    return [(split, part) for split, part in parts if part.height]


def _ranges(tests: pl.DataFrame) -> dict[str, tuple[float, float]]:
    ranges: dict[str, tuple[float, float]] = {}
    for name in ("steps", "level", "upscale", "guidance", "conditioning_scale"):
        values = tests[name].drop_nulls().to_list() if name in tests.columns else []
        if values:
            ranges[name] = (min(values), max(values))
    return ranges


def _label_counts(tests: pl.DataFrame) -> dict[str, int]:
    counts = {"references": tests["crop_id"].n_unique(), "tests": tests.height}
    for value, name in LABEL_NAMES.items():
        counts[name] = tests.filter(pl.col("label") == value).height
    counts["unlabelled"] = tests["label"].null_count()
    return counts


def _counts(column: pl.Series) -> dict[Any, int]:
    return dict(column.value_counts().sort(column.name).iter_rows())


def _shares(tests: pl.DataFrame) -> dict[str, float]:
    """Share of test images with a degraded input, and with each kind of initial noise."""
    shares: dict[str, float] = {}
    if "is_degraded" in tests.columns:
        shares["degraded input"] = tests.filter(pl.col("is_degraded")).height / tests.height
    if "init" in tests.columns:
        for init, n in _counts(tests["init"]).items():
            shares[f"initial noise: {init}"] = n / tests.height
    return shares
