"""Fixtures: a finished small run, and the dataset written from it."""

from pathlib import Path

import pytest

from runtime.settings import load_run
from tests.shards.fake_run import make_run


@pytest.fixture
def run_config(tmp_path: Path) -> Path:
    return make_run(tmp_path / "study")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run whose dataset is written; tests must not change it."""
    from shards.write import write_dataset

    config = make_run(tmp_path_factory.mktemp("written") / "study")
    write_dataset(load_run(config))
    return config.parent
