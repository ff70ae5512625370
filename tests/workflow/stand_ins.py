"""The real Snakefile and rules, with the stages' commands replaced by a shell script.

The Snakefile puts the folder of its own interpreter first in PATH. So Snakemake is run by an
interpreter in a folder of ours, in which `python` is `stand_in_stage.sh`: nothing in the
workflow knows that it is being tested.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
SCRIPT = Path(__file__).parent / "stand_in_stage.sh"
_HIDDEN = ("CUDA_VISIBLE_DEVICES", "SNAKEMAKE_PROFILE", "PYTHONPATH", "SLURM_JOB_ID")


@dataclass(frozen=True)
class Call:
    """One call of a stage: what, which shard or phase, the devices it saw, when."""

    name: str
    item: str
    devices: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class StandIns:
    """A working folder with a configuration, and Snakemake whose stages are stand-ins."""

    folder: Path
    repository: Path = ROOT

    @property
    def results(self) -> Path:
        return self.folder / "results/smoke"

    @property
    def interpreter(self) -> Path:
        return self.folder / "bin/interpreter"

    def environment(self, hook: str = "", **variables: str) -> dict[str, str]:
        """Variables that the stand-ins read, without a scheduler's or a user's own."""
        kept = {key: value for key, value in os.environ.items() if key not in _HIDDEN}
        return {
            **kept,
            "STAND_IN_REAL": str(self.interpreter),
            "STAND_IN_LOG": str(self.folder / "calls.log"),
            "STAND_IN_HOOK": hook,
            "DIFFIQA_LEASE_DIR": str(self.folder / "locks"),
            **variables,
        }

    def command(self, *arguments: str, config: str | Path = "config.yaml") -> list[str]:
        return [
            *(str(self.interpreter), "-m", "snakemake", "-s", str(self.repository / "Snakefile")),
            *(*arguments, "--configfile", str(config)),
        ]

    def snakemake(
        self, *arguments: str, hook: str = "", timeout_s: float = 300, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the workflow; what it printed is in `stdout`."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(hook, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )

    def calls(self, name: str = "") -> list[Call]:
        """Finished calls in order of their end, of all stages or of one."""
        path = self.folder / "calls.log"
        rows = path.read_text().splitlines() if path.is_file() else []
        fields = [row.split("|") for row in rows]
        found = [Call(f[0], f[1], f[2], float(f[3]), float(f[4])) for f in fields]
        return [call for call in found if name in ("", call.name)]


def stand_ins(folder: Path, shards: int, changes: Mapping[str, object] | None = None) -> StandIns:
    """Prepare a working folder: a configuration with `shards` shards, and no photographs."""
    (folder / "photos").mkdir(parents=True)
    values = {
        "run": "smoke",
        "sources": [{"name": "photos", "path": "photos"}],
        "plan": {"shards": shards},
        "enhancer": {"base_model": "train"},
        "annotations": {"source": "simulate"},
        **(changes or {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return interpose(folder)


def interpose(folder: Path) -> StandIns:
    """Put the script before the interpreter, in a working folder that has a configuration."""
    binaries = folder / "bin"
    binaries.mkdir()
    real = Path(sys.executable)
    (binaries / "interpreter").symlink_to(real.resolve())
    (binaries / "python").symlink_to(SCRIPT)
    (binaries / "accelerate").symlink_to(SCRIPT)
    environment = real.parent.parent
    if (environment / "pyvenv.cfg").is_file():  # a virtual environment stays the same one
        (folder / "pyvenv.cfg").symlink_to(environment / "pyvenv.cfg")
        (folder / "lib").symlink_to(environment / "lib")
    return StandIns(folder)


def most_at_once(calls: Sequence[Call]) -> int:
    """The largest number of calls that ran at the same time."""
    edges = sorted([(call.start_s, 1) for call in calls] + [(call.end_s, -1) for call in calls])
    running = most = 0
    for _, change in edges:
        running += change
        most = max(most, running)
    return most
