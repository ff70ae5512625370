"""Counts to labels: every policy, ties of even votes, slots that are no persons."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from annotation_import.__main__ import main
from annotation_import.counts import count_votes, decide
from runtime.errors import ConfigError

CASES = np.array([[3, 0, 0], [0, 2, 1], [1, 1, 1], [2, 0, 2], [0, 2, 2], [2, 1, 1], [0, 0, 1]])


def test_the_single_most_frequent_answer_wins() -> None:
    before = CASES.copy()
    found = decide(CASES)
    assert found.is_decided.tolist() == [True, True, False, False, False, True, True]
    assert found.label[found.is_decided].tolist() == [-1, 0, -1, 1]
    assert found.margin.tolist() == [3, 1, 0, 0, 0, 1, 1]
    assert np.array_equal(CASES, before)


def test_similar_settles_every_tie_also_of_even_votes() -> None:
    found = decide(CASES, tie_policy="similar")
    assert found.is_decided.all()
    assert found.label.tolist() == [-1, 0, 0, 0, 0, -1, 1]


def test_dawid_skene_settles_ties_by_probability_and_leaves_the_rest() -> None:
    posterior = np.tile([0.2, 0.3, 0.5], (len(CASES), 1))
    posterior[3] = [0.4, 0.2, 0.4]
    found = decide(CASES, tie_policy="dawid_skene", posterior=posterior)
    assert found.label[[2, 4]].tolist() == [1, 1] and not found.is_decided[3]
    assert found.label[[0, 1, 5]].tolist() == [-1, 0, -1], "votes decide where they can"
    with pytest.raises(ConfigError, match="probabilities"):
        decide(CASES, tie_policy="dawid_skene")


def run(tree: Path, out: Path, *flags: str) -> int:
    command = ["import", "--layout", "diffiqa", "--source", str(tree), "--out", str(out)]
    return main([*command, *flags])


def test_labels_and_outliers_hold_every_pair_once(tree: Path, tmp_path: Path) -> None:
    assert run(tree, tmp_path) == 0
    labels = pl.read_parquet(tmp_path / "labels.parquet")
    outliers = pl.read_parquet(tmp_path / "outliers.parquet")
    assert outliers["test_id"].to_list() == ["000006x0y770_03", "0339x403y1179_03"]
    assert outliers["reason"].to_list() == ["no_majority"] * 2
    assert len(labels) == 6 and set(labels["policy"]) == {"majority"}
    row = labels.row(by_predicate=pl.col("test_id") == "000006x0y770_04", named=True)
    assert (row["n_worse"], row["n_similar"], row["n_better"], row["n_votes"]) == (2, 0, 1, 3)
    assert (row["label"], row["margin"], row["ref_id"]) == (-1, 1, "000006x0y770")
    assert not labels["is_synthetic"].any()


def test_similar_policy_is_named_in_the_table(tree: Path, tmp_path: Path) -> None:
    assert run(tree, tmp_path, "--tie-policy", "similar") == 0
    labels = pl.read_parquet(tmp_path / "labels.parquet")
    assert len(labels) == 8
    assert labels.filter(pl.col("policy") == "similar")["label"].to_list() == [0, 0]


def test_slots_are_not_persons_unless_said_so(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tree, tmp_path / "one") == 0
    report = json.loads((tmp_path / "one/report.json").read_text())
    assert report["raters"] is None and "slots" in report["raters_absent_because"]
    assert run(tree, tmp_path / "two", "--tie-policy", "dawid_skene") == 2
    assert "--slots-are-raters" in capsys.readouterr().err
    flags = ["--tie-policy", "dawid_skene", "--slots-are-raters"]
    assert run(tree, tmp_path / "two", *flags) == 0
    report = json.loads((tmp_path / "two/report.json").read_text())
    assert report["raters"]["n"] == 3 and report["dawid_skene"]["iterations"] > 0
    votes = pl.read_parquet(tmp_path / "two/votes.parquet")
    assert set(votes["rater_id"]) == {"slot-A", "slot-B", "slot-C"}
    assert set(votes["slot"]) == {"A", "B", "C"}


def test_counts_do_not_depend_on_the_order_of_votes(tree: Path, tmp_path: Path) -> None:
    assert run(tree, tmp_path) == 0
    votes = pl.read_parquet(tmp_path / "votes.parquet")
    assert count_votes(votes).equals(count_votes(votes.sample(fraction=1, shuffle=True, seed=1)))


def test_importing_twice_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run(tree, tmp_path / name) == 0
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
