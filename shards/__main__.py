"""`python -m shards`: write the dataset of a run; export and import the official layout."""

import argparse
import sys
from pathlib import Path

from runtime.cli import Command, add_stage_flags, run_cli

_WRITE_HELP = """example:
  python -m shards write --config results/demo/config.resolved.json

reads:
  crops/crops.parquet, crops/crops-*.tar, plan.parquet, samples/samples-*.{tar,json},
  annotations/labels.parquet
writes:
  dataset/{train,val,test}-*.tar, dataset/{labels,splits}.parquet, dataset/splits.json,
  dataset/README.md (card), dataset/croissant.json, dataset/manifest.json (last)"""

_EXPORT_HELP = """example:
  python -m shards export --dataset results/demo/dataset --out exported

reads:
  DATASET/{train,val,test}-*.tar
writes:
  OUT/{Train,Validation,Test}/images/{Original,01..06}/*.png
  OUT/{Train,Validation,Test}/labels/{A,B,C}/{01..06}/*.json
  OUT/Train/trainlabel/Triplet/Triplet.txt, OUT/*/TripletEachType/*.txt"""

_IMPORT_HELP = """example:
  python -m annotation_import import --layout diffiqa --source exported --out labels
  python -m shards import --source exported --labels labels/labels.parquet --out back

reads:
  SOURCE/{Train,Validation,Test}/images/..., and the table of labels
writes:
  OUT/{train,val,test}-*.tar, OUT/manifest.json"""


def _write(args: argparse.Namespace) -> None:
    from runtime.settings import load_run
    from shards.write import write_dataset

    write_dataset(
        load_run(args.config), replace=args.replace, dry_run=args.dry_run, limit=args.limit
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", type=Path, required=True, help="folder with the shards")
    parser.add_argument("--out", type=Path, required=True, help="new or empty folder")
    parser.add_argument(
        "--votes",
        choices=("counts", "label"),
        default="counts",
        help="one vote file for each vote counted (default), or three that all repeat the label, "
        "for readers that decide by majority of three",
    )


def _export(args: argparse.Namespace) -> None:
    from shards.official_export import export_official

    export_official(args.dataset, args.out, votes=args.votes)


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, required=True, help="folder with Train/ ... Test/")
    parser.add_argument(
        "--labels", type=Path, nargs="+", required=True,
        help="labels.parquet, as `annotation_import import --layout diffiqa` writes it; several "
        "if each split was imported by itself",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--references-per-shard", type=int, default=256)


def _import(args: argparse.Namespace) -> None:
    from shards.official_import import import_official

    import_official(
        args.source, args.labels, args.out, references_per_shard=args.references_per_shard
    )


COMMANDS = [
    Command("write", "write the dataset of a run", _WRITE_HELP, add_stage_flags, _write),
    Command("export", "write a dataset in the official DiffIQA layout", _EXPORT_HELP,
            _add_export, _export),
    Command("import", "read the official DiffIQA layout back into shards", _IMPORT_HELP,
            _add_import, _import),
]  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_cli("shards", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
