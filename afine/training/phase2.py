"""Phase 2: the fidelity head learns how much each channel's difference matters.

The backbone is frozen, so the differences of every pair are computed once (`cache`); an
iteration is then two products of a batch of vectors with the weights.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from afine.config import Phase2Config
from afine.model import AFine
from afine.training.frozen import CachedPairs, caches, load_phase, sets_of_phase2, whole
from afine.training.loop import run_loop
from afine.training.loss import fidelity_loss, pair_measures
from afine.training.optimizer import adamw, set_rates
from afine.training.order import Batch
from afine.training.session import Session, open_session
from afine.weights import save
from runtime.settings import RunSettings

_VALIDATION_ROWS = 512


def run_phase2(run: RunSettings, *, replace: bool = False, limit: int | None = None) -> None:
    """Train phase 2 of a run; writes `afine/phase2/model.safetensors`."""
    session = open_session(run, 2, replace=replace)
    if session.stage.is_complete:
        return
    model = load_phase(session, 1)
    trainer = Phase2Trainer(model, session)
    # the fit itself is a few milliseconds an iteration: processes share the encoding only
    if session.accelerator.is_main_process:
        settings = session.settings.phase2
        facts = run_loop(trainer, settings, settings.iterations, session.places(), limit=limit)
        file = session.folder / "model.safetensors"
        save(model, file)
        session.stage.finish(
            counts={"triplets": trainer.total, "iterations": settings.iterations},
            files=[file],
            sets=trainer.sets,
            **facts,
        )
        session.stage.clear_state()
    session.accelerator.wait_for_everyone()


class Phase2Trainer:
    """Updates of phase 2.

    Args:
        model: its fidelity head is trained in place.
        session: the phase's settings, data and processes.
    """

    def __init__(self, model: AFine, session: Session) -> None:
        self.settings: Phase2Config = session.settings.phase2
        self.sets = sets_of_phase2(session)
        train = session.balanced(session.triplets("train", set(self.sets)))
        validation = session.triplets("val", set(self.sets))
        self.total = len(train)
        self._train = CachedPairs(
            train, caches(session, model, self.sets, "train", kind="difference")
        )
        self._validation = CachedPairs(
            validation, caches(session, model, self.sets, "val", kind="difference")
        )
        self._whole = whole(validation)
        self._head, self._device = model.fidelity.to(session.device), session.device
        self._order = session.order(train, batch=self.settings.batch)
        self._optimizer = adamw(
            [{"params": list(self._head.parameters()), "lr": self.settings.lr}],
            self.settings.schedule,
        )

    def step(self, iteration: int) -> Mapping[str, float]:
        """Do one update on the batch of an iteration."""
        rate = set_rates(self._optimizer, iteration, self.settings.schedule)
        batch = self._order.batch(iteration)
        u1, u2 = (self._fidelity(self._train, column, batch) for column in ("image1", "image2"))
        label = self._train.label12[batch.rows].to(self._device)
        loss = fidelity_loss(u1, u2, label).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return {"loss": float(loss.detach()), "lr": rate}

    def _fidelity(self, pairs: CachedPairs, column: str, batch: Batch) -> Tensor:
        fidelity: Tensor = self._head(pairs.differences(column, batch).to(self._device))
        return fidelity

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Accuracy and loss of the fidelity alone on the validation split."""
        if not len(self._whole.rows):
            return {}
        parts = max(1, len(self._whole.rows) // _VALIDATION_ROWS)
        scores = [
            torch.cat(
                [
                    self._fidelity(self._validation, column, self._whole.part(n, parts)).cpu()
                    for n in range(parts)
                ]
            )
            for column in ("image1", "image2")
        ]
        return pair_measures(scores[0], scores[1], self._validation.label12)

    def state(self) -> dict[str, Any]:
        """Weights and moments."""
        return {"head": self._head.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self._head.load_state_dict(state["head"])
        self._optimizer.load_state_dict(state["optimizer"])

    def weights(self) -> dict[str, Any]:
        """Copy of the weights."""
        return {k: v.detach().cpu().clone() for k, v in self._head.state_dict().items()}

    def load_weights(self, weights: dict[str, Any]) -> None:
        """Take back what `weights` returned."""
        self._head.load_state_dict(weights)
