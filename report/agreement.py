"""Agreement of the raters, from `annotations/report.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.atomic import read_json
from runtime.errors import DataError

_MOST_RATERS = 40


def agreement(root: Path) -> dict[str, Any]:
    """Read what the annotation stage found; empty while it has not run.

    Returns:
        alpha, alpha_ordinal (value, low, high, confidence), rows of plain measures, pairs, policy,
        problems, raters (those with flags first, at most 40), raters_absent_because.
    """
    try:
        found = read_json(root / "annotations/report.json")
    except DataError:
        return {}
    measured = found.get("agreement") or {}
    pairs = found.get("pairs") or {}
    return {
        "alpha": _interval(measured.get("alpha_nominal")),
        "alpha_ordinal": _interval(measured.get("alpha_ordinal")),
        "measures": [
            (name, measured[key])
            for name, key in (
                ("Fleiss' κ", "fleiss_kappa"),
                ("Gwet's AC1", "gwet_ac1"),
                ("share of agreeing pairs of votes", "percent_agreement"),
            )
            if isinstance(measured.get(key), (int, float))
        ],
        "by_class": measured.get("percent_agreement_by_class") or {},
        "n_units": measured.get("n_units"),
        "votes": found.get("votes") or {},
        "pairs": pairs,
        "policy": found.get("policy") or {},
        "problems": found.get("problems") or {},
        "raters": _raters(found.get("raters")),
        "n_raters": (found.get("raters") or {}).get("n"),
        "n_flagged": (found.get("raters") or {}).get("n_flagged"),
        "raters_absent_because": found.get("raters_absent_because"),
    }


def _interval(value: Any) -> dict[str, Any] | None:
    is_there = isinstance(value, Mapping) and isinstance(value.get("value"), (int, float))
    return dict(value) if is_there else None


def _raters(found: Any) -> list[Mapping[str, Any]]:
    rows = list(found.get("rows", [])) if isinstance(found, Mapping) else []
    return sorted(rows, key=lambda row: (not row.get("flags"), str(row.get("rater_id"))))[
        :_MOST_RATERS
    ]
