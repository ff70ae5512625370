"""Accuracy, intervals, correlations, the layout of the tables, the peers."""

import json

import numpy as np
import polars as pl
import pytest
import scipy.stats
import torch

from afine.evaluation.accuracy import accuracy_with_interval, correct_pairs, correlations
from afine.evaluation.peers import load_peers
from afine.evaluation.scoring import Scorer, read_record
from afine.evaluation.tables import Bootstrap, Method, accuracies, table2, table3, to_csv
from afine.triplets.rules import all_pairs, labelled_triplets, rated_triplets
from afine.triplets.tables import triplet_table
from runtime.errors import ResourceError

BOOTSTRAP = Bootstrap(200, 0.95, 0)


def frame(sets: dict[str, dict[str, float]], column: str = "score") -> pl.DataFrame:
    rows = [
        {"set": name, "content": image[0], "image": image, column: value}
        for name, scores in sets.items()
        for image, value in scores.items()
    ]
    return pl.DataFrame(rows)


def test_a_metric_that_prefers_the_reference_fails_on_better_tests():
    labels = {"a_01.png": 1, "a_02.png": 0, "a_03.png": -1}
    triplets = triplet_table("diffiqa", labelled_triplets("a", "a.png", labels))
    psnr = {"a.png": np.inf, "a_01.png": 20.0, "a_02.png": 30.0, "a_03.png": 25.0}
    ideal = {"a.png": 2.0, "a_01.png": 1.0, "a_02.png": 2.5, "a_03.png": 3.0}
    scores = frame({"diffiqa": psnr}, "psnr").join(
        frame({"diffiqa": ideal}, "ours"), on=["set", "content", "image"]
    )
    methods = [Method("psnr", "PSNR", False), Method("ours", "A-FINE (Ours)", True)]
    rows = accuracies(triplets, scores, methods, delta=0.0, bootstrap=BOOTSTRAP)
    table = table2(rows, methods)
    # Ref < Test: PSY, PNY and PYY are wrong for PSNR, 0 of 3; Ref > Test: SNY, NYY right
    assert [table[0][c] for c in ("Ref < Test", "Ref > Test", "DiffIQA Average")] == [
        "0.0", "100.0", "40.0",
    ]  # fmt: skip
    assert table[1]["DiffIQA Average"] == "100.0" and table[1]["All Average"] == ""
    assert table[0]["TID2013"] == ""


def test_averages_are_weighted_by_pairs_and_all_is_their_mean():
    methods = [Method("m", "M", True)]
    rows = [
        {"method": "M", "set": s, "group": g, "pairs": n, "accuracy": a}
        for s, g, n, a in (
            ("tid2013", "pairs", 100, 0.9),
            ("kadid10k", "pairs", 300, 0.5),
            ("diffiqa", "Ref < Test", 63, 0.182),
            ("diffiqa", "Ref > Test", 37, 0.921),
        )
    ]
    (row,) = table2(rows, methods)
    assert row["Standard Average"] == "60.0"
    # the paper's PSNR row: 18.2 and 92.1 average to 45.6 with a share of 0.63
    assert row["DiffIQA Average"] == "45.5" and row["All Average"] == "52.8"
    assert to_csv([row]).startswith("Method,TID2013,KADID,PIPAL,Standard Average,Ref < Test,")


def test_table_3_has_three_kinds_of_pairs():
    qualities = {"c_Original.png": 80.0, "c_A.png": 100.0, "c_B.png": 0.0}
    triplets = pl.concat(
        [
            triplet_table("sriqa", all_pairs("c", "c_Original.png", qualities, kind=kind))
            for kind in ("all", "regression")
        ]
    )
    assert len(triplets) == 6
    scores = frame({"sriqa": {name: -value for name, value in qualities.items()}})
    methods = [Method("score", "M", True)]
    rows = accuracies(triplets, scores, methods, delta=0.0, bootstrap=BOOTSTRAP)
    (row,) = table3(rows, methods)
    assert row == {
        "Method": "M",
        "Regression-based": "100.0",
        "Generation-based": "",
        "All": "100.0",
    }


def test_ties_count_only_within_delta():
    scores = {"a": 1.0, "b": 1.0, "c": 5.0, "r": 9.0}
    triplets = triplet_table(
        "csiq",
        rated_triplets(
            "x", "r", {"a": 2.0, "b": 2.0, "c": 1.0}, seed=0, set_name="s", partners="all"
        ),
    )
    known = {("csiq", name): value for name, value in {**scores, "r": 0.0}.items()}
    assert correct_pairs(triplets, known, delta=0.0).mean() == 1.0
    known[("csiq", "b")] = 1.0 + 1e-12
    assert correct_pairs(triplets, known, delta=0.0).mean() < 1.0
    assert correct_pairs(triplets, known, delta=1e-9).mean() == 1.0
    del known[("csiq", "b")]
    assert np.isnan(correct_pairs(triplets, known, delta=0.0)).any()


def test_intervals_draw_whole_contents():
    correct = np.repeat([1.0, 0.0], 500)
    pairwise = [str(n) for n in range(1000)]
    by_content = ["a"] * 500 + ["b"] * 500
    options = {"resamplings": 2000, "confidence": 0.95, "seed": 0}
    narrow = accuracy_with_interval(correct, pairwise, **options)
    wide = accuracy_with_interval(correct, by_content, **options)
    assert narrow.value == wide.value == 0.5 and narrow.pairs == 1000
    # binomial: 1.96 * sqrt(.25 / 1000) = 0.031
    assert narrow.low == pytest.approx(0.469, abs=0.004)
    assert (wide.low, wide.high) == (0.0, 1.0)
    assert accuracy_with_interval(correct, pairwise, **options) == narrow
    assert np.isnan(accuracy_with_interval(np.zeros(0), [], **options).value)


def test_correlations_are_scipy_s_and_direction_is_turned():
    draw = np.random.default_rng(0)
    quality = draw.normal(size=200)
    scores = -np.exp(quality) + 0.1 * draw.normal(size=200)
    found = correlations(scores, quality)
    assert found.srcc == pytest.approx(scipy.stats.spearmanr(-scores, quality).statistic)
    assert found.krcc == pytest.approx(scipy.stats.kendalltau(-scores, quality).statistic)
    assert found.plcc > abs(scipy.stats.pearsonr(-scores, quality).statistic)
    assert correlations(-quality, quality).plcc == pytest.approx(1.0, abs=1e-3)
    assert np.isnan(correlations(np.zeros(5), np.arange(5.0)).srcc)


@pytest.mark.parametrize("name", ["psnr", "ssim", "ms_ssim", "fsim", "vsi", "vif"])
def test_peers_are_best_on_equal_images_and_fall_with_noise(name, photo_u8):
    (peer,) = load_peers([name], torch.device("cpu"))
    ref = torch.from_numpy(photo_u8[:176, :176].copy()).permute(2, 0, 1)[None].float() / 255
    noise = torch.randn(ref.shape, generator=torch.Generator().manual_seed(0))
    tests = torch.cat([(ref + s * noise).clamp(0, 1) for s in (0, 0.02, 0.1)])
    before = tests.clone()
    values = peer.score(tests, ref.expand_as(tests).contiguous())
    assert values.shape == (3,) and torch.equal(tests, before)
    order = values if peer.lower_is_better else -values
    assert order[0] < order[1] < order[2]
    if name == "psnr":
        assert values[0] == float("inf")
        assert values[1].item() == pytest.approx(-20 * np.log10(0.02), abs=0.5)


def test_an_absent_package_is_named():
    with pytest.raises(ResourceError, match="pyiqa"):
        load_peers(["pyiqa:lpips"], torch.device("cpu"))


def test_scoring_resumes_and_small_images_have_no_score(make_run, tmp_path, tiny):
    from afine.config import DataConfig
    from afine.pixels import ImageStore, set_folders
    from afine.triplets.stage import run_triplets
    from afine.triplets.tables import read_images

    run = make_run()
    run_triplets(run)
    images = read_images(run.root).filter(pl.col("split") == "test")
    store = ImageStore(images, set_folders(run.root, DataConfig()))
    scorer = Scorer(
        tiny, load_peers(["psnr", "ms_ssim"], torch.device("cpu")), store, images_per_batch=4
    )
    record = tmp_path / "contents.jsonl"
    whole = scorer.score_all(images, record)
    assert len(whole) == 14 and all(np.isnan(row["ms_ssim"]) for row in whole)
    lines = record.read_text().splitlines()
    assert len(lines) == 2
    record.write_text(lines[0] + "\n" + lines[1][: len(lines[1]) // 2])
    again = scorer.score_all(images, record)
    key = lambda row: row["image"]  # noqa: E731
    assert json.dumps(sorted(again, key=key)) == json.dumps(sorted(whole, key=key))
    assert len(read_record(record)) == 14
    refs = [row for row in whole if row["image"].count("_") == 0]
    assert all(row["psnr"] == float("inf") for row in refs)
