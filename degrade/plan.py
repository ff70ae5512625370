"""`python -m degrade plan`: every drawn parameter of every test image, before anything is made.

Reads `crops/crops.parquet`. Writes `plan.parquet`, one row per test image, and, last,
`plan.manifest.json` (paper Sec. 3.1 and appendix 1.2; draws of the release's inference script).

A reference's rows depend on the run's seed, the settings and its crop_id alone. Only the shard,
which balances the predicted work, looks at all references.
"""

import heapq
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from degrade.config import PLAN, DegradeConfig, PlanConfig
from degrade.drawn import draw_degradation, drawn_values
from runtime.errors import DataError
from runtime.seeds import item_seed, rng
from runtime.settings import load_run
from runtime.stage import open_stage
from runtime.tables import read_table, table_of, write_table

_log = logging.getLogger(__name__)
_LATENT_SCALE = 8  # pixels of a latent's pixel
_TILE, _OVERLAP = 64, 8  # the release's tiles, in latent pixels
_LAST_TIMESTEP = 999  # of 1000 training timesteps, counted from 0

_BLUR = pl.Struct(
    {
        "kernel": pl.String, "size_px": pl.Int32, "sigma_x_px": pl.Float64,
        "sigma_y_px": pl.Float64, "rotation_rad": pl.Float64, "beta": pl.Float64,
        "cutoff_rad": pl.Float64,
    }
)  # fmt: skip
_STAGE = pl.Struct(
    {
        "blur": _BLUR,
        "resize": pl.Struct(
            {
                "direction": pl.String, "factor": pl.Float64, "mode": pl.String,
                "of_input": pl.Float64,
            }
        ),
        "noise": pl.Struct({"kind": pl.String, "level": pl.Float64, "is_grey": pl.Boolean}),
        "jpeg_quality": pl.Float64,
    }
)  # fmt: skip
_DEGRADATION = pl.Struct(
    {
        "stages": pl.List(_STAGE),
        "final": pl.Struct(
            {
                "order": pl.String, "shrink": pl.Float64, "mode": pl.String, "sinc": _BLUR,
                "jpeg_quality": pl.Float64,
            }
        ),
        "back_mode": pl.String,
        "jpeg_codec": pl.String,
    }
)  # fmt: skip
PLAN_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "test_id": pl.String, "crop_id": pl.String, "k": pl.Int32, "shard": pl.Int32,
    "seed": pl.Int64, "is_degraded": pl.Boolean, "degrade_seed": pl.Int64,
    "degradation": _DEGRADATION, "init": pl.String, "steps": pl.Int32, "level": pl.Int32,
    "upscale": pl.Float64, "guidance": pl.Float64, "conditioning_scale": pl.Float64,
    "prompt": pl.String, "negative_prompt": pl.String, "color_fix": pl.String,
    "work": pl.Float64,
}  # fmt: skip


def run_plan(
    config_path: Path, *, limit: int | None = None, dry_run: bool = False, replace: bool = False
) -> None:
    """Draw the plan of a run.

    Args:
        config_path: the run's config.resolved.json.
        limit: draw so many references only, say what they need, and write nothing.
        dry_run: draw everything, say what it needs, and write nothing.
        replace: discard a plan made with other settings.
    Raises:
        DataError: crops.parquet is missing or empty.
    """
    run = load_run(config_path)
    config = run.section("plan", PlanConfig)
    degrade = run.section("degrade", DegradeConfig)
    path = run.root / "crops" / "crops.parquet"
    if dry_run or limit is not None:
        _report(make_plan(_read_crops(path)[:limit], config, degrade, run.seed, shards=1))
        return
    stage = open_stage(
        PLAN,
        run,
        manifest=run.root / "plan.manifest.json",
        state=run.root / ".plan.state",
        inputs=[path],
        replace=replace,
    )
    if stage.is_complete:
        return
    plan = make_plan(_read_crops(path), config, degrade, run.seed, shards=config.shards)
    write_table(run.root / "plan.parquet", plan)
    _report(plan)
    stage.finish(counts=_counts(plan), files=[run.root / "plan.parquet"])
    stage.clear_state()


def _read_crops(path: Path) -> list[tuple[str, int]]:
    table = read_table(path, columns=["crop_id", "size_px"], what="crops table")
    if table.is_empty():
        raise DataError(f"{path}: no crop in it; run 'python -m crop run' with other thresholds")
    return list(zip(table["crop_id"].to_list(), table["size_px"].to_list(), strict=True))


def make_plan(
    crops: Sequence[tuple[str, int]],
    config: PlanConfig,
    degrade: DegradeConfig,
    run_seed: int,
    *,
    shards: int,
) -> pl.DataFrame:
    """Draw the rows of all references and share them out.

    Args:
        crops: (crop_id, side in pixels) of each reference.
        config: section `plan`.
        degrade: section `degrade`.
        run_seed: seed of the run.
        shards: number of shards.
    Returns:
        The table of PLAN_SCHEMA, sorted by test_id.
    """
    if shards > len(crops):
        _log.warning(
            "plan.shards is %d, but there are %d references: %d shards stay empty",
            shards, len(crops), shards - len(crops),
        )  # fmt: skip
    rows: list[dict[str, Any]] = []
    work: dict[str, float] = {}
    for crop_id, size_px in crops:
        drawn = draw_reference(crop_id, size_px, config, degrade, run_seed)
        work[crop_id] = sum(row["work"] for row in drawn)
        rows += drawn
    shard_of = balance(work, shards)
    table = table_of(({**row, "shard": shard_of[row["crop_id"]]} for row in rows), PLAN_SCHEMA)
    return table.sort("test_id")


def draw_reference(
    crop_id: str, size_px: int, config: PlanConfig, degrade: DegradeConfig, run_seed: int
) -> list[dict[str, Any]]:
    """Draw the test images of one reference, without their shard."""
    rows = []
    for k in range(1, config.per_reference + 1):
        test_id = f"{crop_id}_{k:02}"
        generator = rng(run_seed, "degrade.plan", test_id)
        is_degraded = bool(generator.random() < config.degraded_fraction)
        degrade_seed = item_seed(run_seed, "degrade.apply", test_id)
        drawn = draw_degradation(degrade.parameters, degrade_seed) if is_degraded else None
        is_upscaled = bool(generator.random() < config.upscale_probability)
        upscale = config.upscale_factor if is_upscaled else 1.0
        init, steps, level = _draw_start(config, generator)
        rows.append(
            {
                "test_id": test_id,
                "crop_id": crop_id,
                "k": k,
                "seed": item_seed(run_seed, "enhancer.sample", test_id),
                "is_degraded": is_degraded,
                "degrade_seed": degrade_seed,
                "degradation": None if drawn is None else drawn_values(drawn),
                "init": init,
                "steps": steps,
                "level": level,
                "upscale": upscale,
                "guidance": config.guidance,
                "conditioning_scale": config.conditioning_scale,
                "prompt": config.prompt,
                "negative_prompt": config.negative_prompt,
                "color_fix": config.color_fix,
                "work": predicted_work(size_px * upscale, steps_made(init, steps, level)),
            }
        )
    return rows


def _draw_start(config: PlanConfig, generator: np.random.Generator) -> tuple[str, int, int | None]:
    """Draw (init, steps, level): what the denoising starts from and how long it takes."""
    is_noise = bool(generator.random() < config.noise_fraction)
    steps = int(generator.integers(config.steps_min, config.steps_max + 1))
    level = int(generator.integers(config.level_min, config.level_max + 1))
    if is_noise:
        return "noise", steps, None
    if config.image_init == "released":
        return "released", max(level, 1), level
    return "partial", steps, level


def steps_made(init: str, steps: int, level: int | None) -> int:
    """Solver steps that are made: those planned, but none repeats a timestep.

    A partial start leaves the timesteps from 1 to its level, all others those from 1 to 999.
    """
    return min(steps, level if init == "partial" and level is not None else _LAST_TIMESTEP)


def predicted_work(side_px: float, steps: int) -> float:
    """Denoising cost in steps of one 64 x 64 latent (512 px).

    Larger latents are denoised in overlapping tiles, as in the release.
    """
    side = math.ceil(side_px / _LATENT_SCALE)
    if side <= _TILE:
        return steps * (side / _TILE) ** 2
    tiles = math.ceil((side - _OVERLAP) / (_TILE - _OVERLAP))
    return float(steps * tiles**2)


def balance(work: dict[str, float], shards: int) -> dict[str, int]:
    """Share references out to shards, the longest first, each to the shard with least work."""
    loads = [(0.0, 0, shard) for shard in range(shards)]
    found: dict[str, int] = {}
    for crop_id in sorted(work, key=lambda name: (-work[name], name)):
        load, count, shard = heapq.heappop(loads)
        found[crop_id] = shard
        heapq.heappush(loads, (load + work[crop_id], count + 1, shard))
    return found


def _counts(plan: pl.DataFrame) -> dict[str, Any]:
    return {
        "references": plan["crop_id"].n_unique(),
        "test_images": plan.height,
        "degraded": int(plan["is_degraded"].sum()),
        "init": dict(sorted(plan["init"].value_counts().iter_rows())),
        "denoising_steps": int(plan["steps"].sum()),
        "work": round(float(plan["work"].sum()), 3),
        "shards": plan["shard"].n_unique(),
    }


def _report(plan: pl.DataFrame) -> None:
    by_shard = plan.group_by("shard").agg(pl.col("work").sum())["work"]
    _log.info(
        "plan: %s; work of a shard %.6g to %.6g", _counts(plan), by_shard.min(), by_shard.max()
    )
