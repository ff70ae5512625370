"""DiffIQA label tree: `<anything>/{A,B,C}/{01..06}/<stem>_{KK}.json`, one vote a file.

The label folder's own name differs between releases, so only the last two folders count.

Reading half a million small files is the whole cost of an import, so a chunk of files is first
taken to be in order: decoded in one call and checked column against column. Only where that
fails is each file of the chunk looked at by itself, and given its reason.

Source: README and scripts of the public AFINE repository.
"""

import multiprocessing
import os
import re
from array import array
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field

import msgspec
import numpy as np
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
from annotation_import.sources import Aside, Chunk, Folder, SourceFile, join

_STEM = re.compile(r"([^_.\n]+)_(\d\d)")
_SLOT = re.compile(r"[A-Z]{1,2}")
_FILES_WITHOUT_PROCESSES = 10_000
_MAX_PROCESSES = 4  # more readers wait for the same disk


class _Vote(msgspec.Struct, gc=False):
    test: Picture = msgspec.field(name="Picture_AI")
    ref: Picture = msgspec.field(name="picture_Original")
    time: TimeCost = msgspec.field(name="Time_cost", default_factory=TimeCost)


_decode = msgspec.json.Decoder(_Vote).decode
_decode_many = msgspec.json.Decoder(list[_Vote]).decode


@dataclass
class _Columns:
    """Votes of one chunk; texts joined by line breaks, because that travels between processes."""

    folder: str
    slot: str
    names: str = ""
    codes: bytes = b""
    started: str = ""
    ended: str = ""
    times: bytes = b""
    problems: Problems = field(default_factory=Problems)

    def fill(self, names: list[str], codes: list[int], times: list[TimeCost]) -> None:
        self.names = "\n".join(names)
        self.codes = array("b", codes).tobytes()
        self.started = _lines([time.Start for time in times])
        self.ended = _lines([time.End for time in times])
        nothing = float("nan")
        seconds = [nothing if time.Total is None else time.Total for time in times]
        self.times = array("d", seconds).tobytes()


def _lines(values: list[str | None]) -> str:
    joined = "\n".join([value or "" for value in values])
    if joined.count("\n") != len(values) - 1:
        joined = "\n".join([(value or "").replace("\n", " ") for value in values])
    return joined


def _frame(parts: list[_Columns]) -> pl.DataFrame:
    """Build the partial votes table of all chunks at once; the texts are split inside polars."""
    sizes = [len(part.codes) for part in parts]
    table = pl.DataFrame(
        {
            "folder": _repeat([part.folder for part in parts], sizes),
            "slot": _repeat([part.slot for part in parts], sizes),
            "name": _split([part.names for part in parts]),
            "label": np.frombuffer(b"".join([part.codes for part in parts]), np.int8),
            "started": _split([part.started for part in parts]).replace("", None),
            "ended": _split([part.ended for part in parts]).replace("", None),
            "time_s": np.frombuffer(b"".join([part.times for part in parts]), np.float64),
        }
    )
    stem = pl.col("name").str.head(-5)
    return table.select(
        "slot", "label", "started", "ended",
        time_s=pl.col("time_s").fill_nan(None),
        test_id=stem,
        ref_id=stem.str.head(-3),
        source_file=pl.col("folder") + "/" + pl.col("name"),
    )  # fmt: skip


def _repeat(values: list[str], sizes: list[int]) -> pl.Series:
    return pl.Series(values, dtype=pl.String).gather(np.repeat(np.arange(len(values)), sizes))


def _split(joined: list[str]) -> pl.Series:
    return pl.Series(["\n".join(joined)]).str.split("\n").explode()


def read_tree(
    source: Folder | Iterator[Chunk], problems: Problems, aside: Aside
) -> Iterator[pl.DataFrame]:
    """Read votes, a large tree with several processes.

    Args:
        source: the tree, see `annotation_import.opening.open_source`.
        problems: receives every vote that is left out, with its reason.
        aside: receives the files that are no votes.

    Yields:
        One partial votes table (`annotation_import.votes.complete` adds the other columns).
    """
    parts: list[_Columns] = []
    parsed = _parse_tree(source, aside) if isinstance(source, Folder) else map(parse_chunk, source)
    for part in parsed:
        problems.merge(part.problems)
        if part.codes:
            parts.append(part)
    if parts:
        yield _frame(parts)


def _parse_tree(top: Folder, aside: Aside) -> Iterator[_Columns]:
    """Parse here until the tree turns out to be large, then hand out folders and chunks."""
    waiting: list[Folder | Chunk] = [top]
    n_files = 0
    while waiting and n_files < _FILES_WITHOUT_PROCESSES:
        task = waiting.pop()
        if isinstance(task, Chunk):
            n_files += len(task.names)
            yield parse_chunk(task)
            continue
        problems = Problems()
        found = task.look(problems)
        aside.files.extend(found.aside)
        yield _Columns(task.path, "", problems=problems)
        waiting.extend([*reversed(found.folders), *found.chunks])
    if waiting:
        yield from _parse_in_processes(waiting, aside)


def _parse_in_processes(tasks: list[Folder | Chunk], aside: Aside) -> Iterator[_Columns]:
    processes = min(len(os.sched_getaffinity(0)), _MAX_PROCESSES)
    # fork: the children only read files and decode JSON, and start at once
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        running = {pool.submit(_work, task) for task in tasks}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                columns, folders, files = future.result()
                running |= {pool.submit(_work, folder) for folder in folders}
                aside.files.extend(files)
                yield from columns


def _work(task: Folder | Chunk) -> tuple[list[_Columns], list[Folder], list[SourceFile]]:
    """Parse a chunk, or list a folder and parse its chunks; the folders in it come back."""
    if isinstance(task, Chunk):
        return [parse_chunk(task)], [], []
    problems = Problems()
    found = task.look(problems)
    columns = [_Columns(task.path, "", problems=problems), *map(parse_chunk, found.chunks)]
    return columns, found.folders, found.aside


def parse_chunk(chunk: Chunk) -> _Columns:
    """Read and decode the files of one chunk."""
    above, _, number = chunk.folder.rpartition("/")
    slot = above.rpartition("/")[2].upper()
    columns = _Columns(chunk.folder, slot if _SLOT.fullmatch(slot) else "")
    names, contents = chunk.load(columns.problems)
    if not _parse_in_order(columns, number, names, contents):
        _parse_one_by_one(columns, number, names, contents)
    return columns


def _parse_in_order(
    columns: _Columns, number: str, names: list[str], contents: list[bytes]
) -> bool:
    """Decode a chunk in which nothing is wrong; False, and nothing done, where something is.

    Names are compared as one text each for the whole chunk, which costs a tenth of comparing
    them one by one.
    """
    joined = "\n".join(names) + "\n"
    ending = f"_{number}.json\n"
    n_files = len(names)
    has_good_names = columns.slot and n_files == joined.count(ending) == joined.count("\n")
    if not has_good_names or not (n_files == joined.count("_") == joined.count(".")):
        return False
    try:
        # a comma between files: what is no JSON by itself changes the count or fails
        votes = _decode_many(b"[" + b",".join(contents) + b"]")
        tests = [vote.test for vote in votes]
        codes = [ANSWERS[test.Label] for test in tests]  # type: ignore[index]
        test_names = "\n".join([test.Name for test in tests])  # type: ignore[misc]
        ref_names = "\n".join([vote.ref.Name for vote in votes])  # type: ignore[misc]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        return False
    is_in_order = (
        f"{test_names}\n" == joined.replace(".json\n", ".png\n")
        and f"{ref_names}\n" == joined.replace(ending, ".png\n")
        and {test.File for test in tests} <= {number}
    )
    if is_in_order:
        columns.fill(names, codes, [vote.time for vote in votes])
    return is_in_order


def _parse_one_by_one(
    columns: _Columns, number: str, names: list[str], contents: list[bytes]
) -> None:
    kept: list[str] = []
    codes: list[int] = []
    times: list[TimeCost] = []
    for name, content in zip(names, contents):
        file = SourceFile(columns.folder, name, content)
        try:
            vote = _decode_one(file, columns.problems)
            codes.append(_check(vote, file, columns.slot, number))
        except VoteError as problem:
            columns.problems.add(problem.reason, file.path, problem.detail)
            continue
        kept.append(name)
        times.append(vote.time)
    columns.fill(kept, codes, times)


def _decode_one(file: SourceFile, problems: Problems) -> _Vote:
    try:
        return _decode(file.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        where = join(file.folder, file.name)
        parts = decode_leniently(file.content, where, problems)
    return _Vote(
        as_picture(parts.get("picture_ai"), "Picture_AI"),
        as_picture(parts.get("picture_original"), "picture_Original"),
        as_time(parts.get("time_cost"), where, problems),
    )


def _check(vote: _Vote, file: SourceFile, slot: str, number: str) -> int:
    """Check one vote against its place in the tree; returns its label."""
    if not slot:
        raise VoteError("unexpected_path", "expected <slot>/<KK>/<stem>_<KK>.json")
    stem = file.name[:-5]
    match = _STEM.fullmatch(stem)
    if match is None:
        raise VoteError(
            "name_mismatch", "expected <stem>_<KK>.json with no other '_' or '.' in the stem"
        )
    if match[2] != number:
        raise VoteError("unexpected_path", f"image {match[2]} lies in folder '{number}'")
    check_name(vote.test.Name, stem)
    check_name(vote.ref.Name, match[1])
    if vote.test.File is not None and vote.test.File != match[2]:
        raise VoteError("name_mismatch", f"expected File '{match[2]}', found '{vote.test.File}'")
    return answer_code(vote.test.Label)
