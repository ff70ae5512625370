"""`import`: read a source; write the tables of votes, labels, outliers, problems, and the report.

Inside a run everything comes from the `annotations` section and goes to `annotations/`;
outside, from the command line to any folder. `report.json` is written last.
"""

import hashlib
import io
import logging
from collections.abc import Collection
from pathlib import Path

import polars as pl

from annotation_import.config import IMPORT, SIMULATED, AnnotationsConfig
from annotation_import.importing import Imported, import_votes
from annotation_import.readers import ReadVotes, known_images, read_votes
from runtime.atomic import write_json
from runtime.settings import RunSettings
from runtime.stage import open_stage
from runtime.tables import write_table

_log = logging.getLogger(__name__)
REPORT = "report.json"


def import_in_run(run: RunSettings, *, replace: bool = False, dry_run: bool = False) -> None:
    """Import what the run's `annotations` section names, to the run's `annotations/`.

    Args:
        run: the resolved configuration.
        replace: discard results made with other settings, code or votes.
        dry_run: read and check everything, write nothing.
    """
    options = run.section("annotations", AnnotationsConfig)
    folder = run.root / "annotations"
    source = folder / "simulated" if options.source == SIMULATED else Path(options.source)
    plan = run.root / "plan.parquet"
    images = Path(options.images) if options.images else None
    if images is None and options.layout == "diffiqa" and plan.is_file():
        images = plan
    read = _read(options, source)
    known = known_images(images) if images else None
    if dry_run:
        _say(import_votes(read, options, known=known, seed=run.seed, where=str(source)))
        return
    # stands for the source among the inputs: a tree of half a million files has no one file
    fingerprint = folder / "source.json"
    write_json(fingerprint, _describe(read, known))
    opened = open_stage(
        IMPORT,
        run,
        manifest=folder / "manifest.json",
        state=folder / ".state" / "import",
        inputs=[fingerprint],
        replace=replace,
    )
    if opened.is_complete:
        return
    found = import_votes(read, options, known=known, seed=run.seed, where=str(source))
    files = write_import(found, folder)
    opened.finish(
        counts={
            **{name: found.report["votes"][name] for name in ("n", "n_rejected", "n_excluded")},
            "pairs": found.report["pairs"]["n"],
            "labelled": found.report["pairs"]["n_labelled"],
            "outliers": found.report["pairs"]["n_outliers"],
            "rejected": {
                reason: entry["count"]
                for reason, entry in found.report["problems"].items()
                if entry["is_rejected"]
            },
        },
        files=[*files, fingerprint],
        is_synthetic=found.report["is_synthetic"],
    )
    opened.clear_state()
    _say(found)


def import_to(
    folder: Path,
    source: Path,
    options: AnnotationsConfig,
    *,
    seed: int = 0,
    dry_run: bool = False,
) -> Imported:
    """Import `source` to `folder` without a run.

    Args:
        folder: receives the tables and `report.json`; earlier ones are replaced.
        source: label tree, archive or table.
        options: layout and policies; `options.source` is not used.
        seed: of the bootstrap.
        dry_run: read and check everything, write nothing.
    """
    read = _read(options, source)
    known = known_images(options.images) if options.images else None
    found = import_votes(read, options, known=known, seed=seed, where=str(source))
    if not dry_run:
        write_import(found, folder)
    _say(found)
    return found


def write_import(found: Imported, folder: Path) -> list[Path]:
    """Write the tables, then the report; returns the files."""
    report = folder / REPORT
    report.unlink(missing_ok=True)
    tables = {
        "votes": found.votes,
        "labels": found.decided.labels,
        "outliers": found.decided.outliers,
        "problems": found.problems.table(),
    }
    scales = folder / "scales.parquet"
    if len(found.scales):
        tables["scales"] = found.scales
    else:
        scales.unlink(missing_ok=True)
    for name, table in tables.items():
        write_table(folder / f"{name}.parquet", table)
    write_json(report, found.report)
    return [*(folder / f"{name}.parquet" for name in tables), report]


def _read(options: AnnotationsConfig, source: Path) -> ReadVotes:
    return read_votes(options.layout, source, study=options.study, table=options.table)


def _describe(read: ReadVotes, known: Collection[str] | None) -> dict[str, object]:
    return {
        "votes": len(read.votes),
        "votes_sha256": _table_digest(read.votes),
        "problems_sha256": _table_digest(read.problems.table()),
        "known_images": None if known is None else len(known),
        "known_sha256": None
        if known is None
        else hashlib.sha256("\n".join(sorted(known)).encode()).hexdigest(),
    }


def _table_digest(table: pl.DataFrame) -> str:
    buffer = io.BytesIO()
    table.write_ipc(buffer, compression="uncompressed")
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def _say(found: Imported) -> None:
    votes, labels, pairs = (found.report[name] for name in ("votes", "labels", "pairs"))
    alpha = found.report["agreement"]["alpha_nominal"]["value"]
    _log.info(
        "%d votes on %d pairs: %d worse, %d similar, %d better, %d outliers; alpha %s%s",
        votes["n"], pairs["n"], labels["worse"], labels["similar"], labels["better"],
        pairs["n_outliers"], "undefined" if alpha is None else f"{alpha:.3f}",
        "; SIMULATED VOTES" if found.report["is_synthetic"] else "",
    )  # fmt: skip
