"""Phase 3: five scalars learn how to weigh naturalness against fidelity.

Backbone and heads are frozen: every image is its raw naturalness, every pair its raw
fidelity. Trained are k, and centre and width of the two calibrations.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special
import torch
from torch import Tensor

from afine.config import Phase3Config
from afine.heads import TINY
from afine.model import AFine
from afine.training.cache import CachedSet
from afine.training.frozen import (
    TRAINED_ON,
    CachedPairs,
    caches,
    load_phase,
    sets_of_phase2,
    whole,
)
from afine.training.loop import run_loop
from afine.training.loss import fidelity_loss, pair_measures
from afine.training.optimizer import adamw, set_rates
from afine.training.order import Batch
from afine.training.session import Session, open_session
from afine.weights import save
from runtime.atomic import sha256_file
from runtime.errors import ConfigError
from runtime.settings import RunSettings

_CHUNK_ROWS = 256


def run_phase3(run: RunSettings, *, replace: bool = False, limit: int | None = None) -> None:
    """Train phase 3 of a run; writes `afine/afine.safetensors`, the trained A-FINE."""
    session = open_session(run, 3, replace=replace)
    if session.stage.is_complete:
        return
    model = load_phase(session, 2)
    train, validation = (PhaseData(session, model, split) for split in ("train", "val"))
    if session.accelerator.is_main_process:
        settings = session.settings.phase3
        trainer = Phase3Trainer(model, session, train, validation)
        facts = run_loop(trainer, settings, settings.iterations, session.places(), limit=limit)
        file = run.root / "afine" / "afine.safetensors"
        save(model, file)
        session.stage.finish(
            counts={"triplets": len(train.triplets), "iterations": settings.iterations},
            files=[],
            weights={"file": "afine/afine.safetensors", "sha256": sha256_file(file)},
            scalars=trainer.scalars(),
            natural_start=trainer.natural_start,
            **facts,
        )
        session.stage.clear_state()
    session.accelerator.wait_for_everyone()


class PhaseData:
    """Raw scores of every triplet of a split.

    Attributes:
        triplets: the rows.
        scores: natural1, natural2, natural_ref, fidelity1, fidelity2; float32 [rows, versions].
        rated: (raw naturalness, quality) of the rated images of each set, as they are.
    """

    def __init__(self, session: Session, model: AFine, split: str) -> None:
        table = session.triplets(split, set(TRAINED_ON))
        self.triplets = session.balanced(table) if split == "train" else table
        there = [name for name in TRAINED_ON if name in set(self.triplets["set"].unique())]
        wide = [name for name in sets_of_phase2(session) if name in there]
        narrow = [name for name in there if name not in wide]
        cached = [
            *caches(session, model, wide, split, kind="difference"),
            *caches(session, model, narrow, split, kind="fidelity"),
        ]
        fidelities = [_fidelities(one, model) for one in cached]
        pairs = CachedPairs(self.triplets, cached)
        natural = [one.naturalness for one in cached]
        self.scores = {
            "natural1": pairs.all_versions(natural, "image1"),
            "natural2": pairs.all_versions(natural, "image2"),
            "natural_ref": pairs.all_versions(natural, "ref"),
            "fidelity1": pairs.all_versions(fidelities, "image1"),
            "fidelity2": pairs.all_versions(fidelities, "image2"),
        }
        self.label12 = pairs.label12
        self.rated = {one.images["set"][0]: _rated(one) for one in cached if len(one.images)}


@torch.no_grad()
def _fidelities(cached: CachedSet, model: AFine) -> npt.NDArray[np.float32]:
    """Raw fidelity of every image of a set to its reference, [images, versions]."""
    if cached.spec.kind == "fidelity":
        return np.asarray(cached.pairs)
    out = np.empty(cached.pairs.shape[:2], dtype=np.float32)
    head = model.fidelity.cpu()
    for start in range(0, len(out), _CHUNK_ROWS):
        part = torch.from_numpy(cached.pairs[start : start + _CHUNK_ROWS]).float()
        out[start : start + _CHUNK_ROWS] = head(part.flatten(0, 1)).view(part.shape[:2]).numpy()
    return out


def _rated(cached: CachedSet) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    is_rated = cached.images["quality"].is_not_null() & ~cached.images["is_ref"]
    quality = cached.images.filter(is_rated)["quality"].to_numpy()
    natural = np.asarray(cached.naturalness[is_rated.to_numpy(), 0], dtype=np.float64)
    return natural, quality


def fit_natural_start(
    natural: npt.NDArray[np.float64], quality: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Fit centre and width of the naturalness calibration to rated images.

    Args:
        natural: raw naturalness, lower is better.
        quality: mean opinion scores, higher is better.
    Returns:
        Centre and width.
    Source:
        Release: opinion scores min-max scaled to (-2, 2) and negated, least squares from
        (mean, standard deviation / 4).
    """
    scaled = 2 - 4 * (quality - quality.min()) / np.ptp(quality)

    def calibrated(raw: npt.NDArray[np.float64], centre: float, width: float) -> Any:
        return 4 * scipy.special.expit((raw - centre) / (abs(width) + TINY)) - 2

    start = (float(natural.mean()), float(natural.std()) / 4)
    fitted, _ = scipy.optimize.curve_fit(calibrated, natural, scaled, p0=start, maxfev=20_000)
    return float(fitted[0]), abs(float(fitted[1]))


class Phase3Trainer:
    """Updates of phase 3.

    Args:
        model: its two calibrations and its adapter are trained in place, on the CPU.
        session: the phase's settings.
        train: raw scores of the training triplets.
        validation: raw scores of the validation triplets.
    """

    def __init__(
        self, model: AFine, session: Session, train: PhaseData, validation: PhaseData
    ) -> None:
        self.settings: Phase3Config = session.settings.phase3
        self._model, self._train, self._validation = model.cpu(), train, validation
        self._parts = {
            "naturalness_scale": model.naturalness_scale,
            "fidelity_scale": model.fidelity_scale,
            "adapter": model.adapter,
        }
        self.natural_start = self._start()
        self._order = session.order(train.triplets, batch=self.settings.batch)
        parameters = [p for part in self._parts.values() for p in part.parameters()]
        self._optimizer = adamw(
            [{"params": parameters, "lr": self.settings.lr}], self.settings.schedule
        )

    @torch.no_grad()
    def _start(self) -> tuple[float, float] | None:
        """Start the naturalness calibration from a fit, as configured."""
        if self.settings.natural_init == "release":
            return None
        rated = self._train.rated.get(self.settings.fit_data)
        if rated is None or len(rated[1]) < 3 or np.ptp(rated[1]) == 0:
            raise ConfigError(
                f"afine.phase3.fit_data: '{self.settings.fit_data}' has no rated training images "
                f"(there are {', '.join(sorted(self._train.rated))}); name one of these, or set "
                "natural_init to 'release'"
            )
        centre, width = fit_natural_start(*rated)
        self._model.naturalness_scale.yita3.fill_(centre)
        self._model.naturalness_scale.yita4.fill_(width)
        return centre, width

    def step(self, iteration: int) -> Mapping[str, float]:
        """Do one update on the batch of an iteration."""
        rate = set_rates(self._optimizer, iteration, self.settings.schedule)
        batch = self._order.batch(iteration)
        u1, u2 = self._scores(self._train, batch)
        loss = fidelity_loss(u1, u2, self._train.label12[batch.rows]).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        return {"loss": float(loss.detach()), "lr": rate}

    def _scores(self, data: PhaseData, batch: Batch) -> tuple[Tensor, Tensor]:
        """D of image 1 and image 2 of each row of a batch."""
        raw = {name: values[batch.rows, batch.versions] for name, values in data.scores.items()}
        first, second = (
            self._model.combine(raw[f"natural{n}"], raw["natural_ref"], raw[f"fidelity{n}"]).score
            for n in (1, 2)
        )
        return first, second

    @torch.no_grad()
    def validate(self) -> Mapping[str, float]:
        """Accuracy and loss of the whole model on the validation split."""
        if not len(self._validation.triplets):
            return {}
        u1, u2 = self._scores(self._validation, whole(self._validation.triplets))
        return {**pair_measures(u1, u2, self._validation.label12), **self.scalars()}

    def scalars(self) -> dict[str, float]:
        """The trained values."""
        return {
            f"{name}.{key}": float(value)
            for name, part in self._parts.items()
            for key, value in part.state_dict().items()
        }

    def state(self) -> dict[str, Any]:
        """Weights and moments."""
        return {"parts": self.weights(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self.load_weights(state["parts"])
        self._optimizer.load_state_dict(state["optimizer"])

    def weights(self) -> dict[str, Any]:
        """Copy of the weights."""
        return {
            name: {key: value.clone() for key, value in part.state_dict().items()}
            for name, part in self._parts.items()
        }

    def load_weights(self, weights: dict[str, Any]) -> None:
        """Take back what `weights` returned."""
        for name, part in self._parts.items():
            part.load_state_dict(weights[name])
