"""What the report reads: stages, labels, curves, tables, timings, agreement."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from report.agreement import agreement
from report.curves import trainings
from report.labels import counts_of, labelled_tests, parameters
from report.stages import stage_counts
from report.tables import OwnAccuracy, accuracy_of_ours, results
from report.timings import duration, sampling, sampling_attempts, sampling_devices, timings
from runtime.atomic import write_json, write_text
from runtime.settings import RunSettings, load_run
from runtime.tables import write_table


def a_run(root: Path, **values: Any) -> RunSettings:
    return RunSettings(root / "config.resolved.json", values)


def write_rows(path: Path, *rows: dict[str, Any]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_stages_sum_over_shards_and_name_reasons(finished: Path) -> None:
    stages = {stage.name: stage for stage in stage_counts(load_run(finished))}
    assert next(iter(stages)) == "crop run"
    assert stages["enhancer sample"].shards == 2
    assert stages["enhancer sample"].counts["out"] == 72
    assert stages["crop run"].taken == (8, "files")
    assert stages["crop run"].others["splits train"] == 8
    assert dict(stages["crop run"].rejected) == {"unreadable": 1, "too small": 1}
    assert dict(stages["shards write"].left_out) == {"no label": 2}


def test_files_of_an_earlier_configuration_are_not_counted(finished: Path, tmp_path: Path) -> None:
    """The run had three shards, its own base model and simulated votes; now it has two shards."""
    root = shutil.copytree(finished.parent, tmp_path / "study")
    before = load_run(root / "config.resolved.json")
    shards = {"samples/samples-": ".json", "samples/metrics/": ".jsonl",
              "benchmarks/enhancer_sample-": ".tsv"}  # fmt: skip
    for name, ending in shards.items():
        shutil.copy(root / f"{name}00001{ending}", root / f"{name}00002{ending}")
    write_json(root / "base/manifest.json", {"stage": "enhancer base", "counts": {"in": 1}})
    (root / "base/metrics.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n')
    base = {"base_model": "runwayml/stable-diffusion-v1-5"}
    after = a_run(root, **{**before.values, "enhancer": base})

    stages = {stage.name: stage for stage in stage_counts(after)}
    assert stages["enhancer sample"].shards == 2
    assert stages["enhancer sample"].counts["out"] == 72
    assert "enhancer base" in {stage.name for stage in stage_counts(before)} - stages.keys()
    assert "Base model" in {training.name for training in trainings(before)}
    assert "Base model" not in {training.name for training in trainings(after)}
    jobs = {timing.rule: timing.jobs for timing in timings(after)}
    assert jobs["enhancer_sample"] == 2
    assert "enhancer_base" not in jobs
    found = sampling(sampling_attempts(after))
    assert found is not None
    assert found.images == 120


def test_a_label_tree_is_never_walked(tmp_path: Path) -> None:
    tree = tmp_path / "annotations/simulated/labels/A/01"
    tree.mkdir(parents=True)
    (tree / "x_01.json").write_text(json.dumps({"stage": "trap", "counts": {"in": 1}}))
    assert stage_counts(a_run(tmp_path)) == []


def test_unreadable_manifests_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops/manifest.json").write_text("{")
    (tmp_path / "plan.manifest.json").write_text("[1, 2]")
    assert stage_counts(a_run(tmp_path)) == []


def test_parameters_count_every_labelled_image_once(finished: Path) -> None:
    tests = labelled_tests(finished.parent)
    found = {item.name: item for item in parameters(tests)}
    assert {"steps", "level", "init", "is_degraded", "degradation.stages 1.blur.sigma_px"} <= set(
        found
    )
    assert sum(sum(column.counts) for column in found["steps"].columns) == tests.height
    total = tuple(map(sum, zip(*(column.counts for column in found["init"].columns), strict=True)))
    assert total == counts_of(tests)
    noised = tests.drop_nulls("level")
    assert sum(sum(column.counts) for column in found["level"].columns) == noised.height
    assert "guidance" not in found, "a parameter that never changes says nothing"


def test_rank_correlation_sees_a_trend() -> None:
    n = 90
    table = pl.DataFrame(
        {"steps": list(range(n)), "label": [-1] * 30 + [0] * 30 + [1] * 30, "constant": [1.0] * n}
    )
    (steps,) = parameters(table)
    assert steps.rank_correlation is not None
    assert steps.rank_correlation > 0.9
    assert len(steps.columns) == 7
    assert min(sum(column.counts) for column in steps.columns) >= 12
    assert sum(sum(column.counts) for column in steps.columns) == n


def test_skewed_numbers_are_grouped_without_loss() -> None:
    values = [1.0] * 50 + [float(v) for v in range(2, 12)]
    table = pl.DataFrame({"strength": values, "label": [0] * 60})
    (item,) = parameters(table)
    assert sum(sum(column.counts) for column in item.columns) == 60
    assert item.rank_correlation is None, "one of the two never changes"


def test_no_labels_is_an_empty_table(tmp_path: Path) -> None:
    assert labelled_tests(tmp_path).height == 0
    assert parameters(labelled_tests(tmp_path)) == []


def test_curves_by_stage_phase_and_kind(finished: Path) -> None:
    found = {training.name: training for training in trainings(load_run(finished))}
    assert list(found) == ["Enhancer", "A-FINE"]
    loss = next(chart for chart in found["Enhancer"].charts if chart.title == "loss")
    assert {line.name for line in loss.lines} == {"train", "val"}
    assert loss.is_main
    assert [c.title for c in found["A-FINE"].charts] == [f"phase{n} loss" for n in (1, 2, 3)]
    assert all("lr" not in chart.title for chart in found["Enhancer"].charts), "it never changes"


def test_curves_survive_resume_and_bad_values(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.0}, {"step": 2, "loss": 2.0},
        {"step": 3, "loss": float("nan")}, {"step": 4, "loss": None}, {"note": "no step"},
        {"step": 5, "loss": 1.0, "parts": {"noise": 0.5}},
    ]  # fmt: skip
    path = tmp_path / "enhancer/metrics.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (training,) = trainings(a_run(tmp_path))
    (chart,) = training.charts
    assert list(chart.lines[0].x) == [1, 2, 5]
    assert list(chart.lines[0].y) == [3.0, 2.0, 1.0]


def test_long_curves_are_thinned_and_keep_their_ends(tmp_path: Path) -> None:
    path = tmp_path / "base/metrics.jsonl"
    path.parent.mkdir()
    path.write_text(
        "".join(json.dumps({"step": i, "loss": 1 / (i + 1)}) + "\n" for i in range(9999))
    )
    (training,) = trainings(a_run(tmp_path))
    for line in training.charts[0].lines:
        assert len(line.x) <= 302
        assert (line.x[0], line.x[-1]) == (0, 9998)


def test_tables_drop_empty_columns_and_mark_the_best(finished: Path) -> None:
    table2, accuracy = results(finished.parent)
    assert "TID2013" not in table2.header
    assert table2.best == ("", "71.4", "100.0", "76.6")
    assert not accuracy.is_main
    found = accuracy_of_ours(finished.parent)
    assert found == OwnAccuracy("76.6 %", "70 to 82 %", "310")


def test_sampling_is_summed_over_shards(finished: Path, tmp_path: Path) -> None:
    assert sampling(sampling_attempts(a_run(tmp_path))) is None
    found = sampling(sampling_attempts(load_run(finished)))
    assert found is not None
    assert (found.images, found.steps) == (120, 6000)
    assert found.images_per_s == pytest.approx(2.0)
    assert found.occupancy == pytest.approx(6000 / 9000)  # 3,000 of 3,000 and of 6,000 places
    assert found.flops_per_s == pytest.approx(2e9)
    assert found.peak_share == pytest.approx(0.25)
    assert found.device_hours == pytest.approx(1 / 60)


def test_killed_attempts_count_and_failures_do_not(tmp_path: Path) -> None:
    """Shard 0 had other settings once; then it was killed, was killed at once, and finished."""
    old, new = {"event": "start", "work": "a"}, {"event": "start", "work": "b", "device": "H200"}
    progress, summary = ({"event": event, "occupancy": 1.0} for event in ("progress", "summary"))
    write_rows(
        tmp_path / "samples/metrics/00000.jsonl",
        old, {**summary, "images": 99, "steps": 990, "elapsed_s": 9000},
        new, {**progress, "images": 1, "steps": 50, "elapsed_s": 1800},
        {**progress, "images": 4, "failed": 1, "steps": 100, "elapsed_s": 3600},
        new,
        new, {**summary, "images": 6, "failed": 2, "steps": 100, "elapsed_s": 3600},
    )  # fmt: skip
    write_table(tmp_path / "plan.parquet", pl.DataFrame({"shard": [0]}))
    attempts = sampling_attempts(a_run(tmp_path))
    assert sampling_devices(attempts) == ["H200"]
    found = sampling(attempts)
    assert found is not None
    assert (found.images, found.failed, found.steps) == (7, 3, 200)
    assert (found.attempts, found.cut_short) == (3, 2)
    assert found.device_hours == pytest.approx(2)
    assert found.images_per_s == pytest.approx(7 / 7200)


def test_device_hours_of_sampling_are_of_every_attempt(finished: Path) -> None:
    run = load_run(finished)
    sampled = sampling(sampling_attempts(run))
    assert sampled is not None
    found = {item.rule: item for item in timings(run, sampled)}
    assert found["enhancer_sample"].device_hours == sampled.device_hours
    assert [rule for rule, item in found.items() if item.has_all_attempts] == ["enhancer_sample"]


def test_timings_by_rule(finished: Path) -> None:
    found = {item.rule: item for item in timings(load_run(finished))}
    assert found["enhancer_sample"].jobs == 2
    assert found["enhancer_sample"].wall_s == pytest.approx(158.1)
    assert found["crop"].device_hours == 0
    four = timings(a_run(finished.parent, scheduling={"enhancer_train_gpus": 4}))
    hours = {item.rule: item.device_hours for item in four}
    assert hours["enhancer_train"] == pytest.approx(4 * 139.5 / 3600)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.14, "3.1 s"), (48, "48 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (59.6, "60 s")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_agreement_keeps_flagged_raters_first(finished: Path) -> None:
    found = agreement(finished.parent)
    assert found["raters"][0]["rater_id"] == "r02"
    assert found["alpha"]["value"] == pytest.approx(0.612)
    assert [name for name, _ in found["measures"]] == [
        "Fleiss' κ",
        "share of agreeing pairs of votes",
    ]
    assert agreement(finished.parent / "nowhere") == {}
