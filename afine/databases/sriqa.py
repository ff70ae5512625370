"""SRIQA-Bench: ten super-resolution results per original, all pairs compared; test set only."""

import re
from pathlib import Path

from afine.databases.records import (
    FileIndex,
    ImageRecord,
    ImageSet,
    add_once,
    existing_folder,
    numbered_lines,
    parse_score,
)
from runtime.errors import DataError

# kind of pairs -> folder of its scores (scores are scaled per content and per kind)
KINDS = {"all": "MOS", "regression": "MOS_Reg", "generation": "MOS_Gen"}


def read_sriqa(folder: Path, kind: str = "all") -> ImageSet:
    """Read one kind of pairs: `MOS*/<id>.txt`, lines "online15_HGGTx4.png,77.3", higher is better.

    The description draws `images/SwinIR/`, the authors' loader wants `images/SwinIRx4/`: any
    folder below `images` is searched. The original is one of the rated images and the reference.

    Raises:
        DataError: folders, originals or scores are missing.
    """
    scores = existing_folder(folder, KINDS[kind], what="SRIQA-Bench")
    images = existing_folder(folder, "images", what="SRIQA-Bench")
    kinds = [f"{images}/{p.name}" for p in sorted((folder / images).iterdir()) if p.is_dir()]
    index = FileIndex(folder, kinds)
    found = ImageSet("sriqa", folder)
    for path in sorted((folder / scores).glob("*.txt")):
        found.label_files.append(path)
        found.records.extend(_content_records(path, index, found))
    if not found.records:
        raise DataError(f"{folder / scores}: no scores (*.txt)")
    return found


def _content_records(path: Path, index: FileIndex, found: ImageSet) -> list[ImageRecord]:
    content = path.stem
    seen: dict[str, int] = {}
    records: list[ImageRecord] = []
    for number, line in numbered_lines(path):
        fields = [part for part in re.split(r"[,\s]+", line) if part]
        if len(fields) != 2:
            raise DataError(f"{path}:{number}: '{line}', expected a file name and a score")
        image, score = fields[0], parse_score(fields[1], path, number)
        add_once(seen, image, path, number)
        file = index.find(image)
        if file is None:
            found.rejected.append((image, "missing", f"no file '{image}' in any case"))
            continue
        is_ref = Path(file).stem.lower() == f"{content}_original".lower()
        records.append(ImageRecord(content, image, file, is_ref, score, split="test"))
    if not any(record.is_ref for record in records):
        raise DataError(f"{path}: the original '{content}_Original.png' is not rated or missing")
    return records
