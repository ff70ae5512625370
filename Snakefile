"""DiffIQA builder: photographs in, an image-quality dataset and a trained A-FINE out."""

import os
import sys
from pathlib import Path

REPOSITORY = workflow.basedir
sys.path.insert(0, REPOSITORY)
PATH = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
os.environ.update(PATH=os.pathsep.join(PATH), PYTHONPATH=REPOSITORY)

from snakemake.exceptions import WorkflowError

from runtime.errors import PipelineError
from runtime.stage import stage_key
from workflow import stages
from workflow.config import load_config, parse_config
from workflow.predict import degrade_minutes, sample_minutes
from workflow.preflight import check_inputs, photographs_digest

try:
    if workflow.configfiles:
        CONFIG = parse_config(config, where=", ".join(map(str, workflow.configfiles)))
    else:  # the demo, with whatever --config changes in it
        changes = [f"{key}={value}" for key, value in config.items()]
        CONFIG = load_config([Path(REPOSITORY, "configs/demo.yaml")], changes)
    RUN = CONFIG.save()
except PipelineError as error:
    raise WorkflowError(str(error))

ROOT = CONFIG.root
CONFIG_FILE = str(ROOT / "config.resolved.json")
# a cluster has no such number: its profile says; and its jobs must not try again by themselves
CORES = workflow.resource_settings.cores or 8
RETRIES = 0 if workflow.remote_exec else 2
SHARDS = [f"{number:05}" for number in range(CONFIG.plan.shards)]


wildcard_constraints:
    shard=r"\d{5}",
    phase="[123]",


rule all:
    default_target: True
    input:
        ROOT / "report.manifest.json",


include: "workflow/rules/crop.smk"
include: "workflow/rules/degrade.smk"
include: "workflow/rules/enhancer.smk"
include: "workflow/rules/annotations.smk"
include: "workflow/rules/shards.smk"
include: "workflow/rules/afine.smk"
include: "workflow/rules/report.smk"


onstart:
    check_inputs(CONFIG)
