"""HGGT label tree: `<anything>/{A,B,C}/<stem>.json`, four votes a file.

Picture_1 is the original, the others are the enhanced images 01, 02, ... by position; the
release's loaders trust the position, so it is checked against the names here.

Source: README of the public HGGT repository.
"""

from collections.abc import Iterable, Iterator

import polars as pl

from annotation_import.answers import (
    Picture,
    Trial,
    VoteError,
    answer_code,
    check_name,
    decode_trial,
)
from annotation_import.one_by_one import Row, read_each
from annotation_import.problems import Problems
from annotation_import.sources import SourceFile

VOTES_PER_FILE = 4


def read_tree(files: Iterable[SourceFile], problems: Problems) -> Iterator[pl.DataFrame]:
    """Read trials of several votes each; yields partial votes tables.

    Args:
        files: the tree's .json files.
        problems: receives every vote that is left out, with its reason.
    """
    return read_each(files, _read_trial, problems, votes_per_file=VOTES_PER_FILE)


def _read_trial(file: SourceFile, problems: Problems) -> list[Row]:
    slot, stem = _place(file)
    trial = decode_trial(file.content, file.path, problems)
    _check_original(trial, stem)
    return list(_rows(file, slot, stem, trial, problems))


def _place(file: SourceFile) -> tuple[str, str]:
    slot = file.folder.rpartition("/")[2].upper()
    if not (slot.isalpha() and slot.isascii() and len(slot) <= 2):
        raise VoteError("unexpected_path", "expected <slot>/<stem>.json")
    stem = file.name[:-5]
    if "_" in stem or "." in stem:
        raise VoteError("name_mismatch", "expected <image>-<row>-<col>.json without '_' or '.'")
    return slot, stem


def _check_original(trial: Trial, stem: str) -> None:
    if len(trial.pictures) < 2:
        raise VoteError(
            "malformed_json", f"expected Picture_1 to Picture_5, found {len(trial.pictures)}"
        )
    check_name(trial.pictures[0].Name, stem)


def _rows(
    file: SourceFile, slot: str, stem: str, trial: Trial, problems: Problems
) -> Iterator[Row]:
    for position, picture in enumerate(trial.pictures[1:], start=1):
        try:
            label = _label(picture, stem, f"{position:02}")
        except VoteError as problem:
            problems.add(problem.reason, file.path, f"Picture_{position + 1}: {problem.detail}")
            continue
        yield {
            "ref_id": stem, "test_id": f"{stem}_{position:02}", "slot": slot, "label": label,
            "started": trial.time.Start, "ended": trial.time.End, "time_s": trial.time.Total,
            "source_file": file.path,
        }  # fmt: skip


def _label(picture: Picture, stem: str, number: str) -> int:
    check_name(picture.Name, f"{stem}_{number}")
    if picture.File is not None and picture.File != number:
        raise VoteError("name_mismatch", f"expected File '{number}', found '{picture.File}'")
    return answer_code(picture.Label)
