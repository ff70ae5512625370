"""Scores of every test image against its reference, by A-FINE and its peers."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from afine.evaluation.peers import Peer
from afine.model import AFine
from afine.pixels import ImageStore, to_batch01
from runtime.progress import Progress

_log = logging.getLogger(__name__)
AFINE_COLUMNS = ("afine", "afine_score100", "afine_naturalness", "afine_fidelity")


class Scorer:
    """Score the images of one content after the other; what is done is kept for resuming.

    Args:
        model: A-FINE, on its device.
        peers: the other metrics.
        store: pixels.
        images_per_batch: images in one forward pass.
    """

    def __init__(
        self, model: AFine, peers: Sequence[Peer], store: ImageStore, *, images_per_batch: int
    ) -> None:
        self._model, self._peers, self._store = model, peers, store
        self._limit = images_per_batch
        self._device = model.adapter.k.device

    def score_all(self, images: pl.DataFrame, record: Path) -> list[dict[str, Any]]:
        """Score every image of a table, the references too; one row per image.

        Args:
            images: rows of the table of images.
            record: file that finished contents are appended to, and taken from.
        """
        rows = read_record(record)
        done = {(row["set"], row["content"]) for row in rows}
        groups = images.partition_by(["set", "content"], maintain_order=True)
        waiting = [g for g in groups if (g["set"][0], g["content"][0]) not in done]
        with Progress(len(groups), "score", unit="content", done=len(groups) - len(waiting)) as bar:
            for group in waiting:
                scored = list(self._score_content(group))
                with open(record, "a", encoding="utf-8") as handle:
                    handle.write(json.dumps(scored) + "\n")
                rows += scored
                bar.advance()
        return rows

    @torch.inference_mode()
    def _score_content(self, group: pl.DataFrame) -> Iterator[dict[str, Any]]:
        set_name = group["set"][0]
        ref_name = group.filter(pl.col("is_ref"))["image"][0]
        ref01 = self._load(set_name, [ref_name])
        ref = self._model.encode(ref01)
        names = group["image"].to_list()
        for start in range(0, len(names), self._limit):
            chosen = names[start : start + self._limit]
            test01 = self._load(set_name, chosen)
            out = self._model.score_encoded(self._model.encode(test01), ref)
            columns: dict[str, list[float]] = {
                "afine": out.score.tolist(),
                "afine_score100": out.score100.tolist(),
                "afine_naturalness": out.naturalness_test.tolist(),
                "afine_fidelity": out.fidelity.tolist(),
            }
            for peer in self._peers:
                columns[peer.name] = self._peer_scores(peer, test01, ref01)
            for position, name in enumerate(chosen):
                values = {column: values[position] for column, values in columns.items()}
                yield {"set": set_name, "content": group["content"][0], "image": name, **values}

    def _load(self, set_name: str, names: Sequence[str]) -> Tensor:
        return to_batch01([self._store.read((set_name, name)) for name in names], self._device)

    def _peer_scores(self, peer: Peer, test01: Tensor, ref01: Tensor) -> list[float]:
        """Scores of a peer; nan for images that are too small for it."""
        if min(test01.shape[2:]) < peer.min_px:
            return [float("nan")] * len(test01)
        return [float(v) for v in peer.score(test01, ref01.expand_as(test01).contiguous())]


def read_record(path: Path) -> list[dict[str, Any]]:
    """Read finished contents; a last line cut short by a kill is left out."""
    rows: list[dict[str, Any]] = []
    if not path.is_file():
        return rows
    whole: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows += json.loads(line)
        except json.JSONDecodeError:
            _log.warning("%s: an unfinished line is left out", path)
            continue
        whole.append(line)
    path.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
    return rows
