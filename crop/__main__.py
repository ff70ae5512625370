"""`python -m crop`: photographs to crops."""

import argparse
import sys

from runtime.cli import Command, add_stage_flags, run_cli


def _run(arguments: argparse.Namespace) -> None:
    from crop.stage import run_crop

    run_crop(
        arguments.config,
        limit=arguments.limit,
        dry_run=arguments.dry_run,
        replace=arguments.replace,
    )


RUN = Command(
    "run",
    "cut photographs into crops, with a reason for every rejection",
    "example:\n  python -m crop run --config results/demo/config.resolved.json\n\n"
    "reads the folders of `sources`; writes, below results/<run>/crops/: crops.parquet, "
    "rejected.parquet,\nduplicates.parquet, crops-00000.tar ..., listing.json, metrics.jsonl and, "
    "last, manifest.json",
    add_stage_flags,
    _run,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_cli("crop", [RUN], argv)


if __name__ == "__main__":
    sys.exit(main())
