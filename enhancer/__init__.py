"""The generative enhancer: base model, PACA model, its training, and sampling.

Public names load torch and diffusers only when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enhancer.checkpoints import load_nets as load_nets
    from enhancer.sample.latents import denoise_latents as denoise_latents

_HOMES = {
    "load_nets": "enhancer.checkpoints",
    "denoise_latents": "enhancer.sample.latents",
}
__all__ = ["denoise_latents", "load_nets"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'enhancer' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
