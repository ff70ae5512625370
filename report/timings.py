"""How long the steps of a run took, and what they used.

From the benchmark files that Snakemake writes for each job (`benchmarks/<rule>[-<item>].tsv`);
a run made by hand has none, and the report says so.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from report.present import present_files
from runtime.metrics import read_metrics
from runtime.settings import RunSettings

# rules that ask for devices, and the configuration key that says how many
_DEVICE_RULES = {
    "enhancer_base": "",
    "enhancer_train": "enhancer_train_gpus",
    "enhancer_sample": "",
    "afine_train": "afine_train_gpus",
    "afine_evaluate": "",
}


@dataclass
class Timing:
    """One rule over all of its jobs.

    Attributes:
        rule: name of the rule.
        jobs: number of jobs.
        wall_s: their wall-clock times, summed, in seconds.
        longest_s: the longest of them.
        cpu_s: their processor times, summed, in seconds.
        memory_mb: the largest resident memory of a job.
        device_hours: wall-clock hours times devices, for rules that ask for devices.
    """

    rule: str
    jobs: int = 0
    wall_s: float = 0.0
    longest_s: float = 0.0
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    device_hours: float = 0.0


def timings(run: RunSettings) -> list[Timing]:
    """Sum the benchmark files of a run by rule, longest first."""
    found: dict[str, Timing] = {}
    for path in present_files(run, "benchmarks/*.tsv"):
        rule = path.stem.partition("-")[0]
        with open(path, encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle, delimiter="\t"):
                _add(found.setdefault(rule, Timing(rule)), row, _devices(rule, run.values))
    return sorted(found.values(), key=lambda timing: -timing.wall_s)


def sampling_rows(run: RunSettings) -> list[Mapping[str, Any]]:
    """Read what the sampling shards wrote of themselves."""
    paths = present_files(run, "samples/metrics/*.jsonl")
    return [row for path in paths for row in read_metrics(path)]


def sampling_devices(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the devices that images were sampled on."""
    return sorted({str(row["device"]) for row in rows if row.get("device")})


@dataclass(frozen=True)
class Sampling:
    """What the sampling shards measured of themselves, over all of their runs.

    Attributes:
        images: finished images.
        steps: denoising steps of one image.
        device_hours: wall-clock hours of all runs, one device each.
        images_per_s: images a second of one device.
        steps_per_s: steps a second of one device.
        occupancy: share of the slots of all network calls that held an image.
        flops_per_s: useful floating-point operations a second, 0 if not known.
        peak_share: their share of the device's measured peak, None if not measured.
    """

    images: int
    steps: int
    device_hours: float
    images_per_s: float
    steps_per_s: float
    occupancy: float
    flops_per_s: float
    peak_share: float | None


def sampling(written: Iterable[Mapping[str, Any]]) -> Sampling | None:
    """Sum what `enhancer sample` wrote at the end of each run of a shard; None before the first."""
    rows = [
        row
        for row in written
        if row.get("event") == "summary" and _number(row.get("elapsed_s")) > 0
    ]
    if not rows:
        return None
    images, steps, seconds = (
        sum(_number(row.get(name)) for row in rows) for name in ("images", "steps", "elapsed_s")
    )
    offered = sum(_number(r.get("steps")) / max(_number(r.get("occupancy")), 1e-9) for r in rows)
    work = sum(_number(row.get("flops_per_s")) * _number(row["elapsed_s"]) for row in rows)
    peaks = [(_number(r.get("peak_flops_per_s")), _number(r["elapsed_s"])) for r in rows]
    possible = sum(peak * elapsed_s for peak, elapsed_s in peaks)
    return Sampling(
        images=round(images),
        steps=round(steps),
        device_hours=seconds / 3600,
        images_per_s=images / seconds,
        steps_per_s=steps / seconds,
        occupancy=steps / offered if offered else 0.0,
        flops_per_s=work / seconds,
        peak_share=work / possible if all(peak for peak, _ in peaks) else None,
    )


def _add(timing: Timing, row: Mapping[str, Any], devices: int) -> None:
    wall_s = _number(row.get("s"))
    timing.jobs += 1
    timing.wall_s += wall_s
    timing.longest_s = max(timing.longest_s, wall_s)
    timing.cpu_s += _number(row.get("cpu_time"))
    timing.memory_mb = max(timing.memory_mb, _number(row.get("max_rss")))
    timing.device_hours += wall_s * devices / 3600


def _devices(rule: str, config: Mapping[str, Any]) -> int:
    if rule not in _DEVICE_RULES:
        return 0
    return int(config.get("scheduling", {}).get(_DEVICE_RULES[rule], 1))


def _number(text: Any) -> float:
    """Read a number; Snakemake writes "-" or "NA" for what it could not measure."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return 0.0


def duration(seconds: float) -> str:
    """Write a duration as a person would: 48 s; 3 min 05 s; 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
