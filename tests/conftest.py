"""Shared fixtures: no network, one thread, real photographs, golden data."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import skimage.data

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the reference implementations' inputs and outputs."""
    return GOLDEN


@pytest.fixture(scope="session")
def photo_folder() -> Path:
    """Folder of the photographs that ship with scikit-image."""
    return Path(skimage.data.__file__).parent


@pytest.fixture(scope="session")
def photo_u8() -> np.ndarray:
    """One real photograph, uint8 [512, 512, 3]."""
    return np.ascontiguousarray(skimage.data.astronaut())


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file share a process, and so do all that share the one long workflow run."""
    for item in items:
        shares_run = "finished_run" in getattr(item, "fixturenames", ())
        group = "finished_run" if shares_run else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
