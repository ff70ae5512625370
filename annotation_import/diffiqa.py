"""DiffIQA label tree: `<anything>/{A,B,C}/{01..06}/<stem>_{KK}.json`, one vote a file.

The label folder's own name differs between releases, so only the last two folders count.
`SYNTHETIC.json` at any level marks the votes as simulated; `raters.parquet` (ours) adds what
the layout cannot hold: who voted, and which side the test image was shown on.

Source: README and scripts of the public AFINE repository.
"""

import re
from collections.abc import Iterable, Iterator

import msgspec
import polars as pl

from annotation_import.answers import (
    ANSWERS,
    Picture,
    TimeCost,
    VoteError,
    answer_code,
    as_picture,
    as_time,
    check_name,
    decode_leniently,
)
from annotation_import.problems import Problems
from annotation_import.sources import SourceFile

_STEM = re.compile(r"([^_.]+)_(\d\d)")
_SLOT = re.compile(r"[A-Z]{1,2}")


class _Vote(msgspec.Struct, gc=False):
    test: Picture = msgspec.field(name="Picture_AI")
    ref: Picture = msgspec.field(name="picture_Original")
    time: TimeCost = msgspec.field(name="Time_cost", default_factory=TimeCost)


_decode = msgspec.json.Decoder(_Vote).decode


class _Folder:
    """Votes of one folder, column by column; half a million rows are never held as objects."""

    def __init__(self, folder: str) -> None:
        above, _, self.number = folder.rpartition("/")
        self.folder = folder
        slot = above.rpartition("/")[2].upper()
        self.slot = slot if _SLOT.fullmatch(slot) else ""
        self.names: list[str] = []
        self.codes: list[int] = []
        self.started: list[str | None] = []
        self.ended: list[str | None] = []
        self.times: list[float | None] = []

    def frame(self) -> pl.DataFrame:
        table = pl.DataFrame(
            {
                "name": self.names, "label": self.codes, "started": self.started,
                "ended": self.ended, "time_s": self.times,
            },
            schema={
                "name": pl.String, "label": pl.Int8, "started": pl.String, "ended": pl.String,
                "time_s": pl.Float64,
            },
        )  # fmt: skip
        stem = pl.col("name").str.head(-5)
        return table.with_columns(
            test_id=stem,
            ref_id=stem.str.head(-3),
            slot=pl.lit(self.slot),
            source_file=pl.lit(f"{self.folder}/") + pl.col("name"),
        ).drop("name")


def read_tree(files: Iterable[SourceFile], problems: Problems) -> Iterator[pl.DataFrame]:
    """Read votes folder by folder.

    Args:
        files: the tree's .json files; those of one folder should come together.
        problems: receives every vote that is left out, with its reason.

    Yields:
        Partial votes tables (`annotation_import.votes.complete` adds the other columns).
    """
    part: _Folder | None = None
    for file in files:
        folder, name, content = file
        if part is None or folder != part.folder:
            if part is not None:
                yield part.frame()
            part = _Folder(folder)
        stem = name[:-5]
        try:
            vote = _decode(content)
            test = vote.test
            # the common case, without a function call; anything else is looked at again
            if (
                test.Name == f"{stem}.png"
                and test.File == part.number == stem[-2:]
                and vote.ref.Name == f"{stem[:-3]}.png"
                and stem.count("_") == 1
                and stem.count(".") == 0
                and test.Label in ANSWERS
                and part.slot
            ):
                code = ANSWERS[test.Label]
            else:
                code = _check(vote, file, part)
        except (msgspec.DecodeError, UnicodeDecodeError, VoteError):
            try:
                vote, code = _look_again(file, part, problems)
            except VoteError as problem:
                problems.add(problem.reason, file.path, problem.detail)
                continue
        time = vote.time
        part.names.append(name)
        part.codes.append(code)
        part.started.append(time.Start)
        part.ended.append(time.End)
        part.times.append(time.Total)
    if part is not None:
        yield part.frame()


def _look_again(file: SourceFile, part: _Folder, problems: Problems) -> tuple[_Vote, int]:
    if not part.slot or not part.number:
        raise VoteError("unexpected_path", "expected <slot>/<KK>/<stem>_<KK>.json")
    parts = decode_leniently(file.content, file.path, problems)
    vote = _Vote(
        as_picture(parts.get("picture_ai"), "Picture_AI"),
        as_picture(parts.get("picture_original"), "picture_Original"),
        as_time(parts.get("time_cost"), file.path, problems),
    )
    return vote, _check(vote, file, part)


def _check(vote: _Vote, file: SourceFile, part: _Folder) -> int:
    """Check one vote against its place in the tree; returns its label."""
    stem = file.name[:-5]
    match = _STEM.fullmatch(stem)
    if match is None:
        raise VoteError(
            "name_mismatch", "expected <stem>_<KK>.json with no other '_' or '.' in the stem"
        )
    if match[2] != part.number or not part.slot:
        raise VoteError(
            "unexpected_path", f"image {match[2]} lies in folder '{part.number or '.'}'"
        )
    check_name(vote.test.Name, stem)
    check_name(vote.ref.Name, match[1])
    if vote.test.File is not None and vote.test.File != match[2]:
        raise VoteError("name_mismatch", f"expected File '{match[2]}', found '{vote.test.File}'")
    return answer_code(vote.test.Label)
