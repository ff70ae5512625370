"""Which reference goes into which shard, and in which order.

References are dealt to shards by a keyed hash, so that the crops of one photograph do not
lie together: a training loop that reads shard by shard sees a mix.

Hugging Face `datasets` infers the fields of a WebDataset from the first five samples of a
shard and fails when a later sample holds a value where those five held none. So a shard
opens with up to five complete references that between them show as many fields as
possible; the others follow in the order of their keys.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from runtime.seeds import item_seed
from shards.assemble import Entry
from shards.sources import SPLITS

_OPENERS = 5


@dataclass(frozen=True)
class Shard:
    """One tar of the dataset.

    Attributes:
        split: train, val or test.
        number: from 0 within the split.
        crop_ids: its references, sorted.
    """

    split: str
    number: int
    crop_ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """File name of the tar."""
        return f"{self.split}-{self.number:05}.tar"


def plan_shards(crops: pl.DataFrame, per_shard: int, run_seed: int) -> list[Shard]:
    """Deal references to shards of at most `per_shard`, split by split.

    The shards of a split differ by at most one reference in size.
    """
    shards: list[Shard] = []
    for split in SPLITS:
        ids = crops.filter(pl.col("split") == split)["crop_id"].to_list()
        mixed = sorted(ids, key=lambda key: (item_seed(run_seed, "shards.layout", key), key))
        count = -(-len(mixed) // per_shard)
        shards += [Shard(split, n, tuple(sorted(mixed[n::count]))) for n in range(count)]
    return shards


def opening_order(entries: Sequence[Entry]) -> list[Entry]:
    """Put up to five complete references first that show the most fields; see the module's text."""
    most = max((len(entry.tests) for entry in entries), default=0)
    candidates = {entry.key: set(_filled(entry.record())) for entry in entries
                  if len(entry.tests) == most}  # fmt: skip
    openers: list[str] = []
    seen: set[str] = set()
    while candidates and len(openers) < _OPENERS:
        # the first of the equally good ones: max keeps the order of the keys
        best = max(candidates, key=lambda key: len(candidates[key] - seen))
        seen |= candidates.pop(best)
        openers.append(best)
    by_key = {entry.key: entry for entry in entries}
    return [by_key[key] for key in openers] + [e for e in entries if e.key not in set(openers)]


def _filled(value: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of the fields that hold a value."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _filled(inner, f"{prefix}{name}.")
        elif inner is not None:
            yield f"{prefix}{name}"
