"""Digest of a stage's code: what rules use to rerun a stage when its code changes.

The digest covers the syntax trees (comments, docstrings and layout do not count) of the
stage's module and of everything of ours that it imports, directly or not. Of `runtime`,
only the modules that shape output bytes count; configuration models do not count, since
their values enter the fingerprint by themselves.
"""

import ast
import hashlib
import zlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = frozenset(
    {"crop", "degrade", "enhancer", "annotation_import", "shards", "afine", "report", "runtime"}
)
RUNTIME_THAT_SHAPES_BYTES = frozenset(
    {"runtime.seeds", "runtime.tars", "runtime.images", "runtime.tables"}
)


def code_digest(module: str) -> str:
    """Return the digest of `module` and its import closure.

    Args:
        module: dotted name, for example "enhancer.sample.stage".

    Raises:
        ModuleNotFoundError: there is no such module in this repository.
    """
    lines = [f"{name} {_tree_digest(name)}" for name in sorted(import_closure(module))]
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


def files_version(folder: Path) -> int:
    """Number that changes with a stage's templates, which the digest of Python code cannot see."""
    return zlib.crc32(b"".join(path.read_bytes() for path in sorted(folder.iterdir())))


def import_closure(module: str) -> set[str]:
    """Names of our modules whose code can change what `module` writes."""
    if module_path(module) is None:
        raise ModuleNotFoundError(f"no module {module} below {ROOT}")
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(imported for imported in _imports(name) if _counts(imported))
    return found


def module_path(module: str) -> Path | None:
    """Source file of one of our modules, or None if it is not ours."""
    if module.partition(".")[0] not in PACKAGES:
        return None
    base = ROOT.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _counts(module: str) -> bool:
    if module.startswith("runtime"):
        return module in RUNTIME_THAT_SHAPES_BYTES
    return module.rpartition(".")[2] not in {"config", "__main__"}


@cache
def _tree(module: str) -> ast.Module:
    path = module_path(module)
    assert path is not None, f"{module} has no source file"
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _imports(module: str) -> frozenset[str]:
    """Our modules that `module` imports anywhere in its text, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in names if module_path(name) is not None)


@cache
def _tree_digest(module: str) -> str:
    tree = _tree(module)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            del body[0]
    return hashlib.sha256(ast.dump(tree).encode("utf-8")).hexdigest()
