"""`python -m crop run`: photographs to crops.

Reads the sources' files. Writes below `crops/`: `listing.json`, `crops.parquet`,
`rejected.parquet`, `duplicates.parquet`, `crops-{00000}.tar`, and `manifest.json` last. Every
photograph is decoded once; what was cut from it waits in `crops/.state/photos` for the assembly,
and an interrupted run goes on at the next photograph (paper Sec. 3.1).
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crop.assembly import Selection, select, write_shards, write_tables
from crop.config import CROP, CropConfig, SourceConfig
from crop.listing import Listing, list_photos, listing_values
from crop.photograph import PhotoRecord, PhotoTask, load_record
from crop.pool import process_photos
from crop.rejection import FAILURES, Rejected
from runtime.atomic import write_json
from runtime.errors import DataError
from runtime.metrics import MetricsLog
from runtime.progress import Progress
from runtime.settings import RunSettings, load_run, parse_section
from runtime.stage import Rejections, StageRun, open_stage

_log = logging.getLogger(__name__)


def run_crop(
    config_path: Path, *, limit: int | None = None, dry_run: bool = False, replace: bool = False
) -> None:
    """Cut the crops of a run.

    Args:
        config_path: the run's config.resolved.json.
        limit: read at most so many further photographs and stop; they count when the run goes on.
        dry_run: list the files and say what would be read.
        replace: discard work made with other settings.
    Raises:
        ConfigError: a source is missing or empty.
        DataError: no crop is left, or too many files are unreadable.
    """
    run = load_run(config_path)
    config = run.section("crop", CropConfig)
    listing = list_photos(read_sources(run))
    _log.info("crop: %d files listed, %d left out", len(listing.photos), len(listing.rejected))
    if dry_run:
        return
    folder = run.root / "crops"
    write_json(folder / "listing.json", listing_values(listing))
    stage = open_stage(
        CROP,
        run,
        manifest=folder / "manifest.json",
        state=folder / ".state",
        inputs=[folder / "listing.json"],
        replace=replace,
    )
    if stage.is_complete:
        return
    photos = _read_photos(listing, config, run, stage, limit)
    if photos is not None:
        _assemble(photos, listing, config, run, stage)


def read_sources(run: RunSettings) -> list[SourceConfig]:
    """Read the section `sources`."""
    return [
        parse_section(SourceConfig, values, where=f"{run.path}: sources.{index}")
        for index, values in enumerate(run.value("sources"))
    ]


def _read_photos(
    listing: Listing, config: CropConfig, run: RunSettings, stage: StageRun, limit: int | None
) -> list[PhotoRecord] | None:
    """Process the photographs that have no record yet; None if `limit` left some over."""
    folder = stage.state / "photos"
    tasks = [
        PhotoTask(photo, config, run.seed, folder)
        for photo in listing.photos
        if load_record(folder, photo.photo_id) is None
    ]
    total, todo = len(listing.photos), tasks[:limit]
    with Progress(total, "crop", unit="photo", done=total - len(tasks)) as progress:
        for record in process_photos(todo, workers=config.workers):
            progress.advance(dropped=0 if record.crops else 1)
        MetricsLog(run.root / "crops" / "metrics.jsonl").write(
            photos=len(todo), line=progress.line()
        )
    if len(todo) < len(tasks):
        _log.info("crop: stopped by --limit, %d photographs left", len(tasks) - len(todo))
        return None
    records = (load_record(folder, photo.photo_id) for photo in listing.photos)
    return [record for record in records if record is not None]


def _assemble(
    photos: Sequence[PhotoRecord],
    listing: Listing,
    config: CropConfig,
    run: RunSettings,
    stage: StageRun,
) -> None:
    folder = run.root / "crops"
    selection = select(photos, listing.rejected, config, run.seed)
    _check(selection, listing, config)
    rows: list[dict[str, object]] = []
    files: list[Path] = [folder / "listing.json"]
    for path, shard_rows in write_shards(
        selection.chosen,
        stage.state / "photos",
        folder,
        crops_per_shard=config.crops_per_shard,
    ):
        files.append(path)
        rows += shard_rows
    for stale in set(folder.glob("crops-*.tar")) - set(files):
        stale.unlink()
    files += write_tables(folder, rows, selection, config.size_px)
    stage.finish(counts=_counts(photos, listing, selection), files=files)
    stage.clear_state()


def _check(selection: Selection, listing: Listing, config: CropConfig) -> None:
    """Fail where nothing usable is left, or too many files could not be read."""
    failures = Rejections(config.max_failure_fraction)
    for item in selection.rejected:
        if item.reason in FAILURES:
            failures.add(f"{item.source}: {item.path}", item.reason, item.detail)
    files = len(listing.photos) + len(listing.rejected)
    failures.check(files, where="crop", what="files")
    if not selection.chosen:
        raise DataError(
            f"crop: no crop is left of {files} files ({_histogram(selection.rejected)}); add "
            "photographs or lower the thresholds of section crop"
        )


def _histogram(rejected: Sequence[Rejected]) -> str:
    counts = Counter(item.reason for item in rejected)
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))


def _counts(
    photos: Sequence[PhotoRecord], listing: Listing, selection: Selection
) -> dict[str, Any]:
    return {
        "files": len(listing.photos) + len(listing.rejected),
        "photographs_read": sum(1 for photo in photos if photo.perceptual_hash),
        "photographs_used": len({item.photo.photo_id for item in selection.chosen}),
        "crops": len(selection.chosen),
        "duplicate_pairs": len(selection.duplicates),
        "rejected": dict(sorted(Counter(item.reason for item in selection.rejected).items())),
        "splits": dict(sorted(Counter(item.split for item in selection.chosen).items())),
    }
