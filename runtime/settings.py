"""Typed configuration: base class of every section, and which settings a stage's result rests on.

A stage's sections are Pydantic models in `<stage>/config.py`. Fields made with `speed_field`
change how fast or how loudly a stage works, never what it writes, so they are left out of
the fingerprint that decides whether a stage must rerun.
"""

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.atomic import canonical_json, read_json
from runtime.errors import ConfigError

SectionT = TypeVar("SectionT", bound="Section")

_SPEED_MARK = {"affects_results": False}


class Section(BaseModel):
    """Base of every configuration section: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def speed_field(default: Any, **kwargs: Any) -> Any:
    """Declare a field that changes speed, memory, logging or patience, but never a result."""
    return Field(default, json_schema_extra=dict(_SPEED_MARK), **kwargs)


@dataclass(frozen=True)
class StageSpec:
    """What a stage's result rests on.

    Attributes:
        name: stage and verb as typed in the shell, for example "enhancer sample".
        module: module whose import closure is the stage's code.
        sections: dotted configuration keys and their model (None for plain values).
        version: bumped when output bytes change for a reason that the code digest cannot see.
    """

    name: str
    module: str
    sections: Mapping[str, type[Section] | None]
    version: int = 1


@dataclass(frozen=True)
class RunSettings:
    """The resolved configuration of one run, as stages read it.

    Attributes:
        path: the resolved file.
        values: its content.
    """

    path: Path
    values: Mapping[str, Any]

    @property
    def root(self) -> Path:
        """Folder of the run: where the resolved file lies."""
        return self.path.parent

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.values["seed"])

    def value(self, dotted: str) -> Any:
        """Look up a value by its dotted key."""
        node: Any = self.values
        for part in dotted.split("."):
            if not isinstance(node, Mapping) or part not in node:
                raise ConfigError(
                    f"{self.path}: key '{dotted}' not found; the file is not a resolved "
                    "configuration of this version: run snakemake again to write it"
                )
            node = node[part]
        return node

    def section(self, dotted: str, model: type[SectionT]) -> SectionT:
        """Read one section as its model."""
        return parse_section(model, self.value(dotted), where=f"{self.path}: {dotted}")


def load_run(path: str | Path) -> RunSettings:
    """Read `config.resolved.json`, the one file that stages take their settings from."""
    resolved = Path(path)
    if resolved.suffix in {".yaml", ".yml"}:
        raise ConfigError(
            f"{path}: stages read the resolved configuration (config.resolved.json); write it with "
            f"'python -m workflow resolve --configfile {path}'"
        )
    values = read_json(resolved, what="resolved configuration")
    if not isinstance(values, dict) or "seed" not in values:
        raise ConfigError(f"{path}: not a resolved configuration (no 'seed')")
    return RunSettings(resolved.resolve(), values)


def parse_section(model: type[SectionT], values: Any, *, where: str) -> SectionT:
    """Validate `values` as `model`; every problem becomes one line naming its key.

    Raises:
        ConfigError: with one line per wrong key; unknown keys name the closest known one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(_describe(item, model, where) for item in error.errors())
        ) from None


def _describe(item: Any, model: type[BaseModel], where: str) -> str:
    """Turn one Pydantic error into: where, found, expected."""
    location = item["loc"]
    dotted = ".".join(str(part) for part in location)
    place = f"{where}: {dotted}" if dotted else where
    if item["type"] != "extra_forbidden":
        message = str(item["msg"]).removeprefix("Value error, ")
        found = item.get("input")
        shown = "" if isinstance(found, (dict, BaseModel)) or not dotted else f" (found {found!r})"
        return f"{place}: {message}{shown}"
    known = sorted(_fields_at(model, location[:-1]))
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
    return f"{place}: unknown key '{location[-1]}'; {hint}"


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> set[str]:
    """Names of the fields that are allowed below `location` of `model`."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        inner: list[type[BaseModel]] = []
        for candidate in models:
            if part in candidate.model_fields:
                inner.extend(_models_in(candidate.model_fields[str(part)].annotation))
        # list positions, mapping keys and union tags do not descend into a field
        models = inner or models
    return {name for candidate in models for name in candidate.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Every model class inside a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models_in(inner)]


def result_values(model: BaseModel) -> dict[str, Any]:
    """Dump a section without its speed fields, at every level, as plain JSON values."""
    dumped: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("affects_results") is False:
            continue
        dumped[name] = _plain(getattr(model, name), model.model_dump(mode="json")[name])
    return dumped


def _plain(value: Any, dumped: Any) -> Any:
    if isinstance(value, BaseModel):
        return result_values(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, text) for item, text in zip(value, dumped, strict=True)]
    if isinstance(value, Mapping):
        return {str(key): _plain(item, dumped[str(key)]) for key, item in value.items()}
    return dumped


def stage_settings(spec: StageSpec, run: RunSettings) -> dict[str, Any]:
    """Return the part of the configuration that the stage's result depends on."""
    return {
        dotted: run.value(dotted) if model is None else result_values(run.section(dotted, model))
        for dotted, model in sorted(spec.sections.items())
    }


def digest(value: Any) -> str:
    """Hash plain JSON values; key order does not matter."""
    return hashlib.sha256(canonical_json(value).encode("utf-8")).hexdigest()
