"""Read a dataset's shards reference by reference."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import DataError
from runtime.tars import iter_samples
from shards.sources import SPLITS

_TAR_NAME = re.compile(r"(train|val|test)-(\d{5})\.tar")


@dataclass(frozen=True)
class Reference:
    """One sample of a dataset.

    Attributes:
        key: its crop_id.
        split: train, val or test.
        reference_png: the reference, as PNG.
        test_pngs: the test images "01".."06", as PNG.
        record: the sample's JSON.
    """

    key: str
    split: str
    reference_png: bytes
    test_pngs: Mapping[str, bytes]
    record: Mapping[str, Any]


def dataset_tars(folder: str | Path) -> dict[str, list[Path]]:
    """List the shards of each split, in order.

    Raises:
        DataError: the folder holds no shard.
    """
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in sorted(Path(folder).glob("*.tar")):
        match = _TAR_NAME.fullmatch(path.name)
        if match:
            found[match.group(1)].append(path)
    if not any(found.values()):
        raise DataError(f"{folder}: no shards ({{train,val,test}}-00000.tar); run `shards write`")
    return {split: paths for split, paths in found.items() if paths}


def iter_references(folder: str | Path, split: str | None = None) -> Iterator[Reference]:
    """Read the samples of a dataset, or of one split of it.

    Args:
        folder: `dataset/` of a run, or a folder with shards of the same layout.
        split: train, val or test; all of them by default.

    Raises:
        DataError: no shards, or a sample lacks a member.
    """
    for name, paths in dataset_tars(folder).items():
        if split is None or name == split:
            for path in paths:
                for key, members in iter_samples(path):
                    yield _reference(path, name, key, members)


def _reference(path: Path, split: str, key: str, members: Mapping[str, bytes]) -> Reference:
    for needed in ("json", "ref.png"):
        if needed not in members:
            raise DataError(f"{path}: sample '{key}' lacks '{key}.{needed}'; write the shard again")
    record = json.loads(members["json"])
    tests = {kk: members[f"{kk}.png"] for kk in record["tests"] if f"{kk}.png" in members}
    missing = set(record["tests"]) - set(tests)
    if missing:
        raise DataError(f"{path}: sample '{key}' lacks '{key}.{min(missing)}.png'")
    return Reference(key, split, members["ref.png"], tests, record)
