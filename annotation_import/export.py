"""`export`: the votes table to a published layout, so that importing it gives the same votes.

What a label tree cannot hold (who voted, sides, repeats) goes to `raters.parquet` beside it;
simulated votes are marked by `SYNTHETIC.json`.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import polars as pl

from annotation_import.answers import SPELLING
from annotation_import.config import Layout
from annotation_import.readers import RATERS_FILE, SYNTHETIC_MARK
from annotation_import.votes import PAIR_KEY, VOTE_SCHEMA, sort_votes
from runtime.atomic import write_bytes, write_json, write_text
from runtime.errors import DataError
from runtime.tables import write_table

TableFormat = Literal["csv", "jsonl", "parquet"]
_TEST_ID = re.compile(r"([^_.]+)_(\d\d)")
_WHERE = ("source_file", "source_row")  # where a vote came from, not part of the vote

Row = dict[str, Any]
VoteFile = tuple[str, Any]


def export_votes(
    votes: pl.DataFrame,
    folder: Path,
    layout: Layout,
    *,
    table_format: TableFormat = "csv",
    scales: pl.DataFrame | None = None,
) -> int:
    """Write votes in a layout.

    Args:
        votes: votes table; not modified.
        folder: receives `labels/...`, or `votes.<format>` for the layout `table`.
        layout: see `annotation_import.readers.read_votes`.
        table_format: for the layout `table`.
        scales: scale values of a paired comparison; written as `MOS/<id>.txt` with `sriqa`.

    Returns:
        Number of vote files (or 1 table).

    Raises:
        DataError: a vote does not fit the layout; the message names it.
    """
    if layout == "table":
        _write_long_table(votes, folder, table_format)
        return 1
    real = votes.filter(pl.col("kind") == "real")
    _check_slots(real, layout)
    if bool(votes["is_synthetic"].any()) and not (folder / SYNTHETIC_MARK).exists():
        mark_synthetic(folder)  # first: not even a half-written tree may pass for people's votes
    n_files = 0
    folders: set[Path] = set()
    for name, content in _TREES[layout](sort_votes(real).iter_rows(named=True)):
        path = folder / name
        if path.parent not in folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            folders.add(path.parent)
        # plain writes: a tree is whole when the caller's marker or manifest exists
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=4))
        n_files += 1
    _write_sidecar(votes, folder)
    if layout == "sriqa" and scales is not None:
        write_mos(scales, folder / "MOS")
    return n_files


def mark_synthetic(folder: Path, **facts: Any) -> None:
    """Write `SYNTHETIC.json`, which every reader here turns into `is_synthetic`."""
    text = "simulated votes: no person has judged these images"
    write_json(folder / SYNTHETIC_MARK, {"is_synthetic": True, "what": text, **facts})


def write_mos(scales: pl.DataFrame, folder: Path) -> None:
    """Write `<id>.txt` per content: `<item>.png,<score>` sorted best first, as the release does."""
    for (content,), group in scales.group_by(["ref_id"], maintain_order=True):
        best_first = group.sort(["score100", "item_id"], descending=[True, False])
        lines = [
            f"{name}.png,{score!r}\n"
            for name, score in best_first.select("item_id", "score100").iter_rows()
        ]
        write_text(folder / f"{content}.txt", "".join(lines))


def _check_slots(real: pl.DataFrame, layout: Layout) -> None:
    no_slot = real.filter(pl.col("slot").is_null())
    if len(no_slot):
        raise DataError(
            f"export to {layout}: {len(no_slot)} of {len(real)} votes have no slot (first: "
            f"{no_slot.item(0, 'test_id')}); a label tree needs one, export to 'table' instead"
        )
    wants_pairs = layout == "sriqa"
    wrong = real.filter(pl.col("test_id_2").is_null() == wants_pairs)
    if len(wrong):
        raise DataError(
            f"export to {layout}: {len(wrong)} votes compare with "
            f"{'the reference' if wants_pairs else 'another test image'} (first: "
            f"{wrong.item(0, 'test_id')}); this layout cannot hold them"
        )
    twice = real.filter(real.select(*PAIR_KEY, "slot").is_duplicated())
    if len(twice):
        raise DataError(
            f"export to {layout}: {twice.item(0, 'test_id')} has two votes in slot "
            f"{twice.item(0, 'slot')}; a label tree holds one"
        )


def _time(row: Row) -> Row:
    return {"Start": row["started"], "End": row["ended"], "Total": row["time_s"]}


def _split_test_id(row: Row, layout: str) -> str:
    match = _TEST_ID.fullmatch(row["test_id"])
    if match is None or match[1] != row["ref_id"]:
        raise DataError(
            f"export to {layout}: image '{row['test_id']}' of reference '{row['ref_id']}'; "
            "expected <ref_id>_<two digits> without another '_' or '.'"
        )
    return match[2]


def diffiqa_vote(row: Row) -> VoteFile:
    """One vote in the released layout: path and content."""
    number = _split_test_id(row, "diffiqa")
    return f"labels/{row['slot']}/{number}/{row['test_id']}.json", {
        "Picture_AI": {
            "Name": f"{row['test_id']}.png",
            "File": number,
            "ImageSize": [],
            "Label": SPELLING[row["label"]],
        },
        "picture_Original": {
            "Name": f"{row['ref_id']}.png",
            "File": "Original",
            "ImageSize": [],
            "Label": None,
        },
        "Time_cost": _time(row),
    }


def _diffiqa(rows: Iterable[Row]) -> Iterator[VoteFile]:
    return map(diffiqa_vote, rows)


def _sriqa(rows: Iterable[Row]) -> Iterator[VoteFile]:
    for row in rows:
        content, one, two = row["ref_id"], row["test_id"], row["test_id_2"]
        prefix = f"{content}_"
        if not (one.startswith(prefix) and two.startswith(prefix)):
            raise DataError(
                f"export to sriqa: images '{one}' and '{two}' of content '{content}'; expected "
                "<content>_<method>"
            )
        yield (
            f"labels/{row['slot']}/{content}/{one}_{two.removeprefix(prefix)}.json",
            {
                "Picture_01": {"Name": f"{one}.png", "Label": SPELLING[row["label"]]},
                "Picture_02": {"Name": f"{two}.png", "Label": SPELLING[-row["label"]]},
                "Time_cost": _time(row),
            },
        )


def _hggt(rows: Iterable[Row]) -> Iterator[VoteFile]:
    trials: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        trials.setdefault((row["slot"], row["ref_id"]), []).append(row)
    for (slot, stem), votes in sorted(trials.items()):
        answers = {_split_test_id(row, "hggt"): SPELLING[row["label"]] for row in votes}
        pictures = {
            f"Picture_{position + 1}": {
                "Name": f"{stem}_{position:02}.png",
                "File": f"{position:02}",
                "Label": answers.get(f"{position:02}"),
            }
            for position in range(1, max(map(int, answers)) + 1)
        }
        original = {"Name": f"{stem}.png", "File": "original", "Label": None}
        yield (
            f"labels/{slot}/{stem}.json",
            {
                "Picture_1": original,
                **pictures,
                "Time_cost": _time(votes[0]),
            },
        )


_TREES: dict[str, Callable[[Iterable[Row]], Iterator[VoteFile]]] = {
    "diffiqa": _diffiqa,
    "sriqa": _sriqa,
    "hggt": _hggt,
}


def _write_sidecar(votes: pl.DataFrame, folder: Path) -> None:
    """Write what the tree cannot hold; nothing where there is nothing."""
    is_real = pl.col("kind") == "real"
    says_more = pl.col("rater_id").is_not_null() | pl.col("shown_left").is_not_null()
    in_tree = votes.filter(is_real & says_more)
    beside = votes.filter(~is_real).with_columns(slot=pl.lit(None, pl.String))
    if len(in_tree) + len(beside):
        columns = [name for name in VOTE_SCHEMA if name not in (*_WHERE, "study", "is_synthetic")]
        write_table(folder / RATERS_FILE, pl.concat([in_tree, beside]).select(columns))


def _write_long_table(votes: pl.DataFrame, folder: Path, table_format: TableFormat) -> None:
    table = votes.select(name for name in VOTE_SCHEMA if name not in _WHERE)
    path = folder / f"votes.{table_format}"
    if table_format == "parquet":
        write_table(path, table)
    elif table_format == "jsonl":
        write_bytes(path, msgspec.json.Encoder().encode_lines(table.to_dicts()))
    else:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows(table.iter_rows())
        write_text(path, text.getvalue())
