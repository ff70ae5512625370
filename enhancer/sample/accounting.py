"""What sampling costs: rates and occupancy while it runs, and a prediction before it starts.

Written to `samples/metrics/{shard}.jsonl`. A network evaluation is one ControlNet + UNet pass
over one latent tile with one prompt; an image takes steps x tiles x prompt halves of them.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from enhancer.sample.config import PAPER_SECONDS_PER_EVALUATION
from enhancer.sample.planned import distinct_steps, evaluations, planned_crops, solver_level
from enhancer.sample.tiles import Tiling
from runtime.atomic import read_json
from runtime.metrics import MetricsLog, read_metrics
from runtime.progress import Progress

_EVERY_S = 30.0


@dataclass(frozen=True)
class Cost:
    """Predicted work of some planned images.

    Attributes:
        images: how many.
        steps: solver steps of all of them.
        evaluations: network evaluations of all of them.
    """

    images: int
    steps: int
    evaluations: int


def cost_of(root: Path, plan: pl.DataFrame, tiling: Tiling) -> Cost:
    """Add up the work of planned images, from the plan and the crops' sizes alone."""
    crops = planned_crops(root, plan)
    columns = ("crop_id", "init", "steps", "level", "upscale", "guidance")
    steps = calls = 0
    for row in plan.select(columns).iter_rows(named=True):
        steps += distinct_steps(row["steps"], solver_level(row))
        calls += evaluations(row, crops[row["crop_id"]]["size_px"], tiling)
    return Cost(plan.height, steps, calls)


def measured_rate(root: Path) -> float | None:
    """Seconds per network evaluation of the latest finished run of a shard, if there is one."""
    rows = [
        row
        for path in sorted((root / "samples/metrics").glob("*.jsonl"))
        for row in read_metrics(path)
        if row.get("event") == "summary" and row.get("seconds_per_evaluation")
    ]
    if not rows:
        return None
    return float(max(rows, key=lambda row: float(row["time_s"]))["seconds_per_evaluation"])


def prediction_lines(costs: Iterable[tuple[str, Cost]], rate: float | None) -> list[str]:
    """Word a prediction: images, steps, evaluations and device-hours of each part.

    Args:
        costs: parts by name.
        rate: seconds per network evaluation; None: not known, the paper's is taken.
    """
    lines = []
    seconds = rate or PAPER_SECONDS_PER_EVALUATION
    for name, cost in costs:
        hours = cost.evaluations * seconds / 3600
        lines.append(
            f"{name}: {cost.images:,} images, {cost.steps:,} denoising steps, "
            f"{cost.evaluations:,} network evaluations, "
            f"{hours:,.2f} device-hours at {seconds:.3g} s an evaluation"
        )
    if rate is None:
        lines.append(
            "that is the rate of the paper's V100s; for your device's set "
            "enhancer.sample.seconds_per_evaluation, or run one shard first"
        )
    return lines


class Meter:
    """Counts steps, evaluations and images of one run of a shard.

    Args:
        path: metrics file.
        shard: number of the shard.
        peak_tflops: peak rate of the device; None: a matrix product is timed on a GPU.
    """

    def __init__(self, path: Path, shard: int, *, peak_tflops: float | None) -> None:
        self._log, self._shard = MetricsLog(path), shard
        # what the stage's state is of: tells this work's rows from those of other settings
        self._record = path.parents[1] / f".state/{path.stem}/run.json"
        self._peak_flops = peak_tflops * 1e12 if peak_tflops else None
        self._total_evaluations = 0
        self._flops_per_evaluation = 0
        self._images = self._failed = self._steps = self._slot_steps = self._evaluations = 0
        self._useful_flops = self._slots = 0
        self._progress: Progress | None = None

    def started(
        self, total: int, done: int, left: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Begin to measure; `left` evaluations are to be made."""
        self._total_evaluations = left
        if self._peak_flops is None and device.type == "cuda":
            self._peak_flops = matmul_rate(device, dtype)
        self._progress = Progress(total, f"sample shard {self._shard}", unit="image", done=done)
        self._start_s = self._line_s = time.monotonic()
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        work = read_json(self._record)["fingerprint"]
        self._log.write(
            event="start", shard=self._shard, device=name, dtype=str(dtype), work=work,
            images=total, done=done,
        )  # fmt: skip

    def counted(self, flops: int) -> None:
        """Take note of the operations of one evaluation at the present latent size."""
        self._flops_per_evaluation = flops

    def stepped(self, active: int, slots: int, evaluations: int) -> None:
        """Count one step of the slots."""
        self._steps += active
        self._slot_steps += slots
        self._slots = slots
        self._evaluations += evaluations
        self._useful_flops += evaluations * self._flops_per_evaluation
        if time.monotonic() - self._line_s >= _EVERY_S:
            self._line_s = time.monotonic()
            self._log.write(event="progress", **self.rates())

    def imaged(self, count: int, failed: int) -> None:
        """Count images that are through."""
        self._images += count
        self._failed += failed
        if self._progress is not None:
            note = f"{self.rates()['occupancy']:.0%} of slots busy"
            self._progress.advance(count, dropped=failed, note=note)

    def closed(self) -> None:
        """Write the summary."""
        if self._progress is not None:
            self._progress.close()
            self._log.write(event="summary", **self.rates())

    def rates(self) -> dict[str, Any]:
        """What was measured since the start."""
        elapsed_s = max(time.monotonic() - self._start_s, 1e-9)
        flops_per_s = self._useful_flops / elapsed_s
        per_evaluation = elapsed_s / self._evaluations if self._evaluations else None
        left = max(0, self._total_evaluations - self._evaluations)
        return {
            "shard": self._shard,
            "elapsed_s": round(elapsed_s, 3),
            "images": self._images,
            "failed": self._failed,
            "steps": self._steps,
            "evaluations": self._evaluations,
            "images_per_s": self._images / elapsed_s,
            "steps_per_s": self._steps / elapsed_s,
            "seconds_per_evaluation": per_evaluation,
            "slots": self._slots,
            "occupancy": self._steps / max(1, self._slot_steps),
            "flops_per_s": flops_per_s,
            "peak_flops_per_s": self._peak_flops,
            "peak_share": flops_per_s / self._peak_flops if self._peak_flops else None,
            "device_hours": elapsed_s / 3600,
            "eta_s": None if per_evaluation is None else round(left * per_evaluation, 1),
        }


def matmul_rate(device: torch.device, dtype: torch.dtype, *, side: int = 8192) -> float:
    """Time a large matrix product; returns floating-point operations per second."""
    left = torch.randn((side, side), device=device).to(dtype)
    for _ in range(3):
        torch.mm(left, left)
    _synchronize(device)
    repeats = 10
    best = 0.0
    for _ in range(5):  # the best, since other jobs may use the device as well
        start_s = time.perf_counter()
        for _ in range(repeats):
            torch.mm(left, left)
        _synchronize(device)
        best = max(best, 2 * side**3 * repeats / (time.perf_counter() - start_s))
    return best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
