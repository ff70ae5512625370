"""Sets whose scores are in lists: TID2013, KADID-10k, PIPAL, CSIQ."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from afine.databases.records import (
    FileIndex,
    ImageRecord,
    ImageSet,
    add_once,
    existing_folder,
    find_file,
    numbered_lines,
    parse_score,
)
from runtime.errors import DataError

# (test image, names that its reference may have, score with higher = better)
Listed = tuple[str, tuple[str, ...], float]


def read_tid2013(folder: Path) -> ImageSet:
    """Read TID2013: `mos_with_names.txt`, "5.51429 I01_01_1.bmp", higher is better.

    The list and the disk disagree on the case of names, and reference 25 is the only one whose
    file is lower case in the archive: names are matched in any case.
    """
    labels = find_file(folder, "mos_with_names.txt", what="TID2013's list of scores")
    rows: list[Listed] = []
    seen: dict[str, int] = {}
    for number, line in numbered_lines(labels):
        fields = line.split()
        if len(fields) != 2:
            raise DataError(f"{labels}:{number}: '{line}', expected a score and a file name")
        image = fields[1]
        add_once(seen, image, labels, number)
        reference = image.partition("_")[0] + ".bmp"
        rows.append((image, (reference,), parse_score(fields[0], labels, number)))
    folders = (
        existing_folder(folder, "distorted_images", what="TID2013"),
        existing_folder(folder, "reference_images", what="TID2013"),
    )
    return _collect("tid2013", folder, folders, rows, [labels])


def read_kadid10k(folder: Path) -> ImageSet:
    """Read KADID-10k: `dmos.csv`, columns dist_img, ref_img, dmos, var.

    Despite its name `dmos` is a mean opinion score: higher is better. `var` holds standard
    deviations and is not used.
    """
    labels = find_file(folder, "dmos.csv", what="KADID-10k's list of scores")
    rows: list[Listed] = []
    seen: dict[str, int] = {}
    with open(labels, encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle)
        wanted = ("dist_img", "ref_img", "dmos")
        if not set(wanted) <= set(reader.fieldnames or ()):
            raise DataError(f"{labels}:1: header {reader.fieldnames}, expected {', '.join(wanted)}")
        for number, row in enumerate(reader, start=2):
            image, reference, score = (str(row[name] or "").strip() for name in wanted)
            add_once(seen, image, labels, number)
            rows.append((image, (reference,), parse_score(score, labels, number)))
    folders = (existing_folder(folder, "images", what="KADID-10k"),)
    return _collect("kadid10k", folder, folders, rows, [labels])


def read_pipal(folder: Path) -> ImageSet:
    """Read PIPAL's training part: `Train_Label/<reference>.txt`, "A0001_00_00.bmp,1520.06".

    Elo-like scores, higher is better. The labels of PIPAL's own validation and test parts are
    not public, so splits are made of the 200 training references.
    """
    name = existing_folder(folder, "Train_Label", "Train_Labels", what="PIPAL")
    files = sorted((folder / name).glob("*.txt"))
    if not files:
        raise DataError(f"{folder / name}: no label files (*.txt)")
    rows: list[Listed] = []
    seen: dict[str, int] = {}
    for labels in files:
        for number, line in numbered_lines(labels):
            fields = [part for part in re.split(r"[,\s]+", line) if part]
            if len(fields) != 2:
                raise DataError(f"{labels}:{number}: '{line}', expected a file name and a score")
            add_once(seen, fields[0], labels, number)
            reference = fields[0].partition("_")[0] + ".bmp"
            rows.append((fields[0], (reference,), parse_score(fields[1], labels, number)))
    parts = [p.name for p in sorted(folder.iterdir()) if _is_pipal_part(p)]
    if not parts:
        raise DataError(f"{folder}: PIPAL has no folder Distortion_1 ... or Dist_Imgs")
    reference_folder = existing_folder(folder, "Train_Ref", what="PIPAL")
    return _collect("pipal", folder, (*parts, reference_folder), rows, files)


def _is_pipal_part(path: Path) -> bool:
    return (
        path.is_dir()
        and re.fullmatch(r"(train_)?dist(ortion_\d+|_imgs)?", path.name.lower()) is not None
    )


def read_csiq(folder: Path) -> ImageSet:
    """Read CSIQ: `csiq_label.txt`, "1600.AWGN.1.png 0.062"; DMOS, so lower is better.

    The common list is derived from the authors' spreadsheet; some copies leave out ".png",
    and some keep all distorted images in one folder.
    """
    labels = find_file(folder, "csiq_label.txt", what="CSIQ's list of scores")
    rows: list[Listed] = []
    seen: dict[str, int] = {}
    for number, line in numbered_lines(labels):
        fields = [part for part in re.split(r"[,\s]+", line) if part]
        if len(fields) != 2:
            raise DataError(f"{labels}:{number}: '{line}', expected a file name and a score")
        image = fields[0] if fields[0].lower().endswith(".png") else fields[0] + ".png"
        add_once(seen, image, labels, number)
        reference = image.partition(".")[0] + ".png"
        rows.append((image, (reference,), -parse_score(fields[1], labels, number)))
    base = existing_folder(folder, "dst_imgs", "dst_imgs_all", what="CSIQ")
    kinds = [f"{base}/{p.name}" for p in sorted((folder / base).iterdir()) if p.is_dir()]
    references = existing_folder(folder, "src_imgs", what="CSIQ")
    return _collect("csiq", folder, (base, *kinds, references), rows, [labels])


def _collect(
    name: str, folder: Path, folders: Iterable[str], rows: Iterable[Listed], labels: list[Path]
) -> ImageSet:
    """Join a list with the disk; a listed image without a file is rejected, not skipped."""
    index = FileIndex(folder, folders)
    found = ImageSet(name, folder, label_files=labels)
    references: dict[str, ImageRecord] = {}
    for image, reference_names, score in rows:
        stem = Path(reference_names[0]).stem.lower()
        reference, file = index.find(*reference_names), index.find(image)
        if reference is None or file is None:
            missing = image if file is None else reference_names[0]
            found.rejected.append((image, "missing", f"no file '{missing}' in any case"))
            continue
        references[stem] = ImageRecord(stem, Path(reference).name, reference, is_ref=True)
        found.records.append(ImageRecord(stem, Path(file).name, file, quality=score))
    found.records.extend(references[stem] for stem in sorted(references))
    return found
