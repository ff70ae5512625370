"""`python -m crop run` end to end: hostile folders, resume, same bytes whatever the processes."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from PIL import Image

from crop.__main__ import main
from crop.config import CropConfig
from crop.listing import ListedPhoto
from crop.photograph import PhotoTask
from crop.pool import process_photos
from runtime.images import decode_png
from runtime.settings import load_run
from runtime.tars import Member, iter_samples, read_member

REPOSITORY = Path(__file__).parents[2]
SMALL = {
    "size_px": 64, "max_overlap_px": 16, "jitter_px": 4, "first_offset_px": [4, 8, 16],
    "photo_min_grey_std": 5, "photo_min_laplacian_var": 5, "min_grey_std": 5,
    "min_laplacian_var": 5, "workers": 1,
}  # fmt: skip


def write_run(folder, sources, **crop):
    folder.mkdir(parents=True, exist_ok=True)
    values = {"run": folder.name, "seed": 1, "sources": sources, "crop": {**SMALL, **crop}}
    (folder / "config.resolved.json").write_text(json.dumps(values))
    return folder


def run(folder, *flags):
    return main(["run", "--config", str(folder / "config.resolved.json"), *flags])


def table(folder, name):
    return pl.read_parquet(folder / "crops" / name)


def contents(folder):
    names = ["listing.json", "manifest.json", "crops.parquet", "rejected.parquet"]
    files = [folder / "crops" / name for name in names] + sorted(folder.glob("crops/*.tar"))
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, photo_u8):
    """Five different photographs of some crops each."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(5):
        part = photo_u8[60 * index : 60 * index + 200, 40 * index : 40 * index + 260]
        Image.fromarray(np.rot90(part, index % 3).copy()).save(folder / f"photo {index}.png")
    return folder


def test_crops_are_cut_where_the_table_says(tmp_path, photographs):
    folder = write_run(tmp_path / "run", [{"name": "cam", "path": str(photographs)}])
    assert run(folder) == 0
    crops = table(folder, "crops.parquet")
    assert crops["crop_id"].is_sorted() and crops["crop_id"].n_unique() == crops.height > 20
    keys = [key for key, _ in iter_samples(folder / "crops" / "crops-00000.tar")]
    assert keys == crops["crop_id"].to_list()
    for row in crops.iter_rows(named=True):
        member = Member(f"{row['crop_id']}.png", row["offset"], row["size_bytes"])
        crop = decode_png(read_member(folder / "crops" / "crops-00000.tar", member), where="crop")
        photo = np.asarray(Image.open(photographs / row["path"]))
        window = photo[row["row"] : row["row"] + 64, row["col"] : row["col"] + 64]
        np.testing.assert_array_equal(crop, window)
    by_photo = crops.group_by("photo_id").agg(pl.col("split").n_unique())
    assert by_photo["split"].max() == 1
    assert set(crops["split"]) == {"train", "val", "test"}


def test_finished_run_says_so_and_other_settings_are_refused(tmp_path, photographs, capsys):
    folder = write_run(tmp_path / "run", [{"name": "cam", "path": str(photographs)}])
    assert run(folder) == 0
    before = contents(folder)
    assert run(folder) == 0
    assert contents(folder) == before
    write_run(folder, [{"name": "cam", "path": str(photographs)}], min_grey_std=30)
    assert run(folder) == 2
    assert "crop.min_grey_std" in capsys.readouterr().err
    assert run(folder, "--replace") == 0
    assert contents(folder) != before


def test_processes_and_shards_do_not_change_pixels(tmp_path, photographs):
    source = [{"name": "cam", "path": str(photographs)}]
    one = write_run(tmp_path / "a" / "run", source)
    four = write_run(tmp_path / "b" / "run", source, workers=4)
    small = write_run(tmp_path / "c" / "run", source, crops_per_shard=7)
    assert [run(one), run(four), run(small)] == [0, 0, 0]
    assert contents(one) == contents(four)
    kept = table(one, "crops.parquet").drop("shard", "offset")
    assert kept.equals(table(small, "crops.parquet").drop("shard", "offset"))
    assert len(list(small.glob("crops/*.tar"))) > 2


def test_killed_run_goes_on_and_gives_the_same_bytes(tmp_path, photographs):
    source = [{"name": "cam", "path": str(photographs)}]
    whole = write_run(tmp_path / "a" / "run", source)
    assert run(whole) == 0
    killed = write_run(tmp_path / "b" / "run", source, workers=2)
    command = [
        sys.executable,
        "-m",
        "crop",
        "run",
        "--config",
        str(killed / "config.resolved.json"),
    ]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    state = killed / "crops" / ".state" / "photos"
    deadline = time.monotonic() + 120
    while not list(state.glob("*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "crops" / "manifest.json").exists()
    records = {path.name: path.stat().st_mtime_ns for path in state.glob("*.json")}
    assert records
    write_run(killed, source)  # other number of processes: not another result
    assert run(killed) == 0
    assert contents(killed) == contents(whole)


def test_limit_is_a_part_of_the_work(tmp_path, photographs):
    folder = write_run(tmp_path / "run", [{"name": "cam", "path": str(photographs)}])
    assert run(folder, "--dry-run") == 0
    assert not (folder / "crops").exists()
    assert run(folder, "--limit", "2") == 0
    assert not (folder / "crops" / "manifest.json").exists()
    assert len(list((folder / "crops" / ".state" / "photos").glob("*.json"))) == 2
    assert run(folder) == 0


def test_target_count_spreads_over_photographs(tmp_path, photographs):
    source = [{"name": "cam", "path": str(photographs)}]
    folder = write_run(tmp_path / "run", source, target_count=11)
    assert run(folder) == 0
    counts = table(folder, "crops.parquet").group_by("photo_id").len()["len"]
    assert counts.sum() == 11 and counts.max() - counts.min() <= 1 and len(counts) == 5
    left_out = table(folder, "rejected.parquet").filter(pl.col("reason") == "not_selected")
    assert left_out.height > 0 and left_out["row"].null_count() == 0


def test_filters_record_what_they_measured(tmp_path, photo_u8):
    photos = tmp_path / "photos"
    photos.mkdir()
    half_flat = np.full((64, 128, 3), 90, np.uint8)
    half_flat[:, :64] = photo_u8[:64, 200:264]
    blurred = cv2.GaussianBlur(photo_u8[:128, :128], None, 9)
    Image.fromarray(half_flat).save(photos / "half.png")
    Image.fromarray(blurred).save(photos / "blurred.png")
    Image.fromarray(np.full((100, 100, 3), 7, np.uint8)).save(photos / "flat.png")
    Image.fromarray(photo_u8[:63, :300].copy()).save(photos / "small.png")
    folder = write_run(
        tmp_path / "run", [{"name": "cam", "path": str(photos)}], first_offset_px=[0, 0, 0],
        max_overlap_px=1, jitter_px=0,
    )  # fmt: skip
    assert run(folder) == 0
    rejected = {row["path"]: row for row in table(folder, "rejected.parquet").iter_rows(named=True)}
    assert rejected["flat.png"]["reason"] == "photo_low_contrast"
    assert rejected["flat.png"]["value"] == 0
    assert rejected["blurred.png"]["reason"] == "photo_low_detail"
    assert rejected["blurred.png"]["value"] < 5
    assert rejected["small.png"]["reason"] == "too_small" and rejected["small.png"]["value"] == 63
    assert rejected["half.png"]["reason"] == "low_contrast"
    assert (rejected["half.png"]["row"], rejected["half.png"]["col"]) == (0, 64)
    assert table(folder, "crops.parquet")["crop_id"].to_list() == ["cam-half-x0y0"]


def test_duplicates_are_reported_dropped_and_share_a_split(tmp_path, photographs):
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted(photographs.iterdir()):
        (photos / path.name).write_bytes(path.read_bytes())
    (photos / "z same.png").write_bytes((photos / "photo 0.png").read_bytes())
    Image.open(photos / "photo 1.png").save(photos / "z alike.jpg", quality=80)
    source = [{"name": "cam", "path": str(photos)}]
    folder = write_run(tmp_path / "run", source)
    assert run(folder) == 0
    found = table(folder, "duplicates.parquet").select("path", "of_path", "kind", "is_dropped")
    assert found.rows() == [
        ("z alike.jpg", "photo 1.png", "near", False),
        ("z same.png", "photo 0.png", "exact", True),
    ]
    splits = dict(table(folder, "crops.parquet").select("photo_id", "split").unique().rows())
    assert splits["cam-z-alike"] == splits["cam-photo-1"] and "cam-z-same" not in splits
    strict = write_run(tmp_path / "strict", source, near_duplicates="drop")
    assert run(strict) == 0
    reasons = table(strict, "rejected.parquet").select("path", "reason").rows()
    assert ("z alike.jpg", "near_duplicate") in reasons and ("z same.png", "duplicate") in reasons


def hostile_folder(folder, photo_u8):
    """One crafted file per reason; returns the reasons by path."""
    good = Image.fromarray(photo_u8[:200, :200].copy())
    jpeg = io.BytesIO()
    good.save(jpeg, "JPEG", quality=95)
    content = jpeg.getvalue()
    (folder / "sub").mkdir(parents=True)
    (folder / "good photo, ünïcode.v2_final.JPG").write_bytes(content)
    (folder / ("long" * 55 + ".jpg")).write_bytes(content[:-2] + b"\xff\xd9")
    (folder / "empty.jpg").touch()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    good.save(folder / "really.png", "JPEG")
    (folder / "text.jpg").write_text("no photograph")
    frames = [good, good.rotate(90)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(photo_u8[:40, :40].copy()).save(folder / "tiny.png")
    Image.new("1", (30_000, 10_000)).save(folder / "bomb.png")
    good.save(folder / "sub" / "same name.png")
    good.rotate(180).save(folder / "sub" / "same_name.png")
    (folder / "sub" / "loop").symlink_to(folder)
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    return {
        "empty.jpg": "empty", "cut.jpg": "truncated", "really.png": "wrong_extension",
        "text.jpg": "not_an_image", "moving.gif": "several_frames", "tiny.png": "too_small",
        "bomb.png": "too_large", "sub/same_name.png": "key_collision", "sub/loop": "symlink_loop",
        "self.jpg": "unreadable", "gone.jpg": "unreadable",
    }  # fmt: skip


def test_hostile_folder_is_survived(tmp_path, photo_u8):
    expected = hostile_folder(tmp_path / "photos", photo_u8)
    folder = write_run(
        tmp_path / "run", [{"name": "cam", "path": str(tmp_path / "photos")}],
        max_failure_fraction=0.9, exact_duplicates="report", workers=2,
    )  # fmt: skip
    assert run(folder) == 0
    rejected = table(folder, "rejected.parquet")
    found = {row["path"]: row["reason"] for row in rejected.iter_rows(named=True)}
    assert {path: found.get(path) for path in expected} == expected
    crops = table(folder, "crops.parquet")
    assert crops["photo_id"].n_unique() == 3
    assert "cam-good-photo-unicode-v2-final" in set(crops["photo_id"])
    counts = json.loads((folder / "crops" / "manifest.json").read_text())["counts"]
    assert counts["rejected"]["unreadable"] == 2 and counts["files"] == 14


def test_nothing_usable_is_one_line_and_no_manifest(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    source = [{"name": "cam", "path": str(photos)}]
    folder = write_run(tmp_path / "run", source)
    assert run(folder) == 2
    assert "no file in" in capsys.readouterr().err
    (photos / "text.jpg").write_text("no photograph")
    assert run(folder) == 2
    assert "1 of 1 files were rejected (not_an_image: 1)" in capsys.readouterr().err
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(photos / "black.png")
    assert run(folder, "--replace") == 2
    assert (
        "no crop is left of 2 files (not_an_image: 1, photo_low_contrast: 1)"
        in capsys.readouterr().err
    )
    assert not (folder / "crops" / "manifest.json").exists()
    assert not (folder / "crops" / "crops.parquet").exists()


class Killer:
    """Ends the process that unpickles it, as a decoder that crashes would."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_decoder_that_takes_its_process_down_costs_one_photograph(tmp_path, photographs):
    run_folder = write_run(tmp_path / "run", [{"name": "cam", "path": str(photographs)}])
    config = load_run(run_folder / "config.resolved.json").section("crop", CropConfig)
    photos = [
        ListedPhoto("cam", path.name, path, f"cam-{index}")
        for index, path in enumerate(sorted(photographs.iterdir()))
    ]
    tasks = [PhotoTask(photo, config, 1, tmp_path / "state") for photo in photos]
    tasks[2] = PhotoTask(photos[2], Killer(), 1, tmp_path / "state")
    records = {record.photo_id: record for record in process_photos(tasks, workers=2)}
    assert len(records) == 5
    assert [flaw.reason for flaw in records["cam-2"].rejected] == ["crashed"]
    assert all(records[f"cam-{index}"].crops for index in (0, 1, 3, 4))


@pytest.mark.slow
def test_hundred_megapixels_fit_in_three_gigabytes(tmp_path, photo_u8):
    photos = tmp_path / "photos"
    photos.mkdir()
    large = cv2.resize(photo_u8, (12_000, 8_400), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(photos / "large.jpg"), large[..., ::-1])
    del large
    folder = write_run(
        tmp_path / "run", [{"name": "cam", "path": str(photos)}], size_px=512, max_overlap_px=128,
        min_laplacian_var=0, photo_min_laplacian_var=0,
    )  # fmt: skip
    code = (
        "import resource, sys\nfrom crop.__main__ import main\n"
        "status = main(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\nsys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--config", str(folder / "config.resolved.json")],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout.split()[-1]) < 3e9
    assert table(folder, "crops.parquet").height > 400
