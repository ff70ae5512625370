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
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import polars as pl

from degrade.config import APPLY, DegradeConfig, PlanConfig
from degrade.drawn import DrawnDegradation, drawn_from
from degrade.image import apply_degradation
from runtime.errors import ConfigError, DataError
from runtime.images import decode_png, encode_png
from runtime.metrics import MetricsLog
from runtime.processes import keep_freed_memory, usable_cores, worker_pool
from runtime.progress import Progress
from runtime.settings import RunSettings, load_run
from runtime.stage import Rejections, open_stage
from runtime.tables import read_table
from runtime.tars import Member, read_member, write_tar

_log = logging.getLogger(__name__)
_IN_FLIGHT_PER_WORKER = 4


@dataclass(frozen=True)
class Treatment:
    """What is done to a crop for one test image."""

    test_id: str
    drawn: DrawnDegradation
    seed: int


@dataclass(frozen=True)
class ApplyTask:
    """One crop, where it lies, and its treatments: it is decoded once for all of them."""

    tar: Path
    member: Member
    treatments: tuple[Treatment, ...]


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
    keep_freed_memory()
    run = load_run(config_path)
    config = run.section("degrade", DegradeConfig)
    if dry_run or limit is not None:
        tasks = read_tasks(run, shard)
        _log.info("degrade apply: %d images in shard %d", _images(tasks), shard)
        if not dry_run:
            for _ in islice(_applied(tasks, config.workers), limit):
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
    rejections.check(_images(tasks), where=f"degrade apply, shard {shard}", what="images")
    seconds = round(time.monotonic() - start_s, 3)
    MetricsLog(folder / "metrics" / f"{shard:05}.jsonl").write(images=len(written), seconds=seconds)
    stage.finish(
        counts={"images": len(written), "rejected": rejections.counts()},
        files=[tar],
        rejected=rejections.rows,
    )
    stage.clear_state()


def read_tasks(run: RunSettings, shard: int) -> list[ApplyTask]:
    """List the crops of a shard with the images that are to be degraded, sorted by test_id.

    Raises:
        ConfigError: there is no such shard.
        DataError: the plan names a crop that is not there.
    """
    columns = ["test_id", "crop_id", "shard", "is_degraded", "degrade_seed", "degradation"]
    path = run.root / "plan.parquet"
    plan = read_table(path, columns=columns, what="plan").filter(pl.col("shard") == shard)
    count = run.section("plan", PlanConfig).shards
    if not 0 <= shard < count:
        raise ConfigError(f"{run.path}: shard {shard} asked for; plan.shards is {count}")
    places = _crop_places(run.root / "crops")
    rows = plan.filter("is_degraded").sort("test_id").iter_rows(named=True)
    tasks = []
    for crop_id, members in groupby(rows, key=lambda row: str(row["crop_id"])):
        if crop_id not in places:
            raise DataError(f"{path}: crop '{crop_id}' is not in crops.parquet; rerun the plan")
        tasks.append(ApplyTask(*places[crop_id], tuple(_treatment(row) for row in members)))
    return tasks


def _crop_places(folder: Path) -> dict[str, tuple[Path, Member]]:
    """Where each crop's PNG lies."""
    columns = ["crop_id", "shard", "offset", "size_bytes"]
    crops = read_table(folder / "crops.parquet", columns=columns, what="crops table")
    return {
        crop_id: (folder / f"crops-{shard:05}.tar", Member(f"{crop_id}.png", offset, size_bytes))
        for crop_id, shard, offset, size_bytes in crops.select(columns).iter_rows()
    }


def _treatment(row: dict[str, Any]) -> Treatment:
    return Treatment(row["test_id"], drawn_from(row["degradation"]), row["degrade_seed"])


def _images(tasks: Sequence[ApplyTask]) -> int:
    return sum(len(task.treatments) for task in tasks)


def apply_task(task: ApplyTask) -> list[Applied]:
    """Degrade one crop in all its ways; a crop that cannot be read is reported, not raised."""
    try:
        content = read_member(task.tar, task.member)
        image = decode_png(content, where=f"{task.tar}: {task.member.name}")
    except (DataError, OSError) as error:
        return [Applied(item.test_id, None, str(error)) for item in task.treatments]
    return [
        Applied(item.test_id, encode_png(apply_degradation(image, item.drawn, item.seed)))
        for item in task.treatments
    ]


def _members(applied: Iterator[Applied], rejections: Rejections) -> Iterator[tuple[str, bytes]]:
    for item in applied:
        if item.png is None:
            rejections.add(item.test_id, "crop_unreadable", item.problem)
        else:
            yield f"{item.test_id}.png", item.png


def _applied(tasks: Sequence[ApplyTask], workers: int) -> Iterator[Applied]:
    """Degrade images in order, over processes."""
    count = min(workers or usable_cores(), len(tasks))
    with Progress(_images(tasks), "degrade", unit="image") as progress:
        for items in map(apply_task, tasks) if count <= 1 else _in_pool(tasks, count):
            for item in items:
                progress.advance(dropped=0 if item.png is not None else 1)
                yield item


def _in_pool(tasks: Sequence[ApplyTask], count: int) -> Iterator[list[Applied]]:
    """Keep a few crops per worker in flight, so that memory stays small."""
    with worker_pool(count) as executor:
        waiting = iter(tasks)
        running: deque[Future[list[Applied]]] = deque()
        while True:
            for task in islice(waiting, count * _IN_FLIGHT_PER_WORKER - len(running)):
                running.append(executor.submit(apply_task, task))
            if not running:
                return
            yield running.popleft().result()
