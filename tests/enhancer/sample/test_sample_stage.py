"""One shard from the command line: results, resuming, faults, predictions."""

import io
import json
import random
import signal
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from enhancer.__main__ import main
from enhancer.sample import store as store_module
from enhancer.sample.base_model import BaseModel, load_base_model
from enhancer.sample.config import SAMPLE
from enhancer.sample.images import ImagePort, Prompts, job_of
from enhancer.sample.planned import planned_images, read_plan
from enhancer.sample.store import ImageStore
from runtime.atomic import write_json
from runtime.code_version import import_closure
from runtime.images import ImageU8, decode_png
from runtime.metrics import read_metrics
from tests.enhancer.sample.child import run_and_signal
from tests.enhancer.sample.conftest import SIZE_PX, MakeRun, plan_row, read_json


def sample(config: Path, *flags: str, shard: int = 0) -> int:
    return main(["sample", "--config", str(config), "--shard", str(shard), *flags])


def shard_bytes(config: Path, shard: int = 0) -> tuple[bytes, bytes]:
    stem = config.parent / f"samples/samples-{shard:05}"
    return stem.with_suffix(".tar").read_bytes(), stem.with_suffix(".json").read_bytes()


def members(config: Path, shard: int = 0) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(shard_bytes(config, shard)[0])) as tar:
        return {item.name: tar.extractfile(item).read() for item in tar}  # type: ignore[union-attr]


def pixels(content: bytes) -> ImageU8:
    return decode_png(content, where="test")


def test_every_planned_image_is_made_and_described(make_run: MakeRun) -> None:
    rows = [
        *(plan_row(crop, k) for crop in range(2) for k in range(1, 4)),
        plan_row(2, 1, upscale=2.0, steps=2),
        plan_row(2, 2, guidance=1.0, steps=3, color_fix="none"),
        plan_row(2, 3, prompt="another", steps=1000, init="partial", level=4),
    ]
    config = make_run(rows, slots=4, tile_latent_px=8, tile_overlap_latent_px=2)
    assert sample(config) == 0
    found = members(config)
    assert sorted(found) == list(found)
    assert len(found) == 2 * len(rows)
    for row in rows:
        record = json.loads(found[f"{row['test_id']}.json"])
        assert record == record | {key: row[key] for key in row if key != "shard"}
        assert "shard" not in record and record["tile_latent_px"] == 8
        assert pixels(found[f"{row['test_id']}.png"]).shape == (SIZE_PX, SIZE_PX, 3)
    last = json.loads(found[f"{rows[-1]['test_id']}.json"])
    assert (last["steps"], last["solver_steps"]) == (1000, 4)
    manifest = read_json(config.parent / "samples/samples-00000.json")
    assert manifest["counts"] == {"in": 9, "out": 9, "rejected": {}}
    assert not (config.parent / "samples/.state/00000").exists()


def test_a_finished_shard_is_left_alone(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_run([plan_row(0, k) for k in (1, 2)])
    assert sample(config) == 0
    before = shard_bytes(config)
    files = sorted(path for path in (config.parent / "samples").rglob("*") if path.is_file())
    times = [path.stat().st_mtime_ns for path in files]
    assert sample(config, "--replace") == 0
    assert shard_bytes(config) == before
    assert times == [path.stat().st_mtime_ns for path in files]


def test_bytes_do_not_depend_on_speed_settings(make_run: MakeRun) -> None:
    expected = None
    for name, settings in {"a": {"workers": 1}, "b": {"workers": 3, "max_slots": 12}}.items():
        config = make_run([plan_row(0, k) for k in range(1, 5)], name, **settings)
        assert sample(config) == 0
        found = members(config)
        expected = expected or found
        assert found == expected


def test_shard_layout_and_slots_change_no_image(make_run: MakeRun) -> None:
    rows = [plan_row(crop, k) for crop in range(2) for k in (1, 2, 3)]
    whole = make_run(rows, "whole", slots=5)
    assert sample(whole) == 0
    parts = make_run([{**row, "shard": i % 2} for i, row in enumerate(rows)], "parts", slots=2)
    assert [sample(parts, shard=shard) for shard in (0, 1)] == [0, 0]
    together = members(whole)
    apart = {**members(parts, 0), **members(parts, 1)}
    assert together.keys() == apart.keys()
    for name in together:
        if name.endswith(".json"):
            assert together[name] == apart[name]
        else:
            difference = pixels(together[name]).astype(int) - pixels(apart[name])
            assert np.abs(difference).max() <= 1
            assert np.mean(difference != 0) < 1e-3


def test_limit_pauses_and_a_second_run_goes_on(make_run: MakeRun) -> None:
    rows = [plan_row(0, k) for k in range(1, 7)]
    straight, paused = make_run(rows, "a", slots=3), make_run(rows, "b", slots=3)
    assert sample(straight) == 0
    for _ in range(20):
        assert sample(paused, "--limit", "3") == 0
        if (paused.parent / "samples/samples-00000.json").exists():
            break
        assert (paused.parent / "samples/.state/00000/run.json").exists()
    assert shard_bytes(paused) == shard_bytes(straight)


@pytest.mark.parametrize("count", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_and_resumes_give_the_same_bytes(make_run: MakeRun, count: int) -> None:
    straight, killed = make_run(name="a", slots=3), make_run(name="b", slots=3)
    assert sample(straight) == 0
    moments, kills = random.Random(4), 0
    done = killed.parent / "samples/.state/00000/done"
    for _ in range(count):
        before = len(list(done.glob("*.tar")))
        more = moments.randint(0, 1)
        delay_s = time.monotonic() + moments.uniform(0.05, 0.8)

        def is_time(goal: int = before + more, after_s: float = delay_s) -> bool:
            return time.monotonic() > after_s and len(list(done.glob("*.tar"))) >= goal

        kills += run_and_signal(killed, is_time, signal.SIGKILL) == -signal.SIGKILL
    assert kills == count
    assert sample(killed) == 0
    assert shard_bytes(killed) == shard_bytes(straight)


def test_sigterm_parks_and_asks_for_a_retry(make_run: MakeRun) -> None:
    planned = {1: 2, 2: 30, 3: 35, 4: 40}
    rows = [plan_row(0, k, steps=steps, init="noise", guidance=1.0) for k, steps in planned.items()]
    straight, stopped = make_run(rows, "a", slots=4), make_run(rows, "b", slots=4)
    assert sample(straight) == 0
    state = stopped.parent / "samples/.state/00000"
    code = run_and_signal(stopped, lambda: any((state / "done").glob("*.tar")), signal.SIGTERM)
    assert code == 75
    assert (state / "parked.safetensors").is_file()
    assert sample(stopped) == 0
    assert shard_bytes(stopped) == shard_bytes(straight)


def test_full_disk_stops_in_one_line_and_resumes(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [plan_row(0, k) for k in range(1, 7)]
    config = make_run(rows, slots=3)
    written: list[str] = []
    real = store_module.write_tar

    def write_until_full(path: Path, contents: Any) -> Any:
        if len(written) >= 4:
            raise OSError(28, "No space left on device", str(path))
        written.append(str(path))
        return real(path, contents)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_tar", write_until_full)
        assert sample(config) == 2
    assert len(list((config.parent / "samples/.state/00000/done").glob("*.tar"))) == 4
    assert not (config.parent / "samples/samples-00000.json").exists()
    straight = make_run(rows, "b", slots=3)
    assert [sample(config), sample(straight)] == [0, 0]
    assert shard_bytes(config) == shard_bytes(straight)


def test_bad_images_are_recorded_and_the_rest_is_made(make_run: MakeRun) -> None:
    rows = [plan_row(crop, k) for crop in range(2) for k in (1, 2, 3)]
    rows[0] = plan_row(0, 1, guidance=1e38)
    config = make_run(rows, max_failure_fraction=0.5)
    tar = config.parent / "degraded/degraded-00000.tar"
    content = bytearray(tar.read_bytes())
    content[512:560] = bytes(48)  # the first degraded image's PNG header
    tar.write_bytes(bytes(content))
    assert sample(config) == 0
    manifest = read_json(config.parent / "samples/samples-00000.json")
    assert manifest["counts"]["out"] == 4
    assert manifest["counts"]["rejected"] == {"bad_input": 1, "non_finite": 1}
    failed = {row["key"]: row for row in manifest["rejected"]}
    assert failed["photo-00-x0y0_01"]["planned"]["guidance"] == 1e38
    assert "not a readable PNG" in failed["photo-00-x0y0_02"]["detail"]


def test_too_many_bad_images_fail_the_shard(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_run([plan_row(0, 1, guidance=1e38), plan_row(0, 2)])
    assert sample(config) == 2
    assert not (config.parent / "samples/samples-00000.json").exists()


def test_dry_run_predicts_and_writes_nothing(
    make_run: MakeRun, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [plan_row(0, k, shard=k % 2, steps=10 * k, guidance=2.0) for k in (1, 2, 3)]
    rows = [{**row, "init": "noise", "level": None} for row in rows]
    config = make_run(rows, seconds_per_evaluation=1.0)
    before = sorted(config.parent.rglob("*"))
    assert sample(config, "--dry-run", shard=1) == 0
    assert sorted(config.parent.rglob("*")) == before
    text = capfd.readouterr().err
    assert "shard 1: 2 images, 40 denoising steps, 80 network evaluations, 0.02" in text
    assert "whole plan: 3 images, 60 denoising steps, 120 network evaluations, 0.03" in text


def test_dry_run_predicts_hours_also_where_no_rate_is_known(
    make_run: MakeRun, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_run([plan_row(0, 1, steps=1000, guidance=2.0, init="noise", level=None)])
    assert sample(config, "--dry-run") == 0
    text = capfd.readouterr().err
    assert "999 denoising steps, 1,998 network evaluations, 0.05 device-hours at 0.086 s" in text
    assert "the paper's V100s; for your device's set enhancer.sample.seconds" in text


def test_time_left_counts_what_earlier_runs_left(make_run: MakeRun) -> None:
    config = make_run([plan_row(0, k, steps=5) for k in range(1, 6)], slots=2)
    while not (config.parent / "samples/samples-00000.json").exists():
        assert sample(config, "--limit", "2") == 0
    rows = read_metrics(config.parent / "samples/metrics/00000.jsonl")
    summaries = [row for row in rows if row["event"] == "summary"]
    assert len(summaries) >= 2
    assert summaries[0]["eta_s"] > 0 == summaries[-1]["eta_s"]
    assert sum(row["evaluations"] for row in summaries) == 5 * 5 * 2


def test_an_image_that_the_vae_cannot_hold_fails_alone(make_run: MakeRun) -> None:
    rows = [plan_row(0, k) for k in (1, 2)]
    config = make_run(rows, max_failure_fraction=0.5)
    decode = BaseModel.decode
    calls = iter(range(9))

    def overflow(model: BaseModel, latent: torch.Tensor) -> torch.Tensor:
        return decode(model, latent * torch.nan if next(calls) == 0 else latent)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseModel, "decode", overflow)
        assert sample(config) == 0
    manifest = read_json(config.parent / "samples/samples-00000.json")
    assert manifest["counts"] == {"in": 2, "out": 1, "rejected": {"non_finite": 1}}
    assert manifest["rejected"][0]["detail"] == "decoded image in torch.float32"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_train_timesteps": 500}, "num_train_timesteps is 500"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is set"),
        ({"beta_end": None}, "no beta_end found"),
    ],
)
def test_other_noise_schedules_of_a_base_model_are_refused(
    make_run: MakeRun, capfd: pytest.CaptureFixture[str], change: dict[str, object], message: str
) -> None:
    config = make_run([plan_row(0, 1)])
    path = config.parent / "base/scheduler/scheduler_config.json"
    values = {**read_json(path), **change}
    write_json(path, {name: value for name, value in values.items() if value is not None})
    assert sample(config) == 2
    assert message in capfd.readouterr().err


def test_solver_settings_of_a_base_model_are_not_dropped_silently(
    make_run: MakeRun, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_run([plan_row(0, 1)])
    path = config.parent / "base/scheduler/scheduler_config.json"
    write_json(path, {**read_json(path), "timestep_spacing": "leading", "thresholding": True})
    assert sample(config) == 0
    assert "not its timestep_spacing leading, thresholding" in capfd.readouterr().err


def test_metrics_say_what_the_shard_took(make_run: MakeRun) -> None:
    rows = [plan_row(0, k, steps=5) for k in (3, 6)]
    config = make_run(rows, slots=1, device_peak_tflops=0.1)
    assert sample(config) == 0
    start, *_, summary = read_metrics(config.parent / "samples/metrics/00000.jsonl")
    assert (start["event"], summary["event"]) == ("start", "summary")
    manifest = json.loads((config.parent / "samples/samples-00000.json").read_text())
    assert start["work"] == manifest["fingerprint"]
    assert (summary["images"], summary["steps"], summary["evaluations"]) == (2, 10, 20)
    assert summary["occupancy"] == 1.0
    assert 0 < summary["peak_share"] < 10
    assert summary["seconds_per_evaluation"] * 20 == pytest.approx(summary["elapsed_s"], rel=0.01)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("plan.parquet", "plan.parquet: plan not found"),
        ("enhancer/manifest.json", "input not found"),
        ("base/vae", "not a diffusers model"),
        ("crops/crops.parquet", "table of crops not found"),
        ("degraded/degraded-00000.tar", "shard not found"),
    ],
)
def test_missing_inputs_are_named_in_one_line(
    make_run: MakeRun, capfd: pytest.CaptureFixture[str], missing: str, expected: str
) -> None:
    config = make_run([plan_row(0, 2)])
    (config.parent / missing).rename(config.parent / "away")
    assert sample(config) == 2
    text = capfd.readouterr().err
    assert expected in text
    assert "Traceback" not in text


def test_a_shard_beyond_the_plan_is_refused_and_an_empty_one_is_written(
    make_run: MakeRun, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_run([plan_row(0, 1, shard=0), plan_row(1, 1, shard=2)])
    (config.parent / "degraded/degraded-00001.json").write_text("{}")
    assert sample(config, shard=3) == 2
    assert "plan.shards is 3" in capfd.readouterr().err
    assert sample(config, shard=1) == 0
    assert members(config, 1) == {}


def test_planned_crop_that_is_gone_is_named(
    make_run: MakeRun, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_run([plan_row(0, 1), plan_row(1, 1)])
    table = config.parent / "crops/crops.parquet"
    pl.read_parquet(table)[:1].write_parquet(table)
    assert sample(config) == 2
    assert "lacks 1 crops of the plan, first photo-01-x0y0" in capfd.readouterr().err


def test_noise_does_not_depend_on_shards_and_slots(make_run: MakeRun) -> None:
    rows = [plan_row(crop, k) for crop in range(2) for k in (1, 2, 3)]
    layouts = {"whole": rows, "parts": [{**row, "shard": i % 3} for i, row in enumerate(rows)]}
    found: dict[str, list[bytes]] = {row["test_id"]: [] for row in rows}
    for name, plan in layouts.items():
        root = make_run(plan, name).parent
        base = load_base_model(root / "base", device=torch.device("cpu"), vae_dtype=torch.float32)
        for shard in {row["shard"] for row in plan}:
            images = planned_images(root, read_plan(root).filter(pl.col("shard") == shard))
            port = ImagePort(
                images, base, ImageStore(root / "state"), rounding="round", facts={},
                on_done=lambda count, failed: None,
            )  # fmt: skip
            for image in reversed(images):
                given = port.load(job_of(image, Prompts.of(images)))
                found[image.test_id].append(given.latent.numpy().tobytes())
    assert all(len(starts) == 2 and starts[0] == starts[1] for starts in found.values())
    assert len({starts[0] for starts in found.values()}) == len(rows)


def test_speed_and_reporting_code_rerun_nothing() -> None:
    closure = import_closure(SAMPLE.module)
    assert {"enhancer.sample.engine", "enhancer.unet", "runtime.images"} <= closure
    assert not closure & {"enhancer.sample.accounting", "enhancer.sample.command"}
