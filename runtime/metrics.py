"""`metrics.jsonl`: what a stage measured while it worked, one JSON object a line.

Times and rates live here and not in manifests, so that manifests stay the same bytes.
"""

import json
import os
import time
from pathlib import Path
from typing import Any


class MetricsLog:
    """Append measurements to a JSON-lines file; each line is flushed at once.

    A line that a kill cut short stays alone: the next one does not begin on it.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **values: Any) -> None:
        """Append one line, with the time of day in seconds since 1970 as `time_s`."""
        line = json.dumps({"time_s": round(time.time(), 3), **values}, sort_keys=True) + "\n"
        with open(self._path, "ab+") as handle:
            if handle.seek(0, os.SEEK_END):
                handle.seek(-1, os.SEEK_END)
                line = line if handle.read() == b"\n" else "\n" + line
            handle.write(line.encode("utf-8"))


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read a metrics file; lines cut short by a kill are left out."""
    rows: list[dict[str, Any]] = []
    if not Path(path).is_file():
        return rows
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
