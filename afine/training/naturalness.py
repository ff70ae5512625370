"""Naturalness of the images of a batch of triplets: each image once, one size at a time."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from afine.model import AFine
from afine.pixels import ImageStore, Key, to_batch01
from afine.training.augment import dihedral_u8
from afine.training.loss import fidelity_loss, pair_measures
from afine.training.order import Batch, Indices

# pairs of a row whose losses are summed: columns of its two images, column of its label
PAIRS = {
    "release": (
        ("image1", "image2", "label12"),
        ("image1", "ref", "label1r"),
        ("image2", "ref", "label2r"),
    ),
    "paper": (("image1", "image2", "label12"),),
}
Shown = tuple[Key, int]  # an image in one of its eight versions


class NaturalnessNet(nn.Module):
    """Backbone and naturalness head as one module, so that one wrapper synchronises both."""

    def __init__(self, model: AFine, *, precision: str) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.naturalness
        self._model = (model,)  # in a tuple: not a submodule, the rest is not trained here
        self._is_bfloat16 = precision == "bfloat16"

    def forward(self, batches: Sequence[Tensor]) -> Tensor:
        """Score images given as batches of one size each; returns all scores in this order."""
        return torch.cat([self._score(images) for images in batches])

    def _score(self, images01: Tensor) -> Tensor:
        kind = images01.device.type
        with torch.autocast(kind, torch.bfloat16) if self._is_bfloat16 else nullcontext():
            encoded = self._model[0].encode(images01, is_for_pairs=False)
        return self._model[0].raw_naturalness(encoded)


@dataclass(frozen=True)
class Part:
    """Rows whose images go through the backbone together.

    Attributes:
        rows: positions in the table of triplets.
        versions: how each row is shown.
        shown: the different images of the rows -> position of their score.
    """

    rows: Indices
    versions: list[int]
    shown: dict[Shown, int]


class TripletColumns:
    """Columns of a table of triplets, in the form that training indexes."""

    def __init__(self, triplets: pl.DataFrame) -> None:
        sets = triplets["set"].to_list()
        self.keys: dict[str, list[Key]] = {
            column: list(zip(sets, triplets[column].to_list(), strict=True))
            for column in ("image1", "image2", "ref")
        }
        self.labels = {
            column: torch.from_numpy(triplets[column].to_numpy().copy())
            for column in ("label12", "label1r", "label2r")
        }

    def losses(self, part: Part, scores: Tensor, pairs: str) -> Tensor:
        """Loss of each row of a part, summed over its pairs, float64 [rows]."""
        versions = part.versions
        total = torch.zeros(len(part.rows), dtype=torch.float64, device=scores.device)
        for first, second, label in PAIRS[pairs]:
            u1, u2 = (
                scores[[part.shown[(self.keys[c][r], v)] for r, v in zip(part.rows, versions)]]
                for c in (first, second)
            )
            total = total + fidelity_loss(u1, u2, self.labels[label][part.rows].to(scores.device))
        return total


def cut(batch: Batch, columns: TripletColumns, *, limit: int) -> Iterator[Part]:
    """Cut a batch into parts of at most `limit` different images (at least one row each)."""
    rows: list[int] = []
    versions: list[int] = []
    shown: dict[Shown, int] = {}
    for row, version in zip(batch.rows.tolist(), batch.versions.tolist(), strict=True):
        own = {(columns.keys[column][row], version) for column in columns.keys}
        if rows and len(shown.keys() | own) > limit:
            yield Part(np.array(rows), versions, shown)
            rows, versions, shown = [], [], {}
        rows.append(row)
        versions.append(version)
        for image in sorted(own):
            shown.setdefault(image, len(shown))
    yield Part(np.array(rows), versions, shown)


def score_shown(
    net: nn.Module, store: ImageStore, shown: Sequence[Shown], device: torch.device
) -> Tensor:
    """Score images, those of one size together; [len(shown)] in the order given."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    pictures = [dihedral_u8(store.read(key), version) for key, version in shown]
    for position, picture in enumerate(pictures):
        sizes.setdefault(picture.shape, []).append(position)
    batches = [to_batch01([pictures[p] for p in places], device) for places in sizes.values()]
    scores = cast(Tensor, net(batches))
    places = torch.tensor([p for group in sizes.values() for p in group], device=device)
    return scores[torch.argsort(places)]


@torch.no_grad()
def naturalness_measures(
    net: nn.Module,
    store: ImageStore,
    triplets: pl.DataFrame,
    *,
    limit: int,
    device: torch.device,
) -> dict[str, float]:
    """Accuracy (rows that are no ties) and mean loss, from naturalness alone."""
    columns = TripletColumns(triplets)
    keys = sorted({key for column in columns.keys.values() for key in column})
    scores: dict[Key, float] = {}
    for start in range(0, len(keys), limit):
        chunk = keys[start : start + limit]
        values = score_shown(net, store, [(key, 0) for key in chunk], device)
        scores |= dict(zip(chunk, values.tolist(), strict=True))
    u1, u2 = (torch.tensor([scores[key] for key in columns.keys[c]]) for c in ("image1", "image2"))
    return pair_measures(u1, u2, columns.labels["label12"])
