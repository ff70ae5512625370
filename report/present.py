"""Which files in a run's folder belong to the present plan and configuration.

A stage that reruns with fewer shards, or that the configuration no longer asks for, leaves
its old files behind; what is shown and summed must not come from them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from runtime.settings import RunSettings

_SHARD = re.compile(r"(?:.+-)?(\d{5})")
# section and key, the value that asks for the files, patterns of the files
_ON_REQUEST = (
    ("enhancer", "base_model", "train", ("base/*", "benchmarks/enhancer_base.tsv")),
    ("annotations", "source", "simulate",
     ("annotations/simulated.manifest.json", "benchmarks/annotation_simulate.tsv")),
)  # fmt: skip


def present_files(run: RunSettings, pattern: str) -> list[Path]:
    """List the files of a run that match a pattern, sorted, without those of earlier settings.

    Args:
        run: the resolved configuration.
        pattern: relative to the run's folder, for example "samples/samples-*.json".
    """
    unasked = [
        old
        for section, key, value, patterns in _ON_REQUEST
        if _value(run.values, section, key) not in (None, value)
        for old in patterns
    ]
    shard_of = {path: _shard(path) for path in sorted(run.root.glob(pattern))}
    is_sharded = any(shard is not None for shard in shard_of.values())
    shards = _planned_shards(run.root / "plan.parquet") if is_sharded else []
    return [
        path
        for path, shard in shard_of.items()
        if shard in (None, *shards)
        and not any(path.relative_to(run.root).match(old) for old in unasked)
    ]


def _planned_shards(plan: Path) -> list[int]:
    if not plan.is_file():
        return []
    return pl.read_parquet(plan, columns=["shard"])["shard"].unique().to_list()


def _shard(path: Path) -> int | None:
    """Number of the shard that a file is of, or None."""
    found = _SHARD.fullmatch(path.stem)
    return int(found[1]) if found else None


def _value(values: Mapping[str, Any], section: str, key: str) -> Any:
    part = values.get(section)
    return part.get(key) if isinstance(part, Mapping) else None
