"""`shards import`: images in the official DiffIQA layout, and their labels, to shards.

The labels come as `labels.parquet` from `annotation_import import --layout diffiqa`, which
owns the reading of votes. The release's split is kept as it is. The folder appears under its name
only when everything is in it.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from runtime.atomic import sha256_file, write_json
from runtime.errors import ConfigError, DataError
from runtime.progress import track
from runtime.tables import read_table
from runtime.tars import check_key, write_tar
from shards.assemble import describe_test
from shards.official_export import FOLDER_OF_SPLIT
from shards.png_check import png_size
from shards.sources import LABEL_COLUMNS
from shards.write import encode_record

_log = logging.getLogger(__name__)


def import_official(
    source: Path, labels: Sequence[Path], out: Path, *, references_per_shard: int = 256
) -> Counter[str]:
    """Write shards from a tree in the official layout.

    Args:
        source: folder with Train/, Validation/ and Test/, any of which may be absent.
        labels: tables of labels; images without a label are left out.
        out: new or empty folder.
        references_per_shard: references in one tar.

    Returns:
        Numbers of references, test images, and images left out by reason.

    Raises:
        ConfigError: `out` is a file or not empty, or `references_per_shard` is below 1.
        DataError: no split folder, no image, a table without its columns, a damaged image.
    """
    if references_per_shard < 1:
        raise ConfigError(f"--references-per-shard {references_per_shard}: expected at least 1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not an empty folder; choose another --out")
    label_of = _read_labels(labels)
    counts: Counter[str] = Counter()
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        tars = [
            tar
            for split, part in _split_folders(source).items()
            for tar in _import_split(
                split, part, label_of, unfinished, references_per_shard, counts
            )
        ]
        files = {
            tar.name: {"sha256": sha256_file(tar), "bytes": tar.stat().st_size} for tar in tars
        }
        write_json(unfinished / "manifest.json", {
            "stage": "shards import", "counts": dict(sorted(counts.items())), "files": files,
            "is_synthetic": any(row["is_synthetic"] for row in label_of.values()),
        })  # fmt: skip
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    unfinished.replace(out)
    _log.info("%s: %s", out, dict(sorted(counts.items())))
    return counts


def _read_labels(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    tables = [
        read_table(path, columns=LABEL_COLUMNS, what="table of labels").select(LABEL_COLUMNS)
        for path in paths
    ]
    joined = pl.concat(tables, how="vertical_relaxed")
    repeated = joined.filter(joined["test_id"].is_duplicated())
    if repeated.height:
        raise DataError(
            f"labels: '{repeated['test_id'][0]}' is given twice or more; expected one row for each "
            "test image"
        )
    return {row["test_id"]: row for row in joined.iter_rows(named=True)}


def _split_folders(source: Path) -> dict[str, Path]:
    """Find the split folders, whatever the case of their names."""
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    children = {path.name.lower(): path for path in source.iterdir() if path.is_dir()}
    found = {
        split: children[name.lower()]
        for split, name in FOLDER_OF_SPLIT.items()
        if name.lower() in children
    }
    if not found:
        raise DataError(f"{source}: expected Train/, Validation/ or Test/; found none of them")
    return found


def _import_split(
    split: str,
    folder: Path,
    label_of: Mapping[str, Mapping[str, Any]],
    out: Path,
    per_shard: int,
    counts: Counter[str],
) -> Iterator[Path]:
    originals = sorted((folder / "images" / "Original").glob("*.png"))
    if not originals:
        raise DataError(f"{folder / 'images' / 'Original'}: no reference images (*.png)")
    tests = _labelled_tests(folder / "images", label_of, counts)
    kept = [path for path in originals if path.stem in tests]
    counts["references without labelled image"] += len(originals) - len(kept)
    shards = -(-len(kept) // per_shard)
    for number in track(range(shards), f"import {split}", unit="shard"):
        path = out / f"{split}-{number:05}.tar"
        chosen = sorted(kept[number::shards], key=lambda reference: reference.stem.lower())
        write_tar(path, _members(chosen, tests, label_of, split), is_sorted=False)
        counts["references"] += len(chosen)
        yield path


def _labelled_tests(
    images: Path, label_of: Mapping[str, Mapping[str, Any]], counts: Counter[str]
) -> dict[str, dict[str, Path]]:
    """Test images that have a label: stem -> "01".."06" -> path."""
    tests: dict[str, dict[str, Path]] = {}
    for folder in sorted(path for path in images.iterdir() if path.name.isdigit()):
        for path in sorted(folder.glob("*.png")):
            stem, _, kk = path.stem.partition("_")
            if path.stem in label_of and kk == folder.name:
                tests.setdefault(stem, {})[kk] = path
                counts["tests"] += 1
            else:
                counts["tests without label"] += 1
    return tests


def _members(
    references: Iterable[Path],
    tests: Mapping[str, Mapping[str, Path]],
    label_of: Mapping[str, Mapping[str, Any]],
    split: str,
) -> Iterator[tuple[str, bytes]]:
    for reference in references:
        key = check_key(reference.stem.lower())
        content = reference.read_bytes()
        width, height = png_size(content, where=str(reference))
        described: dict[str, Any] = {}
        for kk, path in sorted(tests[reference.stem].items()):
            image = path.read_bytes()
            if png_size(image, where=str(path)) != (width, height):
                raise DataError(f"{path}: its size differs from its reference's, {width}x{height}")
            described[kk] = describe_test({}, label_of[path.stem])
            yield f"{key}.{kk}.png", image
        record = {
            "crop_id": key,
            "split": split,
            "is_synthetic": any(test["is_synthetic"] for test in described.values()),
            "tests": described,
        }
        yield f"{key}.json", encode_record(record)
        yield f"{key}.ref.png", content
