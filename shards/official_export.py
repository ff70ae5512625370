"""`shards export`: a dataset in the folder layout of the DiffIQA release.

    OUT/{Train,Validation,Test}/images/{01..06}/<stem>_<KK>.png, images/Original/<stem>.png
    OUT/{Train,Validation,Test}/labels/{A,B,C}/{01..06}/<stem>_<KK>.json     one vote a file
    OUT/Train/trainlabel/Triplet/Triplet.txt
    OUT/{Train,Validation,Test}/TripletEachType/{PSY,PNY,SNY,SSY,PYY,SYY,NYY}.txt

The folder appears under its name only when everything is in it.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Literal

from runtime.atomic import write_json
from runtime.errors import ConfigError, DataError
from runtime.progress import track
from shards.official_triplets import KINDS, triplet_lines
from shards.read import Reference, dataset_tars, iter_references

_log = logging.getLogger(__name__)

FOLDER_OF_SPLIT = {"train": "Train", "val": "Validation", "test": "Test"}
ANSWER_OF_LABEL = {1: "Positive", 0: "Similar", -1: "Negative"}
SYNTHETIC_MARK = "SYNTHETIC.json"
_LABEL_OF_VOTES = {"worse": -1, "similar": 0, "better": 1}
_SLOTS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Votes = Literal["counts", "label"]


def export_official(dataset: Path, out: Path, *, votes: Votes = "counts") -> Counter[str]:
    """Write a dataset in the official layout.

    Args:
        dataset: folder with the shards.
        out: new or empty folder.
        votes: "counts" writes one vote file for each counted vote (slots are not persons);
            "label" writes three equal votes, so that a majority of three gives the label.

    Returns:
        Numbers of references, images, votes and triplets written.

    Raises:
        ConfigError: `out` is not empty.
        DataError: no shards, a stem that the release's scripts would misread, or too many votes.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not an empty folder; choose another --out")
    counts: Counter[str] = Counter()
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    is_synthetic = False
    for split in dataset_tars(dataset):
        folder = unfinished / FOLDER_OF_SPLIT[split]
        is_synthetic |= _export_split(dataset, split, folder, votes, counts)
    if is_synthetic:
        write_json(unfinished / SYNTHETIC_MARK, {
            "is_synthetic": True,
            "meaning": "these votes come from a simulated observer, not from people",
        })  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished.replace(out)
    _log.info("%s: %s", out, dict(sorted(counts.items())))
    return counts


def _export_split(
    dataset: Path, split: str, folder: Path, votes: Votes, counts: Counter[str]
) -> bool:
    is_synthetic = False
    each_type = folder / "TripletEachType"
    each_type.mkdir(parents=True)
    triplets = folder / "trainlabel" / "Triplet"
    with ExitStack() as stack:
        files = {kind: stack.enter_context(open(each_type / f"{kind}.txt", "w")) for kind in KINDS}
        if split == "train":
            triplets.mkdir(parents=True)
            files["all"] = stack.enter_context(open(triplets / "Triplet.txt", "w"))
        for reference in track(iter_references(dataset, split), f"export {split}"):
            _check_stem(reference.key)
            _write_images(folder / "images", reference)
            counts["references"] += 1
            counts["images"] += len(reference.test_pngs)
            counts["votes"] += _write_votes(folder / "labels", reference, votes)
            counts["triplets"] += _write_triplets(files, reference)
            is_synthetic |= bool(reference.record["is_synthetic"])
    return is_synthetic


def _check_stem(stem: str) -> None:
    """The release's scripts cut names at the first "_" and ".", so a stem may hold neither."""
    if "_" in stem or "." in stem:
        raise DataError(f"key '{stem}': the official layout allows no '_' and no '.' in a stem")


def _write_images(folder: Path, reference: Reference) -> None:
    for number, content in [("Original", reference.reference_png), *reference.test_pngs.items()]:
        suffix = "" if number == "Original" else f"_{number}"
        path = folder / number / f"{reference.key}{suffix}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _write_votes(folder: Path, reference: Reference, votes: Votes) -> int:
    written = 0
    for kk, test in reference.record["tests"].items():
        for slot, label in _slots(reference.key, kk, test, votes):
            path = folder / slot / kk / f"{reference.key}_{kk}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(vote_file(reference.key, kk, label)), encoding="utf-8")
            written += 1
    return written


def _slots(key: str, kk: str, test: Mapping[str, Any], votes: Votes) -> Iterator[tuple[str, int]]:
    if test["label"] is None:
        return
    if votes == "label":
        yield from ((slot, test["label"]) for slot in _SLOTS[:3])
        return
    cast = [label for name, label in _LABEL_OF_VOTES.items() for _ in range(test["votes"][name])]
    if len(cast) > len(_SLOTS):
        raise DataError(
            f"{key}_{kk}: {len(cast)} votes, the layout has {len(_SLOTS)} slots; export with "
            "--votes label"
        )
    yield from zip(_SLOTS, cast, strict=False)


def vote_file(stem: str, kk: str, label: int) -> dict[str, Any]:
    """Return one vote as the release writes it; who voted and when is not known here."""
    name = f"{stem}_{kk}.png"
    return {
        "Picture_AI": {"Name": name, "File": kk, "ImageSize": [], "Label": ANSWER_OF_LABEL[label]},
        "picture_Original": {
            "Name": f"{stem}.png", "File": "Original", "ImageSize": [], "Label": None,
        },
        "Time_cost": {"Start": None, "End": None, "Total": None},
    }  # fmt: skip


def _write_triplets(files: Mapping[str, IO[str]], reference: Reference) -> int:
    tests = reference.record["tests"]
    labels = {kk: test["label"] for kk, test in tests.items() if test["label"] is not None}
    written = 0
    for kind, line, line_of_kind in triplet_lines(reference.key, labels):
        files[kind].write(line_of_kind)
        if "all" in files:
            files["all"].write(line)
        written += 1
    return written
