"""SRIQA-Bench label tree: `<anything>/{A..J}/<id>/<id>_<P>_<Q>.json`, one comparison a file.

Each of the two pictures carries an answer; what counts is which answer is better. Pairs are
turned so that `test_id < test_id_2`, whichever way round a slot has them.

Source: README and compute_MOS.py of the public AFINE repository.
"""

from collections.abc import Iterable, Iterator

import polars as pl

from annotation_import.answers import (
    Picture,
    VoteError,
    answer_code,
    check_name,
    decode_trial,
)
from annotation_import.one_by_one import Row, read_each
from annotation_import.problems import Problems
from annotation_import.sources import SourceFile


def read_tree(files: Iterable[SourceFile], problems: Problems) -> Iterator[pl.DataFrame]:
    """Read comparisons; yields partial votes tables.

    Args:
        files: the tree's .json files.
        problems: receives every vote that is left out, with its reason.
    """
    return read_each(files, _read_vote, problems)


def _read_vote(file: SourceFile, problems: Problems) -> list[Row]:
    slot, content_id = _place(file)
    stem = file.name[:-5]
    first, separator, second = stem.removeprefix(f"{content_id}_").partition("_")
    if not (stem.startswith(f"{content_id}_") and first and separator and second):
        raise VoteError("name_mismatch", f"expected {content_id}_<P>_<Q>.json")
    trial = decode_trial(file.content, file.path, problems)
    one, two = f"{content_id}_{first}", f"{content_id}_{second}"
    if one.lower() == two.lower():
        raise VoteError("name_mismatch", "an image is compared with itself")
    label = _compare(_find(trial.pictures, one), _find(trial.pictures, two))
    if two < one:
        one, two, label = two, one, -label
    row: Row = {
        "ref_id": content_id, "test_id": one, "test_id_2": two, "slot": slot, "label": label,
        "started": trial.time.Start, "ended": trial.time.End, "time_s": trial.time.Total,
        "source_file": file.path,
    }  # fmt: skip
    return [row]


def _place(file: SourceFile) -> tuple[str, str]:
    parts = file.folder.split("/")
    slot = parts[-2].upper() if len(parts) > 1 else ""
    if not (slot.isalpha() and slot.isascii() and len(slot) <= 2):
        raise VoteError("unexpected_path", "expected <slot>/<id>/<id>_<P>_<Q>.json")
    return slot, parts[-1]


def _find(pictures: list[Picture], stem: str) -> Picture:
    """Find the answered picture of that name; the reference shown beside has no answer."""
    named = [p for p in pictures if (p.Name or "").rpartition(".")[0].lower() == stem.lower()]
    if not named:
        found = ", ".join(str(picture.Name) for picture in pictures) or "no picture"
        raise VoteError("name_mismatch", f"expected '{stem}.png', found {found}")
    check_name(named[0].Name, stem)
    return next((picture for picture in named if picture.Label), named[0])


def _compare(first: Picture, second: Picture) -> int:
    one, two = answer_code(first.Label), answer_code(second.Label)
    return (one > two) - (one < two)
