"""The loop that all phases share: steps, log, validation, checkpoints that resume exactly.

A checkpoint holds weights, optimizer moments and the iteration; the data order is a function
of the iteration, so interrupted and resumed training is the same as uninterrupted.
"""

import io
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch.utils.tensorboard import SummaryWriter

from afine.config import PhaseConfig
from runtime.atomic import write_bytes, write_text
from runtime.errors import DataError, PreemptedError
from runtime.metrics import MetricsLog, read_metrics
from runtime.progress import Progress

_log = logging.getLogger(__name__)
State = dict[str, Any]


class Trainer(Protocol):
    """What a phase brings to the loop."""

    def step(self, iteration: int) -> Mapping[str, float]:
        """Do one update; returns losses and the learning rate."""
        ...

    def validate(self) -> Mapping[str, float]:
        """Measure on the validation split; `accuracy`, if there, chooses the best weights.

        The same on every process that runs the loop.
        """
        ...

    def state(self) -> State:
        """Weights and optimizer moments."""
        ...

    def restore(self, state: State) -> None:
        """Take back what `state` returned."""
        ...

    def weights(self) -> State:
        """Copy of the trained weights alone."""
        ...

    def load_weights(self, weights: State) -> None:
        """Take back what `weights` returned."""
        ...


@dataclass(frozen=True)
class LoopPlaces:
    """Where a phase's loop writes; only the main process does.

    Attributes:
        name: of the phase, for example "phase1".
        checkpoint: file of the last complete checkpoint.
        metrics: `metrics.jsonl` of the stage.
        tensorboard: folder of the scalars.
        is_main: whether this process writes.
        any_process: whether a flag is set on any of the processes that run the loop.
    """

    name: str
    checkpoint: Path
    metrics: Path
    tensorboard: Path
    is_main: bool = True
    any_process: Callable[[bool], bool] = bool


def run_loop(
    trainer: Trainer,
    settings: PhaseConfig,
    iterations: int,
    places: LoopPlaces,
    *,
    limit: int | None = None,
) -> dict[str, Any]:
    """Train to the last iteration, from the last checkpoint if there is one.

    Args:
        trainer: the phase's updates.
        settings: when to log, validate and save.
        iterations: number of the last iteration.
        places: where to write.
        limit: stop, with a checkpoint, after this many iterations.
    Returns:
        Facts for the manifest: the iteration whose weights were kept, the last validation.
    Raises:
        PreemptedError: the process was asked to stop, by a signal or by `limit`; a checkpoint
            was written.
    """
    done, best = _resume(trainer, places)
    log = _Log(places, done)
    last: Mapping[str, float] = best.get("measures", {})
    with _stop_signal() as stop, Progress(iterations, places.name, done=done) as progress:
        for iteration in range(done + 1, iterations + 1):
            values = trainer.step(iteration)
            log.step(iteration, values, is_due=iteration % settings.log_every == 0)
            if iteration % settings.validate_every == 0 or iteration == iterations:
                last = trainer.validate()
                log.write(iteration, last, "val")
                if settings.keep == "best" and _is_better(last, best):
                    best = {
                        "iteration": iteration,
                        "measures": dict(last),
                        "weights": trainer.weights(),
                    }
            is_stopping = places.any_process(bool(stop)) or iteration - done == limit
            if is_stopping or iteration % settings.checkpoint_every == 0:
                _save(trainer, places, iteration, best)
            if is_stopping and iteration < iterations:
                raise PreemptedError(
                    f"{places.name}: asked to stop after iteration {iteration}; rerun to go on"
                )
            progress.advance()
    log.close()
    if not last:  # stopped between the last checkpoint and the manifest
        last = trainer.validate()
    if settings.keep == "best" and best:
        trainer.load_weights(best["weights"])
        return {"kept_iteration": best["iteration"], "validation": best["measures"]}
    return {"kept_iteration": iterations, "validation": dict(last)}


def _is_better(now: Mapping[str, float], best: Mapping[str, Any]) -> bool:
    if "accuracy" not in now:
        return False
    return not best or now["accuracy"] > best["measures"]["accuracy"]


def _resume(trainer: Trainer, places: LoopPlaces) -> tuple[int, dict[str, Any]]:
    if not places.checkpoint.is_file():
        return 0, {}
    try:
        saved = torch.load(places.checkpoint, map_location="cpu", weights_only=True)
        trainer.restore(saved["state"])
    except (RuntimeError, KeyError, EOFError) as error:
        raise DataError(
            f"{places.checkpoint}: not a checkpoint of this phase ({error}); delete it to start "
            "over"
        ) from None
    _log.info("%s: resuming after iteration %d", places.name, saved["iteration"])
    return int(saved["iteration"]), dict(saved["best"])


def _save(trainer: Trainer, places: LoopPlaces, iteration: int, best: dict[str, Any]) -> None:
    state = trainer.state()
    if places.is_main:
        buffer = io.BytesIO()
        torch.save({"iteration": iteration, "state": state, "best": best}, buffer)
        write_bytes(places.checkpoint, buffer.getvalue())


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """Collect SIGTERM instead of dying from it; the list is empty until it comes."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    try:
        before = signal.signal(signal.SIGTERM, note)
    except ValueError:  # not in the main thread, as in some tests
        yield received
        return
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


class _Log:
    """`metrics.jsonl` and TensorBoard, without lines that a resumed run writes again."""

    def __init__(self, places: LoopPlaces, done: int) -> None:
        self._places = places
        self._start_s, self._counted = time.monotonic(), 0
        if not places.is_main:
            return
        _drop_lines(places.metrics, places.name, after=done)
        self._file = MetricsLog(places.metrics)
        self._board = SummaryWriter(str(places.tensorboard), purge_step=done + 1)

    def step(self, iteration: int, values: Mapping[str, float], *, is_due: bool) -> None:
        self._counted += 1
        if is_due:
            elapsed_s = max(time.monotonic() - self._start_s, 1e-9)
            self.write(
                iteration, {**values, "iterations_per_s": self._counted / elapsed_s}, "train"
            )
            self._start_s, self._counted = time.monotonic(), 0

    def write(self, iteration: int, values: Mapping[str, float], kind: str) -> None:
        if not self._places.is_main:
            return
        self._file.write(phase=self._places.name, kind=kind, iteration=iteration, **values)
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, iteration)

    def close(self) -> None:
        if self._places.is_main:
            self._board.close()


def _drop_lines(path: Path, phase: str, *, after: int) -> None:
    """Remove the lines of `phase` beyond iteration `after`; they are about to be written again."""
    if not path.is_file():
        return
    kept = [
        row
        for row in read_metrics(path)
        if row.get("phase") != phase or row.get("iteration", 0) <= after
    ]
    write_text(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in kept))
