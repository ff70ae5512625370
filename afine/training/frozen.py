"""What phases 2 and 3 share: caches of all sets, and pairs looked up in them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from afine.model import AFine
from afine.pixels import Key
from afine.training.cache import CachedSet, CacheSpec, open_folder
from afine.training.order import Batch, Indices
from afine.training.session import Session, phase_folder
from afine.weights import load
from runtime.atomic import sha256_file
from runtime.code_version import code_digest
from runtime.errors import ConfigError

TRAINED_ON = ("diffiqa", "kadid10k", "pipal", "tid2013")
PHASE2_RELEASE = ("kadid10k", "pipal", "tid2013")


def sets_of_phase2(session: Session) -> list[str]:
    """Sets that phase 2 trains on.

    Raises:
        ConfigError: the release's choice leaves none.
    """
    there = set(session.triplets("train")["set"].unique().to_list())
    wanted = PHASE2_RELEASE if session.settings.phase2.stage2_data == "release" else TRAINED_ON
    chosen = [name for name in wanted if name in there]
    if not chosen:
        raise ConfigError(
            f"{session.run.path}: afine.phase2.stage2_data is 'release', which leaves DiffIQA "
            f"out, and the training sets are {', '.join(sorted(there))}: choose 'paper', or name "
            "TID2013, KADID-10k or PIPAL in afine.data"
        )
    return chosen


def caches(
    session: Session, model: AFine, sets: Iterable[str], split: str, *, kind: str
) -> list[CachedSet]:
    """Open the caches of some sets and build what is missing.

    Args:
        session: the phase.
        model: phase 1's weights for "difference", phase 2's for "fidelity".
        sets: names of sets.
        split: train (all versions) or val (as they are).
        kind: "difference" or "fidelity".
    """
    weights = phase_folder(session.run.root, 1 if kind == "difference" else 2)
    identity = {
        "weights": sha256_file(weights / "model.safetensors"),
        "images": sha256_file(session.run.root / "afine" / "images.parquet"),
        "versions": session.versions,
        "precision": session.settings.cache.precision,
        "code": code_digest("afine.training.cache"),
    }
    base = session.run.root / "afine" / ".state" / "statistics" / kind
    with session.accelerator.main_process_first():
        open_folder(base, identity)
    model.to(session.device).eval()
    table, store = session.images(), session.store()
    found: list[CachedSet] = []
    for name in sets:
        images = table.filter((pl.col("set") == name) & (pl.col("split") == split))
        versions = session.versions if split == "train" else 1
        spec = CacheSpec(base / f"{name}-{split}", versions, kind, session.settings.cache.precision)
        with session.accelerator.main_process_first():
            cached = CachedSet(spec, images, 3 + model.shape.layers * model.shape.width)
        cached.build(
            model,
            store,
            images_per_batch=session.settings.cache.images_per_batch,
            process=(session.accelerator.process_index, session.accelerator.num_processes),
        )
        found.append(cached)
    session.accelerator.wait_for_everyone()
    return found


@dataclass(frozen=True)
class Places:
    """Where a column of images lies in the caches: number of the cache, row in it."""

    cache: Indices
    row: Indices

    def at(self, rows: Indices) -> "Places":
        """Places of some rows."""
        return Places(self.cache[rows], self.row[rows])


class CachedPairs:
    """Triplets whose images are looked up in caches.

    Args:
        triplets: the rows; their sets all have a cache.
        cached: the caches.
    """

    def __init__(self, triplets: pl.DataFrame, cached: list[CachedSet]) -> None:
        self.cached = cached
        where: dict[Key, tuple[int, int]] = {
            key: (number, row)
            for number, one in enumerate(cached)
            for key, row in one.index.items()
        }
        sets = triplets["set"].to_list()
        self.places: dict[str, Places] = {}
        for column in ("image1", "image2", "ref"):
            keys = zip(sets, triplets[column].to_list(), strict=True)
            found = np.array([where[key] for key in keys], dtype=np.int64).reshape(-1, 2)
            self.places[column] = Places(found[:, 0], found[:, 1])
        self.label12 = torch.from_numpy(triplets["label12"].to_numpy().copy())

    def differences(self, column: str, batch: Batch) -> Tensor:
        """Cached differences of a column of a batch, float32 [rows, 2 K]."""
        places = self.places[column].at(batch.rows)
        arrays = [one.pairs for one in self.cached]
        out = np.empty((len(batch.rows), *arrays[0].shape[2:]), dtype=np.float32)
        for number, array in enumerate(arrays):
            mine = places.cache == number
            out[mine] = array[places.row[mine], batch.versions[mine]]
        return torch.from_numpy(out).flatten(1)

    def all_versions(self, arrays: list[npt.NDArray[Any]], column: str) -> Tensor:
        """Numbers of every row's image of a column, float32 [rows, versions].

        Args:
            arrays: per cache, [images, versions].
            column: image1, image2 or ref.
        """
        places = self.places[column]
        out = np.empty((len(places.row), arrays[0].shape[1]), dtype=np.float32)
        for number, array in enumerate(arrays):
            mine = places.cache == number
            out[mine] = array[places.row[mine]]
        return torch.from_numpy(out)


def load_phase(session: Session, phase: int) -> AFine:
    """Load the model that a phase ended with."""
    return load(phase_folder(session.run.root, phase) / "model.safetensors")


def whole(triplets: pl.DataFrame) -> Batch:
    """All rows of a table as one batch, as they are."""
    return Batch(np.arange(len(triplets)), np.zeros(len(triplets), dtype=np.int64))
