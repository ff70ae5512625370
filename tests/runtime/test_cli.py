"""What a stage says, and its exit code, when it cannot go on."""

import errno
import logging
import os
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors import SafetensorError

from runtime.cli import guarded

FULL = Path("/dev/full")
IN_RUST = "I/O error: No space left on device (os error 28)"


def failing(error):
    def work():
        raise error

    return work


def save_with_torch():
    with FULL.open("wb") as handle:  # as checkpoints are written, into an open file
        torch.save({"weights": torch.zeros(100_000)}, handle)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (failing(OSError(errno.ENOSPC, "full", "a.tar")), "a.tar: no space left"),
        (failing(OSError(errno.EDQUOT, "full", "a.tar")), "a.tar: quota exceeded"),
        (failing(SafetensorError(f"Error while serializing: {IN_RUST}")), "disk: no space left"),
        (failing(pl.exceptions.ComputeError(f"parquet: {IN_RUST}")), "disk: no space left"),
        pytest.param(
            save_with_torch,
            "disk: no space left",
            marks=pytest.mark.skipif(not FULL.is_char_device(), reason="no /dev/full"),
        ),
    ],
    ids=["disk", "quota", "safetensors", "polars", "torch"],
)
def test_a_full_disk_is_one_line_whoever_writes(caplog, work, message):
    caplog.set_level(logging.ERROR)
    assert guarded(work) == 2
    assert caplog.messages == [f"error: {message}; free some and rerun"]


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EIO, os.strerror(errno.EIO))])
def test_anything_else_keeps_its_traceback(caplog, error):
    assert guarded(failing(error)) == 1
    assert caplog.records[0].exc_info is not None
    assert ("a bug" in caplog.text) == isinstance(error, ValueError)
