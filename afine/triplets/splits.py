"""Splits of the traditional sets: 7:1:2 by content, with the seed and a hash of the contents."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.atomic import read_json
from runtime.errors import DataError
from runtime.seeds import rng


@dataclass(frozen=True)
class Shares:
    """Fractions of contents; what is left over is for validation."""

    train: float
    test: float


def draw_split(contents: Iterable[str], *, seed: int, set_name: str, shares: Shares) -> Any:
    """Split contents, independent of their order.

    Counts are rounded as in the release: train, then test, and validation gets the rest.

    Returns:
        {"seed", "contents_sha256", "train": [...], "val": [...], "test": [...]}.
    """
    names = sorted(set(contents))
    order = [names[i] for i in rng(seed, "afine.splits", set_name).permutation(len(names))]
    train, test = round(shares.train * len(names)), round(shares.test * len(names))
    return {
        "seed": seed,
        "contents_sha256": contents_hash(names),
        "train": sorted(order[:train]),
        "test": sorted(order[train : train + test]),
        "val": sorted(order[train + test :]),
    }


def contents_hash(contents: Iterable[str]) -> str:
    """Hash of a set's content names."""
    return hashlib.sha256("\n".join(sorted(set(contents))).encode("utf-8")).hexdigest()


class Splits:
    """The splits of all sets: as a file has them, the others drawn.

    Args:
        fixed: file with splits to keep, for example another run's; None: all are drawn.
    Attributes:
        used: the split of every set that was asked for, as `draw_split` gives it.
    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, fixed: Path | None) -> None:
        self._path = fixed
        self._fixed = _read_fixed(fixed) if fixed else {}
        self.used: dict[str, Any] = {}

    def split_of(
        self, set_name: str, contents: Iterable[str], *, seed: int, shares: Shares
    ) -> dict[str, str]:
        """Return content -> split, from the file, or drawn.

        Raises:
            DataError: the file's split is of other contents.
        """
        names = sorted(set(contents))
        split = self._fixed.get(set_name)
        if split is None:
            split = draw_split(names, seed=seed, set_name=set_name, shares=shares)
        elif split["contents_sha256"] != contents_hash(names):
            raise DataError(
                f"{self._path}: the split of '{set_name}' was made for other contents than the "
                f"{len(names)} found; complete the set, or delete the entry to draw a new split"
            )
        self.used[set_name] = split
        return {name: part for part in ("train", "val", "test") for name in split[part]}


def _read_fixed(path: Path) -> dict[str, Any]:
    keys = {"contents_sha256", "train", "val", "test"}
    splits = read_json(path, what="file of splits")
    if not isinstance(splits, dict):
        raise DataError(f"{path}: expected an object of splits, found {type(splits).__name__}")
    for name, split in splits.items():
        missing = keys - set(split if isinstance(split, dict) else ())
        if missing:
            raise DataError(
                f"{path}: the split of '{name}' has no {', '.join(sorted(missing))}; name a file "
                "that `afine triplets` wrote (splits.json)"
            )
    return splits
