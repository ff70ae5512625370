"""`simulate`: simulated raters judge the run's images; a label tree in the released layout.

Reads `plan.parquet`, the crops and the samples; writes `annotations/simulated/`, marked synthetic
by `SYNTHETIC.json`, so that every table and report made from it says so.
"""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from annotation_import.config import SIMULATE, SimulateConfig
from annotation_import.export import export_votes, mark_synthetic
from annotation_import.observer import MEASUREMENTS, Seen, measure, utilities
from annotation_import.simulated_raters import cast_votes, make_raters
from runtime.errors import DataError
from runtime.images import decode_png
from runtime.progress import Progress
from runtime.settings import RunSettings
from runtime.stage import Rejections, StageRun, open_stage
from runtime.tables import read_table, table_of, write_table
from runtime.tars import Member, list_tar, read_member

_log = logging.getLogger(__name__)
_MEASURED = {"test_id": pl.String, **dict.fromkeys(MEASUREMENTS, pl.Float64)}
_REJECTED = {"key": pl.String, "reason": pl.String, "detail": pl.String}


def simulate_in_run(
    run: RunSettings, *, replace: bool = False, dry_run: bool = False, limit: int | None = None
) -> None:
    """Measure the run's images and let simulated raters vote.

    Args:
        run: the resolved configuration.
        replace: discard votes made with other settings, code or images.
        dry_run: check the inputs, write nothing.
        limit: measure at most this many images and stop without votes; a rerun goes on.

    Raises:
        DataError: an input is missing, or too many images cannot be used.
    """
    settings = run.section("annotations.simulate", SimulateConfig)
    folder = run.root / "annotations" / "simulated"
    plan = read_table(
        run.root / "plan.parquet", columns=("test_id", "crop_id", "shard"), what="plan"
    ).sort("test_id")
    shards = plan["shard"].unique().sort().to_list()
    manifests = [run.root / f"samples/samples-{shard:05}.json" for shard in shards]
    inputs = [run.root / "plan.parquet", run.root / "crops/manifest.json", *manifests]
    if dry_run:
        for path in inputs:
            if not path.is_file():
                raise DataError(f"{path}: input not found; run the stage that writes it first")
        return
    opened = open_stage(
        SIMULATE,
        run,
        manifest=run.root / "annotations" / "simulated.manifest.json",
        state=run.root / "annotations" / ".state" / "simulate",
        inputs=inputs,
        replace=replace,
    )
    if opened.is_complete:
        return
    rejections = Rejections(float(run.value("annotations.max_failure_fraction")))
    measured = _measure_all(run.root, plan, opened, rejections, limit)
    if len(measured) + len(rejections.rows) < len(plan):
        _log.info("stopped after %d of %d images; rerun to go on", len(measured), len(plan))
        return
    rejections.check(len(plan), where=str(run.root / "samples"), what="images")
    _write_votes(measured, settings, run.seed, folder)
    opened.finish(
        counts={
            "images": len(plan),
            "voted": len(measured),
            "rejected": rejections.counts(),
        },
        files=[
            folder / name for name in ("SYNTHETIC.json", "raters.parquet", "measurements.parquet")
        ],
        is_synthetic=True,
    )
    opened.clear_state()


def _write_votes(measured: pl.DataFrame, settings: SimulateConfig, seed: int, folder: Path) -> None:
    weights = {name: getattr(settings, f"{name}_weight") for name in MEASUREMENTS}
    utility = utilities({name: measured[name].to_numpy() for name in MEASUREMENTS}, weights)
    votes = cast_votes(measured["test_id"].to_list(), utility, settings, seed=seed)
    shutil.rmtree(folder, ignore_errors=True)
    raters = make_raters(settings, seed=seed)
    mark_synthetic(
        folder,
        observer="Thurstone observer over sharpness, gradient similarity, noise and blockiness, "
        "ranked over this study's images: 'better' means better than most images here",
        times="made up",
        seed=seed,
        settings=settings.model_dump(mode="json"),
        raters={rater.rater_id: rater.habit for rater in raters},
    )
    write_table(folder / "measurements.parquet", measured.with_columns(utility=pl.Series(utility)))
    export_votes(votes, folder, "diffiqa")


def _measure_all(
    root: Path, plan: pl.DataFrame, opened: StageRun, rejections: Rejections, limit: int | None
) -> pl.DataFrame:
    """Measure shard by shard; a finished shard is kept for resuming."""
    parts: list[pl.DataFrame] = []
    left = len(plan) if limit is None else limit
    with Progress(len(plan), "measure images", unit="image") as progress:
        for (shard,), group in plan.sort("shard", "test_id").group_by(
            ["shard"], maintain_order=True
        ):
            saved = opened.state / f"measured-{shard:05}.parquet"
            refused = opened.state / f"rejected-{shard:05}.parquet"
            if not (saved.is_file() and refused.is_file()):
                rows = group.head(left)
                measured, bad = _measure_shard(root, int(str(shard)), rows, progress)
                if len(rows) == len(group):
                    write_table(saved, measured)
                    write_table(refused, bad)
                left -= len(rows)
            else:
                measured, bad = pl.read_parquet(saved), pl.read_parquet(refused)
                progress.advance(len(group))
            parts.append(measured)
            for row in bad.iter_rows(named=True):
                rejections.add(row["key"], row["reason"], row["detail"])
    return pl.concat(parts).sort("test_id") if parts else table_of([], _MEASURED)


def _measure_shard(
    root: Path, shard: int, rows: pl.DataFrame, progress: Progress
) -> tuple[pl.DataFrame, pl.DataFrame]:
    samples = root / f"samples/samples-{shard:05}.tar"
    members = {member.name: member for member in list_tar(samples)}
    crops = _crop_places(root, rows["crop_id"].unique().to_list())
    measured: list[dict[str, Any]] = []
    rejected: list[dict[str, str]] = []
    for (crop_id,), group in rows.sort("test_id").group_by(["crop_id"], maintain_order=True):
        tar, place = crops[str(crop_id)]
        ref = Seen(decode_png(read_member(tar, place), where=f"{tar}: {crop_id}"))
        for test_id, found in _measure_group(group["test_id"].to_list(), samples, members, ref):
            if isinstance(found, dict):
                measured.append({"test_id": test_id, **found})
            else:
                rejected.append({"key": test_id, "reason": found, "detail": samples.name})
            progress.advance(dropped=int(not isinstance(found, dict)))
    return table_of(measured, _MEASURED), table_of(rejected, _REJECTED)


def _measure_group(
    test_ids: list[str], samples: Path, members: dict[str, Member], ref: Seen
) -> Iterator[tuple[str, dict[str, float] | str]]:
    """Measurements of one reference's images, or the reason why there are none."""
    for test_id in test_ids:
        member = members.get(f"{test_id}.png")
        if member is None:
            yield test_id, "no_sample"
            continue
        try:
            image_u8 = decode_png(read_member(samples, member), where=test_id)
        except DataError:
            yield test_id, "unreadable_sample"
            continue
        is_same = image_u8.shape == ref.image_u8.shape
        yield test_id, measure(Seen(image_u8), ref) if is_same else "other_size"


def _crop_places(root: Path, crop_ids: list[str]) -> dict[str, tuple[Path, Member]]:
    table = read_table(
        root / "crops/crops.parquet",
        columns=("crop_id", "shard", "offset", "size_bytes"),
        what="crops table",
    ).filter(pl.col("crop_id").is_in(crop_ids))
    places = {
        row["crop_id"]: (
            root / f"crops/crops-{row['shard']:05}.tar",
            Member(f"{row['crop_id']}.png", row["offset"], row["size_bytes"]),
        )
        for row in table.iter_rows(named=True)
    }
    missing = sorted(set(crop_ids) - set(places))
    if missing:
        raise DataError(
            f"{root / 'crops/crops.parquet'}: crop '{missing[0]}' of the plan not found; run "
            "degrade plan again"
        )
    return places
