"""Triplets against the release's scripts."""

import json
import tarfile
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from afine.__main__ import main
from afine.databases.diffiqa import majority
from afine.triplets.official import KINDS, read_official
from afine.triplets.rules import labelled_triplets, rated_triplets
from runtime.errors import DataError


@pytest.fixture(scope="module")
def folder(afine_golden: Path) -> Path:
    return afine_golden / "triplets"


@pytest.fixture
def labels(folder: Path, tmp_path: Path) -> Path:
    """`labels.parquet` as the annotation stage makes it of the golden votes."""
    rows = []
    for test_id, votes in json.loads((folder / "diffiqa_votes.json").read_text()).items():
        label = majority(votes)
        if label is not None:
            rows.append({"ref_id": test_id.partition("_")[0], "test_id": test_id, "label": label})
    path = tmp_path / "labels.parquet"
    pl.DataFrame(rows[::-1]).write_parquet(path)
    return path


def test_official_files_are_the_release_s(folder, labels, tmp_path):
    out = tmp_path / "Triplet" / "Triplet.txt"
    arguments = ["triplets", "--labels", str(labels), "--out", str(out), "--layout", "official"]
    assert main(arguments) == 0
    assert out.read_text() == (folder / "diffiqa_Triplet_canonical.txt").read_text()
    for kind in KINDS:
        found = (out.parent / "TripletEachType" / f"{kind}.txt").read_text().splitlines()
        expected = (folder / f"diffiqa_{kind}.txt").read_text().splitlines()
        assert sorted(found) == sorted(expected)


def test_parquet_and_official_say_the_same(folder, labels, tmp_path):
    out = tmp_path / "triplets.parquet"
    assert main(["triplets", "--labels", str(labels), "--out", str(out)]) == 0
    table = pl.read_parquet(out)
    assert Counter(table["kind"]) == {
        "PSY": 65, "PNY": 158, "SNY": 61, "SSY": 29, "PYY": 86, "SYY": 41, "NYY": 83,
    }  # fmt: skip
    read = read_official(folder / "diffiqa_Triplet_canonical.txt")
    assert [vars(row) for row in read] == table.drop("set").to_dicts()


def test_a_label_twice_and_flags_that_do_not_fit(labels, tmp_path, capsys):
    table = pl.read_parquet(labels)
    pl.concat([table, table.head(1)]).write_parquet(tmp_path / "twice.parquet")
    assert main(["triplets", "--labels", str(tmp_path / "twice.parquet"), "--out", "x"]) == 2
    assert "labelled twice" in capsys.readouterr().err
    paired = table.with_columns(test_id_2=pl.lit("other_02"))
    paired.write_parquet(tmp_path / "paired.parquet")
    assert main(["triplets", "--labels", str(tmp_path / "paired.parquet"), "--out", "x"]) == 2
    assert "compare two test images" in capsys.readouterr().err
    assert main(["triplets", "--labels", str(labels)]) == 2


def test_a_bad_official_line_is_named(tmp_path):
    path = tmp_path / "Triplet.txt"
    path.write_text("a_01.png,a_02.png,a.png,1,1,0\na_01.png,a_02.png,a.png,2,1,0\n")
    with pytest.raises(DataError, match=r"Triplet.txt:2"):
        read_official(path)


def test_traditional_rules_keep_the_release_s_invariants(folder):
    golden = json.loads((folder.parent / "triplet_golden.json").read_text())["traditional"]
    partners = golden["invariants"]["Train_seed0"]["partners_per_image"]
    with tarfile.open(folder / "traditional_mos.tar.gz") as archive:
        for ref_name, (count,) in partners.items():
            stem = Path(ref_name).stem
            member = archive.extractfile(f"TRAD/Train/MOS/{stem}.txt")
            assert member is not None
            rows = [line.split(",") for line in member.read().decode().split()]
            scores = {row[0]: float(row[2]) for row in rows}
            found = rated_triplets(stem, ref_name, scores, seed=0, set_name="golden")
            assert len(found) == count * (len(scores) + 1)
            assert Counter(t.image1 for t in found) == dict.fromkeys([*scores, ref_name], count)
            for t in found:
                assert t.image1 != t.image2 and t.ref == ref_name
                one, two = (scores.get(i, float("inf")) for i in (t.image1, t.image2))
                assert t.label12 == (0.5 if one == two else float(one > two))
                assert (t.label1r == 0.5) == (t.image1 == ref_name)
                assert (t.label2r == 0.5) == (t.image2 == ref_name)


def test_counts_of_the_published_sets():
    for images, lines in ((125, 882), (116, 819), (120, 847)):
        scores = {f"i{n}": float(n) for n in range(images)}
        assert len(rated_triplets("c", "ref", scores, seed=0, set_name="s")) == lines
    pairs = rated_triplets("c", "r", {"a": 1.0, "b": 2.0}, seed=0, set_name="s", partners="all")
    assert {(t.image1, t.image2, t.label12) for t in pairs} == {
        ("a", "b", 0.0), ("a", "r", 0.0), ("b", "r", 0.0),
    }  # fmt: skip


def test_order_of_files_changes_nothing():
    scores = {f"i{n}": float(n % 5) for n in range(20)}
    backwards = dict(reversed(scores.items()))
    one = rated_triplets("c", "ref", scores, seed=0, set_name="s")
    assert one == rated_triplets("c", "ref", backwards, seed=0, set_name="s")
    assert one != rated_triplets("c", "ref", scores, seed=1, set_name="s")
    labels = {"a_01.png": 1, "a_02.png": 0, "a_03.png": -1}
    assert labelled_triplets("a", "a.png", labels) == labelled_triplets(
        "a", "a.png", dict(reversed(labels.items()))
    )


def test_only_ties_for_a_reference_with_one_kind():
    for label, kinds in ((1, {"PYY"}), (-1, {"NYY"}), (0, {"SYY", "SSY"})):
        rows = labelled_triplets("a", "a.png", {f"a_{k:02}.png": label for k in range(1, 7)})
        assert {row.kind for row in rows} == kinds
