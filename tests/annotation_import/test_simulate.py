"""Simulated raters: present labels, learnable from pixels, marked everywhere, repeatable."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from annotation_import.__main__ import main
from annotation_import.config import SimulateConfig
from annotation_import.observer import MEASUREMENTS, Seen, judge, measure, utilities
from annotation_import.simulated_raters import cast_votes, make_raters
from runtime.seeds import rng

Make = Callable[..., Path]


def run_both(config: Path) -> Path:
    assert main(["simulate", "--config", str(config)]) == 0
    assert main(["import", "--config", str(config)]) == 0
    return config.parent / "annotations"


def test_the_run_gets_all_three_labels_and_says_synthetic_everywhere(small_run: Make) -> None:
    folder = run_both(small_run())
    labels = pl.read_parquet(folder / "labels.parquet")
    report = json.loads((folder / "report.json").read_text())
    shares = {name: n / len(labels) for name, n in report["labels"].items()}
    assert all(0.2 <= share <= 0.6 for share in shares.values()), shares
    assert labels["is_synthetic"].all() and report["is_synthetic"]
    assert pl.read_parquet(folder / "votes.parquet")["is_synthetic"].all()
    assert json.loads((folder / "manifest.json").read_text())["is_synthetic"]
    assert (folder / "simulated/SYNTHETIC.json").is_file()
    assert len(list(folder.glob("simulated/labels/*/*/*.json"))) == 72 * 3
    assert report["raters"]["n"] == 12, "rater ids come from the sidecar, not from slots"


def test_labels_follow_what_can_be_seen(small_run: Make) -> None:
    labels = pl.read_parquet(run_both(small_run()) / "labels.parquet")
    mean = {
        number: group["label"].mean()
        for (number,), group in labels.with_columns(k=pl.col("test_id").str.tail(2)).group_by(["k"])
    }
    assert mean["04"] > mean["01"] > mean["03"], "sharpened, same, strongly blurred"


def test_a_second_run_does_nothing_and_equal_runs_are_equal_bytes(small_run: Make) -> None:
    one = run_both(small_run("one"))
    two = run_both(small_run("two"))
    for name in ("votes.parquet", "labels.parquet", "outliers.parquet", "report.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    before = (one / "manifest.json").stat().st_mtime_ns
    run_both(one.parent / "config.resolved.json")
    assert (one / "manifest.json").stat().st_mtime_ns == before


def test_an_interrupted_run_goes_on(small_run: Make) -> None:
    whole = run_both(small_run("whole"))
    config = small_run("cut")
    assert main(["simulate", "--config", str(config), "--limit", "40"]) == 0
    assert not (config.parent / "annotations/simulated.manifest.json").exists()
    cut = run_both(config)
    assert (cut / "labels.parquet").read_bytes() == (whole / "labels.parquet").read_bytes()


def test_changed_settings_are_refused_until_replace(small_run: Make) -> None:
    config = small_run()
    run_both(config)
    values = json.loads(config.read_text())
    values["annotations"]["simulate"]["criterion"] = 0.9
    config.write_text(json.dumps(values))
    assert main(["simulate", "--config", str(config)]) == 2
    assert main(["simulate", "--config", str(config), "--replace"]) == 0
    assert main(["import", "--config", str(config), "--replace"]) == 0


def test_a_missing_sample_is_recorded_and_the_rest_goes_on(small_run: Make) -> None:
    config = small_run(max_failure_fraction=0.05)
    root = config.parent
    plan = pl.read_parquet(root / "plan.parquet")
    more = plan.head(1).with_columns(test_id=pl.col("crop_id") + "_07")
    pl.concat([plan, more]).write_parquet(root / "plan.parquet")
    folder = run_both(config)
    manifest = json.loads((folder / "simulated.manifest.json").read_text())
    assert manifest["counts"]["rejected"] == {"no_sample": 1}
    report = json.loads((folder / "report.json").read_text())
    assert report["problems"]["unvoted_image"]["count"] == 1


def test_habits_are_present_in_the_stated_shares() -> None:
    settings = SimulateConfig(raters=20, careless_share=0.2, biased_share=0.1, reversed_share=0.1)
    habits = [rater.habit for rater in make_raters(settings, seed=3)]
    assert {name: habits.count(name) for name in set(habits)} == {
        "careful": 12, "careless": 4, "biased": 2, "reversed": 2
    }  # fmt: skip


def test_votes_of_an_image_do_not_depend_on_the_others() -> None:
    settings = SimulateConfig()
    ids = [f"a-x{i}y0_01" for i in range(30)]
    utility = rng(0, "test").standard_normal(30)
    key = ["test_id", "slot", "rater_id", "label", "time_s", "shown_left"]
    every = cast_votes(ids, utility, settings, seed=1).select(key)
    half = cast_votes(ids[::2], utility[::2], settings, seed=1).select(key)
    assert every.filter(pl.col("test_id").is_in(ids[::2])).equals(half)


def test_criterion_sets_the_share_of_similar() -> None:
    ids = [f"a-x{i}y0_01" for i in range(400)]
    utility = utilities({"sharpness": rng(0, "test").gumbel(size=400)}, {"sharpness": 1.0})
    shares = [
        (cast_votes(ids, utility, SimulateConfig(criterion=c), seed=1)["label"] == 0).mean()
        for c in (0.1, 0.45, 1.5)
    ]
    assert shares[0] < 0.15 < 0.25 < shares[1] < 0.45 < 0.7 < shares[2]


def test_measurements(photo_u8: np.ndarray) -> None:
    import cv2

    ref = Seen(photo_u8)
    same = measure(Seen(photo_u8.copy()), ref)
    assert same["fidelity"] == pytest.approx(1.0)
    assert [same[name] for name in MEASUREMENTS if name != "fidelity"] == [0.0, 0.0, 0.0]
    blurs = [measure(Seen(cv2.GaussianBlur(photo_u8, (0, 0), s)), ref) for s in (0.7, 1.5, 3.0)]
    for name in ("sharpness", "fidelity", "noise"):
        values = [same[name], *(blur[name] for blur in blurs)]
        assert values == sorted(values, reverse=True), name
    coarse = cv2.imencode(".jpg", photo_u8, [cv2.IMWRITE_JPEG_QUALITY, 8])[1]
    blocky = Seen(cv2.imdecode(coarse, cv2.IMREAD_COLOR))
    assert measure(blocky, ref)["blockiness"] > 0.2


def test_flat_and_odd_sized_images_are_finite() -> None:
    flat = Seen(np.full((33, 47, 3), 128, np.uint8))
    assert all(np.isfinite(value) for value in measure(flat, flat).values())
    assert np.array_equal(utilities({"noise": np.ones(5)}, {"noise": 1.0}), np.zeros(5))


def test_judge() -> None:
    assert [judge(u, 0.0, 0.5) for u in (-0.6, -0.5, 0.0, 0.5, 0.6)] == [-1, 0, 0, 0, 1]
