"""Phase 1: the backbone and the naturalness head learn which of two images looks better.

Each image of a batch goes through the backbone once, whatever number of rows it is in
(the reference of an (x, ref, ref) row twice in the release), images of one size together.
All gradients are averaged over the processes, the backbone's too.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace as replace_fields
from functools import partial
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

from afine.backbone import TrunkShape
from afine.config import ModelConfig, Phase1Config
from afine.model import AFine
from afine.training.loop import run_loop
from afine.training.naturalness import (
    NaturalnessNet,
    Part,
    TripletColumns,
    cut,
    naturalness_measures,
    score_shown,
)
from afine.training.optimizer import adamw, set_rates
from afine.training.order import GroupedOrder, RandomOrder
from afine.training.session import Session, open_session
from afine.weights import backbone_shape, is_afine_file, load, load_backbone, save
from runtime.errors import ConfigError
from runtime.ranks import any_rank, check_ranks_agree
from runtime.seeds import item_seed
from runtime.settings import RunSettings


def run_phase1(run: RunSettings, *, replace: bool = False, limit: int | None = None) -> None:
    """Train phase 1 of a run; writes `afine/phase1/model.safetensors`."""
    session = open_session(run, 1, replace=replace)
    if session.stage.is_complete:
        return
    settings = session.settings.phase1
    model = start_model(session.settings.model, seed=run.seed)
    trainer = Phase1Trainer(model, session)
    places = replace_fields(session.places(), any_process=partial(any_rank, session.accelerator))
    facts = run_loop(trainer, settings, settings.iterations, places, limit=limit)
    if session.accelerator.is_main_process:
        file = session.folder / "model.safetensors"
        save(model, file)
        session.stage.finish(
            counts={"triplets": len(trainer.triplets), "iterations": settings.iterations},
            files=[file],
            **facts,
        )
        session.stage.clear_state()
    session.accelerator.wait_for_everyone()


def start_model(settings: ModelConfig, *, seed: int) -> AFine:
    """Make the model that phase 1 starts from: random, CLIP's backbone, or a whole A-FINE."""
    start = item_seed(seed, "afine.init")
    if settings.backbone == "random":
        shape = TrunkShape(
            settings.width,
            settings.layers,
            settings.patch_px,
            settings.head_width,
            settings.image_px,
        )
        model = AFine(shape, settings.hidden)
        model.initialise(start)
        return model
    if is_afine_file(settings.backbone):
        return load(settings.backbone)
    model = AFine(backbone_shape(settings.backbone), settings.hidden)
    model.initialise_heads(torch.Generator().manual_seed(start))
    load_backbone(model, settings.backbone)
    return model


class Phase1Trainer:
    """Updates of phase 1.

    Args:
        model: trained in place.
        session: the phase's settings, data and processes.
    """

    def __init__(self, model: AFine, session: Session) -> None:
        self.settings: Phase1Config = session.settings.phase1
        self.triplets = session.balanced(session.triplets("train"))
        self._rows = TripletColumns(self.triplets)
        self._validation = session.triplets("val")
        self._store, self._session = session.store(), session
        self._accelerator = session.accelerator
        model.to(session.device)
        self._net = NaturalnessNet(model, precision=self.settings.precision)
        self._wrapped = self._accelerator.prepare_model(self._net)
        self._optimizer = make_optimizer(self._net, self.settings)
        self._order = self._make_order()

    def _make_order(self) -> RandomOrder | GroupedOrder:
        if self.settings.batching == "grouped":
            return self._session.grouped_order(
                self.triplets, batch=self.settings.batch, limit=self.settings.group_rows
            )
        return self._session.order(self.triplets, batch=self.settings.batch)

    def step(self, iteration: int) -> Mapping[str, float]:
        """Do one update on the batch of an iteration."""
        rate = set_rates(self._optimizer, iteration, self.settings.schedule)
        whole = self._order.batch(iteration)
        count = self._accelerator.num_processes
        mine = whole.part(self._accelerator.process_index, count)
        if not len(mine.rows):
            raise ConfigError(
                f"afine.phase1.batch: {len(whole.rows)} rows for {count} processes; raise it"
            )
        parts = list(cut(mine, self._rows, limit=self.settings.micro_images))
        self._prefetch(iteration + 1)
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=torch.float64, device=self._accelerator.device)
        for number, part in enumerate(parts, start=1):
            is_last = number == len(parts)
            with nullcontext() if is_last else self._accelerator.no_sync(self._wrapped):
                loss = self._loss(part) / len(whole.rows)
                # processes are averaged, so each counts `count` times its share of the batch
                self._accelerator.backward(loss * count)
            total += loss.detach()
        self._optimizer.step()
        return {"loss": float(self._accelerator.reduce(total, "sum")), "lr": rate}

    def _prefetch(self, iteration: int) -> None:
        """Decode the images of the next batch while this one is computed."""
        if iteration > self.settings.iterations:
            return
        part = self._order.batch(iteration).part(
            self._accelerator.process_index, self._accelerator.num_processes
        )
        for column in self._rows.keys.values():
            self._store.prefetch(column[row] for row in part.rows)

    def _loss(self, part: Part) -> Tensor:
        """Sum over rows and pairs of the fidelity loss."""
        scores = score_shown(self._wrapped, self._store, list(part.shown), self._session.device)
        return self._rows.losses(part, scores, self.settings.pairs).sum()

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Accuracy and loss of the naturalness alone on the validation split."""
        measures: dict[str, float] = {}
        if self._accelerator.is_main_process and len(self._validation):
            measures = naturalness_measures(
                self._net,
                self._store,
                self._validation,
                limit=self.settings.micro_images,
                device=self._session.device,
            )
        shared = [measures]
        broadcast_object_list(shared)
        return shared[0]

    def state(self) -> dict[str, Any]:
        """Weights, which must be the same on every process, and moments."""
        weights = self._net.state_dict()
        check_ranks_agree(self._accelerator, weights, where="afine train, phase 1")
        return {"net": weights, "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self._net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])

    def weights(self) -> dict[str, Any]:
        """Copy of the weights."""
        return {
            name: value.detach().cpu().clone() for name, value in self._net.state_dict().items()
        }

    def load_weights(self, weights: dict[str, Any]) -> None:
        """Take back what `weights` returned."""
        self._net.load_state_dict(weights)


def make_optimizer(net: NaturalnessNet, settings: Phase1Config) -> torch.optim.AdamW:
    """AdamW on backbone and head, which may have a learning rate of its own."""
    groups = [
        {"params": list(net.backbone.parameters()), "lr": settings.lr},
        {"params": list(net.head.parameters()), "lr": settings.head_lr or settings.lr},
    ]
    return adamw(groups, settings.schedule)
