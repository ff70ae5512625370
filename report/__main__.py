"""`python -m report`: the page that shows a run, and a picture of its gallery."""

import argparse
import sys
from pathlib import Path

from runtime.cli import Command, add_stage_flags, run_cli

_WRITE_HELP = """example:
  python -m report write --config results/demo/config.resolved.json

reads:
  manifests, tables, metrics and benchmark files of the run, as far as they are there
writes:
  report.html (one file, loads nothing else), report.manifest.json"""

_GALLERY_HELP = """example:
  python -m report gallery --config results/demo/config.resolved.json --out gallery.png

reads:
  crops, samples, plan.parquet and labels.parquet of the run
writes:
  OUT (a PNG)"""


def _write(args: argparse.Namespace) -> None:
    from report.write import write_report
    from runtime.settings import load_run

    write_report(load_run(args.config), replace=args.replace, dry_run=args.dry_run)


def _add_gallery(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="config.resolved.json of a run")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of each label")
    parser.add_argument("--size-px", type=int, default=160, help="side of one image")


def _gallery(args: argparse.Namespace) -> None:
    from report.gallery import write_gallery
    from runtime.settings import load_run

    write_gallery(load_run(args.config), args.out, pairs=args.pairs, size_px=args.size_px)


COMMANDS = [
    Command("write", "write report.html of a run", _WRITE_HELP, add_stage_flags, _write),
    Command("gallery", "draw pairs of each label as one picture", _GALLERY_HELP, _add_gallery,
            _gallery),
]  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_cli("report", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
