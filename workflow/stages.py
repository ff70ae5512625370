"""The specs of all stages under one name each, as the rules use them."""

from afine.config import EVALUATE, PHASES, TRIPLETS
from annotation_import.config import IMPORT, SIMULATE
from crop.config import CROP
from degrade.config import APPLY, PLAN
from enhancer.config import BASE, SAMPLE, TRAIN
from report.config import REPORT
from shards.config import SHARDS

__all__ = [
    "APPLY",
    "BASE",
    "CROP",
    "EVALUATE",
    "IMPORT",
    "PHASES",
    "PLAN",
    "REPORT",
    "SAMPLE",
    "SHARDS",
    "SIMULATE",
    "TRAIN",
    "TRIPLETS",
    "launch_command",
]


def launch_command(gpus: int) -> str:
    """How a training stage is started on `gpus` devices of one machine."""
    if gpus <= 1:
        return "python -m"
    return f"accelerate launch --num_processes {gpus} --num_machines 1 --dynamo_backend no --mixed_precision no -m"
