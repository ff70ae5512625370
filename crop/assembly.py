"""From the photographs' records to shards and tables: duplicates, choice, splits, tars."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from crop.config import CropConfig, SplitName
from crop.duplicates import Duplicate, dropped_by, find_duplicates, groups_of
from crop.keys import crop_key
from crop.photograph import CropRecord, PhotoRecord, pixels_path
from crop.rejection import Rejected
from crop.selection import assign_splits, select_crops
from runtime.tables import table_of, write_table
from runtime.tars import Member, write_tar

CROPS_SCHEMA = {
    "crop_id": pl.String, "photo_id": pl.String, "source": pl.String, "path": pl.String,
    "photo_sha256": pl.String, "row": pl.Int32, "col": pl.Int32, "size_px": pl.Int32,
    "grey_std": pl.Float64, "laplacian_var": pl.Float64, "split": pl.String, "shard": pl.Int32,
    "offset": pl.Int64, "size_bytes": pl.Int64, "sha256": pl.String,
}  # fmt: skip
_REJECTED_SCHEMA = {
    "source": pl.String, "path": pl.String, "reason": pl.String, "value": pl.Float64,
    "row": pl.Int32, "col": pl.Int32, "detail": pl.String,
}  # fmt: skip
_DUPLICATES_SCHEMA = {
    "source": pl.String, "path": pl.String, "of_source": pl.String, "of_path": pl.String,
    "kind": pl.String, "distance": pl.Int32, "is_dropped": pl.Boolean,
}  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """One crop of the dataset, before it has a place in a shard."""

    crop_id: str
    photo: PhotoRecord
    crop: CropRecord
    split: SplitName


@dataclass(frozen=True)
class Selection:
    """What the run keeps and what it leaves out.

    Attributes:
        chosen: crops, sorted by crop_id.
        rejected: everything that was left out, in the order of the listing.
        duplicates: rows of duplicates.parquet.
    """

    chosen: list[Chosen]
    rejected: list[Rejected]
    duplicates: list[dict[str, object]]


def select(
    photos: Sequence[PhotoRecord], listed: Sequence[Rejected], config: CropConfig, seed: int
) -> Selection:
    """Decide over the crops of all photographs.

    Args:
        photos: records in the order of the listing.
        listed: files that were left out before they were read.
        config: thresholds and policies.
        seed: seed of the run.
    """
    readable = [photo for photo in photos if photo.perceptual_hash]
    duplicates = find_duplicates(
        [photo.sha256 for photo in readable],
        [photo.perceptual_hash for photo in readable],
        near_distance=config.near_distance,
    )
    dropped = dropped_by(
        duplicates,
        drop_exact=config.exact_duplicates == "drop",
        drop_near=config.near_duplicates == "drop",
    )
    groups = {
        photo.photo_id: readable[first].photo_id
        for photo, first in zip(readable, groups_of(len(readable), duplicates), strict=True)
    }
    kept = [photo for index, photo in enumerate(readable) if index not in dropped and photo.crops]
    crops = select_crops(kept, config.target_count, seed)
    splits = assign_splits(
        {photo_id: len(found) for photo_id, found in crops.items() if found},
        groups,
        config.split,
        seed,
    )
    rejected = [*listed, *_flaws(photos)]
    rejected += [_duplicate_flaw(readable, pair) for pair in dropped.values()]
    rejected += _unselected(kept, crops)
    rows = [_duplicate_row(readable, pair, dropped) for pair in duplicates]
    return Selection(_chosen(kept, crops, splits), rejected, rows)


def _chosen(
    kept: Sequence[PhotoRecord],
    crops: Mapping[str, Sequence[CropRecord]],
    splits: Mapping[str, SplitName],
) -> list[Chosen]:
    found = [
        Chosen(crop_key(photo.photo_id, crop.row, crop.col), photo, crop, splits[photo.photo_id])
        for photo in kept
        for crop in crops[photo.photo_id]
    ]
    return sorted(found, key=lambda item: item.crop_id)


def _flaws(photos: Sequence[PhotoRecord]) -> Iterator[Rejected]:
    for photo in photos:
        for flaw in photo.rejected:
            yield Rejected(
                photo.source, photo.path, flaw.reason, flaw.value, flaw.row, flaw.col, flaw.detail
            )


def _duplicate_flaw(readable: Sequence[PhotoRecord], pair: Duplicate) -> Rejected:
    later, earlier = readable[pair.index], readable[pair.of]
    return Rejected(
        later.source,
        later.path,
        "duplicate" if pair.kind == "exact" else "near_duplicate",
        float(pair.distance),
        detail=f"of {earlier.source}: {earlier.path}",
    )


def _unselected(
    kept: Sequence[PhotoRecord], crops: Mapping[str, Sequence[CropRecord]]
) -> Iterator[Rejected]:
    for photo in kept:
        taken = {(crop.row, crop.col) for crop in crops[photo.photo_id]}
        for crop in photo.crops:
            if (crop.row, crop.col) not in taken:
                yield Rejected(photo.source, photo.path, "not_selected", None, crop.row, crop.col)


def _duplicate_row(
    readable: Sequence[PhotoRecord], pair: Duplicate, dropped: Mapping[int, Duplicate]
) -> dict[str, object]:
    later, earlier = readable[pair.index], readable[pair.of]
    return {
        "source": later.source,
        "path": later.path,
        "of_source": earlier.source,
        "of_path": earlier.path,
        "kind": pair.kind,
        "distance": pair.distance,
        "is_dropped": pair.index in dropped,
    }


def write_shards(
    chosen: Sequence[Chosen], pixels: Path, folder: Path, *, crops_per_shard: int
) -> Iterator[tuple[Path, list[dict[str, object]]]]:
    """Write one tar after the other; yield its path and its rows of crops.parquet.

    Args:
        chosen: crops, sorted by crop_id.
        pixels: folder of the photographs' encoded crops.
        folder: where the shards go.
        crops_per_shard: crops in one tar.
    """
    for shard, start in enumerate(range(0, len(chosen), crops_per_shard)):
        items = chosen[start : start + crops_per_shard]
        path = folder / f"crops-{shard:05}.tar"
        members = write_tar(path, ((f"{item.crop_id}.png", _png(item, pixels)) for item in items))
        yield path, [_row(item, member, shard) for item, member in zip(items, members, strict=True)]


def _png(item: Chosen, pixels: Path) -> bytes:
    with open(pixels_path(pixels, item.photo.photo_id), "rb") as handle:
        handle.seek(item.crop.offset)
        return handle.read(item.crop.size_bytes)


def _row(item: Chosen, member: Member, shard: int) -> dict[str, object]:
    return {
        "crop_id": item.crop_id,
        "photo_id": item.photo.photo_id,
        "source": item.photo.source,
        "path": item.photo.path,
        "photo_sha256": item.photo.sha256,
        "row": item.crop.row,
        "col": item.crop.col,
        "grey_std": item.crop.grey_std,
        "laplacian_var": item.crop.laplacian_var,
        "split": item.split,
        "shard": shard,
        "offset": member.offset,
        "size_bytes": member.size_bytes,
        "sha256": item.crop.sha256,
    }


def write_tables(
    folder: Path, rows: Sequence[Mapping[str, object]], selection: Selection, size_px: int
) -> list[Path]:
    """Write crops.parquet, rejected.parquet and duplicates.parquet; return their paths."""
    tables = {
        "crops.parquet": table_of([{**row, "size_px": size_px} for row in rows], CROPS_SCHEMA),
        "rejected.parquet": table_of(map(asdict, selection.rejected), _REJECTED_SCHEMA),
        "duplicates.parquet": table_of(selection.duplicates, _DUPLICATES_SCHEMA),
    }
    for name, table in tables.items():
        write_table(folder / name, table)
    return [folder / name for name in tables]
