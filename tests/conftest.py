"""Shared fixtures: no network, one thread, real photographs, golden data."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import skimage.data
from xdist.scheduler import LoadScopeScheduling

GOLDEN = Path(__file__).parent / "golden"
SHARING_A_RUN = ("test_kill.py", "test_rerun.py", "test_smoke.py")


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


class _ByFile(LoadScopeScheduling):
    """Tests of a file share a process, and so do all that share the one long workflow run."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        return "finished_run" if file.name in SHARING_A_RUN else str(file)


@pytest.hookimpl(optionalhook=True)  # unknown where pytest-xdist is switched off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFile:
    return _ByFile(config, log)
