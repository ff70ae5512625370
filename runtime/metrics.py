"""`metrics.jsonl`: what a stage measured while it worked, one JSON object a line.

Times and rates live here and not in manifests, so that manifests stay the same bytes.
"""

import json
import time
from pathlib import Path
from typing import Any


class MetricsLog:
    """Append measurements to a JSON-lines file; each line is flushed at once."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **values: Any) -> None:
        """Append one line, with the time of day in seconds since 1970 as `time_s`."""
        line = json.dumps({"time_s": round(time.time(), 3), **values}, sort_keys=True)
        with open(self._path, "a", encoding="utf-8") as handle:
            handle.write(line + "\n")


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read a metrics file; a last line cut short by a kill is left out."""
    rows: list[dict[str, Any]] = []
    if not Path(path).is_file():
        return rows
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
