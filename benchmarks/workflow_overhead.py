"""What scheduling costs: the paper's plan with every stage replaced by a sleeper.

    python -m benchmarks.workflow_overhead [--shards 1000] [--devices 20] [--mean-s 30]

The real Snakefile and rules run, with leases on pretended devices; each sampling shard sleeps
for its predicted work, compressed so that a shard takes `--mean-s` on average (in truth hours).
Overhead is all the time beyond the best that any scheduler could do with the times that the
sleepers were given. It does not shrink with the work, so its share at full length is smaller
by the compression. Other load on the machine counts as overhead here; `cpu_per_shard_s` is what
Snakemake, leases and shells really used for a shard, all its rules together.
"""

import argparse
import heapq
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from degrade.config import DegradeConfig, PlanConfig
from degrade.plan import balance, draw_reference
from tests.workflow.stand_ins import Call, StandIns, most_at_once, stand_ins
from workflow.predict import EVALUATIONS_PER_STEP, SECONDS_PER_EVALUATION

REFERENCES = 29_868
HOOK = 'case $name in "enhancer sample") sleep "$(cat "durations/$item")" ;; esac'


def shard_work(shards: int, references: int = REFERENCES) -> list[float]:
    """Predicted work of each shard of a plan of the paper's size."""
    plan = PlanConfig(shards=shards, image_init="partial")
    # what an image's degradation is does not change its work; none is drawn, to save minutes
    plan = plan.model_copy(update={"degraded_fraction": 0.0})
    work = {
        name: sum(row["work"] for row in draw_reference(name, 512, plan, DegradeConfig(), 0))
        for name in (f"photo-{number:05}" for number in range(references))
    }
    totals = [0.0] * shards
    for name, shard in balance(work, shards).items():
        totals[shard] += work[name]
    return totals


def best_makespan(durations_s: Iterable[float], devices: int) -> float:
    """Time that `devices` need when each takes the next job at once, the longest jobs first."""
    busy = [0.0] * devices
    for duration_s in sorted(durations_s, reverse=True):
        heapq.heapreplace(busy, busy[0] + duration_s)
    return max(busy)


def simulate(run: StandIns, devices: int) -> float:
    """Run the workflow from nothing to the report; returns the wall time."""
    start_s = time.monotonic()
    done = run.snakemake(
        *("--cores", str(2 * devices), "--resources", f"gpu={devices}", "-q"),
        hook=HOOK,
        timeout_s=24 * 3600,
        DIFFIQA_DEVICES=",".join(map(str, range(devices))),
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return time.monotonic() - start_s


def result(
    calls: Sequence[Call], wall_s: float, durations_s: Sequence[float], devices: int
) -> dict[str, float]:
    begin_s, end_s = min(c.start_s for c in calls), max(c.end_s for c in calls)
    span_s, best_s = end_s - begin_s, best_makespan(durations_s, devices)
    return {
        "shards": len(calls),
        "devices": devices,
        "jobs_at_once": most_at_once(calls),
        "wall_s": round(wall_s, 1),
        "sampling_s": round(span_s, 1),
        "best_sampling_s": round(best_s, 1),
        "sampling_overhead_percent": round(100 * (span_s - best_s) / span_s, 2),
        "outside_sampling_s": round(wall_s - span_s, 1),
        "overhead_percent": round(100 * (wall_s - best_s) / wall_s, 2),
        "overhead_per_shard_s": round((span_s - best_s) * devices / len(calls), 3),
    }


def measure(shards: int, devices: int, mean_s: float) -> dict[str, float]:
    """Simulate the plan with sleepers of `mean_s` on average, and say what was lost."""
    work = shard_work(shards)
    scale = mean_s / (sum(work) / len(work))
    durations_s = [round(value * scale, 3) for value in work]
    with tempfile.TemporaryDirectory() as folder:
        run = stand_ins(Path(folder), shards)
        (run.folder / "durations").mkdir()
        for number, duration_s in enumerate(durations_s):
            (run.folder / f"durations/{number:05}").write_text(f"{duration_s}\n")
        wall_s = simulate(run, devices)
        found = result(run.calls("enhancer sample"), wall_s, durations_s, devices)
    real_s = sum(work) * EVALUATIONS_PER_STEP * SECONDS_PER_EVALUATION / devices
    lost_s = wall_s - found["best_sampling_s"]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        **found,
        "cpu_per_shard_s": round((used.ru_utime + used.ru_stime) / shards, 3),
        "compression": round(real_s / found["best_sampling_s"]),
        "overhead_percent_at_full_length": round(100 * lost_s / (real_s + lost_s), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--mean-s", type=float, default=30.0, help="mean time of a sleeper")
    args = parser.parse_args()
    print(json.dumps(measure(args.shards, args.devices, args.mean_s), indent=2))
    print("load average", [round(load, 1) for load in os.getloadavg()])


if __name__ == "__main__":
    main()
