"""The SRIQA-Bench and HGGT trees as published, and their own kinds of bad input."""

import json
from pathlib import Path

import polars as pl
import pytest

import annotation_import
from annotation_import.readers import read_votes

WORDS = {1: "Positive", 0: "Similar", -1: "Negative"}


def put(root: Path, name: str, content: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def comparison(one: str, two: str, labels: tuple[str | None, str | None]) -> dict[str, object]:
    return {
        "Picture_01": {"Name": f"{one}.png", "Label": labels[0]},
        "Picture_02": {"Name": f"{two}.png", "Label": labels[1]},
    }


def test_sriqa_names_from_the_issue_and_both_orders(tmp_path: Path) -> None:
    one, two = "srtest7_OSEDiffx4", "srtest7_SeeSRx4"
    put(
        tmp_path,
        "A/srtest7/srtest7_OSEDiffx4_SeeSRx4.json",
        comparison(one, two, ("Positive", "Negative")),
    )
    put(
        tmp_path,
        "B/srtest7/srtest7_SeeSRx4_OSEDiffx4.json",
        comparison(two, one, ("Positive", "Similar")),
    )
    put(
        tmp_path,
        "C/srtest7/srtest7_OSEDiffx4_SeeSRx4.json",
        comparison(one, two, ("Similar", "Similar")),
    )
    put(tmp_path, "A/srtest11/srtest11_HGGTx4_Original.json", {
        "Picture_02": {"Name": "srtest11_Original.png", "Label": "Positive"},
        "Picture_01": {"Name": "srtest11_HGGTx4.png", "Label": "Negative"},
        "Picture_03": {"Name": "srtest11_Original.png", "Label": None},
        "Time_cost": {"Total": 2},
    })  # fmt: skip
    votes = read_votes("sriqa", tmp_path).votes
    found = votes.select("ref_id", "test_id", "test_id_2", "slot", "label").rows()
    assert found == [
        ("srtest11", "srtest11_HGGTx4", "srtest11_Original", "A", -1),
        ("srtest7", one, two, "A", 1), ("srtest7", one, two, "B", -1), ("srtest7", one, two, "C", 0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("A/x1/x1_P_Q.json", comparison("x1_P", "x1_R", ("Positive", "Negative")), "name_mismatch"),
        ("A/x1/x2_P_Q.json", comparison("x2_P", "x2_Q", ("Positive", "Negative")), "name_mismatch"),
        ("A/x1/x1_P_P.json", comparison("x1_P", "x1_P", ("Positive", "Negative")), "name_mismatch"),
        ("A/x1/x1_P_Q.json", comparison("x1_P", "x1_Q", ("Positive", None)), "missing_label"),
        ("A/x1/x1_P_Q.json", comparison("x1_P", "x1_Q", ("Best", "Negative")), "wrong_label"),
        ("A/x1/x1_P_Q.json", [], "malformed_json"),
        ("x1_P_Q.json", comparison("x1_P", "x1_Q", ("Positive", "Negative")), "unexpected_path"),
    ],
)
def test_bad_sriqa_votes(tmp_path: Path, name: str, content: object, reason: str) -> None:
    put(tmp_path, name, content)
    assert read_votes("sriqa", tmp_path).problems.counts() == {reason: 1}


def hggt_file(labels: list[str | None], *, shift: int = 0) -> dict[str, object]:
    stem = "0001-586-1469"
    pictures = {
        f"Picture_{k + 1}": {
            "Name": f"{stem}_{k + shift:02}.png", "File": f"{k + shift:02}", "Label": label
        }
        for k, label in enumerate(labels, start=1)
    }  # fmt: skip
    original = {"Name": f"{stem}.png", "File": "original", "Label": None}
    time = {"Start": "2022-08-05 16:56:06", "End": "2022-08-05 16:56:49", "Total": 42}
    return {"Picture_1": original, **pictures, "Time_cost": time}


def test_an_hggt_file_is_four_votes(tmp_path: Path) -> None:
    labels = ["Positive", "Similar", "Negative", "Positive"]
    put(tmp_path, "labels/0-20193/A/0001-586-1469.json", hggt_file(labels))
    votes = read_votes("hggt", tmp_path).votes
    assert votes["test_id"].to_list() == [f"0001-586-1469_{k:02}" for k in (1, 2, 3, 4)]
    assert votes["label"].to_list() == [1, 0, -1, 1]
    assert votes["time_s"].to_list() == [42.0] * 4


def test_hggt_pictures_out_of_order_are_seen(tmp_path: Path) -> None:
    put(tmp_path, "A/0001-586-1469.json", hggt_file(["Positive"] * 4, shift=1))
    assert read_votes("hggt", tmp_path).problems.counts() == {"name_mismatch": 4}


def test_one_bad_label_of_an_hggt_file_leaves_the_others(tmp_path: Path) -> None:
    put(tmp_path, "A/0001-586-1469.json", hggt_file(["Positive", "Fine", None, "Similar"]))
    read = read_votes("hggt", tmp_path)
    assert read.problems.counts() == {"missing_label": 1, "wrong_label": 1}
    assert read.votes["test_id"].str.tail(2).to_list() == ["01", "04"]


def test_a_broken_hggt_file_counts_as_four_votes(tmp_path: Path) -> None:
    put(tmp_path, "A/0001-586-1469.json", {"Picture_1": {"Name": "0001-586-1469.png"}})
    assert read_votes("hggt", tmp_path).problems.n_rejected == 4


def test_hggt_ties_are_similar_by_its_own_rule() -> None:
    counts = pl.DataFrame({
        "study": ["h"], "ref_id": ["a"], "test_id": ["a_01"], "test_id_2": [None],
        "n_worse": [1], "n_similar": [1], "n_better": [1], "n_votes": [3], "is_synthetic": [False],
    })  # fmt: skip
    labels = annotation_import.decide_labels(counts, tie_policy="similar").labels
    assert labels.select("label", "policy", "margin").row(0) == (0, "similar", 0)


def test_public_names_load() -> None:
    for name in annotation_import.__all__:
        assert callable(getattr(annotation_import, name))
    with pytest.raises(AttributeError):
        _ = annotation_import.nothing
