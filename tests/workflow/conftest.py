"""The workflow as a user runs it, on a few real photographs, small settings, real code paths."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
SMOKE = Path(__file__).parent / "smoke.yaml"
_JOB_COUNT = re.compile(r"^(\w+)\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """A working folder with a configuration file, and Snakemake in it."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results/smoke"

    def snakemake(
        self, *arguments: str, timeout_s: float = 900, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake from the working folder; what it printed is in `stdout`."""
        return subprocess.run(
            [*self.command(), *arguments],
            cwd=self.folder,
            env={**environment(), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )

    def command(self) -> list[str]:
        """Snakemake with this repository's Snakefile and profile, and the run's config."""
        return [
            *(sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile")),
            # last a flag with one value: the others would swallow a target that follows
            *("--configfile", "config.yaml", "--resources", "gpu=20", "--cores", "2"),
        ]

    def planned(self, *arguments: str) -> dict[str, int]:
        """Jobs per rule that a dry run would do."""
        shown = self.snakemake("-n", *arguments, timeout_s=120)
        assert shown.returncode == 0, shown.stdout
        jobs = {name: int(count) for name, count in _JOB_COUNT.findall(shown.stdout)}
        return {name: count for name, count in jobs.items() if name not in ("total", "all")}

    def write_config(self, change: Callable[[dict], None] | None = None) -> None:
        """Write config.yaml: the smoke settings, changed by `change`."""
        values = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
        if change is not None:
            change(values)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def environment() -> dict[str, str]:
    """The test's environment without what a scheduler or a user's shell may have set."""
    hidden = ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", "SNAKEMAKE_PROFILE")
    return {key: value for key, value in os.environ.items() if key not in hidden}


def new_run(folder: Path, photo_folder: Path) -> Run:
    """Make a working folder with four photographs and the smoke configuration."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    for name in ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg"):
        shutil.copy(photo_folder / name, photos / name)
    run = Run(folder)
    run.write_config()
    return run


@pytest.fixture
def fresh_run(tmp_path: Path, photo_folder: Path) -> Run:
    """A working folder in which nothing has run yet."""
    return new_run(tmp_path / "work", photo_folder)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> Run:
    """The whole workflow, done once for all tests that look at its results."""
    run = new_run(tmp_path_factory.mktemp("smoke") / "work", photo_folder)
    done = run.snakemake()
    assert done.returncode == 0, done.stdout[-8000:]
    return run
