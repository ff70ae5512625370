"""What each stage took in, put out and left out, from the manifests of a run."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from report.present import present_files
from runtime.atomic import read_json
from runtime.errors import DataError
from runtime.settings import RunSettings

# only these places: an annotation tree may hold half a million .json files
_MANIFESTS = (
    "crops/manifest.json", "plan.manifest.json", "degraded/degraded-*.json",
    "base/manifest.json", "enhancer/manifest.json", "samples/samples-*.json",
    "annotations/simulated.manifest.json", "annotations/manifest.json", "dataset/manifest.json",
    "afine/triplets.manifest.json", "afine/phase*/manifest.json", "afine/evaluate.manifest.json",
)  # fmt: skip
# what a stage calls what it takes in and what it puts out, where that is not "in" and "out"
_FLOW = {
    "crop run": ("files", "crops"),
    "degrade plan": ("references", "test_images"),
    "degrade apply": ("", "images"),
    "annotation_import simulate": ("images", "voted"),
    "annotation_import import": ("pairs", "labelled"),
}


@dataclass
class StageCounts:
    """What one stage did, over all of its shards.

    Attributes:
        name: stage and verb.
        shards: number of manifests.
        counts: plain numbers of the manifests, summed.
        rejected: rejected items by reason.
        left_out: items left out on purpose by reason.
        rows: rejected items: key, reason, detail.
    """

    name: str
    shards: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    rows: list[Mapping[str, str]] = field(default_factory=list)

    def add(self, manifest: Mapping[str, Any]) -> None:
        """Add one manifest's counts."""
        self.shards += 1
        for name, value in dict(manifest.get("counts", {})).items():
            if name == "rejected":
                self.rejected.update(_reasons(value))
            elif name == "left_out":
                self.left_out.update(_reasons(value))
            else:
                self.counts.update(_numbers(name, value))
        rows = manifest.get("rejected", [])
        self.rows += [row for row in rows if isinstance(row, Mapping)]

    @property
    def taken(self) -> tuple[float, str] | None:
        """What the stage took in: number and name."""
        return self._flow(0, "in")

    @property
    def made(self) -> tuple[float, str] | None:
        """What the stage put out: number and name."""
        return self._flow(1, "out")

    @property
    def others(self) -> dict[str, float]:
        """Counts beside what was taken in and put out."""
        shown = {"in", "out", *_FLOW.get(self.name, ())}
        return {name: n for name, n in self.counts.items() if n and name not in shown}

    def rare_first(self) -> list[Mapping[str, str]]:
        """Rejected items, those with the rarest reasons first."""
        often = Counter(str(row.get("reason")) for row in self.rows)
        return sorted(self.rows, key=lambda row: often[str(row.get("reason"))])

    def _flow(self, side: int, usual: str) -> tuple[float, str] | None:
        name = _FLOW.get(self.name, (usual, usual))[side]
        if name not in self.counts:
            return None
        return self.counts[name], "" if name == usual else name.replace("_", " ")


def _numbers(name: str, value: Any) -> dict[str, float]:
    """Plain numbers of a count, which may be split into parts (but not further)."""
    parts = value.items() if isinstance(value, Mapping) else [("", value)]
    return {
        f"{name} {part}".strip(): n
        for part, n in parts
        if isinstance(n, (int, float)) and not isinstance(n, bool)
    }


def stage_counts(run: RunSettings) -> list[StageCounts]:
    """Read the manifests of a run, in the order of its stages."""
    found: dict[str, StageCounts] = {}
    for path in manifest_paths(run):
        manifest = _read(path)
        if manifest is None:
            continue
        name = str(manifest.get("stage") or path.relative_to(run.root).parent)
        stage = found.setdefault(name, StageCounts(name))
        stage.add(manifest)
    if "crop run" in found and not found["crop run"].rows:
        found["crop run"].rows += _rejected_photographs(run.root / "crops/rejected.parquet")
    return list(found.values())


def manifest_paths(run: RunSettings) -> Iterator[Path]:
    """List the manifests of a run, in the order of its stages."""
    for pattern in _MANIFESTS:
        yield from present_files(run, pattern)


def _read(path: Path) -> Mapping[str, Any] | None:
    """A manifest, or None for another or an unreadable file: the report shows what there is."""
    try:
        manifest = read_json(path)
    except DataError:
        return None
    return manifest if isinstance(manifest, Mapping) and "counts" in manifest else None


def _reasons(value: Any) -> dict[str, int]:
    if isinstance(value, Mapping):
        return {str(reason): int(n) for reason, n in value.items() if n}
    return {"rejected": int(value)} if value else {}


def _rejected_photographs(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    table = pl.read_parquet(path)
    key = "path" if "path" in table.columns else table.columns[0]
    return [
        {"key": Path(str(row[key])).name, "reason": str(row.get("reason", "")),
         "detail": str(row.get("detail") or "")}
        for row in table.iter_rows(named=True)
    ]  # fmt: skip
