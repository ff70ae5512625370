"""Blind degradations and the plan: who gets which treatment, and what it does to the pixels."""

from typing import Any

__all__ = ["apply_degradation", "degrade_image", "draw_degradation"]


def __getattr__(name: str) -> Any:
    """Load the public functions when they are asked for."""
    if name in {"degrade_image", "apply_degradation"}:
        import degrade.image

        return getattr(degrade.image, name)
    if name == "draw_degradation":
        from degrade.drawn import draw_degradation

        return draw_degradation
    raise AttributeError(f"module 'degrade' has no attribute '{name}'")
