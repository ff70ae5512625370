"""Which test images each reference keeps, and the JSON that describes them.

Tables in, plain records out; no pixels here. Records are made shard by shard, because
those of a whole study would fill gigabytes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from runtime.stage import Rejections
from shards.config import DatasetConfig
from shards.nested import without_nulls
from shards.sources import RunTables, SampleIndex

# where a row was computed, and what its key already says
PLAN_COLUMNS_LEFT_OUT = frozenset({"test_id", "crop_id", "k", "shard", "work"})
CROP_FIELDS = ("crop_id", "photo_id", "source", "row", "col", "size_px", "split")


@dataclass(frozen=True)
class Entry:
    """One reference of the dataset, before its pixels are read.

    Attributes:
        crop: its row of crops.parquet.
        tests: for each kept test image, "01".."06": what the JSON says of it.
    """

    crop: Mapping[str, Any]
    tests: Mapping[str, Mapping[str, Any]]

    @property
    def key(self) -> str:
        """Key of the sample."""
        return str(self.crop["crop_id"])

    def record(self) -> dict[str, Any]:
        """Return the `json` member of the sample."""
        return {
            **{name: self.crop[name] for name in CROP_FIELDS},
            "is_synthetic": any(test["is_synthetic"] for test in self.tests.values()),
            "tests": dict(self.tests),
        }


@dataclass
class Selection:
    """What was kept and what was left out.

    Attributes:
        plan: rows of the kept test images, sorted by test_id.
        crops: rows of the kept references, sorted by crop_id.
        rejected: test images that should be there and are not.
        left_out: numbers of test images and references left out on purpose, by reason.
    """

    plan: pl.DataFrame
    crops: pl.DataFrame
    rejected: Rejections
    left_out: Counter[str] = field(default_factory=Counter)

    def drop(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Take test images out again that turned out to be damaged, with their reasons."""
        for row in rows:
            self.rejected.add(row["key"], row["reason"], row.get("detail", ""))
        keys = [row["key"] for row in rows]
        self.plan = self.plan.filter(~pl.col("test_id").is_in(keys))
        kept = self.plan["crop_id"].unique().to_list()
        self.crops = self.crops.filter(pl.col("crop_id").is_in(kept))


def select(tables: RunTables, samples: SampleIndex, settings: DatasetConfig) -> Selection:
    """Decide for every reference which test images go into the dataset.

    Args:
        tables: crops, plan and labels of the run.
        samples: where the test images lie.
        settings: section `dataset`.
    Returns:
        Kept references and test images, and the reasons for everything else.
    """
    rejected = Rejections(settings.max_failure_fraction)
    left_out: Counter[str] = Counter()
    votes = dict(zip(tables.labels["test_id"], tables.labels["n_votes"], strict=True))
    kept: dict[str, list[str]] = {}
    for test_id, crop_id in tables.plan.select("test_id", "crop_id").iter_rows():
        if test_id not in samples.members:
            rejected.add(test_id, samples.failures.get(test_id, "not in its sample shard"))
        elif test_id not in votes and not settings.include_unlabelled:
            left_out["no label"] += 1
        elif votes.get(test_id, settings.min_votes) < settings.min_votes:
            left_out["too few votes"] += 1
        else:
            kept.setdefault(crop_id, []).append(test_id)
    for crop_id in tables.crops["crop_id"]:
        if len(kept.get(crop_id, [])) < settings.min_tests:
            left_out["reference with too few tests"] += 1
            left_out["test of such a reference"] += len(kept.pop(crop_id, []))
    tests = [test_id for ids in kept.values() for test_id in ids]
    return Selection(
        tables.plan.filter(pl.col("test_id").is_in(tests)),
        tables.crops.filter(pl.col("crop_id").is_in(list(kept))),
        rejected,
        +left_out,
    )


def entries_of(
    crop_ids: Sequence[str], selection: Selection, labels: pl.DataFrame
) -> Iterator[Entry]:
    """Build the entries of some references, in the order of their keys."""
    wanted = pl.col("crop_id").is_in(list(crop_ids))
    plan = selection.plan.filter(wanted)
    own = labels.filter(pl.col("test_id").is_in(plan["test_id"].to_list()))
    label_of = {row["test_id"]: row for row in own.iter_rows(named=True)}
    tests: dict[str, dict[str, dict[str, Any]]] = {}
    for row in plan.iter_rows(named=True):
        described = describe_test(row, label_of.get(row["test_id"]))
        tests.setdefault(row["crop_id"], {})[f"{row['k']:02}"] = described
    for crop in selection.crops.filter(wanted).iter_rows(named=True):
        yield Entry(crop, tests[crop["crop_id"]])


def describe_test(row: Mapping[str, Any], label: Mapping[str, Any] | None) -> dict[str, Any]:
    """Describe one test image: label, votes, and every parameter of the plan.

    Args:
        row: its row of plan.parquet.
        label: its row of labels.parquet; None for an unlabelled image.
    """
    votes = {name: label[f"n_{name}"] if label else 0 for name in ("worse", "similar", "better")}
    return {
        "label": label["label"] if label else None,
        "votes": votes,
        "margin": label["margin"] if label else None,
        "policy": label["policy"] if label else None,
        "is_synthetic": bool(label["is_synthetic"]) if label else False,
        **{
            name: without_nulls(value)
            for name, value in row.items()
            if name not in PLAN_COLUMNS_LEFT_OUT
        },
    }
