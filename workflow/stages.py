"""The specs of all stages under one name each, as the rules use them."""

import shlex
from pathlib import Path

from afine.config import EVALUATE, TRAIN_PHASES, TRIPLETS
from annotation_import.config import IMPORT, SIMULATE
from crop.config import CROP
from degrade.config import APPLY, PLAN
from enhancer.config import BASE, TRAIN
from enhancer.sample.config import SAMPLE
from report.config import REPORT
from shards.config import SHARDS

__all__ = [
    "APPLY",
    "BASE",
    "CROP",
    "EVALUATE",
    "IMPORT",
    "PLAN",
    "REPORT",
    "SAMPLE",
    "SHARDS",
    "SIMULATE",
    "TRAIN",
    "TRAIN_PHASES",
    "TRIPLETS",
    "launch_command",
    "node_resources",
]


_PROFILES = Path(__file__).resolve().parent / "profiles"


def launch_command(gpus: int, nodes: int, *, is_on_cluster: bool) -> str:
    """How a training stage is started on `gpus` devices of one machine, or of several by SLURM."""
    each_node = "srun --ntasks-per-node=1 --kill-on-bad-exit=1 " if nodes > 1 else ""
    profile = _PROFILES / ("slurm" if is_on_cluster else "default")
    return (
        f"{each_node}python -m runtime launch --gpus {gpus} --nodes {nodes} "
        f"--accelerate-config {shlex.quote(str(profile / 'accelerate.yaml'))} --"
    )


def node_resources(nodes: int) -> dict[str, int | str]:
    """What a training asks of SLURM: its nodes, and to start the command on each by itself."""
    return {"nodes": nodes} if nodes == 1 else {"nodes": nodes, "tasks": nodes, "mpi": "srun"}
