"""`shards write`: the dataset of a run as WebDataset tars, with card and metadata.

Reads crops, plan, samples and labels of the run; writes `dataset/`. A finished shard is
recorded in `dataset/.state/`, so an interrupted run goes on with the next one. Equal inputs
give equal bytes in every file.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.atomic import read_json, sha256_file, write_json
from runtime.errors import DataError
from runtime.progress import Progress
from runtime.settings import RunSettings
from runtime.stage import StageRun, open_stage
from runtime.tables import write_table
from runtime.tars import read_member, write_tar
from shards.assemble import Entry, Selection, entries_of, select
from shards.card import write_card
from shards.config import SHARDS, DatasetConfig
from shards.croissant import write_croissant
from shards.layout import Shard, opening_order, plan_shards
from shards.listing import describe_split, label_table, split_table
from shards.pixels import crop_place, sound_entry
from shards.sources import (
    RunTables,
    SampleIndex,
    index_samples,
    read_tables,
    sample_manifests,
)
from shards.summary import Summary, summarise

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Work:
    """What writing a shard needs."""

    root: Path
    tables: RunTables
    samples: SampleIndex
    selection: Selection


def write_dataset(
    run: RunSettings, *, replace: bool = False, dry_run: bool = False, limit: int | None = None
) -> None:
    """Write `dataset/` of a run.

    Args:
        run: the resolved configuration.
        replace: discard a dataset made with other settings, code or inputs.
        dry_run: read and check the inputs, say what would be written, write nothing.
        limit: stop after the shard that reaches this many references, without a manifest.

    Raises:
        DataError: inputs are missing or contradict each other, nothing is left to publish, or
            more images are missing than `max_failure_fraction` allows.
    """
    settings = run.section("dataset", DatasetConfig)
    tables = read_tables(run.root)
    if dry_run:
        _prepare(run, tables, settings)
        return
    folder = run.root / "dataset"
    stage = open_stage(
        SHARDS,
        run,
        manifest=folder / "manifest.json",
        state=folder / ".state",
        inputs=_inputs(run.root, tables),
        replace=replace,
    )
    if stage.is_complete:
        return
    _remove_unfinished(folder)
    work, shards = _prepare(run, tables, settings)
    if limit is not None:
        chosen = _first_shards(shards, limit)
        _write_shards(work, chosen, folder, stage, settings.min_tests)
        _log.info("dataset: stopped at --limit %d, %d shards written", limit, len(chosen))
        return
    damaged = _write_shards(work, shards, folder, stage, settings.min_tests)
    work.selection.drop(damaged)
    work.selection.rejected.check(tables.plan.height, where=str(folder), what="test images")
    _remove_stale(folder, {shard.name for shard in shards})
    _finish(work, shards, folder, stage, run, settings)


def _inputs(root: Path, tables: RunTables) -> list[Path]:
    return [
        root / "crops/crops.parquet",
        root / "plan.parquet",
        root / "annotations/labels.parquet",
        *sample_manifests(root, tables.plan),
    ]


def _prepare(
    run: RunSettings, tables: RunTables, settings: DatasetConfig
) -> tuple[_Work, list[Shard]]:
    samples = index_samples(run.root, tables.plan)
    selection = select(tables, samples, settings)
    where = f"{run.root / 'dataset'}"
    selection.rejected.check(tables.plan.height, where=where, what="test images")
    if not selection.crops.height:
        reasons = ", ".join(f"{name}: {n}" for name, n in sorted(selection.left_out.items()))
        raise DataError(f"{where}: no reference is left to publish ({reasons})")
    shards = plan_shards(selection.crops, settings.references_per_shard, run.seed)
    _log.info(
        "dataset: %d references, %d test images, %d shards",
        selection.crops.height, selection.plan.height, len(shards),
    )  # fmt: skip
    return _Work(run.root, tables, samples, selection), shards


def _first_shards(shards: list[Shard], limit: int) -> list[Shard]:
    chosen: list[Shard] = []
    for shard in shards:
        if sum(len(earlier.crop_ids) for earlier in chosen) < limit:
            chosen.append(shard)
    return chosen


def _write_shards(
    work: _Work, shards: list[Shard], folder: Path, stage: StageRun, min_tests: int
) -> list[dict[str, str]]:
    """Write what is not there yet; returns the images that turned out to be damaged."""
    damaged: list[dict[str, str]] = []
    with Progress(work.selection.crops.height, "write dataset", unit="reference") as progress:
        for shard in shards:
            record = _record(stage, shard.name)
            if not _is_written(folder / shard.name, record):
                rejected = _write_shard(work, shard, folder / shard.name, min_tests)
                digest = sha256_file(folder / shard.name)
                write_json(record, {"sha256": digest, "rejected": rejected})
            found = read_json(record, what="state of the dataset")["rejected"]
            damaged += found
            progress.advance(len(shard.crop_ids), dropped=len(found))
    return damaged


def _record(stage: StageRun, name: str) -> Path:
    """File that says that a shard is whole, with its digest and what was damaged."""
    return stage.state / f"{name}.json"


def _is_written(tar: Path, record: Path) -> bool:
    return (
        tar.is_file()
        and record.is_file()
        and read_json(record, what="state of the dataset").get("sha256") == sha256_file(tar)
    )


def _write_shard(work: _Work, shard: Shard, path: Path, min_tests: int) -> list[dict[str, str]]:
    sound: list[Entry] = []
    damaged: list[dict[str, str]] = []
    for entry in entries_of(shard.crop_ids, work.selection, work.tables.labels):
        kept, rejected = sound_entry(work.root, work.samples, entry, min_tests)
        damaged += rejected
        if kept is not None:
            sound.append(kept)
    members = (member for entry in opening_order(sound) for member in _members(work, entry))
    write_tar(path, members, is_sorted=False)
    return damaged


def _members(work: _Work, entry: Entry) -> Iterator[tuple[str, bytes]]:
    """Members of one sample, already checked, in the order of their names; one image at a time."""
    for kk in sorted(entry.tests):
        yield f"{entry.key}.{kk}.png", read_member(*work.samples.members[f"{entry.key}_{kk}"])
    yield f"{entry.key}.json", encode_record(entry.record())
    yield f"{entry.key}.ref.png", read_member(*crop_place(work.root, entry.crop))


def encode_record(record: Mapping[str, Any]) -> bytes:
    """Encode a sample's JSON; equal records give equal bytes."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def _remove_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing; such a file can be a gigabyte."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink()


def _remove_stale(folder: Path, names: set[str]) -> None:
    """Remove tars of an earlier dataset with more shards, which a `*.tar` pattern would read."""
    for tar in folder.glob("*-[0-9][0-9][0-9][0-9][0-9].tar"):
        if tar.name not in names:
            tar.unlink()


def _finish(
    work: _Work,
    shards: list[Shard],
    folder: Path,
    stage: StageRun,
    run: RunSettings,
    settings: DatasetConfig,
) -> None:
    splits = split_table(work.selection, shards)
    facts = describe_split(splits, run.seed)
    write_table(folder / "splits.parquet", splits)
    write_table(folder / "labels.parquet", label_table(work.selection, work.tables.labels, splits))
    write_json(folder / "splits.json", facts)
    summary = summarise(work.selection, work.tables.labels, splits)
    tars = [folder / shard.name for shard in shards]
    write_card(folder / "README.md", run, settings, summary, facts)
    digests = {tar.name: read_json(_record(stage, tar.name))["sha256"] for tar in tars}
    write_croissant(folder / "croissant.json", settings, summary, digests)
    others = ("labels.parquet", "splits.parquet", "splits.json", "README.md", "croissant.json")
    stage.finish(
        counts=_counts(work, summary),
        files=[*tars, *(folder / name for name in others)],
        rejected=work.selection.rejected.rows,
        is_synthetic=summary.is_synthetic,
        split=facts,
    )
    stage.clear_state()


def _counts(work: _Work, summary: Summary) -> dict[str, Any]:
    return {
        "in": work.tables.plan.height,
        "out": work.selection.plan.height,
        "rejected": work.selection.rejected.counts(),
        "left_out": dict(sorted(work.selection.left_out.items())),
        "references": work.selection.crops.height,
        "labels": {name: sum(split[name] for split in summary.labels.values())
                   for name in ("worse", "similar", "better")},
        "splits": {name: dict(counts) for name, counts in summary.labels.items()},
    }  # fmt: skip
