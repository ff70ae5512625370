"""Bad input at the level of the whole run: one clear line, nothing half-written as if done."""

import shutil
from pathlib import Path

import pytest


def done(run) -> list[Path]:
    return sorted(run.results.rglob("*manifest.json"))


def set_source(values, path):
    values["sources"][0]["path"] = path


def test_missing_source_folder(fresh_run):
    fresh_run.write_config(lambda values: set_source(values, "no-such-folder"))
    result = fresh_run.snakemake("crop")
    assert result.returncode != 0
    assert "sources.0 (photos): folder 'no-such-folder' not found" in result.stdout
    assert done(fresh_run) == []


def test_a_dry_run_does_not_need_the_data(fresh_run):
    fresh_run.write_config(lambda values: set_source(values, "no-such-folder"))
    assert "crop" in fresh_run.planned()


def test_empty_source_folder(fresh_run):
    (fresh_run.folder / "empty").mkdir()
    fresh_run.write_config(lambda values: set_source(values, "empty"))
    result = fresh_run.snakemake("crop")
    assert result.returncode != 0
    assert "empty" in result.stdout and "Traceback" not in result.stdout
    assert done(fresh_run) == []


def test_no_usable_photograph(fresh_run):
    photos = fresh_run.folder / "photos"
    shutil.rmtree(photos)
    photos.mkdir()
    (photos / "notes.jpg").write_text("this is no photograph")
    result = fresh_run.snakemake("crop")
    assert result.returncode != 0
    assert "Traceback" not in result.stdout
    assert done(fresh_run) == []


def test_an_unreadable_photograph_among_good_ones_is_recorded(fresh_run):
    (fresh_run.folder / "photos/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    result = fresh_run.snakemake("crop")
    assert result.returncode == 0, result.stdout
    import polars

    rejected = polars.read_parquet(fresh_run.results / "crops/rejected.parquet")
    assert any("broken.jpg" in path for path in rejected["path"])
    assert polars.read_parquet(fresh_run.results / "crops/crops.parquet").height == 12


def test_configuration_typo(fresh_run):
    fresh_run.write_config(lambda values: values["plan"].update(step_min=3))
    result = fresh_run.snakemake("-n")
    assert result.returncode != 0
    assert "plan.step_min: unknown key 'step_min'; did you mean 'steps_min'?" in result.stdout
    assert "Traceback" not in result.stdout


@pytest.mark.parametrize("path", ["./models/sd15", "/nowhere/sd15"])
def test_missing_base_model(fresh_run, path):
    fresh_run.write_config(lambda values: values["enhancer"].update(base_model=path))
    result = fresh_run.snakemake()
    assert result.returncode != 0
    assert f"enhancer.base_model: '{path}' is not a Stable Diffusion folder" in result.stdout
    assert done(fresh_run) == []
