"""How long a shard's job will take, from the work that the plan predicts; asked by the rules.

A cluster wants to know before a job starts. The plan counts work in denoising steps of one
64 x 64 latent; with guidance a step is two network evaluations.
"""

import math
from functools import lru_cache
from pathlib import Path

from runtime.errors import PipelineError
from workflow.config import RunConfig

EVALUATIONS_PER_STEP = 2  # with and without the prompt
SECONDS_PER_EVALUATION = 0.1  # the paper's V100s (PAPER_SECONDS_PER_EVALUATION), rounded up
SECONDS_PER_DEGRADED_IMAGE = 3.0
_MARGIN = 1.5
_START_MINUTES = 15  # a cold start: imports and weights from a network disk, compilation
_UNKNOWN_MINUTES = 240


def sample_minutes(config: RunConfig, plan: Path, shard: int) -> int:
    """Minutes that one device needs for a sampling shard, with a margin.

    Raises:
        FileNotFoundError: there is no plan yet; Snakemake asks again once there is.
    """
    rate_s = config.enhancer.sample.seconds_per_evaluation or SECONDS_PER_EVALUATION
    rate_s *= config.enhancer.sample.jobs_per_gpu
    work, _ = _shard_totals(plan).get(shard, (math.nan, 0))
    return _minutes(work * EVALUATIONS_PER_STEP * rate_s)


def degrade_minutes(plan: Path, shard: int) -> int:
    """Minutes that one core needs to degrade a shard's inputs, with a margin.

    Raises:
        FileNotFoundError: there is no plan yet; Snakemake asks again once there is.
    """
    _, degraded = _shard_totals(plan).get(shard, (0.0, math.nan))
    return _minutes(degraded * SECONDS_PER_DEGRADED_IMAGE)


def _minutes(seconds: float) -> int:
    if math.isnan(seconds):
        return _UNKNOWN_MINUTES
    return _START_MINUTES + math.ceil(_MARGIN * seconds / 60)


def _shard_totals(plan: Path) -> dict[int, tuple[float, float]]:
    """Work and number of degraded images of each shard; nothing if the plan is unreadable."""
    return _read_totals(plan, plan.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read_totals(plan: Path, changed_ns: int) -> dict[int, tuple[float, float]]:
    import polars as pl  # here, because every cluster job reads the Snakefile twice

    from runtime.tables import read_table

    try:
        table = read_table(plan, columns=("shard", "work", "is_degraded"), what="plan")
    except PipelineError:
        return {}  # the job itself will say what is wrong with it
    totals = table.group_by("shard").agg(pl.col("work").sum(), pl.col("is_degraded").sum())
    return {shard: (work, float(degraded)) for shard, work, degraded in totals.iter_rows()}
