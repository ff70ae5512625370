"""How long the steps of a run took, and what they used.

From the benchmark files that Snakemake writes for each job (`benchmarks/<rule>[-<item>].tsv`;
a run made by hand has none, and the report says so) and from what sampling measured of itself.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from report.present import present_files
from runtime.metrics import read_metrics
from runtime.settings import RunSettings

# rules that ask for devices, and the configuration key that says how many
_DEVICE_RULES = {
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
        has_all_attempts: the device-hours are of every attempt, not of each job's last.
    """

    rule: str
    jobs: int = 0
    wall_s: float = 0.0
    longest_s: float = 0.0
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    device_hours: float = 0.0
    has_all_attempts: bool = False


def timings(run: RunSettings, sampled: "Sampling | None" = None) -> list[Timing]:
    """Sum the benchmark files of a run by rule, longest first.

    Snakemake keeps the last attempt of each job only; sampling's device-hours are its own.
    """
    found: dict[str, Timing] = {}
    for path in present_files(run, "benchmarks/*.tsv"):
        rule = path.stem.partition("-")[0]
        with open(path, encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle, delimiter="\t"):
                _add(found.setdefault(rule, Timing(rule)), row, _devices(rule, run.values))
    if sampled is not None and "enhancer_sample" in found:
        found["enhancer_sample"].device_hours = sampled.device_hours
        found["enhancer_sample"].has_all_attempts = True
    return sorted(found.values(), key=lambda timing: -timing.wall_s)


Attempt = list[Mapping[str, Any]]


def sampling_attempts(run: RunSettings) -> list[Attempt]:
    """Read what the sampling shards wrote of themselves: the rows of each attempt, start first.

    A shard's file keeps the rows of earlier settings; the start of an attempt names the work
    that it is of, and what is not of the last one's work is left out.
    """
    found: list[Attempt] = []
    for path in present_files(run, "samples/metrics/*.jsonl"):
        attempts: list[Attempt] = []
        for row in read_metrics(path):
            if row.get("event") == "start":
                attempts.append([])
            if attempts:
                attempts[-1].append(row)
        found += [one for one in attempts if one[0].get("work") == attempts[-1][0].get("work")]
    return found


def sampling_devices(attempts: Iterable[Attempt]) -> list[str]:
    """Names of the devices that images were sampled on."""
    return sorted({str(one[0]["device"]) for one in attempts if one[0].get("device")})


@dataclass(frozen=True)
class Sampling:
    """What the sampling shards measured of themselves, over all attempts.

    Attributes:
        images: finished images, without those that failed.
        failed: images that failed.
        attempts: how often a shard was begun or gone on with.
        cut_short: attempts without a summary, as after a kill; they count up to their last row.
        steps: denoising steps of one image.
        device_hours: wall-clock hours of all attempts, one device each, without loading models.
        images_per_s: images a second of one device.
        steps_per_s: steps a second of one device.
        occupancy: share of the slots of all network calls that held an image.
        flops_per_s: useful floating-point operations a second, 0 if not known.
        peak_share: their share of the device's measured peak, None if not measured.
    """

    images: int
    failed: int
    attempts: int
    cut_short: int
    steps: int
    device_hours: float
    images_per_s: float
    steps_per_s: float
    occupancy: float
    flops_per_s: float
    peak_share: float | None


def sampling(attempts: Sequence[Attempt]) -> Sampling | None:
    """Sum the last row of each attempt: its summary, or its progress if it was killed.

    Returns:
        None while nothing was measured.
    """
    rows = [one[-1] for one in attempts if _number(one[-1].get("elapsed_s")) > 0]
    if not rows:
        return None
    through, failed, steps, seconds = (
        sum(_number(row.get(name)) for row in rows)
        for name in ("images", "failed", "steps", "elapsed_s")
    )
    images = through - failed
    offered = sum(_number(r.get("steps")) / max(_number(r.get("occupancy")), 1e-9) for r in rows)
    work = sum(_number(row.get("flops_per_s")) * _number(row["elapsed_s"]) for row in rows)
    peaks = [(_number(r.get("peak_flops_per_s")), _number(r["elapsed_s"])) for r in rows]
    possible = sum(peak * elapsed_s for peak, elapsed_s in peaks)
    return Sampling(
        images=round(images),
        failed=round(failed),
        attempts=len(attempts),
        cut_short=sum(one[-1].get("event") != "summary" for one in attempts),
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
