"""Checkpoints of an unfinished training: one file each, whole or not there.

All randomness of the training is keyed by step, so weights, optimizer, average, loss scale
and the step's number are all that going on needs.
"""

import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from runtime.atomic import atomic_file

_log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{8})\.pt")


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Any], *, keep: int) -> Path:
    """Write the state after `step` optimizer steps, then delete all but the `keep` newest."""
    path = folder / f"step-{step:08}.pt"
    with atomic_file(path) as handle:
        torch.save({"step": step, **state}, handle)
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def load_newest(folder: Path) -> dict[str, Any] | None:
    """Read the newest checkpoint that is whole, or None; unreadable ones are passed over."""
    for path in reversed(list_checkpoints(folder)):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if state["step"] == int(_NAME.fullmatch(path.name).group(1)):  # type: ignore[union-attr]
                return state
            _log.warning("%s: says step %s; passed over", path, state["step"])
        except (
            RuntimeError,
            OSError,
            EOFError,
            KeyError,
            TypeError,
            pickle.UnpicklingError,
        ) as error:
            _log.warning("%s: not a whole checkpoint, passed over (%s)", path, error)
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint files, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
