"""Which triplets an iteration trains on: a pure function of seed, phase and iteration.

Nothing has to be saved to resume, and the number of processes changes nothing: each takes
its part of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from runtime.errors import DataError
from runtime.seeds import rng

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Rows of one iteration.

    Attributes:
        rows: positions in the table of triplets.
        versions: which flip or transpose each row is shown in, 0 to 7.
    """

    rows: Indices
    versions: Indices

    def part(self, number: int, count: int) -> "Batch":
        """The part of one of `count` processes; parts differ in length by at most one row."""
        chosen = np.array_split(np.arange(len(self.rows)), count)[number]
        return Batch(self.rows[chosen], self.versions[chosen])


class RandomOrder:
    """Rows of all contents mixed; each epoch is a permutation, a remainder is dropped.

    Args:
        total: number of rows.
        batch: rows per iteration.
        seed: seed of the run.
        phase: name that keys the draws.
        versions: number of flips and transposes to draw from (1 or 8).
    """

    def __init__(self, total: int, *, batch: int, seed: int, phase: str, versions: int) -> None:
        if total < 1:
            raise DataError("there are no triplets to train on: check the labels and splits")
        self._total, self._batch = total, min(batch, total)
        self._seed, self._phase, self._versions = seed, phase, versions
        self._epoch, self._permutation = -1, np.zeros(0, dtype=np.int64)

    def batch(self, iteration: int) -> Batch:
        """Rows of an iteration, counted from 1."""
        per_epoch = self._total // self._batch
        epoch, position = divmod(iteration - 1, per_epoch)
        if epoch != self._epoch:
            draw = rng(self._seed, "afine.order", self._phase, epoch)
            self._epoch, self._permutation = epoch, draw.permutation(self._total)
        rows = self._permutation[position * self._batch : (position + 1) * self._batch]
        draw = rng(self._seed, "afine.augment", self._phase, iteration)
        return Batch(rows, draw.integers(0, self._versions, size=len(rows)))


class GroupedOrder:
    """Whole groups of rows that share a reference, so that their images are encoded once.

    Groups per batch is the number that gives about `batch` rows on average.

    Args:
        groups: rows of each group.
        batch: rows per iteration, on average.
        seed: seed of the run.
        phase: name that keys the draws.
        versions: number of flips and transposes; one is drawn per group.
    """

    def __init__(
        self, groups: Sequence[Indices], *, batch: int, seed: int, phase: str, versions: int
    ) -> None:
        if not groups:
            raise DataError("there are no triplets to train on: check the labels and splits")
        self._groups, self._versions = groups, versions
        mean_rows = sum(len(group) for group in groups) / len(groups)
        per_batch = max(1, round(batch / mean_rows))
        self._order = RandomOrder(
            len(groups), batch=per_batch, seed=seed, phase=phase, versions=versions
        )

    def batch(self, iteration: int) -> Batch:
        """Rows of an iteration, counted from 1, group by group."""
        chosen = self._order.batch(iteration)
        groups = [self._groups[number] for number in chosen.rows]
        lengths = [len(group) for group in groups]
        return Batch(np.concatenate(groups), np.repeat(chosen.versions, lengths))


def group_rows(triplets: pl.DataFrame, *, limit: int) -> list[Indices]:
    """Cut a table of triplets into groups of one content, at most `limit` rows each.

    Rows of one content are ordered by their images first, so that a cut content keeps rows
    with common images together.
    """
    ordered = triplets.with_row_index("row").sort("set", "content", "image1", "image2").to_dict()
    places = list(zip(ordered["set"], ordered["content"], strict=True))
    rows = ordered["row"].to_numpy().astype(np.int64)
    starts = [i for i in range(len(places)) if i == 0 or places[i] != places[i - 1]]
    groups: list[Indices] = []
    for start, end in zip(starts, [*starts[1:], len(places)], strict=True):
        parts = -(-(end - start) // limit)
        groups.extend(np.array_split(rows[start:end], parts))
    return groups


def repeated_rows(sets: pl.Series, balance: str) -> Indices:
    """Rows to train on: each once, or small sets repeated (coded but unused in the release).

    Repeating: every traditional set floor(longest / its length) times; DiffIQA
    floor(sum of those / its length) + 1 times.
    """
    rows = np.arange(len(sets), dtype=np.int64)
    if balance == "none" or not len(sets):
        return rows
    names = sets.to_numpy()
    lengths = {str(name): int((names == name).sum()) for name in np.unique(names)}
    longest = max(lengths.values())
    repeats = {name: longest // count for name, count in lengths.items() if name != "diffiqa"}
    if "diffiqa" in lengths:
        others = sum(repeats[name] * lengths[name] for name in repeats)
        repeats["diffiqa"] = others // lengths["diffiqa"] + 1
    return np.concatenate([np.tile(rows[names == name], repeats[name]) for name in sorted(repeats)])
