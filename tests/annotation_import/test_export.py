"""import(export(x)) = x for each layout."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from annotation_import.__main__ import main
from annotation_import.config import SimulateConfig
from annotation_import.export import export_votes
from annotation_import.readers import read_votes
from annotation_import.simulated_raters import cast_votes
from annotation_import.votes import complete, sort_votes
from runtime.errors import DataError
from runtime.seeds import rng


def diffiqa_votes() -> pl.DataFrame:
    settings = SimulateConfig(raters=9, repeat_share=0.3)
    ids = [f"photo-{i}-x0y{i}_{k:02}" for i in range(6) for k in range(1, 7)]
    utility = rng(0, "test").standard_normal(len(ids))
    return cast_votes(ids, utility, settings, seed=5).with_columns(study=pl.lit("diffiqa"))


def sriqa_votes() -> pl.DataFrame:
    items = ["BSRGANx4", "HGGTx4", "Original", "SwinIRx4"]
    generator = rng(0, "test")
    rows = [
        {"study": "sriqa", "ref_id": ref, "test_id": f"{ref}_{a}", "test_id_2": f"{ref}_{b}",
         "slot": slot, "label": int(generator.integers(-1, 2)), "time_s": 2.5}
        for ref in ("online1", "srtest7") for slot in "ABCDEFGHIJ"
        for i, a in enumerate(items) for b in items[i + 1 :]
    ]  # fmt: skip
    return sort_votes(complete(pl.DataFrame(rows)))


def hggt_votes() -> pl.DataFrame:
    generator = rng(0, "test")
    rows = [
        {"study": "hggt", "ref_id": ref, "test_id": f"{ref}_{k:02}", "slot": slot,
         "label": int(generator.integers(-1, 2)), "started": "2022-08-05 16:56:06",
         "ended": "2022-08-05 16:56:49", "time_s": 42.0}
        for ref in ("0001-586-1469", "0002-0-12") for slot in "ABC" for k in (1, 2, 3, 4)
    ]  # fmt: skip
    return sort_votes(complete(pl.DataFrame(rows)))


MADE = {"diffiqa": diffiqa_votes, "sriqa": sriqa_votes, "hggt": hggt_votes}


def without_place(votes: pl.DataFrame) -> pl.DataFrame:
    """Leave out where a vote was read, and put the rest in a fixed order."""
    columns = [name for name in votes.columns if name not in ("source_file", "source_row")]
    return votes.select(columns).sort(columns)


@pytest.mark.parametrize("layout", MADE)
def test_label_trees(tmp_path: Path, layout: str) -> None:
    votes = MADE[layout]()
    before = votes.clone()
    export_votes(votes, tmp_path, layout)
    read = read_votes(layout, tmp_path)
    assert without_place(read.votes).equals(without_place(votes))
    assert read.problems.counts() == {} and votes.equals(before)


@pytest.mark.parametrize("table_format", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("layout", MADE)
def test_long_tables(tmp_path: Path, layout: str, table_format: str) -> None:
    votes = MADE[layout]()
    export_votes(votes, tmp_path, "table", table_format=table_format)
    read = read_votes("table", tmp_path)
    assert without_place(read.votes).equals(without_place(votes))
    assert read.problems.counts() == {}


def test_the_golden_trees_come_back_byte_for_byte_as_votes(tmp_path: Path, golden: Path) -> None:
    for layout in ("diffiqa", "sriqa"):
        first = read_votes(layout, golden / f"annotation_import/{layout}_labels.tar.gz").votes
        export_votes(first, tmp_path / layout, layout)
        again = read_votes(layout, tmp_path / layout).votes
        assert without_place(again).equals(without_place(first))


def test_a_diffiqa_vote_is_written_as_released(tmp_path: Path) -> None:
    votes = complete(
        pl.DataFrame(
            {"study": "diffiqa", "ref_id": "000006x0y770", "test_id": "000006x0y770_01",
             "slot": "A", "label": 1, "started": "2024-05-08 19:34:49",
             "ended": "2024-05-08 19:34:50", "time_s": 1.5}
        )
    )  # fmt: skip
    export_votes(votes, tmp_path, "diffiqa")
    found = json.loads((tmp_path / "labels/A/01/000006x0y770_01.json").read_text())
    assert found == {
        "Picture_AI": {
            "Name": "000006x0y770_01.png", "File": "01", "ImageSize": [], "Label": "Positive"
        },
        "picture_Original": {
            "Name": "000006x0y770.png", "File": "Original", "ImageSize": [], "Label": None
        },
        "Time_cost": {"Start": "2024-05-08 19:34:49", "End": "2024-05-08 19:34:50", "Total": 1.5},
    }  # fmt: skip
    assert not (tmp_path / "raters.parquet").exists() and not (tmp_path / "SYNTHETIC.json").exists()


def test_an_hggt_hole_stays_a_hole(tmp_path: Path) -> None:
    votes = hggt_votes()
    export_votes(votes[1:], tmp_path, "hggt")
    read = read_votes("hggt", tmp_path)
    assert without_place(read.votes).equals(without_place(votes[1:]))
    assert read.problems.counts() == {"missing_label": 1}


def test_the_synthetic_mark_survives_and_comes_first(tmp_path: Path) -> None:
    export_votes(diffiqa_votes(), tmp_path, "diffiqa")
    assert read_votes("diffiqa", tmp_path).votes["is_synthetic"].all()
    bad = diffiqa_votes().with_columns(ref_id=pl.lit("other"))
    with pytest.raises(DataError, match="expected <ref_id>_<two digits>"):
        export_votes(bad, tmp_path / "cut", "diffiqa")
    assert (tmp_path / "cut/SYNTHETIC.json").is_file()


@pytest.mark.parametrize(
    ("layout", "votes", "message"),
    [
        ("sriqa", diffiqa_votes, "compare with the reference"),
        ("diffiqa", sriqa_votes, "compare with another test image"),
        ("diffiqa", lambda: diffiqa_votes().with_columns(slot=pl.lit(None)), "have no slot"),
        ("diffiqa", lambda: diffiqa_votes().with_columns(slot=pl.lit("A")), "two votes in slot A"),
    ],
)
def test_votes_that_do_not_fit_are_refused(
    tmp_path: Path, layout: str, votes: object, message: str
) -> None:
    assert callable(votes)
    with pytest.raises(DataError, match=message):
        export_votes(votes(), tmp_path, layout)


def test_export_from_the_command_line_writes_scores_too(tmp_path: Path, golden: Path) -> None:
    source = golden / "annotation_import/sriqa_labels.tar.gz"
    command = ["import", "--layout", "sriqa", "--source", str(source)]
    assert main([*command, "--out", str(tmp_path / "in")]) == 0
    votes = str(tmp_path / "in/votes.parquet")
    out = tmp_path / "tree"
    assert main(["export", "--votes", votes, "--layout", "sriqa", "--out", str(out)]) == 0
    lines = (out / "MOS/online1.txt").read_text().splitlines()
    scores = [float(line.split(",")[1]) for line in lines]
    assert len(lines) == 11 and scores == sorted(scores, reverse=True)
    assert (scores[0], scores[-1]) == (100.0, 0.0)
    np.testing.assert_equal(len(list(out.rglob("*.json"))), 2750)
    assert main(["export", "--votes", votes, "--layout", "sriqa", "--out", str(out)]) == 2
