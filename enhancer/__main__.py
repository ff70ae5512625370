"""`python -m enhancer base|train|sample`: base model, training, sampling."""

import argparse
import sys

from enhancer.sample.command import SAMPLE_COMMAND
from runtime.cli import Command, add_stage_flags, run_cli
from runtime.settings import load_run

_EXAMPLE = (
    "example:\n  python -m enhancer {verb} --config results/demo/config.resolved.json{more}\n"
)


def _base(arguments: argparse.Namespace) -> None:
    from enhancer.base.stage import run_base

    run_base(load_run(arguments.config), replace=arguments.replace, dry_run=arguments.dry_run)


def _train(arguments: argparse.Namespace) -> None:
    from enhancer.train.stage import run_train

    run_train(
        load_run(arguments.config),
        limit=arguments.limit,
        replace=arguments.replace,
        dry_run=arguments.dry_run,
    )


COMMANDS = [
    Command(
        "base",
        "train a small base model on the run's crops, where no pretrained one is named",
        _EXAMPLE.format(verb="base", more="") + "reads:  crops/crops.parquet, crops/crops-*.tar\n"
        "writes: base/ (diffusers layout), base/metrics.jsonl, base/manifest.json",
        add_stage_flags,
        _base,
    ),
    Command(
        "train",
        "train ControlNet, conditioning net and PACA (also under `accelerate launch -m`)",
        _EXAMPLE.format(verb="train", more="")
        + "reads:  crops/ or enhancer.train.sources, base/ or enhancer.base_model\n"
        "writes: enhancer/unet/, enhancer/controlnet/, enhancer/metrics.jsonl, "
        "enhancer/manifest.json",
        add_stage_flags,
        _train,
    ),
    SAMPLE_COMMAND,
]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_cli("enhancer", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
