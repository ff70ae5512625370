"""Degradation at 512 px: images a second of ours, of the basicsr-built reference, and of apply.

Run: python -m benchmarks.degrade [--images 40]. Ratios are of CPU seconds, one thread each, with
the contenders interleaved, so that other load on the machine cancels; the two-process ratio is of
wall time of whole commands and needs two idle cores.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from degrade import degrade_image  # noqa: E402
from degrade.apply import ApplyTask, apply_task, read_tasks  # noqa: E402
from degrade.plan import run_plan  # noqa: E402
from runtime.images import decode_png, encode_png  # noqa: E402
from runtime.processes import worker_pool  # noqa: E402
from runtime.settings import load_run  # noqa: E402
from runtime.tables import write_table  # noqa: E402
from runtime.tars import write_tar  # noqa: E402
from tests.degrade.basicsr_reference import BasicsrReference  # noqa: E402
from tests.degrade.degrade_statistics import photographs  # noqa: E402

REPEATS = 3
REFERENCE, WITH_FILES = "reference", "reference, PNG in and out"
FUNCTION, APPLY = "degrade_image", "degrade apply, PNG in and out"


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def seconds_of_apply(task: ApplyTask) -> float:
    """CPU seconds an image, in a worker as `degrade apply` has them."""
    return cpu_seconds(lambda: apply_task(task)) / len(task.treatments)


def write_run(folder: Path, images: list[np.ndarray], *, per_reference: int) -> Path:
    """A run whose crops are `images`, planned so that every test image is degraded."""
    (folder / "crops").mkdir(parents=True)
    config = folder / "config.resolved.json"
    plan = {"per_reference": per_reference, "degraded_fraction": 1.0}
    config.write_text(json.dumps({"seed": 0, "plan": plan, "degrade": {}}))
    ids = [f"bench-p{index:03}-x0y0" for index in range(len(images))]
    pngs = [encode_png(image) for image in images]
    tar = folder / "crops" / "crops-00000.tar"
    members = write_tar(tar, ((f"{i}.png", png) for i, png in zip(ids, pngs, strict=True)))
    rows = {
        "crop_id": ids, "size_px": [512] * len(ids), "shard": [0] * len(ids),
        "offset": [member.offset for member in members],
        "size_bytes": [member.size_bytes for member in members],
    }  # fmt: skip
    write_table(folder / "crops" / "crops.parquet", pl.DataFrame(rows))
    run_plan(config)
    return config


def compare_cpu(images: list[np.ndarray], config: Path, count: int) -> None:
    reference = BasicsrReference()
    tasks = read_tasks(load_run(config), 0)
    pngs = [encode_png(image) for image in images]

    def reference_with_files(index: int) -> bytes:
        image = decode_png(pngs[index % len(pngs)], where="benchmark")
        return encode_png(reference(image, index))

    with worker_pool(1) as worker:
        contenders: dict[str, Callable[[int], float]] = {
            REFERENCE: lambda i: cpu_seconds(lambda: reference(images[i % len(images)], i)),
            WITH_FILES: lambda i: cpu_seconds(lambda: reference_with_files(i)),
            FUNCTION: lambda i: cpu_seconds(lambda: degrade_image(images[i % len(images)], seed=i)),
            APPLY: lambda i: worker.submit(seconds_of_apply, tasks[i % len(tasks)]).result(),
        }
        for warm in range(12):
            for name in (FUNCTION, APPLY):
                contenders[name](warm)
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for index in range(count):
            spent = [
                {name: work(index) for name, work in contenders.items()} for _ in range(REPEATS)
            ]
            for name, values in seconds.items():
                values.append(min(row[name] for row in spent))
    print(f"{count} images of 512 px, one thread, CPU time, best of {REPEATS} for each image")
    for name, values in seconds.items():
        print(f"  {name:32} {1000 * np.mean(values):7.1f} ms  {1 / np.mean(values):6.1f} images/s")
    for one, two in ((FUNCTION, REFERENCE), (APPLY, REFERENCE), (APPLY, WITH_FILES)):
        print(f"  {one} : {two} = {sum(seconds[two]) / sum(seconds[one]):.2f} (target 5)")


def compare_processes(folder: Path, images: list[np.ndarray]) -> None:
    """Wall time of two shards: one command after the other, and both at once, as Snakemake does.

    The images are the same; `workers: 2`, for a shard by hand, is measured beside them.
    """
    configs = [write_run(folder / name, images * 6, per_reference=12) for name in ("a", "b")]
    seconds: dict[str, list[float]] = {"in turn": [], "at once": [], "workers: 2": []}
    for _ in range(2):
        for way, values in seconds.items():
            for config in configs:
                shutil.rmtree(config.parent / "degraded", ignore_errors=True)
            start = time.perf_counter()
            set_workers(configs, 2 if way == "workers: 2" else 1)
            if way == "at once":
                running = [apply_command(config) for config in configs]
                assert [process.wait() for process in running] == [0, 0]
            else:
                assert [apply_command(config).wait() for config in configs] == [0, 0]
            values.append(time.perf_counter() - start)
    one, two, pool = (min(values) for values in seconds.values())
    print(
        f"two processes : one = {one / two:.2f} (two shards of {72 * len(images)} images, whole "
        f"commands, {one:.1f} s and {two:.1f} s; target 1.8); one shard with workers: 2 : one = "
        f"{one / pool:.2f}"
    )


def set_workers(configs: list[Path], count: int) -> None:
    for config in configs:
        values = json.loads(config.read_text())
        values["degrade"]["workers"] = count
        config.write_text(json.dumps(values))


def apply_command(config: Path) -> "subprocess.Popen[bytes]":
    command = ["-m", "degrade", "apply", "--config", str(config), "--shard", "0"]
    return subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40, help="images of each contender")
    parser.add_argument("--no-processes", action="store_true", help="CPU time only")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    images = photographs()
    with tempfile.TemporaryDirectory() as folder:
        config = write_run(Path(folder) / "run", images, per_reference=3)
        compare_cpu(images, config, arguments.images)
    if not arguments.no_processes:
        with tempfile.TemporaryDirectory() as folder:
            compare_processes(Path(folder), images)


if __name__ == "__main__":
    main()
