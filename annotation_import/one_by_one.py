"""Label trees that are read file by file into partial votes tables, a chunk of votes at a time."""

from collections.abc import Callable, Iterable, Iterator

import polars as pl

from annotation_import.answers import VoteError
from annotation_import.problems import Problems
from annotation_import.sources import SourceFile

Row = dict[str, object]
_CHUNK_VOTES = 20_000


def read_each(
    files: Iterable[SourceFile],
    read: Callable[[SourceFile, Problems], list[Row]],
    problems: Problems,
    *,
    votes_per_file: int = 1,
) -> Iterator[pl.DataFrame]:
    """Read votes file by file.

    Args:
        files: the tree's .json files.
        read: the votes of one file; raises VoteError where none of them can be used.
        problems: receives every vote that is left out, with its reason.
        votes_per_file: votes that are lost with a file.

    Yields:
        Partial votes tables (`annotation_import.votes.complete` adds the other columns).
    """
    rows: list[Row] = []
    for file in files:
        try:
            rows += read(file, problems)
        except VoteError as problem:
            problems.add(problem.reason, file.path, problem.detail, votes=votes_per_file)
        if len(rows) >= _CHUNK_VOTES:
            yield pl.DataFrame(rows, infer_schema_length=None)
            rows = []
    if rows:
        yield pl.DataFrame(rows, infer_schema_length=None)
