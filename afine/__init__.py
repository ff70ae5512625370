"""A-FINE: full-reference quality that does not take the reference for perfect.

`model = afine.load(path); out = model(test01, ref01)`; lower scores are better. The stage
reads dataset shards and image databases, forms triplets, trains in three phases, evaluates.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from afine.model import AFine, AFineOutput
    from afine.weights import load, save

__all__ = ["AFine", "AFineOutput", "load", "save"]

_HOMES = {
    "AFine": "afine.model",
    "AFineOutput": "afine.model",
    "load": "afine.weights",
    "save": "afine.weights",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that `--help` needs no torch."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'afine' has no attribute '{name}'")
