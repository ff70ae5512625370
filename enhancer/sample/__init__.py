"""Mixed-step UniPC sampling: from the plan to test images, with the device kept full.

Public names are loaded on first use, so that importing the package costs nothing.
"""

import importlib
from typing import Any

_PUBLIC = {
    "denoise_latents": "enhancer.sample.latents",
    "wavelet_color_fix": "enhancer.sample.color",
}
__all__ = ["denoise_latents", "wavelet_color_fix"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
