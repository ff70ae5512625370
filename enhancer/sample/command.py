"""`python -m enhancer sample`: the command line of the sampling stage."""

import argparse
import logging

from enhancer.sample.config import SampleConfig
from runtime.cli import Command, add_stage_flags
from runtime.settings import RunSettings, load_run

_log = logging.getLogger(__name__)
_EXAMPLE = """example:
  python -m enhancer sample --config results/demo/config.resolved.json --shard 0

reads plan.parquet, crops/, degraded/degraded-<shard>.tar, base/ (or enhancer.base_model),
enhancer/; writes samples/samples-<shard>.tar, samples/samples-<shard>.json,
samples/metrics/<shard>.jsonl. Interrupted work is in samples/.state/<shard>. With --dry-run:
checks the inputs and predicts the cost of the shard and of the whole plan."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stage_flags(parser, has_shards=True)


def _run(args: argparse.Namespace) -> None:
    # torch is loaded only when there is something to do
    from enhancer.sample.accounting import Meter, cost_of, measured_rate, prediction_lines
    from enhancer.sample.planned import read_plan
    from enhancer.sample.stage import run_shard, shard_rows, tiling_of

    run = load_run(args.config)
    settings = run.section("enhancer.sample", SampleConfig)
    rows = shard_rows(run, args.shard)
    if args.dry_run:
        tiling = tiling_of(settings)
        shard = cost_of(run.root, rows, tiling)
        plan = cost_of(run.root, read_plan(run.root), tiling)
        rate = settings.seconds_per_evaluation or measured_rate(run.root)
        parts = [(f"shard {args.shard}", shard), ("whole plan", plan)]
        for line in [*prediction_lines(parts, rate), *_missing_inputs(run, args.shard)]:
            _log.info("%s", line)
        return
    meter = Meter(
        run.root / f"samples/metrics/{args.shard:05}.jsonl",
        args.shard,
        peak_tflops=settings.device_peak_tflops,
    )
    run_shard(run, args.shard, meter, replace=args.replace, limit=args.limit)


def _missing_inputs(run: RunSettings, shard: int) -> list[str]:
    from enhancer.sample.stage import input_files

    return [
        f"not there yet: {path.relative_to(run.root)}"
        for path in input_files(run, shard)
        if not path.is_file()
    ]


SAMPLE_COMMAND = Command(
    "sample",
    "denoise the planned images of one shard",
    _EXAMPLE,
    _add_arguments,
    _run,
)
