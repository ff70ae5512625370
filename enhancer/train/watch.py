"""Rows of metrics.jsonl and TensorBoard while the enhancer trains."""

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from runtime.atomic import write_text
from runtime.images import ImageU8
from runtime.metrics import MetricsLog, read_metrics

_log = logging.getLogger(__name__)
_QUARTER = 250


class Watch:
    """Write what is measured; only the first process has one.

    Args:
        folder: of the enhancer; gets metrics.jsonl and tensorboard/.
        first_step: steps done by an earlier, interrupted run; later rows are dropped.
        use_tensorboard: also write TensorBoard events.
    """

    def __init__(self, folder: Path, *, first_step: int, use_tensorboard: bool) -> None:
        self._path = folder / "metrics.jsonl"
        _drop_rows_after(self._path, first_step)
        _drop_pictures(folder, first_step)
        self._metrics = MetricsLog(self._path)
        self._writer: Any = None
        if use_tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)
        self._row_s = time.monotonic()

    def training(
        self, step: int, losses: Tensor, timesteps: Tensor, *, images: int, **values: float
    ) -> None:
        """Report the examples since the last report.

        Args:
            step: optimizer steps done.
            losses: loss of each example.
            timesteps: its timestep; the loss is also given per quarter of 0..999.
            images: examples since the last report.
            values: anything else, such as the rate.
        """
        seconds = max(time.monotonic() - self._row_s, 1e-9)
        self._row_s = time.monotonic()
        quarters = {
            f"loss_q{quarter + 1}": losses[timesteps // _QUARTER == quarter].mean().item()
            for quarter in range(4)
            if (timesteps // _QUARTER == quarter).any()
        }
        self._write(
            "train",
            step,
            loss=losses.mean().item(),
            **quarters,
            images_per_s=images / seconds,
            memory_gb=_memory_gb(),
            **values,
        )

    def validation(self, step: int, **values: float) -> None:
        """Report a measurement on held-out photographs."""
        _log.info(
            "step %d, held out: %s", step, ", ".join(f"{k} {v:.4g}" for k, v in values.items())
        )
        self._write("val", step, **values)
        self._row_s = time.monotonic()

    def sheet(self, step: int, sheet_u8: ImageU8) -> None:
        """Show a sheet of images in TensorBoard."""
        if self._writer is not None:
            self._writer.add_image("held out", np.asarray(sheet_u8), step, dataformats="HWC")

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, phase: str, step: int, **values: float) -> None:
        self._metrics.write(phase=phase, step=step, **values)
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{phase}/{name}", value, step)


def _drop_rows_after(path: Path, step: int) -> None:
    """A resumed training repeats the steps after its checkpoint: their old rows go."""
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    if step == 0 or not rows:
        path.unlink(missing_ok=True)
    else:
        write_text(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


def _drop_pictures(folder: Path, step: int) -> None:
    """Remove sheets that are about to be drawn anew; a new training starts without any."""
    if step == 0:
        shutil.rmtree(folder / "validation", ignore_errors=True)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    for sheet in folder.glob("validation/step-*.png"):
        if int(sheet.stem.removeprefix("step-")) > step:
            sheet.unlink()


def _memory_gb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return float(psutil.Process().memory_info().rss) / 1e9
