"""Publish a run: WebDataset shards, dataset card, Croissant metadata, official layout.

Reads crops, plan, samples and labels of a run; writes `dataset/`. Everything here streams
one reference at a time.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shards.read import Reference, iter_references

__all__ = ["Reference", "iter_references"]


def __getattr__(name: str) -> Any:
    """Import the reader only when it is asked for, so that `--help` stays fast."""
    if name not in __all__:
        raise AttributeError(f"module 'shards' has no attribute '{name}'")
    import shards.read

    return getattr(shards.read, name)
