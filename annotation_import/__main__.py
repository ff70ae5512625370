"""`python -m annotation_import`: simulate, import, export."""

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

from annotation_import.config import AnnotationsConfig, Layout, TiePolicy
from runtime.cli import Command, add_stage_flags, run_cli
from runtime.errors import ConfigError
from runtime.settings import load_run, parse_section


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    add_stage_flags(parser)


def _simulate(args: argparse.Namespace) -> None:
    from annotation_import.simulate import simulate_in_run

    simulate_in_run(
        load_run(args.config), replace=args.replace, dry_run=args.dry_run, limit=args.limit
    )


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, help="the run's config.resolved.json")
    parser.add_argument("--layout", choices=get_args(Layout), help="layout of --source")
    parser.add_argument("--source", type=Path, help="label tree, .zip, .tar(.gz) or table")
    parser.add_argument("--out", type=Path, help="folder for the tables and report.json")
    parser.add_argument(
        "--tie-policy", choices=get_args(TiePolicy),
        help="no single most frequent answer: drop (default; DiffIQA), similar (HGGT), dawid_skene",
    )  # fmt: skip
    parser.add_argument("--min-votes", type=int, help="fewer votes give no label (default 3)")
    parser.add_argument("--study", help="name of the study (default: the layout)")
    parser.add_argument("--images", help="known images: folder, list of names or Parquet table")
    parser.add_argument(
        "--column", action="append", metavar="OURS=THEIRS", help="table: name of a column"
    )
    parser.add_argument(
        "--label", action="append", metavar="ANSWER=-1|0|1",
        help="table: meaning of an answer (replaces the default map)",
    )  # fmt: skip
    parser.add_argument(
        "--on-duplicate", choices=("reject", "repeat"),
        help="a rater's second vote on a pair: reject it (default), or keep it as a repeat, which "
        "counts for self-agreement only",
    )  # fmt: skip
    parser.add_argument(
        "--slots-are-raters", action="store_true", help="treat slots A, B, C as persons"
    )
    parser.add_argument(
        "--exclude-rater", action="append", metavar="ID", help="leave a rater's votes out"
    )
    parser.add_argument(
        "--max-failure-fraction", type=float,
        help="share of rejected votes that fails the import (default 0.01)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap, without --config")
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    parser.add_argument(
        "--replace", action="store_true", help="discard work made with other settings"
    )


def _import(args: argparse.Namespace) -> None:
    from annotation_import.stage import import_in_run, import_to

    if args.config is not None:
        given = [name for name in ("layout", "source", "out") if getattr(args, name) is not None]
        if given or _options(args):
            raise ConfigError(
                f"--config and --{(given or list(_options(args)))[0].replace('_', '-')}: with "
                "--config everything comes from its 'annotations' section; set it there"
            )
        import_in_run(load_run(args.config), replace=args.replace, dry_run=args.dry_run)
        return
    absent = [name for name in ("layout", "source", "out") if getattr(args, name) is None]
    if absent:
        raise ConfigError(f"--{absent[0]} is missing; give --config, or --layout, --source, --out")
    values = {"source": str(args.source), "layout": args.layout, **_options(args)}
    options = parse_section(AnnotationsConfig, values, where="command line")
    import_to(args.out, args.source, options, seed=args.seed, dry_run=args.dry_run)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of AnnotationsConfig that the command line sets."""
    values: dict[str, Any] = {
        name: getattr(args, name)
        for name in (
            "tie_policy", "min_votes", "study", "images", "on_duplicate", "max_failure_fraction"
        )
        if getattr(args, name) is not None
    }  # fmt: skip
    if args.slots_are_raters:
        values["slots_are_raters"] = True
    if args.exclude_rater:
        values["exclude_raters"] = args.exclude_rater
    table: dict[str, Any] = {}
    if args.column:
        table["columns"] = dict(_assignment("--column", text) for text in args.column)
    if args.label:
        pairs = [_assignment("--label", text) for text in args.label]
        table["labels"] = {answer: _code(answer, code) for answer, code in pairs}
    if table:
        values["table"] = table
    return values


def _assignment(flag: str, text: str) -> tuple[str, str]:
    name, separator, value = text.rpartition("=")
    if not separator or not name or not value:
        raise ConfigError(f"{flag} {text}: expected two parts joined by '='")
    return name, value


def _code(answer: str, code: str) -> int:
    if code not in ("-1", "0", "1"):
        raise ConfigError(
            f"--label {answer}={code}: expected -1 (worse), 0 (similar) or 1 (better)"
        )
    return int(code)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--votes", type=Path, required=True, help="votes.parquet of an import")
    parser.add_argument("--layout", choices=get_args(Layout), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives the layout")
    parser.add_argument(
        "--format", choices=("csv", "jsonl", "parquet"), default="csv", help="of --layout table"
    )


def _export(args: argparse.Namespace) -> None:
    from annotation_import.export import export_votes
    from annotation_import.votes import VOTE_SCHEMA
    from runtime.tables import read_table

    votes = read_table(args.votes, columns=VOTE_SCHEMA, what="votes table")
    scales = args.votes.parent / "scales.parquet"
    if args.out.exists() and any(args.out.iterdir()):
        raise ConfigError(f"{args.out}: not empty; choose a new folder for the exported votes")
    export_votes(
        votes,
        args.out,
        args.layout,
        table_format=args.format,
        scales=read_table(scales) if scales.is_file() else None,
    )


COMMANDS = [
    Command(
        "simulate",
        "simulated raters judge the run's images; a label tree marked as synthetic",
        """example:
  python -m annotation_import simulate --config results/demo/config.resolved.json
reads:   plan.parquet, crops/crops.parquet, crops/crops-*.tar, samples/samples-*.tar
writes:  annotations/simulated/{labels/,SYNTHETIC.json,raters.parquet,measurements.parquet},
         annotations/simulated.manifest.json""",
        _simulate_arguments,
        _simulate,
    ),
    Command(
        "import",
        "votes of any layout to a validated table, labels, outliers and a report",
        """examples:
  python -m annotation_import import --layout diffiqa --source DiffIQA/labels --out imported
  python -m annotation_import import --config results/demo/config.resolved.json
reads:   a label tree, .zip, .tar(.gz), .csv, .jsonl or .parquet
writes:  OUT (or annotations/ of the run): votes.parquet, labels.parquet, outliers.parquet,
         problems.parquet, scales.parquet (paired comparison only), report.json""",
        _import_arguments,
        _import,
    ),
    Command(
        "export",
        "the votes table to a published layout",
        """example:
  python -m annotation_import export --votes imported/votes.parquet --layout hggt --out tree
reads:   votes.parquet (and scales.parquet beside it)
writes:  OUT/labels/..., OUT/raters.parquet where rater ids are known, OUT/MOS/ (sriqa);
         OUT/votes.csv, .jsonl or .parquet (table)""",
        _export_arguments,
        _export,
    ),
]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_cli("annotation_import", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
