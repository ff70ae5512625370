"""The configuration reference page, generated from the models."""

from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_HEADER = """# Configuration reference

Generated from the configuration models by `python -m workflow schema`; do not edit. A dagger (†)
marks settings that change speed, memory or logging only: changing them reruns nothing.
"""


def config_reference(model: type[BaseModel]) -> str:
    """Render one table per section as Markdown."""
    return _HEADER + "".join(_sections(model, ""))


def _sections(model: type[BaseModel], prefix: str) -> Iterator[str]:
    lines = [f"\n## `{prefix}`\n" if prefix else "\n## Top level\n"]
    if prefix and model.__doc__:
        lines.append(f"\n{model.__doc__.strip().splitlines()[0]}\n")
    lines.append("\n| key | type | default | meaning |\n|---|---|---|---|\n")
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        dotted = f"{prefix}.{name}" if prefix else name
        nested = list(_models_in(field.annotation))
        inner += [(dotted, found) for found in nested]
        default = "see below" if nested else _default_text(field)
        key = f"`{name}`{_dagger(field)}"
        lines.append(f"| {key} | {_type_text(field)} | {default} | {_cell(field.description)} |\n")
    yield "".join(lines)
    for dotted, found in inner:
        yield from _sections(found, dotted)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _dagger(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    is_speed = isinstance(extra, dict) and extra.get("affects_results") is False
    return " †" if is_speed else ""


def _default_text(field: FieldInfo) -> str:
    if field.default is PydanticUndefined and field.default_factory is None:
        return "required"
    value = field.get_default(call_default_factory=True)
    text = str(value) if value not in ("", (), {}, None) else ("none" if value is None else "empty")
    return _cell(text if len(text) <= 60 else text[:57] + "...")


def _type_text(field: FieldInfo) -> str:
    bounds = ", ".join(_bound(item) for item in field.metadata if _bound(item))
    return _cell(_type_name(field.annotation) + (f" ({bounds})" if bounds else ""))


def _type_name(annotation: Any) -> str:
    """Name a type as a reader would write it, without the validators that annotate it."""
    parts = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_name(parts[0])
    if origin in (Union, UnionType):
        return " | ".join(_type_name(part) for part in parts)
    if origin is Literal:
        return " | ".join(repr(part) for part in parts)
    if annotation in (NoneType, Ellipsis):
        return "none" if annotation is NoneType else "..."
    if parts and isinstance(origin, type):
        return f"{origin.__name__}[{', '.join(_type_name(part) for part in parts)}]"
    return (
        annotation.__name__ if isinstance(annotation, type) else str(annotation).strip(".") or "..."
    )


def _bound(item: Any) -> str:
    for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        if hasattr(item, name):
            return f"{sign} {getattr(item, name)}"
    return ""


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
