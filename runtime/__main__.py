"""`python -m runtime lease`: run a command on a device of its own."""

import argparse
import sys

from runtime.cli import Command, run_cli
from runtime.devices import exec_with_lease


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=int, default=1, help="devices to take, all or none")
    parser.add_argument("--jobs-per-gpu", type=int, default=1, help="jobs that may share one")
    parser.add_argument("command", nargs="+", help="the command, after --")


LEASE = Command(
    "lease",
    "take a free GPU, set CUDA_VISIBLE_DEVICES and become the command",
    "example:\n  python -m runtime lease --gpus 1 -- python -m enhancer sample --config "
    "results/demo/config.resolved.json --shard 0",
    _add_arguments,
    lambda args: exec_with_lease(args.gpus, args.jobs_per_gpu, args.command),
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_cli("runtime", [LEASE], argv)


if __name__ == "__main__":
    sys.exit(main())
