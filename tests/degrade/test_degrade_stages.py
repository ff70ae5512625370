"""`python -m degrade plan | apply | preview`."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from degrade import degrade_image
from degrade.__main__ import main
from degrade.config import DegradeConfig, PlanConfig
from degrade.plan import balance, draw_reference, make_plan, predicted_work, steps_made
from enhancer.sample.planned import distinct_steps
from runtime.images import decode_png, encode_png
from runtime.tables import write_table
from runtime.tars import iter_samples, write_tar

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE_PX = 96
CROPS = [(f"s-photo-x{index}y0", 512) for index in range(40)]


def write_run(folder, photo_u8, *, shards=2, workers=1, crops=6, **plan):
    """A run with finished crops, as `crop run` leaves it."""
    (folder / "crops").mkdir(parents=True)
    values = {
        "run": folder.name, "seed": 5, "degrade": {"workers": workers},
        "plan": {"shards": shards, "steps_max": 50, "level_max": 50, **plan},
    }  # fmt: skip
    (folder / "config.resolved.json").write_text(json.dumps(values))
    images = {
        f"s-p-x{60 * index}y0": np.ascontiguousarray(
            photo_u8[60 * index : 60 * index + SIZE_PX, 200 : 200 + SIZE_PX]
        )
        for index in range(crops)
    }
    ids = sorted(images)
    members = write_tar(
        folder / "crops" / "crops-00000.tar", ((f"{i}.png", encode_png(images[i])) for i in ids)
    )
    rows = {
        "crop_id": ids, "size_px": [SIZE_PX] * crops, "shard": [0] * crops,
        "offset": [member.offset for member in members],
        "size_bytes": [member.size_bytes for member in members],
    }  # fmt: skip
    write_table(folder / "crops" / "crops.parquet", pl.DataFrame(rows))
    return images


def run(folder, verb, *flags):
    return main([verb, "--config", str(folder / "config.resolved.json"), *flags])


def degraded(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("degraded/d*.*"))}


def test_plan_has_a_complete_row_for_each_test_image(tmp_path, photo_u8):
    write_run(tmp_path / "run", photo_u8)
    assert run(tmp_path / "run", "plan") == 0
    plan = pl.read_parquet(tmp_path / "run" / "plan.parquet")
    assert plan.height == 36 and plan["test_id"].is_sorted()
    assert plan["test_id"].to_list() == sorted(
        f"{crop}_{k:02}" for crop in set(plan["crop_id"]) for k in range(1, 7)
    )
    assert (plan["is_degraded"] == plan["degradation"].is_not_null()).all()
    assert (plan["level"].is_null() == (plan["init"] == "noise")).all()
    assert plan.drop("degradation", "level").null_count().sum_horizontal().item() == 0
    assert plan.group_by("crop_id").agg(pl.col("shard").n_unique())["shard"].max() == 1
    before = (tmp_path / "run" / "plan.parquet").read_bytes()
    assert run(tmp_path / "run", "plan") == 0
    assert (tmp_path / "run" / "plan.parquet").read_bytes() == before


def test_references_do_not_depend_on_each_other():
    config, degrade = PlanConfig(), DegradeConfig()
    whole = make_plan(CROPS, config, degrade, 1, shards=3)
    part = make_plan(CROPS[5:9], config, degrade, 1, shards=2)
    ids = [crop for crop, _ in CROPS[5:9]]
    assert whole.filter(pl.col("crop_id").is_in(ids)).drop("shard").equals(part.drop("shard"))
    other = make_plan(CROPS[5:9], config, degrade, 2, shards=2)
    assert not part["seed"].equals(other["seed"])


def test_draws_have_the_release_probabilities():
    crops = [(f"s-photo-x{index}y0", 512) for index in range(500)]
    plan = make_plan(crops, PlanConfig(), DegradeConfig(), 0, shards=8)
    assert plan["is_degraded"].mean() == pytest.approx(0.5, abs=0.03)
    assert (plan["init"] == "noise").mean() == pytest.approx(0.5, abs=0.03)
    assert (plan["upscale"] == 2.0).mean() == pytest.approx(0.2, abs=0.025)
    noise = plan.filter(pl.col("init") == "noise")["steps"]
    assert 20 <= noise.min() < 30 and 990 < noise.max() <= 1000
    assert noise.mean() == pytest.approx(510, abs=25)
    released = plan.filter(pl.col("init") == "released")
    assert released["steps"].equals(released["level"]) and released["level"].max() <= 999
    assert plan["seed"].n_unique() == plan["degrade_seed"].n_unique() == plan.height
    assert np.corrcoef(plan["is_degraded"], plan["steps"])[0, 1] == pytest.approx(0, abs=0.06)


def test_the_papers_reading_draws_level_and_steps_apart():
    config = PlanConfig(image_init="partial", noise_fraction=0.0)
    rows = [
        row
        for crop, size in CROPS
        for row in draw_reference(crop, size, config, DegradeConfig(), 0)
    ]
    assert {row["init"] for row in rows} == {"partial"}
    pairs = np.array([(row["steps"], row["level"]) for row in rows])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("init", "steps", "level", "expected"),
    [("noise", 500, None, 500), ("noise", 1000, None, 999), ("released", 700, 700, 700),
     ("partial", 700, 60, 60), ("partial", 20, 60, 20)],
)  # fmt: skip
def test_work_counts_the_steps_that_are_made(init, steps, level, expected):
    assert steps_made(init, steps, level) == expected
    # sampling counts the solver's own timesteps; stages do not import each other
    assert distinct_steps(steps, level if init == "partial" else None) == expected


def test_work_counts_the_tiles_of_the_release():
    assert predicted_work(512, 100) == 100
    assert predicted_work(1024, 100) == 900  # 3 x 3 tiles
    assert predicted_work(256, 100) == 25


def test_shards_carry_equal_work():
    generator = np.random.default_rng(0)
    work = {f"c{index:04}": float(generator.integers(100, 60_000)) for index in range(3000)}
    shard_of = balance(work, 20)
    loads = np.zeros(20)
    for name, shard in shard_of.items():
        loads[shard] += work[name]
    assert loads.max() / loads.min() < 1.01
    assert shard_of == balance(dict(reversed(list(work.items()))), 20)


def test_shards_beyond_the_references_stay_empty(tmp_path, photo_u8, capsys):
    folder = tmp_path / "run"
    write_run(folder, photo_u8, shards=4, crops=2, per_reference=20)
    assert run(folder, "plan") == 0
    assert "2 shards stay empty" in capsys.readouterr().err
    for shard in range(4):
        assert run(folder, "apply", "--shard", str(shard)) == 0
    counts = [
        json.loads((folder / f"degraded/degraded-{n:05}.json").read_text())["counts"]["images"]
        for n in range(4)
    ]
    assert counts[2:] == [0, 0] and min(counts[:2]) > 0


def test_steps_out_of_order_are_refused():
    with pytest.raises(ValueError, match="must not exceed steps_max"):
        PlanConfig(steps_min=30, steps_max=20)


def test_apply_is_degrade_image_of_the_plans_rows(tmp_path, photo_u8):
    images = write_run(tmp_path / "run", photo_u8)
    folder = tmp_path / "run"
    assert run(folder, "plan") == 0
    plan = pl.read_parquet(folder / "plan.parquet")
    for shard in range(2):
        assert run(folder, "apply", "--shard", str(shard)) == 0
        rows = plan.filter((pl.col("shard") == shard) & pl.col("is_degraded"))
        seeds = dict(rows.select("test_id", "degrade_seed").iter_rows())
        found = dict(iter_samples(folder / "degraded" / f"degraded-{shard:05}.tar"))
        assert sorted(found) == sorted(seeds)
        for test_id, sample in found.items():
            crop = images[test_id.rpartition("_")[0]]
            expected = degrade_image(crop, "diffiqa-released", seeds[test_id])
            np.testing.assert_array_equal(decode_png(sample["png"], where=test_id), expected)


def test_bytes_do_not_depend_on_processes_shards_or_a_kill(tmp_path, photo_u8):
    for name, shards, workers in (("a", 2, 1), ("b", 2, 4), ("c", 3, 1)):
        folder = tmp_path / name / "run"
        write_run(folder, photo_u8, shards=shards, workers=workers)
        assert run(folder, "plan") == 0
        for shard in range(shards):
            if name == "b":  # what a killed process leaves behind
                (folder / "degraded").mkdir(exist_ok=True)
                (folder / "degraded" / f".degraded-{shard:05}.tar.1.tmp").write_bytes(b"half")
            assert run(folder, "apply", "--shard", str(shard)) == 0
    assert degraded(tmp_path / "a" / "run") == degraded(tmp_path / "b" / "run")
    pixels = [
        {
            key: sample["png"]
            for path in sorted((tmp_path / name / "run").glob("degraded/*.tar"))
            for key, sample in iter_samples(path)
        }
        for name in ("a", "c")
    ]
    assert pixels[0] == pixels[1]


def test_finished_shard_is_left_alone(tmp_path, photo_u8, capsys):
    folder = tmp_path / "run"
    write_run(folder, photo_u8)
    assert run(folder, "plan") == 0 and run(folder, "apply", "--shard", "0") == 0
    before = degraded(folder)
    assert run(folder, "apply", "--shard", "0") == 0
    assert "already done" in capsys.readouterr().err
    assert degraded(folder) == before


def test_unreadable_crops_are_recorded_up_to_the_limit(tmp_path, photo_u8, capsys):
    folder = tmp_path / "run"
    write_run(folder, photo_u8, shards=1, degraded_fraction=1.0)
    assert run(folder, "plan") == 0
    tar = folder / "crops" / "crops-00000.tar"
    content = bytearray(tar.read_bytes())
    crops = pl.read_parquet(folder / "crops" / "crops.parquet")
    start = crops["offset"][0]
    content[start : start + 16] = b"\0" * 16
    tar.write_bytes(content)
    assert run(folder, "apply", "--shard", "0") == 2
    assert "crop_unreadable: 6" in capsys.readouterr().err
    assert not (folder / "degraded" / "degraded-00000.json").exists()
    config = json.loads((folder / "config.resolved.json").read_text())
    config["degrade"]["max_failure_fraction"] = 0.5
    (folder / "config.resolved.json").write_text(json.dumps(config))
    assert run(folder, "apply", "--shard", "0") == 0
    manifest = json.loads((folder / "degraded" / "degraded-00000.json").read_text())
    assert manifest["counts"] == {"images": 30, "rejected": {"crop_unreadable": 6}}
    assert manifest["rejected"][0]["key"].startswith(crops["crop_id"][0])


def test_try_outs_write_nothing(tmp_path, photo_u8, capsys):
    folder = tmp_path / "run"
    write_run(folder, photo_u8)
    assert run(folder, "plan", "--dry-run") == 0 and run(folder, "plan", "--limit", "2") == 0
    assert "'references': 2" in capsys.readouterr().err
    assert not (folder / "plan.parquet").exists()
    assert run(folder, "apply", "--shard", "0") == 2
    assert run(folder, "plan") == 0
    assert run(folder, "apply", "--shard", "0", "--dry-run") == 0
    assert run(folder, "apply", "--shard", "0", "--limit", "3") == 0
    assert not (folder / "degraded").exists()
    assert run(folder, "apply", "--shard", "9") == 2
    assert "shard 9 asked for; plan.shards is 2" in capsys.readouterr().err


@pytest.mark.parametrize("preset", ["diffiqa", "realesrgan"])
def test_preview_is_a_sheet(tmp_path, photo_u8, preset):
    photo = tmp_path / "photo.jpg"
    cv2.imwrite(str(photo), photo_u8[:200, :220, ::-1])
    out = tmp_path / "sheet.png"
    assert main(["preview", str(photo), "--preset", preset, "--out", str(out)]) == 0
    sheet = decode_png(out.read_bytes(), where="sheet")
    assert sheet.shape[0] > 1000 and sheet.shape[1] > 1300


def test_preview_says_what_is_wrong(tmp_path, photo_u8, capsys):
    out = str(tmp_path / "sheet.png")
    assert main(["preview", str(tmp_path / "none.jpg"), "--out", out]) == 2
    assert "photograph not found" in capsys.readouterr().err
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), photo_u8[:50, :50])
    assert main(["preview", str(photo), "--out", out]) == 2
    assert "a preview needs 96" in capsys.readouterr().err
    assert main(["preview", str(photo), "--preset", "no", "--out", out]) == 2
    assert not Path(out).exists()


def test_killed_apply_starts_anew_and_gives_the_same_bytes(tmp_path, photo_u8):
    whole, killed = tmp_path / "a" / "run", tmp_path / "b" / "run"
    for folder in (whole, killed):
        write_run(folder, photo_u8, shards=1, workers=2, per_reference=60)
        assert run(folder, "plan") == 0
    assert run(whole, "apply", "--shard", "0") == 0
    config = str(killed / "config.resolved.json")
    command = [sys.executable, "-m", "degrade", "apply", "--config", config, "--shard", "0"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if any(path.stat().st_size for path in killed.glob("degraded/.*.tmp")):
            break  # the tar is being written
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "ended before it was killed"
    assert degraded(killed) == {}
    assert run(killed, "apply", "--shard", "0") == 0
    assert degraded(killed) == degraded(whole)
    assert not list(killed.glob("degraded/.*.tmp")), "what the killed process left is gone"
