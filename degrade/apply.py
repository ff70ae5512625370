"""`python -m degrade apply --shard N`: the degraded inputs of one shard of the plan.

Reads `plan.parquet` and the crops. Writes `degraded/degraded-{N:05}.tar` (`<test_id>.png` for the
rows with is_degraded) and, last, `degraded/degraded-{N:05}.json`. Each image is a pure function of
its crop, its drawn parameters and its seed, so a shard's bytes do not depend on processes or on an
interruption; an interrupted shard, a matter of a minute, starts anew.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

from degrade.config import APPLY, DegradeConfig
from degrade.drawn import DrawnDegradation, drawn_from
from degrade.image import apply_degradation
from runtime.errors import DataError
from runtime.images import decode_png, encode_png
from runtime.metrics import MetricsLog
from runtime.processes import usable_cores, worker_pool
from runtime.progress import Progress
from runtime.settings import RunSettings, load_run
from runtime.stage import Rejections, open_stage
from runtime.tables import read_table
from runtime.tars import Member, read_member, write_tar

_log = logging.getLogger(__name__)
_IN_FLIGHT_PER_WORKER = 4


@dataclass(frozen=True)
class ApplyTask:
    """One image to degrade: where its crop lies, its parameters and its seed."""

    test_id: str
    tar: Path
    member: Member
    drawn: DrawnDegradation
    seed: int


@dataclass(frozen=True)
class Applied:
    """A degraded image as PNG, or why there is none."""

    test_id: str
    png: bytes | None
    problem: str = ""


def run_apply(
    config_path: Path,
    shard: int,
    *,
    limit: int | None = None,
    dry_run: bool = False,
    replace: bool = False,
) -> None:
    """Write one shard of degraded images.

    Args:
        config_path: the run's config.resolved.json.
        shard: number of the shard.
        limit: degrade so many images, say how fast, and write nothing.
        dry_run: check the inputs and write nothing.
        replace: discard a shard made from another plan.
    Raises:
        DataError: an input is missing, the plan has no such shard, or too many images fail.
    """
    run = load_run(config_path)
    config = run.section("degrade", DegradeConfig)
    if dry_run or limit is not None:
        tasks = read_tasks(run, shard)
        _log.info("degrade apply: %d images in shard %d", len(tasks), shard)
        if not dry_run:
            for _ in _applied(tasks[:limit], config.workers):
                pass
        return
    folder = run.root / "degraded"
    tar = folder / f"degraded-{shard:05}.tar"
    stage = open_stage(
        APPLY,
        run,
        manifest=folder / f"degraded-{shard:05}.json",
        state=folder / ".state" / f"{shard:05}",
        inputs=[run.root / "plan.parquet", run.root / "crops" / "crops.parquet"],
        shard=shard,
        replace=replace,
    )
    if stage.is_complete:
        return
    tasks = read_tasks(run, shard)
    rejections = Rejections(config.max_failure_fraction)
    start_s = time.monotonic()
    written = write_tar(tar, _members(_applied(tasks, config.workers), rejections))
    rejections.check(len(tasks), where=f"degrade apply, shard {shard}", what="images")
    seconds = round(time.monotonic() - start_s, 3)
    MetricsLog(folder / "metrics" / f"{shard:05}.jsonl").write(images=len(written), seconds=seconds)
    stage.finish(
        counts={"images": len(written), "rejected": rejections.counts()},
        files=[tar],
        rejected=rejections.rows,
    )
    stage.clear_state()


def read_tasks(run: RunSettings, shard: int) -> list[ApplyTask]:
    """List the images of a shard that are to be degraded, sorted by test_id.

    Raises:
        DataError: the plan has no such shard, or names a crop that is not there.
    """
    columns = ["test_id", "crop_id", "shard", "is_degraded", "degrade_seed", "degradation"]
    path = run.root / "plan.parquet"
    plan = read_table(path, columns=columns, what="plan").filter(pl.col("shard") == shard)
    if plan.is_empty():
        raise DataError(f"{path}: no shard {shard} in the plan; plan.shards sets their number")
    crops = read_table(
        run.root / "crops" / "crops.parquet",
        columns=["crop_id", "shard", "offset", "size_bytes"],
        what="crops table",
    ).select("crop_id", pl.col("shard").alias("crops_shard"), "offset", "size_bytes")
    rows = plan.filter("is_degraded").sort("test_id").join(
        crops, on="crop_id", how="left", maintain_order="left"
    )  # fmt: skip
    return [_task(run.root / "crops", row) for row in rows.iter_rows(named=True)]


def _task(folder: Path, row: dict[str, object]) -> ApplyTask:
    crop_id = row["crop_id"]
    if row["offset"] is None:
        raise DataError(f"plan.parquet: crop '{crop_id}' is not in crops.parquet; rerun the plan")
    member = Member(f"{crop_id}.png", int(str(row["offset"])), int(str(row["size_bytes"])))
    degradation = row["degradation"]
    assert isinstance(degradation, dict), "a degraded row has its parameters"
    return ApplyTask(
        str(row["test_id"]),
        folder / f"crops-{row['crops_shard']:05}.tar",
        member,
        drawn_from(degradation),
        int(str(row["degrade_seed"])),
    )


def apply_task(task: ApplyTask) -> Applied:
    """Degrade one image; a crop that cannot be read is reported, not raised."""
    try:
        content = read_member(task.tar, task.member)
        image = decode_png(content, where=f"{task.tar}: {task.member.name}")
    except (DataError, OSError) as error:
        return Applied(task.test_id, None, str(error))
    return Applied(task.test_id, encode_png(apply_degradation(image, task.drawn, task.seed)))


def _members(applied: Iterator[Applied], rejections: Rejections) -> Iterator[tuple[str, bytes]]:
    for item in applied:
        if item.png is None:
            rejections.add(item.test_id, "crop_unreadable", item.problem)
        else:
            yield f"{item.test_id}.png", item.png


def _applied(tasks: Sequence[ApplyTask], workers: int) -> Iterator[Applied]:
    """Degrade images in order, over processes."""
    count = min(workers or usable_cores(), len(tasks))
    with Progress(len(tasks), "degrade", unit="image") as progress:
        for item in map(apply_task, tasks) if count <= 1 else _in_pool(tasks, count):
            progress.advance(dropped=0 if item.png is not None else 1)
            yield item


def _in_pool(tasks: Sequence[ApplyTask], count: int) -> Iterator[Applied]:
    """Keep a few images per worker in flight, so that memory stays small."""
    with worker_pool(count) as executor:
        waiting = iter(tasks)
        running: deque[Future[Applied]] = deque()
        while True:
            for task in islice(waiting, count * _IN_FLIGHT_PER_WORKER - len(running)):
                running.append(executor.submit(apply_task, task))
            if not running:
                return
            yield running.popleft().result()
