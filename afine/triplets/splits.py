"""Splits of the traditional sets: 7:1:2 by content, kept in a file with seed and hash."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.atomic import read_json, write_json
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


class SplitFile:
    """The splits of all sets in one JSON file; sets that are missing in it are added.

    Args:
        path: the file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._splits: dict[str, Any] = (
            read_json(path, what="file of splits") if path.is_file() else {}
        )

    def split_of(
        self, set_name: str, contents: Iterable[str], *, seed: int, shares: Shares
    ) -> dict[str, str]:
        """Return content -> split, from the file, or drawn and added to it.

        Raises:
            DataError: the file's split is of other contents.
        """
        names = sorted(set(contents))
        if set_name not in self._splits:
            self._splits[set_name] = draw_split(names, seed=seed, set_name=set_name, shares=shares)
            write_json(self._path, self._splits)
        stored = self._splits[set_name]
        if stored["contents_sha256"] != contents_hash(names):
            raise DataError(
                f"{self._path}: the split of '{set_name}' was made for other contents than the "
                f"{len(names)} found; complete the set, or delete the entry to draw a new split"
            )
        return {name: split for split in ("train", "val", "test") for name in stored[split]}
