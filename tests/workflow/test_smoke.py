"""What the finished smoke run left: real artefacts that other tools open."""

import json
import subprocess
import sys

import polars as pl
import pytest
import webdataset

from tests.workflow.conftest import ROOT, environment


def test_shards_open_with_plain_webdataset(finished_run):
    seen = 0
    for path in sorted((finished_run.results / "dataset").glob("*.tar")):
        for sample in webdataset.WebDataset(str(path), shardshuffle=False).decode("rgb8"):
            tests = sample["json"]["tests"]
            assert sample["ref.png"].shape == (64, 64, 3)
            assert set(tests) == {key[:2] for key in sample if key[:2].isdigit()}
            assert all(test["label"] in (-1, 0, 1) for test in tests.values())
            assert sample["json"]["is_synthetic"] is True
            seen += 1
    assert seen > 0


def test_no_photograph_crosses_a_split(finished_run):
    crops = pl.read_parquet(finished_run.results / "crops/crops.parquet")
    assert crops.group_by("photo_id").agg(pl.col("split").n_unique())["split"].max() == 1


def test_plan_and_samples_agree(finished_run):
    plan = pl.read_parquet(finished_run.results / "plan.parquet")
    assert plan.height == 12 * 3
    images = 0
    for shard in (0, 1):
        manifest = finished_run.results / f"samples/samples-{shard:05}.json"
        images += json.loads(manifest.read_text(encoding="utf-8"))["counts"]["out"]
    assert images == plan.height


def test_the_report_is_one_self_contained_file(finished_run):
    page = (finished_run.results / "report.html").read_text(encoding="utf-8")
    assert (
        "<html" in page and 'src="http' not in page and 'href="http' not in page.split("<body")[0]
    )
    assert "SYNTHETIC LABELS" in page


def test_snakemake_s_own_report_holds_the_page_and_the_rules(finished_run):
    made = finished_run.snakemake("--report", "out.html")
    assert made.returncode == 0, made.stdout[-3000:]
    text = (finished_run.folder / "out.html").read_text(encoding="utf-8")
    for part in ("report.html", "galleries, training curves", "enhancer_sample", "afine_train"):
        assert part in text, part


def test_every_stage_runs_alone_and_says_that_it_is_done(finished_run):
    for command in (("crop", "run"), ("degrade", "plan"), ("degrade", "apply", "--shard", "0")):
        done = subprocess.run(
            [
                *(sys.executable, "-m", *command, "--config"),
                str(finished_run.results / "config.resolved.json"),
            ],
            cwd=finished_run.folder,
            env={**environment(), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "already done" in done.stderr


@pytest.mark.parametrize("name", ["crop", "degrade", "enhancer", "afine", "shards", "report"])
def test_help_shows_an_example(name):
    shown = subprocess.run(
        [sys.executable, "-m", name, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert shown.returncode == 0
    verbs = shown.stdout.split("{")[-1].split("}")[0].split(",") if "{" in shown.stdout else []
    for verb in verbs:
        page = subprocess.run(
            [sys.executable, "-m", name, verb, "--help"],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert f"python -m {name} {verb}" in page.stdout
