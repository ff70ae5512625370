"""`afine triplets`: read the sets, check their images, form the triplets of each split.

Reads `dataset/` and the configured databases; writes `afine/images.parquet`,
`afine/triplets-{train,val,test}.parquet`, `afine/splits.json`, `afine/triplets.manifest.json`.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

from afine.config import TRIPLETS, DataConfig, TripletsConfig
from afine.databases.diffiqa import read_released, read_run
from afine.databases.listed import read_csiq, read_kadid10k, read_pipal, read_tid2013
from afine.databases.records import ImageRecord, ImageSet
from afine.databases.sriqa import KINDS, read_sriqa
from afine.triplets.official import write_official
from afine.triplets.rules import Triplet, all_pairs, labelled_triplets, rated_triplets
from afine.triplets.sizes import image_size
from afine.triplets.splits import Shares, Splits
from afine.triplets.tables import IMAGE_SCHEMA, SPLITS, TRIPLET_SCHEMA, triplet_table
from runtime.atomic import write_json
from runtime.errors import DataError
from runtime.progress import track
from runtime.settings import RunSettings
from runtime.stage import Rejections, open_stage
from runtime.tables import read_table, table_of, write_table

_log = logging.getLogger(__name__)
_READERS = {
    "diffiqa": read_released,
    "tid2013": read_tid2013,
    "kadid10k": read_kadid10k,
    "pipal": read_pipal,
    "csiq": read_csiq,
    "sriqa": read_sriqa,
}
_TEST_ONLY = frozenset({"csiq", "sriqa"})
_Sized = tuple[ImageRecord, int, int]


def run_triplets(run: RunSettings, *, replace_old: bool = False) -> None:
    """Form the triplets of a run."""
    data = run.section("afine.data", DataConfig)
    settings = run.section("afine.triplets", TripletsConfig)
    folder = run.root / "afine"
    sets = read_sets(run.root, data)
    fixed_splits = Path(data.splits) if data.splits else None
    inputs = [path for found in sets for path in found.label_files]
    stage = open_stage(
        TRIPLETS,
        run,
        manifest=folder / "triplets.manifest.json",
        state=folder / ".state" / "triplets",
        inputs=[*inputs, fixed_splits] if fixed_splits else inputs,
        replace=replace_old,
    )
    if stage.is_complete:
        return
    rejections = Rejections(settings.max_failure_fraction)
    splits = Splits(fixed_splits)
    images: list[pl.DataFrame] = []
    triplets: dict[str, list[pl.DataFrame]] = {split: [] for split in SPLITS}
    for found in sets:
        usable = _usable(found, rejections)
        usable = _with_splits(found.name, usable, splits, run.seed, settings)
        images.append(_image_table(found.name, usable))
        for split, table in _triplets_of(found, usable, run.seed, settings):
            triplets[split].append(table)
    total = sum(len(found.records) + len(found.rejected) for found in sets)
    # rejected outliers of the released set are labels without a majority, not failures
    rejections.check(total, where=str(run.path), what="images")
    files = [folder / "images.parquet", folder / "splits.json"]
    write_table(files[0], pl.concat(images))
    write_json(files[1], splits.used)
    counts: dict[str, int] = {}
    for split, tables in triplets.items():
        table = pl.concat([pl.DataFrame(schema=TRIPLET_SCHEMA), *tables])
        files.append(folder / f"triplets-{split}.parquet")
        write_table(files[-1], table)
        counts[split] = len(table)
    per_set = pl.concat(images).group_by("set", "split").len().sort("set", "split")
    stage.finish(
        counts={"triplets": counts, "rejected": rejections.counts()},
        files=files,
        images=per_set.to_dicts(),
        rejected=sorted(rejections.rows, key=lambda row: row["key"]),
    )


def check_sets(run: RunSettings) -> None:
    """Read the lists of all sets and say what is there; writes nothing."""
    for found in read_sets(run.root, run.section("afine.data", DataConfig)):
        contents = {record.content for record in found.records}
        _log.info(
            "%s: %d images of %d references, %d listed images left out",
            found.name, len(found.records), len(contents), len(found.rejected),
        )  # fmt: skip


def read_sets(root: Path, data: DataConfig) -> list[ImageSet]:
    """Read every set that the configuration names; nothing is decoded."""
    sets = [read_run(root)] if data.use_run else []
    sets += [_READERS[name](Path(folder)) for name, folder in sorted(data.named().items())]
    return sets


def _usable(found: ImageSet, rejections: Rejections) -> list[_Sized]:
    """Keep the images that can be read and have the size of their reference."""
    for key, reason, detail in found.rejected:
        if reason != "outlier":
            rejections.add(f"{found.name}/{key}", reason, detail)
    sized: dict[str, list[_Sized]] = defaultdict(list)
    for record in track(found.records, f"check images of {found.name}", unit="image"):
        try:
            height, width = image_size(found.folder, record)
        except DataError as error:
            rejections.add(f"{found.name}/{record.image}", "unreadable", str(error))
            continue
        sized[record.content].append((record, height, width))
    return [item for group in sized.values() for item in _same_size(found, group, rejections)]


def _same_size(found: ImageSet, group: list[_Sized], rejections: Rejections) -> Iterator[_Sized]:
    reference = next((item for item in group if item[0].is_ref), None)
    for record, height, width in group:
        key = f"{found.name}/{record.image}"
        if reference is None:
            rejections.add(key, "no-reference", f"content {record.content}")
        elif (height, width) != reference[1:]:
            rejections.add(
                key,
                "size-differs",
                f"{width}x{height}, its reference {reference[2]}x{reference[1]}",
            )
        else:
            yield record, height, width


def _with_splits(
    name: str, items: list[_Sized], splits: Splits, seed: int, settings: TripletsConfig
) -> list[_Sized]:
    if name in _TEST_ONLY:
        return [(replace(record, split="test"), h, w) for record, h, w in items]
    if all(record.split for record, _, _ in items):
        return items
    shares = Shares(settings.train_fraction, settings.test_fraction)
    contents = {record.content for record, _, _ in items}
    split_of = splits.split_of(name, contents, seed=seed, shares=shares)
    return [(replace(record, split=split_of[record.content]), h, w) for record, h, w in items]


def _image_table(name: str, items: Iterable[_Sized]) -> pl.DataFrame:
    rows = (
        {
            "set": name,
            "split": record.split,
            "content": record.content,
            "image": record.image,
            "is_ref": record.is_ref,
            "quality": record.quality,
            "file": record.file,
            "offset": record.offset,
            "size_bytes": record.size_bytes,
            "height": height,
            "width": width,
        }
        for record, height, width in items
    )
    return table_of(rows, IMAGE_SCHEMA).sort("set", "content", "image")


def _triplets_of(
    found: ImageSet, items: list[_Sized], seed: int, settings: TripletsConfig
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield (split, table) per content."""
    if found.name == "sriqa":
        yield "test", triplet_table(found.name, _sriqa_triplets(found.folder, items))
        return
    contents: dict[str, list[ImageRecord]] = defaultdict(list)
    for record, _, _ in items:
        contents[record.content].append(record)
    for _, records in sorted(contents.items()):
        rows = list(_content_triplets(found.name, records, seed, settings))
        yield records[0].split, triplet_table(found.name, rows)


def _content_triplets(
    name: str, records: list[ImageRecord], seed: int, settings: TripletsConfig
) -> list[Triplet]:
    content = records[0].content
    ref = next(record.image for record in records if record.is_ref)
    tests = [record for record in records if not record.is_ref]
    if name == "diffiqa":
        labels = {record.image: record.label for record in tests if record.label is not None}
        return labelled_triplets(content, ref, labels, has_reference_rows=settings.reference_rows)
    qualities = {record.image: record.quality for record in tests if record.quality is not None}
    return rated_triplets(
        content, ref, qualities, seed=seed, set_name=name, partners=settings.partners
    )


def _sriqa_triplets(folder: Path, items: list[_Sized]) -> list[Triplet]:
    """Form the pairs of every kind that the folder has scores for, among usable images."""
    usable = {record.image for record, _, _ in items}
    rows: list[Triplet] = []
    for kind in (kind for kind, scores in KINDS.items() if (folder / scores).is_dir()):
        qualities: dict[str, dict[str, float]] = defaultdict(dict)
        references: dict[str, str] = {}
        for record in read_sriqa(folder, kind).records:
            if record.image in usable and record.quality is not None:
                qualities[record.content][record.image] = record.quality
            if record.is_ref:
                references[record.content] = record.image
        for content, group in sorted(qualities.items()):
            if references[content] in group:
                rows += all_pairs(content, references[content], group, kind=kind)
    return rows


def triplets_from_labels(labels: Path) -> list[Triplet]:
    """Form triplets from an annotation stage's `labels.parquet`, all studies together.

    Raises:
        DataError: a test image is labelled twice, or against another test image.
    """
    table = read_table(labels, columns=("ref_id", "test_id", "label"), what="table of labels")
    n_paired = table["test_id_2"].count() if "test_id_2" in table.columns else 0
    if n_paired:
        raise DataError(
            f"{labels}: {n_paired} of {len(table)} labels "
            "compare two test images; triplets need labels against the reference (paired "
            "comparisons are evaluated as SRIQA-Bench, docs/afine.md)"
        )
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for row in table.select("ref_id", "test_id", "label").iter_rows(named=True):
        image = f"{row['test_id']}.png"
        if image in groups[row["ref_id"]]:
            raise DataError(f"{labels}: '{row['test_id']}' is labelled twice; keep one label")
        groups[row["ref_id"]][image] = int(row["label"])
    return [
        triplet
        for content, group in sorted(groups.items())
        for triplet in labelled_triplets(content, f"{content}.png", group)
    ]


def write_from_labels(labels: Path, out: Path, *, layout: str | None) -> None:
    """Write triplets of a label table, as Parquet or in the release's text layout."""
    triplets = triplets_from_labels(labels)
    if layout == "official":
        write_official(out, triplets)
    else:
        write_table(out, triplet_table("diffiqa", triplets))
