"""Cached statistics of phases 2 and 3: the backbone is frozen, so each image is encoded once.

Per set and split one folder of memory-mapped arrays, one row per image and version:

    naturalness  [images, versions]          raw naturalness of the image
    difference   [images, versions, 2, K]    texture and structure differences to its reference
    fidelity     [images, versions]          raw fidelity, where the fidelity head is final

`difference` is what phase 2 needs (2 K numbers a pair, 73.7 KB in float32 for ViT-B/32);
sets that only phase 3 reads keep one fidelity a pair instead. A reference's own row is zero.
Extraction resumes at the content where it was interrupted, and several processes share it.
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from afine.model import AFine
from afine.pixels import ImageStore, Key, to_batch01
from afine.statistics import Encoded, differences
from afine.training.augment import dihedral_u8
from runtime.atomic import read_json, write_json
from runtime.errors import DataError
from runtime.progress import Progress

_log = logging.getLogger(__name__)
_FLUSH_EVERY = 16
_READY = "ready.json"


@dataclass(frozen=True)
class CacheSpec:
    """What is cached of one set and split.

    Attributes:
        folder: where.
        versions: flips and transposes (1 or 8).
        kind: "difference" or "fidelity".
        dtype: of the differences.
    """

    folder: Path
    versions: int
    kind: str
    dtype: str = "float32"


class CachedSet:
    """Statistics of one set and split, by image.

    Args:
        spec: place and kind.
        images: its rows of the table of images, in the table's order.
        channels: K.
    """

    def __init__(self, spec: CacheSpec, images: pl.DataFrame, channels: int) -> None:
        self.spec, self.images, self.channels = spec, images, channels
        sets, names = images["set"].to_list(), images["image"].to_list()
        self._keys: list[Key] = list(zip(sets, names, strict=True))
        self._is_ref = images["is_ref"].to_list()
        self.index: dict[Key, int] = {key: row for row, key in enumerate(self._keys)}
        self._contents = images["content"].unique(maintain_order=True).to_list()
        shape = (len(images), spec.versions)
        wide = (*shape, 2, channels) if spec.kind == "difference" else shape
        self.naturalness = self._array("naturalness", shape, "float32")
        self.pairs = self._array(
            spec.kind, wide, spec.dtype if spec.kind == "difference" else "float32"
        )
        self._done = self._array("done", (len(self._contents),), "uint8")

    def _array(self, name: str, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
        path = self.spec.folder / f"{name}.npy"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")  # a kill never leaves a cut file for the array
            np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape).flush()
            partial.replace(path)
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r+")
        if array.shape != shape or array.dtype != np.dtype(dtype):
            raise DataError(
                f"{path}: is {array.dtype} {array.shape}, expected {dtype} {shape}; delete it"
            )
        return array

    @property
    def is_ready(self) -> bool:
        """Whether every content is cached."""
        return bool(np.all(self._done))

    def build(
        self,
        model: AFine,
        store: ImageStore,
        *,
        images_per_batch: int,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        """Encode the contents that are not cached yet; each process takes its share."""
        number, count = process
        groups = list(self._groups())
        mine = [g for g in groups[number::count] if not self._done[g[0]]]
        waiting: list[int] = []
        with Progress(len(mine), f"encode {self.spec.folder.name}", unit="content") as progress:
            for content, rows in mine:
                for version in range(self.spec.versions):
                    self._encode(model, store, rows, version, images_per_batch)
                waiting.append(content)
                if len(waiting) == _FLUSH_EVERY:
                    self._flush(waiting)
                progress.advance()
            self._flush(waiting)

    def _groups(self) -> Iterator[tuple[int, list[int]]]:
        """(number of the content, its rows)."""
        rows: dict[str, list[int]] = {name: [] for name in self._contents}
        for row, name in enumerate(self.images["content"].to_list()):
            rows[name].append(row)
        yield from ((number, rows[name]) for number, name in enumerate(self._contents))

    def _flush(self, waiting: list[int]) -> None:
        """Put the data on disk before the mark that says that it is there."""
        for array in (self.naturalness, self.pairs):
            array.flush()  # type: ignore[attr-defined]
        self._done[waiting] = 1
        self._done.flush()  # type: ignore[attr-defined]
        waiting.clear()

    @torch.no_grad()
    def _encode(
        self, model: AFine, store: ImageStore, rows: Sequence[int], version: int, limit: int
    ) -> None:
        """Encode one content in one version: its reference once, its test images in batches."""
        device = model.adapter.k.device

        def encoded(chosen: Sequence[int]) -> Encoded:
            pictures = [dihedral_u8(store.read(self._keys[row]), version) for row in chosen]
            return model.encode(to_batch01(pictures, device))

        ref_row = next(row for row in rows if self._is_ref[row])
        ref = encoded([ref_row])
        self._put([ref_row], version, model.raw_naturalness(ref), None)
        tests = [row for row in rows if row != ref_row]
        for start in range(0, len(tests), limit):
            chosen = tests[start : start + limit]
            test = encoded(chosen)
            pairs = differences(test, ref)
            if self.spec.kind == "fidelity":
                pairs = model.fidelity(pairs)
            self._put(chosen, version, model.raw_naturalness(test), pairs)

    def _put(
        self, rows: Sequence[int], version: int, natural: Tensor, pairs: Tensor | None
    ) -> None:
        self.naturalness[rows, version] = natural.cpu().numpy()
        self.pairs[rows, version] = 0 if pairs is None else pairs.cpu().numpy()


def open_folder(base: Path, identity: dict[str, Any]) -> Path:
    """Return the folder of the caches that were made with `identity`; others are removed.

    Args:
        base: folder of one kind of caches.
        identity: what the caches rest on: weights, images, versions.
    """
    record = base / _READY
    if record.is_file() and read_json(record) == identity:
        return base
    if base.exists():  # without a record, a removal was interrupted
        _log.info("%s: cached statistics are of other weights or images, removing them", base)
        shutil.rmtree(base)
    write_json(record, identity)
    return base
