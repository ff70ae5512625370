"""The release's text files: Triplet.txt (6 columns) and TripletEachType/*.txt (4 columns)."""

from collections.abc import Iterable
from pathlib import Path

from afine.triplets.rules import Triplet
from runtime.atomic import write_text
from runtime.errors import DataError

EACH_TYPE_FOLDER = "TripletEachType"
KINDS = ("PSY", "PNY", "SNY", "SSY", "PYY", "SYY", "NYY")


def write_official(path: Path, triplets: Iterable[Triplet]) -> list[Path]:
    """Write `path` (Triplet.txt) and, beside it, TripletEachType/<kind>.txt; returns the files."""
    rows = list(triplets)
    write_text(path, "".join(_line(row) for row in rows))
    written = [path]
    for kind in KINDS:
        file = path.parent / EACH_TYPE_FOLDER / f"{kind}.txt"
        write_text(
            file,
            "".join(
                f"{row.image1},{row.image2},{row.ref},{row.label12:g}\n"
                for row in rows
                if row.kind == kind
            ),
        )
        written.append(file)
    return written


def _line(row: Triplet) -> str:
    labels = f"{row.label12:g},{row.label1r:g},{row.label2r:g}"
    return f"{row.image1},{row.image2},{row.ref},{labels}\n"


def read_official(path: Path) -> list[Triplet]:
    """Read a Triplet.txt; the kind is told from the labels.

    Raises:
        DataError: a line has another number of columns or another label than 0, 0.5, 1.
    """
    rows: list[Triplet] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.strip().split(",")
        if fields == [""]:
            continue
        if len(fields) != 6 or not set(fields[3:]) <= {"0", "0.5", "1"}:
            raise DataError(
                f"{path}:{number}: '{line}', expected image 1, image 2, reference and three "
                "labels of 0, 0.5, 1"
            )
        label12, label1r, label2r = (float(text) for text in fields[3:])
        letters = {1.0: "P", 0.5: "S", 0.0: "N"}
        is_reference_row = fields[1] == fields[2]
        ordered = sorted((label1r, label2r), reverse=True)
        kind = (
            f"{letters[label1r]}YY"
            if is_reference_row
            else "".join(letters[label] for label in ordered) + "Y"
        )
        rows.append(
            Triplet(
                Path(fields[2]).stem,
                fields[0],
                fields[1],
                fields[2],
                label12,
                label1r,
                label2r,
                kind,
            )
        )
    return rows
