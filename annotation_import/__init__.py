"""Votes -> a validated table -> labels, outliers, agreement, rater report.

The public names are loaded when they are first used, so that reading the configuration or
`--help` stays quick.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "read_votes": "annotation_import.readers",
    "count_votes": "annotation_import.counts",
    "decide_labels": "annotation_import.counts",
    "fit_dawid_skene": "annotation_import.dawid_skene",
    "krippendorff_alpha": "annotation_import.agreement",
    "fit_scale": "annotation_import.scales",
    "import_votes": "annotation_import.importing",
    "export_votes": "annotation_import.export",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'annotation_import' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)
