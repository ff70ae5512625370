"""The whole configuration of a run: the sections of all stages, read and validated once.

Order: defaults < configuration file(s) < `--set stage.key=value`. An unknown key is refused
with the closest known one. The resolved result is saved as `config.resolved.json`, and that
is what stages read.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from afine.config import AfineConfig
from annotation_import.config import AnnotationsConfig
from crop.config import CropConfig, SourceConfig
from degrade.config import DegradeConfig, PlanConfig
from enhancer.config import EnhancerConfig
from report.config import ReportConfig
from runtime.atomic import write_json
from runtime.errors import ConfigError
from runtime.settings import RunSettings, Section, parse_section, speed_field
from shards.config import DatasetConfig

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class SchedulingConfig(Section):
    """How many devices jobs take; changing any of it reruns nothing."""

    enhancer_train_gpus: int = speed_field(
        1, ge=1, description="Devices that train the enhancer (paper: 8)."
    )
    enhancer_train_nodes: int = speed_field(
        1, ge=1, description="Machines that these devices are on; more than one needs SLURM."
    )
    afine_train_gpus: int = speed_field(
        1, ge=1, description="Devices that train A-FINE (paper: 4)."
    )
    afine_train_nodes: int = speed_field(
        1, ge=1, description="Machines that these devices are on; more than one needs SLURM."
    )

    @model_validator(mode="after")
    def _devices_divide(self) -> "SchedulingConfig":
        for name in ("enhancer_train", "afine_train"):
            gpus, nodes = getattr(self, f"{name}_gpus"), getattr(self, f"{name}_nodes")
            if gpus % nodes:
                raise ValueError(f"{name}_gpus {gpus} is not a multiple of {name}_nodes {nodes}")
        return self


class RunConfig(Section):
    """Everything that a run can be told."""

    run: str = Field(description="Name of the run; its results lie in <results>/<run>/.")
    results: str = Field("results", description="Folder of all runs, relative to where you start.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the run; every draw derives from it.")
    sources: tuple[SourceConfig, ...] = Field(
        min_length=1, description="Where the photographs come from; at least one."
    )
    crop: CropConfig = CropConfig()
    degrade: DegradeConfig = DegradeConfig()
    plan: PlanConfig = PlanConfig()
    enhancer: EnhancerConfig = Field(description="Base model, training and sampling.")
    annotations: AnnotationsConfig = AnnotationsConfig()
    dataset: DatasetConfig = DatasetConfig()
    afine: AfineConfig = AfineConfig()
    report: ReportConfig = ReportConfig()
    scheduling: SchedulingConfig = SchedulingConfig()

    @field_validator("run")
    @classmethod
    def _is_a_folder_name(cls, value: str) -> str:
        if not RUN_NAME.fullmatch(value):
            raise ValueError("expected a folder name of letters, digits, '.', '_' and '-'")
        return value

    @property
    def root(self) -> Path:
        """Folder of the run."""
        return Path(self.results) / self.run

    def save(self) -> RunSettings:
        """Write `config.resolved.json` unless it already says the same, and return it."""
        path = self.root / "config.resolved.json"
        values = self.model_dump(mode="json")
        write_json(path, values)
        return RunSettings(path.resolve(), values)


def parse_config(values: Mapping[str, Any], *, where: str) -> RunConfig:
    """Validate configuration values; a path's leading `~/` becomes the home folder.

    Raises:
        ConfigError: one line per wrong key.
    """
    return parse_section(RunConfig, _at_home(dict(values)), where=where)


def _at_home(value: Any) -> Any:
    """Expand `~/` at the beginning of every text."""
    if isinstance(value, Mapping):
        return {key: _at_home(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_at_home(item) for item in value]
    is_path = isinstance(value, str) and value.startswith("~/")
    return str(Path(value).expanduser()) if is_path else value


def load_config(files: Iterable[str | Path], overrides: Iterable[str] = ()) -> RunConfig:
    """Read configuration files in order, then apply `key=value` overrides.

    Args:
        files: YAML files; later ones win, mappings are merged.
        overrides: texts `stage.key=value`; the value is read as YAML.

    Raises:
        ConfigError: a file is missing or no YAML mapping, or a key is wrong.
    """
    merged: dict[str, Any] = {}
    names = [str(file) for file in files]
    for name in names:
        merged = _merge(merged, _read_yaml(Path(name)))
    for override in overrides:
        merged = _merge(merged, _override(override))
    return parse_config(merged, where=", ".join(names) or "configuration")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: configuration file not found") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, found {type(values).__name__}")
    return values


def _override(text: str) -> dict[str, Any]:
    dotted, separator, value = text.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"--set {text}: expected key=value, for example crop.size_px=256")
    nested: Any = yaml.safe_load(value)
    for part in reversed(dotted.split(".")):
        nested = {part: nested}
    assert isinstance(nested, dict)
    return nested


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
