"""`python -m degrade`: the plan, the degraded inputs, and a preview of a preset."""

import argparse
import sys
from pathlib import Path

from runtime.cli import Command, add_stage_flags, run_cli


def _plan(arguments: argparse.Namespace) -> None:
    from degrade.plan import run_plan

    run_plan(
        arguments.config,
        limit=arguments.limit,
        dry_run=arguments.dry_run,
        replace=arguments.replace,
    )


def _apply(arguments: argparse.Namespace) -> None:
    from degrade.apply import run_apply

    run_apply(
        arguments.config,
        arguments.shard,
        limit=arguments.limit,
        dry_run=arguments.dry_run,
        replace=arguments.replace,
    )


def _preview(arguments: argparse.Namespace) -> None:
    from degrade.preview import write_preview

    write_preview(arguments.photo, arguments.preset, arguments.out, seed=arguments.seed)


def _add_preview_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="any photograph that crop reads")
    parser.add_argument("--preset", default="diffiqa-released", help="name of a preset")
    parser.add_argument("--out", type=Path, required=True, help="the sheet, a PNG file")
    parser.add_argument("--seed", type=int, default=0, help="seed of the examples")


PLAN = Command(
    "plan",
    "draw every parameter of every test image",
    "example:\n  python -m degrade plan --config results/demo/config.resolved.json\n\n"
    "reads, below results/<run>/: crops/crops.parquet; writes plan.parquet and, last, "
    "plan.manifest.json",
    add_stage_flags,
    _plan,
)
APPLY = Command(
    "apply",
    "degrade the inputs of one shard of the plan",
    "example:\n  python -m degrade apply --config results/demo/config.resolved.json --shard 0\n\n"
    "reads, below results/<run>/: plan.parquet, crops/; writes degraded/degraded-00000.tar, "
    "degraded/metrics/00000.jsonl\nand, last, degraded/degraded-00000.json",
    lambda parser: add_stage_flags(parser, has_shards=True),
    _apply,
)
PREVIEW = Command(
    "preview",
    "draw a labelled sheet of what a preset does to a photograph",
    "example:\n  python -m degrade preview photo.jpg --preset diffiqa --out sheet.png\n\n"
    "reads the photograph; writes the sheet",
    _add_preview_flags,
    _preview,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_cli("degrade", [PLAN, APPLY, PREVIEW], argv)


if __name__ == "__main__":
    sys.exit(main())
