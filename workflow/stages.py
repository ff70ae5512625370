"""The specs of all stages under one name each, as the rules use them."""

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
]


def launch_command(gpus: int) -> str:
    """How a training stage is started on `gpus` devices of one machine."""
    if gpus <= 1:
        return "python -m"
    # every flag is given, so that no accelerate configuration file of the user's changes the run
    flags = f"--num_processes {gpus} --num_machines 1 --mixed_precision no --dynamo_backend no"
    # the leased devices and a free port, so that two trainings can share a machine; accelerate
    # starts one process only where it finds one device or none (the total batch is the same)
    return f"accelerate launch {flags} --gpu_ids all --main_process_port 0 -m"
