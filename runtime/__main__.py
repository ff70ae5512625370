"""`python -m runtime lease | launch`: run a command, or a training, on devices of its own."""

import argparse
import sys
from pathlib import Path

from runtime.cli import Command, run_cli
from runtime.devices import exec_with_lease
from runtime.launch import launch


def _add_lease(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=int, default=1, help="devices to take, all or none")
    parser.add_argument("--jobs-per-gpu", type=int, default=1, help="jobs that may share one")
    parser.add_argument("command", nargs="+", help="the command, after --")


LEASE = Command(
    "lease",
    "take a free GPU, set CUDA_VISIBLE_DEVICES and become the command",
    "example:\n  python -m runtime lease --gpus 1 -- python -m enhancer sample --config "
    "results/demo/config.resolved.json --shard 0",
    _add_lease,
    lambda args: exec_with_lease(args.gpus, args.jobs_per_gpu, args.command),
)


def _add_launch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=int, default=1, help="devices of the whole training")
    parser.add_argument("--nodes", type=int, default=1, help="machines that they are on")
    parser.add_argument(
        "--accelerate-config", type=Path, required=True, help="settings of accelerate launch"
    )
    parser.add_argument("command", nargs="+", help="module and arguments, after --")


LAUNCH = Command(
    "launch",
    "take free GPUs and become a training with one process on each",
    "example:\n  python -m runtime launch --gpus 8 --accelerate-config "
    "workflow/profiles/default/accelerate.yaml -- enhancer train --config "
    "results/demo/config.resolved.json",
    _add_launch,
    lambda args: launch(args.gpus, args.nodes, args.accelerate_config, args.command),
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_cli("runtime", [LEASE, LAUNCH], argv)


if __name__ == "__main__":
    sys.exit(main())
