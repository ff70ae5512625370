"""Imports go down only: workflow -> stages -> runtime, with one stage-to-stage exception."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ("crop", "degrade", "enhancer", "annotation_import", "shards", "afine", "report")
ALLOWED = {"enhancer": {"degrade"}}  # training degrades on the fly


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def sources(package: str) -> list[Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no Python files"
    return files


@pytest.mark.parametrize("stage", STAGES)
def test_stage_imports_only_itself_and_runtime(stage: str) -> None:
    forbidden = {"workflow", *STAGES} - {stage} - ALLOWED.get(stage, set())
    for path in sources(stage):
        assert not imported_packages(path) & forbidden, path


def test_runtime_imports_no_stage() -> None:
    for path in sources("runtime"):
        assert not imported_packages(path) & {"workflow", *STAGES}, path


def test_no_module_is_called_utils_or_helpers() -> None:
    names = {path.stem for package in (*STAGES, "runtime", "workflow") for path in sources(package)}
    assert not names & {"utils", "util", "helpers", "common", "misc"}
