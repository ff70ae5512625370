"""basicsr's kernel functions, loaded without the rest of basicsr.

`import basicsr` loads all its networks and fails with current torchvision, which no longer has
`torchvision.transforms.functional_tensor`. The one module that is needed is loaded from its file,
with a stand-in for the missing name. That module imports torch for functions that kernels do not
need; torch takes seconds to import, so it gets a stand-in as well that imports it when it is used.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import scipy.special
import scipy.stats  # noqa: F401

from runtime.errors import ResourceError

_MISSING_MODULE = "torchvision.transforms.functional_tensor"


def degradations() -> ModuleType:
    """Load `basicsr.data.degradations`: kernels, and the noises that tests compare with."""
    return load_module("data/degradations.py")


@cache
def load_module(path: str) -> ModuleType:
    """Load one file of basicsr as a module of its own.

    Args:
        path: path inside the package, for example "utils/diffjpeg.py".
    Raises:
        ResourceError: basicsr is not installed.
    """
    found = importlib.util.find_spec("basicsr")
    if found is None or not found.submodule_search_locations:
        raise ResourceError("basicsr is not installed; run 'make install' (docs/dependencies.md)")
    register_functional_tensor()
    file = Path(next(iter(found.submodule_search_locations))) / path
    spec = importlib.util.spec_from_file_location(f"degrade._basicsr_{file.stem}", file)
    assert spec is not None and spec.loader is not None, f"{file} is no module"
    module = importlib.util.module_from_spec(spec)
    with _torch_on_demand():
        spec.loader.exec_module(module)
    return module


class _TorchOnDemand(ModuleType):
    """Stands in for torch until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("torch"), name)


@contextmanager
def _torch_on_demand() -> Iterator[None]:
    """Let `import torch` give the stand-in, unless torch is there already."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = _TorchOnDemand("torch")
    try:
        yield
    finally:
        del sys.modules["torch"]


def register_functional_tensor() -> None:
    """Offer the module that torchvision dropped, with the one function that basicsr takes."""
    if _MISSING_MODULE not in sys.modules:
        module = ModuleType(_MISSING_MODULE)
        module.rgb_to_grayscale = _rgb_to_grayscale  # type: ignore[attr-defined]
        sys.modules[_MISSING_MODULE] = module


def _rgb_to_grayscale(image: Any, num_output_channels: int = 1) -> Any:
    """Call torchvision's function of that name, which takes a second to import."""
    from torchvision.transforms.functional import rgb_to_grayscale

    return rgb_to_grayscale(image, num_output_channels)
