"""`afine evaluate`: score the test split, write scores and tables.

Reads `afine/afine.safetensors`, the tables of the triplets and the test images; writes
`afine/scores.parquet`, `afine/tables/*.csv`, `afine/evaluate.manifest.json`.
"""

import logging
from pathlib import Path
from typing import Any

import polars as pl

from afine.config import EVALUATE, AfineConfig, EvaluateConfig
from afine.evaluation.peers import Peer, load_peers
from afine.evaluation.scoring import AFINE_COLUMNS, Scorer
from afine.evaluation.tables import (
    OURS,
    Bootstrap,
    Method,
    accuracies,
    correlation_table,
    table2,
    table3,
    to_csv,
)
from afine.pixels import ImageStore, set_folders
from afine.triplets.tables import read_images, read_triplets
from afine.weights import load
from runtime.atomic import write_text
from runtime.errors import DataError
from runtime.settings import RunSettings
from runtime.stage import StageRun, open_stage
from runtime.tables import table_of, write_table
from runtime.torch_device import choose_device, use_threads

_log = logging.getLogger(__name__)


def run_evaluate(run: RunSettings, *, replace: bool = False) -> None:
    """Evaluate the trained A-FINE of a run."""
    settings = run.section("afine", AfineConfig)
    folder = run.root / "afine"
    stage = open_stage(
        EVALUATE,
        run,
        manifest=folder / "evaluate.manifest.json",
        state=folder / ".state" / "evaluate",
        inputs=[folder / "triplets.manifest.json", folder / "phase3" / "manifest.json"],
        replace=replace,
    )
    if stage.is_complete:
        return
    use_threads(settings.cpu_threads)
    triplets = read_triplets(run.root, "test")
    if triplets.is_empty():
        raise DataError(f"{folder / 'triplets-test.parquet'}: no test triplets to evaluate on")
    images = read_images(run.root).filter(pl.col("split") == "test")
    peers = load_peers(settings.evaluate.peers, choose_device())
    scores = _scores(run, settings, images, peers, stage)
    methods = [
        *(Method(peer.name, peer.label, peer.lower_is_better) for peer in peers),
        Method("afine", OURS, True),
    ]
    files = [folder / "scores.parquet"]
    write_table(files[0], scores)
    rows = _write_tables(run, settings.evaluate, images, triplets, scores, methods)
    files += sorted((folder / "tables").glob("*.csv"))
    stage.finish(
        counts={"images": len(images), "triplets": len(triplets)},
        files=files,
        accuracy=[row for row in rows if row["method"] == OURS and row["accuracy"] >= 0],
    )
    stage.clear_state()


def check_evaluate(run: RunSettings) -> None:
    """Load weights and tables and make the peers; writes nothing."""
    settings = run.section("afine", AfineConfig)
    load(run.root / "afine" / "afine.safetensors")
    triplets = read_triplets(run.root, "test")
    peers = load_peers(settings.evaluate.peers, choose_device())
    _log.info("%d test triplets, %d metrics beside A-FINE", len(triplets), len(peers))


def _scores(
    run: RunSettings,
    settings: AfineConfig,
    images: pl.DataFrame,
    peers: list[Peer],
    stage: StageRun,
) -> pl.DataFrame:
    model = load(run.root / "afine" / "afine.safetensors").to(choose_device())
    store = ImageStore(images, set_folders(run.root, settings.data))
    scorer = Scorer(model, peers, store, images_per_batch=settings.evaluate.images_per_batch)
    rows = scorer.score_all(images, stage.state / "contents.jsonl")
    columns = [*AFINE_COLUMNS, *(peer.name for peer in peers)]
    schema = {
        **dict.fromkeys(("set", "content", "image"), pl.String),
        **dict.fromkeys(columns, pl.Float64),
    }
    return table_of(rows, schema).sort("set", "content", "image")


def _write_tables(
    run: RunSettings,
    settings: EvaluateConfig,
    images: pl.DataFrame,
    triplets: pl.DataFrame,
    scores: pl.DataFrame,
    methods: list[Method],
) -> list[dict[str, Any]]:
    bootstrap = Bootstrap(settings.bootstrap, settings.confidence, run.seed)
    rows = accuracies(triplets, scores, methods, delta=settings.delta, bootstrap=bootstrap)
    tables: dict[str, list[Any]] = {
        "table2": table2(rows, methods),
        "accuracy": rows,
        "correlations": correlation_table(images, scores, methods),
    }
    if any(row["set"] == "sriqa" for row in rows):
        tables["table3"] = table3(rows, methods)
    folder: Path = run.root / "afine" / "tables"
    for old in folder.glob("*.csv"):
        old.unlink()  # also a table that this evaluation does not have
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", to_csv(table))
    return rows
