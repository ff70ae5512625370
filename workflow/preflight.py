"""What can be checked before hours of work: that the inputs named in the configuration exist.

A dry run skips this, so that a configuration can be planned on a machine without the data.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from crop.listing import list_photos, listing_values
from runtime.errors import PipelineError
from runtime.settings import digest
from workflow.config import RunConfig


def check_inputs(config: RunConfig) -> None:
    """Stop before the first job when an input is missing.

    Raises:
        WorkflowError: one line per missing input.
    """
    problems = list(missing_inputs(config))
    if problems:
        raise WorkflowError("\n".join(problems))
    votes = config.annotations.source
    if votes != "simulate" and not Path(votes).exists():
        logger.warning(
            f"annotations.source: '{votes}' not found yet; the run will stop before "
            "annotation_import, and go on from there once the votes are in"
        )


def missing_inputs(config: RunConfig) -> Iterator[str]:
    """Yield one line per input that the configuration names and the disk lacks."""
    for number, source in enumerate(config.sources):
        if ":" not in str(source.path) and not Path(source.path).is_dir():
            yield (
                f"sources.{number} ({source.name}): folder '{source.path}' not found; "
                "name an existing folder of photographs"
            )
    for key, path in _named_paths(config):
        if path is not None and not Path(path).exists():
            yield f"{key}: '{path}' not found; correct the path, or leave the setting out"
    nodes = max(config.scheduling.enhancer_train_nodes, config.scheduling.afine_train_nodes)
    if nodes > 1 and shutil.which("srun") is None:
        yield (
            f"scheduling: a training on {nodes} nodes needs SLURM, but there is no 'srun'; run on "
            "a cluster with --workflow-profile workflow/profiles/slurm, or set the nodes to 1"
        )
    base = str(config.enhancer.base_model)
    if base != "train" and is_path_like(base) and not Path(base, "unet").is_dir():
        yield (
            f"enhancer.base_model: '{base}' is not a Stable Diffusion folder (no unet/ in it); "
            "name a diffusers folder, a hub id such as 'owner/name', or 'train'"
        )


def _named_paths(config: RunConfig) -> Iterator[tuple[str, str | None]]:
    """Files and folders that later stages read: missing ones would show after days."""
    train = config.enhancer.train
    yield "enhancer.train.enhancer", train.enhancer
    for source in train.sources:
        yield f"enhancer.train.sources ({source.name})", source.path
    for name, folder in config.afine.data.named().items():
        yield f"afine.data.{name}", folder
    yield "afine.data.splits", config.afine.data.splits
    backbone = config.afine.model.backbone
    yield "afine.model.backbone", None if backbone == "random" else backbone


def photographs_digest(config: RunConfig) -> str:
    """Hash of the names and sizes of the photographs, so that added or changed ones are seen.

    Empty where a source cannot be listed: a dry run does not need the data.
    """
    try:
        return digest(listing_values(list_photos(config.sources)))
    except PipelineError:
        return ""


def is_path_like(name: str) -> bool:
    """Tell a folder from a hub id (`owner/name`)."""
    return name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(name).exists()
