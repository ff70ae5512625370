"""Long tables, raters, policies of the command line."""

import json
from pathlib import Path

import polars as pl
import pytest

from annotation_import.__main__ import main

HEADER = "ref_id,test_id,rater_id,label,shown_left,time_s\n"
GOOD = """a,a_01,p1,better,test,3.1
a,a_01,p2,Positive,ref,2.0
a,a_01,p3,1,,
a,a_02,p1,worse,ref,4
a,a_02,p2,-1,test,5
a,a_02,p3,Negative,ref,1.5
a,a_03,p1,similar,ref,2
a,a_03,p2,0,ref,2
a,a_03,p3,better,test,2
"""


def run(source: Path, out: Path, *flags: str) -> int:
    return main(["import", "--layout", "table", "--source", str(source), "--out", str(out), *flags])


def report_of(out: Path) -> dict[str, object]:
    report: dict[str, object] = json.loads((out / "report.json").read_text())
    return report


def labels_of(out: Path) -> dict[str, int]:
    return dict(pl.read_parquet(out / "labels.parquet").select("test_id", "label").iter_rows())


def write_as(text: str, path: Path) -> Path:
    table = pl.read_csv(text.encode(), schema_overrides={"label": pl.String})
    if path.suffix == ".csv":
        path.write_text(text)
    elif path.suffix == ".jsonl":
        table.write_ndjson(path)
    else:
        table.write_parquet(path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_three_formats_give_the_same_labels(tmp_path: Path, suffix: str) -> None:
    source = write_as(HEADER + GOOD, tmp_path / f"votes.{suffix}")
    assert run(source, tmp_path / "out") == 0
    assert labels_of(tmp_path / "out") == {"a_01": 1, "a_02": -1, "a_03": 0}
    votes = pl.read_parquet(tmp_path / "out/votes.parquet")
    assert votes["source_file"].unique().to_list() == [f"votes.{suffix}"]
    assert votes["source_row"].null_count() == 0


def test_integer_labels_in_parquet_and_jsonl(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {"ref_id": "a", "test_id": "a_01", "rater_id": ["x", "y", "z"], "label": [-1, -1, 0]}
    )
    table.write_parquet(tmp_path / "v.parquet")
    table.with_columns(pl.col("label").cast(pl.Float64)).write_ndjson(tmp_path / "v.jsonl")
    for name in ("v.parquet", "v.jsonl"):
        assert run(tmp_path / name, tmp_path / name[2:]) == 0
        assert labels_of(tmp_path / name[2:]) == {"a_01": -1}


def test_bad_rows_are_left_out_with_their_line(tmp_path: Path) -> None:
    bad = "a,a_04,p1,better\n,a_04,p1,better,,\na,a_04,p1,,,\na,a_04,p1,nice,,\n"
    noted = "a,a_03,p4,better,middle,soon\n"
    source = write_as(HEADER + GOOD, tmp_path / "votes.csv")
    source.write_text("\ufeff" + HEADER + bad + GOOD + noted)
    assert run(source, tmp_path / "out", "--max-failure-fraction", "0.5") == 0
    found = {
        (row["reason"], row["where"])
        for row in pl.read_parquet(tmp_path / "out/problems.parquet").iter_rows(named=True)
    }
    assert found == {
        ("byte_order_mark", "votes.csv"), ("malformed_row", "votes.csv:2"),
        ("malformed_row", "votes.csv:3"), ("missing_label", "votes.csv:4"),
        ("wrong_label", "votes.csv:5"), ("bad_time", "votes.csv:15"), ("bad_side", "votes.csv:15"),
    }  # fmt: skip
    assert report_of(tmp_path / "out")["votes"]["n"] == 10


def test_broken_json_line(tmp_path: Path) -> None:
    source = write_as(HEADER + GOOD, tmp_path / "votes.jsonl")
    source.write_text('{"ref_id": \n' + source.read_text())
    assert run(source, tmp_path / "out", "--max-failure-fraction", "0.5") == 0
    problems = pl.read_parquet(tmp_path / "out/problems.parquet")
    assert problems["where"].to_list() == ["votes.jsonl:1"]


def test_quoted_fields_keep_line_numbers(tmp_path: Path) -> None:
    text = 'ref_id,test_id,rater_id,label,comment\na,a_01,p1,better,"two\nlines"\na,a_01,p2,odd,x\n'
    (tmp_path / "v.csv").write_text(text)
    assert run(tmp_path / "v.csv", tmp_path / "out", "--max-failure-fraction", "0.6") == 0
    assert pl.read_parquet(tmp_path / "out/problems.parquet")["where"].to_list() == ["v.csv:4"]


def test_columns_and_answers_by_explicit_map(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("o,img,who,answer\na,a_01,x,A\na,a_01,y,A\na,a_01,z,C\n")
    flags = ["--column", "ref_id=o", "--column", "test_id=img", "--column", "rater_id=who"]
    flags += ["--column", "label=answer", "--label", "A=1", "--label", "B=0", "--label", "C=-1"]
    assert run(tmp_path / "v.csv", tmp_path / "out", *flags) == 0
    assert labels_of(tmp_path / "out") == {"a_01": 1}


def test_a_missing_column_names_those_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "v.csv").write_text("ref_id,img,label\na,b,1\n")
    assert run(tmp_path / "v.csv", tmp_path / "out") == 2
    assert "column 'test_id' for test_id not found; the table has ref_id, img, label" in (
        capsys.readouterr().err
    )


def test_a_second_vote_of_one_rater(tmp_path: Path) -> None:
    source = write_as(HEADER + GOOD + "a,a_01,p1,worse,,\n", tmp_path / "votes.csv")
    assert run(source, tmp_path / "one", "--max-failure-fraction", "0.2") == 0
    assert report_of(tmp_path / "one")["problems"]["duplicate_vote"]["count"] == 1
    assert labels_of(tmp_path / "one")["a_01"] == 1, "the first vote counts"
    assert run(source, tmp_path / "two", "--on-duplicate", "repeat") == 0
    report = report_of(tmp_path / "two")
    assert report["votes"]["n_repeats"] == 1 and report["votes"]["n"] == 9
    p1 = next(row for row in report["raters"]["rows"] if row["rater_id"] == "p1")
    assert p1["n_repeats"] == 1 and p1["repeat_agreement"] == 0.0


def test_excluded_raters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_as(HEADER + GOOD, tmp_path / "votes.csv")
    assert run(source, tmp_path / "out", "--exclude-rater", "p3", "--min-votes", "2") == 0
    report = report_of(tmp_path / "out")
    assert report["votes"]["n_excluded"] == 3 and report["policy"]["exclude_raters"] == ["p3"]
    assert run(source, tmp_path / "out", "--exclude-rater", "p9") == 2
    assert "exclude_raters names p9, who did not vote" in capsys.readouterr().err


def test_paired_comparisons_are_turned_one_way(tmp_path: Path) -> None:
    text = "ref_id,test_id,test_id_2,rater_id,label,shown_left\n"
    text += "c,c_b,c_a,p1,better,test\nc,c_a,c_b,p2,worse,test\nc,c_b,c_a,p3,similar,test_2\n"
    (tmp_path / "v.csv").write_text(text)
    assert run(tmp_path / "v.csv", tmp_path / "out") == 0
    votes = pl.read_parquet(tmp_path / "out/votes.parquet").sort("rater_id")
    assert votes["test_id"].to_list() == ["c_a"] * 3
    assert votes["label"].to_list() == [-1, -1, 0]
    assert votes["shown_left"].to_list() == ["test_2", "test", "test"]
    assert len(pl.read_parquet(tmp_path / "out/scales.parquet")) == 2


def test_gold_and_training_trials_decide_nothing(tmp_path: Path) -> None:
    text = "ref_id,test_id,rater_id,label,kind\n"
    text += "".join(f"a,a_01,p{i},better,{k}\n" for i, k in enumerate(["real"] * 3 + ["gold"] * 4))
    (tmp_path / "v.csv").write_text(text + "a,a_01,p9,worse,trap\n")
    assert run(tmp_path / "v.csv", tmp_path / "out", "--max-failure-fraction", "0.2") == 0
    report = report_of(tmp_path / "out")
    assert report["pairs"]["votes_per_pair"] == {"3": 1}
    assert report["problems"]["bad_kind"]["count"] == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["import"], "--layout is missing"),
        (["import", "--config", "x", "--out", "y"], "--config and --out"),
        (["import", "--config", "x", "--min-votes", "2"], "--config and --min-votes"),
        (["import", "--layout", "table", "--source", "s", "--out", "o", "--label", "x"], "--label"),
        (["import", "--layout", "table", "--source", "s", "--out", "o", "--min-votes", "0"],
         "min_votes"),
    ],
)  # fmt: skip
def test_wrong_flags_are_one_line(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
