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
    """How a training stage is started on `gpus` devices of one machine, or of several by SLURM.

    On several, the shell must have set `threads` to those of the job: srun starts with one core a
    task unless it is told, and Snakemake's plugin hides the job's own numbers from it.
    """
    each_node = (
        f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 "
        '--cpus-per-task="$threads" --kill-on-bad-exit=1 '
        if nodes > 1
        else ""
    )
    profile = _PROFILES / ("slurm" if is_on_cluster else "default")
    return (
        f"{each_node}python -m runtime launch --gpus {gpus} --nodes {nodes} "
        f"--accelerate-config {shlex.quote(str(profile / 'accelerate.yaml'))} --"
    )


def node_resources(nodes: int) -> dict[str, int | str]:
    """What a training asks of SLURM: its nodes, and to start the command on each by itself.

    Without `tasks_per_gpu`, Snakemake's plugin takes `tasks` for a number of each device.
    """
    if nodes == 1:
        return {"nodes": nodes}
    return {"nodes": nodes, "tasks": nodes, "tasks_per_gpu": 0, "mpi": "srun"}
