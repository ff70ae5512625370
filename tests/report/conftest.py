"""Fixtures: a finished small run with everything that the report shows."""

from pathlib import Path

import pytest

from runtime.settings import load_run
from tests.report.fake_results import add_results
from tests.shards.fake_run import make_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`config.resolved.json` of a run; tests must not change its folder."""
    from shards.write import write_dataset

    config = make_run(tmp_path_factory.mktemp("report") / "study")
    add_results(config.parent)
    write_dataset(load_run(config))
    return config
