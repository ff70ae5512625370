"""`python -m afine`: triplets, train, evaluate, score, export."""

import argparse
import sys
from pathlib import Path

from runtime.cli import Command, add_stage_flags, run_cli
from runtime.errors import ConfigError
from runtime.settings import load_run


def _triplets_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=Path, help="the run's config.resolved.json")
    source.add_argument("--labels", type=Path, help="a labels.parquet, without a run")
    parser.add_argument("--out", type=Path, help="file to write (with --labels)")
    parser.add_argument(
        "--layout", choices=["parquet", "official"], default="parquet",
        help="official: Triplet.txt and, beside it, TripletEachType/ (with --labels)",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    parser.add_argument(
        "--replace", action="store_true", help="discard work made with other settings"
    )


def _triplets(args: argparse.Namespace) -> None:
    from afine.triplets.stage import check_sets, run_triplets, write_from_labels

    if args.labels is not None:
        if args.out is None:
            raise ConfigError("afine triplets: --labels needs --out FILE")
        write_from_labels(args.labels, args.out, layout=args.layout)
        return
    if args.out is not None or args.layout != "parquet":
        raise ConfigError("afine triplets: --out and --layout go with --labels, not --config")
    run = load_run(args.config)
    if args.dry_run:
        check_sets(run)
    else:
        run_triplets(run, replace_old=args.replace)


TRIPLETS = Command(
    "triplets",
    "form triplets (image 1, image 2, reference) of the run's sets, or of one label table",
    "examples:\n"
    "  python -m afine triplets --config results/demo/config.resolved.json\n"
    "  python -m afine triplets --labels annotations/labels.parquet --out Triplet.txt "
    "--layout official\n"
    "reads:  dataset/*.tar, the folders in afine.data\n"
    "writes: afine/images.parquet, afine/triplets-{train,val,test}.parquet, afine/splits.json, "
    "afine/triplets.manifest.json",
    _triplets_arguments,
    _triplets,
)


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    add_stage_flags(parser)
    parser.add_argument("--phase", type=int, choices=[1, 2, 3], required=True, help="which phase")


def _train(args: argparse.Namespace) -> None:
    from importlib import import_module

    run = load_run(args.config)
    if args.dry_run:
        from afine.training.session import check_inputs

        check_inputs(run, args.phase)
        return
    module = import_module(f"afine.training.phase{args.phase}")
    getattr(module, f"run_phase{args.phase}")(run, replace=args.replace, limit=args.limit)


TRAIN = Command(
    "train",
    "train one phase: 1 naturalness and backbone, 2 fidelity, 3 combination",
    "example:\n"
    "  python -m afine train --config results/demo/config.resolved.json --phase 1\n"
    "several GPUs:\n"
    "  accelerate launch --num_processes 4 -m afine train --config ... --phase 1\n"
    "reads:  dataset/*.tar, afine/images.parquet, afine/triplets-{train,val}.parquet, the phase "
    "before\n"
    "writes: afine/phase<N>/, afine/metrics.jsonl, afine/tensorboard/; phase 3: "
    "afine/afine.safetensors",
    _train_arguments,
    _train,
)


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="the run's config.resolved.json")
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    parser.add_argument(
        "--replace", action="store_true", help="discard work made with other settings"
    )


def _evaluate(args: argparse.Namespace) -> None:
    run = load_run(args.config)
    from afine.evaluation.figures import draw_figures
    from afine.evaluation.stage import check_evaluate, run_evaluate

    if args.dry_run:
        check_evaluate(run)
        return
    run_evaluate(run, replace=args.replace)
    draw_figures(run.root)


EVALUATE = Command(
    "evaluate",
    "score the test split with A-FINE and its peers; tables 2 and 3 of the paper, figures",
    "example:\n"
    "  python -m afine evaluate --config results/demo/config.resolved.json\n"
    "reads:  afine/afine.safetensors, afine/images.parquet, afine/triplets-test.parquet, the test "
    "images\n"
    "writes: afine/scores.parquet, afine/tables/*.csv, afine/figures/*.svg, "
    "afine/evaluate.manifest.json",
    _evaluate_arguments,
    _evaluate,
)


def _score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", type=Path, help="reference image, or folder of references")
    parser.add_argument("test", type=Path, nargs="+", help="test images, or one folder")
    parser.add_argument(
        "--weights", type=Path, default=Path("afine.safetensors"),
        help="A-FINE weights: ours or the official afine.pth (default: afine.safetensors)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _score(args: argparse.Namespace) -> None:
    from afine.score import score_command

    print(score_command(args.ref, args.test, args.weights, as_json=args.json))  # noqa: T201


SCORE = Command(
    "score",
    "score test images against a reference; lower is better",
    "example:\n"
    "  python -m afine score photo.png restored1.png restored2.png --weights afine.safetensors\n"
    "reads:  the images (a folder of references is matched with a folder of tests by name), the "
    "weights\n"
    "writes: nothing; the scores go to standard output",
    _score_arguments,
    _score,
)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", type=Path, help="A-FINE weights: ours or the official afine.pth")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--clip", type=Path, help="CLIP file to take the text part from; zeros without it"
    )


def _export(args: argparse.Namespace) -> None:
    from afine.weights import export_official

    export_official(args.weights, args.out, args.clip)


EXPORT = Command(
    "export",
    "write weights in the official merged layout, which the public ports read",
    "example:\n"
    "  python -m afine export results/demo/afine/afine.safetensors --out afine.pth\n"
    "reads:  the weights, and a CLIP file for the text part (no score depends on it)\n"
    "writes: --out",
    _export_arguments,
    _export,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_cli("afine", [TRIPLETS, TRAIN, EVALUATE, SCORE, EXPORT], argv)


if __name__ == "__main__":
    sys.exit(main())
