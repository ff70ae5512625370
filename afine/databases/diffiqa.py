"""DiffIQA: the set that a run builds, and the released one in its own folders."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from afine.databases.records import ImageRecord, ImageSet
from runtime.atomic import read_json
from runtime.errors import DataError
from runtime.tars import Member, list_tar, read_member

SPLITS = ("train", "val", "test")
_RELEASED = {"train": "Train", "val": "Validation", "test": "Test"}
_SIGNS = {"Positive": 1, "Similar": 0, "Negative": -1}
_TEST_NAME = re.compile(r"(\d\d)\.png")


def read_run(root: Path) -> ImageSet:
    """Read the shards `dataset/{train,val,test}-*.tar` of a run; nothing is decoded.

    Images are called as in the released set: `<crop_id>.png`, `<crop_id>_<kk>.png`.
    """
    manifest = root / "dataset" / "manifest.json"
    listed = read_json(manifest, what="data set's manifest").get("files", {})
    shards = sorted(name for name in listed if name.endswith(".tar"))
    found = ImageSet("diffiqa", root, label_files=[manifest])
    for name in shards:
        split = Path(name).name.partition("-")[0]
        if split not in SPLITS:
            raise DataError(f"{manifest}: shard '{name}' is of no split (train, val, test)")
        found.records.extend(_shard_records(root, f"dataset/{name}", split))
    if not found.records:
        raise DataError(f"{manifest}: names no shards; run `python -m shards write` first")
    return found


def _shard_records(root: Path, file: str, split: str) -> list[ImageRecord]:
    by_key: dict[str, dict[str, Member]] = {}
    for member in list_tar(root / file):
        key, _, extension = member.name.partition(".")
        by_key.setdefault(key, {})[extension] = member
    records: list[ImageRecord] = []
    for key, members in sorted(by_key.items()):
        if "json" not in members or "ref.png" not in members:
            raise DataError(f"{root / file}: sample '{key}' lacks ref.png or json; rewrite it")
        facts = json.loads(read_member(root / file, members["json"]))
        ref = members["ref.png"]
        records.append(
            ImageRecord(
                key, f"{key}.png", file, True, None, None, split, ref.offset, ref.size_bytes
            )
        )
        for extension, member in sorted(members.items()):
            if (match := _TEST_NAME.fullmatch(extension)) is not None:
                label, quality = _label_of(facts["tests"][match[1]])
                records.append(
                    ImageRecord(
                        key,
                        f"{key}_{match[1]}.png",
                        file,
                        False,
                        quality,
                        label,
                        split,
                        member.offset,
                        member.size_bytes,
                    )
                )
    return records


def _label_of(facts: dict[str, Any]) -> tuple[int | None, float | None]:
    """Label, and as a finer quality the mean vote in [-1, 1]; none of both without a label."""
    if facts.get("label") is None:
        return None, None
    votes = facts.get("votes") or {}
    total = sum(votes.get(name, 0) for name in ("worse", "similar", "better"))
    label = int(facts["label"])
    mean = (votes.get("better", 0) - votes.get("worse", 0)) / total if total else float(label)
    return label, mean


def read_released(folder: Path) -> ImageSet:
    """Read the released layout: `{Train,Validation,Test}/images/...` and three votes per image.

    The name of the label folder is not stable across releases, so the folder that holds A, B
    and C is looked for. Images whose three votes all differ are rejected as outliers.
    """
    found = ImageSet("diffiqa", folder)
    for split, name in _RELEASED.items():
        part = folder / name
        if part.is_dir():
            _read_released_split(found, part, split)
    if not found.records:
        raise DataError(f"{folder}: no images below Train, Validation or Test")
    return found


def _read_released_split(found: ImageSet, part: Path, split: str) -> None:
    votes = _votes_below(part)
    originals = part / "images" / "Original"
    if not originals.is_dir():
        raise DataError(f"{originals}: folder of the references not found")
    for original in sorted(originals.glob("*.png")):
        content = original.stem
        file = original.relative_to(found.folder).as_posix()
        found.records.append(ImageRecord(content, original.name, file, True, split=split))
    references = {record.content for record in found.records if record.split == split}
    for image, given in sorted(votes.items()):
        content, _, number = Path(image).stem.partition("_")
        path = part / "images" / number / image
        label = majority(given)
        if content not in references or not path.is_file():
            found.rejected.append((image, "missing", f"no file '{path}' or no reference for it"))
        elif label is None:
            found.rejected.append((image, "outlier", f"no majority in {', '.join(given)}"))
        else:
            file = path.relative_to(found.folder).as_posix()
            quality = sum(_SIGNS[vote] for vote in given) / len(given)
            found.records.append(ImageRecord(content, image, file, False, quality, label, split))


def _votes_below(part: Path) -> dict[str, list[str]]:
    roots = sorted({path.parent for path in part.glob("**/A") if path.is_dir()})
    if len(roots) != 1:
        raise DataError(
            f"{part}: expected one folder with the votes (A, B, C), found "
            f"{', '.join(str(r) for r in roots) or 'none'}"
        )
    votes: dict[str, list[str]] = {}
    for path in sorted(roots[0].glob("[A-Z]/*/*.json")):
        facts = read_json(path, what="vote")
        try:
            picture = facts["Picture_AI"]
            name, label = str(picture["Name"]), str(picture["Label"])
        except (KeyError, TypeError):
            raise DataError(f"{path}: no Picture_AI with Name and Label") from None
        if label not in _SIGNS:
            raise DataError(f"{path}: label '{label}', expected {', '.join(_SIGNS)}")
        votes.setdefault(name, []).append(label)
    return votes


def majority(votes: list[str]) -> int | None:
    """Label that more than half of the votes gave, as -1, 0 or 1; None without one."""
    label, count = Counter(votes).most_common(1)[0]
    return _SIGNS[label] if 2 * count > len(votes) else None
